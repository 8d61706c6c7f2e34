//! Transactional producers. They write to several partitions, commit or abort, repeat what was not answered, and
//! sometimes end before they are done, sleep longer than their transactions may take, or give up too early. One that
//! ends has a successor at once; some are only thought dead, and go on as zombies until they are told.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::PartitionKey;
use varve_partition::Verified;
use varve_types::{Acks, ErrorKind, NodeId, Offset, ProducerId, Sequence};

use super::super::disk::Kind;
use super::super::groups;
use super::super::world::{Addr, Event, Message, Origin, Produce, World};
use super::seen::Transaction;
use super::{Answer, Ask, Call, KEEPER, Registers, Role, Transactions};

/// First number of a transactional producer, as messages name it.
pub(in crate::cluster) const WRITERS: usize = 10;
/// Transactional ids of producers that stay; there is one more that leaves a transaction open for good.
const NAMES: usize = 2;
/// After so long without answer it is asked again, milliseconds.
const TIMEOUT_MS: u64 = 250;
/// After so long a batch is given up, and with it the transaction, milliseconds.
const DELIVERY_MS: u64 = 2_000;
/// Transactions that are committed after everything is healed.
const ENOUGH: u64 = 2;

/// A batch on its way.
#[derive(Debug, Clone, Copy)]
struct Pending {
    produce: Produce,
    first_sent: u64,
    sent: u64,
    again: bool,
}

/// A call that is not answered.
#[derive(Debug, Clone, Copy)]
struct Asked {
    request: u64,
    call: Call,
    sent: u64,
    /// It was sent before, to whom it thought is the coordinator, and nobody answered.
    unanswered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It wants a session; of its own, if it has one that it may keep.
    Begin,
    /// It writes.
    Work,
    /// It ends its transaction.
    End { commit: bool },
}

/// A transactional producer.
#[derive(Debug)]
pub(in crate::cluster) struct Writer {
    number: usize,
    name: usize,
    timeout_ms: u64,
    every_ms: u64,
    /// It has a successor.
    zombie: bool,
    /// It ends with a transaction open, and nobody comes after it.
    quits: bool,
    stage: Stage,
    session: Option<ProducerId>,
    serial: u64,
    batches_left: u64,
    begun: bool,
    /// It registers partitions itself, rather than leave it to their leaders.
    explicit: bool,
    added: BTreeSet<PartitionKey>,
    /// Transactions that have ended in its epoch, of one that keeps it.
    ended: i64,
    sequences: BTreeMap<PartitionKey, i32>,
    pending: BTreeMap<u64, Pending>,
    asked: Option<Asked>,
    next_request: u64,
    coordinator: Option<NodeId>,
    leaders: BTreeMap<PartitionKey, NodeId>,
    /// Offsets to be committed with the transaction: what, when it was asked, and whether that was answered.
    offsets: Option<(u64, groups::Ask, u64)>,
    wants_offsets: bool,
    group_coordinator: Option<NodeId>,
    /// The transaction cannot be committed any more.
    doomed: bool,
    asleep_until: u64,
    committed_since_heal: u64,
}

impl Writer {
    /// Whether it has everything that an end of the run waits for.
    pub(in crate::cluster) const fn content(&self) -> bool {
        self.zombie || (!self.quits && self.committed_since_heal >= ENOUGH && !self.begun)
    }

    /// For people.
    pub(in crate::cluster) fn state(&self) -> String {
        format!("{self:?}")
    }

    /// Whether it keeps its epoch from one transaction to the next. Such a one registers every partition itself, and
    /// ends no transaction with batches under way, unless it begins a new session after that.
    pub(super) const fn keeps(&self) -> bool {
        self.name == KEEPER
    }

    /// Whether it waits for the answer to that call.
    pub(in crate::cluster) fn asks(&self, request: u64) -> bool {
        let offsets = self.offsets.as_ref().is_some_and(|o| o.0 == request);
        offsets || self.asked.is_some_and(|a| a.request == request)
    }

    fn request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    fn ask(&mut self, now: u64, ask: Ask) {
        let (request, call) = (
            self.request(),
            Call {
                name: self.name,
                ask,
            },
        );
        // Sent at once, as one that was not answered in time.
        let sent = now.saturating_sub(TIMEOUT_MS + 1);
        self.asked = Some(Asked {
            request,
            call,
            sent,
            unanswered: false,
        });
    }

