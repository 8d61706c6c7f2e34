//! The journal of a disk under power cuts: what it acknowledged is there afterwards, on a disk that loses,
//! tears and reorders unsynced writes at will, and nothing is refused that no acknowledgement has seen.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::common::{NOW, batch, bytes_of, config, epoch, mem, o, read_all};
use varve_record::Sequenced;
use varve_storage::journal::{JournalError, Written};
use varve_storage::{Journal, JournalConfig, Log, LogConfig, LogError, LogIdentity, OpenMode};
use varve_types::{Offset, PartitionId, TopicId};
use varve_vfs::Vfs;
use varve_vfs::fault::Op;
use varve_vfs::mem::{Answer, Fate, MemVfs, Unsynced};

const OWNER: u128 = 0x1234_5678;
const SIZES: JournalConfig = JournalConfig {
    file_bytes: 128 * 1024,
    files: 4,
};

fn journal_dir() -> PathBuf {
    PathBuf::from("/data/journal")
}

fn identity(n: usize) -> LogIdentity {
    LogIdentity {
        topic_id: TopicId(77),
        partition: PartitionId(n as i32),
    }
}

fn log_dir(n: usize) -> PathBuf {
    PathBuf::from(format!("/data/topics/t/{n}"))
}

/// A small pseudo-random sequence: the seed is the test case.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// One log, what was written into it and how much of that was acknowledged.
struct Subject {
    log: Log,
    written: Vec<Sequenced>,
    waiting: Vec<Sequenced>,
    acked: Offset,
}

/// A disk with a few logs and a journal, as a broker runs them.
struct World {
    vfs: Arc<dyn Vfs>,
    journal: Journal,
    subjects: Vec<Subject>,
    segment_bytes: u64,
}

/// Segments that are rolled often, and such that are not.
const SMALL: u64 = 6000;
const LARGE: u64 = 1 << 20;

fn log_config(segment_bytes: u64) -> LogConfig {
    LogConfig {
        segment_bytes,
        ..config()
    }
}

/// Opens everything as a start does. `None` when a log was refused.
fn start(
    vfs: &Arc<dyn Vfs>,
    logs: usize,
    segment_bytes: u64,
    clean: bool,
) -> Option<(Journal, Vec<Log>)> {
    let opened = Journal::open(vfs.clone(), &journal_dir(), OWNER, SIZES, clean);
    let (mut journal, replay) = opened.unwrap_or_else(|e| panic!("{e}"));
    let mut all = Vec::new();
    for n in 0..logs {
        let replay = replay.log(&identity(n));
        let mode = OpenMode { clean };
        let opened = Log::open_replayed(
            vfs.clone(),
            &log_dir(n),
            identity(n),
            log_config(segment_bytes),
            mode,
            NOW,
            replay,
        );
        match opened {
            Ok((log, _)) => all.push(log),
            Err(LogError::Corrupt(why)) => {
                eprintln!("{why}");
                return None;
            }
            Err(other) => panic!("{other}"),
        }
    }
    let synced: Vec<_> = all
        .iter()
        .map(|log: &Log| log.files_synced().unwrap())
        .collect();
    journal.begin(&synced).unwrap();
    Some((journal, all))
}

impl World {
    fn new(vfs: &Arc<dyn Vfs>, logs: usize, segment_bytes: u64) -> Self {
        let (mut journal, logs) = start(vfs, logs, segment_bytes, false).unwrap();
        let subjects = logs.into_iter().map(|mut log| {
            log.begin_epoch(epoch(1)).unwrap();
            log.flush_now().unwrap();
            Subject {
                log,
                written: Vec::new(),
                waiting: Vec::new(),
                acked: Offset::ZERO,
            }
        });
        let subjects: Vec<Subject> = subjects.collect();
        let synced: Vec<_> = subjects
            .iter()
            .map(|s| s.log.files_synced().unwrap())
            .collect();
        assert_eq!(journal.follow(&synced).unwrap(), Written::Synced);
        Self {
            vfs: vfs.clone(),
            subjects,
            journal,
            segment_bytes,
        }
    }

    fn append(&mut self, n: usize, dice: &mut Dice) {
        let subject = &mut self.subjects[n];
        let mut next = subject.log.log_end();
        let mut made = Vec::new();
        for _ in 0..=dice.roll(3) {
            let size = 1 + dice.roll(1200) as usize;
            made.push(batch(
                next,
                1,
                NOW + next.get(),
                1 + dice.roll(3) as usize,
                size,
            ));
            next = made[made.len() - 1].header().next_offset();
        }
        subject.log.append(&made, NOW).unwrap();
        subject.written.extend(made.iter().cloned());
        subject.waiting.extend(made);
    }

