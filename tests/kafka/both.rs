//! One log, two protocols: what one side writes the other reads as it was written, at the same offsets. Every property
//! is tested in both directions through the listeners of a whole node.

use bytes::Bytes;
use varve_frontend_kafka::wire::generated::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use varve_frontend_kafka::wire::generated::end_txn::EndTxnRequest;
use varve_frontend_kafka::wire::generated::init_producer_id::{
    InitProducerIdRequest, InitProducerIdResponse,
};
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_proto::v1;
use varve_record::{BatchBuilder, Compression, iter_batches};
use varve_types::{ProducerId, Sequence};

use crate::Bed;
use crate::client::{Client, Patience, ask};
use crate::seen::{Own, Seen, Which, append, by_kafka, fetched, produce};

type Field = Option<&'static [u8]>;
type Headers = &'static [(&'static [u8], Field)];

/// Key, value, headers: one record for everything that may be missing, empty or there twice.
const FIELDS: [(Field, Field, Headers); 6] = [
    (Some(b"key"), Some(b"value"), &[]),
    (
        None,
        Some(b"no key"),
        // Names are bytes of any kind and length.
        &[
            (b"name", Some(b"header")),
            (b"caf\xe9", Some(b"latin 1")),
            (b"\xff\xfe", None),
            (&[b'n'; 300], Some(b"long")),
        ],
    ),
    (Some(b""), Some(b"an empty key"), &[(b"null", None)]),
    (Some(b"gone"), None, &[(b"empty", Some(b""))]),
    (None, None, &[]),
    (
        Some(b"\0\xff"),
        Some(b""),
        &[
            (b"twice", Some(b"1")),
            (b"other", None),
            (b"twice", Some(b"2")),
            (b"twice", None),
        ],
    ),
];

/// The times of the records: out of order, with the smallest there is.
const TIMES: [i64; 6] = [2_000, 0, 1_700_000_000_000, 5, 5, 1_000];

fn batch(codec: Compression) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec, None);
    for ((key, value, headers), time) in FIELDS.iter().zip(TIMES) {
        builder.append_raw(time, *key, *value, headers).unwrap();
    }
    builder
}

fn header(name: &'static [u8], value: Field) -> v1::Header {
    let text = std::str::from_utf8(name);
    v1::Header {
        name: text.unwrap_or_default().to_owned(),
        value: value.map(Bytes::from_static),
        name_bytes: text.is_err().then(|| Bytes::from_static(name)),
    }
}

/// The same records in the words of the node's own API.
fn own_records() -> Vec<v1::Record> {
    let each = FIELDS.iter().zip(TIMES);
    let each = each.map(|((key, value, headers), time)| v1::Record {
        key: key.map(Bytes::from_static),
        value: value.map(Bytes::from_static),
        headers: headers
            .iter()
            .map(|(name, value)| header(name, *value))
            .collect(),
        timestamp_ms: Some(time),
    });
    each.collect()
}

/// The records as they are to be seen from that offset on.
fn expected(base: i64) -> Vec<Seen> {
    let owned = |field: &Field| field.map(<[u8]>::to_vec);
    let each = (base..).zip(FIELDS.iter().zip(TIMES));
    let each = each.map(|(offset, ((key, value, headers), time))| Seen {
        offset,
        time,
        key: owned(key),
        value: owned(value),
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), owned(value)))
            .collect(),
    });
    each.collect()
}

async fn create(client: &mut Client, topic: &str, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
        name: Text::from(*name),
        value: Some(Text::from(*value)),
    });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Text::from(topic),
            num_partitions: 1,
            replication_factor: 1,
            configs: configs.collect(),
            ..CreatableTopic::default()
        }],
        ..CreateTopicsRequest::default()
    };
    let response = ask!(client, 7, CreateTopics, request);
    assert_eq!(response.topics[0].error_code, 0, "{response:?}");
}

