//! Random histories of one log against a list of batches, with power cuts in between. After a power cut of a
//! disk that writes in order, the log must open and be a prefix of what was written, with everything that
//! was flushed. On a disk that loses and tears unsynced writes at will, it may refuse, and never lies.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use crate::common::*;
use proptest::prelude::*;
use rustix::io::Errno;
use varve_record::Sequenced;
use varve_storage::inspect::verify;
use varve_storage::{Log, LogConfig, LogError, Reason};
use varve_types::Offset;
use varve_vfs::Vfs;
use varve_vfs::fault::{FaultVfs, Op};
use varve_vfs::mem::{Fate, MemVfs};

#[derive(Debug, Clone)]
enum Step {
    Append { count: usize, size: usize },
    Flush,
    FlushIndex,
    Roll,
    BeginEpoch,
    Truncate(u8),
    Trim(u8),
    Reset(u8),
    Retain,
    Close,
    Kill,
    PowerCut { kept: u8, torn: usize },
    WildPowerCut { seed: u64 },
    CutDuringRecovery { kept: u8, at: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1usize..9, 1usize..300).prop_map(|(count, size)| Step::Append { count, size }),
        5 => Just(Step::Flush),
        3 => Just(Step::FlushIndex),
        1 => Just(Step::Roll),
        1 => Just(Step::BeginEpoch),
        2 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::Trim),
        1 => any::<u8>().prop_map(Step::Reset),
        1 => Just(Step::Retain),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        3 => (any::<u8>(), 0usize..400).prop_map(|(kept, torn)| Step::PowerCut { kept, torn }),
        1 => any::<u64>().prop_map(|seed| Step::WildPowerCut { seed }),
        2 => (any::<u8>(), 1u64..14).prop_map(|(kept, at)| Step::CutDuringRecovery { kept, at }),
    ]
}

fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 3000,
        index_interval_bytes: 200,
        ..config()
    }
}

struct World {
    mem: MemVfs,
    vfs: Arc<dyn Vfs>,
    log: Option<Log>,
    batches: Vec<Sequenced>,
    start: Offset,
    end: Offset,
    flushed: Offset,
    epoch: i32,
    /// Changes of the disk when the log was last known to be flushed.
    since: u64,
}

