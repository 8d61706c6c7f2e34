//! Positions by transcript, and against a model that is too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use varve_types::PartitionId;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    from: i64,
    to: i64,
}

impl Span for Run {
    fn from(&self) -> i64 {
        self.from
    }

    fn next_offset(&self) -> i64 {
        self.to
    }

    fn starting_at(self, from: i64) -> Self {
        Self { from, ..self }
    }
}

type P = Positions<Run>;

fn p(number: i32) -> TopicPartition {
    TopicPartition::new("t".parse().unwrap(), PartitionId(number))
}

fn run(from: i64, to: i64) -> Run {
    Run { from, to }
}

/// A message with one run, of that much credit.
fn arrive(positions: &mut P, id: u64, from: i64, to: i64) {
    positions.arrived(id, run(from, to));
    positions.message_ended(id, to, 10);
}

fn next(positions: &mut P) -> Option<(i64, i64)> {
    positions.come_back();
    positions.take().map(|run| (run.from, run.to))
}

fn processed(positions: &P) -> BTreeMap<i32, i64> {
    let all = positions.processed().into_iter();
    all.map(|p| (p.partition.partition.0, p.offset)).collect()
}

#[test]
fn what_was_given_counts_when_the_caller_comes_back() {
    let mut positions = P::default();
    let id = positions.assign(p(0), 0, None, 1).unwrap();
    arrive(&mut positions, id, 0, 5);
    arrive(&mut positions, id, 5, 8);
    assert_eq!(positions.position(&p(0)), Some(0));
    assert_eq!(next(&mut positions), Some((0, 5)));
    assert_eq!(positions.position(&p(0)), Some(5));
    assert!(processed(&positions).is_empty());
    assert_eq!(positions.owed().count(), 0);
    assert_eq!(next(&mut positions), Some((5, 8)));
    assert_eq!(processed(&positions), BTreeMap::from([(0, 5)]));
    assert_eq!(Vec::from_iter(positions.owed()), [(id, 10)]);
    positions.settled(&p(0), 1, 5);
    assert!(!positions.is_dirty());
    assert_eq!(next(&mut positions), None);
    assert_eq!(processed(&positions), BTreeMap::from([(0, 8)]));
    // A commit of less than that, or under another grant, settles nothing.
    positions.settled(&p(0), 1, 7);
    positions.settled(&p(0), 2, 8);
    assert!(positions.is_dirty());
}

#[test]
fn a_commit_in_the_middle_is_not_made_again() {
    let mut positions = P::default();
    let id = positions.assign(p(0), 0, None, 1).unwrap();
    arrive(&mut positions, id, 0, 5);
    next(&mut positions);
    positions.mark();
    assert_eq!(processed(&positions), BTreeMap::from([(0, 5)]));
    positions.settled(&p(0), 1, 5);
    assert_eq!(next(&mut positions), None);
    assert!(!positions.is_dirty());
}

#[test]
fn what_was_not_processed_is_given_again_before_anything_else() {
    let mut positions = P::default();
    let ids = [0, 1].map(|n| positions.assign(p(n), 0, None, 1).unwrap());
    arrive(&mut positions, ids[0], 0, 9);
    arrive(&mut positions, ids[0], 9, 12);
    arrive(&mut positions, ids[1], 0, 1);
    assert_eq!(next(&mut positions), Some((0, 9)));
    positions.processed_up_to(4);
    assert_eq!(positions.position(&p(0)), Some(4));
    assert_eq!(next(&mut positions), Some((4, 9)));
    positions.not_processed();
    assert_eq!(processed(&positions), BTreeMap::from([(0, 4)]));
    assert_eq!(positions.position(&p(0)), Some(4));
    assert_eq!(next(&mut positions), Some((4, 9)));
    // What no batch can mean is taken for its bounds.
    positions.processed_up_to(-3);
    assert_eq!(next(&mut positions), Some((4, 9)));
    positions.processed_up_to(77);
    assert_eq!(next(&mut positions), Some((0, 1)));
    assert_eq!(next(&mut positions), Some((9, 12)));
    assert_eq!(processed(&positions), BTreeMap::from([(0, 9), (1, 1)]));
}

