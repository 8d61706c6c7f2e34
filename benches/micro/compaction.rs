//! Compaction on the real disk: 256 MiB of 1 KiB records in 64 KiB batches, of which every second has a newer
//! one, against reading the same bytes and writing as many as stay, with an fsync. `$VARVE_BENCH_DIR` says
//! where; else a temporary directory.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use varve_record::{BatchBuilder, Compression};
use varve_storage::{CompactionConfig, Log, LogConfig, LogIdentity, OpenMode};
use varve_types::{LeaderEpoch, PartitionId, TopicId};
use varve_vfs::{RealVfs, Vfs};

const NOW_MS: i64 = 1_700_000_000_000;
const RECORD_BYTES: usize = 1024;
const RECORDS: u64 = 63;
const BATCHES: u64 = 4096;
const ROUNDS: usize = 5;

fn fill(dir: &Path) -> Result<Log> {
    let identity = LogIdentity {
        topic_id: TopicId(1),
        partition: PartitionId(0),
    };
    let config = LogConfig {
        segment_bytes: 64 << 20,
        ..LogConfig::default()
    };
    let mode = OpenMode { clean: false };
    let (mut log, _) = Log::open(Arc::new(RealVfs), dir, identity, config, mode, NOW_MS)?;
    log.begin_epoch(LeaderEpoch::ZERO)?;
    let value = [0x5a; RECORD_BYTES];
    for batch in 0..BATCHES {
        let mut builder = BatchBuilder::new(Compression::None, None);
        for i in 0..RECORDS {
            // Odd records have keys of their own; of the even ones of two batches, the later stay.
            let key = match (batch, i % 2) {
                (_, 1) => batch * RECORDS + i,
                _ => (batch - batch % 2) * RECORDS + i,
            };
            builder.append(NOW_MS, Some(&key.to_le_bytes()), Some(&value), &[])?;
        }
        let made = builder.build_batch()?;
        let sequenced = made.sequence(log.log_end(), LeaderEpoch::ZERO);
        log.append(&[sequenced], NOW_MS)?;
    }
    log.roll()?;
    log.flush_now()?;
    Ok(log)
}

/// Bytes read, bytes written, and the time it took.
fn compact(log: &mut Log) -> Result<(u64, u64, Duration)> {
    let config = CompactionConfig {
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        min_dirty_ratio: 0.0,
        delete_retention_ms: 0,
    };
    let started = Instant::now();
    let end = log.log_end();
    let run = log.prepare_compaction(&config, NOW_MS, end, 128 << 20);
    let mut run = run.ok_or_else(|| anyhow::anyhow!("nothing to compact"))?;
    while let Some(part) = run.next(&|_| true)? {
        ensure!(log.prepare_install(part).is_ok(), "the log has changed");
        log.change_now()?;
    }
    let took = started.elapsed();
    log.take_removed().run()?;
    let stats = run.stats();
    Ok((stats.read_bytes, stats.written_bytes, took))
}

/// Reads the segments' files in sequence and writes as many bytes as stayed.
fn raw(dir: &Path, write: u64) -> Result<Duration> {
    let vfs = RealVfs;
    let names = vfs.list(dir)?;
    let started = Instant::now();
    let path = dir.join("raw");
    let out = vfs.create_new(&path)?;
    let (mut written, mut bytes) = (0_u64, Vec::with_capacity(1 << 20));
    for entry in names.iter().filter(|e| e.name.ends_with(".log")) {
        let file = vfs.open_read(&dir.join(&entry.name))?;
        let mut at = 0;
        loop {
            bytes.clear();
            let n = file.read_into(at, 1 << 20, &mut bytes)?;
            if n == 0 {
                break;
            }
            at += n as u64;
            if written < write {
                out.write_all_at(&[IoSlice::new(&bytes)], written)?;
                written += n as u64;
            }
        }
    }
    out.sync_data()?;
    let took = started.elapsed();
    vfs.remove_file(&path)?;
    Ok(took)
}

fn main() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let base = std::env::var_os("VARVE_BENCH_DIR").map_or(temp.path().to_owned(), Into::into);
    let mut shares = Vec::new();
    for round in 0..ROUNDS {
        let dir = base.join(format!("compaction-{round}"));
        let mut log = fill(&dir)?;
        let total = log.size_bytes();
        let stays = total * 3 / 4;
        let raw_time = raw(&dir, stays)?;
        let (read, written, took) = compact(&mut log)?;
        ensure!(written < total * 4 / 5 && read == total, "a quarter goes");
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let share = raw_time.as_secs_f64() / took.as_secs_f64();
        println!(
            "round {round}: {:.0} MiB to {:.0} MiB in {took:.2?}, {:.0} MiB/s; raw {raw_time:.2?}, share {:.0} %",
            mib(read),
            mib(written),
            mib(read) / took.as_secs_f64(),
            share * 100.0
        );
        shares.push(share);
        drop(log);
        RealVfs.remove_dir_all(&dir)?;
    }
    shares.sort_by(f64::total_cmp);
    println!(
        "median share of raw reading and writing: {:.0} %",
        shares[shares.len() / 2] * 100.0
    );
    Ok(())
}
