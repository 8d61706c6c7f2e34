//! The small files beside the log: the vote, the last purged entry, the identity, what a cut keeps, and the
//! committed index. See `FORMAT.md`.
//!
//! Invariants: each is one record with magic, version, owner and checksum; all but `committed` are replaced
//! as a whole and durable on return. `committed` has two slots, and the one that is on stable storage is
//! never written to before the other is too. What cannot be read stops the node.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_types::{ClusterId, NodeId};
use varve_vfs::{File, Vfs, VfsError, durable};

use crate::codec::{CodecError, Reader, Writer, unsealed};
use crate::error::StoreError;
use crate::types::{LogId, RaftId, Vote};

const MAGIC: [u8; 4] = *b"VRRF";
/// Format version that is written; also the only one that is read.
pub const VERSION: u16 = 1;

const VOTE: u8 = 1;
const PURGED: u8 = 2;
const IDENTITY: u8 = 3;
const COMMITTED: u8 = 4;
const KEPT: u8 = 5;

/// Bytes of one slot of the `committed` file.
pub(crate) const SLOT_BYTES: usize = 64;

fn begin(kind: u8, owner: RaftId) -> Writer {
    let mut w = Writer(Vec::with_capacity(SLOT_BYTES));
    w.0.extend_from_slice(&MAGIC);
    w.u16(VERSION);
    w.u8(kind);
    w.u8(0);
    w.u64(owner);
    w
}

fn opened(bytes: &[u8], kind: u8, owner: RaftId) -> Result<Reader<'_>, CodecError> {
    let mut r = Reader::new(bytes);
    if r.array("magic")? != MAGIC {
        return Err(r.bad("magic", "it is not VRRF"));
    }
    let version = r.u16("version")?;
    if version != VERSION {
        let why =
            format!("it is {version}, but this program knows {VERSION}: a newer program wrote it");
        return Err(r.bad("version", why));
    }
    let mut r = Reader::new(unsealed(bytes)?);
    let _: [u8; 6] = r.array("magic and version")?;
    let found = r.u8("kind")?;
    if found != kind {
        return Err(r.bad(
            "kind",
            format!("it is {found}, not {kind}: another file has this name"),
        ));
    }
    if r.u8("reserved")? != 0 {
        return Err(r.bad("reserved", "it is not 0"));
    }
    let of = r.u64("owner")?;
    if of != owner {
        return Err(r.bad(
            "owner",
            format!("it is {of:016x}, not {owner:016x}: the file belongs to another directory"),
        ));
    }
    Ok(r)
}

/// The bytes of a vote file.
#[must_use]
pub fn encode_vote(owner: RaftId, vote: &Vote) -> Vec<u8> {
    let mut w = begin(VOTE, owner);
    w.vote(vote);
    w.sealed()
}

/// The vote of those bytes.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_vote`] does not write.
pub fn decode_vote(owner: RaftId, bytes: &[u8]) -> Result<Vote, CodecError> {
    let mut r = opened(bytes, VOTE, owner)?;
    let vote = r.vote()?;
    r.end().map(|()| vote)
}

/// The bytes of a purged file.
#[must_use]
pub fn encode_purged(owner: RaftId, purged: &LogId) -> Vec<u8> {
    let mut w = begin(PURGED, owner);
    w.log_id(purged);
    w.sealed()
}

/// The log id of those bytes.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_purged`] does not write.
pub fn decode_purged(owner: RaftId, bytes: &[u8]) -> Result<LogId, CodecError> {
    let mut r = opened(bytes, PURGED, owner)?;
    let purged = r.log_id()?;
    r.end().map(|()| purged)
}

/// Whose log this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that the log belongs to.
    pub cluster: ClusterId,
    /// The node's number when it came to the cluster.
    pub node: NodeId,
}

/// The bytes of an identity file.
#[must_use]
pub fn encode_identity(owner: RaftId, identity: &Identity) -> Vec<u8> {
    let mut w = begin(IDENTITY, owner);
    w.u128(identity.cluster.0);
    w.i32(identity.node.0);
    w.sealed()
}

/// The identity of those bytes.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_identity`] does not write.
pub fn decode_identity(owner: RaftId, bytes: &[u8]) -> Result<Identity, CodecError> {
    let mut r = opened(bytes, IDENTITY, owner)?;
    let cluster = ClusterId(r.u128("cluster")?);
    let node = NodeId(r.i32("node")?);
    r.end().map(|()| Identity { cluster, node })
}

/// The bytes of a kept file: entries that a cut within a group is about to write again.
#[must_use]
pub fn encode_kept(owner: RaftId, first: u64, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut w = begin(KEPT, owner);
    w.u64(first);
    w.count(entries.len());
    for entry in entries {
        w.bytes(entry);
    }
    w.sealed()
}

