//! The seeded mix of operations, on one thread. Each says what it is about to do where that makes another end
//! or start legal, and then what is durable.

use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;

use varve_record::Sequenced;
use varve_storage::{
    FlushDone, FlushError, Log, LogConfig, LogError, OpenMode, ReadMode, Recovery, Removal,
};
use varve_types::{LeaderEpoch, Offset};
use varve_vfs::{RealVfs, Vfs};

use crate::Options;
use crate::content::{Described, NOW, Random, identity};
use crate::journal::{Event, say};

/// The disk and how logs are opened on it.
pub struct Disk {
    vfs: Arc<dyn Vfs>,
    options: Options,
}

impl Disk {
    pub fn new(options: &Options) -> Self {
        Self {
            vfs: Arc::new(RealVfs),
            options: options.clone(),
        }
    }

    /// Directory of a partition's log.
    pub fn dir(&self, partition: u32) -> std::path::PathBuf {
        self.options.dir.join(partition.to_string())
    }

    pub fn open(&self, partition: u32, clean: bool) -> Result<(Log, Recovery), LogError> {
        let config = LogConfig {
            segment_bytes: self.options.segment_bytes,
            segment_ms: i64::MAX,
            index_interval_bytes: self.options.batch_bytes.max(512) / 2,
            retention_bytes: Some(self.options.segment_bytes * 6),
            retention_ms: None,
        };
        let mode = OpenMode { clean };
        let (vfs, dir) = (Arc::clone(&self.vfs), self.dir(partition));
        Log::open(vfs, &dir, identity(partition), config, mode, NOW)
    }

    /// Makes several logs durable up to their ends: one group.
    fn flush(group: &mut [&mut Part]) {
        let mut done: Vec<(usize, Result<FlushDone, FlushError>)> = Vec::new();
        for (at, part) in group.iter().enumerate() {
            if let Some(target) = part.log.flush_target() {
                done.push((at, target.run()));
            }
        }
        for (at, result) in done {
            let part = &mut *group[at];
            let result = match result {
                Ok(done) => part.log.flush_done(&done).map(drop),
                Err(error) => {
                    part.log.flush_failed(&error);
                    let FlushError { error, retry } = error;
                    Err(if retry {
                        LogError::NoSpace(error)
                    } else {
                        LogError::Io(error)
                    })
                }
            };
            part.after(result);
        }
    }
}

/// A log at work.
struct Part {
    number: u32,
    log: Log,
    acked: i64,
    failed: bool,
}

impl Part {
    fn new(number: u32, (log, recovery): (Log, Recovery)) -> Self {
        // Half of the leftovers stay for the next start.
        if number.is_multiple_of(2) {
            recovery.leftovers.run().expect("leftovers are removed");
        }
        let (start, end) = (log.log_start().get(), log.log_end().get());
        say(number, Event::Open { start, end });
        let mut part = Self {
            number,
            log,
            acked: end,
            failed: false,
        };
        part.begin_epoch();
        part
    }

    fn say(&self, event: Event) {
        say(self.number, event);
    }

    /// Says what is durable now, or that the log has failed.
    fn after(&mut self, result: Result<(), LogError>) {
        let flushed = self.log.flushed().get();
        // Nobody acknowledges anything from a log that has failed.
        if flushed > self.acked && self.log.failure().is_none() {
            self.say(Event::Acked(flushed));
        }
        self.acked = flushed;
        match result {
            Ok(()) => {}
            Err(error) if error.is_no_space() => {
                eprintln!("log {}: {error}", self.number);
            }
            Err(error) => {
                eprintln!("log {}: {error}", self.number);
                assert!(self.log.failure().is_some(), "a failure latches the log");
                if !self.failed {
                    self.failed = true;
                    self.say(Event::Failed);
                }
            }
        }
    }

    fn begin_epoch(&mut self) {
        let last = self.log.last_epoch();
        let epoch = last.map_or(LeaderEpoch::ZERO, LeaderEpoch::next);
        let result = self.log.begin_epoch(epoch);
        self.after(result);
    }

