//! The checkpoint of a node's high watermarks, and of the run that stopped cleanly: `high-watermarks` in the
//! data directory. Layout, little endian: `VARVEHWM`, u16 version, u16 zero, u32 CRC-32 of all that follows;
//! then i64 broker epoch of a run that ended in a clean stop, or -1; u32 count; and for each partition its
//! topic id (16 bytes), i32 number, i64 high watermark.
//!
//! Invariants: a high watermark that is read is one the partition has had; an older one is safe, so the file
//! is replaced now and then and a damaged one counts for nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use varve_metadata::PartitionKey;
use varve_types::{BrokerEpoch, Offset, PartitionId, TopicId};
use varve_vfs::{Vfs, VfsError, durable};

const MAGIC: &[u8; 8] = b"VARVEHWM";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 28;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Watermarks {
    /// The run that stopped cleanly, if the last one did.
    pub(crate) clean: Option<BrokerEpoch>,
    pub(crate) partitions: BTreeMap<PartitionKey, Offset>,
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("high-watermarks")
}

/// Reads the file. None, or a damaged one, says nothing.
pub(crate) fn load(vfs: &dyn Vfs, data_dir: &Path) -> Watermarks {
    let path = path(data_dir);
    let read = || -> Result<Watermarks, String> {
        if !vfs.exists(&path).map_err(|e| e.to_string())? {
            return Ok(Watermarks::default());
        }
        decode(&vfs.read(&path).map_err(|e| e.to_string())?)
    };
    read().unwrap_or_else(|error| {
        tracing::warn!(
            file = %path.display(), error,
            "the saved high watermarks cannot be used; followers and consumers get them from the \
             leaders instead"
        );
        Watermarks::default()
    })
}

/// Replaces the file; durable when it returns.
pub(crate) fn store(vfs: &dyn Vfs, data_dir: &Path, marks: &Watermarks) -> Result<(), VfsError> {
    durable::replace(vfs, &path(data_dir), &encode(marks))
}

fn encode(marks: &Watermarks) -> Vec<u8> {
    let mut body = Vec::with_capacity(12 + marks.partitions.len() * ENTRY_BYTES);
    body.extend(marks.clean.map_or(-1, BrokerEpoch::get).to_le_bytes());
    body.extend((marks.partitions.len() as u32).to_le_bytes());
    for (key, offset) in &marks.partitions {
        body.extend(key.topic.0.to_le_bytes());
        body.extend(key.partition.0.to_le_bytes());
        body.extend(offset.get().to_le_bytes());
    }
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend([0; 2]);
    out.extend(crc32fast::hash(&body).to_le_bytes());
    out.extend(body);
    out
}

fn decode(bytes: &[u8]) -> Result<Watermarks, String> {
    let (head, body) = bytes.split_at_checked(HEADER_BYTES).ok_or("too short")?;
    if &head[..8] != MAGIC {
        return Err("it does not begin with its magic bytes".to_owned());
    }
    let version = u16::from_le_bytes([head[8], head[9]]);
    if version != VERSION || head[10..12] != [0; 2] {
        return Err(format!(
            "format version {version}; this program reads version {VERSION}"
        ));
    }
    let (crc, found) = (
        u32::from_le_bytes([head[12], head[13], head[14], head[15]]),
        crc32fast::hash(body),
    );
    if crc != found {
        return Err(format!("checksum is {found:08x}, not {crc:08x}"));
    }
    let (clean, rest) = body.split_first_chunk::<8>().ok_or("no epoch")?;
    let clean = match i64::from_le_bytes(*clean) {
        -1 => None,
        epoch => Some(BrokerEpoch::new(epoch).ok_or("an epoch out of range")?),
    };
    let (count, rest) = rest.split_first_chunk::<4>().ok_or("no count")?;
    if rest.len() as u64 != u64::from(u32::from_le_bytes(*count)) * ENTRY_BYTES as u64 {
        return Err("its length does not match its count".to_owned());
    }
    let mut partitions = BTreeMap::new();
    for entry in rest.chunks_exact(ENTRY_BYTES) {
        let (topic, entry) = entry.split_first_chunk::<16>().ok_or("cut short")?;
        let (number, entry) = entry.split_first_chunk::<4>().ok_or("cut short")?;
        let (offset, _) = entry.split_first_chunk::<8>().ok_or("cut short")?;
        let key = PartitionKey {
            topic: TopicId(u128::from_le_bytes(*topic)),
            partition: PartitionId(i32::from_le_bytes(*number)),
        };
        let offset = Offset::new(i64::from_le_bytes(*offset)).ok_or("a negative offset")?;
        if partitions.insert(key, offset).is_some() {
            return Err("a partition is named twice".to_owned());
        }
    }
    Ok(Watermarks { clean, partitions })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Watermarks {
        let entry = |topic: u128, partition, offset| {
            let key = PartitionKey {
                topic: TopicId(topic),
                partition: PartitionId(partition),
            };
            (key, Offset::new(offset).unwrap())
        };
        Watermarks {
            clean: BrokerEpoch::new(7),
            partitions: [
                entry(1, 0, 42),
                entry(1, 3, 0),
                entry(u128::MAX, 1, 1 << 40),
            ]
            .into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for marks in [Watermarks::default(), marks()] {
            assert_eq!(decode(&encode(&marks)).unwrap(), marks);
        }
    }

    #[test]
    fn the_golden_file_is_read_and_written_as_it_is() {
        let golden = include_bytes!("../../testdata/high-watermarks-1.bin");
        assert_eq!(decode(golden).unwrap(), marks());
        assert_eq!(encode(&marks()), golden);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = encode(&marks());
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
    fn a_damaged_file_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let vfs = varve_vfs::RealVfs;
        assert_eq!(load(&vfs, dir.path()), Watermarks::default());
        store(&vfs, dir.path(), &marks()).unwrap();
        assert_eq!(load(&vfs, dir.path()), marks());
        std::fs::write(path(dir.path()), b"nonsense").unwrap();
        assert_eq!(load(&vfs, dir.path()), Watermarks::default());
    }
}
