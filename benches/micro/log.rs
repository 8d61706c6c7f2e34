//! One partition's log on the real disk: appends of 64 KiB batches with and without a flush each, and reads
//! from the page cache in sequence and at random. `$VARVE_BENCH_DIR` says where; else a temporary directory.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use criterion::{Criterion, Throughput};
use varve_record::{Batch, BatchBuilder, Compression};
use varve_storage::{
    Cursor, Log, LogConfig, LogIdentity, OpenMode, ReadBuffers, ReadMode, ReadOutcome, ReadRange,
    ReadView, Slice,
};
use varve_types::{LeaderEpoch, Offset, PartitionId, TopicId};
use varve_vfs::RealVfs;

const NOW_MS: i64 = 1_700_000_000_000;
const RECORD_BYTES: usize = 1024;
/// Records of a batch of about 64 KiB.
const RECORDS: usize = 63;
/// Batches that are read: 64 MiB, in several segments.
const BATCHES: usize = 1024;
/// Bytes of one sequential read.
const READ_BYTES: usize = 1024 * 1024;

fn open(dir: &Path, segment_bytes: u64) -> Result<Log> {
    let identity = LogIdentity {
        topic_id: TopicId(1),
        partition: PartitionId(0),
    };
    let config = LogConfig {
        segment_bytes,
        ..LogConfig::default()
    };
    let mode = OpenMode { clean: false };
    let (mut log, _) = Log::open(Arc::new(RealVfs), dir, identity, config, mode, NOW_MS)?;
    log.begin_epoch(LeaderEpoch::ZERO)?;
    Ok(log)
}

fn batch() -> Result<Batch> {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for _ in 0..RECORDS {
        builder.append(NOW_MS, None, Some(&[0x5a; RECORD_BYTES]), &[])?;
    }
    Ok(builder.build_batch()?)
}

/// Sequences and appends, as a lane does; the records are not copied.
fn append(log: &mut Log, batch: &Batch, flush: bool) -> Result<()> {
    let sequenced = batch.clone().sequence(log.log_end(), LeaderEpoch::ZERO);
    log.append(&[sequenced], NOW_MS)?;
    if flush {
        log.flush_now()?;
    }
    Ok(())
}

fn appends(criterion: &mut Criterion, dir: &Path) -> Result<()> {
    let batch = batch()?;
    let mut group = criterion.benchmark_group("append 64 KiB");
    group.throughput(Throughput::Bytes(batch.size() as u64));
    for (name, flush) in [("page cache", false), ("flushed", true)] {
        let mut log = open(&dir.join(name), 64 << 20)?;
        let mut failure = None;
        group.bench_function(name, |b| {
            b.iter(|| {
                if let Err(error) = append(&mut log, &batch, flush) {
                    failure.get_or_insert(error);
                }
            });
            // However long the measurement is, the disk holds a segment or two.
            let trimmed = log.trim(log.flushed()).and_then(|old| {
                old.run()?;
                Ok(())
            });
            if let Err(error) = trimmed {
                failure.get_or_insert(error.into());
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
    }
    group.finish();
    Ok(())
}

struct Reading {
    view: Arc<ReadView>,
    buffers: ReadBuffers,
}

impl Reading {
    fn read(&self, offset: Offset, max_bytes: usize, cursor: Option<&Cursor>) -> Result<Slice> {
        let range = ReadRange {
            offset,
            max_bytes,
            upto: self.view.log_end(),
            min_one: true,
        };
        match self
            .view
            .read_into(&self.buffers, &range, ReadMode::Blocking, cursor)?
        {
            ReadOutcome::Slice(slice) if !slice.bytes.is_empty() => Ok(slice),
            other => bail!("offset {offset} gave {other:?}"),
        }
    }

    fn everything(&self) -> Result<usize> {
        let (mut offset, mut cursor, mut bytes) = (self.view.log_start(), None, 0);
        while offset < self.view.log_end() {
            let slice = self.read(offset, READ_BYTES, cursor.as_ref())?;
            bytes += slice.bytes.len();
            (offset, cursor) = (slice.next_offset, slice.cursor);
        }
        Ok(bytes)
    }

    /// One batch at the `n`th of a fixed run of scattered offsets.
    fn scattered(&self, n: u64) -> Result<usize> {
        let records = (BATCHES * RECORDS) as u64;
        let at = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % records;
        let offset = Offset::ZERO.plus(at);
        Ok(self.read(offset, 1, None)?.bytes.len())
    }
}

fn reads(criterion: &mut Criterion, dir: &Path) -> Result<()> {
    let mut log = open(&dir.join("read"), 16 << 20)?;
    let batch = batch()?;
    for _ in 0..BATCHES {
        append(&mut log, &batch, false)?;
    }
    log.flush_now()?;
    let reading = Reading {
        view: log.view(),
        buffers: ReadBuffers::new(4),
    };
    let (all, one) = (reading.everything()?, reading.scattered(7)?);
    ensure!(
        all == one * BATCHES,
        "{all} bytes in {BATCHES} batches of {one}"
    );
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(all as u64));
    group.bench_function("64 MiB in sequence, 1 MiB at a time", |b| {
        b.iter(|| reading.everything())
    });
    group.throughput(Throughput::Bytes(one as u64));
    let mut n = 0;
    group.bench_function("one batch at a random offset", |b| {
        b.iter(|| {
            n += 1;
            reading.scattered(black_box(n))
        });
    });
    group.finish();
    Ok(())
}

fn main() -> Result<()> {
    varve_benches::tell_profile();
    let dir = match std::env::var_os("VARVE_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let mut criterion = Criterion::default().configure_from_args();
    appends(&mut criterion, dir.path())?;
    reads(&mut criterion, dir.path())?;
    criterion.final_summary();
    Ok(())
}
