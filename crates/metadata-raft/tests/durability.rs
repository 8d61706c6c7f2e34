//! What the store has acknowledged survives every crash: random sequences of operations on a disk that
//! forgets what was not synced, with a crash after or within any of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::RaftLogStorage;
use varve_metadata_raft::StoreError;
use varve_metadata_raft::disk::{Disk, Loaded, prepare};
use varve_metadata_raft::store::Store;
use varve_metadata_raft::types::{CommandBytes, Entry, LogId, Payload, Vote, log_id, vote};
use varve_vfs::Workers;
use varve_vfs::fault::{FaultVfs, Op};
use varve_vfs::mem::{Answer, Call, Fate, MemVfs, Unsynced};

const OWNER: u64 = 7;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// What must be there.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    entries: Vec<Entry>,
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    /// What is committed for certain, whatever crashes.
    synced: Option<LogId>,
}

impl Model {
    fn next(&self) -> u64 {
        self.last().map_or(0, |id| id.index + 1)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|e| e.log_id).or(self.purged)
    }

    fn term(&self) -> u64 {
        self.vote.map_or(0, |v| v.leader_id.term)
    }
}

fn open(disk: &MemVfs) -> (Disk, Loaded) {
    // Small segments, so that cuts and purges cross their borders.
    Disk::open_with(Arc::new(disk.clone()), Path::new("/raft"), OWNER, 400).unwrap()
}

fn append(disk: &mut Disk, entries: &[Entry]) -> Result<(), StoreError> {
    let prepared: Vec<_> = entries.iter().map(prepare).collect();
    disk.append(&mut &prepared[..])
}

/// One random operation on the disk and on the model.
fn step(rng: &mut Rng, disk: &mut Disk, model: &mut Model) -> &'static str {
    match rng.below(12) {
        0..=4 if model.term() > 0 => {
            let entries: Vec<Entry> = (0..1 + rng.below(4))
                .map(|n| Entry {
                    log_id: log_id(model.term(), model.next() + n),
                    payload: match rng.below(4) {
                        0 => Payload::Blank,
                        _ => {
                            let bytes = vec![rng.next() as u8; rng.below(120) as usize];
                            Payload::Normal(CommandBytes(Bytes::from(bytes)))
                        }
                    },
                })
                .collect();
            append(disk, &entries).unwrap();
            model.entries.extend(entries);
            "append"
        }
        5 | 6 => {
            let newer = vote(model.term() + 1, rng.below(3), rng.below(2) == 0);
            disk.save_vote(&newer).unwrap();
            model.vote = Some(newer);
            "vote"
        }
        7 | 8 => {
            let from = model.committed.map_or(0, |id| id.index);
            let newest = model.entries.iter().filter(|e| e.log_id.index > from);
            let newest: Vec<_> = newest.map(|e| e.log_id).collect();
            if !newest.is_empty() {
                model.committed = Some(newest[rng.below(newest.len() as u64) as usize]);
                disk.save_committed(model.committed).unwrap();
                if rng.below(2) == 0 {
                    disk.sync_committed().unwrap();
                    model.synced = model.committed;
                }
            }
            "committed"
        }
        9 => {
            // What is committed is never cut.
            let least = model.committed.max(model.purged);
            let keep = model
                .entries
                .iter()
                .filter(|e| Some(e.log_id) <= least)
                .count();
            let keep = keep + rng.below((model.entries.len() - keep) as u64 + 1) as usize;
            let last = keep.checked_sub(1).map(|at| model.entries[at].log_id);
            disk.truncate_after(last.or(model.purged).as_ref()).unwrap();
            model.entries.truncate(keep);
            "truncate"
        }
        10 => {
            let done = model
                .entries
                .iter()
                .filter(|e| Some(e.log_id) <= model.committed);
            let done: Vec<_> = done.map(|e| e.log_id).collect();
            if rng.below(8) == 0 {
                // A snapshot from another node, past the end of the log.
                let upto = log_id(model.term().max(1), model.next() + rng.below(5));
                if model.term() > 0 {
                    disk.purge(&upto).unwrap();
                    model.entries.clear();
                    model.purged = Some(upto);
                    model.committed = model.committed.max(Some(upto));
                    disk.save_committed(model.committed).unwrap();
                }
            } else if !done.is_empty() {
                let upto = done[rng.below(done.len() as u64) as usize];
                disk.purge(&upto).unwrap();
                model.entries.retain(|e| e.log_id > upto);
                model.purged = Some(upto);
            }
            "purge"
        }
        _ => "nothing",
    }
}

