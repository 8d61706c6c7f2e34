//! The file that remembers how far the scrub has come: `<data>/scrub`.
//!
//! The layout is in `FORMAT.md`.
//!
//! Invariant: only a hint. A file that is missing, damaged or of another version counts as none: a new pass
//! begins, and finds what there is to find. It is written without a sync.

use std::path::{Path, PathBuf};

use varve_types::{Offset, PartitionId, TopicId};
use varve_vfs::{Vfs, VfsError, durable};

const MAGIC: &[u8; 8] = b"VRVSCRB\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
/// Damaged places that are remembered.
const REMEMBERED: usize = 1_000;

/// A place in the order of the scrub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
    /// The segment; `None` for the files beside the segments, which come first.
    pub(crate) base: Option<Offset>,
}

impl Place {
    /// Where every pass begins.
    pub(crate) const FIRST: Self = Self {
        topic: TopicId(0),
        partition: PartitionId(0),
        base: None,
    };
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) pass_began_ms: i64,
    pub(crate) pass_bytes: u64,
    pub(crate) pass_damage: u64,
    /// What is looked at next.
    pub(crate) next: Place,
    pub(crate) last_pass_ms: Option<i64>,
    /// Damaged records, to be looked at first after a start.
    pub(crate) damaged: Vec<(TopicId, PartitionId, Offset)>,
}

impl Progress {
    /// Before the first pass.
    pub(crate) fn new(now_ms: i64) -> Self {
        Self {
            pass_began_ms: now_ms,
            pass_bytes: 0,
            pass_damage: 0,
            next: Place::FIRST,
            last_pass_ms: None,
            damaged: Vec::new(),
        }
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("scrub")
}

/// Reads the file; anything that is not right about it counts as no file.
pub(crate) fn load(vfs: &dyn Vfs, data_dir: &Path) -> Option<Progress> {
    let path = path(data_dir);
    match vfs.read(&path) {
        Ok(bytes) => {
            let progress = decode(&bytes);
            if progress.is_none() {
                tracing::warn!(
                    file = %path.display(),
                    "cannot read the saved position of the scrub; starting a new pass"
                );
            }
            progress
        }
        Err(error) => {
            if !error.is_not_found() {
                tracing::warn!(%error, "starting a new scrub pass");
            }
            None
        }
    }
}

/// Replaces the file.
pub(crate) fn store(vfs: &dyn Vfs, data_dir: &Path, progress: &Progress) -> Result<(), VfsError> {
    durable::replace_unsynced(vfs, &path(data_dir), &encode(progress))
}

/// Reads the bytes of such a file and writes what they say again. For tools and tests: a file of this program
/// gives the same bytes. `None` when they count as no file.
#[must_use]
pub fn recode(bytes: &[u8]) -> Option<Vec<u8>> {
    decode(bytes).map(|progress| encode(&progress))
}

fn encode(p: &Progress) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    body.extend(p.pass_began_ms.to_le_bytes());
    body.extend(p.pass_bytes.to_le_bytes());
    body.extend(p.pass_damage.to_le_bytes());
    body.extend(p.next.topic.0.to_be_bytes());
    body.extend(p.next.partition.0.to_le_bytes());
    body.extend(p.next.base.map_or(-1, Offset::get).to_le_bytes());
    body.extend(p.last_pass_ms.unwrap_or(-1).to_le_bytes());
    let damaged = &p.damaged[..p.damaged.len().min(REMEMBERED)];
    body.extend((damaged.len() as u32).to_le_bytes());
    for (topic, partition, offset) in damaged {
        body.extend(topic.0.to_be_bytes());
        body.extend(partition.0.to_le_bytes());
        body.extend(offset.get().to_le_bytes());
    }
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(crc32fast::hash(&body).to_le_bytes());
    out.extend(body);
    out
}

/// Takes fields from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn place(&mut self) -> Option<(TopicId, PartitionId)> {
        let topic = TopicId(self.array().map(u128::from_be_bytes)?);
        Some((topic, PartitionId(self.array().map(i32::from_le_bytes)?)))
    }
}

fn decode(bytes: &[u8]) -> Option<Progress> {
    let (head, body) = bytes.split_at_checked(HEADER_BYTES)?;
    let mut head = Fields(head);
    let known = head.array::<8>()? == *MAGIC && head.u32()? == VERSION;
    if !known || head.u32()? != crc32fast::hash(body) {
        return None;
    }
    let mut f = Fields(body);
    let (pass_began_ms, pass_bytes, pass_damage) = (f.i64()?, f.u64()?, f.u64()?);
    let (topic, partition) = f.place()?;
    let base = match f.i64()? {
        -1 => None,
        base => Some(Offset::new(base)?),
    };
    let last_pass_ms = match f.i64()? {
        -1 => None,
        ms => Some(ms).filter(|ms| *ms >= 0).map(Some)?,
    };
    let count = f.u32()?;
    if count as usize > REMEMBERED {
        return None;
    }
    let mut damaged = Vec::new();
    for _ in 0..count {
        let (topic, partition) = f.place()?;
        damaged.push((topic, partition, Offset::new(f.i64()?)?));
    }
    f.0.is_empty().then_some(Progress {
        pass_began_ms,
        pass_bytes,
        pass_damage,
        next: Place {
            topic,
            partition,
            base,
        },
        last_pass_ms,
        damaged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use varve_vfs::mem::MemVfs;

    fn progress() -> Progress {
        Progress {
            pass_began_ms: 1_700_000_000_000,
            pass_bytes: 77,
            pass_damage: 2,
            next: Place {
                topic: TopicId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
                partition: PartitionId(3),
                base: Offset::new(500),
            },
            last_pass_ms: Some(5),
            damaged: vec![(TopicId(9), PartitionId(1), Offset::ZERO)],
        }
    }

    #[test]
    fn round_trips_and_layout() {
        for p in [progress(), Progress::new(8)] {
            assert_eq!(decode(&encode(&p)), Some(p));
        }
        let bytes = encode(&progress());
        assert_eq!(bytes.len(), 16 + 24 + 28 + 8 + 4 + 28);
        assert_eq!(&bytes[..12], b"VRVSCRB\0\x01\0\0\0");
        assert_eq!(bytes[40..56], progress().next.topic.0.to_be_bytes());
    }

    /// Every later program must read this file as it reads it today.
    #[test]
    fn the_golden_file_is_read_and_written_as_it_is() {
        let golden = include_bytes!("../testdata/scrub-1.bin");
        assert_eq!(decode(golden), Some(progress()));
        assert_eq!(recode(golden).as_deref(), Some(&golden[..]));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_counts_as_no_file() {
        let good = encode(&progress());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        for cut in 0..good.len() {
            assert_eq!(decode(&good[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_file_that_is_not_understood_is_none() {
        let (vfs, dir) = (MemVfs::new(), Path::new("/d"));
        durable::create_dir_all(&vfs, dir).unwrap();
        assert_eq!(load(&vfs, dir), None);
        store(&vfs, dir, &progress()).unwrap();
        assert_eq!(load(&vfs, dir), Some(progress()));
        durable::replace(&vfs, &path(dir), b"garbage").unwrap();
        assert_eq!(load(&vfs, dir), None);
    }
}
