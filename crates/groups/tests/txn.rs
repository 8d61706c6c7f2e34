//! Random plain commits, commits in transactions, ends of transactions and removals, with completions in
//! any order and some writes refused: at every point where nothing is under way, a coordinator that
//! replays the log has the same offsets, the same ones are unstable, and both are what the log means.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;

use proptest::prelude::*;
use varve_groups::{
    AppendId, Config, Coordinator, Failure, Input, Matcher, OffsetCommit, Output, Reply, Tick,
    Ticket, TopicState, codec,
};
use varve_types::{
    ErrorKind, GroupName, Offset, PartitionId, ProducerId, TopicId, TopicName, TopicPartition,
};

struct NoPatterns;

impl Matcher for NoPatterns {
    fn matches(&self, _: &str, _: &str) -> Result<bool, String> {
        Err("there are no patterns in this test".to_owned())
    }
}

#[derive(Debug, Clone)]
enum Action {
    Commit {
        partition: i32,
        refused: bool,
    },
    TxnCommit {
        producer: i64,
        partition: i32,
        refused: bool,
    },
    End {
        producer: i64,
        committed: bool,
    },
    /// The last marker of a producer that keeps its epoch is told again, late.
    LateEnd,
    Remove {
        partition: i32,
    },
    /// Writes under way complete: the youngest first, or the oldest.
    Complete {
        youngest: bool,
        count: usize,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let (partition, producer) = (0..3_i32, 1..3_i64);
    let refused = prop::bool::weighted(0.1);
    prop_oneof![
        3 => (partition.clone(), refused)
            .prop_map(|(partition, refused)| Action::Commit { partition, refused }),
        4 => (producer.clone(), partition.clone(), refused).prop_map(
            |(producer, partition, refused)| Action::TxnCommit { producer, partition, refused }
        ),
        2 => (producer, any::<bool>())
            .prop_map(|(producer, committed)| Action::End { producer, committed }),
        1 => Just(Action::LateEnd),
        1 => partition.prop_map(|partition| Action::Remove { partition }),
        5 => (any::<bool>(), 1_usize..6)
            .prop_map(|(youngest, count)| Action::Complete { youngest, count }),
    ]
}

type Record = (Vec<u8>, Option<Vec<u8>>);

#[derive(Debug, Clone)]
enum Entry {
    Plain(Vec<Record>),
    Txn(ProducerId, Vec<Record>),
    End(i64, bool),
}

struct World {
    coordinator: Coordinator,
    log: Vec<Entry>,
    /// Writes that were not reported yet, with whether they are refused.
    writes: Vec<(AppendId, bool)>,
    refuse_next: bool,
    next: u64,
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(number))
}

fn group() -> GroupName {
    GroupName::new("g").unwrap()
}

fn producer(id: i64) -> ProducerId {
    ProducerId { id, epoch: 0 }
}

/// The producer of this id keeps its epoch; places in the log are its offsets.
const KEEPER: i64 = 2;

fn offset(at: usize) -> Offset {
    Offset::new(i64::try_from(at).unwrap()).unwrap()
}

/// The end of a producer's transaction by a marker in this place.
fn end(id: i64, committed: bool, at: usize) -> Input {
    let keeps = id == KEEPER;
    Input::TxnEnded {
        producer: ProducerId {
            id,
            epoch: if keeps { 0 } else { i16::MAX },
        },
        kept_at: keeps.then(|| offset(at)),
        within: None,
        committed,
    }
}

impl World {
    fn of(log: Vec<Entry>) -> Self {
        let mut world = Self {
            coordinator: Coordinator::new(Config::default(), Box::new(NoPatterns)),
            log: Vec::new(),
            writes: Vec::new(),
            refuse_next: false,
            next: 0,
        };
        for (at, entry) in log.iter().enumerate() {
            match entry.clone() {
                Entry::Plain(records) => {
                    for (key, value) in records {
                        world.step(Input::Load { key, value });
                    }
                }
                Entry::Txn(producer, records) => {
                    for (key, value) in records {
                        world.step(Input::LoadTxn {
                            producer,
                            offset: offset(at),
                            key,
                            value,
                        });
                    }
                }
                Entry::End(id, committed) => {
                    world.step(end(id, committed, at));
                }
            }
        }
        let state = TopicState {
            id: TopicId(1),
            partitions: 3,
        };
        let topics = [(TopicName::new("t").unwrap(), state)];
        world.step(Input::Topics(Arc::new(topics.into_iter().collect())));
        world.step(Input::Loaded);
        world.log = log;
        world
    }

