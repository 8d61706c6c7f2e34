//! Appends while somebody reads old segments from a cold disk as fast as it goes: p99 of flushed appends alone
//! (the floor) and with the reader, in alternating windows of the same log. Once with batches of 64 KiB as
//! fast as they are acknowledged, and once with 1 MiB at a time at a moderate rate.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use rustix::fs::{Advice, fadvise};
use varve_benches::stats;
use varve_record::Batch;
use varve_storage::{Cursor, Log, ReadBuffers, ReadMode, ReadOutcome, ReadRange, ReadView};
use varve_types::Offset;

use super::log::{BATCH_BYTES, NOW_MS, batch, filled, group};
use super::{Bench, Better, Round, Row};

const READ_BYTES: usize = 1 << 20;
/// Bytes per second of the moderate load.
const MODERATE: f64 = 150e6;
/// Batches of one append of the moderate load.
const MODERATE_BATCHES: usize = 16;

/// How appends come.
#[derive(Clone, Copy)]
struct Load {
    /// Batches of an append.
    batches: usize,
    /// Time from one append to the next; none: as soon as the last is acknowledged.
    every: Option<Duration>,
    /// Appends of a window, at least.
    appends: usize,
}

/// All rows.
pub fn rows(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let dir = bench.fresh("scan")?;
    let mut log = filled(dir.path(), bench.scan_bytes, 256 << 20)?;
    log.roll()?;
    log.flush_now()?;
    let sealed = log.log_end();
    let appends = |n| if bench.quick { 50 } else { n };
    let bytes = MODERATE_BATCHES * BATCH_BYTES;
    let full = Load {
        batches: 1,
        every: None,
        appends: appends(3_000),
    };
    let moderate = Load {
        batches: MODERATE_BATCHES,
        every: Some(Duration::from_secs_f64(bytes as f64 / MODERATE)),
        appends: appends(1_000),
    };
    let mut rows = Vec::new();
    for (load, name) in [
        (full, "p99 of flushed appends of 64 KiB at full rate"),
        (moderate, "p99 of flushed appends of 1 MiB, 150 MB/s"),
    ] {
        let gib = bench.scan_bytes >> 30;
        let name = format!("{name}, alone and beside a cold scan of {gib} GiB");
        rows.push(load.row(bench, dir.path(), &mut log, sealed, name)?);
    }
    Ok(rows)
}

impl Load {
    fn row(
        self,
        bench: &Bench<'_>,
        dir: &Path,
        log: &mut Log,
        sealed: Offset,
        name: String,
    ) -> Result<Row> {
        let batch = batch()?;
        let share = bench.scan_bytes / bench.rounds as u64;
        let mut place = Place {
            offset: log.log_start(),
            cursor: None,
        };
        let (mut rounds, mut read, mut seconds) = (Vec::new(), 0, 0.0);
        for n in 0..bench.rounds {
            let mut with_reader = |log: &mut Log| {
                cool(dir)?;
                let reader = Reader::start(log.view(), sealed, place);
                let started = Instant::now();
                // The whole of the old segments is read in all rounds together.
                let p99 = self.p99(log, &batch, || bench.quick || reader.bytes() >= share)?;
                seconds += started.elapsed().as_secs_f64();
                let bytes;
                (bytes, place) = reader.stop()?;
                read += bytes;
                Ok::<_, anyhow::Error>(p99)
            };
            rustix::fs::sync();
            let (floor, ours);
            if n % 2 == 0 {
                floor = self.p99(log, &batch, || true)?;
                ours = with_reader(log)?;
            } else {
                ours = with_reader(log)?;
                floor = self.p99(log, &batch, || true)?;
            }
            rounds.push(Round { floor, ours });
        }
        ensure!(read > 0, "the reader has read");
        let (gb, rate) = (read as f64 / 1e9, read as f64 / 1e6 / seconds);
        eprintln!("  {name}: the reader has read {gb:.1} GB, {rate:.0} MB/s");
        // At most 1.5 times the latency.
        Ok(Row::new(name, "us", Better::Less, &rounds).target(1.0 / 1.5))
    }

    /// Appends until there were enough of them and `over`.
    fn p99(self, log: &mut Log, batch: &Batch, over: impl Fn() -> bool) -> Result<f64> {
        let mut latencies = stats::latencies();
        let (begun, mut count) = (Instant::now(), 0);
        while count < self.appends || !over() {
            if let Some(every) = self.every {
                let due = every * count as u32;
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            count += 1;
            let started = Instant::now();
            let batches = group(log, batch, self.batches);
            log.append(&batches, NOW_MS)?;
            log.flush_now()?;
            stats::record(&mut latencies, started.elapsed());
        }
        Ok(latencies.value_at_quantile(0.99) as f64 / 1e3)
    }
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

/// Where the reader is.
#[derive(Clone, Copy)]
struct Place {
    offset: Offset,
    cursor: Option<Cursor>,
}

/// A thread that reads old segments to their end, and then from their beginning.
struct Reader {
    stop: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Result<Place>>,
}

impl Reader {
    fn start(view: Arc<ReadView>, upto: Offset, place: Place) -> Self {
        let (stop, read) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, count) = (stop.clone(), read.clone());
        let thread = std::thread::spawn(move || scan(&view, upto, place, &stopped, &count));
        Self { stop, read, thread }
    }

    fn bytes(&self) -> u64 {
        // A reader that failed is told of by `stop`.
        match self.thread.is_finished() {
            true => u64::MAX,
            false => self.read.load(Ordering::Relaxed),
        }
    }

    fn stop(self) -> Result<(u64, Place)> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        let place = ended.map_err(|_| anyhow!("the reader panicked"))??;
        Ok((self.read.load(Ordering::Relaxed), place))
    }
}

fn scan(
    view: &ReadView,
    upto: Offset,
    mut place: Place,
    stop: &AtomicBool,
    read: &AtomicU64,
) -> Result<Place> {
    let buffers = ReadBuffers::new(4);
    while !stop.load(Ordering::Relaxed) {
        let range = ReadRange {
            offset: place.offset,
            max_bytes: READ_BYTES,
            upto,
            min_one: true,
        };
        // As a broker does: without waiting, and then waiting.
        let hot = view.read_into(&buffers, &range, ReadMode::NoWait, place.cursor.as_ref())?;
        let outcome = match hot {
            ReadOutcome::WouldBlock => {
                view.read_into(&buffers, &range, ReadMode::Blocking, place.cursor.as_ref())?
            }
            slice @ ReadOutcome::Slice(_) => slice,
        };
        (place.offset, place.cursor) = match outcome {
            ReadOutcome::Slice(slice) if !slice.bytes.is_empty() => {
                read.fetch_add(slice.bytes.len() as u64, Ordering::Relaxed);
                (slice.next_offset, slice.cursor)
            }
            _ => (view.log_start(), None),
        };
    }
    Ok(place)
}