/// Both sides see the same, whether they want committed records only or all.
async fn same(client: &mut Client, own: &Own, topic: &str) -> Vec<Seen> {
    for which in [Which::Committed, Which::All] {
        let seen = by_kafka(client, topic, which).await;
        assert_eq!(own.read(topic, which).await, seen, "{topic}, {which:?}");
    }
    by_kafka(client, topic, Which::Committed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_values_headers_and_times_survive_every_codec_in_both_directions() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let own = Own::connect(bed.node.client_address()).await;
    for codec in Compression::ALL {
        // What the node compresses itself, for records in simple form, has that codec too.
        let topic = format!("fields-{codec}");
        create(&mut client, &topic, &[("compression.type", codec.name())]).await;
        let answer = produce(&mut client, 9, &topic, batch(codec).build().unwrap()).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, 0), "{codec}");
        let simple = v1::ProduceRequest {
            topic: topic.clone(),
            records: own_records(),
            ..v1::ProduceRequest::default()
        };
        assert_eq!(own.produce(simple).await, 6, "{codec}");
        let stored = v1::ProduceRequest {
            topic: topic.clone(),
            batch: Some(v1::EncodedBatch {
                format: 2,
                data: batch(codec).build().unwrap(),
            }),
            ..v1::ProduceRequest::default()
        };
        assert_eq!(own.produce(stored).await, 12, "{codec}");
        let seen = same(&mut client, &own, &topic).await;
        let all = [expected(0), expected(6), expected(12)].concat();
        assert_eq!(seen, all, "{codec}");
        let part = fetched(&mut client, 12, &topic, 0, Which::All).await;
        let batches = iter_batches(part.records.unwrap());
        let codecs: Vec<_> = batches.map(|b| b.unwrap().header.compression()).collect();
        assert_eq!(codecs, [codec; 3]);
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_the_append_is_the_same_for_both_sides() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let own = Own::connect(bed.node.client_address()).await;
    let stamped = [("message.timestamp.type", "LogAppendTime")];
    create(&mut client, "stamped", &stamped).await;
    let records = batch(Compression::Gzip).build().unwrap();
    let answer = produce(&mut client, 9, "stamped", records).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    assert!(answer.log_append_time_ms > 1_700_000_000_000, "{answer:?}");
    let simple = v1::ProduceRequest {
        topic: "stamped".to_owned(),
        records: own_records(),
        ..v1::ProduceRequest::default()
    };
    assert_eq!(own.produce(simple).await, 6);
    let seen = same(&mut client, &own, "stamped").await;
    let times: Vec<i64> = seen.iter().map(|s| s.time).collect();
    assert_eq!(times[..6], [answer.log_append_time_ms; 6]);
    assert_eq!(times[6..], [times[6]; 6]);
    assert!(times[6] >= answer.log_append_time_ms);
    let unstamped = |seen: &[Seen]| {
        let all = seen.iter().cloned();
        all.map(|s| Seen { time: 0, ..s }).collect::<Vec<_>>()
    };
    let all = [expected(0), expected(6)].concat();
    assert_eq!(unstamped(&seen), unstamped(&all), "all else is untouched");
    // The time that is told is the stored one, however the clock moves between the check and the append.
    let mut told = times;
    for _ in 0..200 {
        let records = batch(Compression::None).build().unwrap();
        let answer = produce(&mut client, 9, "stamped", records).await;
        told.extend([answer.log_append_time_ms; FIELDS.len()]);
    }
    let seen = by_kafka(&mut client, "stamped", Which::All).await;
    assert_eq!(seen.iter().map(|s| s.time).collect::<Vec<_>>(), told);
    // Where the producer's times count, no other is told.
    create(&mut client, "created", &[]).await;
    let records = batch(Compression::None).build().unwrap();
    let answer = produce(&mut client, 9, "created", records).await;
    assert_eq!((answer.error_code, answer.log_append_time_ms), (0, -1));
    assert_eq!(same(&mut client, &own, "created").await, expected(0));
    bed.stop().await;
}

const WRITER: Text = Text::from_static("writer");

