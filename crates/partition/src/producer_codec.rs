//! The producer table as bytes and back: the payload of a partition's snapshot. See `FORMAT.md`.
//!
//! Invariants: decoding is total (an error, never a panic, never more memory than a multiple of the input), and
//! what is decoded from the current version encodes to the same bytes. The file that holds them adds checksum
//! and identity.

use std::collections::BTreeMap;

use varve_types::{Offset, Sequence, limits};

use crate::producer_state::{ProducerTable, Remembered, Session};
use crate::transactions::{Aborted, Transactions};

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
    #[error(
        "producer snapshot has version {found}; this program reads versions {OLDEST} to {VERSION}"
    )]
    Version {
        /// Found.
        found: u16,
    },
}

/// Version of the snapshot's bytes.
const VERSION: u16 = 3;
/// Oldest that is read: it knows of no transactions, and there were none.
const OLDEST: u16 = 1;

impl ProducerTable {
    /// Bytes for a snapshot: version, sessions, transactions, little-endian. The file that holds them adds
    /// checksum and identity.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(14 + self.sessions.len() * 140);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.sessions.len() as u32).to_le_bytes());
        for (id, session) in &self.sessions {
            encode_session(*id, session, &mut out);
        }
        let (ending, aborted) = (self.transactions.ending(), self.transactions.all_aborted());
        out.extend((ending.len() as u32).to_le_bytes());
        for (marker, first) in ending {
            out.extend(marker.get().to_le_bytes());
            out.extend(first.get().to_le_bytes());
        }
        out.extend((aborted.len() as u32).to_le_bytes());
        for transaction in aborted {
            out.extend(transaction.producer.to_le_bytes());
            out.extend(transaction.first.get().to_le_bytes());
            out.extend(transaction.last.get().to_le_bytes());
        }
        out
    }

    /// Reads what [`Self::encode`] wrote, or an older program.
    ///
    /// # Errors
    /// [`SnapshotError`]; the caller then rebuilds the table from the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut r = Reader { bytes, at: 0 };
        let version = u16::from_le_bytes(r.take()?);
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(SnapshotError::Version { found: version });
        }
        let count = u32::from_le_bytes(r.take()?);
        let mut sessions: BTreeMap<i64, Session> = BTreeMap::new();
        for _ in 0..count {
            let (id, session) = r.session(version)?;
            // Ascending, each once: a table has exactly one encoding.
            if sessions
                .last_key_value()
                .is_some_and(|(last, _)| *last >= id)
            {
                return Err(r.damaged());
            }
            sessions.insert(id, session);
        }
        let (mut ending, mut aborted) = (Vec::new(), Vec::new());
        if version >= 2 {
            for _ in 0..u32::from_le_bytes(r.take()?) {
                ending.push((r.offset()?, r.offset()?));
            }
            for _ in 0..u32::from_le_bytes(r.take()?) {
                aborted.push(Aborted {
                    producer: i64::from_le_bytes(r.take()?),
                    first: r.offset()?,
                    last: r.offset()?,
                });
            }
        }
        let open = sessions.values().filter_map(|session| session.open);
        let transactions = Transactions::new(open, ending, aborted).ok_or(r.damaged())?;
        if r.at == bytes.len() {
            Ok(Self::restored(sessions, transactions))
        } else {
            Err(r.damaged())
        }
    }
}

