//! Compaction: 1 KiB records in 64 KiB batches, of which every second has a newer one. Its rate against
//! reading the same bytes and writing as many as stay, with one sync; and what appends and reads of the same
//! log feel of it, against a plain copy of the same bytes beside them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use hdrhistogram::Histogram;
use varve_benches::stats;
use varve_record::{Batch, BatchBuilder, Compression};
use varve_storage::{
    ChangeDone, ChangeTarget, Compacted, Compaction, CompactionConfig, Log, ReadBuffers, ReadMode,
    ReadOutcome, ReadRange, Removal,
};
use varve_types::LeaderEpoch;

use super::log::{NOW_MS, batch, group, open};
use super::{Bench, Better, Round, Row};

const SEGMENT_BYTES: u64 = 64 << 20;
const RECORDS: u64 = 63;
/// Memory for keys.
const MAP_BYTES: usize = 128 << 20;
const COPY_BYTES: usize = 1 << 20;
/// Bytes between the syncs of the plain copy beside appends, as compaction has them.
const SYNC_BYTES: u64 = 8 << 20;
/// How long appends are measured with nothing beside them.
const ALONE: Duration = Duration::from_secs(2);

/// All rows.
pub fn rows(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let mut rows = vec![rate(bench)?];
    rows.extend(beside(bench)?);
    Ok(rows)
}

/// A log of `bytes`, of which a quarter is superseded; all of it but the active segment can be compacted.
fn keyed(dir: &Path, bytes: u64) -> Result<Log> {
    let mut log = open(dir, 0, SEGMENT_BYTES)?;
    let value = [0x5a; 1024];
    let mut number = 0;
    while log.size_bytes() < bytes {
        let mut builder = BatchBuilder::new(Compression::None, None);
        for i in 0..RECORDS {
            // Odd records have keys of their own; of the even ones of two batches, the later stay.
            let key = match i % 2 {
                1 => number * RECORDS + i,
                _ => (number - number % 2) * RECORDS + i,
            };
            builder.append(NOW_MS, Some(&key.to_le_bytes()), Some(&value), &[])?;
        }
        number += 1;
        let made = builder.build_batch()?;
        log.append(&[made.sequence(log.log_end(), LeaderEpoch::ZERO)], NOW_MS)?;
        if number % 64 == 0 {
            log.flush_now()?;
        }
    }
    log.roll()?;
    log.flush_now()?;
    Ok(log)
}

fn prepare(log: &mut Log) -> Result<Compaction> {
    let config = CompactionConfig {
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        min_dirty_ratio: 0.0,
        delete_retention_ms: 0,
    };
    let end = log.log_end();
    let run = log.prepare_compaction(&config, NOW_MS, end, MAP_BYTES);
    run.ok_or_else(|| anyhow!("nothing to compact"))
}

/// Files of batches in a directory.
fn segments(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "log") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads files in sequence and writes as many bytes as stay of them, synced each `sync_bytes`.
fn copy(sources: &[PathBuf], to: &Path, sync_bytes: u64) -> Result<()> {
    let out = File::create_new(to)?;
    let mut buffer = vec![0; COPY_BYTES];
    let (mut written, mut synced, mut turn) = (0, 0, 0_u64);
    for path in sources {
        let file = File::open(path)?;
        let mut at = 0;
        loop {
            let n = file.read_at(&mut buffer, at)?;
            if n == 0 {
                break;
            }
            at += n as u64;
            turn += 1;
            // Three quarters stay.
            if turn % 4 > 0 {
                out.write_all_at(&buffer[..n], written)?;
                written += n as u64;
            }
            if written - synced >= sync_bytes {
                out.sync_data()?;
                synced = written;
            }
        }
    }
    out.sync_data()?;
    std::fs::remove_file(to)?;
    Ok(())
}

