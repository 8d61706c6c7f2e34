//! Record batches: what a client sends, and what lies in a log.

use bytes::Bytes;
use varve_record::{
    BatchHeader, Compression, HEADER_BYTES, StoredBatch, Unverified, VerifyLimits, check_stored,
    compress, crc, iter_batches, message_set,
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

/// When the sets of the target arrive.
const NOW: i64 = 1_800_000_000_000;

/// Arbitrary bytes as a set of messages of magic 0 or 1; and, with the first byte for a choice, as what follows the
/// checksum of one message, as the messages that one wraps, and as what a codec is to unpack.
///
/// # Panics
/// When a property is broken.
pub fn message_set(data: &[u8]) {
    converted(data);
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    converted(&message(data));
    let (magic, codec) = (choice & 1, Compression::ALL[usize::from(choice >> 1) % 4]);
    let mut packed = Vec::new();
    let inner = message(&[&[magic, 0], data].concat());
    compress::compress(codec, None, &inner, &mut packed).expect("it is short");
    converted(&wrapping(magic, codec, &packed));
    converted(&wrapping(magic, codec, data));
}

/// A message of everything after its checksum.
fn message(body: &[u8]) -> Vec<u8> {
    let size = i32::try_from(body.len() + 4).unwrap_or(i32::MAX);
    let parts = [
        &0_i64.to_be_bytes()[..],
        &size.to_be_bytes(),
        &crc::crc32(body).to_be_bytes(),
        body,
    ];
    parts.concat()
}

/// A message whose value is `packed`.
fn wrapping(magic: u8, codec: Compression, packed: &[u8]) -> Vec<u8> {
    let mut body = vec![magic, codec as u8];
    if magic > 0 {
        body.extend_from_slice(&[0; 8]);
    }
    body.extend_from_slice(&(-1_i32).to_be_bytes());
    let length = i32::try_from(packed.len()).unwrap_or(i32::MAX);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(packed);
    message(&body)
}

/// What becomes a batch is one that any producer could have sent.
fn converted(set: &[u8]) {
    let limits = VerifyLimits::default();
    let Ok(batch) = message_set::convert(set, NOW, &limits) else {
        return;
    };
    assert!(message_set::is_message_set(set));
    assert!(!message_set::is_message_set(&batch.bytes()));
    verified(&batch.bytes());
    let again = Unverified(batch.bytes()).verify(&limits);
    let again = again.expect("a batch that was made here is right");
    assert_eq!(again.header(), batch.header());
    assert!(batch.min_timestamp() >= 0 && batch.header().producer().is_none());
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

/// As the Kafka listener takes it: nothing but the largest time is another, and that is right then.
fn mended(data: &[u8], was_right: bool) {
    let limits = VerifyLimits {
        mend_max_timestamp: true,
        ..VerifyLimits::default()
    };
    let Ok(batch) = Unverified(Bytes::copy_from_slice(data)).verify(&limits) else {
        assert!(!was_right, "what is right needs no mending");
        return;
    };
    let bytes = batch.bytes();
    assert_eq!(bytes.len(), data.len());
    assert_eq!(bytes[21..35], data[21..35]);
    assert_eq!(bytes[43..], data[43..]);
    assert_eq!(was_right, bytes[35..43] == data[35..43]);
    let again = Unverified(bytes).verify(&VerifyLimits::default());
    assert!(again.is_ok(), "what was mended is right");
}

fn verified(data: &[u8]) {
    let limits = VerifyLimits::default();
    let strict = Unverified(Bytes::copy_from_slice(data)).verify(&limits);
    mended(data, strict.is_ok());
    let Ok(batch) = strict else {
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

/// Where fuzzing of message sets begins, by name.
#[must_use]
pub fn message_set_seeds() -> Vec<(String, Vec<u8>)> {
    let plain = |magic: u8| {
        let mut body = vec![magic, 0];
        if magic > 0 {
            body.extend_from_slice(&1_700_000_000_000_i64.to_be_bytes());
        }
        for field in [&b"key"[..], b"value"] {
            body.extend_from_slice(&(field.len() as u32).to_be_bytes());
            body.extend_from_slice(field);
        }
        message(&body).repeat(2)
    };
    let mut seeds = Vec::new();
    for magic in [0, 1] {
        seeds.push((format!("plain-{magic}"), plain(magic)));
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4] {
            let mut packed = Vec::new();
            compress::compress(codec, None, &plain(magic), &mut packed).expect("it is short");
            let set = wrapping(magic, codec, &packed);
            seeds.push((format!("{codec}-{magic}"), set));
            // Behind its choice, as what the codec is to unpack.
            let choice = magic | (codec as u8) << 1;
            seeds.push((
                format!("packed-{codec}-{magic}"),
                [&[choice], &packed[..]].concat(),
            ));
        }
    }
    seeds
}
