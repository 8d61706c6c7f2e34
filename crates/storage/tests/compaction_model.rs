//! Random histories of a compacted log against the list of everything that was appended, with crashes in
//! between and in the middle of compactions. Whoever replays the log must come to the same newest value of
//! each key, whatever was compacted, cut, lost or started again.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::keyed::*;
use crate::common::*;
use proptest::prelude::*;
use rustix::io::Errno;
use varve_record::Compression;
use varve_storage::inspect::verify;
use varve_storage::{Log, LogConfig};
use varve_types::Offset;
use varve_vfs::Vfs;
use varve_vfs::fault::{FaultVfs, Op};
use varve_vfs::mem::MemVfs;

#[derive(Debug, Clone)]
enum Step {
    Append { records: Vec<(u8, bool)>, codec: u8 },
    Flush,
    Roll,
    BeginEpoch,
    Compact { slots: u8, parts: u8, later: u16 },
    CompactAndCrash { at: u64, kept: u8 },
    Truncate(u8),
    Trim(u8),
    Retain,
    Close,
    PowerCut { kept: u8, torn: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let record = (0u8..12, prop::bool::weighted(0.8));
    prop_oneof![
        12 => (prop::collection::vec(record, 1..6), 0u8..5)
            .prop_map(|(records, codec)| Step::Append { records, codec }),
        3 => Just(Step::Flush),
        3 => Just(Step::Roll),
        1 => Just(Step::BeginEpoch),
        8 => (prop_oneof![0u8..14, any::<u8>()], 0u8..4, 0u16..1500)
            .prop_map(|(slots, parts, later)| Step::Compact { slots, parts, later }),
        2 => (1u64..60, any::<u8>()).prop_map(|(at, kept)| Step::CompactAndCrash { at, kept }),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::Trim),
        1 => Just(Step::Retain),
        1 => Just(Step::Close),
        2 => (any::<u8>(), 0usize..300).prop_map(|(kept, torn)| Step::PowerCut { kept, torn }),
    ]
}

fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 1200,
        index_interval_bytes: 150,
        ..config()
    }
}

struct World {
    mem: MemVfs,
    faults: Arc<FaultVfs>,
    vfs: Arc<dyn Vfs>,
    log: Option<Log>,
    all: Vec<Kept>,
    epoch: i32,
    now: i64,
    /// Nothing below was ever unflushed when something was compacted.
    stable: Offset,
    /// Changes of the disk when everything was flushed.
    since: u64,
}

