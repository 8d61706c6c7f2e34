//! Records of magic 0 and 1: made by hand, and by the clients that people use when they take the broker for an old one.
//! They are read back by both sides of the node.

use bytes::Bytes;
use varve_broker_api::Broker as _;
use varve_frontend_kafka::wire::ErrorCode;
use varve_record::{BatchBuilder, Compression, compress, crc};
use varve_types::limits;

use crate::Bed;
use crate::clients;
use crate::seen::{Own, Seen, Which, by_kafka, fetched, produce};

type Field<'a> = Option<&'a [u8]>;

/// One message, without offset, size and checksum.
fn body(magic: u8, codec: Compression, time: i64, key: Field<'_>, value: Field<'_>) -> Vec<u8> {
    let mut body = vec![magic, codec as u8];
    if magic > 0 {
        body.extend_from_slice(&time.to_be_bytes());
    }
    for field in [key, value] {
        let length = field.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap());
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(field.unwrap_or_default());
    }
    body
}

fn message(
    magic: u8,
    codec: Compression,
    time: i64,
    (key, value): (Field<'_>, Field<'_>),
) -> Vec<u8> {
    let body = body(magic, codec, time, key, value);
    let mut whole = 0_i64.to_be_bytes().to_vec();
    whole.extend_from_slice(&i32::try_from(body.len() + 4).unwrap().to_be_bytes());
    whole.extend_from_slice(&crc::crc32(&body).to_be_bytes());
    whole.extend_from_slice(&body);
    whole
}

fn wrapped(magic: u8, codec: Compression, inner: &[u8]) -> Bytes {
    if codec == Compression::None {
        return Bytes::copy_from_slice(inner);
    }
    let mut packed = Vec::new();
    compress::compress(codec, None, inner, &mut packed).unwrap();
    if (magic, codec) == (0, Compression::Lz4) {
        // What producers of magic 0 have there is no checksum of the frame's header.
        packed[6] ^= 0xff;
    }
    message(magic, codec, 1, (None, Some(&packed))).into()
}

/// Four records, one of each kind.
const FIELDS: [(Field<'static>, Field<'static>); 4] = [
    (Some(b"key"), Some(b"value")),
    (None, Some(b"no key")),
    (Some(b""), Some(b"")),
    (Some(b"key"), None),
];

fn set(magic: u8, codec: Compression) -> Bytes {
    let each = (1000..).zip(FIELDS);
    let each = each.map(|(time, fields)| message(magic, Compression::None, time, fields));
    wrapped(magic, codec, &each.collect::<Vec<_>>().concat())
}

const OLD: [Compression; 4] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
];

