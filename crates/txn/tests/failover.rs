//! Random producers, coordinators that fail at any step, appends that are written or not, markers that are lost and
//! repeated, clients that repeat what they asked: every transaction gets one decision everywhere (T1), nothing of
//! one touches the next (T3), none stays open once appends work (T4), no marker comes before its decision (T5), and
//! none is written to where it was not registered (T6).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use varve_txn::{
    AppendId, Config, Coordinator, Failure, Input, Lost, Markers, Next, Now, Output, Place, Reply,
    State, Tick, Ticket, codec,
};
use varve_types::{
    ErrorKind, LeaderEpoch, PartitionId, ProducerId, TopicId, TopicName, TransactionalId,
};

const NAMES: usize = 3;
/// The producer of this name keeps its epoch (KIP-98): it registers partitions itself and asks no more of a transaction
/// that it has asked to end, until it is told.
const KEEPER: usize = 2;
const PARTITIONS: usize = 3;
const TIMEOUT_MS: u64 = 5_000;
const WALL_START_MS: i64 = 1_700_000_000_000;

#[derive(Debug, Clone)]
enum Action {
    /// A producer starts, on its own or from what it has.
    Init {
        name: usize,
        keep: bool,
    },
    /// It registers a partition and writes to it once it may.
    Write {
        name: usize,
        partition: usize,
        verify: bool,
    },
    End {
        name: usize,
        commit: bool,
    },
    /// Somebody asks again what was asked before, however long ago, and nobody reads the answer.
    Echo {
        nth: usize,
    },
    /// A batch that was under way arrives late.
    LateWrite {
        nth: usize,
    },
    Operator {
        name: usize,
    },
    /// The oldest append ends.
    Durable,
    Refused,
    Unknown {
        written: bool,
    },
    /// Markers arrive; what they are answered may get lost.
    Deliver {
        nth: usize,
        lose_answer: bool,
    },
    Lose {
        nth: usize,
        say: bool,
    },
    /// Markers that were delivered once come again, and are answered again.
    Again {
        nth: usize,
    },
    /// The coordinator fails; so many of the appends under way are in the log.
    Failover {
        written: usize,
    },
    Advance {
        ms: u64,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let name = 0..NAMES;
    prop_oneof![
        4 => (name.clone(), any::<bool>()).prop_map(|(name, keep)| Action::Init { name, keep }),
        8 => (name.clone(), 0..PARTITIONS, any::<bool>())
            .prop_map(|(name, partition, verify)| Action::Write { name, partition, verify }),
        5 => (name.clone(), any::<bool>()).prop_map(|(name, commit)| Action::End { name, commit }),
        2 => (0_usize..100).prop_map(|nth| Action::Echo { nth }),
        2 => (0_usize..100).prop_map(|nth| Action::LateWrite { nth }),
        1 => name.prop_map(|name| Action::Operator { name }),
        16 => Just(Action::Durable),
        1 => Just(Action::Refused),
        1 => any::<bool>().prop_map(|written| Action::Unknown { written }),
        8 => (0_usize..100, prop::bool::weighted(0.2))
            .prop_map(|(nth, lose_answer)| Action::Deliver { nth, lose_answer }),
        1 => (0_usize..100, any::<bool>()).prop_map(|(nth, say)| Action::Lose { nth, say }),
        1 => (0_usize..100).prop_map(|nth| Action::Again { nth }),
        1 => (0_usize..3).prop_map(|written| Action::Failover { written }),
        2 => (1_u64..3_000).prop_map(|ms| Action::Advance { ms }),
    ]
}

/// A transaction: its producer, and which one of the epoch it is for one that keeps it.
type Txn = (ProducerId, i64);

/// A producer in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Session {
    epoch: i16,
    open: Option<i64>,
    coordinator: i32,
    number: i64,
    /// How many markers of this epoch are there.
    markers: usize,
}

/// One partition, as far as transactions go: the rules that the partition core keeps.
#[derive(Debug, Clone, Default)]
struct Partition {
    sessions: BTreeMap<i64, Session>,
    /// What was decided about transactions that wrote here.
    decided: BTreeMap<Txn, bool>,
}

/// A batch on its way.
#[derive(Debug, Clone, Copy)]
struct Batch {
    txn: Txn,
    partition: usize,
    /// For one that was verified, how many markers of its epoch the partition had when that was asked.
    since: Option<usize>,
}

impl Partition {
    fn session(&mut self, producer: ProducerId) -> &mut Session {
        let new = Session {
            epoch: producer.epoch,
            open: None,
            coordinator: -1,
            number: 0,
            markers: 0,
        };
        self.sessions.entry(producer.id).or_insert(new)
    }

