//! A log service with transactions that does nothing wrong: producers whose transactions lie in each other's way, ends
//! that nobody is told of, of both outcomes; a pipeline that copies each record once; members of a group that take
//! and give up partitions. Everything follows from the seed.

use std::collections::BTreeMap;

use varve_check::{Acks, Event};

use crate::model::Random;

pub const FINALS: [u32; 2] = [100, 101];
/// Readers of what is not committed, too.
pub const UNCOMMITTED: [u32; 2] = [10, 11];
/// The first life of the pipeline; every later one has the next number.
const PIPELINE: u32 = 1_000;
pub const GROUP: &str = "members";

#[derive(Clone, Copy)]
enum Entry {
    /// A record of the service's own.
    Hole,
    Record(u64, i64, Option<usize>),
}

#[derive(Default)]
struct Partition {
    log: Vec<Entry>,
    epoch: i64,
    owner: Option<u32>,
    committed: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Decided {
    No,
    Commit,
    Abort,
}

struct Txn {
    number: u64,
    decided: Decided,
    /// Its first offset in each partition that has no marker yet.
    open: BTreeMap<i32, i64>,
    /// Calls for its end that wait for an answer.
    calls: Vec<(u64, bool)>,
    commit_called: bool,
    abort_called: bool,
    /// Its producer is no more.
    left: bool,
}

impl Txn {
    const fn is_called(&self) -> bool {
        self.commit_called || self.abort_called
    }
}

#[derive(Clone)]
struct Send {
    op: u64,
    session: u32,
    partition: i32,
    value: u64,
    txn: Option<usize>,
    answered: bool,
}

struct Producer {
    session: u32,
    txn: Option<usize>,
}

struct Model {
    random: Random,
    events: Vec<Event>,
    partitions: Vec<Partition>,
    inputs: i32,
    txns: Vec<Txn>,
    /// Not in the log yet.
    waiting: Vec<Send>,
    /// In the log, and not answered.
    unanswered: Vec<(u64, i64)>,
    producers: Vec<Producer>,
    positions: BTreeMap<(u32, i32), i64>,
    pipeline: Producer,
    pipeline_process: u32,
    /// Up to where the pipeline's transactions are committed, by input.
    copied: Vec<i64>,
    /// Commits of members: call, whether it may be accepted.
    commits: Vec<(u64, bool)>,
    next_member: u32,
    next_op: u64,
    next_session: u32,
}

/// A legal history of about `steps` steps.
pub fn legal(seed: u64, steps: usize) -> Vec<Event> {
    let mut random = Random::new(seed);
    let inputs = 1 + random.below(2) as i32;
    let partitions = inputs + 1 + random.below(2) as i32;
    let producer = |session| Producer { session, txn: None };
    let mut model = Model {
        random,
        events: Vec::new(),
        partitions: (0..partitions).map(|_| Partition::default()).collect(),
        inputs,
        txns: Vec::new(),
        waiting: Vec::new(),
        unanswered: Vec::new(),
        producers: vec![producer(1), producer(2), producer(3)],
        positions: BTreeMap::new(),
        pipeline: producer(4),
        pipeline_process: PIPELINE,
        copied: vec![0; inputs as usize],
        commits: Vec::new(),
        next_member: 3,
        next_op: 0,
        next_session: 5,
    };
    for _ in 0..steps {
        model.step();
    }
    model.end();
    model.events
}

impl Model {
    fn ns(&self) -> u64 {
        self.events.len() as u64
    }

    fn op(&mut self) -> u64 {
        self.next_op += 1;
        self.next_op
    }

    fn any_partition(&mut self) -> i32 {
        self.random.below(self.partitions.len() as u64) as i32
    }

    fn step(&mut self) {
        match self.random.below(24) {
            0..=4 => self.produce(),
            5 => {
                let partition = self.any_partition();
                let sent = self.call(0, partition, None, None);
                self.waiting.push(sent);
            }
            6..=8 => self.apply(),
            9..=11 => self.answer(),
            12 => self.decide(),
            13 => self.mark(),
            14 | 15 => self.answer_end(),
            16 | 17 => self.read_some(),
            18..=20 => self.pipe(),
            21 | 22 => self.own(),
            _ => self.disturb(),
        }
    }

    /// A send is called for.
    fn call(
        &mut self,
        session: u32,
        partition: i32,
        txn: Option<usize>,
        source: Option<u64>,
    ) -> Send {
        let (op, ns) = (self.op(), self.ns());
        let value = op * 7;
        self.events.push(Event::Send {
            op,
            ns,
            session,
            partition,
            key: 1,
            value,
            acks: Acks::All,
            idempotent: true,
            txn: txn.map(|txn| self.txns[txn].number),
            source,
        });
        Send {
            op,
            session,
            partition,
            value,
            txn,
            answered: false,
        }
    }