fn rate(bench: &Bench<'_>) -> Result<Row> {
    let mut rounds = Vec::new();
    for n in 0..bench.rounds {
        let dir = bench.fresh("compaction")?;
        let mut log = keyed(dir.path(), bench.bytes as u64 / 2)?;
        let total = log.size_bytes();
        let sources = segments(dir.path())?;
        let raw = || {
            rustix::fs::sync();
            let started = Instant::now();
            copy(&sources, &dir.path().join("copy"), u64::MAX)?;
            Ok(total as f64 / started.elapsed().as_secs_f64() / 1e6)
        };
        // The log can be compacted once; which is first changes from round to round.
        let before = (n % 2 == 0).then(raw).transpose()?;
        rustix::fs::sync();
        let started = Instant::now();
        let mut run = prepare(&mut log)?;
        while let Some(part) = run.next(&|_| true)? {
            ensure!(log.prepare_install(part).is_ok(), "the log has changed");
            log.change_now()?;
        }
        let ours = total as f64 / started.elapsed().as_secs_f64() / 1e6;
        let written = run.stats().written_bytes;
        ensure!(
            written < total * 4 / 5,
            "a quarter goes, and {written} of {total} are left"
        );
        let floor: Result<f64> = before.map_or_else(raw, Ok);
        let floor = floor?;
        log.take_removed().run()?;
        rounds.push(Round { floor, ours });
    }
    let name = "compaction, against reading and writing the same bytes";
    Ok(Row::new(name, "MB/s", Better::More, &rounds))
}

/// What the appending side felt.
struct Felt {
    /// Calls of append, which is what a lane waits for.
    append: Histogram<u64>,
    /// Append and flush.
    flushed: Histogram<u64>,
    /// Reads of what was just appended.
    read: Histogram<u64>,
    /// Calls of the log for the sake of compaction.
    owner: Histogram<u64>,
}

impl Felt {
    fn new() -> Self {
        Self {
            append: stats::latencies(),
            flushed: stats::latencies(),
            read: stats::latencies(),
            owner: stats::latencies(),
        }
    }

    fn note(&self, what: &str) {
        let lines = [
            ("flushed append", &self.flushed),
            ("append call", &self.append),
            ("hot read", &self.read),
            ("owner's part of compaction", &self.owner),
        ];
        for (name, histogram) in lines {
            if !histogram.is_empty() {
                eprintln!("  {what}, {name}: {}", stats::summary(histogram));
            }
        }
    }
}

/// What compaction asks of the log's owner.
enum Ask {
    Install(Box<Compacted>, Sender<ChangeTarget>),
    Done(ChangeDone, Sender<Removal>),
}

/// Something that works beside appends until it is done.
struct Beside {
    asks: Option<Receiver<Ask>>,
    thread: JoinHandle<Result<()>>,
}

impl Beside {
    fn copying(dir: &Path) -> Result<Self> {
        let (sources, to) = (segments(dir)?, dir.join("copy"));
        let thread = std::thread::spawn(move || copy(&sources, &to, SYNC_BYTES));
        Ok(Self { asks: None, thread })
    }

    fn compacting(mut run: Compaction) -> Self {
        let (ask, asks) = channel();
        let thread = std::thread::spawn(move || {
            while let Some(part) = run.next(&|_| true)? {
                let (reply, target) = channel();
                ask.send(Ask::Install(Box::new(part), reply))?;
                let done = target.recv()?.run()?;
                let (reply, removal) = channel();
                ask.send(Ask::Done(done, reply))?;
                removal.recv()?.run()?;
            }
            Ok(())
        });
        Self {
            asks: Some(asks),
            thread,
        }
    }