    fn append(&mut self, random: &mut Random, run: &Run) {
        let epoch = self.log.last_epoch().map_or(0, LeaderEpoch::get);
        let mut base = self.log.log_end().get();
        let batches: Vec<Sequenced> = (0..=random.below(4))
            .map(|_| {
                let batch = Described {
                    base,
                    generation: run.generation(),
                    epoch,
                    records: u32::try_from(1 + random.below(8)).unwrap(),
                    size: u32::try_from(1 + random.below(run.options.batch_bytes / 8)).unwrap(),
                };
                base = batch.next();
                self.say(Event::Append(batch));
                batch.build(run.options.seed, self.number)
            })
            .collect();
        let result = self.log.append(&batches, NOW).map(drop);
        let refused = result.as_ref().is_err_and(LogError::is_no_space);
        self.after(result);
        if refused {
            self.say(Event::End(self.log.log_end().get()));
        }
    }

    /// A log that has failed refuses everything, whatever the disk says meanwhile.
    fn must_refuse(&mut self, run: &Run<'_>) {
        let batch = Described {
            base: self.log.log_end().get(),
            generation: run.generation(),
            epoch: self.log.last_epoch().map_or(0, LeaderEpoch::get),
            records: 1,
            size: 1,
        };
        let batch = batch.build(run.options.seed, self.number);
        let appended = self.log.append(&[batch], NOW);
        assert!(
            matches!(appended, Err(LogError::Failed { .. })),
            "{appended:?}"
        );
        let flushed = self.log.flush_now();
        assert!(
            matches!(flushed, Err(LogError::Failed { .. })),
            "{flushed:?}"
        );
        assert!(self.log.flush_target().is_none(), "nothing to flush");
    }

    fn truncate(&mut self, random: &mut Random) {
        let (start, end) = (self.log.log_start(), self.log.log_end());
        // Mostly a little, as a follower does.
        let most = end
            .since(start)
            .min(if random.below(4) == 0 { 2000 } else { 40 });
        let to = end.get() - i64::try_from(random.below(most + 1)).unwrap();
        self.say(Event::Truncate(to));
        let result = self.log.truncate_to(Offset::new(to).unwrap());
        self.removed(result, random, |log| Event::End(log.log_end().get()));
    }

    fn reset(&mut self, random: &mut Random) {
        let to = self.log.log_end().get() + 1 + i64::try_from(random.below(50)).unwrap();
        self.say(Event::Reset(to));
        let result = self.log.reset_to(Offset::new(to).unwrap());
        self.removed(result, random, |log| Event::End(log.log_end().get()));
    }

    fn trim(&mut self, random: &mut Random) {
        let (start, end) = (self.log.log_start(), self.log.log_end());
        let to = start.get() + i64::try_from(random.below(end.since(start) + 1)).unwrap();
        self.say(Event::Trim(to));
        let result = self.log.trim(Offset::new(to).unwrap());
        self.removed(result, random, |log| Event::Start(log.log_start().get()));
    }

    fn retain(&mut self, random: &mut Random) {
        let upto = self.log.flushed();
        self.say(Event::Trim(upto.get()));
        let result = self.log.apply_retention(NOW, upto);
        self.removed(result, random, |log| Event::Start(log.log_start().get()));
    }

    /// After a removal: says what is durable, and unlinks, or leaves that to the next start.
    fn removed(
        &mut self,
        result: Result<Removal, LogError>,
        random: &mut Random,
        event: impl Fn(&Log) -> Event,
    ) {
        match result {
            Ok(removal) => {
                self.say(event(&self.log));
                if random.below(3) > 0 {
                    removal.run().expect("removed files are unlinked");
                }
                self.after(Ok(()));
            }
            Err(error) => self.after(Err(error)),
        }
    }

    fn snapshot(&mut self) {
        let offset = self.log.log_end();
        let payload = format!("state of {} at {offset}", self.number);
        match self.log.write_snapshot(offset, payload.as_bytes()) {
            Ok(()) => {}
            Err(error) => eprintln!("log {}: snapshot: {error}", self.number),
        }
    }

    fn read(&self, random: &mut Random) {
        let (start, end) = (self.log.log_start(), self.log.log_end());
        if start == end {
            return;
        }
        let at = start.get() + i64::try_from(random.below(end.since(start))).unwrap();
        let offset = Offset::new(at).unwrap();
        let view = self.log.view();
        view.read(offset, 4096, end, true, ReadMode::Blocking, None)
            .expect("what is in the log can be read");
    }
}