    fn append(&mut self, sent: &Send) {
        let holes = self.random.one_in(20);
        let partition = &mut self.partitions[sent.partition as usize];
        if holes {
            partition.log.push(Entry::Hole);
        }
        let offset = partition.log.len() as i64;
        partition
            .log
            .push(Entry::Record(sent.value, partition.epoch, sent.txn));
        if let Some(txn) = sent.txn {
            self.txns[txn].open.entry(sent.partition).or_insert(offset);
        }
        if !sent.answered {
            self.unanswered.push((sent.op, offset));
        }
    }

    fn begin(&mut self) -> usize {
        let number = 500 + self.op();
        self.txns.push(Txn {
            number,
            decided: Decided::No,
            open: BTreeMap::new(),
            calls: Vec::new(),
            commit_called: false,
            abort_called: false,
            left: false,
        });
        self.txns.len() - 1
    }

    fn call_end(&mut self, txn: usize, commit: bool) {
        let (op, ns) = (self.op(), self.ns());
        let of = &mut self.txns[txn];
        of.commit_called |= commit;
        of.abort_called |= !commit;
        of.calls.push((op, commit));
        let txn = of.number;
        self.events.push(Event::EndTxn {
            op,
            ns,
            txn,
            commit,
        });
    }

    fn session(&mut self) -> u32 {
        self.next_session += 1;
        self.next_session
    }

    /// A producer goes on with its transaction.
    fn produce(&mut self) {
        let at = self.random.below(self.producers.len() as u64) as usize;
        let Some(txn) = self.producers[at].txn else {
            self.producers[at].txn = Some(self.begin());
            return;
        };
        let partition = self.any_partition();
        if self.txns[txn].is_called() {
            let waits = !self.txns[txn].calls.is_empty();
            match self.random.below(8) {
                // It asks again, or for the opposite.
                0 if !waits && self.txns[txn].decided == Decided::No => {
                    let commit = self.random.one_in(2);
                    self.call_end(txn, commit);
                }
                1..=5 if waits => {}
                _ => {
                    self.txns[txn].left = true;
                    self.producers[at] = Producer {
                        session: self.session(),
                        txn: None,
                    };
                }
            }
            return;
        }
        match self.random.below(12) {
            0..=5 => {
                let sent = self.call(self.producers[at].session, partition, Some(txn), None);
                self.waiting.push(sent);
            }
            6 | 7 => {
                let number = self.txns[txn].number;
                self.read(20 + at as u32, partition, 3, Some(number));
            }
            8..=10 => {
                let commit = !self.random.one_in(3);
                self.call_end(txn, commit);
            }
            // It dies.
            _ if self.random.one_in(3) => {
                self.txns[txn].left = true;
                self.producers[at] = Producer {
                    session: self.session(),
                    txn: None,
                };
            }
            _ => {}
        }
    }

    /// A send takes effect, or never will.
    fn apply(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let at = self.random.below(self.waiting.len() as u64) as usize;
        let (session, partition) = (self.waiting[at].session, self.waiting[at].partition);
        // The first of its session.
        let same = |sent: &Send| sent.session == session && sent.partition == partition;
        let Some(at) = self.waiting.iter().position(same) else {
            return;
        };
        let (op, ns) = (self.waiting[at].op, self.ns());
        let error = "no answer came".to_owned();
        if !self.waiting[at].answered && self.random.one_in(12) {
            self.waiting[at].answered = true;
            self.events.push(Event::Unknown { op, ns, error });
            return;
        }
        let sent = self.waiting.remove(at);
        let fenced = |txn: usize| self.txns[txn].decided != Decided::No;
        if !sent.txn.is_some_and(fenced) && !self.random.one_in(15) {
            self.append(&sent);
        } else if !sent.answered {
            match self.random.below(3) {
                0 => self.events.push(Event::Fail { op, ns, error }),
                1 => self.events.push(Event::Unknown { op, ns, error }),
                _ => {}
            }
        }
    }

    fn answer(&mut self) {
        if self.unanswered.is_empty() {
            return;
        }
        let at = self.random.below(self.unanswered.len() as u64) as usize;
        let (op, offset) = self.unanswered.swap_remove(at);
        let ns = self.ns();
        match self.random.below(12) {
            0 => {}
            1 => {
                let error = "late".to_owned();
                self.events.push(Event::Unknown { op, ns, error });
            }
            _ => {
                let offset = Some(offset);
                self.events.push(Event::Ok { op, ns, offset });
            }
        }
    }

    fn any_txn(&mut self, fits: impl Fn(&Txn) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.txns.len())
            .filter(|at| fits(&self.txns[*at]))
            .collect();
        (!all.is_empty()).then(|| all[self.random.below(all.len() as u64) as usize])
    }