    /// The next transaction, with a session of its own.
    fn begin(&mut self, session: ProducerId, serial: u64, batches: u64, explicit: bool) {
        let goes_on = self.keeps() && self.session == Some(session);
        self.ended = match goes_on {
            true => self.ended + 1,
            false => 0,
        };
        if !goes_on {
            self.sequences.clear();
        }
        self.session = Some(session);
        self.serial = serial;
        self.batches_left = batches;
        self.explicit = explicit || self.keeps();
        self.stage = Stage::Work;
        self.begun = false;
        self.doomed = false;
        self.added.clear();
        self.pending.clear();
        self.offsets = None;
        self.wants_offsets = explicit != batches.is_multiple_of(2);
    }

    /// Its session is over.
    fn start_over(&mut self, keep: bool) {
        if !keep {
            self.session = None;
        }
        self.stage = Stage::Begin;
        self.begun = false;
        self.pending.clear();
        self.offsets = None;
        self.asked = None;
    }

    fn batch(&mut self, now: u64, key: PartitionKey, records: u32) -> Option<u64> {
        let producer = self.session?;
        let request = self.request();
        let sequence = self.sequences.entry(key).or_default();
        let first = Sequence::new(*sequence).unwrap_or_default();
        *sequence += records as i32;
        let value = (self.number as u64) << 40 | request;
        let produce = Produce {
            origin: Origin::Writer {
                number: self.number,
                name: self.name,
                registers: match self.keeps() && self.added.contains(&key) {
                    true => Registers::Producer,
                    false => Registers::Leader,
                },
            },
            request,
            key,
            value,
            records,
            producer: Some((producer, first)),
            resumes: false,
            acks: Acks::All,
            kind: Kind::Transactional,
            leader_epoch: None,
            verified: Verified::No,
        };
        let pending = Pending {
            produce,
            first_sent: now,
            sent: now,
            again: true,
        };
        self.pending.insert(request, pending);
        self.batches_left = self.batches_left.saturating_sub(1);
        self.begun = true;
        Some(value)
    }

    /// What is sent now: calls and batches that nobody has answered for too long.
    fn due(&mut self, now: u64) -> Vec<(Option<NodeId>, Message)> {
        let mut due = Vec::new();
        if self
            .pending
            .values()
            .any(|p| p.first_sent + DELIVERY_MS < now)
        {
            self.doomed = true;
            self.pending.clear();
        }
        if let Some(asked) = self.asked.as_mut().filter(|a| a.sent + TIMEOUT_MS < now) {
            asked.sent = now;
            if std::mem::replace(&mut asked.unanswered, true) {
                self.coordinator = None;
            }
            let (request, call) = (asked.request, asked.call);
            due.push((self.coordinator, Message::Call { request, call }));
        }
        if let Some((request, ask, sent)) = &mut self.offsets
            && *sent + TIMEOUT_MS < now
        {
            *sent = now;
            let (request, ask) = (*request, ask.clone());
            due.push((
                self.group_coordinator.take(),
                Message::AskGroup { request, ask },
            ));
        }
        for pending in self.pending.values_mut() {
            let late = pending.sent + TIMEOUT_MS < now;
            if late {
                self.leaders.remove(&pending.produce.key);
            }
            if late || pending.again {
                pending.sent = now;
                pending.again = false;
                let leader = self.leaders.get(&pending.produce.key).copied();
                due.push((leader, Message::Produce(pending.produce)));
            }
        }
        due
    }
}

impl Transactions {
    fn writer(&mut self, name: usize, timeout_ms: u64, every_ms: u64) -> usize {
        let number = WRITERS + self.next_writer;
        self.next_writer += 1;
        let writer = Writer {
            number,
            name,
            timeout_ms,
            every_ms,
            zombie: false,
            quits: name == NAMES,
            stage: Stage::Begin,
            session: None,
            serial: 0,
            batches_left: 0,
            begun: false,
            explicit: false,
            added: BTreeSet::new(),
            ended: 0,
            sequences: BTreeMap::new(),
            pending: BTreeMap::new(),
            asked: None,
            next_request: 0,
            coordinator: None,
            leaders: BTreeMap::new(),
            offsets: None,
            wants_offsets: false,
            group_coordinator: None,
            doomed: false,
            asleep_until: 0,
            committed_since_heal: 0,
        };
        self.writers.insert(number, writer);
        number
    }

