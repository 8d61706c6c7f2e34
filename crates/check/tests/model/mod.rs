//! A log service of a few lines that does nothing wrong, and the histories that its clients would write: calls
//! that overlap, answers that are lost, sends that take effect late or never, leaders that change, holes, and
//! weak acknowledgements that are forgotten. Everything follows from the seed.

pub mod kinds;
mod random;

use std::collections::BTreeMap;

use varve_check::{Acks, Event};

pub use random::Random;

/// A send that was made.
#[derive(Clone)]
struct Open {
    op: u64,
    session: u32,
    partition: i32,
    value: u64,
    acks: Acks,
    idempotent: bool,
    /// Where it is.
    offset: Option<i64>,
    answered: bool,
}

#[derive(Default)]
struct Partition {
    /// Value and epoch at each offset; `None`: a record of the service's own.
    log: Vec<Option<(u64, i64)>>,
    epoch: i64,
    committed: Option<i64>,
    last_tried: i64,
    acknowledged: Option<i64>,
}

struct Model {
    random: Random,
    events: Vec<Event>,
    partitions: Vec<Partition>,
    open: Vec<Open>,
    positions: BTreeMap<(u32, i32), i64>,
    latest: BTreeMap<(u32, i32), i64>,
    sessions: Vec<u32>,
    next_op: u64,
    next_session: u32,
}

pub const FINALS: [u32; 2] = [100, 101];