fn assert_committed(loaded: &Loaded, model: &Model, at: &str) {
    assert!(
        loaded.committed <= loaded.last(),
        "{at}: committed above the log"
    );
    let least = model.synced.min(loaded.last());
    assert!(
        loaded.committed >= least,
        "{at}: {:?} < {least:?}",
        loaded.committed
    );
    assert!(loaded.committed <= model.committed, "{at}");
}

/// After a crash between two operations everything is there.
fn assert_whole(loaded: &Loaded, model: &Model, at: &str) {
    assert_eq!(loaded.entries, model.entries, "{at}");
    assert_eq!(
        (loaded.vote, loaded.purged),
        (model.vote, model.purged),
        "{at}"
    );
    assert_committed(loaded, model, at);
}

/// After a crash within an operation it has happened, has not, or has in part, from its safe side.
fn assert_between(loaded: &Loaded, before: &Model, after: &Model, at: &str) {
    assert!(
        loaded.vote == before.vote || loaded.vote == after.vote,
        "{at}: vote"
    );
    assert!(
        loaded.purged == before.purged || loaded.purged == after.purged,
        "{at}: purged"
    );
    let of = if loaded.purged == after.purged && after.purged != before.purged {
        vec![&after.entries]
    } else {
        vec![&before.entries, &after.entries]
    };
    let (least, most) = (
        of.iter().map(|e| e.len()).min().unwrap(),
        of.iter().max_by_key(|e| e.len()).unwrap(),
    );
    assert!(
        loaded.entries.len() >= least,
        "{at}: {} < {least} entries",
        loaded.entries.len()
    );
    assert!(most.starts_with(&loaded.entries), "{at}: other entries");
    assert!(
        loaded.committed <= loaded.last(),
        "{at}: committed above the log"
    );
}

fn random_fate(rng: &mut Rng) -> impl FnMut(&Unsynced<'_>) -> Fate {
    move |change| match (rng.below(5), change) {
        (0 | 1, _) => Fate::Lose,
        (2, Unsynced::Write { len, .. }) => Fate::Tear(rng.below(*len as u64) as usize),
        (3, Unsynced::Write { .. }) => Fate::Zeros,
        _ => Fate::Keep,
    }
}