    fn answer(&self, log: &mut Log) -> Result<bool> {
        let Some(asks) = &self.asks else {
            return Ok(false);
        };
        match asks.try_recv() {
            Ok(Ask::Install(part, reply)) => {
                ensure!(log.prepare_install(*part).is_ok(), "the log has changed");
                let target = log.change_target();
                reply.send(target.ok_or_else(|| anyhow!("no change is pending"))?)?;
                Ok(true)
            }
            Ok(Ask::Done(done, reply)) => {
                log.change_done(&done)?;
                reply.send(log.take_removed())?;
                Ok(true)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => Ok(false),
        }
    }
}

/// Appends, flushes and reads the log as its lane, flusher and a reader at the tail do, in turn.
struct Appending {
    log: Log,
    batch: Batch,
    buffers: ReadBuffers,
}

impl Appending {
    fn once(&mut self, felt: &mut Felt) -> Result<()> {
        let batches = group(&self.log, &self.batch, 1);
        let (started, offset) = (Instant::now(), self.log.log_end());
        self.log.append(&batches, NOW_MS)?;
        stats::record(&mut felt.append, started.elapsed());
        let target = self.log.flush_target();
        let done = target.ok_or_else(|| anyhow!("nothing to flush"))?.run()?;
        self.log.flush_done(&done)?;
        stats::record(&mut felt.flushed, started.elapsed());
        let started = Instant::now();
        let view = self.log.view();
        let range = ReadRange {
            offset,
            max_bytes: 1 << 20,
            upto: view.log_end(),
            min_one: true,
        };
        match view.read_into(&self.buffers, &range, ReadMode::NoWait, None)? {
            ReadOutcome::Slice(slice) => ensure!(!slice.bytes.is_empty(), "it is there"),
            ReadOutcome::WouldBlock => {}
        }
        stats::record(&mut felt.read, started.elapsed());
        Ok(())
    }

    fn alone(&mut self, felt: &mut Felt, span: Duration) -> Result<f64> {
        let (mut own, until) = (Felt::new(), Instant::now() + span);
        while Instant::now() < until {
            self.once(&mut own)?;
        }
        felt.add(own)
    }

    /// Until what is beside it is done.
    fn with(&mut self, felt: &mut Felt, other: Beside) -> Result<f64> {
        let mut own = Felt::new();
        while !other.thread.is_finished() {
            self.once(&mut own)?;
            let started = Instant::now();
            if other.answer(&mut self.log)? {
                stats::record(&mut own.owner, started.elapsed());
            }
        }
        let ended = other.thread.join();
        ended.map_err(|_| anyhow!("the thread beside appends panicked"))??;
        felt.add(own)
    }
}

impl Felt {
    /// Adds a window and returns its p99 of flushed appends, in microseconds.
    fn add(&mut self, window: Self) -> Result<f64> {
        self.append.add(window.append)?;
        self.read.add(window.read)?;
        self.owner.add(window.owner)?;
        let p99 = window.flushed.value_at_quantile(0.99) as f64 / 1e3;
        self.flushed.add(window.flushed)?;
        Ok(p99)
    }
}

fn beside(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (mut alone, mut copied, mut compacted) = (Felt::new(), Felt::new(), Felt::new());
    let (mut flushed, mut appends, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    let longest = |h: &Histogram<u64>| h.max() as f64 / 1e6;
    for _ in 0..bench.rounds {
        let dir = bench.fresh("beside")?;
        let mut appending = Appending {
            log: keyed(dir.path(), bench.bytes as u64)?,
            batch: batch()?,
            buffers: ReadBuffers::new(4),
        };
        rustix::fs::sync();
        let span = if bench.quick { ALONE / 100 } else { ALONE };
        let (mut by, mut with_copy, mut with_run) = (Felt::new(), Felt::new(), Felt::new());
        appending.alone(&mut by, span)?;
        let copying = Beside::copying(dir.path())?;
        let floor = appending.with(&mut with_copy, copying)?;
        rustix::fs::sync();
        let run = prepare(&mut appending.log)?;
        let ours = appending.with(&mut with_run, Beside::compacting(run))?;
        flushed.push(Round { floor, ours });
        appends.push(Round {
            floor: longest(&with_copy.append),
            ours: longest(&with_run.append),
        });
        reads.push(Round {
            floor: longest(&with_copy.read),
            ours: longest(&with_run.read),
        });
        alone.add(by)?;
        copied.add(with_copy)?;
        compacted.add(with_run)?;
    }
    alone.note("alone");
    copied.note("beside a plain copy");
    compacted.note("beside compaction");
    let row = |what: &str, unit, rounds: &[Round]| {
        let name = format!("{what}, beside a plain copy and beside compaction");
        Row::new(name, unit, Better::Less, rounds)
    };
    Ok(vec![
        row("p99 of flushed appends", "us", &flushed),
        row("longest append call", "ms", &appends),
        row("longest hot read", "ms", &reads),
    ])
}