fn encode_session(id: i64, session: &Session, out: &mut Vec<u8>) {
    let optional = |offset: Option<Offset>| offset.map_or(-1, Offset::get);
    out.extend(id.to_le_bytes());
    out.extend(session.epoch.to_le_bytes());
    out.extend(session.last_used_ms.to_le_bytes());
    out.extend(optional(session.open).to_le_bytes());
    out.extend(optional(session.marker).to_le_bytes());
    out.extend(session.coordinator_epoch.to_le_bytes());
    out.extend(session.number.to_le_bytes());
    out.push(session.batches.len() as u8);
    for batch in &session.batches {
        out.extend(batch.first.get().to_le_bytes());
        out.extend(batch.base_offset.get().to_le_bytes());
        out.extend(batch.records.to_le_bytes());
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

    fn offset(&mut self) -> Result<Offset, SnapshotError> {
        self.optional()?.ok_or(self.damaged())
    }

    fn optional(&mut self) -> Result<Option<Offset>, SnapshotError> {
        match i64::from_le_bytes(self.take()?) {
            -1 => Ok(None),
            raw => Offset::new(raw).map(Some).ok_or(self.damaged()),
        }
    }

    fn session(&mut self, version: u16) -> Result<(i64, Session), SnapshotError> {
        let id = i64::from_le_bytes(self.take()?);
        let epoch = i16::from_le_bytes(self.take()?);
        let mut session = Session::new(epoch, i64::from_le_bytes(self.take()?));
        if version >= 2 {
            session.open = self.optional()?;
            session.marker = self.optional()?;
            session.coordinator_epoch = i32::from_le_bytes(self.take()?);
        }
        if version >= 3 {
            session.number = i64::from_le_bytes(self.take()?);
        }
        let [batches] = self.take()?;
        for _ in 0..batches {
            let first = Sequence::new(i32::from_le_bytes(self.take()?)).ok_or(self.damaged())?;
            session.batches.push_back(Remembered {
                first,
                base_offset: self.offset()?,
                records: u32::from_le_bytes(self.take()?),
            });
        }
        let known = session.batches.len() <= limits::PRODUCER_BATCHES_REMEMBERED;
        let counted = session.coordinator_epoch >= -1 && session.number >= 0;
        if epoch < 0 || !known || !counted {
            return Err(self.damaged());
        }
        Ok((id, session))
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
    fn the_golden_snapshot_of_version_1_is_read() {
        let golden = include_bytes!("../testdata/producers-1.bin");
        let table = ProducerTable::decode(golden).unwrap();
        assert_eq!((table.len(), table.open_count()), (2, 0));
        let again = ProducerTable::decode(&table.encode()).unwrap();
        assert_eq!(again, table);
    }

    #[test]
    fn the_golden_snapshot_of_version_2_is_read() {
        let golden = include_bytes!("../testdata/producers-2.bin");
        let table = ProducerTable::decode(golden).unwrap();
        assert_eq!((table.len(), table.open_count()), (3, 1));
        assert!(table.sessions.values().all(|session| session.number == 0));
        let again = ProducerTable::decode(&table.encode()).unwrap();
        assert_eq!(again, table);
    }

    #[test]
    fn the_golden_snapshot_is_read_and_written_as_it_is() {
        let golden = include_bytes!("../testdata/producers-3.bin");
        let table = ProducerTable::decode(golden).unwrap();
        assert_eq!((table.len(), table.open_count()), (3, 1));
        assert_eq!(table.encode(), golden.to_vec());
        let numbers: Vec<_> = table.sessions.values().map(|s| s.number).collect();
        assert_eq!(numbers, [0, 3, 0]);
        let o = |n| Offset::new(n).unwrap();
        let aborted = Aborted {
            producer: 7,
            first: o(2),
            last: o(6),
        };
        let found: Vec<_> = table.aborted(o(0), o(100)).collect();
        assert_eq!(found, [&aborted]);
        assert_eq!(table.clone().stable_below(o(9)), o(4), "its marker is at 9");
        assert_eq!(table.clone().stable_below(o(20)), o(10), "open");
    }

    fn session(id: i64, open: i64) -> Vec<u8> {
        let mut bytes = id.to_le_bytes().to_vec();
        bytes.extend([0; 10]);
        bytes.extend(open.to_le_bytes());
        bytes.extend((-1_i64).to_le_bytes());
        bytes.extend((-1_i32).to_le_bytes());
        bytes.extend(0_i64.to_le_bytes());
        bytes.push(0);
        bytes
    }

    fn table(sessions: [(i64, i64); 2], ending: &[[i64; 2]], aborted: &[[i64; 3]]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        bytes.extend(2_u32.to_le_bytes());
        for (id, open) in sessions {
            bytes.extend(session(id, open));
        }
        bytes.extend((ending.len() as u32).to_le_bytes());
        bytes.extend(ending.as_flattened().iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend((aborted.len() as u32).to_le_bytes());
        bytes.extend(aborted.as_flattened().iter().flat_map(|n| n.to_le_bytes()));
        bytes
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let good = ProducerTable::decode(&table([(3, 5), (7, -1)], &[[9, 8]], &[[7, 1, 2]]));
        assert!(good.is_ok(), "{good:?}");
        type Transactions<'a> = (&'a [[i64; 2]], &'a [[i64; 3]]);
        let cases: [([(i64, i64); 2], Transactions<'_>); 9] = [
            ([(7, -1), (3, -1)], (&[], &[])),
            ([(7, -1), (7, -1)], (&[], &[])),
            ([(3, -2), (7, -1)], (&[], &[])),
            ([(3, 5), (7, 5)], (&[], &[])),
            ([(3, 5), (7, -1)], (&[[9, 5]], &[])),
            ([(3, -1), (7, -1)], (&[[9, 5], [9, 6]], &[])),
            ([(3, -1), (7, -1)], (&[[5, 5]], &[])),
            ([(3, -1), (7, -1)], (&[], &[[7, 3, 2]])),
            ([(3, -1), (7, -1)], (&[], &[[7, 1, 5], [7, 3, 4]])),
        ];
        for (sessions, (ending, aborted)) in cases {
            let bytes = table(sessions, ending, aborted);
            let decoded = ProducerTable::decode(&bytes);
            assert!(decoded.is_err(), "{sessions:?} {ending:?} {aborted:?}");
        }
    }

    #[test]
    fn other_versions_are_an_error_that_says_so() {
        for found in [0, 4] {
            let mut bytes = table([(3, -1), (7, -1)], &[], &[]);
            bytes[..2].copy_from_slice(&u16::to_le_bytes(found));
            let error = ProducerTable::decode(&bytes).unwrap_err();
            assert_eq!(error, SnapshotError::Version { found });
            assert!(error.to_string().contains("reads versions 1 to 3"));
        }
    }
}