    /// The end of a transaction is decided: as it was called for, or by its timeout.
    fn decide(&mut self) {
        let undecided = |txn: &Txn| txn.decided == Decided::No && (txn.left || txn.is_called());
        let Some(at) = self.any_txn(undecided) else {
            return;
        };
        let aborted = !self.txns[at].commit_called || self.random.one_in(4);
        self.txns[at].decided = if aborted {
            Decided::Abort
        } else {
            Decided::Commit
        };
    }

    /// One partition hears of it.
    fn mark(&mut self) {
        let Some(at) = self.any_txn(|txn| txn.decided != Decided::No && !txn.open.is_empty())
        else {
            return;
        };
        if let Some((partition, _)) = self.txns[at].open.pop_last() {
            self.partitions[partition as usize].log.push(Entry::Hole);
        }
    }

    fn answer_end(&mut self) {
        let Some(at) = self.any_txn(|txn| !txn.calls.is_empty()) else {
            return;
        };
        let ns = self.ns();
        let error = "fenced".to_owned();
        let unknown = self.random.one_in(3);
        let txn = &mut self.txns[at];
        if txn.decided == Decided::No && !unknown {
            return;
        }
        let (op, commit) = txn.calls.remove(0);
        self.events.push(if unknown {
            Event::Unknown { op, ns, error }
        } else if commit == (txn.decided == Decided::Commit) {
            let offset = None;
            Event::Ok { op, ns, offset }
        } else {
            Event::Fail { op, ns, error }
        });
    }

    fn read_some(&mut self) {
        let committed = self.random.below(3) as u32;
        let uncommitted = UNCOMMITTED[self.random.below(2) as usize];
        let process = if self.random.one_in(4) {
            uncommitted
        } else {
            committed
        };
        let (partition, most) = (self.any_partition(), 1 + self.random.below(6));
        self.read(process, partition, most, None);
    }

    /// Everything below is decided, and the partition has heard of it.
    fn stable(&self, partition: i32) -> usize {
        let first = self.txns.iter().filter_map(|txn| txn.open.get(&partition));
        let end = self.partitions[partition as usize].log.len();
        first.min().map_or(end, |first| *first as usize)
    }

    /// One poll of records of one epoch; which came.
    fn read(&mut self, process: u32, partition: i32, most: u64, txn: Option<u64>) -> Vec<u64> {
        let ns = self.ns();
        let uncommitted = UNCOMMITTED.contains(&process);
        let log = &self.partitions[partition as usize].log;
        let end = if uncommitted {
            log.len()
        } else {
            self.stable(partition)
        };
        let position = self.positions.entry((process, partition)).or_default();
        let mut records = Vec::new();
        let mut of_epoch = None;
        for (offset, entry) in log.iter().enumerate().take(end).skip(*position as usize) {
            if let Entry::Record(value, epoch, of) = entry {
                let shown = of.is_none_or(|of| self.txns[of].decided == Decided::Commit);
                if shown || uncommitted {
                    if records.len() as u64 >= most || of_epoch.is_some_and(|e| e != *epoch) {
                        break;
                    }
                    of_epoch = Some(*epoch);
                    records.push((offset as i64, *value));
                }
            }
            *position = offset as i64 + 1;
        }
        let Some(epoch) = of_epoch else {
            return Vec::new();
        };
        let values = records.iter().map(|(_, value)| *value).collect();
        self.events.push(Event::Poll {
            process,
            ns,
            partition,
            epoch,
            high_watermark: log.len() as i64,
            records,
            uncommitted,
            txn,
        });
        values
    }

    /// The pipeline goes on.
    fn pipe(&mut self) {
        let Some(txn) = self.pipeline.txn else {
            self.pipeline.txn = Some(self.begin());
            return;
        };
        match (self.txns[txn].is_called(), self.txns[txn].decided) {
            (false, _) if !self.random.one_in(3) => self.copy(txn),
            (false, _) => {
                let commit = !self.random.one_in(4);
                self.call_end(txn, commit);
            }
            (true, Decided::No) => {}
            (true, decided) => {
                self.pipeline.txn = None;
                if decided == Decided::Commit {
                    for (partition, copied) in (0..).zip(&mut self.copied) {
                        let at = self.positions.get(&(self.pipeline_process, partition));
                        *copied = at.copied().unwrap_or(0);
                    }
                }
                // Another takes its place, and goes on from what was committed.
                if decided == Decided::Abort || self.random.one_in(4) {
                    self.pipeline_process += 1;
                    self.pipeline.session = self.session();
                    for (partition, copied) in (0..).zip(&self.copied) {
                        self.positions
                            .insert((self.pipeline_process, partition), *copied);
                    }
                }
            }
        }
    }

