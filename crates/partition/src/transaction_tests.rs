//! Random transactions against a model that keeps nothing but the log: what is refused, what is stable, what was
//! aborted, and that a table rebuilt from the log is the same table.

use std::collections::BTreeMap;

use varve_types::limits;

use super::*;
use crate::Heard;

const PRODUCERS: usize = 3;
const HEARD: Heard = Heard::Late(NOW.wall_ms);

#[derive(Debug, Clone)]
enum Op {
    /// Of the producer's present transaction, or the first of the next.
    Records {
        producer: usize,
        records: u32,
        verified: Known,
    },
    /// Outside of any transaction.
    Plain {
        producer: usize,
    },
    /// Somebody repeats what was sent, however long ago.
    Repeat {
        nth: usize,
    },
    End {
        producer: usize,
        commit: bool,
        keep: bool,
    },
    Elected,
    Write,
    Flush,
    Refuse,
    Restart,
}

/// What is known of the registration of a batch.
#[derive(Debug, Clone, Copy)]
enum Known {
    Nothing,
    /// Since so many batches before the end of the log.
    Before(usize),
}

fn known() -> impl Strategy<Value = Known> {
    prop_oneof![
        1 => Just(Known::Nothing),
        2 => Just(Known::Before(0)),
        2 => (0_usize..3).prop_map(Known::Before),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let producer = 0..PRODUCERS;
    prop_oneof![
        6 => (producer.clone(), 1_u32..4, known())
            .prop_map(|(producer, records, verified)| Op::Records { producer, records, verified }),
        1 => producer.clone().prop_map(|producer| Op::Plain { producer }),
        2 => (0_usize..1000).prop_map(|nth| Op::Repeat { nth }),
        3 => (producer, any::<bool>(), any::<bool>())
            .prop_map(|(producer, commit, keep)| Op::End { producer, commit, keep }),
        1 => Just(Op::Elected),
        3 => Just(Op::Write),
        2 => Just(Op::Flush),
        1 => Just(Op::Refuse),
        1 => Just(Op::Restart),
    ]
}

/// What a correct client of one producer goes by.
#[derive(Debug, Clone, Copy)]
struct Client {
    epoch: i16,
    next: i32,
}

struct World {
    core: Core,
    log: Vec<Replicated>,
    sent: Vec<Append>,
    clients: [Client; PRODUCERS],
    written: Offset,
    flushed: Offset,
    ticket: u64,
    coordinator_epoch: i32,
    numbers: i64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            core: core(),
            log: Vec::new(),
            sent: Vec::new(),
            clients: [Client { epoch: 0, next: 0 }; PRODUCERS],
            written: Offset::ZERO,
            flushed: Offset::ZERO,
            ticket: 0,
            coordinator_epoch: 0,
            numbers: 0,
        };
        world.core.step(NOW, alone(0), &mut Vec::new());
        world
    }

    fn end(&self) -> Offset {
        self.log.last().map_or(Offset::ZERO, |b| b.end_offset)
    }

    /// Offers it; whether it was new to the log, or why it was refused.
    fn offer(&mut self, mut append: Append) -> Result<bool, Rejection> {
        self.ticket += 1;
        append.ticket = Ticket(self.ticket);
        let expected = self.expected(&append);
        let mut out = Vec::new();
        self.core.step(NOW, Input::Append(append), &mut out);
        let mut result = Ok(false);
        for output in out {
            match output {
                Output::Write { base_offset, .. } => {
                    assert_eq!(base_offset, self.end());
                    result = Ok(true);
                }
                Output::Answer {
                    result: Err(why), ..
                } => result = Err(why),
                Output::Answer { .. } => {}
                other => panic!("{other:?} for an append"),
            }
        }
        if result == Ok(true) {
            let base_offset = self.end();
            self.log.push(Replicated {
                base_offset,
                end_offset: base_offset.plus(append.records.into()),
                leader_epoch: LeaderEpoch::ZERO,
                producer: append.producer,
                unsequenced: append.unsequenced,
                records: append.records,
                max_timestamp: NOW.wall_ms,
                transactional: append.transactional,
                marker: append.marker,
            });
        }
        assert_eq!(result, expected, "{append:?} after {:#?}", self.log);
        result
    }

    /// The rules, read from the log alone.
    fn expected(&self, append: &Append) -> Result<bool, Rejection> {
        let Some(id) = producer_of(append.producer, append.marker) else {
            return Ok(true);
        };
        let own = || {
            self.log
                .iter()
                .filter(move |b| producer_of(b.producer, b.marker) == Some(id))
        };
        let epoch = own().map(epoch_of).max();
        let open = self.open().get(&id).copied();
        if let Some(marker) = append.marker {
            let decided = own()
                .filter_map(|b| b.marker)
                .map(|m| m.end.coordinator_epoch);
            return match decided.max() {
                Some(current_epoch) if marker.end.coordinator_epoch < current_epoch => {
                    Err(Rejection::CoordinatorFenced { current_epoch })
                }
                _ => match epoch {
                    Some(current_epoch) if marker.producer.epoch < current_epoch => {
                        Err(Rejection::ProducerFenced { current_epoch })
                    }
                    epoch if epoch != Some(marker.producer.epoch) => Ok(true),
                    _ if marker.end.number.is_some() => self.expected_numbered(&marker),
                    _ if own().any(|b| b.marker.is_some_and(|m| m.producer == marker.producer)) => {
                        Ok(false)
                    }
                    _ if open.is_some() => Err(Rejection::InvalidTransactionState),
                    _ => Ok(true),
                },
            };
        }
        let (producer, sequence) = append.producer.unwrap();
        match epoch {
            Some(current_epoch) if producer.epoch < current_epoch => {
                return Err(Rejection::ProducerFenced { current_epoch });
            }
            _ => {}
        }
        let numbered = |b: &&Replicated| b.marker.is_some_and(|m| m.end.number.is_some());
        let kept = own().filter(numbered);
        let kept = kept.filter(|b| epoch_of(b) == producer.epoch);
        let last_end = kept.map(|b| b.base_offset).max();
        let over = match append.verified {
            Verified::Since(end) => last_end.is_some_and(|at| at >= end),
            Verified::No => false,
        };
        if append.transactional && over {
            return Err(Rejection::TransactionOver);
        }
        if open.is_some() && !(append.transactional && epoch == Some(producer.epoch)) {
            return Err(Rejection::InvalidTransactionState);
        }
        if open.is_none() && append.transactional && append.verified == Verified::No {
            return Err(Rejection::TransactionUnverified);
        }
        let batches: Vec<_> = own()
            .filter(|b| epoch_of(b) == producer.epoch)
            .filter_map(|b| b.producer.map(|(_, first)| (first, b.records)))
            .collect();
        let next = batches
            .last()
            .map_or(Sequence::ZERO, |(first, n)| first.plus(*n));
        let last = batches
            .len()
            .saturating_sub(limits::PRODUCER_BATCHES_REMEMBERED);
        // Of an epoch that is known by the end of a transaction alone, the sequences may have begun long before.
        let anywhere = batches.is_empty() && last_end.is_some();
        if sequence == next || anywhere {
            Ok(true)
        } else if batches[last..].contains(&(sequence, append.records)) {
            Ok(false)
        } else if epoch.is_none() {
            Err(Rejection::UnknownProducer)
        } else {
            Err(Rejection::OutOfOrderSequence {
                expected: next.get(),
            })
        }
    }

    /// A marker of the session's own epoch, by a coordinator that is not out of date.
    fn expected_numbered(&self, marker: &TransactionEnd) -> Result<bool, Rejection> {
        let of_epoch = self.log.iter().filter_map(|b| b.marker);
        let of_epoch = of_epoch.filter(|m| m.producer == marker.producer);
        let last = of_epoch.filter_map(|m| m.end.number).max();
        let current_epoch = marker.producer.epoch;
        match marker.end.number {
            this if this < last => Err(Rejection::ProducerFenced { current_epoch }),
            this => Ok(this > last),
        }
    }

    /// First offsets of open transactions.
    fn open(&self) -> BTreeMap<i64, Offset> {
        let mut open = BTreeMap::new();
        for batch in &self.log {
            let id = producer_of(batch.producer, batch.marker);
            match (id, batch.marker) {
                (Some(id), Some(_)) => drop(open.remove(&id)),
                (Some(id), None) if batch.transactional => {
                    open.entry(id).or_insert(batch.base_offset);
                }
                _ => {}
            }
        }
        open
    }

    /// First offset and marker of those that ended; whether they were aborted.
    fn ended(&self) -> Vec<(i64, Offset, Offset, bool)> {
        let mut open = BTreeMap::new();
        let mut ended = Vec::new();
        for batch in &self.log {
            match (batch.marker, batch.producer) {
                (Some(end), _) => {
                    let id = end.producer.id;
                    let aborted = end.end.marker == Marker::Abort;
                    let first = open.remove(&id);
                    ended.extend(first.map(|first| (id, first, batch.base_offset, aborted)));
                }
                (None, Some((producer, _))) if batch.transactional => {
                    open.entry(producer.id).or_insert(batch.base_offset);
                }
                _ => {}
            }
        }
        ended
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Records {
                producer,
                records,
                verified,
            } => {
                let ago = |n: &usize| self.log.iter().rev().nth(*n).map(|b| b.end_offset);
                let verified = match verified {
                    Known::Nothing => Verified::No,
                    Known::Before(n) => Verified::Since(ago(n).unwrap_or(Offset::ZERO)),
                };
                let append = Append {
                    transactional: true,
                    verified,
                    ..self.batch(*producer, *records)
                };
                self.send(*producer, append);
            }
            Op::Plain { producer } => {
                let append = self.batch(*producer, 1);
                self.send(*producer, append);
            }
            Op::Repeat { nth } => {
                if !self.sent.is_empty() {
                    let append = self.sent[nth % self.sent.len()];
                    let _ = self.offer(append);
                    self.follow_log();
                }
            }
            Op::End {
                producer,
                commit,
                keep,
            } => self.end_of(*producer, *commit, *keep),
            Op::Elected => self.coordinator_epoch += 1,
            Op::Write => {
                self.written = self.end();
                self.step(Input::Written(self.written));
            }
            Op::Flush => {
                self.flushed = self.written;
                self.step(Input::Flushed(self.flushed));
            }
            Op::Refuse => {
                let written = self.written;
                self.log.retain(|b| b.end_offset <= written);
                self.step(Input::WriteRefused(written));
                self.follow_log();
            }
            Op::Restart => self.restart(),
        }
    }

    fn step(&mut self, input: Input) {
        self.core.step(NOW, input, &mut Vec::new());
    }

    fn batch(&self, producer: usize, records: u32) -> Append {
        let client = self.clients[producer];
        let id = ProducerId {
            id: producer as i64,
            epoch: client.epoch,
        };
        Append {
            producer: Some((id, Sequence::new(client.next).unwrap())),
            ..Append::new(Ticket(0), records, Acks::All)
        }
    }

    fn send(&mut self, producer: usize, append: Append) {
        self.sent.push(append);
        if self.offer(append) == Ok(true) {
            self.clients[producer].next += append.records as i32;
        }
    }

    fn end_of(&mut self, producer: usize, commit: bool, keep: bool) {
        let marker = if commit {
            Marker::Commit
        } else {
            Marker::Abort
        };
        let id = ProducerId {
            id: producer as i64,
            epoch: self.clients[producer].epoch + i16::from(!keep),
        };
        self.numbers += 1;
        let end = EndMarker {
            marker,
            coordinator_epoch: self.coordinator_epoch,
            number: keep.then_some(self.numbers),
        };
        let end = TransactionEnd { producer: id, end };
        let append = Append::end_of_transaction(Ticket(0), end);
        self.sent.push(append);
        if self.offer(append) == Ok(true) && !keep {
            self.clients[producer] = Client {
                epoch: id.epoch,
                next: 0,
            };
        }
    }

    /// Clients go by what is in the log: what was undone or repeated there changes where they stand.
    fn follow_log(&mut self) {
        for (id, client) in self.clients.iter_mut().enumerate() {
            let own = || {
                let of =
                    move |b: &&Replicated| producer_of(b.producer, b.marker) == Some(id as i64);
                self.log.iter().filter(of)
            };
            client.epoch = own().map(epoch_of).max().unwrap_or(0);
            let last = own().rfind(|b| epoch_of(b) == client.epoch && b.producer.is_some());
            client.next = last.map_or(0, |b| {
                let (_, first) = b.producer.unwrap();
                first.plus(b.records).get()
            });
        }
    }

    /// The process ends and starts again, on what was written; half of the table comes from a snapshot.
    fn restart(&mut self) {
        let written = self.written;
        self.log.retain(|b| b.end_offset <= written);
        let half = self.log.len() / 2;
        let mut table = ProducerTable::default();
        self.log[..half].iter().for_each(|b| table.learn(b, HEARD));
        let mut table = ProducerTable::decode(&table.encode()).unwrap();
        self.log[half..].iter().for_each(|b| table.learn(b, HEARD));
        let recovered = Recovered {
            log_end: written,
            high_watermark: self.core.high_watermark(),
            producers: table,
            ..Recovered::default()
        };
        let config = config(Durability::Fsync);
        self.core = Core::new(NodeId(1), config, recovered, 1);
        self.core.step(NOW, alone(0), &mut Vec::new());
        // What is found counts as flushed.
        self.flushed = written;
        self.follow_log();
    }

    fn check(&mut self) {
        let high_watermark = self.core.high_watermark();
        let ended = self.ended();
        let undecided = ended
            .iter()
            .filter(|(_, _, marker, _)| *marker >= high_watermark);
        let firsts = undecided
            .map(|(_, first, ..)| *first)
            .chain(self.open().into_values());
        let stable = firsts.fold(high_watermark, Offset::min);
        assert_eq!(self.core.last_stable_offset(), stable);
        for (from, to) in [(0, 1000), (3, 9), (5, 6), (20, 40)] {
            let (from, to) = (offset(from), offset(to));
            let overlaps = |(_, first, marker, aborted): &&(i64, Offset, Offset, bool)| {
                *aborted && *first < to && *marker >= from
            };
            let expected = ended
                .iter()
                .filter(overlaps)
                .map(|(id, first, last, _)| Aborted {
                    producer: *id,
                    first: *first,
                    last: *last,
                });
            let found = self.core.producers().aborted(from, to).copied();
            assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
        let mut replayed = ProducerTable::default();
        self.log.iter().for_each(|b| replayed.learn(b, HEARD));
        replayed.stable_below(high_watermark);
        let table = &self.core.producers;
        assert_eq!(replayed.sessions, table.sessions);
        assert_eq!(replayed.transactions, table.transactions);
    }
}

