//! The seeded mix of operations, on one thread. Each says what it is about to do where that makes another end
//! or start legal, and then what is durable.

use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;

use varve_record::Sequenced;
use varve_storage::journal::{JournalError, LogReplay, Replay, Written};
use varve_storage::{
    FlushError, FlushTarget, JournalEntry, Log, LogConfig, LogError, OpenMode, ReadMode, Recovery,
    Removal,
};
use varve_types::{LeaderEpoch, Offset};
use varve_vfs::{RealVfs, Vfs, VfsError};

use crate::Options;
use crate::content::{Described, NOW, Random, identity};
use crate::journal::{Event, say};
use crate::shared::Shared;

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

    /// Opens all logs, and the journal if they share one, as a start after a crash does. The journal is not
    /// begun when a log does not open.
    pub fn open_all(&self) -> Result<Opened, JournalError> {
        let (mut shared, mut replay) = (None, Replay::default());
        if self.options.journal {
            let (journal, found) = Shared::open(&self.vfs, &self.options)?;
            (shared, replay) = (Some(journal), found);
        }
        let logs: Vec<_> = (0..self.options.partitions)
            .map(|n| self.open(n, false, replay.log(&identity(n))))
            .collect();
        if let Some(shared) = &mut shared
            && logs.iter().all(Result::is_ok)
        {
            shared.begin()?;
        }
        Ok(Opened { logs, shared })
    }

    fn open(
        &self,
        partition: u32,
        clean: bool,
        replay: Option<&LogReplay>,
    ) -> Result<(Log, Recovery), LogError> {
        let config = LogConfig {
            segment_bytes: self.options.segment_bytes,
            segment_ms: i64::MAX,
            index_interval_bytes: self.options.batch_bytes.max(512) / 2,
            retention_bytes: Some(self.options.segment_bytes * 6),
            retention_ms: None,
        };
        let mode = OpenMode { clean };
        let (vfs, dir) = (Arc::clone(&self.vfs), self.dir(partition));
        let identity = identity(partition);
        Log::open_replayed(vfs, &dir, identity, config, mode, NOW, replay)
    }
}

/// What a start has opened.
#[derive(Debug)]
pub struct Opened {
    pub logs: Vec<Result<(Log, Recovery), LogError>>,
    pub shared: Option<Shared>,
}

/// Makes several logs durable up to their ends: one group, through the journal where there is one and it can.
fn flush(shared: &mut Option<Shared>, group: &mut [&mut Part]) {
    let (mut entries, mut files): (Vec<(usize, JournalEntry, FlushTarget)>, _) = (vec![], vec![]);
    for (at, part) in group.iter_mut().enumerate() {
        let waiting = std::mem::take(&mut part.waiting);
        let Some(target) = part.log.flush_target() else {
            continue;
        };
        let small = |shared: &Shared| !shared.is_large(target.bytes());
        let entry = match shared.as_ref().is_some_and(small) {
            true => part.log.journal_entry(waiting),
            false => None,
        };
        match entry {
            Some(entry) => entries.push((at, entry, target)),
            None => files.push((at, target)),
        }
    }
    if let Some(shared) = shared
        && !entries.is_empty()
    {
        let numbers: Vec<usize> = entries.iter().map(|(at, ..)| *at).collect();
        let mut targets = Vec::new();
        let some: Vec<JournalEntry> = entries
            .into_iter()
            .map(|(at, entry, target)| {
                targets.push((at, target));
                entry
            })
            .collect();
        match shared.write(&some) {
            Ok(Written::Synced) => {
                for (at, entry) in numbers.into_iter().zip(&some) {
                    let part = &mut *group[at];
                    let result = part.log.flush_done(entry.done()).map(drop);
                    part.after(result);
                }
            }
            Ok(Written::Full) => files.extend(targets),
            Err(error) => {
                let why = error.to_string();
                numbers
                    .into_iter()
                    .for_each(|at| group[at].journal_failed(&why));
            }
        }
    }
    for (at, target) in files {
        group[at].flush_files(shared, target);
    }
}

/// Syncs the files that the journal asks for.
fn relieve(shared: &mut Option<Shared>, parts: &mut [Part]) {
    let due = shared.as_ref().map(Shared::due).unwrap_or_default();
    for part in parts {
        if !part.failed && due.contains(&identity(part.number)) {
            part.relieve(shared);
        }
    }
}

/// A log at work.
struct Part {
    number: u32,
    log: Log,
    acked: i64,
    failed: bool,
    /// Appended since the last flush.
    waiting: Vec<Sequenced>,
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
            waiting: Vec::new(),
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

    /// Nothing is acknowledged through a journal that has failed.
    fn journal_failed(&mut self, why: &str) {
        let io = std::io::Error::other(why.to_owned());
        let error = VfsError::new("make durable", std::path::Path::new("journal"), io);
        self.log.flush_failed(&FlushError {
            error,
            retry: false,
        });
        let io = std::io::Error::other(why.to_owned());
        let error = VfsError::new("make durable", std::path::Path::new("journal"), io);
        self.after(Err(LogError::Io(error)));
    }