/// Where a run stands.
struct Run<'a> {
    options: &'a Options,
    writes: std::cell::Cell<u64>,
}

impl Run<'_> {
    /// A number for each write of each run.
    fn generation(&self) -> u64 {
        self.writes.set(self.writes.get() + 1);
        (u64::from(self.options.generation) << 32) + self.writes.get()
    }
}

/// `log-driver run`.
pub fn run(options: &Options) -> ExitCode {
    let disk = Disk::new(options);
    let run = Run {
        options,
        writes: std::cell::Cell::new(0),
    };
    let seed = options.seed ^ (u64::from(options.generation) << 32);
    let mut random = Random::new(seed);
    let mut parts: Vec<Part> = (0..options.partitions)
        .map(|number| match disk.open(number, false) {
            Ok(opened) => Part::new(number, opened),
            Err(error) => panic!("log {number}: {error}"),
        })
        .collect();
    for _ in 0..options.ops {
        step(&disk, &run, &mut parts, &mut random);
    }
    if options.hold {
        for part in parts.iter_mut().filter(|p| !p.failed) {
            part.append(&mut random, &run);
        }
        println!("holding");
        // Whoever holds the other end kills, or is gone.
        let _ = std::io::stdin().read(&mut [0]);
    }
    println!("finished");
    ExitCode::SUCCESS
}

fn step(disk: &Disk, run: &Run<'_>, parts: &mut Vec<Part>, random: &mut Random) {
    let at = usize::try_from(random.below(parts.len() as u64)).unwrap();
    if parts[at].failed {
        return parts[at].must_refuse(run);
    }
    match random.below(100) {
        0..50 => {
            // Some logs get batches, and all of them become durable together, or none yet.
            let chosen = random.next() | 1 << at;
            let mut group: Vec<&mut Part> = parts
                .iter_mut()
                .filter(|p| !p.failed && chosen & (1 << p.number) != 0)
                .collect();
            for part in &mut group {
                part.append(random, run);
            }
            if random.below(10) < 7 {
                Disk::flush(&mut group);
            }
        }
        50..58 => {
            let sound = parts.iter_mut().filter(|p| !p.failed);
            Disk::flush(&mut sound.collect::<Vec<_>>());
        }
        58..63 => {
            let result = parts[at].log.roll();
            parts[at].after(result);
        }
        63..70 => parts[at].truncate(random),
        70..74 => parts[at].trim(random),
        74..78 => parts[at].retain(random),
        78..83 => parts[at].snapshot(),
        83..89 => {
            let result = parts[at].log.flush_index();
            parts[at].after(result);
        }
        89..93 => parts[at].begin_epoch(),
        93..94 => parts[at].reset(random),
        94..96 => reopen(disk, parts, at),
        96..98 => parts[at].read(random),
        _ => parts[at].log.release_idle(),
    }
}

/// Closes a log in good order and opens it as after a clean stop.
fn reopen(disk: &Disk, parts: &mut Vec<Part>, at: usize) {
    let part = parts.remove(at);
    let number = part.number;
    let end = part.log.log_end().get();
    let clean = match part.log.close(true) {
        Ok(()) => {
            say(number, Event::Acked(end));
            true
        }
        Err(error) => {
            eprintln!("log {number}: close: {error}");
            false
        }
    };
    say(number, Event::Closed);
    match disk.open(number, clean) {
        Ok(opened) => parts.insert(at, Part::new(number, opened)),
        // A disk that failed at the close may fail again; then the log is gone from this run.
        Err(error) => {
            eprintln!("log {number}: {error}");
            say(number, Event::Failed);
            assert!(!parts.is_empty(), "the last log is gone");
        }
    }
}

/// `log-driver recover`.
pub fn recover(options: &Options) -> ExitCode {
    let disk = Disk::new(options);
    for partition in 0..options.partitions {
        match disk.open(partition, false) {
            Ok((log, recovery)) => {
                drop(log);
                drop(recovery.leftovers.run());
            }
            Err(error) => {
                eprintln!("log {partition}: {error}");
                return ExitCode::from(4);
            }
        }
    }
    ExitCode::SUCCESS
}
