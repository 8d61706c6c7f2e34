//! Snapshots of the cluster state as files: `snapshot-<index>-<term>`. See `FORMAT.md`.
//!
//! Invariants: a file has its name only after it was written, synced and read again whole; the one before is
//! removed after that; a newer one is never replaced by an older one. A snapshot that cannot be read stops
//! the node.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use varve_metadata::{State, snapshot};
use varve_vfs::{Vfs, durable};

use crate::codec::{CodecError, Reader, Writer, unsealed};
use crate::error::StoreError;
use crate::types::SnapshotMeta;

const MAGIC: [u8; 4] = *b"VRRS";
/// Format version that is written; also the only one that is read.
pub const VERSION: u16 = 1;
const PREFIX: &str = "snapshot-";

/// The bytes of a snapshot file.
#[must_use]
pub fn encode(meta: &SnapshotMeta, state: &[u8]) -> Vec<u8> {
    let mut w = Writer(Vec::with_capacity(256 + state.len()));
    w.0.extend_from_slice(&MAGIC);
    w.u16(VERSION);
    w.u16(0);
    w.option(meta.last_log_id.as_ref(), Writer::log_id);
    w.stored_membership(&meta.last_membership);
    w.bytes(state);
    w.sealed()
}

/// What a snapshot file holds: what it covers, and the encoded state.
///
/// # Errors
/// [`CodecError`] for anything that [`encode`] does not write.
pub fn decode(bytes: &[u8]) -> Result<(SnapshotMeta, &[u8]), CodecError> {
    let mut r = Reader::new(bytes);
    if r.array("magic")? != MAGIC {
        return Err(r.bad("magic", "it is not VRRS"));
    }
    let version = r.u16("version")?;
    if version != VERSION {
        let why =
            format!("it is {version}, but this program knows {VERSION}: a newer program wrote it");
        return Err(r.bad("version", why));
    }
    let mut r = Reader::new(unsealed(bytes)?);
    let _: [u8; 6] = r.array("magic and version")?;
    if r.u16("reserved")? != 0 {
        return Err(r.bad("reserved", "it is not 0"));
    }
    let meta = SnapshotMeta {
        last_log_id: r.option("last entry", Reader::log_id)?,
        last_membership: r.stored_membership()?,
    };
    let state = r.bytes("state")?;
    r.end()?;
    Ok((meta, state))
}

fn name(meta: &SnapshotMeta) -> String {
    let (term, index) = meta
        .last_log_id
        .map_or((0, 0), |id| (id.leader_id.term, id.index));
    format!("{PREFIX}{index:020}-{term:020}")
}

/// The snapshots of one directory. Whoever holds it alone may write.
#[derive(Debug)]
pub(crate) struct Snapshots {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    current: Option<(SnapshotMeta, Bytes)>,
}

impl Snapshots {
    /// Finds the newest snapshot and removes what an interrupted change left. Also returns its state.
    pub(crate) fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<(Self, Option<State>), StoreError> {
        durable::create_dir_all(&*vfs, dir)?;
        vfs.sync_dir(dir)?;
        let mut names: Vec<String> = vfs
            .list(dir)?
            .into_iter()
            .map(|entry| entry.name)
            .filter(|name| name.starts_with(PREFIX))
            .collect();
        let (temporary, kept): (Vec<_>, Vec<_>) = names
            .drain(..)
            .partition(|name| name.ends_with(durable::TEMP_SUFFIX));
        let mut snapshots = Self {
            vfs,
            dir: dir.to_owned(),
            current: None,
        };
        let mut state = None;
        // Names sort as their indexes do.
        if let Some(newest) = kept.last() {
            let (meta, bytes, found) = snapshots.read(newest)?;
            state = Some(found);
            snapshots.current = Some((meta, bytes));
        }
        for leftover in temporary.iter().chain(kept.iter().rev().skip(1)) {
            snapshots.vfs.remove_file(&snapshots.dir.join(leftover))?;
        }
        Ok((snapshots, state))
    }

    fn read(&self, name: &str) -> Result<(SnapshotMeta, Bytes, State), StoreError> {
        let path = self.dir.join(name);
        let bytes = self.vfs.read(&path)?;
        let (meta, state) = decode(&bytes).map_err(|e| StoreError::damaged(&path, &e))?;
        let decoded = snapshot::decode(state).map_err(|e| StoreError::snapshot(&path, &e))?;
        Ok((meta, Bytes::copy_from_slice(state), decoded))
    }

    pub(crate) fn current(&self) -> Option<(SnapshotMeta, Bytes)> {
        self.current.clone()
    }

    fn write(&self, temp: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let file = self.vfs.create_new(temp)?;
        file.write_all_at(&[IoSlice::new(bytes)], 0)?;
        Ok(file.sync_all()?)
    }

    /// Makes a snapshot the current one, unless the current one is as new.
    pub(crate) fn put(&mut self, meta: &SnapshotMeta, state: &Bytes) -> Result<(), StoreError> {
        let newer = |(current, _): &(SnapshotMeta, Bytes)| current.last_log_id >= meta.last_log_id;
        if self.current.as_ref().is_some_and(newer) {
            return Ok(());
        }
        let name = name(meta);
        let path = self.dir.join(&name);
        let temp_name = format!("{name}{}", durable::TEMP_SUFFIX);
        let temp = self.dir.join(&temp_name);
        if self.vfs.exists(&temp)? {
            self.vfs.remove_file(&temp)?;
        }
        let written = self.write(&temp, &encode(meta, state));
        if written.is_err() {
            // Space may be what is missing; the name is one of leftovers.
            let _ = self.vfs.remove_file(&temp);
        }
        written?;
        let (found, stored, _) = self.read(&temp_name)?;
        if found != *meta || stored != *state {
            return Err(StoreError::damage(
                &temp,
                "the bytes read differ from the bytes written",
            ));
        }
        self.vfs.rename(&temp, &path)?;
        self.vfs.sync_dir(&self.dir)?;
        let old = self.current.replace((meta.clone(), state.clone()));
        if let Some((old, _)) = old {
            self.vfs.remove_file(&self.dir.join(self::name(&old)))?;
        }
        Ok(())
    }
}
