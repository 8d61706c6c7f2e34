//! The small files that are replaced as a whole: manifest, leader epochs, snapshots. Each ends with a CRC-32
//! over all of its bytes.

use varve_types::{LeaderEpoch, Offset};

use super::{FormatError, LogIdentity, Reader, Writer, unseal};

pub(crate) const MANIFEST_MAGIC: &[u8; 8] = b"VARVEMAN";
pub(crate) const EPOCHS_MAGIC: &[u8; 8] = b"VARVEEPO";
const SNAPSHOT_MAGIC: &[u8; 8] = b"VARVESNP";

/// A segment as the manifest lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedSegment {
    /// Unique number of the segment in its log.
    pub id: u64,
    /// Offset of its first record: also the name of its files.
    pub base: Offset,
    /// When it was begun, in milliseconds since 1970.
    pub created_ms: i64,
}

/// What the log consists of. Files it does not list are leftovers, except a segment with an id of
/// `next_segment_id` or more that continues the log: that one was begun after the manifest was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// First offset that readers may see.
    pub log_start: Offset,
    /// Id of the next segment to be made.
    pub next_segment_id: u64,
    /// At least one, by base offset, ids and bases growing.
    pub segments: Vec<ListedSegment>,
}

impl Manifest {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self, identity: &LogIdentity) -> Vec<u8> {
        let mut w = Writer::file(*MANIFEST_MAGIC, identity);
        w.i64(self.log_start.get());
        w.u64(self.next_segment_id);
        w.u32(self.segments.len() as u32);
        w.u32(0);
        for segment in &self.segments {
            w.u64(segment.id);
            w.i64(segment.base.get());
            w.i64(segment.created_ms);
        }
        w.seal()
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`FormatError`] says what does not fit.
    pub fn decode(identity: &LogIdentity, bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = unseal(*MANIFEST_MAGIC, identity, bytes)?;
        let manifest = Self::fields(&mut r).ok_or(FormatError::Value(
            "fields are missing or reserved bytes are not 0",
        ))?;
        let rising = manifest
            .segments
            .windows(2)
            .all(|w| w[0].id < w[1].id && w[0].base < w[1].base);
        let known = manifest
            .segments
            .iter()
            .all(|s| s.id < manifest.next_segment_id);
        if manifest.segments.is_empty() || !rising || !known || !r.0.is_empty() {
            return Err(FormatError::Value("the list of segments makes no sense"));
        }
        Ok(manifest)
    }

    fn fields(r: &mut Reader<'_>) -> Option<Self> {
        let log_start = Offset::new(r.i64()?)?;
        let next_segment_id = r.u64()?;
        let count = r.u32()?;
        if r.u32()? != 0 {
            return None;
        }
        let mut segments = Vec::new();
        for _ in 0..count {
            let (id, base, created_ms) = (r.u64()?, Offset::new(r.i64()?)?, r.i64()?);
            segments.push(ListedSegment {
                id,
                base,
                created_ms,
            });
        }
        Some(Self {
            log_start,
            next_segment_id,
            segments,
        })
    }
}

/// The `leader-epoch` file: each epoch with the offset of its first record, both growing.
#[must_use]
pub fn encode_epochs(identity: &LogIdentity, epochs: &[(LeaderEpoch, Offset)]) -> Vec<u8> {
    let mut w = Writer::file(*EPOCHS_MAGIC, identity);
    w.u32(epochs.len() as u32);
    for (epoch, start) in epochs {
        w.i32(epoch.get());
        w.i64(start.get());
    }
    w.seal()
}

/// Reads a `leader-epoch` file.
///
/// # Errors
/// [`FormatError`] says what does not fit.
pub fn decode_epochs(
    identity: &LogIdentity,
    bytes: &[u8],
) -> Result<Vec<(LeaderEpoch, Offset)>, FormatError> {
    let mut r = unseal(*EPOCHS_MAGIC, identity, bytes)?;
    let fields = |r: &mut Reader<'_>| {
        let count = r.u32()?;
        let mut epochs = Vec::new();
        for _ in 0..count {
            epochs.push((LeaderEpoch::new(r.i32()?)?, Offset::new(r.i64()?)?));
        }
        Some(epochs)
    };
    let epochs = fields(&mut r).ok_or(FormatError::Value("fields are missing"))?;
    let rising = epochs
        .windows(2)
        .all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
    if !rising || !r.0.is_empty() {
        return Err(FormatError::Value("the list of epochs makes no sense"));
    }
    Ok(epochs)
}

/// A snapshot file: opaque bytes that describe the log up to `offset` (exclusive).
#[must_use]
pub fn encode_snapshot(identity: &LogIdentity, offset: Offset, payload: &[u8]) -> Vec<u8> {
    let mut w = Writer::file(*SNAPSHOT_MAGIC, identity);
    w.i64(offset.get());
    w.u64(payload.len() as u64);
    w.0.extend_from_slice(payload);
    w.seal()
}

/// Reads a snapshot file: its offset and its payload.
///
/// # Errors
/// [`FormatError`] says what does not fit.
pub fn decode_snapshot(
    identity: &LogIdentity,
    bytes: &[u8],
) -> Result<(Offset, Vec<u8>), FormatError> {
    let mut r = unseal(*SNAPSHOT_MAGIC, identity, bytes)?;
    let fields = (|| Some((Offset::new(r.i64()?)?, r.u64()?)))();
    let (offset, len) = fields.ok_or(FormatError::Value("fields are missing"))?;
    if len != r.0.len() as u64 {
        return Err(FormatError::Value("the length of the payload is wrong"));
    }
    Ok((offset, r.0.to_vec()))
}
