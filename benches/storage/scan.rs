//! Appends while somebody reads old segments from a cold disk as fast as it goes: p99 of flushed appends of
//! 64 KiB alone (the floor) and with the reader, in alternating windows of the same log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use rustix::fs::{Advice, fadvise};
use varve_benches::stats;
use varve_record::Batch;
use varve_storage::{Log, ReadBuffers, ReadMode, ReadOutcome, ReadRange, ReadView};

use super::log::{NOW_MS, batch, filled, group};
use super::{Bench, Better, Row};

const READ_BYTES: usize = 1 << 20;

/// All rows.
pub fn rows(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let dir = bench.fresh("scan")?;
    let mut log = filled(dir.path(), bench.scan_bytes, 256 << 20)?;
    log.roll()?;
    log.flush_now()?;
    let batch = batch()?;
    let appends = if bench.quick { 50 } else { 3_000 };
    let mut rounds = Vec::new();
    let mut read = 0;
    for _ in 0..bench.rounds {
        rustix::fs::sync();
        let floor = p99(&mut log, &batch, appends)?;
        cool(dir.path())?;
        let reader = Reader::start(log.view());
        let ours = p99(&mut log, &batch, appends);
        read += reader.stop()?;
        rounds.push(super::Round { floor, ours: ours? });
    }
    ensure!(read > 0, "the reader has read");
    let name = format!(
        "p99 of flushed appends, alone and beside a cold scan of {} GiB",
        bench.scan_bytes >> 30
    );
    eprintln!("  the reader has read {:.1} GB", read as f64 / 1e9);
    // At most 1.5 times the latency.
    Ok(vec![
        Row::new(name, "us", Better::Less, &rounds).target(1.0 / 1.5),
    ])
}

fn p99(log: &mut Log, batch: &Batch, appends: usize) -> Result<f64> {
    let mut latencies = stats::latencies();
    for _ in 0..appends {
        let started = Instant::now();
        let batches = group(log, batch, 1);
        log.append(&batches, NOW_MS)?;
        log.flush_now()?;
        stats::record(&mut latencies, started.elapsed());
    }
    Ok(latencies.value_at_quantile(0.99) as f64 / 1e3)
}

/// Takes all sealed segments out of the page cache.
fn cool(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            fadvise(std::fs::File::open(path)?, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// A thread that reads the log from its start to where it ended, again and again.
struct Reader {
    stop: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Reader {
    fn start(view: Arc<ReadView>) -> Self {
        let (stop, read) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, count) = (stop.clone(), read.clone());
        let thread = std::thread::spawn(move || scan(&view, &stopped, &count));
        Self { stop, read, thread }
    }

    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the reader panicked"))??;
        Ok(self.read.load(Ordering::Relaxed))
    }
}

fn scan(view: &ReadView, stop: &AtomicBool, read: &AtomicU64) -> Result<()> {
    let buffers = ReadBuffers::new(4);
    let (mut offset, mut cursor) = (view.log_start(), None);
    while !stop.load(Ordering::Relaxed) {
        let range = ReadRange {
            offset,
            max_bytes: READ_BYTES,
            upto: view.log_end(),
            min_one: true,
        };
        match view.read_into(&buffers, &range, ReadMode::Blocking, cursor.as_ref())? {
            ReadOutcome::Slice(slice) if !slice.bytes.is_empty() => {
                read.fetch_add(slice.bytes.len() as u64, Ordering::Relaxed);
                (offset, cursor) = (slice.next_offset, slice.cursor);
            }
            _ => (offset, cursor) = (view.log_start(), None),
        }
    }
    Ok(())
}