#[tokio::test(flavor = "multi_thread")]
async fn old_formats_are_read_back_by_both_sides_at_the_same_offsets() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("old", 1).await;
    let mut end = 0;
    for version in 0..=2 {
        for magic in [0, 1] {
            for codec in OLD {
                let answer = produce(&mut client, version, "old", set(magic, codec)).await;
                assert_eq!((answer.error_code, answer.base_offset), (0, end), "{codec}");
                // What is stored is a batch of the client's codec.
                let part = fetched(&mut client, 4, "old", end, Which::All).await;
                let stored = part.records.unwrap();
                assert_eq!((stored[16], stored[22] & 7), (2, codec as u8));
                end += 4;
            }
        }
    }
    let by_kafka = by_kafka(&mut client, "old", Which::Committed).await;
    let own = Own::connect(bed.node.client_address()).await;
    assert_eq!(own.read("old", Which::Committed).await, by_kafka);
    assert_eq!(by_kafka.len(), usize::try_from(end).unwrap());
    let now = bed.node.broker().node().now_ms;
    for (n, seen) in by_kafka.iter().enumerate() {
        let (key, value) = FIELDS[n % 4];
        let magic = n / 16 % 2;
        let owned = |field: Field<'_>| field.map(<[u8]>::to_vec);
        let expected = Seen {
            offset: i64::try_from(n).unwrap(),
            time: 1000 + i64::try_from(n % 4).unwrap(),
            key: owned(key),
            value: owned(value),
            headers: Vec::new(),
        };
        if magic == 1 {
            assert_eq!(*seen, expected);
            continue;
        }
        // It has no timestamp: that of its arrival is stored.
        assert!((now - 60_000..=now).contains(&seen.time), "{seen:?}");
        let time = seen.time;
        assert_eq!(*seen, Seen { time, ..expected });
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_which_anything_is_wrong_leaves_nothing_behind() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("old", 1).await;
    let good = set(1, Compression::None);
    let gzip = |inner: &[u8]| wrapped(1, Compression::Gzip, inner);
    let mut damaged = good.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let one = |time| message(1, Compression::None, time, (None, None));
    let mut stamped = body(1, Compression::None, 5, None, None);
    stamped[1] = 8;
    let stamped = [
        &0_i64.to_be_bytes()[..],
        &i32::try_from(stamped.len() + 4).unwrap().to_be_bytes(),
        &crc::crc32(&stamped).to_be_bytes(),
        &stamped,
    ];
    let mut batch = BatchBuilder::new(Compression::None, None);
    batch.append(5, None, Some(b"new"), &[]).unwrap();
    let behind = [&good[..], &batch.build().unwrap()].concat();
    let zstd = message(1, Compression::Zstd, 5, (None, Some(b"x")));
    let bomb = vec![0; limits::DECOMPRESSED_MAX_BYTES + 1];
    for (what, records, code) in [
        ("crc", damaged.clone().into(), ErrorCode::CorruptMessage),
        ("crc within", gzip(&damaged), ErrorCode::CorruptMessage),
        (
            "cut off",
            good.slice(..good.len() - 1),
            ErrorCode::CorruptMessage,
        ),
        (
            "cut off within",
            gzip(&good[..good.len() - 1]),
            ErrorCode::CorruptMessage,
        ),
        ("no message within", gzip(b""), ErrorCode::InvalidRecord),
        ("nested", gzip(&gzip(&good)), ErrorCode::InvalidRecord),
        ("a batch behind", behind.into(), ErrorCode::InvalidRecord),
        ("zstd", zstd.into(), ErrorCode::InvalidRecord),
        ("time", one(-2).into(), ErrorCode::InvalidTimestamp),
        (
            "stamped",
            stamped.concat().into(),
            ErrorCode::InvalidTimestamp,
        ),
        ("bomb", gzip(&bomb), ErrorCode::MessageTooLarge),
    ] {
        let answer = produce(&mut client, 2, "old", records).await;
        assert_eq!(answer.error_code, code.code(), "{what}: {answer:?}");
        assert_eq!(answer.base_offset, -1);
    }
    // Later versions hold batches only, whatever the client says of the broker.
    for version in 3..=12 {
        let answer = produce(&mut client, version, "old", good.clone()).await;
        let code = ErrorCode::InvalidRecord.code();
        assert_eq!(answer.error_code, code, "{version}: {answer:?}");
    }
    let answer = produce(&mut client, 2, "old", good).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_python_that_takes_the_broker_for_an_old_one() {
    let bed = Bed::start(&[]).await;
    bed.client().await.create("old", 1).await;
    clients::script("kafka", "old_formats.py", &bed.kafka.to_string(), "1").await;
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_that_takes_the_broker_for_an_old_one() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    client.create("old", 1).await;
    let address = &bed.kafka.to_string();
    let mut offset = 0;
    for codec in OLD {
        let long = "many words ".repeat(20);
        let settings = "-X broker.version.fallback=0.9.0 -X api.version.request=false";
        let arguments = format!("-P -t old -p 0 -K: -z {codec} -X linger.ms=300 {settings}");
        let lines = format!("printf 'k:{long}\\nk:{codec}\\n' |");
        if clients::kcat(address, &lines, &arguments).await.is_none() {
            return;
        }
        let part = fetched(&mut client, 4, "old", offset, Which::All).await;
        let stored = part.records.unwrap();
        assert_eq!((stored[16], stored[22] & 7), (2, codec as u8), "{codec}");
        let seen = by_kafka(&mut client, "old", Which::All).await;
        let values = seen.iter().skip(usize::try_from(offset).unwrap());
        let values: Vec<_> = values.map(|s| s.value.clone().unwrap()).collect();
        assert_eq!(values, [long.as_bytes(), codec.name().as_bytes()]);
        offset += 2;
    }
    let own = Own::connect(bed.node.client_address()).await;
    let seen = by_kafka(&mut client, "old", Which::All).await;
    assert_eq!(own.read("old", Which::All).await, seen);
    bed.stop().await;
}
