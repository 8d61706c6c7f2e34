//! Tests of the decoder and of the checks of reads.

use varve_record::{BatchBuilder, Compression};

use super::*;

fn at(n: i64) -> Offset {
    Offset::new(n).unwrap()
}

/// Batches of `counts` records each, offsets from `base`; the record at offset n has timestamp 10 n
/// and a value of `size` bytes.
fn log(base: i64, counts: &[u32], size: usize, codec: Compression) -> (Bytes, Offset) {
    let mut all = Vec::new();
    let mut next = at(base);
    for count in counts {
        let mut builder = BatchBuilder::new(codec, None);
        for i in 0..*count {
            let time = (next.get() + i64::from(i)) * 10;
            builder
                .append(time, Some(b"k"), Some(&vec![b'x'; size]), &[("h", None)])
                .unwrap();
        }
        let batch = builder
            .build_batch()
            .unwrap()
            .sequence(next, LeaderEpoch::ZERO);
        next = batch.header().next_offset();
        all.extend_from_slice(&batch.to_bytes());
    }
    (all.into(), next)
}

fn offsets(decoder: &mut Decoder, max_bytes: usize, max_records: u64) -> Vec<Vec<i64>> {
    let mut all = Vec::new();
    while let Some(chunk) = decoder.next_chunk(max_bytes, max_records).unwrap() {
        assert_eq!(chunk.next_offset, decoder.position());
        assert!(chunk.payload_bytes > 0);
        all.push(chunk.records.iter().map(|r| r.offset).collect());
    }
    all
}

#[test]
fn records_before_the_start_are_dropped_and_chunks_are_gapless() {
    for codec in [Compression::None, Compression::Zstd] {
        let (bytes, end) = log(5, &[4, 1, 3], 100, codec);
        let mut d = Decoder::new(
            Encoding::Records,
            bytes.clone(),
            at(7),
            end,
            Until::default(),
        );
        assert_eq!(
            offsets(&mut d, 300, u64::MAX),
            [vec![7, 8], vec![9, 10], vec![11, 12]]
        );
        assert_eq!(d.position(), at(13));
        let mut d = Decoder::new(Encoding::Records, bytes, at(7), end, Until::default());
        let chunk = d.next_chunk(usize::MAX, 2).unwrap().unwrap();
        assert_eq!((chunk.next_offset, chunk.records.len()), (at(9), 2));
    }
}

#[test]
fn one_record_is_given_even_when_it_exceeds_the_bound() {
    let (bytes, end) = log(0, &[3], 1000, Compression::None);
    let mut d = Decoder::new(Encoding::Records, bytes, at(0), end, Until::default());
    assert_eq!(offsets(&mut d, 1, u64::MAX), [vec![0], vec![1], vec![2]]);
}

#[test]
fn holes_at_the_end_are_passed_over() {
    let (bytes, _) = log(0, &[2], 1, Compression::None);
    let mut d = Decoder::new(Encoding::Records, bytes, at(0), at(9), Until::default());
    let chunk = d.next_chunk(usize::MAX, u64::MAX).unwrap().unwrap();
    assert_eq!(chunk.next_offset, at(9));
    let mut d = Decoder::new(
        Encoding::Records,
        Bytes::new(),
        at(0),
        at(9),
        Until::default(),
    );
    assert!(d.next_chunk(10, 10).unwrap().is_none());
    assert_eq!(d.position(), at(9));
}

#[test]
fn record_ends_are_exact() {
    let (bytes, end) = log(0, &[4, 4], 1, Compression::None);
    let by_offset = Until {
        offset: Some(at(6)),
        timestamp: None,
    };
    let mut d = Decoder::new(Encoding::Records, bytes.clone(), at(1), end, by_offset);
    assert_eq!(offsets(&mut d, usize::MAX, u64::MAX), [vec![1, 2, 3, 4, 5]]);
    assert!(d.reached_end());
    assert_eq!(d.position(), at(6));
    let by_time = Until {
        offset: None,
        timestamp: Some(25),
    };
    let mut d = Decoder::new(Encoding::Records, bytes, at(1), end, by_time);
    assert_eq!(offsets(&mut d, usize::MAX, u64::MAX), [vec![1, 2]]);
    assert!(d.reached_end());
    assert_eq!(d.position(), at(3));
}

fn batches(decoder: &mut Decoder, max_bytes: usize, max_records: u64) -> Vec<(usize, i64)> {
    let mut all = Vec::new();
    while let Some(chunk) = decoder.next_chunk(max_bytes, max_records).unwrap() {
        assert_eq!(chunk.batches.len(), 1);
        all.push((chunk.batches[0].data.len(), chunk.next_offset.get()));
    }
    all
}

