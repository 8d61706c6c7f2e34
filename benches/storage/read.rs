//! Reads: the page cache in sequence and at random, and a cold disk, against `pread` of the same bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use rustix::fs::{Advice, fadvise};
use varve_storage::{Log, ReadBuffers, ReadMode, ReadOutcome, ReadRange, Slice};
use varve_types::Offset;

use super::log::{BATCH_BYTES, filled};
use super::{Bench, Better, Row};

const READ_BYTES: usize = 1 << 20;
/// Records of a batch, as `log::batch` makes them.
const RECORDS: u64 = 63;

/// All rows.
pub fn rows(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let dir = bench.fresh("read")?;
    let mut log = filled(dir.path(), bench.bytes as u64, 1 << 30)?;
    // Sealed, so that lookups go through the files.
    log.roll()?;
    log.flush_now()?;
    log.flush_index()?;
    let reading = Reading::new(log, dir.path())?;
    Ok(vec![
        reading.sequence(bench)?,
        reading.random(bench)?,
        reading.cold(bench)?,
    ])
}

struct Reading {
    log: Log,
    buffers: ReadBuffers,
    file: File,
    paths: Vec<PathBuf>,
    bytes: u64,
}

impl Reading {
    fn new(log: Log, dir: &Path) -> Result<Self> {
        let path = |kind: &str| dir.join(format!("{:020}.{kind}", 0));
        let file = File::open(path("log"))?;
        Ok(Self {
            buffers: ReadBuffers::new(4),
            bytes: file.metadata()?.len(),
            file,
            paths: vec![path("log"), path("index")],
            log,
        })
    }

    fn read(&self, offset: Offset, max_bytes: usize, from: Option<&Slice>) -> Result<Slice> {
        let view = self.log.view();
        let range = ReadRange {
            offset,
            max_bytes,
            upto: view.log_end(),
            min_one: true,
        };
        let cursor = from.and_then(|s| s.cursor.as_ref());
        match view.read_into(&self.buffers, &range, ReadMode::Blocking, cursor)? {
            ReadOutcome::Slice(slice) if !slice.bytes.is_empty() => Ok(slice),
            other => bail!("offset {offset} gave {other:?}"),
        }
    }

    fn sequence(&self, bench: &Bench<'_>) -> Result<Row> {
        let mut buffer = vec![0; READ_BYTES];
        let rate =
            |bytes: u64, started: Instant| bytes as f64 / started.elapsed().as_secs_f64() / 1e6;
        let rounds = bench.rounds(
            || {
                let started = Instant::now();
                let mut at = 0;
                while at < self.bytes {
                    at += self.file.read_at(&mut buffer, at)? as u64;
                }
                Ok(rate(at, started))
            },
            || {
                let started = Instant::now();
                let (mut offset, mut last, mut bytes) = (self.log.log_start(), None, 0);
                while offset < self.log.log_end() {
                    let slice = self.read(offset, READ_BYTES, last.as_ref())?;
                    bytes += slice.bytes.len() as u64;
                    offset = slice.next_offset;
                    last = Some(slice);
                }
                Ok(rate(bytes, started))
            },
        )?;
        Ok(Row::new(
            "hot read, 1 MiB in sequence",
            "MB/s",
            Better::More,
            &rounds,
        ))
    }

    /// The `n`th of a fixed run of scattered batches.
    fn scattered(&self, n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (self.bytes / BATCH_BYTES as u64)
    }

    fn raw_batch(&self, n: u64) -> Result<()> {
        let mut buffer = vec![0; BATCH_BYTES];
        self.file
            .read_exact_at(&mut buffer, self.scattered(n) * BATCH_BYTES as u64)?;
        std::hint::black_box(&buffer);
        Ok(())
    }

    fn our_batch(&self, n: u64) -> Result<()> {
        let offset = Offset::ZERO.plus(self.scattered(n) * RECORDS + 7);
        let slice = self.read(offset, 1, None)?;
        anyhow::ensure!(slice.bytes.len() == BATCH_BYTES, "one batch is read");
        Ok(())
    }

    fn random(&self, bench: &Bench<'_>) -> Result<Row> {
        let count = if bench.quick { 100 } else { 20_000 };
        let each = |read: &dyn Fn(u64) -> Result<()>| {
            let started = Instant::now();
            for n in 0..count {
                read(n)?;
            }
            Ok(started.elapsed().as_secs_f64() * 1e6 / count as f64)
        };
        let rounds = bench.rounds(
            || each(&|n| self.raw_batch(n)),
            || each(&|n| self.our_batch(n)),
        )?;
        Ok(Row::new(
            "hot read, one batch at random",
            "us",
            Better::Less,
            &rounds,
        ))
    }

    /// Takes the files out of the page cache.
    fn cool(&self) -> Result<()> {
        for path in &self.paths {
            fadvise(File::open(path)?, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }

    fn cold(&self, bench: &Bench<'_>) -> Result<Row> {
        let count = if bench.quick { 20 } else { 300 };
        let each = |read: &dyn Fn(u64) -> Result<()>| {
            let mut times = Vec::new();
            for n in 0..count {
                self.cool()?;
                let started = Instant::now();
                read(n)?;
                times.push(started.elapsed().as_secs_f64() * 1e6);
            }
            Ok(varve_benches::stats::median(&times))
        };
        let rounds = bench.rounds(
            || each(&|n| self.raw_batch(n)),
            || each(&|n| self.our_batch(n)),
        )?;
        let name = "cold read, one batch at random, its index page cold too";
        Ok(Row::new(name, "us p50", Better::Less, &rounds))
    }
}