    /// A spare file, as the broker keeps one.
    fn make_room(&mut self) {
        if let Some(spec) = self.journal.file_wanted() {
            self.journal.add(spec.make().unwrap());
        }
    }

    /// One round of group commit over the logs that wait, as the flusher does it.
    fn commit(&mut self, direct: bool) {
        self.make_room();
        let mut entries = Vec::new();
        let mut files = Vec::new();
        for (n, subject) in self.subjects.iter_mut().enumerate() {
            if !subject.log.needs_flush() {
                continue;
            }
            let waiting = std::mem::take(&mut subject.waiting);
            match subject.log.journal_entry(waiting) {
                Some(entry) if !direct => entries.push((n, entry)),
                _ => files.push(n),
            }
        }
        let (numbers, entries): (Vec<usize>, Vec<_>) = entries.into_iter().unzip();
        let mut written = Written::Synced;
        if !entries.is_empty() {
            written = self.journal.write(&entries).unwrap();
            self.make_room();
            if written == Written::Full {
                written = self.journal.write(&entries).unwrap();
            }
        }
        if written == Written::Synced {
            for (n, entry) in numbers.into_iter().zip(&entries) {
                let subject = &mut self.subjects[n];
                subject.acked = subject.log.flush_done(entry.done()).unwrap();
                assert_eq!(subject.acked, entry.upto());
            }
        } else {
            files.extend(numbers);
        }
        for n in files {
            let target = self.subjects[n].log.flush_target();
            if let Some(target) = target {
                if self.journal.must_leave(&target) {
                    self.journal.leave(&[target.identity()]).unwrap();
                }
                let done = target.run().unwrap();
                self.journal.synced(&done);
                if !direct {
                    self.make_room();
                    let _ = self.journal.follow(std::slice::from_ref(&done)).unwrap();
                }
                self.subjects[n].acked = self.subjects[n].log.flush_done(&done).unwrap();
            }
        }
    }

    fn relieve(&mut self) {
        for identity in self.journal.due() {
            let subject = &mut self.subjects[identity.partition.0 as usize];
            let done = match subject.log.journal_relief() {
                Some(target) => target.run().unwrap(),
                None => subject.log.files_synced().unwrap(),
            };
            self.journal.synced(&done);
            let before = subject.log.flushed();
            subject.log.flush_done(&done).unwrap();
            assert_eq!(subject.log.flushed(), before, "relief acknowledges nothing");
        }
    }

    /// Starts again on what is left. `false` when a log was refused.
    fn restart(&mut self, at: &str) -> bool {
        let Some((journal, logs)) =
            start(&self.vfs, self.subjects.len(), self.segment_bytes, false)
        else {
            return false;
        };
        self.journal = journal;
        for (n, (log, subject)) in logs.into_iter().zip(&mut self.subjects).enumerate() {
            let end = log.log_end();
            assert!(
                end >= subject.acked,
                "{at}: log {n} ends at {end}, {} acked",
                subject.acked
            );
            subject.written.retain(|b| b.header().next_offset() <= end);
            let expected = bytes_of(&subject.written);
            assert!(
                read_all(&log.view(), Offset::ZERO, 5000) == expected,
                "{at}: log {n} is not a prefix of what was written"
            );
            assert_eq!(log.flushed(), end);
            subject.acked = end;
            subject.waiting.clear();
            subject.log = log;
        }
        true
    }
}

/// A power cut that keeps, loses or tears each unsynced change as the dice say.
fn cut(mem: &MemVfs, dice: &mut Dice) {
    let style = dice.roll(4);
    mem.crash(&mut |_| match (style, dice.roll(4)) {
        (0, _) => Fate::Lose,
        (1, _) => Fate::Keep,
        (_, 0) => Fate::Tear(dice.roll(3000) as usize),
        (_, 1) => Fate::Lose,
        _ => Fate::Keep,
    });
}

