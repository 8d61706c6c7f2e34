//! Message sets of magic 0 and 1 become batches: sets of other implementations, sets made by hand, and whatever else
//! bytes can be.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use proptest::prelude::*;
use varve_record::message_set::{convert, is_message_set};
use varve_record::{
    Batch, BatchError, Compression, MessageFault, Unverified, VerifyLimits, compress, crc,
};
use varve_types::limits;

/// What records without a time get.
const NOW: i64 = 1_800_000_000_000;
const LOG_APPEND_TIME: u8 = 8;

/// Made with kafka-python 3.0.12: the three records of `the_records`.
const PYTHON: [(u8, Compression, &str); 4] = [
    (
        0,
        Compression::None,
        "000000000000000000000019002bc30e000000000006757365722d310000000568656c6c6f00000000000000010000005b879db5830000ffffffff0000004d68656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f000000000000000200000014c774f83a000000000006757365722d31ffffffff",
    ),
    (
        0,
        Compression::Gzip,
        "00000000000000000000005f6c0645310001ffffffff000000511f8b08003c16046b02ff636080034906edc37c60165b69716a91ae2190c59a919a93930f55c008c4d1ed73b7363330fc070220cf172cad4025126a0d13108b1c2ff96185ec16908500b778763aac000000",
    ),
    (
        1,
        Compression::None,
        "000000000000000000000021336d7cf901000000018bcfe5680000000006757365722d310000000568656c6c6f000000000000000100000063f53917d301000000018bcfe56805ffffffff0000004d68656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f00000000000000020000001c612085e801000000018bcfe5680200000006757365722d31ffffffff",
    ),
    (
        1,
        Compression::Gzip,
        "0000000000000000000000738424c7ce01010000000000000000ffffffff0000005d1f8b08003c16046b02ff6360800345e3dc9a9f8c400663f7f9a7192011b6d2e2d4225d43208b35233527271faa10a426f9aba5f865b862d6ff4000e4f88295295089845ac704c432890aad2fe0d63121dc06b2180003924c39c4000000",
    ),
];

/// Made with librdkafka 2.0.2 for a broker of version 0.9: the keys and values of `two_records`, with magic 0. The
/// checksum in the header of its LZ4 frame is the one that KAFKA-3160 is about.
const LIBRDKAFKA: [(Compression, &str); 4] = [
    (
        Compression::None,
        "000000000000000000000019002bc30e000000000006757365722d310000000568656c6c6f00000000000000010000006146904859000000000006757365722d310000004d68656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f",
    ),
    (
        Compression::Gzip,
        "00000000000000000000004d0107134c0001ffffffff0000003f1f8b0800000000000003636080034906edc37c60165b69716a91ae2190c59a919a93930f55c008c4896e133c22d114f9821529508904009faaeb2492000000",
    ),
    (
        Compression::Snappy,
        "00000000000000000000004a82b264550002ffffffff0000003c9201000019011019002bc30e050f3c06757365722d310000000568656c6c6f051528000001000000614690485905101925004d05250020fe06000d06",
    ),
    (
        Compression::Lz4,
        "00000000000000000000005d348fe4650003ffffffff0000004f04224d1860401a40000000160001005119002bc30e0f00f10106757365722d310000000568656c6c6f1500b000000100000061469048590d00072500114d25001f2006002f5068656c6c6f00000000",
    ),
];

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    assert!(digits.len().is_multiple_of(2));
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// Time, key, value.
type Plain = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn the_records() -> Vec<Plain> {
    let long = [b"hello ".repeat(12).as_slice(), b"hello"].concat();
    vec![
        (
            1_700_000_000_000,
            Some(b"user-1".to_vec()),
            Some(b"hello".to_vec()),
        ),
        (1_700_000_000_005, None, Some(long)),
        (1_700_000_000_002, Some(b"user-1".to_vec()), None),
    ]
}

/// The records of a batch; they are what another look at its bytes finds.
fn records(batch: &Batch) -> Vec<Plain> {
    let again = Unverified(batch.bytes())
        .verify(&VerifyLimits::default())
        .unwrap();
    assert_eq!(again.header(), batch.header());
    assert_eq!(again.has_null_key(), batch.has_null_key());
    assert_eq!(again.min_timestamp(), batch.min_timestamp());
    let plain = again.records().unwrap().map(|record| {
        let record = record.unwrap();
        assert!(record.headers.is_empty());
        let owned = |field: Option<Bytes>| field.map(|bytes| bytes.to_vec());
        (record.timestamp, owned(record.key), owned(record.value))
    });
    plain.collect()
}

