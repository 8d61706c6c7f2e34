//! The file that holds the cluster state of a node on its own: `<data>/metadata`.
//!
//! The layout is in `FORMAT.md`.
//!
//! Invariants: replaced as a whole (temporary file, fsync, rename, fsync of the directory), so it is either
//! the old or the new state; a file that cannot be read stops the node, because guessing at metadata
//! deletes data. A topic's directory is removed only because this file says that it was deleted.

use std::path::{Path, PathBuf};

use varve_metadata::{State, snapshot};
use varve_vfs::{Vfs, VfsError, durable};

const MAGIC: &[u8; 8] = b"VRVMETA\0";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 8 + 2 + 2 + 4;

/// What the file holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    pub(crate) state: State,
    /// Names of directories under `topics/` whose topics are deleted.
    pub(crate) deleting: Vec<String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MetadataFileError {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] VfsError),
    /// The bytes are not what was written.
    #[error(
        "{} is damaged ({what}); the node does not start, because wrong metadata could delete \
         data. Restore the file from a backup or another node", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("metadata")
}

/// Reads the file; a missing one in a new data directory is an empty state.
pub(crate) fn load(vfs: &dyn Vfs, data_dir: &Path) -> Result<Option<Stored>, MetadataFileError> {
    let path = path(data_dir);
    if !vfs.exists(&path)? {
        return Ok(None);
    }
    let bytes = vfs.read(&path)?;
    decode(&bytes)
        .map(Some)
        .map_err(|what| MetadataFileError::Damaged { path, what })
}

/// Replaces the file; durable when it returns.
pub(crate) fn store(
    vfs: &dyn Vfs,
    data_dir: &Path,
    stored: &Stored,
) -> Result<(), MetadataFileError> {
    Ok(durable::replace(vfs, &path(data_dir), &encode(stored))?)
}

/// Reads the bytes of such a file and writes what they say again. For tools and tests: a file of this program
/// gives the same bytes.
///
/// # Errors
/// Why the bytes are refused.
pub fn recode(bytes: &[u8]) -> Result<Vec<u8>, String> {
    decode(bytes).map(|stored| encode(&stored))
}

fn encode(stored: &Stored) -> Vec<u8> {
    let state = snapshot::encode(&stored.state);
    let mut body = Vec::with_capacity(state.len() + 64);
    body.extend((state.len() as u64).to_le_bytes());
    body.extend(state);
    body.extend((stored.deleting.len() as u32).to_le_bytes());
    for name in &stored.deleting {
        body.extend((name.len() as u16).to_le_bytes());
        body.extend(name.as_bytes());
    }
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 2]);
    out.extend(crc32fast::hash(&body).to_le_bytes());
    out.extend(body);
    out
}

fn decode(bytes: &[u8]) -> Result<Stored, String> {
    let (head, body) = bytes.split_at_checked(HEADER_BYTES).ok_or("too short")?;
    if &head[..8] != MAGIC {
        return Err("it does not begin with its magic bytes".to_owned());
    }
    let version = u16::from_le_bytes([head[8], head[9]]);
    if version != VERSION {
        return Err(format!(
            "format version {version}; this program reads version {VERSION}"
        ));
    }
    if head[10..12] != [0; 2] {
        return Err("its reserved bytes are not zero".to_owned());
    }
    let crc = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
    let found = crc32fast::hash(body);
    if crc != found {
        return Err(format!("checksum is {found:08x}, not {crc:08x}"));
    }
    let (length, rest) = body.split_first_chunk::<8>().ok_or("no length")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| "length too large")?;
    let (state, rest) = rest
        .split_at_checked(length)
        .ok_or("the state is cut off")?;
    let state = snapshot::decode(state).map_err(|e| e.to_string())?;
    let (count, mut rest) = rest.split_first_chunk::<4>().ok_or("no deletions")?;
    let mut deleting = Vec::new();
    for _ in 0..u32::from_le_bytes(*count) {
        let (length, tail) = rest
            .split_first_chunk::<2>()
            .ok_or("the deletions are cut off")?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (name, tail) = tail
            .split_at_checked(length)
            .ok_or("the deletions are cut off")?;
        deleting.push(String::from_utf8(name.to_vec()).map_err(|e| e.to_string())?);
        rest = tail;
    }
    if rest.is_empty() {
        Ok(Stored { state, deleting })
    } else {
        Err("there are bytes left over".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Stored {
        Stored {
            state: State::default(),
            deleting: vec!["a-0123abcd".to_owned()],
        }
    }

    #[test]
    fn round_trip() {
        let back = decode(&encode(&stored())).unwrap();
        assert_eq!(back.deleting, stored().deleting);
    }

    /// Every later program must read this file as it reads it today. `UPDATE=1` writes it again, which only
    /// a new version of the state in it may ask for.
    #[test]
    fn the_golden_file_is_read_and_written_as_it_is() {
        let golden = include_bytes!("../testdata/metadata-1-2.bin");
        if std::env::var_os("UPDATE").is_some() {
            let old = decode(include_bytes!("../testdata/metadata-1.bin")).unwrap();
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/metadata-1-2.bin");
            std::fs::write(path, encode(&old)).unwrap();
        }
        let stored = decode(golden).unwrap();
        assert_eq!(stored.deleting, ["a-0123abcd"]);
        assert!(!stored.state.topics().is_empty());
        assert_eq!(encode(&stored), golden);
    }

    /// The file of a node from before nodes had epochs: its state is in version 1.
    #[test]
    fn the_file_of_an_older_node_opens() {
        let old = decode(include_bytes!("../testdata/metadata-1.bin")).unwrap();
        assert_eq!(old.deleting, ["a-0123abcd"]);
        let new = decode(&encode(&old)).unwrap();
        assert_eq!(new.state, old.state);
        for node in old.state.nodes().values() {
            assert_eq!(node.state, varve_metadata::NodeState::Active);
            assert_eq!(node.directory, varve_types::DirectoryId::UNKNOWN);
        }
        for topic in old.state.topics().values() {
            for partition in &topic.partitions {
                assert!(partition.leader.is_some() && partition.elr.is_empty());
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = encode(&stored());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..good.len() {
            assert!(decode(&good[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_damaged_file_stops_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let vfs = varve_vfs::RealVfs;
        assert!(load(&vfs, dir.path()).unwrap().is_none());
        store(&vfs, dir.path(), &stored()).unwrap();
        assert_eq!(load(&vfs, dir.path()).unwrap().unwrap().deleting.len(), 1);
        std::fs::write(dir.path().join("metadata"), b"garbage").unwrap();
        let error = load(&vfs, dir.path()).unwrap_err();
        assert!(error.to_string().contains("does not start"), "{error}");
    }
}