/// A legal history of about `steps` steps.
pub fn legal(seed: u64, steps: usize) -> Vec<Event> {
    let mut random = Random::new(seed);
    let partitions = 1 + random.below(3);
    let mut model = Model {
        random,
        events: Vec::new(),
        partitions: (0..partitions).map(|_| Partition::default()).collect(),
        open: Vec::new(),
        positions: BTreeMap::new(),
        latest: BTreeMap::new(),
        sessions: vec![0, 1, 2],
        next_op: 0,
        next_session: 3,
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

    fn any_partition(&mut self) -> usize {
        self.random.below(self.partitions.len() as u64) as usize
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=5 => self.send(),
            6..=9 => self.apply(),
            10..=13 => self.answer(),
            14 | 15 => self.poll(),
            16 => self.look_at_the_end(),
            17 => self.commit(),
            18 if self.random.one_in(3) => self.disturb(),
            _ => self.seek(),
        }
    }

    fn send(&mut self) {
        let at = self.random.below(self.sessions.len() as u64) as usize;
        let session = self.sessions[at];
        let partition = self.any_partition() as i32;
        let idempotent = session % 3 != 2;
        let acks = match self.random.below(4) {
            0 if !idempotent => Acks::Leader,
            1 if !idempotent => Acks::None,
            _ => Acks::All,
        };
        let (op, ns) = (self.op(), self.ns());
        let value = op * 7;
        self.open.push(Open {
            op,
            session,
            partition,
            value,
            acks,
            idempotent,
            offset: None,
            answered: false,
        });
        self.events.push(Event::Send {
            op,
            ns,
            session,
            partition,
            key: value % 5,
            value,
            acks,
            idempotent,
            txn: None,
            source: None,
        });
    }

    /// A send takes effect; in the order of its session, if that is promised.
    fn apply(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.random.below(self.open.len() as u64) as usize;
        let chosen = self.open[at].clone();
        // A second time, which only those without idempotence may.
        let again = chosen.offset.is_some() && !chosen.idempotent && self.random.one_in(8);
        if chosen.offset.is_some() && !again {
            return;
        }
        if chosen.idempotent {
            let earlier = |o: &Open| {
                o.session == chosen.session && o.partition == chosen.partition && o.op < chosen.op
            };
            let waits = self
                .open
                .iter()
                .any(|o| earlier(o) && o.offset.is_none() && !o.answered);
            if waits {
                return;
            }
            // Whoever is not in the log by now never will be.
            self.open.retain(|o| !(earlier(o) && o.offset.is_none()));
        }
        let partition = &mut self.partitions[chosen.partition as usize];
        if self.random.one_in(30) {
            partition.log.push(None);
        }
        let offset = partition.log.len() as i64;
        partition.log.push(Some((chosen.value, partition.epoch)));
        if let Some(open) = self.open.iter_mut().find(|o| o.op == chosen.op) {
            open.offset.get_or_insert(offset);
        }
    }

    fn answer(&mut self) {
        let unanswered: Vec<usize> = (0..self.open.len())
            .filter(|i| !self.open[*i].answered)
            .collect();
        if unanswered.is_empty() {
            return;
        }
        let at = unanswered[self.random.below(unanswered.len() as u64) as usize];
        let (op, ns) = (self.open[at].op, self.ns());
        let unknown = Event::Unknown {
            op,
            ns,
            error: "no answer came in time".to_owned(),
        };
        let weak = self.open[at].acks != Acks::All;
        let offset = self.open[at].offset;
        let event = match offset {
            _ if self.random.one_in(6) => unknown,
            // Acknowledged by a leader that forgets it: whatever offset it said.
            None if weak && self.random.one_in(2) => {
                let said = self.partitions[self.open[at].partition as usize].log.len() as i64;
                let offset = (self.open[at].acks == Acks::Leader).then_some(said);
                self.open.remove(at);
                self.events.push(Event::Ok { op, ns, offset });
                return;
            }
            Some(offset) => {
                let offset = (self.open[at].acks != Acks::None).then_some(offset);
                Event::Ok { op, ns, offset }
            }
            None if self.random.one_in(2) => {
                self.open.remove(at);
                let error = "refused".to_owned();
                self.events.push(Event::Fail { op, ns, error });
                return;
            }
            None => return,
        };
        self.open[at].answered = true;
        // Some of those that are unknown take effect later.
        if offset.is_some() && self.open[at].idempotent {
            self.open.remove(at);
        }
        self.events.push(event);
    }

    fn poll(&mut self) {
        let process = self.random.below(3) as u32;
        let partition = self.any_partition() as i32;
        let most = 1 + self.random.below(6);
        self.read(process, partition, most);
    }

    /// One poll of records of one epoch; how many came.
    fn read(&mut self, process: u32, partition: i32, most: u64) -> usize {
        let ns = self.ns();
        let log = &self.partitions[partition as usize].log;
        let position = self.positions.entry((process, partition)).or_default();
        let from = *position as usize;
        let mut records = Vec::new();
        let mut of_epoch = None;
        for (offset, record) in log.iter().enumerate().skip(from) {
            let Some((value, epoch)) = *record else {
                *position = offset as i64 + 1;
                continue;
            };
            if records.len() as u64 >= most || of_epoch.is_some_and(|e| e != epoch) {
                break;
            }
            of_epoch = Some(epoch);
            records.push((offset as i64, value));
            *position = offset as i64 + 1;
        }
        let Some(epoch) = of_epoch else { return 0 };
        let count = records.len();
        let end = log.len() as i64;
        let least = *position;
        let high_watermark = least + self.random.below((end - least + 1) as u64) as i64;
        self.events.push(Event::Poll {
            process,
            ns,
            partition,
            epoch,
            high_watermark,
            records,
            uncommitted: false,
            txn: None,
        });
        count
    }

    fn look_at_the_end(&mut self) {
        let process = self.random.below(3) as u32;
        let partition = self.any_partition() as i32;
        let (op, ns) = (self.op(), self.ns());
        self.events.push(Event::End {
            op,
            ns,
            process,
            partition,
        });
        let end = self.partitions[partition as usize].log.len() as i64;
        let told = self.latest.entry((process, partition)).or_default();
        *told += self.random.below((end - *told + 1) as u64) as i64;
        let offset = Some(*told);
        self.events.push(Event::Ok { op, ns, offset });
    }

    fn commit(&mut self) {
        let at = self.any_partition();
        let (op, ns) = (self.op(), self.ns());
        let (group, partition) = ("g".to_owned(), at as i32);
        if self.random.one_in(2) {
            self.events.push(Event::Committed {
                op,
                ns,
                group,
                partition,
            });
            let offset = self.partitions[at].committed;
            self.events.push(Event::Ok { op, ns, offset });
            return;
        }
        let of = &mut self.partitions[at];
        let offset = of.last_tried + self.random.below(3) as i64;
        of.last_tried = offset;
        self.events.push(Event::Commit {
            op,
            ns,
            group,
            partition,
            offset,
            member: None,
        });
        let error = "lost".to_owned();
        match self.random.below(3) {
            0 => {
                of.committed = Some(offset);
                of.acknowledged = Some(offset);
                let offset = None;
                self.events.push(Event::Ok { op, ns, offset });
            }
            1 => {
                of.committed = Some(offset);
                self.events.push(Event::Unknown { op, ns, error });
            }
            _ if of.acknowledged == Some(offset) || of.committed == Some(offset) => {
                self.events.push(Event::Unknown { op, ns, error });
            }
            _ => {
                // The same offset may have been tried before: then nobody can say that it failed for good.
                of.last_tried += 1;
                self.events.push(Event::Unknown { op, ns, error });
            }
        }
    }

    /// A leader change, or the end of a session.
    fn disturb(&mut self) {
        let ns = self.ns();
        if self.random.one_in(2) {
            let at = self.any_partition();
            self.partitions[at].epoch += 1;
            let what = format!("a new leader of partition {at}");
            self.events.push(Event::Note { ns, what });
        } else {
            let at = self.random.below(self.sessions.len() as u64) as usize;
            self.sessions[at] = self.next_session;
            self.next_session += 1;
        }
    }

    fn seek(&mut self) {
        if !self.random.one_in(5) {
            return;
        }
        let (process, partition) = (self.random.below(3) as u32, self.any_partition() as i32);
        let end = self.partitions[partition as usize].log.len() as u64;
        let to = self.random.below(end + 1) as i64;
        self.positions.insert((process, partition), to);
        let offset = self.random.one_in(2).then_some(to);
        let ns = self.ns();
        self.events.push(Event::Seek {
            process,
            ns,
            partition,
            offset,
        });
    }

    fn end(&mut self) {
        let ns = self.ns();
        self.events.push(Event::Healed { ns });
        for process in FINALS {
            for partition in 0..self.partitions.len() as i32 {
                let (op, ns) = (self.op(), self.ns());
                self.events.push(Event::Final {
                    op,
                    ns,
                    process,
                    partition,
                });
                while self.read(process, partition, 5) > 0 {}
                let offset = Some(self.partitions[partition as usize].log.len() as i64);
                self.events.push(Event::Ok { op, ns, offset });
            }
        }
    }
}