/// Index of the first entry of such a file, and the entries.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_kept`] does not write.
pub fn decode_kept(owner: RaftId, bytes: &[u8]) -> Result<(u64, Vec<Vec<u8>>), CodecError> {
    let mut r = opened(bytes, KEPT, owner)?;
    let first = r.u64("first entry")?;
    let mut entries = Vec::new();
    for _ in 0..r.count("entries", 4)? {
        entries.push(r.bytes("entry")?.to_vec());
    }
    r.end().map(|()| (first, entries))
}

/// One slot of the committed file: its number and what is committed.
#[must_use]
pub fn encode_committed(owner: RaftId, number: u64, committed: Option<&LogId>) -> Vec<u8> {
    let mut w = begin(COMMITTED, owner);
    w.u64(number);
    w.option(committed, Writer::log_id);
    let used = w.0.len();
    w.0.extend(std::iter::repeat_n(0, SLOT_BYTES - 4 - used));
    w.sealed()
}

/// What such a slot says.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_committed`] does not write.
pub fn decode_committed(owner: RaftId, bytes: &[u8]) -> Result<(u64, Option<LogId>), CodecError> {
    let mut r = opened(bytes, COMMITTED, owner)?;
    let number = r.u64("number")?;
    let committed = r.option("committed", Reader::log_id)?;
    if r.rest().iter().any(|b| *b != 0) || bytes.len() != SLOT_BYTES {
        return Err(r.bad("slot", format!("not all bytes up to {SLOT_BYTES} are zero")));
    }
    Ok((number, committed))
}

/// The content of a small file; `None` if there is none.
pub(crate) fn load<T>(
    vfs: &dyn Vfs,
    path: &Path,
    decode: impl FnOnce(&[u8]) -> Result<T, CodecError>,
) -> Result<Option<T>, StoreError> {
    if !vfs.exists(path)? {
        return Ok(None);
    }
    let bytes = vfs.read(path)?;
    match decode(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(why) => Err(StoreError::damaged(path, &why)),
    }
}

/// The file `committed`: newest value in memory, one slot of the file ahead of the other.
#[derive(Debug)]
pub(crate) struct Committed {
    file: Arc<dyn File>,
    owner: RaftId,
    number: u64,
    /// The slot that is not needed: it may be torn by a crash.
    spare: usize,
    unsynced: bool,
    pub(crate) value: Option<LogId>,
}

impl Committed {
    pub(crate) fn open(vfs: &dyn Vfs, dir: &Path, owner: RaftId) -> Result<Self, StoreError> {
        let path: PathBuf = dir.join("committed");
        if !vfs.exists(&path)? {
            durable::replace(vfs, &path, &[0; 2 * SLOT_BYTES])?;
        }
        let file = vfs.open_write(&path)?;
        let bytes = vfs.read(&path)?;
        let mut best: Option<(usize, u64, Option<LogId>)> = None;
        for slot in 0..2 {
            let bytes = bytes
                .get(slot * SLOT_BYTES..(slot + 1) * SLOT_BYTES)
                .unwrap_or_default();
            if bytes.iter().all(|b| *b == 0) {
                continue;
            }
            match decode_committed(owner, bytes) {
                Ok((number, value)) if best.is_none_or(|(_, n, _)| n < number) => {
                    best = Some((slot, number, value));
                }
                Ok(_) => {}
                // Torn by a crash: it was not on stable storage yet, and the other slot is.
                Err(_) => {}
            }
        }
        // With no whole slot nothing was ever synced. Only how soon a start can catch up depends on it.
        let (slot, number, value) = best.unwrap_or((1, 0, None));
        let mut committed = Self {
            file,
            owner,
            number,
            spare: 1 - slot,
            unsynced: false,
            value,
        };
        // What was read may be in memory only: it is made durable before it counts.
        if value.is_some() {
            committed.file.sync_data()?;
            committed.write(value)?;
            committed.sync()?;
        }
        Ok(committed)
    }

    /// Writes a value, which outlives this process but not yet the power.
    pub(crate) fn write(&mut self, value: Option<LogId>) -> Result<(), VfsError> {
        self.number += 1;
        let bytes = encode_committed(self.owner, self.number, value.as_ref());
        let at = (self.spare * SLOT_BYTES) as u64;
        self.file.write_all_at(&[IoSlice::new(&bytes)], at)?;
        self.value = value;
        self.unsynced = true;
        Ok(())
    }

    /// Makes the newest value outlive the power.
    pub(crate) fn sync(&mut self) -> Result<(), VfsError> {
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
            self.spare = 1 - self.spare;
        }
        Ok(())
    }

    pub(crate) const fn is_unsynced(&self) -> bool {
        self.unsynced
    }
}
