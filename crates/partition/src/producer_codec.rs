//! The producer table as bytes and back: the payload of a partition's snapshot. See `FORMAT.md`.
//!
//! Invariants: decoding is total (an error, never a panic, never more memory than a multiple of the input), and
//! what is decoded encodes to the same bytes. The file that holds them adds checksum and identity.

use std::collections::VecDeque;

use varve_types::{Offset, Sequence, limits};

use crate::producer_state::{ProducerTable, Remembered, Session};

/// Why a snapshot cannot be used. It is derivable: read the log instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Shorter than its own lengths say, or with a value out of range.
    #[error("producer snapshot is damaged at byte {at}")]
    Damaged {
        /// Where.
        at: usize,
    },
    /// Made by another version.
    #[error("producer snapshot has version {found}; this program reads version {VERSION}")]
    Version {
        /// Found.
        found: u16,
    },
}

/// Version of the snapshot's bytes.
const VERSION: u16 = 1;

impl ProducerTable {
    /// Bytes for a snapshot: version, count, then each session, little-endian. The file that holds them
    /// adds checksum and identity.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(6 + self.sessions.len() * 120);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.sessions.len() as u32).to_le_bytes());
        for (id, session) in &self.sessions {
            out.extend(id.to_le_bytes());
            out.extend(session.epoch.to_le_bytes());
            out.extend(session.last_used_ms.to_le_bytes());
            out.push(session.batches.len() as u8);
            for batch in &session.batches {
                out.extend(batch.first.get().to_le_bytes());
                out.extend(batch.base_offset.get().to_le_bytes());
                out.extend(batch.records.to_le_bytes());
            }
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`SnapshotError`]; the caller then rebuilds the table from the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut r = Reader { bytes, at: 0 };
        let found = u16::from_le_bytes(r.take()?);
        if found != VERSION {
            return Err(SnapshotError::Version { found });
        }
        let count = u32::from_le_bytes(r.take()?);
        let mut table = Self::default();
        for _ in 0..count {
            let id = i64::from_le_bytes(r.take()?);
            let epoch = i16::from_le_bytes(r.take()?);
            let last_used_ms = i64::from_le_bytes(r.take()?);
            let [batches] = r.take()?;
            let mut session = Session {
                epoch,
                last_used_ms,
                batches: VecDeque::new(),
            };
            for _ in 0..batches {
                let first = Sequence::new(i32::from_le_bytes(r.take()?)).ok_or(r.damaged())?;
                let base = Offset::new(i64::from_le_bytes(r.take()?)).ok_or(r.damaged())?;
                let records = u32::from_le_bytes(r.take()?);
                session.batches.push_back(Remembered {
                    first,
                    base_offset: base,
                    records,
                });
            }
            // Ascending, each once: a table has exactly one encoding.
            let rising = table
                .sessions
                .last_key_value()
                .is_none_or(|(last, _)| *last < id);
            let known = session.batches.len() <= limits::PRODUCER_BATCHES_REMEMBERED;
            if epoch < 0 || !rising || !known {
                return Err(r.damaged());
            }
            table.sessions.insert(id, session);
        }
        if r.at == bytes.len() {
            Ok(table)
        } else {
            Err(r.damaged())
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let end = self.at + N;
        let slice = self.bytes.get(self.at..end).ok_or(self.damaged())?;
        self.at = end;
        slice.try_into().map_err(|_| self.damaged())
    }

    const fn damaged(&self) -> SnapshotError {
        SnapshotError::Damaged { at: self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every later program must read these bytes as it reads them today.
    #[test]
    fn the_golden_snapshot_is_read_and_written_as_it_is() {
        let golden = include_bytes!("../testdata/producers-1.bin");
        let table = ProducerTable::decode(golden).unwrap();
        assert_eq!((table.len(), table.encode()), (2, golden.to_vec()));
    }

    #[test]
    fn sessions_out_of_order_or_there_twice_are_refused() {
        let session = |id: i64| {
            let mut bytes = id.to_le_bytes().to_vec();
            bytes.extend([0; 11]);
            bytes
        };
        let table = |ids: [i64; 2]| {
            let mut bytes = VERSION.to_le_bytes().to_vec();
            bytes.extend(2_u32.to_le_bytes());
            ids.iter().for_each(|id| bytes.extend(session(*id)));
            bytes
        };
        assert!(ProducerTable::decode(&table([3, 7])).is_ok());
        for ids in [[7, 3], [7, 7]] {
            assert!(ProducerTable::decode(&table(ids)).is_err(), "{ids:?}");
        }
    }
}
