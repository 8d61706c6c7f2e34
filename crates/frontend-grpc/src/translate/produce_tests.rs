//! Tests of what Produce makes of a request.

use bytes::Bytes;
use varve_record::Compression;

use super::*;

fn view(partitions: i32) -> TopicView {
    TopicView {
        partitions,
        max_message_bytes: 4096,
        compression: Compression::None,
    }
}

fn record(key: Option<&'static str>, value: &'static str) -> v1::Record {
    v1::Record {
        key: key.map(|k| Bytes::from_static(k.as_bytes())),
        value: Some(Bytes::from_static(value.as_bytes())),
        ..Default::default()
    }
}

fn request(records: Vec<v1::Record>) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: "t".to_owned(),
        records,
        ..Default::default()
    }
}

#[test]
fn the_form_of_a_request_is_checked() {
    let one = || request(vec![record(None, "v")]);
    let batch = || {
        Some(v1::EncodedBatch {
            format: 2,
            data: Bytes::new(),
        })
    };
    let session = |producer_id, producer_epoch, base_sequence| {
        Some(v1::ProducerSession {
            producer_id,
            producer_epoch,
            base_sequence,
        })
    };
    let rows: Vec<(v1::ProduceRequest, Option<&str>)> = vec![
        (request(Vec::new()), Some("records")),
        (
            v1::ProduceRequest {
                batch: batch(),
                ..one()
            },
            Some("batch"),
        ),
        (
            v1::ProduceRequest {
                records: Vec::new(),
                batch: batch(),
                ..one()
            },
            Some("partition"),
        ),
        (
            v1::ProduceRequest {
                session: session(1, 0, 0),
                ..one()
            },
            Some("partition"),
        ),
        (
            v1::ProduceRequest {
                expected_offset: Some(0),
                ..one()
            },
            Some("partition"),
        ),
        (
            v1::ProduceRequest {
                expected_offset: Some(-1),
                partition: Some(0),
                ..one()
            },
            Some("expected_offset"),
        ),
        (v1::ProduceRequest { acks: 17, ..one() }, Some("acks")),
        (
            v1::ProduceRequest {
                session: session(0, 0, 0),
                partition: Some(0),
                ..one()
            },
            Some("session"),
        ),
        (
            v1::ProduceRequest {
                session: session(1, -1, 0),
                partition: Some(0),
                ..one()
            },
            Some("session"),
        ),
        (
            v1::ProduceRequest {
                session: session(1, 32768, 0),
                partition: Some(0),
                ..one()
            },
            Some("session"),
        ),
        (
            v1::ProduceRequest {
                session: session(1, 0, -1),
                partition: Some(0),
                ..one()
            },
            Some("session"),
        ),
        (
            v1::ProduceRequest {
                records: Vec::new(),
                batch: batch(),
                session: session(1, 0, 0),
                partition: Some(0),
                ..one()
            },
            Some("session"),
        ),
        (
            v1::ProduceRequest {
                topic: "a/b".to_owned(),
                ..one()
            },
            Some("topic"),
        ),
    ];
    for (request, field) in rows {
        let error = head(&request).unwrap_err();
        assert_eq!(
            (error.kind, error.field),
            (ErrorKind::InvalidRequest, field),
            "{error}"
        );
    }
    let many = request(vec![record(None, "v"); limits::REQUEST_MAX_RECORDS + 1]);
    assert_eq!(head(&many).unwrap_err().kind, ErrorKind::BatchTooLarge);
    assert!(head(&one()).is_ok());
}