/// A fault that is planted: the syncs that the store forgets.
type Forgets = fn(&Call<'_>) -> bool;

fn nothing(_: &Call<'_>) -> bool {
    false
}

fn answer(forgets: Forgets, call: &Call<'_>) -> Answer {
    match forgets(call) {
        true => Answer::Pretend,
        false => Answer::Go,
    }
}

/// Copies the disk just before the operation of it that `left` counts down to.
fn copy_within(vfs: &MemVfs, left: u64, forgets: Forgets) -> Arc<Mutex<Option<MemVfs>>> {
    let copy = Arc::new(Mutex::new(None));
    let (slot, disk, left) = (copy.clone(), vfs.clone(), Mutex::new(left));
    vfs.set_hook(Some(Arc::new(move |call| {
        let mut left = left.lock().unwrap();
        if *left == 0 {
            slot.lock().unwrap().get_or_insert_with(|| disk.fork());
        }
        *left = left.saturating_sub(1);
        answer(forgets, call)
    })));
    copy
}

fn run(seed: u64, forgets: Forgets) {
    let mut rng = Rng(seed);
    let vfs = MemVfs::new();
    let remind = |vfs: &MemVfs| {
        vfs.set_hook(Some(Arc::new(move |call: &Call<'_>| answer(forgets, call))));
    };
    remind(&vfs);
    let (mut disk, loaded) = open(&vfs);
    assert!(loaded.is_empty());
    let mut model = Model::default();
    for number in 0..4 + rng.below(10) {
        let before = model.clone();
        let within = (rng.below(3) == 0).then(|| copy_within(&vfs, rng.below(24), forgets));
        let what = step(&mut rng, &mut disk, &mut model);
        let at = format!("seed {seed}, operation {number} ({what})");
        if let Some(copy) = within {
            remind(&vfs);
            let copy = copy.lock().unwrap().take();
            if let Some(copy) = copy {
                match rng.below(3) {
                    0 => copy.kill_process(),
                    1 => copy.crash_losing_unsynced(),
                    _ => copy.crash(&mut random_fate(&mut rng)),
                }
                let (mut again, loaded) = open(&copy);
                assert_between(&loaded, &before, &model, &at);
                // What was found is found again, and can be gone on from.
                let mut found = Model {
                    entries: loaded.entries,
                    vote: loaded.vote,
                    purged: loaded.purged,
                    committed: loaded.committed,
                    synced: loaded.committed,
                };
                step(&mut rng, &mut again, &mut found);
                drop(again);
                copy.crash_losing_unsynced();
                assert_whole(&open(&copy).1, &found, &at);
            }
        }
        if rng.below(6) == 0 {
            drop(disk);
            match rng.below(3) {
                0 => vfs.kill_process(),
                1 => vfs.crash_losing_unsynced(),
                _ => vfs.crash(&mut random_fate(&mut rng)),
            }
            let (again, loaded) = open(&vfs);
            assert_whole(&loaded, &model, &at);
            model.committed = loaded.committed;
            model.synced = loaded.committed;
            disk = again;
        }
    }
    vfs.crash_losing_unsynced();
    assert_whole(&open(&vfs).1, &model, &format!("seed {seed}, at the end"));
}

#[test]
fn ten_thousand_sequences_lose_nothing() {
    for seed in 0..10_000 {
        run(seed, nothing);
    }
}

#[test]
#[ignore = "takes minutes"]
fn a_million_sequences_lose_nothing() {
    for seed in 10_000..1_000_000 {
        run(seed, nothing);
    }
}

fn is_named(call: &Call<'_>, start: &str) -> bool {
    let name = call.path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(start))
}

/// What these sequences find when the store is not what it says: each would let two leaders have one term, or lose what
/// a majority has.
#[test]
fn a_store_that_forgets_a_sync_is_found_out() {
    let plants: [(&str, Forgets); 4] = [
        ("the vote is answered before it is durable", |call| {
            call.op == Op::Sync && is_named(call, "vote")
        }),
        ("the vote's name is not", |call| call.op == Op::SyncDir),
        ("entries are answered before they are", |call| {
            call.op == Op::Sync && call.path.extension().is_some_and(|e| e == "log")
        }),
        ("what was purged is not", |call| {
            call.op == Op::Sync && is_named(call, "purged")
        }),
    ];
    for (what, forgets) in plants {
        let found = (0..1_000).find(|seed| {
            let seed = *seed;
            std::panic::catch_unwind(move || run(seed, forgets)).is_err()
        });
        assert!(found.is_some(), "{what}: 1,000 sequences do not notice");
        println!("{what}: seed {}", found.unwrap());
    }
}

#[test]
fn a_failed_sync_takes_the_store_out() {
    for nth in 1..40 {
        let mem = MemVfs::new();
        let faults = FaultVfs::new(Arc::new(mem.clone()));
        let (mut disk, _) = Disk::open(faults.clone(), Path::new("/raft"), OWNER).unwrap();
        faults.fail_once(Op::Any, nth, rustix::io::Errno::IO);
        let entry = |index| Entry {
            log_id: log_id(1, index),
            payload: Payload::Blank,
        };
        let mut done = 0;
        let mut voted = false;
        let mut failed = false;
        for index in 0..3 {
            voted |= index == 0 && disk.save_vote(&vote(1, 1, true)).is_ok();
            match append(&mut disk, &[entry(index)]) {
                Ok(()) => {
                    assert!(!failed, "nothing is written after a failure");
                    done += 1;
                }
                Err(_) => failed = true,
            }
        }
        assert_eq!(failed, disk.failure().is_some());
        drop(disk);
        mem.crash_losing_unsynced();
        let (_, loaded) = Disk::open(Arc::new(mem), Path::new("/raft"), OWNER).unwrap();
        assert!(loaded.entries.len() >= done);
        assert!(!voted || loaded.vote == Some(vote(1, 1, true)));
    }
}

/// The disk is full at every byte of a life; each call is made again when there is a little more space.
#[test]
fn a_full_disk_is_waited_for_and_nothing_is_lost() {
    let entry = |term, index| Entry {
        log_id: log_id(term, index),
        payload: Payload::Normal(CommandBytes(Bytes::from(vec![index as u8; 60]))),
    };
    let mut refused = 0;
    for budget in (0..3_000).step_by(13) {
        let mem = MemVfs::new();
        let faults = FaultVfs::new(Arc::new(mem.clone()));
        let dir = Path::new("/raft");
        let (mut disk, _) = Disk::open_with(faults.clone(), dir, OWNER, 400).unwrap();
        faults.set_budget(Some(budget));
        let mut insist = |step: &mut dyn FnMut() -> Result<(), StoreError>| {
            for attempt in 1..100 {
                match step() {
                    Ok(()) => return,
                    Err(error) => assert!(error.is_no_space(), "{error:?}"),
                }
                refused += 1;
                faults.set_budget(Some(97 * attempt));
            }
            panic!("there is space, and it is not used");
        };
        insist(&mut || disk.save_vote(&vote(1, 1, true)));
        for group in 0..6 {
            let entries: Vec<Entry> = (0..3).map(|n| entry(1, group * 3 + n)).collect();
            let prepared: Vec<_> = entries.iter().map(prepare).collect();
            let mut rest = &prepared[..];
            insist(&mut || disk.append(&mut rest));
        }
        // Within a group, so that what is kept of it is written again. A cut that reaches over segments is the
        // one step that cannot be made again.
        faults.set_budget(None);
        disk.truncate_after(Some(&log_id(1, 12))).unwrap();
        faults.set_budget(Some(budget % 100));
        insist(&mut || disk.save_vote(&vote(2, 1, true)));
        insist(&mut || disk.purge(&log_id(1, 4)));
        let prepared = [prepare(&entry(2, 13))];
        let mut rest = &prepared[..];
        insist(&mut || disk.append(&mut rest));
        assert_eq!(disk.failure(), None);
        drop(disk);
        mem.crash_losing_unsynced();
        let (_, loaded) = Disk::open_with(Arc::new(mem), dir, OWNER, 400).unwrap();
        let mut expected: Vec<Entry> = (5..13).map(|index| entry(1, index)).collect();
        expected.push(entry(2, 13));
        assert_eq!(loaded.entries, expected, "budget {budget}");
        assert_eq!(loaded.vote, Some(vote(2, 1, true)));
        assert_eq!(loaded.purged, Some(log_id(1, 4)));
    }
    assert!(refused > 1_000, "{refused}");
}

#[tokio::test]
async fn a_store_comes_back_by_itself_when_there_is_space() {
    let faults = FaultVfs::new(Arc::new(MemVfs::new()));
    let dir = Path::new("/raft");
    let (mut store, _) = Store::open(faults.clone(), dir, OWNER, &Workers::Threads).unwrap();
    faults.set_budget(Some(0));
    let voted = vote(4, 1, true);
    {
        let mut waiting = std::pin::pin!(store.save_vote(&voted));
        let before = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
        assert!(before.is_err(), "there is no space");
        faults.set_budget(None);
        waiting.await.unwrap();
    }
    assert_eq!(store.read_committed().await.unwrap(), None);
    // Whoever ends the node does not wait for space.
    faults.set_budget(Some(0));
    store.handle().give_up();
    let error = store.save_vote(&vote(5, 1, true)).await.unwrap_err();
    assert!(error.to_string().contains("No space"), "{error}");
}

#[test]
fn damage_stops_the_node() {
    let vfs = MemVfs::new();
    let (mut disk, _) = open(&vfs);
    disk.save_vote(&vote(3, 1, true)).unwrap();
    let entry = Entry {
        log_id: log_id(3, 0),
        payload: Payload::Blank,
    };
    append(&mut disk, &[entry]).unwrap();
    drop(disk);
    let refused = |change: &dyn Fn(&MemVfs)| {
        let copy = vfs.fork();
        change(&copy);
        let opened = Disk::open(Arc::new(copy), Path::new("/raft"), OWNER);
        opened.map(|_| ()).unwrap_err().to_string()
    };
    let why = refused(&|disk| {
        assert!(disk.damage(Path::new("/raft/vote"), &mut |bytes| bytes[20] ^= 1));
    });
    assert!(why.contains("/raft/vote is damaged"), "{why}");
    let why = refused(&|disk| {
        varve_vfs::Vfs::remove_file(disk, Path::new("/raft/vote")).unwrap();
    });
    assert!(why.contains("term 3"), "{why}");
    let other = Disk::open(Arc::new(vfs.fork()), Path::new("/raft"), 8);
    assert!(other.unwrap_err().to_string().contains("another directory"));
}