/// A small generator, so that a run is a function of the seed.
fn next(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

impl World {
    fn new() -> Self {
        let (mem, vfs) = mem();
        let (log, _) = open(&vfs, log_config(), false);
        let zero = Offset::ZERO;
        let since = mem.changes();
        Self {
            mem,
            vfs,
            log: Some(log),
            batches: Vec::new(),
            start: zero,
            end: zero,
            flushed: zero,
            epoch: 1,
            since,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn at(&self, part: u8) -> Offset {
        let span = self.end.since(self.start);
        self.start.plus(span * u64::from(part) / 255)
    }

    /// Forgets batches that are not wholly below `end`.
    fn cut(&mut self, end: Offset) {
        self.batches.retain(|b| b.header().next_offset() <= end);
        // Records before the start are deleted for good, even by a cut within the first batch.
        let end = self
            .batches
            .last()
            .map_or(self.start, |b| b.header().next_offset());
        self.end = end.max(self.start);
        if self.end == self.start {
            self.batches.clear();
        }
        self.flushed = self.flushed.min(self.end);
    }

    fn run(&mut self, step: &Step) -> bool {
        match *step {
            Step::Append { count, size } => {
                let mut made = Vec::new();
                for i in 0..count {
                    let size = 1 + (size * (i + 3)) % 300;
                    made.push(batch(
                        self.end,
                        self.epoch,
                        NOW + self.end.get(),
                        1 + i % 3,
                        size,
                    ));
                    self.end = made[i].header().next_offset();
                }
                self.log().append(&made, NOW).unwrap();
                self.batches.extend(made);
            }
            Step::Flush => self.flushed = self.log().flush_now().unwrap(),
            Step::FlushIndex => self.log().flush_index().unwrap(),
            Step::Roll => self.log().roll().unwrap(),
            Step::BeginEpoch => {
                self.epoch += 1;
                let epoch = epoch(self.epoch);
                self.log().begin_epoch(epoch).unwrap();
            }
            Step::Truncate(part) => {
                let to = self.at(part);
                self.log().truncate_to(to).unwrap().run().unwrap();
                if to < self.end {
                    self.cut(to);
                }
            }
            Step::Trim(part) => {
                let to = self.at(part);
                self.log().trim(to).unwrap().run().unwrap();
                self.start = to.max(self.start);
                self.flushed = self.flushed.max(self.log().flushed());
            }
            Step::Reset(part) => {
                let to = Offset::new(self.end.get() * i64::from(part) / 200).unwrap();
                self.log().reset_to(to).unwrap().run().unwrap();
                self.batches.clear();
                (self.start, self.end, self.flushed) = (to, to, to);
            }
            Step::Retain => {
                let end = self.end;
                let keep = LogConfig {
                    retention_bytes: Some(5000),
                    ..log_config()
                };
                self.log().set_config(keep);
                self.log().apply_retention(NOW, end).unwrap().run().unwrap();
                self.start = self.log().log_start();
                self.flushed = self.flushed.max(self.log().flushed());
            }
            Step::Close => {
                self.log.take().unwrap().close(true).unwrap();
                self.mem.crash_losing_unsynced();
                self.flushed = self.end;
                self.reopen(true, &[]);
            }
            Step::Kill => {
                self.log = None;
                self.mem.kill_process();
                self.flushed = self.end;
                self.reopen(false, &[]);
            }
            Step::PowerCut { kept, torn } => self.power_cut(kept, torn),
            Step::WildPowerCut { mut seed } => {
                self.log = None;
                self.mem.crash(&mut |_| match next(&mut seed) % 4 {
                    0 => Fate::Lose,
                    1 => Fate::Tear((next(&mut seed) % 600) as usize),
                    _ => Fate::Keep,
                });
                return self.reopen(false, &[Reason::BatchBehindDamage, Reason::Gap]);
            }
            Step::CutDuringRecovery { kept, at } => {
                self.log = None;
                self.crash_in_order(kept, 100);
                let faults = FaultVfs::new(self.vfs.clone());
                faults.fail_after(Op::Any, at, Errno::IO);
                let failing: Arc<dyn Vfs> = faults;
                let first = try_open(&failing, log_config(), false).map(|(log, _)| log.log_end());
                self.crash_in_order((at * 37 % 256) as u8, 50);
                self.reopen(false, &[]);
                if let Ok(end) = first {
                    assert_eq!(self.end, end, "what recovery reported is durable");
                }
            }
        }
        true
    }

    fn crash_in_order(&mut self, kept: u8, torn: usize) {
        let now = self.mem.changes();
        let kept = self.since + (now - self.since) * u64::from(kept) / 255;
        self.mem.crash_in_order(kept, torn);
    }

    fn power_cut(&mut self, kept: u8, torn: usize) {
        self.log = None;
        self.crash_in_order(kept, torn);
        self.reopen(false, &[]);
    }

    /// Opens the log and takes over how much of the end is left. `false` when it was refused for one of
    /// the reasons that are allowed.
    fn reopen(&mut self, clean: bool, may_refuse: &[Reason]) -> bool {
        let (log, recovery) = match try_open(&self.vfs, log_config(), clean) {
            Ok(opened) => opened,
            Err(LogError::Corrupt(found)) if may_refuse.contains(&found.reason) => return false,
            Err(error) => panic!("{error}"),
        };
        recovery.leftovers.run().unwrap();
        assert_eq!(log.flushed(), log.log_end());
        assert!(
            log.log_end() >= self.flushed,
            "{} of {} flushed",
            log.log_end(),
            self.flushed
        );
        self.cut(log.log_end());
        self.flushed = log.log_end();
        self.since = self.mem.changes();
        self.log = Some(log);
        true
    }

    fn check(&mut self) {
        let (start, end) = (self.start, self.end);
        let log = self.log.as_ref().unwrap();
        assert_eq!((log.log_start(), log.log_end()), (start, end));
        let visible: Vec<Sequenced> = self
            .batches
            .iter()
            .filter(|b| b.header().last_offset() >= start)
            .cloned()
            .collect();
        let view = log.view();
        assert_eq!(read_all(&view, start, 700), bytes_of(&visible));
        let offsets: Vec<Offset> = view
            .headers(start)
            .map(|h| h.unwrap().base_offset)
            .collect();
        let right: Vec<Offset> = visible.iter().map(|b| b.header().base_offset).collect();
        assert_eq!(offsets, right);
        if let Some(middle) = visible.get(visible.len() / 2) {
            let header = middle.header();
            let at = header.base_offset.max(start);
            let ts = header.base_timestamp + at.since(header.base_offset) as i64;
            assert_eq!(view.offset_for_timestamp(ts, end).unwrap(), Some((at, ts)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_history_is_a_prefix_of_what_was_written(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new();
        for step in &steps {
            if !world.run(step) {
                return Ok(());
            }
            world.check();
        }
        let log = world.log.take().unwrap();
        log.close(true).unwrap();
        let report = verify(&world.vfs, &dir()).unwrap();
        prop_assert!(report.is_good(), "{:?}", report.problems);
    }
}