#[test]
fn keys_spread_and_records_without_key_stay_together() {
    let rows = vec![
        record(Some("a"), "1"),
        record(None, "2"),
        record(Some("b"), "3"),
        record(None, "4"),
        record(Some("a"), "5"),
    ];
    let request = request(rows);
    let parts = records(&head(&request).unwrap(), &view(16), &request.records, 7, 5).unwrap();
    let place = |key: &[u8]| partitioner::partition_for_key(key, 16).0;
    let of = |n: i32| {
        parts
            .iter()
            .find(|p| p.produce.partition.0 == n)
            .map(|p| p.indexes.clone())
            .unwrap_or_default()
    };
    assert!(place(b"a") != 5 && place(b"b") != 5 && place(b"a") != place(b"b"));
    assert_eq!(of(place(b"a")), [0, 4]);
    assert_eq!(of(place(b"b")), [2]);
    assert_eq!(of(5), [1, 3]);
    let total: u32 = parts.iter().map(|p| p.produce.batch.record_count()).sum();
    assert_eq!(total, 5);
    assert!(
        parts
            .windows(2)
            .all(|w| w[0].produce.partition < w[1].produce.partition)
    );
    let stamps = parts.iter().all(|p| p.produce.batch.max_timestamp() == 7);
    assert!(stamps, "records without a time get the broker's");
}

#[test]
fn one_partition_reports_no_indexes() {
    let request = v1::ProduceRequest {
        partition: Some(1),
        ..request(vec![record(Some("a"), "1"), record(None, "2")])
    };
    let parts = records(&head(&request).unwrap(), &view(2), &request.records, 0, 0).unwrap();
    assert_eq!(parts.len(), 1);
    assert!(parts[0].indexes.is_empty());
    let request = v1::ProduceRequest {
        partition: Some(2),
        ..request
    };
    let error = records(&head(&request).unwrap(), &view(2), &request.records, 0, 0).unwrap_err();
    assert_eq!(error.kind, ErrorKind::PartitionNotFound);
}

#[test]
fn records_that_break_a_rule_are_refused() {
    let header = |name: String| v1::Record {
        headers: vec![v1::Header {
            name,
            ..v1::Header::default()
        }],
        ..record(None, "v")
    };
    let rows = vec![
        (header(String::new()), ErrorKind::InvalidRecord),
        (header("varve-x".to_owned()), ErrorKind::InvalidRecord),
        (
            v1::Record {
                timestamp_ms: Some(-1),
                ..record(None, "v")
            },
            ErrorKind::InvalidRecord,
        ),
        (
            v1::Record {
                value: Some(Bytes::from(vec![0; 5000])),
                ..record(None, "v")
            },
            ErrorKind::RecordTooLarge,
        ),
        (
            v1::Record {
                value: Some(Bytes::from(vec![0; 4090])),
                ..record(None, "v")
            },
            ErrorKind::RecordTooLarge,
        ),
    ];
    for (bad, kind) in rows {
        let request = request(vec![bad]);
        let error =
            records(&head(&request).unwrap(), &view(1), &request.records, 0, 0).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
    let two = request(vec![
        v1::Record {
            value: Some(Bytes::from(vec![0; 3000])),
            ..record(None, "")
        };
        2
    ]);
    let error = records(&head(&two).unwrap(), &view(1), &two.records, 0, 0).unwrap_err();
    assert_eq!(error.kind, ErrorKind::BatchTooLarge);
}

#[test]
fn encoded_batches_are_verified() {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.append(1, None, Some(b"v"), &[]).unwrap();
    let good = builder.build().unwrap();
    let request = v1::ProduceRequest {
        topic: "t".to_owned(),
        partition: Some(0),
        batch: Some(v1::EncodedBatch {
            format: 2,
            data: good.clone(),
        }),
        ..Default::default()
    };
    let head = head(&request).unwrap();
    let check = |format, data: Vec<u8>| {
        encoded(
            &head,
            PartitionId(0),
            v1::EncodedBatch {
                format,
                data: data.into(),
            },
        )
    };
    assert!(check(2, good.to_vec()).is_ok());
    assert_eq!(
        check(3, good.to_vec()).unwrap_err().kind,
        ErrorKind::InvalidRequest
    );
    // Every single damaged byte after the leader epoch is found, and none panics.
    for at in 16..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 0x55;
        assert!(check(2, bad).is_err(), "byte {at}");
    }
    for cut in 0..good.len() {
        assert_eq!(
            check(2, good[..cut].to_vec()).unwrap_err().kind,
            ErrorKind::CorruptBatch
        );
    }
}

