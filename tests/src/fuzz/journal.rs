//! A file of the journal with anything in it: it opens or is refused, and what it puts back stays put.

use std::path::PathBuf;
use std::sync::Arc;

use varve_storage::journal::Written;
use varve_storage::{Journal, JournalConfig, Log, LogError, LogIdentity, OpenMode};
use varve_types::{LeaderEpoch, PartitionId};
use varve_vfs::Vfs;
use varve_vfs::mem::MemVfs;

use super::image::{identity, put};
use super::logs::{batch, config};

const OWNER: u128 = 0x0123_4567_89ab_cdef;
const NOW: i64 = 1_700_000_000_000;
const PAGE: usize = 4096;
const SIZES: JournalConfig = JournalConfig {
    file_bytes: 16 * PAGE as u64,
    files: 2,
};
/// Bytes of a file's header and of a group's, each with its checksum at the end.
const HEAD: usize = 48;
/// Bytes of a row of a group's table.
const ROW: usize = 72;

fn journal_dir() -> PathBuf {
    PathBuf::from("/data/journal")
}

/// Two logs that share the journal.
fn logs() -> [(LogIdentity, PathBuf); 2] {
    [3, 4].map(|n| {
        let partition = PartitionId(n);
        let dir = PathBuf::from(format!("/data/topics/t-00112233/{n}"));
        let log = LogIdentity {
            partition,
            ..identity()
        };
        (log, dir)
    })
}

fn open_log(
    vfs: &Arc<dyn Vfs>,
    n: usize,
    replay: Option<&varve_storage::journal::Replay>,
) -> Result<Log, LogError> {
    let (identity, dir) = &logs()[n];
    let replay = replay.and_then(|r| r.log(identity));
    let mode = OpenMode { clean: false };
    let opened = Log::open_replayed(vfs.clone(), dir, *identity, config(), mode, NOW, replay);
    opened.map(|(log, _)| log)
}

/// A journal's only file, without the zeros at its end.
///
/// # Panics
/// Never, on a disk in memory.
#[must_use]
pub fn seed() -> Vec<u8> {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let (mut journal, _) = Journal::open(vfs.clone(), &journal_dir(), OWNER, SIZES, false).unwrap();
    let file = journal.file_wanted().unwrap().make().unwrap();
    journal.add(file);
    let mut logs = [0, 1].map(|n| open_log(&vfs, n, None).unwrap());
    for log in &mut logs {
        log.begin_epoch(LeaderEpoch::ZERO).unwrap();
        log.flush_now().unwrap();
    }
    let synced = logs.each_ref().map(|log| log.files_synced().unwrap());
    assert_eq!(journal.follow(&synced).unwrap(), Written::Synced);
    for _ in 0..2 {
        let entries = logs.each_mut().map(|log| {
            let batch = batch(log.log_end(), LeaderEpoch::ZERO);
            log.append(std::slice::from_ref(&batch), NOW).unwrap();
            log.journal_entry(vec![batch]).unwrap()
        });
        assert_eq!(journal.write(&entries).unwrap(), Written::Synced);
        for (log, entry) in logs.iter_mut().zip(&entries) {
            log.flush_done(entry.done()).unwrap();
        }
    }
    let mut bytes = vfs.read(&journal_dir().join("0000.journal")).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap_or(0) + 1;
    bytes.truncate(used);
    bytes
}

/// The bytes with right checksums over the file's header and the header and table of each group.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if bytes.len() < HEAD {
        return bytes;
    }
    bytes[..8].copy_from_slice(b"VARVEJNL");
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    bytes[12..28].copy_from_slice(&OWNER.to_be_bytes());
    let crc = crc32fast::hash(&bytes[..HEAD - 4]);
    bytes[HEAD - 4..HEAD].copy_from_slice(&crc.to_le_bytes());
    let file = bytes[28..32].to_vec();
    for at in (PAGE..bytes.len()).step_by(PAGE) {
        let group = &mut bytes[at..];
        if group.len() < HEAD || group[..4] != *b"VJG1" {
            continue;
        }
        let rows = u32::from_le_bytes([group[4], group[5], group[6], group[7]]) as usize;
        let Some(table) = group.get(HEAD..HEAD.saturating_add(rows.saturating_mul(ROW))) else {
            continue;
        };
        let mut crc = crc32fast::Hasher::new();
        crc.update(&OWNER.to_be_bytes());
        crc.update(&file);
        crc.update(&(at as u64).to_le_bytes());
        crc.update(&group[..HEAD - 4]);
        crc.update(table);
        let crc = crc.finalize();
        group[HEAD - 4..HEAD].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

/// A journal with these bytes in its only file is opened, replayed into two empty logs, and begun anew.
///
/// # Panics
/// When a property is broken.
pub fn journal(data: &[u8]) {
    for bytes in [data.to_vec(), sealed(data)] {
        open_and_replay(bytes);
    }
}

fn open_and_replay(mut bytes: Vec<u8>) {
    let disk = MemVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(disk);
    for n in 0..2 {
        let log = open_log(&vfs, n, None).expect("an empty log is made");
        log.close(false).expect("a log is closed");
    }
    vfs.create_dir_all(&journal_dir()).unwrap();
    let path = journal_dir().join("0000.journal");
    let whole = bytes
        .len()
        .next_multiple_of(PAGE)
        .max(SIZES.file_bytes as usize);
    bytes.resize(whole, 0);
    put(&*vfs, &path, &bytes);
    let opened = Journal::open(vfs.clone(), &journal_dir(), OWNER, SIZES, false);
    assert_eq!(vfs.read(&path).unwrap(), bytes, "opening changes nothing");
    let Ok((mut journal, replay)) = opened else {
        return;
    };
    let mut synced = Vec::new();
    for (n, (identity, dir)) in logs().iter().enumerate() {
        let content = || vfs.read(&dir.join("00000000000000000000.log")).unwrap();
        if let Some(replay) = replay.log(identity) {
            let first = replay
                .apply(&*vfs, dir, identity)
                .expect("a disk in memory does not fail");
            let put_back = content();
            let again = replay
                .apply(&*vfs, dir, identity)
                .expect("a disk in memory does not fail");
            assert_eq!(
                (first, put_back),
                (again, content()),
                "putting back twice changes nothing"
            );
        }
        match open_log(&vfs, n, Some(&replay)) {
            Ok(log) => synced.extend(log.files_synced()),
            Err(LogError::Corrupt(_)) => return,
            Err(error) => panic!("a disk in memory does not fail: {error}"),
        }
    }
    journal
        .begin(&synced)
        .expect("a disk in memory does not fail");
    drop(journal);
    let again = Journal::open(vfs, &journal_dir(), OWNER, SIZES, false);
    let (_, replay) = again.expect("a journal that was begun opens");
    assert!(replay.is_empty(), "what was void stays void");
}
