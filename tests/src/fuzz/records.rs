//! Record batches: what a client sends, and what lies in a log.

use bytes::Bytes;
use varve_record::{
    BatchHeader, HEADER_BYTES, StoredBatch, Unverified, VerifyLimits, check_stored, iter_batches,
};
use varve_types::{LeaderEpoch, Offset, limits};

/// Bytes before the ones that the checksum covers.
const CRC_AT: usize = 17;
const COVERED_FROM: usize = 21;

/// Arbitrary bytes as a batch of a client and as a run of stored batches.
///
/// # Panics
/// When a property is broken.
pub fn batch(data: &[u8]) {
    stored(data);
    verified(data);
    let whole = with_right_frame(data);
    stored(&whole);
    verified(&whole);
}

/// The same bytes with magic, length and checksum of one whole batch.
#[must_use]
pub fn with_right_frame(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if bytes.len() < HEADER_BYTES {
        return bytes;
    }
    let length = i32::try_from(bytes.len() - 12).unwrap_or(i32::MAX);
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    let crc = varve_record::crc::crc32c(&bytes[COVERED_FROM..]);
    bytes[CRC_AT..COVERED_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn stored(data: &[u8]) {
    if let Ok(header) = BatchHeader::parse(data) {
        let encoded = header.encode();
        // A producer does not know the leader's epoch; anything below zero reads as the first one.
        let mut expected = data[..HEADER_BYTES].to_vec();
        expected[12..16].copy_from_slice(&encoded[12..16]);
        assert_eq!(encoded[..], expected[..], "a header encodes as it was read");
        assert!(header.next_offset() > header.base_offset);
        assert!((HEADER_BYTES..=limits::BATCH_MAX_BYTES).contains(&header.size()));
    }
    let mut taken = 0;
    for found in iter_batches(Bytes::copy_from_slice(data)) {
        let Ok(found) = found else { break };
        taken += found.bytes.len();
        let whole = found.verify_crc().is_ok();
        assert_eq!(check_stored(&found.bytes).is_ok(), whole);
        if whole {
            walk(&found);
        }
    }
    assert!(taken <= data.len());
}

/// Reads every record; a payload unpacks to no more than the limit.
fn walk(batch: &StoredBatch) {
    let Ok(mut records) = batch.records() else {
        return;
    };
    let (mut bytes, mut count) = (0_usize, 0_i64);
    while let Some(Ok(record)) = records.next_ref() {
        bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        count += 1;
    }
    assert!(bytes <= limits::DECOMPRESSED_MAX_BYTES, "{bytes} bytes");
    assert!(count <= i64::from(batch.header.record_count), "{count}");
}

fn verified(data: &[u8]) {
    let limits = VerifyLimits::default();
    let Ok(batch) = Unverified(Bytes::copy_from_slice(data)).verify(&limits) else {
        return;
    };
    assert_eq!(batch.bytes(), data, "a verified batch is what was sent");
    let mut seen = 0;
    for record in batch.records().expect("its payload was unpacked before") {
        let record = record.expect("every record was checked");
        assert!(record.timestamp >= batch.min_timestamp());
        assert!(record.timestamp <= batch.max_timestamp());
        seen += 1;
    }
    assert_eq!(seen, batch.record_count());
    let (base, epoch) = (Offset::new(1 << 40).unwrap(), LeaderEpoch::new(7).unwrap());
    let placed = batch.sequence(base, epoch);
    let bytes = placed.to_bytes();
    let header = check_stored(&bytes).expect("a place in the log does not break the checksum");
    assert_eq!((header.base_offset, header.leader_epoch), (base, epoch));
    assert_eq!(bytes[16..], data[16..], "only offset and epoch are written");
    assert_eq!(bytes[8..12], data[8..12]);
}