fn session() -> Option<v1::ProducerSession> {
    Some(v1::ProducerSession {
        producer_id: 7,
        producer_epoch: 3,
        base_sequence: 5,
    })
}

fn transactional() -> v1::ProduceRequest {
    v1::ProduceRequest {
        partition: Some(0),
        session: session(),
        transactional_id: "billing-1".to_owned(),
        ..request(vec![record(None, "v")])
    }
}

#[test]
fn records_of_a_transaction_say_so_in_their_batch() {
    for acks in [v1::Acks::Unspecified, v1::Acks::All] {
        let request = v1::ProduceRequest {
            acks: acks.into(),
            ..transactional()
        };
        let parts = records(&head(&request).unwrap(), &view(1), &request.records, 0, 0).unwrap();
        let produce = &parts[0].produce;
        assert_eq!(
            produce
                .transactional_id
                .as_ref()
                .map(TransactionalId::as_str),
            Some("billing-1")
        );
        assert_eq!(produce.acks, Acks::All);
        let header = produce.batch.header();
        assert!(header.is_transactional());
        assert_eq!(header.session(), Some(ProducerId { id: 7, epoch: 3 }));
        assert_eq!(header.base_sequence, 5);
    }
    let plain = v1::ProduceRequest {
        transactional_id: String::new(),
        ..transactional()
    };
    let parts = records(&head(&plain).unwrap(), &view(1), &plain.records, 0, 0).unwrap();
    assert!(!parts[0].produce.batch.header().is_transactional());
    assert_eq!(parts[0].produce.transactional_id, None);
}

#[test]
fn what_a_transaction_needs_is_asked_for() {
    let field = |change: fn(&mut v1::ProduceRequest)| {
        let mut bad = transactional();
        change(&mut bad);
        let error = head(&bad).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidRequest, "{error}");
        error.field
    };
    assert_eq!(
        field(|r| r.transactional_id = "a b".to_owned()),
        Some("transactional_id")
    );
    assert_eq!(field(|r| r.partition = None), Some("partition"));
    assert_eq!(field(|r| r.session = None), Some("session"));
    assert_eq!(field(|r| r.acks = v1::Acks::Leader.into()), Some("acks"));
    assert_eq!(field(|r| r.acks = v1::Acks::None.into()), Some("acks"));
}

#[test]
fn an_encoded_batch_and_its_request_agree_about_the_transaction() {
    let batch = |transactional: bool| {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.append(1, None, Some(b"v"), &[]).unwrap();
        let (producer, sequence) = (ProducerId { id: 7, epoch: 3 }, Sequence::new(0).unwrap());
        match transactional {
            true => builder.set_transaction(producer, sequence),
            false => builder.set_producer(producer, sequence),
        }
        v1::EncodedBatch {
            format: 2,
            data: builder.build().unwrap(),
        }
    };
    let check = |id: &str, transactional| {
        let request = v1::ProduceRequest {
            topic: "t".to_owned(),
            partition: Some(0),
            transactional_id: id.to_owned(),
            batch: Some(batch(transactional)),
            ..Default::default()
        };
        encoded(&head(&request)?, PartitionId(0), batch(transactional))
    };
    let part = check("billing-1", true).unwrap();
    assert!(part.produce.transactional_id.is_some());
    assert_eq!(check("", false).unwrap().produce.transactional_id, None);
    let error = check("billing-1", false).unwrap_err();
    assert_eq!(
        (error.kind, error.field),
        (ErrorKind::InvalidRequest, Some("transactional_id"))
    );
    assert!(error.message.contains("no transactional bit"), "{error}");
    let error = check("", true).unwrap_err();
    assert!(
        error.message.contains("no transaction is expected"),
        "{error}"
    );
    assert!(error.message.contains("nothing was appended"), "{error}");
}