/// One message, with the checksum right.
fn message(
    magic: u8,
    attributes: u8,
    time: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Vec<u8> {
    let mut body = vec![magic, attributes];
    if magic > 0 {
        body.extend_from_slice(&time.to_be_bytes());
    }
    for field in [key, value] {
        let length = field.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap());
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(field.unwrap_or_default());
    }
    framed(&body)
}

/// A message of everything after its checksum.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut whole = 0_i64.to_be_bytes().to_vec();
    whole.extend_from_slice(&i32::try_from(body.len() + 4).unwrap().to_be_bytes());
    whole.extend_from_slice(&crc::crc32(body).to_be_bytes());
    whole.extend_from_slice(body);
    whole
}

fn set(magic: u8, records: &[Plain]) -> Vec<u8> {
    let each = records
        .iter()
        .map(|(time, key, value)| message(magic, 0, *time, key.as_deref(), value.as_deref()));
    each.collect::<Vec<_>>().concat()
}

/// A message that wraps a set.
fn wrapped(magic: u8, codec: Compression, inner: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    compress::compress(codec, None, inner, &mut packed).unwrap();
    if (magic, codec) == (0, Compression::Lz4) {
        // The seventh byte is the checksum of the frame's header: producers of magic 0 have another one there.
        packed[6] ^= 0x5a;
    }
    message(magic, codec as u8, 7, None, Some(&packed))
}

fn converted(set: &[u8]) -> Result<Batch, BatchError> {
    convert(set, NOW, &VerifyLimits::default())
}

fn fault(set: &[u8]) -> (u32, MessageFault) {
    match converted(set) {
        Err(BatchError::Message { index, fault }) => (index, fault),
        other => panic!("{other:?}"),
    }
}

/// What is left of records in a format.
fn known(magic: u8, records: &[Plain]) -> Vec<Plain> {
    let time = |time| if magic == 0 || time == -1 { NOW } else { time };
    let each = records.iter().cloned();
    each.map(|(t, key, value)| (time(t), key, value)).collect()
}

#[test]
fn sets_of_another_implementation_become_batches_of_the_same_codec() {
    for (magic, codec, hex) in PYTHON {
        let set = unhex(hex);
        assert!(is_message_set(&set));
        let batch = converted(&set).unwrap();
        assert_eq!(batch.header().compression(), codec);
        assert_eq!(batch.header().producer(), None);
        assert_eq!(records(&batch), known(magic, &the_records()), "{codec}");
    }
    let batch = converted(&unhex(PYTHON[2].2)).unwrap();
    assert!(!is_message_set(&batch.bytes()), "a batch is no set");
    assert!(!is_message_set(&[]) && !is_message_set(&[0; 16]));
}

#[test]
fn what_librdkafka_makes_for_old_brokers_is_read() {
    let long = [b"hello ".repeat(12).as_slice(), b"hello"].concat();
    let one = |value: Vec<u8>| (NOW, Some(b"user-1".to_vec()), Some(value));
    let two_records = [one(b"hello".to_vec()), one(long)];
    for (codec, hex) in LIBRDKAFKA {
        let batch = converted(&unhex(hex)).unwrap();
        assert_eq!(batch.header().compression(), codec);
        assert_eq!(records(&batch), two_records, "{codec}");
    }
}

#[test]
fn every_codec_of_both_formats_is_read() {
    let all = the_records();
    for magic in [0, 1] {
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4] {
            let batch = converted(&wrapped(magic, codec, &set(magic, &all))).unwrap();
            assert_eq!(batch.header().compression(), codec);
            assert_eq!(records(&batch), known(magic, &all), "{magic} {codec}");
        }
        // Snappy without the framing of Java, as some producers send it.
        let raw = snap_raw(&set(magic, &all));
        let raw = message(magic, Compression::Snappy as u8, 7, None, Some(&raw));
        assert_eq!(records(&converted(&raw).unwrap()), known(magic, &all));
    }
    // LZ4 whose header has the right checksum, too.
    let mut packed = Vec::new();
    compress::compress(Compression::Lz4, None, &set(0, &all), &mut packed).unwrap();
    let right = message(0, 3, 0, None, Some(&packed));
    assert_eq!(records(&converted(&right).unwrap()), known(0, &all));
    // With magic 1 it is checked.
    packed[6] ^= 1;
    let wrong = message(1, 3, 0, None, Some(&packed));
    let error = converted(&wrong).unwrap_err();
    assert!(matches!(error, BatchError::Decompress { .. }), "{error}");
}