    fn step(&mut self, input: Input) -> Vec<Reply> {
        let mut out = Vec::new();
        self.coordinator.step(Tick(0), input, &mut out);
        let mut replies = Vec::new();
        for output in out {
            let (id, entry) = match output {
                Output::Reply { reply, .. } => {
                    replies.push(reply);
                    continue;
                }
                Output::Append { id, records, .. } => (id, Entry::Plain(records)),
                Output::TxnAppend {
                    id,
                    producer,
                    records,
                    ..
                } => (id, Entry::Txn(producer, records)),
                other @ Output::LoadSkipped { .. } => panic!("{other:?}"),
            };
            let refused = std::mem::take(&mut self.refuse_next);
            if !refused {
                self.log.push(entry);
            }
            self.writes.push((id, refused));
        }
        replies
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    fn offsets(&mut self, number: i32) -> Vec<OffsetCommit> {
        vec![OffsetCommit {
            partition: partition(number),
            offset: Offset::new(i64::try_from(self.next).unwrap()).unwrap(),
            leader_epoch: None,
            metadata: String::new(),
        }]
    }

    fn complete(&mut self, youngest: bool) {
        let at = if youngest { self.writes.len() - 1 } else { 0 };
        let (id, refused) = self.writes.remove(at);
        self.step(if refused {
            let failure = Failure::new(ErrorKind::NotEnoughReplicas, "a replica is away");
            Input::CommitFailed { id, failure }
        } else {
            Input::CommitDurable { id }
        });
    }

    fn run(&mut self, action: Action) {
        let (ticket, group) = (self.ticket(), group());
        self.refuse_next = false;
        match action {
            Action::Commit { partition, refused } => {
                self.refuse_next = refused;
                let offsets = self.offsets(partition);
                self.step(Input::Commit {
                    ticket,
                    group,
                    member: None,
                    member_epoch: 0,
                    offsets,
                    wall_ms: 0,
                });
            }
            Action::TxnCommit {
                producer: id,
                partition,
                refused,
            } => {
                self.refuse_next = refused;
                let offsets = self.offsets(partition);
                self.step(Input::TxnCommit {
                    ticket,
                    group,
                    member: None,
                    member_epoch: 0,
                    producer: producer(id),
                    since: (id == KEEPER).then(|| offset(self.log.len())),
                    offsets,
                    wall_ms: 0,
                });
            }
            Action::End {
                producer,
                committed,
            } => {
                let at = self.log.len();
                self.log.push(Entry::End(producer, committed));
                self.step(end(producer, committed, at));
            }
            Action::LateEnd => {
                let ends = self.log.iter().enumerate();
                let last = ends.rev().find(|(_, e)| matches!(e, Entry::End(KEEPER, _)));
                if let Some((at, Entry::End(id, committed))) = last {
                    let late = end(*id, *committed, at);
                    self.step(late);
                }
            }
            Action::Remove { partition: number } => {
                self.step(Input::DeleteOffsets {
                    ticket,
                    group,
                    partitions: vec![partition(number)],
                });
            }
            Action::Complete { youngest, count } => {
                for _ in 0..count.min(self.writes.len()) {
                    self.complete(youngest);
                }
            }
        }
    }

    /// What the log means: the last record of a partition counts, but those of transactions that were not
    /// committed. Then the partitions that a transaction may still change.
    fn meaning(&self) -> (Vec<(TopicPartition, i64)>, Vec<TopicPartition>) {
        let (mut offsets, mut unstable) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let key = codec::encode_key(&group(), &partition(number));
            let (mut last, mut open) = (None, false);
            for (at, entry) in self.log.iter().enumerate() {
                let (records, producer) = match entry {
                    Entry::Plain(records) => (records, None),
                    Entry::Txn(producer, records) => (records, Some(producer.id)),
                    Entry::End(..) => continue,
                };
                let Some((_, value)) = records.iter().find(|(k, _)| *k == key) else {
                    continue;
                };
                let end = self.log[at..].iter().find_map(|e| match e {
                    Entry::End(id, committed) if Some(*id) == producer => Some(*committed),
                    _ => None,
                });
                match (producer, end) {
                    (None, _) | (Some(_), Some(true)) => last = value.as_ref(),
                    (Some(_), None) => open = true,
                    (Some(_), Some(false)) => {}
                }
                if value.is_none() {
                    open = false;
                }
            }
            if let Some(value) = last {
                let offset = codec::decode_value(value).unwrap().offset;
                offsets.push((partition(number), offset.get()));
            }
            if open {
                unstable.push(partition(number));
            }
        }
        (offsets, unstable)
    }

