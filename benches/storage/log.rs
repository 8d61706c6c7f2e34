//! Logs and batches as the rows use them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use varve_record::{Batch, BatchBuilder, Compression, Sequenced};
use varve_storage::{Log, LogConfig, LogIdentity, OpenMode};
use varve_types::{LeaderEpoch, PartitionId, TopicId};
use varve_vfs::{PacedVfs, RealVfs, SystemClock};

/// Time that is told to the log.
pub const NOW_MS: i64 = 1_700_000_000_000;
/// Bytes of every batch, header included.
pub const BATCH_BYTES: usize = 64 * 1024;

/// Opens or makes the log of a partition.
pub fn open(dir: &Path, partition: usize, segment_bytes: u64) -> Result<Log> {
    let identity = LogIdentity {
        topic_id: TopicId(1),
        partition: PartitionId(i32::try_from(partition)?),
    };
    let config = LogConfig {
        segment_bytes,
        ..LogConfig::default()
    };
    let mode = OpenMode { clean: false };
    // As a server opens it.
    let vfs = PacedVfs::new(Arc::new(RealVfs), Arc::new(SystemClock::new()));
    let (mut log, _) = Log::open(Arc::new(vfs), dir, identity, config, mode, NOW_MS)?;
    if log.last_epoch().is_none() {
        log.begin_epoch(LeaderEpoch::ZERO)?;
    }
    Ok(log)
}

/// A batch of exactly [`BATCH_BYTES`], of records of about 1 KiB.
pub fn batch() -> Result<Batch> {
    // The last record fills the batch: its size is found by trying, because lengths are written as varints.
    let sized = |last: usize| -> Result<Batch> {
        let mut builder = BatchBuilder::new(Compression::None, None);
        for _ in 0..62 {
            builder.append(NOW_MS, None, Some(&[0x5a; 1024]), &[])?;
        }
        builder.append(NOW_MS, None, Some(&vec![0x5a; last]), &[])?;
        Ok(builder.build_batch()?)
    };
    let missing = BATCH_BYTES - sized(512)?.size();
    let batch = sized(512 + missing)?;
    ensure!(
        batch.size() == BATCH_BYTES,
        "a batch has {} bytes",
        batch.size()
    );
    Ok(batch)
}

/// `count` batches that continue the log. The records are shared, not copied.
pub fn group(log: &Log, batch: &Batch, count: usize) -> Vec<Sequenced> {
    let mut next = log.log_end();
    let mut batches = Vec::with_capacity(count);
    for _ in 0..count {
        let sequenced = batch.clone().sequence(next, LeaderEpoch::ZERO);
        next = sequenced.header().next_offset();
        batches.push(sequenced);
    }
    batches
}

/// A log with `bytes` of batches, flushed.
pub fn filled(dir: &Path, bytes: u64, segment_bytes: u64) -> Result<Log> {
    let mut log = open(dir, 0, segment_bytes)?;
    let batch = batch()?;
    while log.size_bytes() < bytes {
        let left = (bytes - log.size_bytes()).div_ceil(BATCH_BYTES as u64);
        let batches = group(&log, &batch, left.min(256) as usize);
        log.append(&batches, NOW_MS)?;
        log.flush_now()?;
    }
    Ok(log)
}