    fn markers(&self, producer: ProducerId) -> usize {
        let session = self.sessions.get(&producer.id);
        let session = session.filter(|s| s.epoch == producer.epoch);
        session.map_or(0, |s| s.markers)
    }

    /// Whether the batch was taken.
    fn append(&mut self, batch: Batch) -> bool {
        let (producer, number) = batch.txn;
        let session = self.session(producer);
        if producer.epoch < session.epoch
            || (session.open.is_some() && producer.epoch > session.epoch)
        {
            return false;
        }
        let markers = match producer.epoch > session.epoch {
            true => 0,
            false => session.markers,
        };
        if session.open.is_none() && batch.since.is_some_and(|since| since != markers) {
            return false;
        }
        if producer.epoch > session.epoch {
            (session.epoch, session.number, session.markers) = (producer.epoch, 0, 0);
        }
        let open = *session.open.get_or_insert(number);
        assert_eq!(
            open, number,
            "T3: a batch of one transaction is taken for another"
        );
        true
    }

    fn mark(&mut self, markers: &Markers) {
        let producer = markers.producer;
        let coordinator = markers.coordinator_epoch.get();
        let before = ProducerId {
            epoch: producer.epoch - i16::from(markers.number.is_none()),
            ..producer
        };
        let session = self.session(before);
        let known = match markers.number {
            None => producer.epoch <= session.epoch,
            Some(number) => {
                producer.epoch < session.epoch
                    || (producer.epoch == session.epoch && number <= session.number)
            }
        };
        if coordinator < session.coordinator || known {
            return;
        }
        if let Some(open) = session.open {
            let ended = ProducerId {
                epoch: session.epoch,
                ..producer
            };
            assert_eq!(
                (ended.epoch, markers.number.unwrap_or(open)),
                (before.epoch, open),
                "T3: a marker ends a transaction that is not its own"
            );
            self.decided.insert((ended, open), markers.commit);
        }
        let session = self.session(before);
        *session = Session {
            epoch: producer.epoch,
            open: None,
            coordinator,
            number: markers.number.unwrap_or(0),
            markers: match producer.epoch > session.epoch {
                true => 1,
                false => session.markers + 1,
            },
        };
    }
}

#[derive(Debug, Clone, Default)]
struct Client {
    session: Option<ProducerId>,
    /// Of one that keeps its epoch: transactions that have ended in it, whether the present one has partitions, and the
    /// end that was asked and is not answered.
    ended: i64,
    registered: bool,
    ending: Option<bool>,
}

impl Client {
    fn begins(&mut self, session: Option<ProducerId>) {
        *self = Self {
            session,
            ..Self::default()
        };
    }
}

#[derive(Debug, Clone)]
enum Asked {
    Init {
        name: usize,
        kept: bool,
    },
    Write(Batch),
    /// A partition, by a producer that keeps its epoch.
    Register {
        name: usize,
        producer: ProducerId,
    },
    End {
        name: usize,
        txn: Txn,
        commit: bool,
    },
    Nothing,
}

struct World {
    coordinator: Coordinator,
    epoch: i32,
    tick: u64,
    next_ticket: u64,
    next_id: i64,
    clients: Vec<Client>,
    partitions: Vec<Partition>,
    pending: BTreeMap<AppendId, (Vec<u8>, Option<Vec<u8>>)>,
    log: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    asked: BTreeMap<Ticket, Asked>,
    /// Everything that was asked, for echoes.
    said: Vec<Input>,
    /// Batches that were allowed to be written and may come late.
    late: Vec<Batch>,
    network: Vec<Markers>,
    delivered: Vec<Markers>,
    /// What producers were promised about their transactions.
    promised: BTreeMap<Txn, bool>,
    /// Partitions each transaction has written to.
    wrote: BTreeMap<Txn, BTreeSet<usize>>,
    sessions: BTreeSet<(usize, ProducerId)>,
}

fn name(index: usize) -> TransactionalId {
    TransactionalId::new(["copy", "join", "keep"][index]).unwrap()
}

fn place(partition: usize) -> Place {
    Place {
        topic: TopicId(1),
        name: TopicName::new("t").unwrap(),
        partition: PartitionId(partition as i32),
    }
}

