//! A partition's directory as one run of bytes, so that a fuzzer can change any file of it: a byte of flags,
//! then for each file its number, its length (16 bits, little-endian) and its content.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_storage::LogIdentity;
use varve_types::{PartitionId, TopicId};
use varve_vfs::mem::MemVfs;
use varve_vfs::{File, Vfs};

use super::records::with_right_frame;

/// The last run says that it ended cleanly.
pub const CLEAN: u8 = 1;
/// Checksums are made right before the files are looked at.
pub const SEAL: u8 = 2;

/// Names that files of an image have, by number. The segments are those of the golden logs.
pub const NAMES: [&str; 20] = [
    "00000000000000000000.log",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "manifest",
    "leader-epoch",
    "00000000000000000024.snapshot",
    "00000000000000000021.log",
    "00000000000000000021.index",
    "00000000000000000021.timeindex",
    "00000000000000000024.log",
    "00000000000000000024.index",
    "manifest.tmp",
    "00000000000000000000.log.0.deleted",
    "99999999999999999999.snapshot",
    "00000000000000000000-2.log",
    "00000000000000000000-2.index",
    "00000000000000000000-2.timeindex",
    "00000000000000000006.log",
    "00000000000000000006.index",
    "00000000000000000006.timeindex",
];

/// The number of the first file of the compacted segment; the log has gaps only if it has that one.
pub const COMPACTED: u8 = 14;

/// Whose log every image is.
#[must_use]
pub const fn identity() -> LogIdentity {
    LogIdentity {
        topic_id: TopicId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        partition: PartitionId(3),
    }
}

/// Where it lies.
#[must_use]
pub fn dir() -> PathBuf {
    PathBuf::from("/data/topics/t-00112233/3")
}

/// An image in parts.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// [`CLEAN`], [`SEAL`].
    pub flags: u8,
    /// Content by number of the name.
    pub files: Vec<(u8, Vec<u8>)>,
}

impl Image {
    /// Takes bytes apart; what does not fit ends the list.
    #[must_use]
    pub fn parse(data: &[u8]) -> Self {
        let Some((flags, mut rest)) = data.split_first() else {
            return Self::default();
        };
        let mut files = Vec::new();
        while let Some(([name, low, high], tail)) = rest.split_first_chunk::<3>() {
            let length = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
            let (content, tail) = tail.split_at(length);
            files.push((name % NAMES.len() as u8, content.to_vec()));
            rest = tail;
        }
        Self {
            flags: *flags,
            files,
        }
    }

    /// The bytes of an image.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.flags];
        for (name, content) in &self.files {
            out.push(*name);
            let length = u16::try_from(content.len()).expect("files of an image are small");
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(content);
        }
        out
    }

    /// Whether offsets may be missing.
    #[must_use]
    pub fn has_gaps(&self) -> bool {
        self.files.iter().any(|(name, _)| *name == COMPACTED)
    }

    /// A disk in memory with the image on it.
    #[must_use]
    pub fn mount(&self) -> (MemVfs, Arc<dyn Vfs>) {
        let disk = MemVfs::new();
        let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
        vfs.create_dir_all(&dir()).unwrap();
        for (name, content) in &self.files {
            let name = NAMES[usize::from(*name)];
            let content = if self.flags & SEAL == 0 {
                content.clone()
            } else {
                with_right_checksums(name, content)
            };
            put(&*vfs, &dir().join(name), &content);
        }
        (disk, vfs)
    }
}

/// Replaces a file's content.
pub fn put(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) {
    let file: Arc<dyn File> = if vfs.exists(path).unwrap() {
        vfs.open_write(path).unwrap()
    } else {
        vfs.create_new(path).unwrap()
    };
    file.set_len(0).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(bytes)], 0)
        .unwrap();
}

/// The bytes with the prefix of a file of this log, and a checksum at the end that is right.
#[must_use]
pub fn sealed(magic: [u8; 8], data: &[u8]) -> Vec<u8> {
    const PREFIX: usize = 32;
    if data.len() < PREFIX + 4 {
        return data.to_vec();
    }
    let mut bytes = data.to_vec();
    bytes[..8].copy_from_slice(&magic);
    // A manifest may be of the second version.
    if bytes[8] != 2 {
        bytes[8] = 1;
    }
    bytes[9..12].fill(0);
    bytes[12..28].copy_from_slice(&identity().topic_id.0.to_be_bytes());
    bytes[28..32].copy_from_slice(&identity().partition.0.to_le_bytes());
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// An index file whose header and entries all have right checksums.
#[must_use]
pub fn sealed_index(magic: [u8; 8], entry_bytes: usize, data: &[u8]) -> Vec<u8> {
    const HEADER: usize = 64;
    if data.len() < HEADER {
        return data.to_vec();
    }
    let mut bytes = sealed(magic, &data[..HEADER]);
    let segment_id = bytes[32..40].to_vec();
    for (number, entry) in data[HEADER..].chunks(entry_bytes).enumerate() {
        let mut entry = entry.to_vec();
        if entry.len() == entry_bytes {
            let body = entry_bytes - 4;
            let mut crc = crc32fast::Hasher::new();
            crc.update(&segment_id);
            crc.update(&(number as u32).to_le_bytes());
            crc.update(&entry[..body]);
            entry[body..].copy_from_slice(&crc.finalize().to_le_bytes());
        }
        bytes.extend_from_slice(&entry);
    }
    bytes
}

/// Batches back to back, each with a checksum that is right for as long as their lengths make sense.
fn sealed_batches(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut rest = data;
    while rest.len() >= 61 {
        let length = i32::from_be_bytes([rest[8], rest[9], rest[10], rest[11]]);
        let size = usize::try_from(i64::from(length) + 12).unwrap_or(0);
        if !(61..=rest.len()).contains(&size) {
            break;
        }
        let (batch, tail) = rest.split_at(size);
        out.extend_from_slice(&with_right_frame(batch));
        rest = tail;
    }
    out.extend_from_slice(rest);
    out
}

fn with_right_checksums(name: &str, content: &[u8]) -> Vec<u8> {
    match name.rsplit('.').next().unwrap_or_default() {
        "log" => sealed_batches(content),
        "index" => sealed_index(*b"VARVEIDX", 64, content),
        "timeindex" => sealed_index(*b"VARVETIX", 24, content),
        "manifest" => sealed(*b"VARVEMAN", content),
        "leader-epoch" => sealed(*b"VARVEEPO", content),
        "snapshot" => sealed(*b"VARVESNP", content),
        _ => content.to_vec(),
    }
}