    fn next_serial(&mut self) -> u64 {
        let serial = self.seen.transactions.len() as u64;
        self.seen
            .transactions
            .insert(serial, Transaction::default());
        serial
    }
}

impl World {
    /// The transactional producers of the beginning.
    pub(in crate::cluster) fn begin_writers(&mut self) {
        for name in 0..=NAMES {
            let mut timeout_ms = 1_500 + self.rng.below(2_500);
            if name == KEEPER {
                // It has more to ask before it can end one.
                timeout_ms += 2_500;
            }
            let every_ms = 5 + self.rng.below(30);
            let number = self.transactions.writer(name, timeout_ms, every_ms);
            self.at(300, Event::Client(number));
        }
    }

    pub(in crate::cluster) fn writer_acts(&mut self, number: usize) {
        let (now, healed) = (self.now, self.healed);
        let Some(writer) = self.transactions.writers.get(&number) else {
            return;
        };
        let (every, asleep) = (writer.every_ms, writer.asleep_until > now);
        self.at(every, Event::Client(number));
        if asleep || self.keys().is_empty() {
            return;
        }
        if !healed && writer_begun(self.transactions.writers.get(&number)) {
            match self.rng.below(160) {
                0 => return self.writer_ends(number),
                1 => return self.writer_sleeps(number),
                _ => {}
            }
        }
        self.writer_decides(number);
        let Some(writer) = self.transactions.writers.get_mut(&number) else {
            return;
        };
        for (to, message) in writer.due(now) {
            let guess = NodeId(1 + self.rng.below(self.knobs.nodes as u64) as i32);
            self.send(
                Addr::Client(number),
                Addr::Node(to.unwrap_or(guess)),
                message,
            );
        }
    }

    /// What it wants next, if nothing holds it up.
    fn writer_decides(&mut self, number: usize) {
        let (now, healed) = (self.now, self.healed);
        let data: Vec<PartitionKey> = self
            .keys()
            .into_iter()
            .filter(|k| self.role(*k) == Role::Data)
            .collect();
        let key = data[self.rng.below(data.len() as u64) as usize];
        let records = 1 + self.rng.below(3) as u32;
        let (impatient, aborts) = (self.rng.below(25) == 0, self.rng.below(5) == 0);
        let commit = self.group.serial();
        let home = self.log_of(Role::Offsets);
        let Transactions { writers, seen, .. } = &mut self.transactions;
        let Some(writer) = writers.get_mut(&number).filter(|w| w.asked.is_none()) else {
            return;
        };
        if impatient && !healed && writer.keeps() && writer.begun {
            // It gives up what is under way, and so the transaction, and the session after that.
            writer.doomed |= !writer.pending.is_empty();
            writer.pending.clear();
        }
        let impatient = impatient && !writer.keeps();
        let number = writer.keeps().then_some(writer.ended + 1);
        if let Some(transaction) = seen.transactions.get_mut(&writer.serial) {
            transaction.number = number;
        }
        match (writer.stage, writer.session) {
            (Stage::Begin, keep) => {
                let timeout_ms = writer.timeout_ms;
                writer.ask(now, Ask::Init { timeout_ms, keep });
            }
            (Stage::Work, Some(producer)) => {
                if healed && !writer.quits && !writer.begun && writer.committed_since_heal >= ENOUGH
                {
                    return;
                }
                let more = writer.batches_left > 0 && !writer.doomed;
                let busy = writer.pending.values().any(|p| p.produce.key == key);
                if more && !(impatient && writer.begun) {
                    if busy {
                        return;
                    }
                    // Its first registration waits for the end of the transaction before. Others it may leave to
                    // leaders then, and end all the same as one that keeps its epoch.
                    let leaves = writer.keeps() && !writer.added.is_empty() && records == 1;
                    if writer.explicit && !writer.added.contains(&key) && !leaves {
                        writer.begun = true;
                        return writer.ask(now, Ask::Add { producer, key });
                    }
                    let serial = writer.serial;
                    if let Some(value) = writer.batch(now, key, records) {
                        seen.of_batch.insert(value, serial);
                        if let Some(transaction) = seen.transactions.get_mut(&serial) {
                            transaction.batches.insert(value, false);
                        }
                    }
                } else if writer.wants_offsets && !writer.doomed {
                    if let Some(key) = home.filter(|k| writer.keeps() && !writer.added.contains(k))
                    {
                        return writer.ask(now, Ask::Add { producer, key });
                    }
                    writer.wants_offsets = false;
                    writer.begun = true;
                    seen.of_offset.insert(commit, writer.serial);
                    let (name, partition, serial) = (writer.name, key.partition.0, commit);
                    let ask = groups::Ask::TxnCommit {
                        producer,
                        name,
                        partition,
                        serial,
                    };
                    let sent = now.saturating_sub(TIMEOUT_MS + 1);
                    writer.offsets = Some((writer.request(), ask, sent));
                } else if (writer.pending.is_empty() && writer.offsets.is_none()) || impatient {
                    let commit = !writer.doomed && !aborts;
                    writer.stage = Stage::End { commit };
                    if let Some(transaction) = seen.transactions.get_mut(&writer.serial) {
                        transaction.commit_asked |= commit;
                    }
                    writer.ask(now, Ask::End { producer, commit });
                }
            }
            (Stage::Work | Stage::End { .. }, _) => writer.start_over(true),
        }
    }