#[test]
fn records_count_one_by_one() {
    let mut positions = P::default();
    let id = positions.assign(p(0), 0, None, 1).unwrap();
    arrive(&mut positions, id, 3, 9);
    next(&mut positions);
    positions.begin_records();
    let serial = positions.given();
    assert!(serial.is_some());
    positions.mark();
    assert!(!positions.is_dirty(), "no record was given yet");
    positions.record_given(3);
    positions.record_given(5);
    positions.mark();
    assert_eq!(processed(&positions), BTreeMap::from([(0, 6)]));
    assert_eq!(positions.position(&p(0)), Some(6));
    // The last record was not processed: it comes again, in a giving of its own.
    positions.record_given(7);
    positions.not_processed();
    assert_eq!(next(&mut positions), Some((7, 9)));
    assert_ne!(positions.given(), serial);
    positions.begin_records();
    positions.records_ended();
    assert_eq!(next(&mut positions), None);
    assert_eq!(processed(&positions), BTreeMap::from([(0, 9)]));
}

#[test]
fn a_pause_holds_one_partition_and_loses_nothing() {
    let mut positions = P::default();
    let ids = [0, 1].map(|n| positions.assign(p(n), 0, None, 1).unwrap());
    arrive(&mut positions, ids[0], 0, 5);
    arrive(&mut positions, ids[1], 0, 5);
    positions.pause(&p(0));
    assert_eq!(positions.paused(), BTreeSet::from([p(0)]));
    assert_eq!(next(&mut positions), Some((0, 5)));
    assert!(positions.given().is_some(), "of partition 1");
    arrive(&mut positions, ids[0], 5, 7);
    assert_eq!(next(&mut positions), None);
    positions.resume(&p(0));
    positions.resume(&p(0));
    assert_eq!(next(&mut positions), Some((0, 5)));
    // Paused while records of it are given: the rest waits.
    positions.begin_records();
    positions.record_given(1);
    positions.pause(&p(0));
    assert_eq!(positions.given(), None);
    assert_eq!(next(&mut positions), None);
    positions.resume(&p(0));
    assert_eq!(next(&mut positions), Some((2, 5)));
    assert_eq!(next(&mut positions), Some((5, 7)));
    assert_eq!(next(&mut positions), None);
    // It goes and comes back: nobody remembers the pause.
    positions.pause(&p(0));
    assert_eq!(positions.remove(&p(0)), Some(ids[0]));
    let again = positions.assign(p(0), 7, None, 2).unwrap();
    assert!(positions.paused().is_empty());
    arrive(&mut positions, again, 7, 8);
    assert_eq!(next(&mut positions), Some((7, 8)));
}

#[test]
fn nothing_from_before_a_seek_is_given_after_it() {
    let mut positions = P::default();
    let id = positions.assign(p(0), 0, None, 1).unwrap();
    arrive(&mut positions, id, 0, 5);
    arrive(&mut positions, id, 5, 9);
    next(&mut positions);
    let reopen = positions.seek(&p(0), 100).unwrap();
    assert_eq!(reopen.close, Some(id));
    let opened = reopen.open.unwrap();
    assert_ne!(opened, id);
    assert_eq!(positions.position(&p(0)), Some(100));
    // On its way since before the seek.
    arrive(&mut positions, id, 9, 12);
    assert_eq!(positions.expected(id), None);
    assert!(!positions.failed(id));
    assert_eq!(next(&mut positions), None);
    assert!(
        !positions.is_dirty(),
        "nothing was processed at the new place"
    );
    arrive(&mut positions, opened, 100, 101);
    assert_eq!(next(&mut positions), Some((100, 101)));
    assert_eq!(positions.seek(&p(7), 1), None);
}