impl World {
    fn new() -> Self {
        let mem = MemVfs::new();
        let faults = FaultVfs::new(Arc::new(mem.clone()));
        let vfs: Arc<dyn Vfs> = faults.clone();
        let (log, _) = open(&vfs, log_config(), false);
        Self {
            since: mem.changes(),
            mem,
            faults,
            vfs,
            log: Some(log),
            all: Vec::new(),
            epoch: 1,
            now: NOW,
            stable: Offset::ZERO,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn append(&mut self, records: &[(u8, bool)], codec: u8) {
        let base = self.log().log_end();
        let codec = Compression::from_bits(i16::from(codec)).unwrap();
        let (mut made, mut kept) = (Vec::new(), Vec::new());
        for (i, (key, live)) in records.iter().enumerate() {
            let offset = base.get() + i as i64;
            kept.push(Kept {
                offset,
                timestamp: self.now + i as i64,
                key: key.to_string(),
                value: live
                    .then(|| format!("value of {offset} {}", "x".repeat(usize::from(*key) * 9))),
            });
        }
        for record in &kept {
            made.push((record.key.as_str(), record.value.as_deref()));
        }
        let batch = builder(codec, self.now, &made).build_batch().unwrap();
        let batch = batch.sequence(base, epoch(self.epoch));
        let now = self.now;
        self.log().append(&[batch], now).unwrap();
        self.all.extend(kept);
    }

    fn compact(&mut self, slots: usize, parts: usize) -> bool {
        let (now, bound) = (self.now, self.log().flushed());
        self.stable = self.stable.max(bound);
        let log = self.log.as_mut().unwrap();
        let Some(mut run) = log.prepare_compaction(&eager(), now, bound, slots * 24) else {
            return true;
        };
        for _ in 0..parts {
            let part = match run.next(&|_| true) {
                Ok(Some(part)) => part,
                Ok(None) => return true,
                Err(_) => return false,
            };
            log.prepare_install(part).unwrap();
            if log.change_now().is_err() {
                return false;
            }
            if log.take_removed().run().is_err() {
                return false;
            }
        }
        true
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append { records, codec } => self.append(records, *codec),
            Step::Flush => drop(self.log().flush_now().unwrap()),
            Step::Roll => self.log().roll().unwrap(),
            Step::BeginEpoch => {
                self.epoch += 1;
                let next = epoch(self.epoch);
                self.log().begin_epoch(next).unwrap();
            }
            Step::Compact {
                slots,
                parts,
                later,
            } => {
                self.now += i64::from(*later);
                // No parts: all of them.
                let parts = if *parts == 0 {
                    1000
                } else {
                    usize::from(*parts)
                };
                assert!(self.compact(usize::from(*slots), parts));
            }
            Step::CompactAndCrash { at, kept } => {
                self.log().flush_now().unwrap();
                self.log().flush_index().unwrap();
                let before = self.mem.changes();
                self.faults.fail_after(Op::Any, *at, Errno::IO);
                let _ = self.compact(1000, 1000);
                self.faults.heal();
                let made = self.mem.changes() - before;
                let end = self.log().log_end();
                self.log = None;
                self.mem
                    .crash_in_order(before + made * u64::from(*kept) / 255, 50);
                self.reopen(false);
                assert_eq!(self.log().log_end(), end, "all of it was flushed");
            }
            Step::Truncate(part) => {
                let (end, stable) = (self.log().log_end(), self.stable);
                let start = self.log().log_start().max(stable);
                let to = start.plus(end.since(start) * u64::from(*part) / 255);
                self.log().truncate_to(to).unwrap().run().unwrap();
                let end = self.log().log_end();
                self.all.retain(|r| r.offset < end.get());
            }
            Step::Trim(part) => {
                let (start, end) = (self.log().log_start(), self.log().log_end());
                let to = start.plus(end.since(start) * u64::from(*part) / 1000);
                self.log().trim(to).unwrap().run().unwrap();
            }
            Step::Retain => {
                let keep = LogConfig {
                    retention_bytes: Some(6000),
                    ..log_config()
                };
                let (now, end) = (self.now, self.log().log_end());
                self.log().set_config(keep);
                self.log().apply_retention(now, end).unwrap().run().unwrap();
                self.log().set_config(log_config());
            }
            Step::Close => {
                self.log.take().unwrap().close(true).unwrap();
                self.mem.crash_losing_unsynced();
                self.reopen(true);
            }
            Step::PowerCut { kept, torn } => {
                let flushed = self.log().flushed();
                self.log = None;
                let now = self.mem.changes();
                let kept = self.since + (now - self.since) * u64::from(*kept) / 255;
                self.mem.crash_in_order(kept, *torn);
                self.reopen(false);
                assert!(self.log().log_end() >= flushed);
            }
        }
    }

    fn reopen(&mut self, clean: bool) {
        let (log, recovery) = open(&self.vfs, log_config(), clean);
        recovery.leftovers.run().unwrap();
        let end = log.log_end();
        self.all.retain(|r| r.offset < end.get());
        self.since = self.mem.changes();
        self.stable = self.stable.min(end);
        self.log = Some(log);
    }

    fn check(&mut self) {
        let view = self.log().view();
        let found = records(&view);
        assert!(
            found.windows(2).all(|w| w[0].offset < w[1].offset),
            "in order"
        );
        let by_offset: BTreeMap<i64, &Kept> = self.all.iter().map(|r| (r.offset, r)).collect();
        for record in &found {
            assert_eq!(
                by_offset.get(&record.offset),
                Some(&record),
                "never another record"
            );
        }
        let start = view.log_start().get();
        let visible: Vec<Kept> = self
            .all
            .iter()
            .filter(|r| r.offset >= start)
            .cloned()
            .collect();
        let live = |records: &[Kept]| -> BTreeMap<String, Kept> {
            let mut newest = newest(records);
            newest.retain(|_, r| r.value.is_some());
            newest
        };
        assert_eq!(live(&found), live(&visible), "a replay comes to the same");
        let headers: Vec<_> = view.headers(view.log_start()).map(Result::unwrap).collect();
        assert!(
            headers
                .windows(2)
                .all(|w| w[0].next_offset() <= w[1].base_offset)
        );
        if let Some(middle) = found.get(found.len() / 2) {
            let upto = view.log_end();
            let by_time = view.offset_for_timestamp(middle.timestamp, upto).unwrap();
            let right = found
                .iter()
                .find(|r| r.timestamp >= middle.timestamp)
                .unwrap();
            assert_eq!(by_time.unwrap().0.get(), right.offset);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_replay_always_comes_to_the_same(steps in prop::collection::vec(step(), 1..50)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
            world.check();
        }
        world.log.take().unwrap().close(true).unwrap();
        let report = verify(&world.vfs, &dir()).unwrap();
        prop_assert!(report.is_good(), "{:?}", report.problems);
    }
}
