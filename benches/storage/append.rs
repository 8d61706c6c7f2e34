//! Appends and group commit: batches of 64 KiB and a flush of what is dirty after each group, against one
//! `pwrite` per batch and one `fdatasync` per dirty file and group. The shared journal's rows belong here.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::log::{BATCH_BYTES, NOW_MS, batch, group, open};
use super::{Bench, Better, Row};

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
            n => format!("append 64 KiB, a flush per {} MiB", n * BATCH_BYTES >> 20),
        };
        rows.push(load.row(bench, name)?.target(0.9));
    }
    Ok(rows)
}

/// Batches spread over many partitions, in groups of 4 MiB.
pub fn group_commit(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for files in bench.partitions {
        let load = Load {
            files: *files,
            group: 64,
            total: bench.bytes,
        };
        rows.push(load.row(bench, format!("group commit, {files} partitions"))?);
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
    fn row(self, bench: &Bench<'_>, name: String) -> Result<Row> {
        let bytes = batch()?.into_bytes();
        let rounds = bench.rounds(
            || self.raw(bench.fresh("floor")?.path(), &bytes),
            || self.ours(bench.fresh("varve")?.path()),
        )?;
        Ok(Row::new(name, "MB/s", Better::More, &rounds))
    }

    fn groups(self) -> usize {
        (self.total / BATCH_BYTES / self.group).max(1)
    }

    fn rate(self, started: Instant) -> f64 {
        let bytes = self.groups() * self.group * BATCH_BYTES;
        bytes as f64 / started.elapsed().as_secs_f64() / 1e6
    }

    fn raw(self, dir: &Path, bytes: &[u8]) -> Result<f64> {
        let create = |n: usize| File::create_new(dir.join(format!("{n}.log")));
        let files: Vec<File> = (0..self.files)
            .map(create)
            .collect::<std::io::Result<_>>()?;
        let mut ends = vec![0_u64; self.files];
        let mut turn = 0;
        let started = Instant::now();
        for _ in 0..self.groups() {
            let mut dirty = vec![false; self.files];
            for _ in 0..self.group {
                let at = turn % self.files;
                turn += 1;
                files[at].write_all_at(bytes, ends[at])?;
                ends[at] += bytes.len() as u64;
                dirty[at] = true;
            }
            for (file, _) in files.iter().zip(&dirty).filter(|(_, dirty)| **dirty) {
                file.sync_data()?;
            }
        }
        Ok(self.rate(started))
    }

    fn ours(self, dir: &Path) -> Result<f64> {
        let batch = batch()?;
        let mut logs = Vec::new();
        for n in 0..self.files {
            let mut log = open(&dir.join(n.to_string()), n, SEGMENT_BYTES)?;
            // The epoch file is written here, not in the first group.
            log.flush_now()?;
            logs.push(log);
        }
        let mut turn = 0;
        let started = Instant::now();
        for _ in 0..self.groups() {
            let mut counts = vec![0; self.files];
            for _ in 0..self.group {
                counts[turn % self.files] += 1;
                turn += 1;
            }
            for (log, count) in logs.iter_mut().zip(&counts).filter(|(_, c)| **c > 0) {
                let batches = group(log, &batch, *count);
                log.append(&batches, NOW_MS)?;
            }
            for (log, _) in logs.iter_mut().zip(&counts).filter(|(_, c)| **c > 0) {
                log.flush_now()?;
            }
        }
        Ok(self.rate(started))
    }
}