#[test]
fn a_seek_revives_what_ended_or_failed() {
    let mut positions = P::default();
    let id = positions.assign(p(0), 0, Some(5), 1).unwrap();
    arrive(&mut positions, id, 0, 5);
    assert!(!positions.is_done());
    assert_eq!(next(&mut positions), Some((0, 5)));
    assert_eq!(next(&mut positions), None);
    assert!(positions.is_done());
    let reopen = positions.seek(&p(0), 3).unwrap();
    assert_eq!(reopen.close, None);
    assert!(!positions.is_done());
    assert!(positions.failed(reopen.open.unwrap()));
    assert!(positions.is_done());
    assert!(positions.seek(&p(0), 4).unwrap().open.is_some());
    assert_eq!(positions.seek(&p(0), 5).unwrap().open, None);
    assert_eq!(positions.assign(p(1), 5, Some(5), 1), None);
    assert!(positions.is_done());
    assert_eq!(positions.assigned().len(), 2);
}

#[test]
fn what_holds_no_records_is_processed_with_what_comes_before_it() {
    let mut positions = P::default();
    let id = positions.assign(p(0), 0, None, 1).unwrap();
    // A marker at 0, records to 5, then markers.
    positions.message_ended(id, 1, 10);
    assert_eq!(Vec::from_iter(positions.owed()), [(id, 10)]);
    assert_eq!(processed(&positions), BTreeMap::from([(0, 1)]));
    positions.arrived(id, run(1, 5));
    positions.message_ended(id, 6, 10);
    assert_eq!(next(&mut positions), Some((1, 5)));
    positions.message_ended(id, 7, 10);
    assert_eq!(positions.position(&p(0)), Some(5));
    assert_eq!(next(&mut positions), None);
    assert_eq!(processed(&positions), BTreeMap::from([(0, 7)]));
    assert_eq!(Vec::from_iter(positions.owed()), [(id, 20)]);
    // Retention was faster: nothing was processed, and yet reading goes on elsewhere.
    positions.settled(&p(0), 1, 7);
    positions.moved(id, 50);
    assert_eq!(positions.position(&p(0)), Some(50));
    assert!(!positions.is_dirty());
}

#[test]
fn what_is_being_given_up_can_be_committed_and_nothing_else() {
    let mut positions = P::default();
    let id = positions.assign(p(0), 0, None, 9).unwrap();
    arrive(&mut positions, id, 0, 5);
    arrive(&mut positions, id, 5, 6);
    next(&mut positions);
    positions.begin_records();
    positions.record_given(2);
    assert_eq!(positions.stop(&p(0)), Some(id));
    assert_eq!(positions.given(), None);
    assert_eq!(next(&mut positions), None);
    let entry = Processed {
        partition: p(0),
        grant: 9,
        offset: 3,
    };
    assert_eq!(positions.processed(), [entry]);
    assert!(!positions.is_active(&p(0)));
    assert_eq!(positions.seek(&p(0), 0), None);
    assert!(positions.assigned().contains(&p(0)));
    assert_eq!(positions.remove(&p(0)), None);
    assert!(positions.assigned().is_empty() && !positions.is_dirty());
}

