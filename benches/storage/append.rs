//! Appends to one log: batches of 64 KiB and a flush after each group, against one `pwrite` per batch and one
//! `fdatasync` per group.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use varve_benches::stats::median;
use varve_record::Batch;
use varve_storage::Log;

use super::log::{BATCH_BYTES, NOW_MS, batch, group, open};
use super::{Bench, Better, Round, Row};

const SEGMENT_BYTES: u64 = 1 << 30;

/// Batches of one log, in groups of several sizes.
pub fn append(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for batches in [1, 16, 64] {
        let total = if batches == 1 {
            bench.bytes / 4
        } else {
            bench.bytes
        };
        let load = Load {
            files: 1,
            group: batches,
            total,
        };
        let name = match batches {
            1 => "append 64 KiB, a flush each".to_owned(),
            n => format!("append 64 KiB, a flush per {} MiB", (n * BATCH_BYTES) >> 20),
        };
        rows.push(load.row(bench, name)?.target(0.9));
    }
    Ok(rows)
}

#[derive(Clone, Copy)]
struct Load {
    files: usize,
    /// Batches between flushes.
    group: usize,
    /// Bytes of a round.
    total: usize,
}

impl Load {
    /// Floor and ours take turns group by group, so that whatever else this disk does meets both alike, and the
    /// rate is that of the median group: one stall of a shared disk would outweigh a hundred groups.
    fn row(self, bench: &Bench<'_>, name: String) -> Result<Row> {
        let mut rounds = Vec::new();
        for _ in 0..bench.rounds {
            let (floor_dir, our_dir) = (bench.fresh("floor")?, bench.fresh("varve")?);
            let mut floor = Raw::new(self, floor_dir.path())?;
            let mut ours = Ours::new(self, our_dir.path())?;
            rustix::fs::sync();
            let mut seconds = [Vec::new(), Vec::new()];
            for n in 0..self.groups() {
                for turn in [n % 2, (n + 1) % 2] {
                    let started = Instant::now();
                    if turn == 0 {
                        floor.group()?;
                    } else {
                        ours.group()?;
                    }
                    seconds[turn].push(started.elapsed().as_secs_f64());
                }
            }
            let bytes = (self.group * BATCH_BYTES) as f64;
            let [floor, ours] = seconds.map(|s| bytes / median(&s) / 1e6);
            rounds.push(Round { floor, ours });
        }
        Ok(Row::new(name, "MB/s", Better::More, &rounds))
    }

    fn groups(self) -> usize {
        (self.total / BATCH_BYTES / self.group).max(1)
    }
}

/// One file per partition, one `pwrite` per batch, one `fdatasync` per dirty file and group.
struct Raw {
    load: Load,
    bytes: Bytes,
    files: Vec<File>,
    ends: Vec<u64>,
    turn: usize,
}

impl Raw {
    fn new(load: Load, dir: &Path) -> Result<Self> {
        let create = |n: usize| File::create_new(dir.join(format!("{n}.log")));
        Ok(Self {
            load,
            bytes: batch()?.into_bytes(),
            files: (0..load.files)
                .map(create)
                .collect::<std::io::Result<_>>()?,
            ends: vec![0; load.files],
            turn: 0,
        })
    }

    fn group(&mut self) -> Result<()> {
        let mut dirty = vec![false; self.files.len()];
        for _ in 0..self.load.group {
            let at = self.turn % self.files.len();
            self.turn += 1;
            self.files[at].write_all_at(&self.bytes, self.ends[at])?;
            self.ends[at] += self.bytes.len() as u64;
            dirty[at] = true;
        }
        for (file, _) in self.files.iter().zip(&dirty).filter(|(_, d)| **d) {
            file.sync_data()?;
        }
        Ok(())
    }
}

/// The same with logs.
struct Ours {
    load: Load,
    batch: Batch,
    logs: Vec<Log>,
    turn: usize,
}

impl Ours {
    fn new(load: Load, dir: &Path) -> Result<Self> {
        let mut logs = Vec::new();
        for n in 0..load.files {
            let mut log = open(&dir.join(n.to_string()), n, SEGMENT_BYTES)?;
            // The epoch file is written here, not in the first group.
            log.flush_now()?;
            logs.push(log);
        }
        Ok(Self {
            load,
            batch: batch()?,
            logs,
            turn: 0,
        })
    }

    fn group(&mut self) -> Result<()> {
        let mut counts = vec![0; self.logs.len()];
        for _ in 0..self.load.group {
            counts[self.turn % self.logs.len()] += 1;
            self.turn += 1;
        }
        for (log, count) in self.logs.iter_mut().zip(&counts).filter(|(_, c)| **c > 0) {
            let batches = group(log, &self.batch, *count);
            log.append(&batches, NOW_MS)?;
        }
        for (log, _) in self.logs.iter_mut().zip(&counts).filter(|(_, c)| **c > 0) {
            log.flush_now()?;
        }
        Ok(())
    }
}