fn history(seed: u64, direct: bool) -> bool {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mem, vfs) = mem();
    let mut world = World::new(&vfs, 3, SMALL);
    for step in 0..60 {
        let n = dice.roll(3) as usize;
        match dice.roll(12) {
            0..=5 => world.append(n, &mut dice),
            6..=8 => world.commit(direct && dice.roll(2) == 0),
            9 => world.relieve(),
            10 => {
                if dice.roll(3) == 0 {
                    let _ = world.subjects[n].log.roll();
                }
            }
            _ => {
                cut(&mem, &mut dice);
                if dice.roll(3) == 0 {
                    // Power goes again during recovery.
                    let _ = start(&vfs, 3, SMALL, false);
                    cut(&mem, &mut dice);
                }
                if !world.restart(&format!("seed {seed}, step {step}")) {
                    return false;
                }
            }
        }
    }
    true
}

fn seeds() -> u64 {
    let given = std::env::var("VARVE_TEST_SEEDS").ok();
    given.and_then(|s| s.parse().ok()).unwrap_or(60)
}

#[test]
fn what_the_journal_acknowledged_survives_any_power_cut_and_nothing_is_refused() {
    for seed in 0..seeds() {
        assert!(history(seed, false), "seed {seed}: a log was refused");
    }
}

#[test]
fn journal_and_files_in_turn_lose_nothing() {
    let refused = (0..seeds()).filter(|seed| !history(*seed, true)).count() as u64;
    // A flush of the files alone leaves no trace of how far it came, so a later write that outlived an
    // earlier one may be refused (rule of the torn tail); never is it cut.
    assert!(refused < seeds() / 2, "{refused} of {} refused", seeds());
}

fn one_log() -> (MemVfs, World, Dice) {
    let (mem, vfs) = mem();
    let mut world = World::new(&vfs, 1, LARGE);
    let mut dice = Dice(99);
    for _ in 0..4 {
        world.append(0, &mut dice);
        world.commit(false);
    }
    (mem, world, dice)
}

#[test]
fn batches_come_back_from_the_journal_alone() {
    let (mem, mut world, _) = one_log();
    let acked = world.subjects[0].acked;
    assert_eq!(acked, world.subjects[0].log.log_end());
    assert!(!world.subjects[0].log.files_are_flushed());
    mem.crash_losing_unsynced();
    assert!(world.restart("after the cut"));
    assert_eq!(world.subjects[0].log.log_end(), acked);
    // Void once everything is open: a second start finds nothing to put back.
    let (_, replay) =
        Journal::open(world.vfs.clone(), &journal_dir(), OWNER, SIZES, false).unwrap();
    assert!(replay.is_empty());
}

#[test]
fn a_torn_last_group_was_never_acknowledged() {
    let (mem, mut world, mut dice) = one_log();
    let acked = world.subjects[0].acked;
    world.append(0, &mut dice);
    world.make_room();
    let subject = &mut world.subjects[0];
    let entry = subject
        .log
        .journal_entry(std::mem::take(&mut subject.waiting))
        .unwrap();
    let name = |n: usize| journal_dir().join(format!("{n:04}.journal"));
    let files = world.journal.files().1;
    let before: Vec<_> = (0..files).map(|n| mem.read(&name(n)).unwrap()).collect();
    assert_eq!(world.journal.write(&[entry]).unwrap(), Written::Synced);
    let changed = (0..files).find(|n| mem.read(&name(*n)).unwrap() != before[*n]);
    let file = name(changed.unwrap());
    let after = mem.read(&file).unwrap();
    let before = before[changed.unwrap()].clone();
    let at = (0..after.len()).find(|i| before[*i] != after[*i]).unwrap();
    // Only its first sector came to the disk.
    let mut torn = before;
    torn[at..at + 512].copy_from_slice(&after[at..at + 512]);
    mem.crash_losing_unsynced();
    crate::common::put(&mem, &file, &torn);
    let (_, replay) =
        Journal::open(world.vfs.clone(), &journal_dir(), OWNER, SIZES, false).unwrap();
    assert!(replay.torn_bytes > 0);
    assert!(world.restart("torn"));
    assert_eq!(world.subjects[0].log.log_end(), acked);
}