#[test]
fn partitions_take_turns() {
    let mut positions = P::default();
    let ids = [0, 1, 2].map(|n| positions.assign(p(n), 0, None, 1).unwrap());
    for at in 0..3 {
        for id in ids {
            positions.arrived(id, run(at, at + 1));
        }
    }
    let mut given = Vec::new();
    while next(&mut positions).is_some() {
        let partition = &positions.given.as_ref().unwrap().partition;
        given.push(partition.partition.0);
    }
    assert_eq!(given, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[derive(Debug, Clone)]
enum Op {
    Assign(i32, i64),
    Stop(i32),
    Remove(i32),
    Arrive(i32, i64),
    Stale(i64),
    Take,
    Record,
    UpTo(i64),
    NotProcessed,
    Pause(i32),
    Resume(i32),
    Seek(i32, i64),
    Commit,
}

fn op() -> impl Strategy<Value = Op> {
    let partition = 0..3_i32;
    prop_oneof![
        2 => (partition.clone(), 0..50_i64).prop_map(|(n, at)| Op::Assign(n, at)),
        1 => partition.clone().prop_map(Op::Stop),
        1 => partition.clone().prop_map(Op::Remove),
        8 => (partition.clone(), 1..9_i64).prop_map(|(n, count)| Op::Arrive(n, count)),
        1 => (1..9_i64).prop_map(Op::Stale),
        6 => Just(Op::Take),
        6 => Just(Op::Record),
        1 => (0..9_i64).prop_map(Op::UpTo),
        1 => Just(Op::NotProcessed),
        2 => partition.clone().prop_map(Op::Pause),
        2 => partition.clone().prop_map(Op::Resume),
        2 => (partition, 0..50_i64).prop_map(|(n, at)| Op::Seek(n, at)),
        2 => Just(Op::Commit),
    ]
}

/// What is known of a partition from outside alone.
#[derive(Debug)]
struct Known {
    id: u64,
    fetched: i64,
    /// What must be given next.
    next: i64,
    /// Up to where the caller has come back, since the last assignment or seek.
    back: Option<i64>,
    paused: bool,
    stopped: bool,
    sent: usize,
    returned: usize,
}

/// The batch or record the caller works on: partition, its bounds, where the next record is.
#[derive(Debug)]
struct Working {
    number: i32,
    last: i64,
    done: i64,
    to: i64,
    records: bool,
}

#[derive(Default)]
struct Model {
    positions: P,
    known: BTreeMap<i32, Known>,
    old: Vec<u64>,
    working: Option<Working>,
}

impl Model {
    fn come_back(&mut self) {
        if let Some(working) = self.working.take() {
            let known = self.known.get_mut(&working.number).unwrap();
            known.next = working.done;
            self.note(&working);
        }
    }

    fn note(&mut self, working: &Working) {
        let known = self.known.get_mut(&working.number).unwrap();
        known.back = known.back.max(Some(working.done));
    }

    fn take(&mut self) {
        self.come_back();
        self.positions.come_back();
        let Some(batch) = self.positions.take() else {
            for known in self.known.values() {
                let empty = known.paused || known.stopped || known.next >= known.fetched;
                assert!(empty, "something is there and is not given: {known:?}");
            }
            return;
        };
        let number = self.positions.given.as_ref().unwrap().partition.partition.0;
        let known = &self.known[&number];
        assert!(!known.paused && !known.stopped, "{known:?}");
        assert_eq!(
            batch.from, known.next,
            "in order, nothing twice or left out"
        );
        assert!(batch.to > batch.from && batch.to <= known.fetched);
        self.working = Some(Working {
            number,
            last: batch.from,
            done: batch.to,
            to: batch.to,
            records: false,
        });
    }

    fn record(&mut self) {
        let open = matches!(&self.working, Some(w) if w.records && w.done < w.to);
        if !open || self.positions.given().is_none() {
            self.take();
            let Some(working) = &mut self.working else {
                return;
            };
            self.positions.begin_records();
            working.records = true;
            working.done = working.last;
        }
        self.positions.mark();
        if let Some(working) = self.working.take() {
            if working.done > working.last {
                self.note(&working);
            }
            self.positions.record_given(working.done);
            self.working = Some(Working {
                last: working.done,
                done: working.done + 1,
                ..working
            });
        }
    }

    fn forget(&mut self, number: i32) {
        if self.working.as_ref().is_some_and(|w| w.number == number) {
            self.working = None;
        }
        if let Some(known) = self.known.remove(&number) {
            self.old.push(known.id);
        }
    }

    fn begin(&mut self, number: i32, id: u64, at: i64) {
        let known = Known {
            id,
            fetched: at,
            next: at,
            back: None,
            paused: false,
            stopped: false,
            sent: 0,
            returned: 0,
        };
        self.known.insert(number, known);
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Assign(number, at) => {
                self.forget(number);
                let id = self.positions.assign(p(number), at, None, 1).unwrap();
                self.begin(number, id, at);
            }
            Op::Stop(number) => {
                self.positions.stop(&p(number));
                if let Some(working) = self.working.take_if(|w| w.number == number)
                    && working.done > working.last
                {
                    self.note(&working);
                }
                if let Some(known) = self.known.get_mut(&number) {
                    known.stopped = true;
                    self.old.push(known.id);
                }
            }
            Op::Remove(number) => {
                self.positions.remove(&p(number));
                self.forget(number);
            }
            Op::Arrive(number, count) => {
                let Some(known) = self.known.get_mut(&number).filter(|k| !k.stopped) else {
                    return;
                };
                let (from, to) = (known.fetched, known.fetched + count);
                known.fetched = to;
                known.sent += 7;
                self.positions.arrived(known.id, run(from, to));
                self.positions.message_ended(known.id, to, 7);
            }
            Op::Stale(count) => {
                for id in self.old.clone() {
                    arrive(&mut self.positions, id, 0, count);
                    self.positions.moved(id, 3);
                    assert!(!self.positions.failed(id));
                }
            }
            Op::Take => self.take(),
            Op::Record => self.record(),
            Op::UpTo(count) => {
                if let Some(working) = self.working.as_mut().filter(|w| !w.records) {
                    working.done = (working.last + count).min(working.to);
                    self.positions.processed_up_to(working.last + count);
                }
            }
            Op::NotProcessed => {
                self.positions.not_processed();
                if let Some(working) = self.working.take() {
                    let known = self.known.get_mut(&working.number).unwrap();
                    known.next = working.last;
                    // Nothing, or what was processed before the last record.
                    known.back = known.back.max(Some(working.last));
                }
            }
            Op::Pause(number) => {
                self.positions.pause(&p(number));
                if let Some(known) = self.known.get_mut(&number) {
                    known.paused = true;
                }
            }
            Op::Resume(number) => {
                self.positions.resume(&p(number));
                if let Some(known) = self.known.get_mut(&number) {
                    known.paused = false;
                }
            }
            Op::Seek(number, at) => {
                let reopen = self.positions.seek(&p(number), at);
                let Some(known) = self.known.get(&number).filter(|k| !k.stopped) else {
                    return assert_eq!(reopen, None);
                };
                let paused = known.paused;
                let reopen = reopen.unwrap();
                assert_eq!(reopen.close, Some(known.id));
                self.forget(number);
                self.begin(number, reopen.open.unwrap(), at);
                self.known.get_mut(&number).unwrap().paused = paused;
            }
            Op::Commit => {
                self.positions.mark();
                for done in self.positions.processed() {
                    self.positions.settled(&done.partition, 1, done.offset);
                }
                assert!(!self.positions.is_dirty());
            }
        }
    }

    fn check(&mut self) {
        for (id, credit) in Vec::from_iter(self.positions.owed()) {
            if let Some(known) = self.known.values_mut().find(|k| k.id == id) {
                known.returned += credit;
            }
        }
        for done in self.positions.processed() {
            let number = done.partition.partition.0;
            let known = &self.known[&number];
            let working = self.working.as_ref().filter(|w| w.number == number);
            let most = known.back.max(working.map(|w| w.done));
            assert!(Some(done.offset) <= most, "{done:?} {known:?}");
        }
        for (number, known) in &self.known {
            assert!(known.returned <= known.sent, "{known:?}");
            let idle = self.working.as_ref().is_none_or(|w| w.number != *number);
            let all = idle && known.next == known.fetched && !known.stopped;
            if all && self.positions.given.is_none() {
                assert_eq!(known.returned, known.sent, "all was taken: {known:?}");
            }
        }
        let assigned = self.positions.assigned().iter().map(|p| p.partition.0);
        assert!(assigned.eq(self.known.keys().copied()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_keeps_the_invariants(ops in prop::collection::vec(op(), 1..80)) {
        let mut model = Model::default();
        for op in &ops {
            model.apply(op);
            model.check();
        }
        // Everything that is left can be read to its end.
        for number in 0..3 {
            model.apply(&Op::Resume(number));
        }
        loop {
            model.take();
            model.check();
            if model.working.is_none() {
                break;
            }
        }
    }
}