    /// Syncs the files, and acknowledges.
    fn flush_files(&mut self, shared: &mut Option<Shared>, target: FlushTarget) {
        if let Some(shared) = shared
            && let Err(error) = shared.leave(&target)
        {
            return self.journal_failed(&error.to_string());
        }
        let result = match target.run() {
            Ok(done) => {
                if let Some(shared) = shared {
                    shared.synced(&done, true);
                }
                self.log.flush_done(&done).map(drop)
            }
            Err(error) => self.flush_failed(error),
        };
        self.after(result);
    }

    fn flush_failed(&mut self, error: FlushError) -> Result<(), LogError> {
        self.log.flush_failed(&error);
        let FlushError { error, retry } = error;
        Err(if retry {
            LogError::NoSpace(error)
        } else {
            LogError::Io(error)
        })
    }

    /// Syncs the files behind the journal; acknowledges nothing.
    fn relieve(&mut self, shared: &mut Option<Shared>) {
        let before = self.log.flushed();
        let done = match self.log.journal_relief() {
            Some(target) => target.run().map(Some),
            None => Ok(self.log.files_synced()),
        };
        let result = match done {
            Ok(Some(done)) => {
                if let Some(shared) = shared {
                    shared.synced(&done, false);
                }
                self.log.flush_done(&done).map(drop)
            }
            Ok(None) => Ok(()),
            Err(error) => self.flush_failed(error),
        };
        assert_eq!(self.log.flushed(), before, "relief acknowledges nothing");
        self.after(result);
    }

    /// Makes what the journal holds of the log void, so that it may be truncated. `false` when that cannot be
    /// now.
    fn void(&mut self, shared: &mut Option<Shared>) -> bool {
        // What is cut away now must not be told to the journal later.
        self.waiting.clear();
        if shared.is_none() {
            return !self.failed;
        }
        if let Some(target) = self.log.flush_target() {
            self.flush_files(shared, target);
        }
        !self.failed && self.log.files_are_flushed() && self.void_synced(shared)
    }

    fn void_synced(&mut self, shared: &mut Option<Shared>) -> bool {
        match shared.as_mut().map(|s| s.void(identity(self.number))) {
            Some(Ok(true)) | None => {
                self.log.journal_voided();
                true
            }
            Some(Ok(false)) => false,
            Some(Err(error)) => {
                self.journal_failed(&error.to_string());
                false
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
        if result.is_ok() && run.options.journal {
            self.waiting.extend(batches);
        }
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

    fn truncate(&mut self, shared: &mut Option<Shared>, random: &mut Random) {
        if !self.void(shared) {
            return;
        }
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

    fn reset(&mut self, shared: &mut Option<Shared>, random: &mut Random) {
        if !self.void(shared) {
            return;
        }
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
    let opened = disk.open_all().unwrap_or_else(|e| panic!("the start: {e}"));
    let mut shared = opened.shared;
    let run = Run {
        options,
        writes: std::cell::Cell::new(0),
    };
    let seed = options.seed ^ (u64::from(options.generation) << 32);
    let mut random = Random::new(seed);
    let mut parts: Vec<Part> = (0..options.partitions)
        .zip(opened.logs)
        .map(|(number, log)| match log {
            Ok(opened) => Part::new(number, opened),
            Err(error) => panic!("log {number}: {error}"),
        })
        .collect();
    for _ in 0..options.ops {
        step(&disk, &run, &mut shared, &mut parts, &mut random);
        relieve(&mut shared, &mut parts);
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

fn step(
    disk: &Disk,
    run: &Run<'_>,
    shared: &mut Option<Shared>,
    parts: &mut Vec<Part>,
    random: &mut Random,
) {
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
                flush(shared, &mut group);
            }
        }
        50..58 => {
            let sound = parts.iter_mut().filter(|p| !p.failed);
            flush(shared, &mut sound.collect::<Vec<_>>());
        }
        58..63 => {
            let result = parts[at].log.roll();
            parts[at].after(result);
        }
        63..70 => parts[at].truncate(shared, random),
        70..74 => parts[at].trim(random),
        74..78 => parts[at].retain(random),
        78..83 => parts[at].snapshot(),
        83..89 => {
            let result = parts[at].log.flush_index();
            parts[at].after(result);
        }
        89..93 => parts[at].begin_epoch(),
        93..94 => parts[at].reset(shared, random),
        94..96 => reopen(disk, shared, parts, at),
        96..98 => parts[at].read(random),
        _ => parts[at].log.release_idle(),
    }
}

/// Closes a log in good order and opens it as after a clean stop.
fn reopen(disk: &Disk, shared: &mut Option<Shared>, parts: &mut Vec<Part>, at: usize) {
    // A log that is opened anew knows nothing of what the journal holds of it.
    if !parts[at].void(shared) {
        return;
    }
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
    match disk.open(number, clean, None) {
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
    let opened = match disk.open_all() {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("the start: {error}");
            return ExitCode::from(4);
        }
    };
    for (partition, log) in opened.logs.into_iter().enumerate() {
        match log {
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