#[test]
fn batches_pass_whole_and_uncopied() {
    let (bytes, end) = log(0, &[4, 4, 4], 10, Compression::None);
    let one = bytes.len() / 3;
    let mut d = Decoder::new(
        Encoding::Batches,
        bytes.clone(),
        at(1),
        end,
        Until::default(),
    );
    let chunk = d.next_chunk(usize::MAX, u64::MAX).unwrap().unwrap();
    assert_eq!(chunk.batches[0].data.as_ptr(), bytes.as_ptr());
    assert_eq!(
        (chunk.batches[0].data.len(), chunk.next_offset),
        (bytes.len(), at(12))
    );
    let mut d = Decoder::new(
        Encoding::Batches,
        bytes.clone(),
        at(1),
        end,
        Until::default(),
    );
    assert_eq!(
        batches(&mut d, 2 * one, u64::MAX),
        [(2 * one, 8), (one, 12)]
    );
    let mut d = Decoder::new(
        Encoding::Batches,
        bytes.clone(),
        at(1),
        end,
        Until::default(),
    );
    assert_eq!(
        batches(&mut d, 1, u64::MAX),
        [(one, 4), (one, 8), (one, 12)]
    );
    let mut d = Decoder::new(Encoding::Batches, bytes, at(1), end, Until::default());
    let chunk = d.next_chunk(usize::MAX, 4).unwrap().unwrap();
    assert_eq!((chunk.record_count, chunk.next_offset), (7, at(8)));
}

#[test]
fn batch_ends_stop_at_the_batch_that_holds_them() {
    let (bytes, end) = log(0, &[4, 4, 4], 10, Compression::None);
    let one = bytes.len() / 3;
    for (until, expected) in [
        (
            Until {
                offset: Some(at(6)),
                timestamp: None,
            },
            vec![(2 * one, 6)],
        ),
        (
            Until {
                offset: Some(at(4)),
                timestamp: None,
            },
            vec![(one, 4)],
        ),
        (
            Until {
                offset: None,
                timestamp: Some(60),
            },
            vec![(2 * one, 6)],
        ),
        (
            Until {
                offset: None,
                timestamp: Some(40),
            },
            vec![(one, 4)],
        ),
        (
            Until {
                offset: None,
                timestamp: Some(0),
            },
            vec![],
        ),
    ] {
        let mut d = Decoder::new(Encoding::Batches, bytes.clone(), at(0), end, until);
        assert_eq!(batches(&mut d, usize::MAX, u64::MAX), expected, "{until:?}");
        assert!(d.reached_end());
    }
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let (bytes, end) = log(0, &[3], 10, Compression::Lz4);
    for cut in 1..bytes.len() {
        for encoding in [Encoding::Records, Encoding::Batches] {
            let until = Until {
                offset: Some(at(2)),
                timestamp: None,
            };
            let mut d = Decoder::new(encoding, bytes.slice(..cut), at(0), end, until);
            assert!(d.next_chunk(usize::MAX, u64::MAX).is_err(), "{cut}");
        }
    }
}

#[test]
fn fetch_requests_are_checked_and_clamped() {
    let ok = || v1::FetchRequest {
        topic: "t".to_owned(),
        ..Default::default()
    };
    let plan = fetch(&ok(), 1000).unwrap();
    assert_eq!((plan.max_records, plan.min_bytes), (500, 1));
    let plan = fetch(
        &v1::FetchRequest {
            max_records: i32::MAX,
            max_bytes: i64::MAX,
            min_bytes: i64::MAX,
            ..ok()
        },
        1000,
    )
    .unwrap();
    assert_eq!(
        (plan.max_records, plan.max_bytes, plan.min_bytes),
        (10_000, 1000, 1000)
    );
    for (bad, field) in [
        (
            v1::FetchRequest {
                max_records: -1,
                ..ok()
            },
            "max_records",
        ),
        (
            v1::FetchRequest {
                max_bytes: -1,
                ..ok()
            },
            "max_bytes",
        ),
        (
            v1::FetchRequest {
                min_bytes: i64::MIN,
                ..ok()
            },
            "min_bytes",
        ),
        (
            v1::FetchRequest {
                encoding: 9,
                ..ok()
            },
            "encoding",
        ),
        (
            v1::FetchRequest {
                out_of_range: -9,
                ..ok()
            },
            "out_of_range",
        ),
        (
            v1::FetchRequest {
                leader_epoch: Some(-1),
                ..ok()
            },
            "leader_epoch",
        ),
        (
            v1::FetchRequest {
                leader_epoch: Some(i64::MAX),
                ..ok()
            },
            "leader_epoch",
        ),
        (
            v1::FetchRequest {
                topic: String::new(),
                ..ok()
            },
            "topic",
        ),
    ] {
        assert_eq!(fetch(&bad, 1000).unwrap_err().field, Some(field));
    }
}
