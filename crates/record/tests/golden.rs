//! Batches made by another implementation of the format, and the bytes that FORMAT.md shows.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use varve_record::{
    BatchBuilder, Compression, EndMarker, Marker, StoredBatch, Unverified, VerifyLimits,
    check_stored, end_marker,
};
use varve_types::{ProducerId, Sequence};

/// Made with kafka-python 3.0.12: producer 4242, epoch 3, sequence 7, three records.
const FOREIGN: [(Compression, &str); 5] = [
    (
        Compression::None,
        "0000000000000000000000b60000000002fd411c6a0000000000020000018bcfe568000000018bcfe56805000000000000109200030000000700000003420000000c757365722d310a68656c6c6f040a747261636506616263086e6f6e6501a801000a02019a0168656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f00180001040c757365722d310100",
    ),
    (
        Compression::Gzip,
        "00000000000000000000007d00000000023529e0000001000000020000018bcfe568000000018bcfe568050000000000001092000300000007000000031f8b0800e23e016b02ff73626060e0292d4e2dd235e4ca48cdc9c967e12a294a4c4e654b4c4ae6c8cbcf4b655cc1c8c0c5c4388b112cab40259241828191056a2f230300427cc6aa85000000",
    ),
    (
        Compression::Snappy,
        "00000000000000000000008c00000000022f2dc2240002000000020000018bcfe568000000018bcfe5680500000000000010920003000000070000000382534e41505059000000000100000001000000478501a8420000000c757365722d310a68656c6c6f040a747261636506616263086e6f6e6501a801000a02019a0168011e042068fe060009063400180001040c757365722d310100",
    ),
    (
        Compression::Lz4,
        "00000000000000000000008a000000000291d7be2c0003000000020000018bcfe568000000018bcfe5680500000000000010920003000000070000000304224d18684085000000000000003642000000f11b420000000c757365722d310a68656c6c6f040a747261636506616263086e6f6e6501a801000a02019a011e001f20060034e000180001040c757365722d31010000000000",
    ),
    (
        Compression::Zstd,
        "0000000000000000000000790000000002d36791820004000000020000018bcfe568000000018bcfe5680500000000000010920003000000070000000328b52ffd2085fd01002403420000000c757365722d310a68656c6c6f040a747261636506616263086e6f6e6501a801000a02019a01200018000104010003007bc89452105310941e",
    ),
];

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap() as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2));
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

const HELLOS: &str =
    "hello hello hello hello hello hello hello hello hello hello hello hello hello";

#[test]
fn batches_of_another_implementation_are_read() {
    for (codec, hex) in FOREIGN {
        let bytes = Bytes::from(unhex(hex));
        let header = check_stored(&bytes).unwrap();
        assert_eq!(header.compression(), codec);
        assert_eq!(
            header.producer(),
            Some((ProducerId { id: 4242, epoch: 3 }, Sequence::new(7).unwrap()))
        );
        let batch = Unverified(bytes).verify(&VerifyLimits::default()).unwrap();
        assert!(batch.has_null_key());
        assert_eq!(batch.min_timestamp(), 1_699_999_999_999);
        assert_eq!(batch.max_timestamp(), 1_700_000_000_005);
        let records: Vec<_> = batch.records().unwrap().map(Result::unwrap).collect();
        assert_eq!(records.len(), 3, "{codec}");
        assert_eq!(records[0].key.as_deref(), Some(&b"user-1"[..]));
        assert_eq!(records[0].value.as_deref(), Some(&b"hello"[..]));
        assert_eq!(records[0].headers.len(), 2);
        assert_eq!(records[0].headers[0].0, "trace");
        assert_eq!(records[0].headers[0].1.as_deref(), Some(&b"abc"[..]));
        assert_eq!(records[0].headers[1], (Bytes::from("none"), None));
        assert_eq!(records[1].key, None);
        assert_eq!(records[1].value.as_deref(), Some(HELLOS.as_bytes()));
        assert_eq!(records[2].value, None);
        assert_eq!(records[2].timestamp, 1_699_999_999_999);
    }
}

fn same_records() -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::None, None);
    let headers = [("trace", Some(&b"abc"[..])), ("none", None)];
    builder
        .append(1_700_000_000_000, Some(b"user-1"), Some(b"hello"), &headers)
        .unwrap();
    builder
        .append(1_700_000_000_005, None, Some(HELLOS.as_bytes()), &[])
        .unwrap();
    builder
        .append(1_699_999_999_999, Some(b"user-1"), None, &[])
        .unwrap();
    builder.set_producer(ProducerId { id: 4242, epoch: 3 }, Sequence::new(7).unwrap());
    builder
}

#[test]
fn the_builder_makes_the_same_bytes_as_the_other_implementation() {
    let ours = same_records().build().unwrap();
    let mut theirs = unhex(FOREIGN[0].1);
    // They write leader epoch 0, we write -1; both are overwritten by the leader.
    theirs[12..16].copy_from_slice(&[0xff; 4]);
    assert_eq!(ours, theirs);
}

/// The bytes of the document's `n`th example, from 1.
fn shown(n: usize) -> Vec<u8> {
    let document = include_str!("../FORMAT.md");
    let shown = document
        .split("```hex")
        .nth(n)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let hex: String = shown
        .lines()
        .map(|line| line.split('|').next().unwrap_or_default())
        .collect();
    unhex(&hex)
}

#[test]
fn the_document_shows_what_the_code_writes() {
    assert_eq!(shown(1), same_records().build().unwrap());
    let end = EndMarker {
        marker: Marker::Commit,
        coordinator_epoch: 5,
        number: None,
    };
    let producer = ProducerId { id: 4242, epoch: 4 };
    let marker = end_marker(producer, end, 1_700_000_000_000);
    assert_eq!(shown(2), marker.bytes());
}

/// Made by a program of a few lines after the published layout, not by this one.
const FOREIGN_MARKER: &str = "000000000000000000000042ffffffff024679c5430030000000000000018bcfe568000000018bcfe5680000000000000010920004ffffffff000000012000000008000000010c00000000000500";

#[test]
fn a_marker_of_another_implementation_is_read() {
    let bytes = Bytes::from(unhex(FOREIGN_MARKER));
    check_stored(&bytes).unwrap();
    let batch = StoredBatch::split_from(&bytes).unwrap();
    let header = batch.header;
    assert!(header.is_control() && header.is_transactional());
    assert_eq!(header.producer(), None, "it has no sequence");
    assert_eq!(header.session(), Some(ProducerId { id: 4242, epoch: 4 }));
    let end = EndMarker {
        marker: Marker::Commit,
        coordinator_epoch: 5,
        number: None,
    };
    assert_eq!(batch.end_marker(), Ok(Some(end)));
}