/// A group whose first sector never arrived, in a file that is used again: what lay there must have been called
/// void by a group that was synced before.
#[test]
fn a_torn_group_over_those_of_a_file_that_is_used_again_is_no_damage() {
    let (mem, mut world, mut dice) = one_log();
    let before_syncs: Arc<Mutex<Vec<MemVfs>>> = Arc::default();
    let (disk, seen) = (mem.clone(), before_syncs.clone());
    mem.set_hook(Some(Arc::new(move |call| {
        if call.op == Op::Sync && call.path.starts_with(journal_dir()) {
            seen.lock().unwrap().push(disk.fork());
        }
        Answer::Go
    })));
    let mut cuts = 0;
    for round in 0..200 {
        world.append(0, &mut dice);
        let acked = world.subjects[0].acked;
        world.commit(false);
        for cut in std::mem::take(&mut *before_syncs.lock().unwrap()) {
            cut.crash(&mut |change| match change {
                Unsynced::Write { path, .. } if path.starts_with(journal_dir()) => Fate::Tail(512),
                _ => Fate::Keep,
            });
            let vfs: Arc<dyn Vfs> = Arc::new(cut);
            let (_, logs) = start(&vfs, 1, LARGE, false).unwrap();
            assert!(logs[0].log_end() >= acked, "round {round}");
            cuts += 1;
        }
    }
    assert!(cuts >= 200 && world.journal.files().1 == SIZES.files);
}

/// A start on a journal whose files are all needed and full makes them void without taking one away first.
#[test]
fn a_start_on_a_full_journal_may_be_cut_off_anywhere() {
    let (mem, vfs) = mem();
    let mut world = World::new(&vfs, 2, LARGE);
    let mut dice = Dice(21);
    let mut fill = |world: &mut World, log: usize, files: usize| {
        while world.journal.files().0 < files {
            world.append(log, &mut dice);
            world.commit(false);
        }
    };
    fill(&mut world, 0, 2);
    fill(&mut world, 1, SIZES.files);
    // The first file is used again; groups that are needed were written when it was needed, too.
    let log = &mut world.subjects[0].log;
    let done = log.journal_relief().unwrap().run().unwrap();
    world.journal.synced(&done);
    log.flush_done(&done).unwrap();
    assert_eq!(world.journal.files().0, SIZES.files - 1);
    fill(&mut world, 1, SIZES.files);
    // Records without batches fill it to the last page that they may have.
    while world.journal.follow(std::slice::from_ref(&done)).unwrap() == Written::Synced {}
    let full = mem.fork();
    let acked = [0, 1].map(|n| world.subjects[n].acked);
    let cuts: Arc<Mutex<Vec<MemVfs>>> = Arc::default();
    let (disk, seen) = (full.clone(), cuts.clone());
    full.set_hook(Some(Arc::new(move |call| {
        if matches!(call.op, Op::Remove | Op::Write | Op::Sync | Op::SyncDir) {
            seen.lock().unwrap().push(disk.fork());
        }
        Answer::Go
    })));
    let vfs: Arc<dyn Vfs> = Arc::new(full.clone());
    let _ = start(&vfs, 2, LARGE, false).unwrap();
    full.set_hook(None);
    let cuts = std::mem::take(&mut *cuts.lock().unwrap());
    assert!(cuts.len() >= 10, "{} steps", cuts.len());
    for cut in cuts {
        cut.crash_losing_unsynced();
        let vfs: Arc<dyn Vfs> = Arc::new(cut);
        let (_, logs) = start(&vfs, 2, LARGE, false).unwrap();
        let all = logs
            .iter()
            .zip(acked)
            .all(|(log, acked)| log.log_end() >= acked);
        assert!(all, "nothing that was acknowledged is lost");
    }
}

/// What is synced in the files of a log that holds nothing in the journal is told to it as the place from which
/// acknowledgements follow. After a truncation below that place they do so all the same.
#[test]
fn what_follows_a_truncation_of_a_log_that_only_followed_comes_back() {
    let (mem, mut world, mut dice) = one_log();
    // Nothing of it is in the journal, which knows where its file ends.
    world.commit(true);
    world.subjects[0].log.flush_now().unwrap();
    assert_eq!(world.journal.void(identity(0)).unwrap(), Written::Synced);
    world.subjects[0].log.journal_voided();
    let done = world.subjects[0].log.files_synced().unwrap();
    assert_eq!(world.journal.follow(&[done]).unwrap(), Written::Synced);
    let subject = &mut world.subjects[0];
    let cut = subject.written[2].header().base_offset;
    drop(subject.log.truncate_to(cut).unwrap());
    subject.written.truncate(2);
    subject.waiting.clear();
    world.append(0, &mut dice);
    world.commit(false);
    let subject = &world.subjects[0];
    assert!(
        !subject.log.files_are_flushed(),
        "acknowledged by the journal alone"
    );
    let acked = subject.acked;
    assert_eq!(acked, subject.log.log_end());
    mem.crash_losing_unsynced();
    assert!(world.restart("after the cut"));
    assert_eq!(world.subjects[0].log.log_end(), acked);
}