    /// Checks against the log, as it is written and as it is replayed.
    fn check(&mut self) {
        let read = self.read();
        assert_eq!(read, World::of(self.log.clone()).read());
        let (expected, open) = self.meaning();
        let Reply::Offsets(offsets) = &read[0] else {
            panic!("{read:?}")
        };
        let pairs = offsets
            .iter()
            .map(|o| (o.partition.clone(), o.offset.get()));
        assert_eq!(pairs.collect::<Vec<_>>(), expected);
        match &read[1] {
            Reply::OffsetsUnstable { unstable, .. } => assert_eq!(*unstable, open),
            _ => assert!(open.is_empty(), "{open:?}"),
        }
    }

    /// All offsets, and those that are stable with those that are not.
    fn read(&mut self) -> Vec<Reply> {
        let mut all = Vec::new();
        for require_stable in [false, true] {
            let ticket = self.ticket();
            all.extend(self.step(Input::GetOffsets {
                ticket,
                group: group(),
                partitions: Vec::new(),
                require_stable,
            }));
        }
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn a_replay_has_the_same_offsets(actions in prop::collection::vec(action(), 1..60)) {
        let mut world = World::of(Vec::new());
        for action in actions {
            world.run(action);
            if world.writes.is_empty() {
                world.check();
            }
        }
        while !world.writes.is_empty() {
            world.complete(true);
        }
        world.check();
    }
}

/// A coordinator of several partitions: a marker ends what is in its own, and the rest waits for another.
#[test]
fn an_end_is_that_of_one_partition() {
    let mut world = World::of(Vec::new());
    let names = (0..).map(|n| GroupName::new(&format!("g{n}")).unwrap());
    let groups: Vec<GroupName> = names.take(6).collect();
    for group in &groups {
        let (ticket, offsets) = (world.ticket(), world.offsets(0));
        let group = group.clone();
        world.step(Input::TxnCommit {
            ticket,
            group,
            member: None,
            member_epoch: 0,
            producer: producer(7),
            since: None,
            offsets,
            wall_ms: 0,
        });
    }
    while !world.writes.is_empty() {
        world.complete(false);
    }
    let told = |world: &mut World, number: Option<i32>| -> Vec<bool> {
        if let Some(number) = number {
            world.step(Input::TxnEnded {
                producer: ProducerId { id: 7, epoch: 1 },
                kept_at: None,
                within: Some((PartitionId(number), 2)),
                committed: true,
            });
        }
        let known = |group: &GroupName| {
            let ticket = world.ticket();
            let replies = world.step(Input::GetOffsets {
                ticket,
                group: group.clone(),
                partitions: Vec::new(),
                require_stable: false,
            });
            matches!(&replies[0], Reply::Offsets(offsets) if !offsets.is_empty())
        };
        groups.iter().map(known).collect()
    };
    let of = |number| {
        let here = |group: &GroupName| codec::partition_of(group, 2) == PartitionId(number);
        groups.iter().map(here).collect::<Vec<bool>>()
    };
    assert!(of(0).contains(&true) && of(1).contains(&true));
    assert_eq!(told(&mut world, None), vec![false; 6]);
    assert_eq!(told(&mut world, Some(1)), of(1));
    assert_eq!(told(&mut world, Some(0)), vec![true; 6]);
}