fn snap_raw(bytes: &[u8]) -> Vec<u8> {
    let mut framed = Vec::new();
    compress::compress(Compression::Snappy, None, bytes, &mut framed).unwrap();
    // One block behind 16 bytes of header and its length.
    framed.split_off(20)
}

#[test]
fn messages_and_wrappers_may_follow_each_other() {
    let all = the_records();
    let mixed = [
        wrapped(1, Compression::Gzip, &set(1, &all[..1])),
        set(1, &all[1..2]),
        wrapped(1, Compression::Lz4, &set(1, &all[2..])),
    ];
    let batch = converted(&mixed.concat()).unwrap();
    assert_eq!(batch.header().compression(), Compression::Gzip, "the first");
    assert_eq!(records(&batch), all);
    // Magic 0 and 1 in one set: each message says for itself.
    let both = [set(0, &all[..1]), set(1, &all[1..])].concat();
    let found = records(&converted(&both).unwrap());
    assert_eq!(found[0].0, NOW);
    assert_eq!(found[1..], all[1..]);
    // A time that the producer does not know.
    let unknown = message(1, 0, -1, Some(b"k"), Some(b""));
    let found = records(&converted(&unknown).unwrap());
    assert_eq!(found, [(NOW, Some(b"k".to_vec()), Some(Vec::new()))]);
}

#[test]
fn what_is_wrong_with_a_message_is_told() {
    let good = message(1, 0, 5, Some(b"key"), Some(b"value"));
    let after = |bytes: &[u8]| [&good[..], bytes].concat();
    for cut in 1..good.len() {
        let (index, fault) = fault(&after(&good[..cut]));
        assert_eq!(index, 1);
        assert!(matches!(fault, MessageFault::Truncated { .. }), "{fault}");
    }
    for at in 12..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 0x10;
        let (_, fault) = fault(&damaged);
        let told = matches!(fault, MessageFault::Crc { .. } | MessageFault::Magic(_));
        assert!(told, "byte {at}: {fault}");
    }
    let mut short = good.clone();
    short[8..12].copy_from_slice(&13_i32.to_be_bytes());
    assert_eq!(fault(&short), (0, MessageFault::Size(13)));
    short[8..12].copy_from_slice(&(-1_i32).to_be_bytes());
    assert_eq!(fault(&short), (0, MessageFault::Size(-1)));
    let tiny = framed(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fault(&tiny), (0, MessageFault::Size(15)));
    let two = message(2, 0, 5, None, None);
    assert_eq!(fault(&after(&two)), (1, MessageFault::Magic(2)));
    let codec = |bits| message(1, bits, 5, None, Some(b"x"));
    assert_eq!(fault(&codec(4)), (0, MessageFault::Codec(4)));
    assert_eq!(fault(&codec(7)), (0, MessageFault::Codec(7)));
    let stamped = message(1, LOG_APPEND_TIME, 5, None, None);
    assert_eq!(fault(&stamped), (0, MessageFault::LogAppendTime));
    let early = message(1, 0, -2, None, None);
    assert_eq!(fault(&early), (0, MessageFault::Timestamp(-2)));
    let keyed = |length: i32| {
        let mut body = vec![0, 0];
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&[0; 8]);
        framed(&body)
    };
    for length in [9, i32::MAX, -2, i32::MIN] {
        assert_eq!(fault(&keyed(length)), (0, MessageFault::Field("key")));
    }
    assert_eq!(fault(&keyed(5)), (0, MessageFault::Field("value")));
    assert_eq!(fault(&keyed(0)), (0, MessageFault::TrailingBytes(4)));
    assert_eq!(converted(&[]).unwrap_err(), BatchError::Empty);
}