/// Opens the session of a transactional id; its coordinator may just be on its way.
async fn opened(client: &mut Client) -> ProducerId {
    let request = InitProducerIdRequest {
        transactional_id: Some(WRITER),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let patience = Patience::begin();
    loop {
        let InitProducerIdResponse {
            error_code,
            producer_id: id,
            producer_epoch: epoch,
            ..
        } = ask!(client, 5, InitProducerId, request.clone());
        let again = [
            ErrorCode::CoordinatorLoadInProgress,
            ErrorCode::CoordinatorNotAvailable,
            ErrorCode::ConcurrentTransactions,
        ];
        if !again.iter().any(|e| e.code() == error_code) {
            assert_eq!(error_code, 0);
            return ProducerId { id, epoch };
        }
        patience.again(error_code).await;
    }
}

/// One transaction by the Kafka protocol. The session to go on with.
async fn by_kafka_transaction(
    client: &mut Client,
    producer: ProducerId,
    codec: Compression,
    commit: bool,
) -> ProducerId {
    let mut records = batch(codec);
    records.set_transaction(producer, Sequence::ZERO);
    let request = append("both", Some(WRITER.as_str()), records.build().unwrap());
    let patience = Patience::begin();
    loop {
        let response = ask!(client, 12, Produce, request.clone());
        let part = &response.responses[0].partition_responses[0];
        if part.error_code == 0 {
            break;
        }
        // The markers of the transaction before may be on their way.
        let early = ErrorCode::NotEnoughReplicas.code();
        assert_eq!(part.error_code, early, "{part:?}");
        patience.again(part).await;
    }
    let request = EndTxnRequest {
        transactional_id: WRITER,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        committed: commit,
    };
    let ended = ask!(client, 5, EndTxn, request);
    assert_eq!(ended.error_code, 0);
    ProducerId {
        id: ended.producer_id,
        epoch: ended.producer_epoch,
    }
}

/// One transaction by the node's own API.
async fn own_transaction(own: &Own, commit: bool) {
    let id = "own-writer".to_owned();
    let request = v1::InitTransactionsRequest {
        transactional_id: id.clone(),
        ..v1::InitTransactionsRequest::default()
    };
    let opened = own.transactions().init_transactions(request).await;
    let session = opened.unwrap().into_inner().session.unwrap();
    own.produce(v1::ProduceRequest {
        topic: "both".to_owned(),
        records: own_records(),
        session: Some(v1::ProducerSession {
            producer_id: session.producer_id,
            producer_epoch: session.producer_epoch,
            base_sequence: 0,
        }),
        transactional_id: id.clone(),
        acks: v1::Acks::All.into(),
        ..v1::ProduceRequest::default()
    })
    .await;
    let outcome = match commit {
        true => v1::TransactionOutcome::Commit,
        false => v1::TransactionOutcome::Abort,
    };
    let request = v1::EndTransactionRequest {
        transactional_id: id,
        session: Some(session),
        outcome: outcome.into(),
    };
    own.transactions().end_transaction(request).await.unwrap();
}

/// Waits until every transaction's markers are written.
async fn decided(client: &mut Client) -> i64 {
    let patience = Patience::begin();
    loop {
        let part = fetched(client, 12, "both", 0, Which::Committed).await;
        if part.last_stable_offset == part.high_watermark {
            return part.high_watermark;
        }
        let ends = (part.last_stable_offset, part.high_watermark);
        patience.again(ends).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_and_their_markers_are_the_same_for_both_sides() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let own = Own::connect(bed.node.client_address()).await;
    create(&mut client, "both", &[]).await;
    let mut producer = opened(&mut client).await;
    // Each takes six offsets and one for its marker.
    let (mut committed, mut all, mut next) = (Vec::new(), Vec::new(), 0);
    for (codec, commit) in [
        (Compression::Zstd, true),
        (Compression::None, false),
        (Compression::Snappy, false),
        (Compression::Lz4, true),
    ] {
        producer = by_kafka_transaction(&mut client, producer, codec, commit).await;
        assert_eq!(decided(&mut client).await, next + 7);
        own_transaction(&own, commit).await;
        assert_eq!(decided(&mut client).await, next + 14);
        for base in [next, next + 7] {
            all.extend(expected(base));
            if commit {
                committed.extend(expected(base));
            }
        }
        next += 14;
        // A record of no transaction between them.
        let records = batch(codec).build().unwrap();
        let answer = produce(&mut client, 9, "both", records).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, next));
        all.extend(expected(next));
        committed.extend(expected(next));
        next += 6;
    }
    // No marker is shown as a record, and each has its offset.
    assert_eq!(same(&mut client, &own, "both").await, committed);
    assert_eq!(by_kafka(&mut client, "both", Which::All).await, all);
    let part = fetched(&mut client, 12, "both", 0, Which::All).await;
    let batches = iter_batches(part.records.unwrap()).map(Result::unwrap);
    let markers: Vec<i64> = batches
        .filter(|batch| batch.header.is_control())
        .map(|batch| batch.header.base_offset.get())
        .collect();
    assert_eq!(markers, [6, 13, 26, 33, 46, 53, 66, 73]);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_back_readers_of_committed_records_on_both_sides() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let own = Own::connect(bed.node.client_address()).await;
    create(&mut client, "both", &[]).await;
    let producer = opened(&mut client).await;
    let mut records = batch(Compression::None);
    records.set_transaction(producer, Sequence::ZERO);
    let request = append("both", Some(WRITER.as_str()), records.build().unwrap());
    let response = ask!(client, 12, Produce, request);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    let answer = produce(
        &mut client,
        9,
        "both",
        batch(Compression::None).build().unwrap(),
    )
    .await;
    assert_eq!(answer.base_offset, 6);
    assert_eq!(same(&mut client, &own, "both").await, []);
    let all = [expected(0), expected(6)].concat();
    assert_eq!(own.read("both", Which::All).await, all);
    bed.stop().await;
}
