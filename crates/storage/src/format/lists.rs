//! The small files that are replaced as a whole: manifest, leader epochs, snapshots. Each ends with a CRC-32
//! over all of its bytes.

use varve_types::{LeaderEpoch, Offset};

use super::{FormatError, LogIdentity, MANIFEST_VERSION, Reader, VERSION, Writer, unseal};

pub(crate) const MANIFEST_MAGIC: &[u8; 8] = b"VARVEMAN";
pub(crate) const EPOCHS_MAGIC: &[u8; 8] = b"VARVEEPO";
const SNAPSHOT_MAGIC: &[u8; 8] = b"VARVESNP";

/// What the manifest says of a segment that a compaction wrote: its batches do not tell where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactedSegment {
    /// Offset after the last one that it stands for: where the next segment begins.
    pub end: Offset,
    /// Bytes of its `.log` file that belong to the log. The file may be longer after a crash.
    pub size: u64,
    /// When the first of its tombstones and markers may go, in milliseconds since 1970; `i64::MAX` when
    /// it has none that wait.
    pub horizon_ms: i64,
}

/// A segment as the manifest lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedSegment {
    /// Unique number of the segment in its log.
    pub id: u64,
    /// Offset of its first record: also the name of its files.
    pub base: Offset,
    /// When it was begun, in milliseconds since 1970.
    pub created_ms: i64,
    /// For a segment that a compaction wrote. Never the last.
    pub compacted: Option<CompactedSegment>,
}

/// What the log consists of. Files it does not list are leftovers, except a segment with an id of
/// `next_segment_id` or more that continues the log: that one was begun after the manifest was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// First offset that readers may see.
    pub log_start: Offset,
    /// Id of the next segment to be made.
    pub next_segment_id: u64,
    /// At least one, by base offset. Ids grow too, but for those of compacted segments.
    pub segments: Vec<ListedSegment>,
    /// Compaction is done below this offset.
    pub clean_upto: Offset,
    /// Leader epochs that begin in compacted segments, whose batches no longer tell.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
}

impl Manifest {
    /// The file's bytes: in the first version of the layout as long as nothing was ever compacted, so that
    /// the program before this one reads it.
    #[must_use]
    pub fn encode(&self, identity: &LogIdentity) -> Vec<u8> {
        let first = self.is_of_first_version();
        let version = if first { VERSION } else { MANIFEST_VERSION };
        let mut w = Writer::file_of(version, *MANIFEST_MAGIC, identity);
        w.i64(self.log_start.get());
        w.u64(self.next_segment_id);
        w.u32(self.segments.len() as u32);
        w.u32(self.epochs.len() as u32);
        if !first {
            w.i64(self.clean_upto.get());
        }
        for segment in &self.segments {
            w.u64(segment.id);
            w.i64(segment.base.get());
            w.i64(segment.created_ms);
            if !first {
                let compacted = segment.compacted;
                w.i64(compacted.map_or(-1, |c| c.end.get()));
                w.u64(compacted.map_or(0, |c| c.size));
                w.i64(compacted.map_or(i64::MAX, |c| c.horizon_ms));
            }
        }
        for (epoch, start) in &self.epochs {
            w.i32(epoch.get());
            w.i64(start.get());
        }
        w.seal()
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`FormatError`] says what does not fit.
    pub fn decode(identity: &LogIdentity, bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = unseal(*MANIFEST_MAGIC, identity, bytes)?;
        let version = Reader(bytes.get(8..).unwrap_or_default()).u32();
        let first = version == Some(VERSION);
        let manifest = Self::fields(&mut r, first).ok_or(FormatError::Value(
            "fields are missing or reserved bytes are not 0",
        ))?;
        if manifest.is_of_first_version() != first || !manifest.makes_sense() || !r.0.is_empty() {
            return Err(FormatError::Value("the list of segments is inconsistent"));
        }
        Ok(manifest)
    }

    /// Nothing was ever compacted.
    fn is_of_first_version(&self) -> bool {
        self.clean_upto == Offset::ZERO
            && self.epochs.is_empty()
            && self.segments.iter().all(|s| s.compacted.is_none())
    }

    fn makes_sense(&self) -> bool {
        let ordered = self.segments.windows(2).all(|w| {
            let plain = w[0].compacted.is_none() && w[1].compacted.is_none();
            let meets = w[0].compacted.is_none_or(|c| c.end == w[1].base);
            w[0].base < w[1].base && meets && (!plain || w[0].id < w[1].id)
        });
        let known = self.segments.iter().all(|s| s.id < self.next_segment_id);
        let grows = self.segments.last().is_some_and(|s| s.compacted.is_none());
        ordered && known && grows && rising(&self.epochs)
    }

    fn fields(r: &mut Reader<'_>, first: bool) -> Option<Self> {
        let log_start = Offset::new(r.i64()?)?;
        let next_segment_id = r.u64()?;
        let (count, epoch_count) = (r.u32()?, r.u32()?);
        let clean_upto = if first {
            // Reserved in that version.
            (epoch_count == 0).then_some(Offset::ZERO)?
        } else {
            Offset::new(r.i64()?)?
        };
        let mut segments = Vec::new();
        for _ in 0..count {
            let (id, base, created_ms) = (r.u64()?, Offset::new(r.i64()?)?, r.i64()?);
            let compacted = if first {
                None
            } else {
                match (r.i64()?, r.u64()?, r.i64()?) {
                    (-1, 0, i64::MAX) => None,
                    (end, size, horizon_ms) => Some(CompactedSegment {
                        end: Offset::new(end)?,
                        size,
                        horizon_ms,
                    }),
                }
            };
            segments.push(ListedSegment {
                id,
                base,
                created_ms,
                compacted,
            });
        }
        let mut epochs = Vec::new();
        for _ in 0..epoch_count {
            epochs.push((LeaderEpoch::new(r.i32()?)?, Offset::new(r.i64()?)?));
        }
        Some(Self {
            log_start,
            next_segment_id,
            segments,
            clean_upto,
            epochs,
        })
    }
}

fn rising(epochs: &[(LeaderEpoch, Offset)]) -> bool {
    epochs
        .windows(2)
        .all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1)
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
    if !rising(&epochs) || !r.0.is_empty() {
        return Err(FormatError::Value("the list of epochs is inconsistent"));
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
