//! Batches whose records have keys: of a plain producer, of a transactional one, and the marker that ends its
//! transaction.

use varve_record::{BatchBuilder, BatchHeader, Compression, Marker, Sequenced, seal};
use varve_types::{LeaderEpoch, ProducerId, Sequence};

use super::{Driver, NOW, Violation, offset};

/// Attribute bits of a batch.
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// A key and the size of its value; `None` deletes the key.
pub type Entry = (u8, Option<usize>);

impl Driver {
    fn built(&mut self, entries: &[Entry], codec: Compression) -> BatchBuilder {
        let at = self.end();
        let mut builder = BatchBuilder::new(codec, None);
        for (i, (key, size)) in entries.iter().enumerate() {
            let value =
                size.map(|size| -> Vec<u8> { (0..size).map(|_| self.rng.next() as u8).collect() });
            let key = format!("key {key}");
            let added = builder.append(
                NOW + at + i as i64,
                Some(key.as_bytes()),
                value.as_deref(),
                &[],
            );
            assert!(added.is_ok(), "a few records fit into a batch");
        }
        builder
    }

    /// Appends one batch of these records.
    ///
    /// # Errors
    /// A violation.
    pub fn put(&mut self, entries: &[Entry]) -> Result<(), Violation> {
        let codec = match self.rng.below(3) {
            0 => Compression::Lz4,
            _ => Compression::None,
        };
        let epoch = LeaderEpoch::new(self.books.epoch).unwrap_or_default();
        let built = self.built(entries, codec).build_batch();
        let batch = built.map_err(|e| e.to_string())?;
        let batch = batch.sequence(offset(self.end()), epoch);
        self.append_batches(&[batch])
    }

    /// Appends one batch of a transaction.
    ///
    /// # Errors
    /// A violation.
    pub fn put_in_transaction(
        &mut self,
        producer: i64,
        sequence: i32,
        entries: &[Entry],
    ) -> Result<(), Violation> {
        let mut made = self.built(entries, Compression::None);
        let id = ProducerId {
            id: producer,
            epoch: 0,
        };
        made.set_producer(id, Sequence::new(sequence).unwrap_or_default());
        let bytes = made.build().map_err(|e| e.to_string())?;
        let header = BatchHeader::parse(&bytes).map_err(|e| e.to_string())?;
        let header = BatchHeader {
            attributes: TRANSACTIONAL,
            ..header
        };
        self.append_sealed(header, &bytes[varve_record::HEADER_BYTES..])
    }

    /// Appends the marker that ends a transaction.
    ///
    /// # Errors
    /// A violation.
    pub fn end_transaction(&mut self, producer: i64, marker: Marker) -> Result<(), Violation> {
        let kind = match marker {
            Marker::Abort => 0,
            Marker::Commit => 1,
        };
        let mut made = BatchBuilder::new(Compression::None, None);
        let at = NOW + self.end();
        let added = made.append(at, Some(&[0, 0, 0, kind]), Some(&[0; 6]), &[]);
        assert!(added.is_ok(), "a marker fits into a batch");
        let bytes = made.build().map_err(|e| e.to_string())?;
        let header = BatchHeader::parse(&bytes).map_err(|e| e.to_string())?;
        let header = BatchHeader {
            attributes: TRANSACTIONAL | CONTROL,
            producer_id: producer,
            producer_epoch: 0,
            base_sequence: -1,
            ..header
        };
        self.append_sealed(header, &bytes[varve_record::HEADER_BYTES..])
    }

    fn append_sealed(&mut self, header: BatchHeader, body: &[u8]) -> Result<(), Violation> {
        let header = BatchHeader {
            base_offset: offset(self.end()),
            leader_epoch: LeaderEpoch::new(self.books.epoch).unwrap_or_default(),
            ..header
        };
        let batch = Sequenced::from_stored(&seal(header, body)).map_err(|e| e.to_string())?;
        self.append_batches(&[batch])
    }
}