    /// It dies, or seems to; another takes its place.
    fn writer_ends(&mut self, number: usize) {
        let (lives, sleeps) = (self.rng.below(2) == 0, self.rng.below(900));
        let Some(writer) = self
            .transactions
            .writers
            .get_mut(&number)
            .filter(|w| !w.zombie)
        else {
            return;
        };
        writer.zombie = true;
        writer.asleep_until = self.now + sleeps;
        let (name, timeout_ms, every_ms) = (writer.name, writer.timeout_ms, writer.every_ms);
        if !lives {
            self.transactions.writers.remove(&number);
        }
        let successor = self.transactions.writer(name, timeout_ms, every_ms);
        self.count("transactional producer replaced");
        self.say(|_| format!("producer {number} of p{name} is replaced by {successor}"));
        self.at(1, Event::Client(successor));
    }

    fn writer_sleeps(&mut self, number: usize) {
        if let Some(writer) = self.transactions.writers.get_mut(&number) {
            writer.asleep_until = self.now + 2 * writer.timeout_ms;
            self.count("transactional producer sleeps too long");
        }
    }

    pub(in crate::cluster) fn writer_hears(
        &mut self,
        number: usize,
        message: Message,
    ) -> Result<(), String> {
        match message {
            Message::Taken {
                request,
                result,
                hint,
            } => self.batch_answered(number, request, result, hint),
            Message::Called { request, answer } => self.call_answered(number, request, answer),
            Message::GroupTold { request, reply } => {
                self.offsets_answered(number, request, &reply);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn batch_answered(
        &mut self,
        number: usize,
        request: u64,
        result: Result<Offset, ErrorKind>,
        hint: Option<NodeId>,
    ) -> Result<(), String> {
        let healed = self.healed;
        let Transactions { writers, seen, .. } = &mut self.transactions;
        let Some(writer) = writers.get_mut(&number) else {
            return Ok(());
        };
        let Some(pending) = writer.pending.get_mut(&request) else {
            return Ok(());
        };
        let Produce { key, value, .. } = pending.produce;
        match result {
            Ok(_) => {
                writer.pending.remove(&request);
                if let Some(transaction) = seen.transactions.get_mut(&writer.serial) {
                    transaction.batches.insert(value, true);
                }
                if healed && writer.quits {
                    writers.remove(&number);
                    self.count("transaction left open for good");
                }
            }
            Err(
                ErrorKind::ProducerFenced
                | ErrorKind::TransactionAborted
                | ErrorKind::InvalidTransactionState
                | ErrorKind::UnknownProducer
                | ErrorKind::OutOfOrderSequence,
            ) => {
                writer.pending.clear();
                writer.doomed = true;
            }
            Err(_) => {
                pending.again = true;
                match hint {
                    Some(leader) => writer.leaders.insert(key, leader),
                    None => writer.leaders.remove(&key),
                };
            }
        }
        Ok(())
    }

    fn offsets_answered(&mut self, number: usize, request: u64, reply: &groups::Reply) {
        let now = self.now;
        let Transactions { writers, seen, .. } = &mut self.transactions;
        let Some(writer) = writers.get_mut(&number) else {
            return;
        };
        if let (Some(offsets), groups::Reply::Failed(ErrorKind::NotCoordinator, Some(hint))) =
            (&mut writer.offsets, reply)
            && offsets.0 == request
        {
            // Nothing was committed there.
            writer.group_coordinator = Some(*hint);
            offsets.2 = now.saturating_sub(TIMEOUT_MS + 1);
            return;
        }
        let Some((_, groups::Ask::TxnCommit { serial, .. }, _)) =
            writer.offsets.take_if(|o| o.0 == request)
        else {
            return;
        };
        match reply {
            groups::Reply::Committed => {
                if let Some(transaction) = seen.transactions.get_mut(&writer.serial) {
                    transaction.offsets.push(serial);
                }
            }
            groups::Reply::Failed(_, hint) => {
                // It is not repeated: with what may or may not be there, the transaction ends.
                writer.group_coordinator = *hint;
                writer.doomed = true;
            }
            _ => {}
        }
    }

    fn call_answered(&mut self, number: usize, request: u64, answer: Answer) -> Result<(), String> {
        let (now, serial, healed) = (self.now, self.transactions.next_serial(), self.healed);
        let (batches, explicit) = (1 + self.rng.below(4), self.rng.below(2) == 0);
        let Transactions { writers, seen, .. } = &mut self.transactions;
        let Some(writer) = writers.get_mut(&number) else {
            return Ok(());
        };
        let Some(asked) = writer.asked.filter(|a| a.request == request) else {
            return Ok(());
        };
        let mut line = None;
        match (asked.call.ask, answer) {
            (Ask::Init { .. }, Ok(session)) => {
                writer.asked = None;
                writer.begin(session, serial, batches, explicit);
            }
            // Only leaders ask that.
            (Ask::Verify { .. }, Ok(_)) => {}
            (Ask::Add { key, .. }, Ok(_)) => {
                writer.asked = None;
                writer.added.insert(key);
            }
            (Ask::End { commit, .. }, Ok(session)) => {
                writer.asked = None;
                writer.committed_since_heal += u64::from(healed && commit);
                let ended = writer.serial;
                line = Some(format!(
                    "producer {number} learns that transaction {ended} is committed: {commit}"
                ));
                seen.told(ended, commit)?;
                let offsets = seen.transactions.get(&ended).map(|t| t.offsets.clone());
                for serial in offsets.into_iter().flatten().filter(|_| commit) {
                    self.group.seen.acknowledged(serial)?;
                }
                match writer.keeps() && writer.doomed {
                    true => writer.start_over(true),
                    false => writer.begin(session, serial, batches, explicit),
                }
            }
            (ask, Err((ErrorKind::TransactionAborted, _))) => {
                if ask.is_of(writer.stage) {
                    seen.told(writer.serial, false)?;
                }
                writer.start_over(true);
            }
            (Ask::End { commit, .. }, Err((ErrorKind::InvalidTransactionState, _))) => {
                seen.told(writer.serial, !commit)?;
                writer.start_over(false);
            }
            (_, Err((ErrorKind::ProducerFenced, _))) if writer.zombie => {
                writers.remove(&number);
            }
            (_, Err((ErrorKind::ProducerFenced, _))) => writer.start_over(false),
            (_, Err((ErrorKind::UnknownProducer, _))) => {
                return Err(format!(
                    "the coordinator does not know producer {number}: {:?}",
                    writer.session
                ));
            }
            (_, Err((_, hint))) => {
                writer.coordinator = hint;
                if let Some(asked) = writer.asked.as_mut().filter(|_| hint.is_some()) {
                    asked.unanswered = false;
                    asked.sent = now.saturating_sub(TIMEOUT_MS + 1);
                }
            }
        }
        if let Some(line) = line {
            self.say(|_| line);
        }
        Ok(())
    }
}

impl Ask {
    /// Whether it is about the transaction that is open, and not about what comes after it.
    fn is_of(self, stage: Stage) -> bool {
        !matches!(self, Self::Init { .. }) && stage != Stage::Begin
    }
}

fn writer_begun(writer: Option<&Writer>) -> bool {
    writer.is_some_and(|w| w.begun && !w.zombie)
}
