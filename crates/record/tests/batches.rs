//! Properties of the format: round trips, damage is detected, no input panics.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use proptest::prelude::*;
use varve_record::{
    BatchBuilder, BatchError, BatchHeader, Compression, EndMarker, HEADER_BYTES, Marker,
    RecordFault, StoredBatch, TimestampType, Unverified, VerifyLimits, check_stored, end_marker,
    iter_batches,
};
use varve_types::{LeaderEpoch, Offset, ProducerId, Sequence, limits};

#[derive(Debug, Clone)]
struct Plain {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn plain() -> impl Strategy<Value = Plain> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
    let header = ("[a-zä]{0,9}", bytes());
    let headers = proptest::collection::vec(header, 0..4);
    (0..4_000_000_000_000_i64, bytes(), bytes(), headers).prop_map(
        |(timestamp, key, value, headers)| Plain {
            timestamp,
            key,
            value,
            headers,
        },
    )
}

fn codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(&Compression::ALL[..])
}

fn builder(codec: Compression, records: &[Plain]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec, None);
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        builder
            .append(
                record.timestamp,
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            )
            .unwrap();
    }
    builder
}

fn verify(bytes: Bytes) -> Result<varve_record::Batch, BatchError> {
    Unverified(bytes).verify(&VerifyLimits::default())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn round_trip(codec in codec(), records in proptest::collection::vec(plain(), 1..30)) {
        let bytes = builder(codec, &records).build().unwrap();
        let batch = verify(bytes).unwrap();
        prop_assert_eq!(batch.header().compression(), codec);
        prop_assert_eq!(batch.has_null_key(), records.iter().any(|r| r.key.is_none()));
        let base = Offset::new(1_000).unwrap();
        let sequenced = batch.sequence(base, LeaderEpoch::new(9).unwrap());
        let stored = sequenced.to_bytes();
        prop_assert_eq!(check_stored(&stored).unwrap(), *sequenced.header());
        prop_assert_eq!(sequenced.slices().concat(), stored.to_vec());
        let run: Bytes = [&stored[..], &stored[..]].concat().into();
        let mut batches = 0;
        for stored in iter_batches(run) {
            let stored = stored.unwrap();
            stored.verify_crc().unwrap();
            prop_assert_eq!(stored.header.leader_epoch.get(), 9);
            let views: Vec<_> = stored.records().unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(views.len(), records.len());
            for (index, (view, record)) in views.iter().zip(&records).enumerate() {
                prop_assert_eq!(view.offset, base.plus(index as u64));
                prop_assert_eq!(view.timestamp, record.timestamp);
                prop_assert_eq!(view.key.as_deref(), record.key.as_deref());
                prop_assert_eq!(view.value.as_deref(), record.value.as_deref());
                prop_assert_eq!(view.headers.len(), record.headers.len());
                for ((name, value), (wrote, written)) in view.headers.iter().zip(&record.headers) {
                    prop_assert_eq!(&name[..], wrote.as_bytes());
                    prop_assert_eq!(value.as_deref(), written.as_deref());
                }
            }
            batches += 1;
        }
        prop_assert_eq!(batches, 2);
    }

    #[test]
    fn any_flipped_bit_is_detected(
        codec in codec(),
        records in proptest::collection::vec(plain(), 1..5),
        place: prop::sample::Index,
        bit in 0_u8..8,
    ) {
        let mut bytes = builder(codec, &records).build().unwrap().to_vec();
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let changed = verify(bytes.clone().into());
        // Base offset and leader epoch are the broker's to write and outside the checksum.
        if at < 8 || (12..16).contains(&at) {
            prop_assert!(changed.is_ok() || at < 8);
        } else {
            prop_assert!(changed.is_err(), "byte {} bit {}", at, bit);
            prop_assert!(check_stored(&bytes).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = verify(bytes.clone());
        for batch in iter_batches(bytes).flatten() {
            if let Ok(records) = batch.records() {
                let _ = records.count();
            }
            let _ = batch.end_marker();
        }
    }

    #[test]
    fn markers_round_trip(
        id in 0_i64..,
        epoch in 0_i16..,
        commit: bool,
        coordinator_epoch in 0_i32..,
        number in prop::option::of(1_i64..),
        now_ms in 0_i64..4_000_000_000_000,
    ) {
        let marker = if commit { Marker::Commit } else { Marker::Abort };
        let end = EndMarker { marker, coordinator_epoch, number };
        let producer = ProducerId { id, epoch };
        let batch = end_marker(producer, end, now_ms);
        prop_assert_eq!((batch.record_count(), batch.max_timestamp()), (1, now_ms));
        // A client that sends one is refused, whatever it may otherwise send.
        let limits = VerifyLimits { transactional: true, ..VerifyLimits::default() };
        let sent = Unverified(batch.bytes()).verify(&limits);
        let refused = matches!(sent, Err(BatchError::Attributes { .. }));
        prop_assert!(refused);
        let placed = batch.sequence(Offset::new(7).unwrap(), LeaderEpoch::ZERO);
        prop_assert_eq!(placed.end_marker(), Ok(Some(end)));
        let placed = placed.to_bytes();
        check_stored(&placed).unwrap();
        let stored = StoredBatch::split_from(&placed).unwrap();
        prop_assert_eq!(stored.end_marker(), Ok(Some(end)));
        prop_assert_eq!(stored.marker(), Ok(Some(marker)));
        prop_assert_eq!(stored.header.session(), Some(producer));
        // Compaction writes it anew when its time has come.
        let aged = stored.filter(|_| true).unwrap().build(Some(now_ms + 5)).unwrap();
        prop_assert_eq!(StoredBatch::split_from(&aged).unwrap().end_marker(), Ok(Some(end)));
        let emptied = StoredBatch::split_from(&stored.emptied()).unwrap();
        prop_assert_eq!(emptied.end_marker(), Ok(None));
    }

    #[test]
    fn arbitrary_payloads_behind_a_good_header_never_panic(
        attributes in 0_i16..0x40,
        count in 0_i32..20,
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = reseal(builder(Compression::None, &[simple(5)]).build().unwrap(), |bytes| {
            bytes.truncate(HEADER_BYTES);
            bytes.extend_from_slice(&payload);
            bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
            bytes[23..27].copy_from_slice(&(count - 1).max(0).to_be_bytes());
            bytes[57..61].copy_from_slice(&count.to_be_bytes());
        });
        let _ = verify(bytes.clone());
        for batch in iter_batches(bytes).flatten() {
            let _ = batch.end_marker();
            if let Ok(records) = batch.records() {
                prop_assert!(records.count() <= count as usize);
            }
        }
    }
}

fn simple(timestamp: i64) -> Plain {
    Plain {
        timestamp,
        key: Some(b"k".to_vec()),
        value: Some(b"value".to_vec()),
        headers: vec![("h".to_owned(), None)],
    }
}

/// Changes a batch and makes length and checksum right again, so that deeper checks are reached.
fn reseal(bytes: Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    let length = bytes.len() as i32 - 12;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = varve_record::crc::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn two_records() -> Bytes {
    builder(Compression::None, &[simple(10), simple(30)])
        .build()
        .unwrap()
}

#[test]
fn without_a_producer_its_epoch_and_sequence_may_be_anything() {
    // As clients of the field leave them: some write 0.
    for (epoch, sequence) in [(-1_i16, 0_i32), (0, 0), (0, -1)] {
        let odd = reseal(two_records(), |b| {
            b[51..53].copy_from_slice(&epoch.to_be_bytes());
            b[53..57].copy_from_slice(&sequence.to_be_bytes());
        });
        let batch = verify(odd.clone()).unwrap();
        assert_eq!(batch.header().producer(), None);
        assert_eq!(batch.header().session(), None);
        // As the client made it, so that its checksum holds.
        assert_eq!(batch.into_bytes(), odd);
    }
}

#[test]
fn a_largest_time_that_is_not_that_of_the_records_is_refused_or_put_right() {
    let mending = VerifyLimits {
        mend_max_timestamp: true,
        ..VerifyLimits::default()
    };
    for codec in Compression::ALL {
        let right = builder(codec, &[simple(10), simple(30), simple(20)])
            .build()
            .unwrap();
        for stated in [-1_i64, 0, 10, 31, i64::MAX] {
            let odd = reseal(right.clone(), |b| {
                b[35..43].copy_from_slice(&stated.to_be_bytes());
            });
            let error = verify(odd.clone()).unwrap_err();
            assert_eq!(error, BatchError::MaxTimestamp { stated, found: 30 });
            let batch = Unverified(odd).verify(&mending).unwrap();
            assert_eq!((batch.min_timestamp(), batch.max_timestamp()), (10, 30));
            assert_eq!(batch.header().max_timestamp, 30);
            // Its checksum too: but for its place, which the leader writes, the batch is as if it had been stated.
            assert_eq!(batch.bytes()[16..], right[16..], "{codec}, {stated}");
            assert!(verify(batch.bytes()).is_ok());
        }
    }
}

type Change = Box<dyn FnOnce(&mut Vec<u8>)>;

#[test]
fn what_a_client_may_not_send() {
    let set_i32 = |at: usize, value: i32| {
        move |b: &mut Vec<u8>| b[at..at + 4].copy_from_slice(&value.to_be_bytes())
    };
    let fails =
        |change: Change| verify(reseal(two_records(), change)).expect_err("must be refused");
    let count = fails(Box::new(set_i32(57, 1)));
    assert!(
        matches!(
            count,
            BatchError::RecordCount {
                count: 1,
                delta: 1,
                ..
            }
        ),
        "{count}"
    );
    let delta = fails(Box::new(set_i32(23, 7)));
    assert!(
        matches!(
            delta,
            BatchError::RecordCount {
                count: 2,
                delta: 7,
                ..
            }
        ),
        "{delta}"
    );
    for (bits, word) in [
        (0x08, "append time"),
        (0x10, "transact"),
        (0x20, "control"),
        (0x40, "unknown"),
    ] {
        let error = fails(Box::new(move |b| b[22] |= bits));
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(
        fails(Box::new(|b| b[22] |= 0x05)),
        BatchError::UnknownCompression(5)
    );
    assert_eq!(fails(Box::new(|b| b[16] = 1)), BatchError::Magic(1));
    // A producer with an id has an epoch and a sequence.
    let producer = fails(Box::new(|b| {
        b[43..51].copy_from_slice(&4_i64.to_be_bytes())
    }));
    assert_eq!(
        producer,
        BatchError::Producer {
            id: 4,
            epoch: -1,
            sequence: -1
        }
    );
    let negative = fails(Box::new(|b| {
        b[43..51].copy_from_slice(&(-2_i64).to_be_bytes())
    }));
    assert!(matches!(negative, BatchError::Producer { id: -2, .. }));
    assert_eq!(
        fails(Box::new(|b| b.push(0))),
        BatchError::PayloadTrailingBytes(1)
    );
    // The first record: length, attributes, timestamp delta, offset delta, ...
    let attributes = fails(Box::new(|b| b[HEADER_BYTES + 1] = 1));
    assert_eq!(
        attributes,
        BatchError::Record {
            index: 0,
            fault: RecordFault::Attributes(1)
        }
    );
    let offset = fails(Box::new(|b| b[HEADER_BYTES + 3] = 2));
    let fault = RecordFault::OffsetDelta {
        expected: 0,
        found: 1,
    };
    assert_eq!(offset, BatchError::Record { index: 0, fault });
    let mut trailing = two_records().to_vec();
    trailing.push(0);
    assert_eq!(
        verify(trailing.into()).unwrap_err(),
        BatchError::TrailingBytes(1)
    );
    let cut = two_records();
    assert!(matches!(
        verify(cut.slice(..cut.len() - 1)),
        Err(BatchError::Truncated { .. })
    ));
}

#[test]
fn limits_of_a_batch_are_kept() {
    let small = VerifyLimits {
        max_batch_bytes: 80,
        max_records: 1,
        ..VerifyLimits::default()
    };
    let error = Unverified(two_records()).verify(&small).unwrap_err();
    assert!(
        matches!(error, BatchError::TooLarge { max: 80, .. }),
        "{error}"
    );
    let small = VerifyLimits {
        max_batch_bytes: 8000,
        max_records: 1,
        ..VerifyLimits::default()
    };
    let error = Unverified(two_records()).verify(&small).unwrap_err();
    assert_eq!(error, BatchError::TooManyRecords { found: 2, max: 1 });
    let builder = BatchBuilder::new(Compression::None, None);
    assert_eq!(builder.build().unwrap_err(), BatchError::Empty);
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder
        .append(0, None, Some(&vec![0; limits::BUILT_BATCH_MAX_BYTES]), &[])
        .unwrap();
    assert!(matches!(builder.build(), Err(BatchError::TooLarge { .. })));
}

/// Producers pack as many records into a batch as its bytes allow.
#[test]
fn only_the_bytes_of_a_batch_are_bounded() {
    for codec in [Compression::None, Compression::Zstd] {
        let mut builder = BatchBuilder::new(codec, None);
        for _ in 0..200_000 {
            builder.append(5, None, Some(b""), &[]).unwrap();
        }
        let batch = verify(builder.build().unwrap()).unwrap();
        assert_eq!(batch.records().unwrap().count(), 200_000, "{codec}");
    }
    let mut builder = BatchBuilder::new(Compression::None, None);
    let many = vec![("h", None); 10_000];
    builder.append(0, None, None, &many).unwrap();
    let long = "n".repeat(100_000);
    builder.append(0, None, None, &[(&long, None)]).unwrap();
    let batch = verify(builder.build().unwrap()).unwrap();
    let headers: Vec<usize> = batch
        .records()
        .unwrap()
        .map(|r| r.unwrap().headers.len())
        .collect();
    assert_eq!(headers, [10_000, 1]);
}

/// What `zstd --ultra -22` asks for; the window of a payload that is known to be smaller takes no more than that.
#[test]
fn zstd_windows_of_the_highest_level_are_taken() {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.append(5, None, Some(&[7; 100_000]), &[]).unwrap();
    let plain = builder.build().unwrap();
    for log in [26, 27] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        std::io::Write::write_all(&mut encoder, &plain[HEADER_BYTES..]).unwrap();
        let packed = encoder.finish().unwrap();
        let whole = [&plain[..HEADER_BYTES], &packed].concat();
        let batch = verify(reseal(whole.into(), |bytes| bytes[22] |= 4)).unwrap();
        assert_eq!(batch.records().unwrap().count(), 1, "2^{log}");
    }
}

#[test]
fn timestamps_at_the_ends_of_the_range() {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.append(i64::MAX, None, None, &[]).unwrap();
    assert!(builder.append(-2, None, None, &[]).is_err());
    builder.append(0, None, None, &[]).unwrap();
    let batch = verify(builder.build().unwrap()).unwrap();
    assert_eq!(
        (batch.min_timestamp(), batch.max_timestamp()),
        (0, i64::MAX)
    );
}

#[test]
fn log_append_time_replaces_every_timestamp_and_shares_the_payload() {
    let batch = verify(two_records()).unwrap();
    let body = batch.body().as_ptr();
    let stamped = batch.with_log_append_time(777);
    assert_eq!(stamped.body().as_ptr(), body);
    assert_eq!(
        (stamped.min_timestamp(), stamped.max_timestamp()),
        (777, 777)
    );
    check_stored(&stamped.bytes()).unwrap();
    let sequenced = stamped.sequence(Offset::new(5).unwrap(), LeaderEpoch::ZERO);
    assert_eq!(sequenced.body().as_ptr(), body);
    let header = check_stored(&sequenced.to_bytes()).unwrap();
    assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    let stored = iter_batches(sequenced.to_bytes()).next().unwrap().unwrap();
    for record in stored.records().unwrap() {
        assert_eq!(record.unwrap().timestamp, 777);
    }
}

#[test]
fn a_built_batch_equals_a_verified_one() {
    let mut built = builder(Compression::Lz4, &[simple(10), simple(30)]);
    let producer = ProducerId { id: 77, epoch: 2 };
    built.set_producer(producer, Sequence::new(i32::MAX).unwrap());
    let built = built.build_batch().unwrap();
    let verified = verify(built.bytes()).unwrap();
    assert_eq!(built.header(), verified.header());
    assert_eq!(
        built.header().producer(),
        Some((producer, Sequence::new(i32::MAX).unwrap()))
    );
    assert_eq!(built.min_timestamp(), verified.min_timestamp());
    assert_eq!(built.has_null_key(), verified.has_null_key());
}

#[test]
fn header_fields_out_of_range() {
    let parse = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = two_records().to_vec();
        change(&mut bytes);
        BatchHeader::parse(&bytes).expect_err("must be refused")
    };
    assert_eq!(
        parse(&|b| b.truncate(60)),
        BatchError::Truncated {
            needed: HEADER_BYTES,
            found: 60
        }
    );
    let length = |value: i32| parse(&|b| b[8..12].copy_from_slice(&value.to_be_bytes()));
    for value in [-1, 0, 48, limits::BATCH_MAX_BYTES as i32 - 11, i32::MAX] {
        assert!(matches!(length(value), BatchError::Length { found, .. } if found == value));
    }
    assert!(matches!(
        parse(&|b| b[0] = 0x80),
        BatchError::OffsetRange { .. }
    ));
    assert!(matches!(
        parse(&|b| b[0..8].copy_from_slice(&i64::MAX.to_be_bytes())),
        BatchError::OffsetRange { .. }
    ));
    assert!(matches!(
        parse(&|b| b[23] = 0x80),
        BatchError::OffsetRange { .. }
    ));
    let mut epoch = two_records().to_vec();
    epoch[12..16].copy_from_slice(&i32::MIN.to_be_bytes());
    assert_eq!(
        BatchHeader::parse(&epoch).unwrap().leader_epoch,
        LeaderEpoch::ZERO
    );
}

#[test]
fn a_batch_moves_to_another_session() {
    let producer = ProducerId { id: 9, epoch: 1 };
    let moved =
        varve_record::with_producer(&two_records(), producer, Sequence::new(40).unwrap()).unwrap();
    let batch = verify(moved).unwrap();
    assert_eq!(
        batch.header().producer(),
        Some((producer, Sequence::new(40).unwrap()))
    );
    assert_eq!(batch.record_count(), 2);
}

#[test]
fn batches_of_transactions_are_taken_where_they_are_expected() {
    let producer = ProducerId { id: 9, epoch: 1 };
    let sequence = Sequence::new(40).unwrap();
    let mut built = builder(Compression::Zstd, &[simple(10), simple(30)]);
    built.set_transaction(producer, sequence);
    let bytes = built.build().unwrap();
    let refused = verify(bytes.clone()).unwrap_err();
    assert!(
        refused.to_string().contains("transactional bit"),
        "{refused}"
    );
    let expected = VerifyLimits {
        transactional: true,
        ..VerifyLimits::default()
    };
    let batch = Unverified(bytes).verify(&expected).unwrap();
    assert!(batch.header().is_transactional() && !batch.header().is_control());
    assert_eq!(batch.header().producer(), Some((producer, sequence)));
    // Plain ones are taken there too, and nothing else that a client may not set.
    assert!(Unverified(two_records()).verify(&expected).is_ok());
    let with = |bits: u8| {
        let bytes = reseal(two_records(), |b| b[22] |= bits);
        Unverified(bytes).verify(&expected).unwrap_err()
    };
    assert_eq!(with(0x10), BatchError::TransactionWithoutProducer);
    assert!(matches!(with(0x20), BatchError::Attributes { .. }));
}

#[test]
fn control_batches_of_other_kinds_say_nothing() {
    let end = EndMarker {
        marker: Marker::Abort,
        coordinator_epoch: 3,
        number: None,
    };
    let bytes = end_marker(ProducerId { id: 9, epoch: 1 }, end, 5).bytes();
    let read = |change: &dyn Fn(&mut Vec<u8>)| {
        let bytes = reseal(bytes.clone(), change);
        StoredBatch::split_from(&bytes)
            .unwrap()
            .end_marker()
            .unwrap()
    };
    // The key begins after four fields of one byte and its own length.
    let key = HEADER_BYTES + 5;
    assert_eq!(read(&|_| ()), Some(end));
    assert_eq!(read(&|b| b[key + 3] = 2), None, "another kind");
    assert_eq!(read(&|b| b[key + 1] = 9), Some(end), "a later version");
    assert_eq!(read(&|b| b[22] = 0x10), None, "not a control batch");
    let short = EndMarker {
        coordinator_epoch: -1,
        ..end
    };
    let without_epoch = |b: &mut Vec<u8>| {
        b.drain(key + 7..key + 11);
        b[key + 4] = 4;
        b[HEADER_BYTES] -= 8;
    };
    assert_eq!(read(&without_epoch), Some(short));
}