    fn copy(&mut self, txn: usize) {
        let input = self.random.below(self.inputs as u64) as i32;
        let outputs = self.partitions.len() as u64 - self.inputs as u64;
        let number = self.txns[txn].number;
        for value in self.read(self.pipeline_process, input, 4, Some(number)) {
            let output = self.inputs + self.random.below(outputs) as i32;
            let sent = self.call(self.pipeline.session, output, Some(txn), Some(value));
            self.append(&sent);
        }
    }

    /// Members take partitions, give them up, die, and commit.
    fn own(&mut self) {
        let (at, ns) = (self.any_partition(), self.ns());
        let (group, partition) = (GROUP.to_owned(), at);
        let Some(member) = self.partitions[at as usize].owner else {
            let member = self.next_member - 1 - self.random.below(3) as u32;
            self.partitions[at as usize].owner = Some(member);
            self.events.push(Event::Own {
                group,
                member,
                partition,
                ns,
            });
            return;
        };
        match self.random.below(10) {
            0 | 1 => {
                self.partitions[at as usize].owner = None;
                self.events.push(Event::Disown {
                    group,
                    member,
                    partition,
                    ns,
                });
            }
            2 => {
                for of in &mut self.partitions {
                    of.owner.take_if(|owner| *owner == member);
                }
                self.next_member += 1;
                self.events.push(Event::Gone { member, ns });
            }
            3 => self.events.push(Event::Own {
                group,
                member,
                partition,
                ns,
            }),
            4..=6 => {
                // A member that owns nothing is refused.
                let zombie = self.random.one_in(3);
                let op = self.op();
                let of = &mut self.partitions[at as usize];
                of.committed += 1;
                let offset = of.committed;
                self.commits.push((op, !zombie));
                let member = Some(if zombie { 9_000 } else { member });
                self.events.push(Event::Commit {
                    op,
                    ns,
                    group,
                    partition,
                    offset,
                    member,
                });
            }
            _ if self.commits.is_empty() => {}
            _ => {
                let at = self.random.below(self.commits.len() as u64) as usize;
                let (op, accepted) = self.commits.swap_remove(at);
                let error = "not a member".to_owned();
                self.events.push(match (accepted, self.random.below(4)) {
                    (_, 0) => Event::Unknown { op, ns, error },
                    (true, _) => Event::Ok {
                        op,
                        ns,
                        offset: None,
                    },
                    (false, _) => Event::Fail { op, ns, error },
                });
            }
        }
    }

    /// A new leader, or a reader goes elsewhere.
    fn disturb(&mut self) {
        let (at, ns) = (self.any_partition(), self.ns());
        if self.random.one_in(3) {
            self.partitions[at as usize].epoch += 1;
            let what = format!("a new leader of partition {at}");
            self.events.push(Event::Note { ns, what });
            return;
        }
        let (process, partition) = (self.random.below(3) as u32, at);
        let to = self.random.below(self.stable(at) as u64 + 1) as i64;
        self.positions.insert((process, partition), to);
        let offset = Some(to);
        self.events.push(Event::Seek {
            process,
            ns,
            partition,
            offset,
        });
    }

    fn settle(&mut self) {
        while self.txns.iter().any(|txn| {
            let ending = txn.left || txn.is_called();
            ending && (txn.decided == Decided::No || !txn.open.is_empty())
        }) {
            self.decide();
            self.mark();
            self.answer_end();
        }
    }

    fn end(&mut self) {
        for producer in std::mem::take(&mut self.producers) {
            if let Some(txn) = producer.txn {
                self.txns[txn].left = true;
            }
        }
        while !self.waiting.is_empty() {
            self.apply();
            self.answer();
        }
        let drained = |model: &Self| {
            let ends = (0..model.inputs).map(|input| model.stable(input) as i64);
            ends.eq(model.copied.iter().copied())
        };
        self.settle();
        while !drained(self) || self.pipeline.txn.is_some() {
            self.pipe();
            self.settle();
        }
        let ends = (0..).zip(self.copied.iter().copied()).collect();
        let ns = self.ns();
        self.events.push(Event::Drained { ns, ends });
        self.events.push(Event::Healed { ns });
        let session = self.session();
        for partition in 0..self.partitions.len() as i32 {
            let sent = self.call(session, partition, None, None);
            let (op, ns) = (sent.op, self.ns());
            self.append(&sent);
            let (_, offset) = self.unanswered.pop().unwrap_or_default();
            let offset = Some(offset);
            self.events.push(Event::Ok { op, ns, offset });
        }
        for process in FINALS {
            for partition in 0..self.partitions.len() as i32 {
                let (op, ns) = (self.op(), self.ns());
                self.events.push(Event::Final {
                    op,
                    ns,
                    process,
                    partition,
                });
                while !self.read(process, partition, 5, None).is_empty() {}
                let offset = Some(self.partitions[partition as usize].log.len() as i64);
                self.events.push(Event::Ok { op, ns, offset });
            }
        }
    }
}