fn config() -> Config {
    Config {
        max_waiting: 3,
        ..Config::default()
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            coordinator: Coordinator::new(config(), LeaderEpoch::ZERO),
            epoch: 0,
            tick: 0,
            next_ticket: 0,
            next_id: 0,
            clients: vec![Client::default(); NAMES],
            partitions: vec![Partition::default(); PARTITIONS],
            pending: BTreeMap::new(),
            log: Vec::new(),
            asked: BTreeMap::new(),
            said: Vec::new(),
            late: Vec::new(),
            network: Vec::new(),
            delivered: Vec::new(),
            promised: BTreeMap::new(),
            wrote: BTreeMap::new(),
            sessions: BTreeSet::new(),
        };
        world.step(Input::Topics(Arc::new(BTreeSet::from([TopicId(1)]))));
        world.step(Input::Loaded);
        world
    }

    fn step(&mut self, input: Input) {
        let now = Now {
            tick: Tick(self.tick),
            wall_ms: WALL_START_MS + self.tick as i64,
        };
        let mut out = Vec::new();
        self.coordinator.step(now, input, &mut out);
        for output in out {
            match output {
                Output::Append { id, key, value, .. } => {
                    let under_way = self.pending.values().any(|(k, _)| *k == key);
                    assert!(!under_way, "two appends of one id at once");
                    self.pending.insert(id, (key, value));
                }
                Output::SendMarkers(markers) => {
                    self.check_decided(&markers);
                    self.network.push(markers);
                }
                Output::Reply { ticket, reply } => self.answered(ticket, &reply),
                Output::LoadSkipped { error } => panic!("{error}"),
            }
        }
    }

    /// T5: the log says so, and nothing after it says otherwise.
    fn check_decided(&self, markers: &Markers) {
        let key = codec::encode_key(&markers.name);
        let last = self.log.iter().rev().find(|(k, _)| *k == key);
        let value = last.and_then(|(_, value)| value.as_ref());
        let record = codec::decode_value(value.expect("T5: no decision is durable")).unwrap();
        assert_eq!(
            record
                .state
                .commits()
                .filter(|_| record.state.is_deciding()),
            Some(markers.commit),
            "T5: another decision is durable: {record:?}"
        );
        let of = (markers.producer, markers.number);
        assert_eq!(record.marker_producer(), Some(of));
    }

    fn ticket(&mut self, asked: Asked) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.asked.insert(ticket, asked);
        ticket
    }

    fn fresh(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    fn ask(&mut self, input: Input) {
        self.said.push(input.clone());
        self.step(input);
    }

    fn answered(&mut self, ticket: Ticket, reply: &Reply) {
        // One of a coordinator that has failed was answered by its end.
        let Some(asked) = self.asked.remove(&ticket) else {
            panic!("{ticket:?} is answered twice")
        };
        match (asked, reply) {
            (Asked::Init { name, kept }, Reply::Session(producer)) => {
                let new = self.sessions.insert((name, *producer));
                // Who starts over from one session twice gets the same one.
                assert!(new || kept, "T3: a session is given twice");
                self.clients[name].begins(Some(*producer));
            }
            (Asked::Write(batch), Reply::Added | Reply::Verified) => {
                self.late.push(batch);
                self.write(batch);
            }
            (Asked::Register { name, producer }, Reply::Added | Reply::Verified) => {
                let client = &mut self.clients[name];
                client.registered |= client.session == Some(producer);
            }
            (Asked::End { name, txn, commit }, Reply::Ended(next)) => {
                let before = self.promised.insert(txn, commit);
                assert!(before.is_none_or(|b| b == commit), "T1: two answers");
                let client = &mut self.clients[name];
                if client.session == Some(txn.0) && client.ended == txn.1 - 1 && name == KEEPER {
                    assert_eq!(*next, txn.0);
                    (client.ended, client.registered, client.ending) = (txn.1, false, None);
                } else if client.session == Some(txn.0) && name != KEEPER {
                    client.begins(Some(*next));
                }
            }
            (Asked::End { name, txn, commit }, Reply::Failed(failure)) => {
                if commit && failure.kind == ErrorKind::TransactionAborted {
                    let before = self.promised.insert(txn, false);
                    assert!(before.is_none_or(|b| !b), "T1: committed, then aborted");
                }
                let again = matches!(
                    failure.kind,
                    ErrorKind::ConcurrentTransactions
                        | ErrorKind::Throttled
                        | ErrorKind::CommitTimeout
                );
                // Whatever else it is told, its session is over.
                if name == KEEPER && !again && self.clients[name].session == Some(txn.0) {
                    self.clients[name].begins(None);
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, batch: Batch) {
        if self.partitions[batch.partition].append(batch) {
            // It may come after the decision: then the marker finds it, and it is part of what was decided.
            self.wrote
                .entry(batch.txn)
                .or_default()
                .insert(batch.partition);
        }
    }

    fn run(&mut self, action: &Action) {
        match *action {
            Action::Init { name: index, keep } => {
                let kept = keep && self.clients[index].session.is_some();
                let input = Input::Init {
                    ticket: self.ticket(Asked::Init { name: index, kept }),
                    name: name(index),
                    timeout_ms: TIMEOUT_MS,
                    fresh: self.fresh(),
                    keep: self.clients[index].session.filter(|_| keep),
                };
                self.ask(input);
            }
            Action::Write {
                name: index,
                partition,
                verify,
            } => {
                let client = &self.clients[index];
                let (Some(producer), None) = (client.session, client.ending) else {
                    return;
                };
                let keeps = index == KEEPER;
                let batch = Batch {
                    txn: (producer, client.ended + 1),
                    partition,
                    since: keeps.then(|| self.partitions[partition].markers(producer)),
                };
                let ticket = self.ticket(match keeps && !verify {
                    true => Asked::Register {
                        name: index,
                        producer,
                    },
                    false => Asked::Write(batch),
                });
                let (name, partitions) = (name(index), vec![place(partition)]);
                self.ask(match verify {
                    true => Input::Verify {
                        ticket,
                        name,
                        producer,
                        partitions,
                    },
                    false => Input::Add {
                        ticket,
                        name,
                        producer,
                        partitions,
                    },
                });
            }
            Action::End {
                name: index,
                commit,
            } => self.end(index, commit),
            Action::Echo { nth } => self.echo(nth),
            Action::LateWrite { nth } => {
                if !self.late.is_empty() {
                    self.write(self.late[nth % self.late.len()]);
                }
            }
            Action::Operator { name: index } => {
                let ticket = self.ticket(Asked::Nothing);
                let name = name(index);
                self.step(Input::Abort { ticket, name });
            }
            Action::Durable => self.durable(),
            Action::Refused => self.fail(Lost::Refused, false),
            Action::Unknown { written } => self.fail(Lost::Unknown, written),
            Action::Deliver { nth, lose_answer } => self.deliver(nth, lose_answer),
            Action::Lose { nth, say } => {
                if !self.network.is_empty() {
                    let markers = self.network.remove(nth % self.network.len());
                    if say && markers.coordinator_epoch.get() == self.epoch {
                        self.step(Input::MarkersFailed {
                            name: markers.name,
                            producer: markers.producer,
                            number: markers.number,
                        });
                    }
                }
            }
            Action::Again { nth } => {
                if !self.delivered.is_empty() {
                    let markers = self.delivered[nth % self.delivered.len()].clone();
                    self.mark(&markers);
                    self.say_done(markers);
                }
            }
            Action::Failover { written } => self.fail_over(written),
            Action::Advance { ms } => self.advance(ms),
        }
    }

    fn end(&mut self, index: usize, commit: bool) {
        let client = &mut self.clients[index];
        let Some(producer) = client.session else {
            return;
        };
        let keeps = index == KEEPER;
        if keeps && !client.registered {
            return;
        }
        let commit = match keeps {
            true => *client.ending.get_or_insert(commit),
            false => commit,
        };
        let txn = (producer, client.ended + 1);
        let fresh = self.fresh();
        let input = Input::End {
            ticket: self.ticket(Asked::End {
                name: index,
                txn,
                commit,
            }),
            name: name(index),
            producer,
            commit,
            next: match keeps {
                true => Next::Same,
                false => Next::Epoch { fresh },
            },
        };
        // One that keeps its epoch has nothing that tells its late end from the next: it is not said to come late.
        match keeps {
            true => self.step(input),
            false => self.ask(input),
        }
    }

    fn echo(&mut self, nth: usize) {
        if self.said.is_empty() {
            return;
        }
        let mut input = self.said[nth % self.said.len()].clone();
        let fresh_ticket = self.ticket(Asked::Nothing);
        match &mut input {
            // A repeated start is a new session that nobody uses: whoever has one is fenced by it.
            Input::Init { ticket, .. }
            | Input::Add { ticket, .. }
            | Input::Verify { ticket, .. }
            | Input::End { ticket, .. } => *ticket = fresh_ticket,
            other => panic!("{other:?}"),
        }
        self.step(input);
    }

    fn durable(&mut self) {
        if let Some((id, record)) = self.pending.pop_first() {
            self.log.push(record);
            self.step(Input::Durable { id });
        }
    }

    fn fail(&mut self, lost: Lost, written: bool) {
        if let Some((id, record)) = self.pending.pop_first() {
            if written {
                self.log.push(record);
            }
            let failure = Failure::new(ErrorKind::CommitTimeout, "lost");
            self.step(Input::Failed { id, lost, failure });
        }
    }

    fn mark(&mut self, markers: &Markers) {
        for place in &markers.partitions {
            let partition = place.partition.0 as usize;
            self.partitions[partition].mark(markers);
        }
    }

    fn deliver(&mut self, nth: usize, lose_answer: bool) {
        if self.network.is_empty() {
            return;
        }
        let markers = self.network.remove(nth % self.network.len());
        self.mark(&markers);
        self.delivered.push(markers.clone());
        if !lose_answer {
            self.say_done(markers);
        }
    }

    /// The answer goes to the coordinator that asked, and with it.
    fn say_done(&mut self, markers: Markers) {
        if markers.coordinator_epoch.get() == self.epoch {
            self.step(Input::MarkersDone {
                name: markers.name,
                producer: markers.producer,
                number: markers.number,
                partitions: markers.partitions,
            });
        }
    }

    fn fail_over(&mut self, written: usize) {
        for (_, record) in std::mem::take(&mut self.pending).into_iter().take(written) {
            self.log.push(record);
        }
        self.asked.clear();
        self.epoch += 1;
        self.coordinator = Coordinator::new(config(), LeaderEpoch::new(self.epoch).unwrap());
        self.step(Input::Topics(Arc::new(BTreeSet::from([TopicId(1)]))));
        for (key, value) in self.log.clone() {
            self.step(Input::Load { key, value });
        }
        self.step(Input::Loaded);
    }

    fn advance(&mut self, ms: u64) {
        let end = self.tick + ms;
        while let Some(due) = self.coordinator.next_deadline().filter(|d| d.0 <= end) {
            self.tick = due.0.max(self.tick);
            self.step(Input::Tick);
        }
        self.tick = end;
    }

    /// Everything works from here on.
    fn quiesce(&mut self) {
        for _ in 0..TIMEOUT_MS / 500 + 60 {
            for _ in 0..20 {
                self.durable();
                self.deliver(0, false);
            }
            self.advance(500);
        }
        assert_eq!(
            self.coordinator.open_count(),
            0,
            "T4: a transaction is open"
        );
        let ticket = self.ticket(Asked::Nothing);
        self.step(Input::List { ticket });
        for (number, partition) in self.partitions.iter().enumerate() {
            let open = partition.sessions.iter().find(|(_, s)| s.open.is_some());
            assert_eq!(open, None, "T4: open in partition {number}");
        }
        self.check();
        for (txn, partitions) in &self.wrote {
            for number in partitions {
                let decided = self.partitions[*number].decided.get(txn);
                assert!(
                    decided.is_some(),
                    "T4: {txn:?} was never decided in {number}"
                );
            }
        }
    }

    fn check(&self) {
        let mut decisions: BTreeMap<Txn, bool> = self.promised.clone();
        for partition in &self.partitions {
            for (txn, commit) in &partition.decided {
                let known = *decisions.entry(*txn).or_insert(*commit);
                assert_eq!(known, *commit, "T1: two decisions about {txn:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn transactions_end_everywhere_the_same_way(actions in prop::collection::vec(action(), 1..160)) {
        let mut world = World::new();
        for action in &actions {
            world.run(action);
            world.check();
        }
        world.quiesce();
    }
}

/// The test can fail: with these actions a transaction is begun, written to in two partitions, and committed.
#[test]
fn the_plain_course_of_things() {
    let mut world = World::new();
    let write = |partition| Action::Write {
        name: 0,
        partition,
        verify: false,
    };
    let course = [
        Action::Init {
            name: 0,
            keep: false,
        },
        Action::Durable,
        write(0),
        Action::Durable,
        write(1),
        Action::Durable,
        Action::End {
            name: 0,
            commit: true,
        },
        Action::Durable,
        Action::Deliver {
            nth: 0,
            lose_answer: false,
        },
        Action::Durable,
    ];
    for action in &course {
        world.run(action);
    }
    let txn = (ProducerId { id: 1, epoch: 0 }, 1);
    assert_eq!(world.wrote[&txn].len(), 2);
    assert!(world.promised[&txn]);
    assert!(world.partitions[1].decided[&txn]);
    let value = world.log.last().unwrap().1.clone().unwrap();
    let record = codec::decode_value(&value).unwrap();
    assert_eq!(record.state, State::CompleteCommit);
    world.quiesce();
}