/// Whoever made a file may have died before its name was synced.
#[test]
fn what_is_written_to_a_file_that_a_dead_process_made_is_durable_with_its_name() {
    let (mem, vfs) = mem();
    let (mut journal, _) = Journal::open(vfs.clone(), &journal_dir(), OWNER, SIZES, false).unwrap();
    mem.set_hook(Some(Arc::new(|call| match call.op {
        Op::SyncDir => Answer::Fail(rustix::io::Errno::IO),
        _ => Answer::Go,
    })));
    let spec = journal.file_wanted().unwrap();
    assert!(spec.make().is_err(), "renamed, and not synced");
    mem.set_hook(None);
    assert!(vfs.exists(&journal_dir().join("0000.journal")).unwrap());
    drop(journal);
    let (mut journal, _) = Journal::open(vfs.clone(), &journal_dir(), OWNER, SIZES, false).unwrap();
    let (mut log, _) = common_open(&vfs);
    log.begin_epoch(epoch(1)).unwrap();
    log.flush_now().unwrap();
    journal.begin(&[]).unwrap();
    let made = batch(Offset::ZERO, 1, NOW, 2, 500);
    log.append(std::slice::from_ref(&made), NOW).unwrap();
    let entry = log.journal_entry(vec![made]).unwrap();
    assert_eq!(
        journal.write(std::slice::from_ref(&entry)).unwrap(),
        Written::Synced
    );
    let acked = log.flush_done(entry.done()).unwrap();
    assert!(
        !log.files_are_flushed(),
        "acknowledged by the journal alone"
    );
    drop((log, journal));
    mem.crash_losing_unsynced();
    let (_, logs) = start(&vfs, 1, LARGE, false).unwrap();
    assert_eq!(logs[0].log_end(), acked);
}

#[test]
fn every_flipped_bit_of_a_synced_group_is_found() {
    let (mem, world, _) = one_log();
    let file = journal_dir().join("0000.journal");
    let good = mem.read(&file).unwrap();
    mem.crash_losing_unsynced();
    let used = good.iter().rposition(|b| *b != 0).unwrap();
    let mut newest = (1..good.len() / 4096).filter(|p| &good[p * 4096..p * 4096 + 4] == b"VJG1");
    let newest = newest.next_back().unwrap() * 4096;
    let expected = {
        let (_, logs) = start(&(Arc::new(mem.image()) as Arc<dyn Vfs>), 1, LARGE, false).unwrap();
        logs[0].log_end()
    };
    let mut found = 0;
    // All bits of headers and tables, one bit of some other bytes: their checksum is that of the batches.
    for at in (0..48).chain(4096..=used) {
        let whole = at < 48 || at % 4096 < 48 + 72;
        if !whole && at % 5 != 0 {
            continue;
        }
        for bit in if whole { 0..8 } else { at % 8..at % 8 + 1 } {
            let image: Arc<dyn Vfs> = Arc::new(mem.image());
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            crate::common::put(&*image, &file, &bad);
            match Journal::open(image.clone(), &journal_dir(), OWNER, SIZES, false) {
                Err(JournalError::Corrupt { file: named, .. }) => {
                    assert_eq!(named, file);
                    found += 1;
                }
                Err(other) => panic!("byte {at} bit {bit}: {other}"),
                // The last group may always be a torn one, and padding says nothing.
                Ok((_, replay)) if at >= newest => {
                    let mut end = Offset::ZERO;
                    if let Some(log) = replay.log(&identity(0)) {
                        log.apply(&*image, &log_dir(0), &identity(0)).unwrap();
                        let (log, _) = common_open(&image);
                        end = log.log_end();
                    }
                    assert!(end <= expected);
                }
                Ok((_, replay)) => {
                    let applied = replay.log(&identity(0)).unwrap();
                    applied.apply(&*image, &log_dir(0), &identity(0)).unwrap();
                    let (log, _) = common_open(&image);
                    assert_eq!(log.log_end(), expected, "byte {at} bit {bit}: padding only");
                }
            }
        }
    }
    assert!(found > 1_000, "{found}");
    drop(world);
}