#[test]
fn what_is_wrong_within_a_compressed_message_is_told() {
    let good = set(1, &the_records());
    let gzip = |inner: &[u8]| wrapped(1, Compression::Gzip, inner);
    let null = message(1, 1, 0, None, None);
    assert_eq!(fault(&null), (0, MessageFault::Wraps));
    assert_eq!(fault(&gzip(&[])), (0, MessageFault::Wraps));
    assert_eq!(fault(&gzip(&gzip(&good))), (0, MessageFault::Nested));
    let other = MessageFault::OtherMagic { found: 0, outer: 1 };
    assert_eq!(fault(&gzip(&set(0, &the_records()))), (0, other));
    let (index, cut) = fault(&gzip(&good[..good.len() - 1]));
    assert_eq!(index, 2);
    assert!(matches!(cut, MessageFault::Truncated { .. }), "{cut}");
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let (index, crc) = fault(&gzip(&damaged));
    assert_eq!(index, 2);
    assert!(matches!(crc, MessageFault::Crc { .. }), "{crc}");
    for codec in [1, 2, 3] {
        for magic in [0, 1] {
            let garbage = message(magic, codec, 0, None, Some(b"\x04\x22\x4d\x18garbage"));
            let error = converted(&garbage).unwrap_err();
            assert!(matches!(error, BatchError::Decompress { .. }), "{error}");
        }
    }
}

#[test]
fn the_limits_of_a_batch_are_those_of_a_set() {
    let few = VerifyLimits {
        max_records: 2,
        ..VerifyLimits::default()
    };
    let error = convert(&set(1, &the_records()), NOW, &few).unwrap_err();
    assert_eq!(error, BatchError::TooManyRecords { found: 3, max: 2 });
    let small = VerifyLimits {
        max_batch_bytes: 100,
        ..VerifyLimits::default()
    };
    let error = convert(&[0; 101], NOW, &small).unwrap_err();
    let (found, max) = (101, 100);
    assert_eq!(error, BatchError::TooLarge { found, max });
    // Only bytes count, not messages.
    let least = message(0, 0, 0, None, None);
    let many = converted(&wrapped(0, Compression::Lz4, &least.repeat(200_000))).unwrap();
    assert_eq!(many.header().record_count, 200_000);
}

#[test]
fn bombs_are_stopped_at_the_bound() {
    let max = limits::DECOMPRESSED_MAX_BYTES;
    let zeros = vec![0; max + 1];
    for magic in [0, 1] {
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4] {
            let error = converted(&wrapped(magic, codec, &zeros)).unwrap_err();
            assert_eq!(error, BatchError::DecompressedTooLarge { codec, max });
        }
    }
    // Each within the bound, and together past it.
    let large = message(1, 0, 5, None, Some(&zeros[..max / 3]));
    let four = wrapped(1, Compression::Gzip, &large).repeat(4);
    let error = converted(&four).unwrap_err();
    assert!(matches!(error, BatchError::TooLarge { .. }), "{error}");
}

fn plain() -> impl Strategy<Value = Plain> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100));
    (-1..4_000_000_000_000_i64, bytes(), bytes())
}

fn old_codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(&Compression::ALL[..4])
}

proptest! {
    #[test]
    fn what_is_in_a_set_is_in_its_batch(
        all in proptest::collection::vec(plain(), 1..30),
        magic in 0..2_u8,
        codec in old_codec(),
    ) {
        let mut bytes = set(magic, &all);
        if codec != Compression::None {
            bytes = wrapped(magic, codec, &bytes);
        }
        let batch = converted(&bytes).unwrap();
        prop_assert_eq!(batch.header().compression(), codec);
        prop_assert_eq!(records(&batch), known(magic, &all));
    }

    #[test]
    fn a_changed_byte_is_noticed_or_says_nothing(
        all in proptest::collection::vec(plain(), 1..5),
        magic in 0..2_u8,
        codec in old_codec(),
        place in any::<proptest::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let mut bytes = set(magic, &all);
        if codec != Compression::None {
            bytes = wrapped(magic, codec, &bytes);
        }
        let at = place.index(bytes.len());
        bytes[at] ^= flip;
        // Offsets are not read; all else is covered by a checksum or by the end of the bytes.
        if let Ok(batch) = converted(&bytes) {
            prop_assert_eq!(records(&batch), known(magic, &all));
        }
    }

    #[test]
    fn any_bytes_are_a_set_or_are_not(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        magic in 0..2_u8,
        attributes in 0..8_u8,
    ) {
        if let Ok(batch) = converted(&bytes) {
            let _ = records(&batch);
        }
        // With all that guessing does not get past made right.
        let mut body = vec![magic, attributes];
        body.extend_from_slice(&bytes);
        for set in [framed(&body), message(magic, attributes, 1, None, Some(&bytes))] {
            if let Ok(batch) = converted(&set) {
                let _ = records(&batch);
            }
        }
    }
}