fn producer_of(
    batch: Option<(ProducerId, Sequence)>,
    marker: Option<TransactionEnd>,
) -> Option<i64> {
    let of_marker = marker.map(|m| m.producer.id);
    of_marker.or(batch.map(|(producer, _)| producer.id))
}

fn epoch_of(batch: &Replicated) -> i16 {
    let of_marker = batch.marker.map(|m| m.producer.epoch);
    let of_batch = batch.producer.map(|(producer, _)| producer.epoch);
    of_marker.or(of_batch).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn transactions_are_what_the_log_says(ops in prop::collection::vec(op(), 0..80)) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
            world.check();
        }
    }
}

/// Each line that is taken out is noticed by a history that needs it.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_are_noticed() {
    let records = |verified| Op::Records {
        producer: 0,
        records: 2,
        verified,
    };
    let end = |keep| Op::End {
        producer: 0,
        commit: true,
        keep,
    };
    let history = [
        records(Known::Nothing),
        records(Known::Before(0)),
        Op::Write,
        Op::Flush,
        Op::Restart,
        end(false),
        // The batch of the transaction that has ended comes again.
        Op::Repeat { nth: 1 },
        records(Known::Before(0)),
        end(true),
        records(Known::Before(0)),
        end(true),
        records(Known::Before(0)),
        // The marker before the last.
        Op::Repeat { nth: 4 },
        Op::Write,
        Op::Flush,
    ];
    let notices = || {
        let mut world = World::new();
        for op in &history {
            world.run(op);
            world.check();
        }
    };
    notices();
    for plant in Plant::TRANSACTIONS {
        planted::set(Some(plant));
        let noticed = std::panic::catch_unwind(notices).is_err();
        planted::set(None);
        assert!(noticed, "{plant:?}");
    }
}