fn common_open(vfs: &Arc<dyn Vfs>) -> (Log, varve_storage::Recovery) {
    let mode = OpenMode { clean: false };
    Log::open(
        vfs.clone(),
        &log_dir(0),
        identity(0),
        log_config(LARGE),
        mode,
        NOW,
    )
    .unwrap()
}

#[test]
fn a_full_journal_says_so_and_has_room_again_once_files_are_synced() {
    let (_, vfs) = mem();
    let mut world = World::new(&vfs, 3, LARGE);
    let mut dice = Dice(5);
    let mut most = 0;
    for round in 0..400 {
        world.append(round % 3, &mut dice);
        world.commit(false);
        most = most.max(world.journal.files().1);
        if round > 300 {
            world.relieve();
        }
    }
    assert_eq!(most, SIZES.files, "never more files than allowed");
    let (used, _) = world.journal.files();
    assert!(
        used <= SIZES.files / 2 + 1,
        "{used} files in use after relief"
    );
    assert!(world.journal.live_bytes() <= SIZES.file_bytes * SIZES.files as u64);
}

/// Forks of the disk before each change to the journal, from now on.
fn watch_journal(mem: &MemVfs) -> Arc<Mutex<Vec<MemVfs>>> {
    let forks: Arc<Mutex<Vec<MemVfs>>> = Arc::default();
    let (disk, seen) = (mem.clone(), forks.clone());
    mem.set_hook(Some(Arc::new(move |call| {
        let changes = matches!(call.op, Op::Write | Op::Sync | Op::SyncDir);
        if changes && call.path.starts_with(journal_dir()) {
            seen.lock().unwrap().push(disk.fork());
        }
        Answer::Go
    })));
    forks
}

/// A start that cannot open log 1: what the journal has of it is kept, and log 0 goes on, cut to its first batch.
fn start_without_log_1(vfs: &Arc<dyn Vfs>) -> Offset {
    let opened = Journal::open(vfs.clone(), &journal_dir(), OWNER, SIZES, false);
    let (journal, replay) = opened.unwrap();
    let (mode, replayed) = (OpenMode { clean: false }, replay.log(&identity(0)));
    let (dir, config) = (log_dir(0), log_config(LARGE));
    let opened = Log::open_replayed(vfs.clone(), &dir, identity(0), config, mode, NOW, replayed);
    let (mut log, _) = opened.unwrap();
    if replayed.is_some() {
        // The next start could put back again what is truncated now.
        let refused = log.truncate_to(o(1)).map(drop).unwrap_err();
        assert!(matches!(refused, LogError::InJournal { .. }), "{refused}");
    }
    journal.keep(&replay, &[identity(1)].into()).unwrap();
    log.journal_voided();
    drop(log.truncate_to(o(1)).unwrap());
    let other = batch(o(1), 1, NOW, 1, 3000);
    log.append(&[other], NOW).unwrap();
    log.flush_now().unwrap();
    log.log_end()
}

#[test]
fn what_is_kept_for_a_log_that_did_not_open_comes_back_and_nothing_of_the_others_does() {
    // However much room is left in the journal's last file.
    for (torn, rounds) in (5..20).flat_map(|rounds| [(false, rounds), (true, rounds)]) {
        let (mem, vfs) = mem();
        let mut world = World::new(&vfs, 2, LARGE);
        let mut dice = Dice(5);
        let (mut acked, mut before) = ([Offset::ZERO; 2], mem.fork());
        for _ in 0..rounds {
            acked = [0, 1].map(|n| world.subjects[n].acked);
            (0..2).for_each(|n| world.append(n, &mut dice));
            world.make_room();
            let forks = watch_journal(&mem);
            world.commit(false);
            mem.set_hook(None);
            before = forks.lock().unwrap().swap_remove(1);
        }
        if torn {
            // Only the first sector of the newest group came to the disk.
            before.crash(&mut |change| match change {
                Unsynced::Write { path, .. } if path.starts_with(journal_dir()) => Fate::Tear(512),
                _ => Fate::Lose,
            });
        } else {
            acked = [0, 1].map(|n| world.subjects[n].acked);
            before = mem.fork();
            before.crash_losing_unsynced();
        }
        let vfs: Arc<dyn Vfs> = Arc::new(before.clone());
        let (_, replay) = Journal::open(vfs.clone(), &journal_dir(), OWNER, SIZES, false).unwrap();
        assert_eq!(replay.torn_bytes > 0, torn);
        let forks = watch_journal(&before);
        let end = start_without_log_1(&vfs);
        before.set_hook(None);
        let forks = std::mem::take(&mut *forks.lock().unwrap());
        assert!(forks.len() >= 2);
        for cut in forks {
            cut.crash_losing_unsynced();
            let vfs: Arc<dyn Vfs> = Arc::new(cut);
            let (_, logs) = start(&vfs, 2, LARGE, false).unwrap();
            let all = logs.iter().zip(acked).all(|(l, a)| l.log_end() >= a);
            assert!(all, "torn {torn}: a cut in between loses nothing");
        }
        // And once more, on the journal that was kept.
        before.crash_losing_unsynced();
        assert_eq!(start_without_log_1(&vfs), end);
        before.crash_losing_unsynced();
        let (_, logs) = start(&vfs, 2, LARGE, false).unwrap();
        assert_eq!(logs[0].log_end(), end, "torn {torn}: nothing is put back");
        assert!(logs[1].log_end() >= acked[1], "torn {torn}");
        assert!(acked[1] > o(4));
    }
}

#[test]
fn what_was_truncated_does_not_come_back() {
    let (mem, mut world, _) = one_log();
    let subject = &mut world.subjects[0];
    let end = subject.log.log_end();
    let cut = subject.written[2].header().base_offset;
    let refused = subject.log.truncate_to(cut).map(drop).unwrap_err();
    assert!(matches!(refused, LogError::InJournal { .. }), "{refused}");
    assert_eq!(subject.log.log_end(), end, "a refusal changes nothing");
    subject.log.flush_now().unwrap();
    world.make_room();
    let subject = &mut world.subjects[0];
    assert_eq!(world.journal.void(identity(0)).unwrap(), Written::Synced);
    subject.log.journal_voided();
    drop(subject.log.truncate_to(cut).unwrap());
    assert_eq!(subject.log.log_end(), cut);
    mem.crash_losing_unsynced();
    subject.acked = Offset::ZERO;
    assert!(world.restart("after the truncation"));
    assert_eq!(world.subjects[0].log.log_end(), cut);
}

#[test]
fn a_journal_of_another_directory_or_version_is_refused_and_left_as_it_is() {
    let (mem, world, _) = one_log();
    let file = journal_dir().join("0000.journal");
    let open =
        |vfs: &Arc<dyn Vfs>, owner| Journal::open(vfs.clone(), &journal_dir(), owner, SIZES, false);
    let foreign = open(&world.vfs, 1).map(drop).unwrap_err();
    assert!(foreign.to_string().contains("data directory"), "{foreign}");
    let mut bytes = mem.read(&file).unwrap();
    bytes[8] = 2;
    crate::common::put(&mem, &file, &bytes);
    let newer = open(&world.vfs, OWNER).map(drop).unwrap_err();
    assert!(newer.to_string().contains("format version 2"), "{newer}");
    assert!(mem.read(&file).unwrap() == bytes);
}

#[test]
fn a_missing_file_with_synced_groups_is_told() {
    let (_, vfs) = mem();
    let mut world = World::new(&vfs, 1, LARGE);
    let mut dice = Dice(7);
    for _ in 0..200 {
        world.append(0, &mut dice);
        world.commit(false);
        if world.journal.files().0 == 2 {
            break;
        }
    }
    assert_eq!(world.journal.files().0, 2);
    vfs.remove_file(&journal_dir().join("0000.journal"))
        .unwrap();
    let error = Journal::open(vfs, &journal_dir(), OWNER, SIZES, false)
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("no such group"), "{error}");
}

#[test]
fn after_a_clean_stop_the_journal_is_not_needed() {
    let (_, vfs) = mem();
    let mut world = World::new(&vfs, 1, LARGE);
    let mut dice = Dice(3);
    world.append(0, &mut dice);
    world.commit(false);
    let end = world.subjects[0].log.log_end();
    let World {
        subjects, journal, ..
    } = world;
    for subject in subjects {
        subject.log.close(true).unwrap();
    }
    drop(journal);
    let (mut journal, logs) = start(&vfs, 1, LARGE, true).unwrap();
    assert_eq!(logs[0].log_end(), end);
    assert!(journal.files().1 >= 1, "files are used again");
    journal.leave(&[identity(0)]).unwrap();
    assert_eq!(o(end.get()), logs[0].flushed());
}
