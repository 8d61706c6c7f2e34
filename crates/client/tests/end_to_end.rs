//! Producer and consumer against a server that breaks: nothing is lost, doubled or reordered.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::fake::{Fake, PATIENCE, Running};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::timeout;
use varve_client::{
    Assignment, Client, ClientConfig, ClientError, Consumer, ConsumerConfig, End, Producer,
    ProducerConfig, RecordRef, Start, proto as v1,
};
use varve_record::Compression;
use varve_types::{Outcome, PartitionId, TopicName, TopicPartition};

fn topic() -> TopicName {
    "events".parse().unwrap()
}

fn client(running: &Running) -> Client {
    let brokers = vec![running.address.to_string()];
    Client::new(ClientConfig {
        brokers,
        ..Default::default()
    })
    .unwrap()
}

fn small_batches() -> ProducerConfig {
    ProducerConfig {
        batch_bytes: 600,
        linger: Duration::ZERO,
        buffer_bytes: 64 * 1024,
        ..Default::default()
    }
}

fn value(number: u32) -> [u8; 104] {
    let mut value = [b'.'; 104];
    value[..4].copy_from_slice(&number.to_be_bytes());
    value
}

async fn produce(producer: &Producer, numbers: std::ops::Range<u32>, partition: Option<i32>) {
    for number in numbers {
        let value = value(number);
        let record = RecordRef {
            partition,
            value: Some(&value),
            ..Default::default()
        };
        timeout(PATIENCE, producer.enqueue(&topic(), record))
            .await
            .unwrap()
            .unwrap();
    }
}

fn numbers(fake: &Fake, partition: usize) -> Vec<u32> {
    let records = fake.records(partition);
    for (expected, (offset, _)) in records.iter().enumerate() {
        assert_eq!(*offset, expected as i64);
    }
    let number = |value: &[u8]| u32::from_be_bytes(value[..4].try_into().unwrap());
    records.iter().map(|(_, value)| number(value)).collect()
}

#[tokio::test]
async fn records_arrive_in_order_and_handles_tell_where() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let producer = Producer::new(client(&running), small_batches()).unwrap();
    let mut handles = Vec::new();
    for number in 0..500_u32 {
        let value = value(number);
        let record = RecordRef {
            value: Some(&value),
            key: Some(b"k"),
            ..Default::default()
        };
        handles.push(producer.send(&topic(), record).await.unwrap());
    }
    for (number, handle) in handles.into_iter().enumerate() {
        let ack = timeout(PATIENCE, handle).await.unwrap().unwrap();
        assert_eq!(ack.offset.unwrap().get(), number as i64);
    }
    producer.close().await.unwrap();
    assert_eq!(numbers(&fake, 0), (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn broken_streams_lose_and_double_nothing() {
    let fake = Fake::new(2);
    {
        let faults = &mut fake.state.lock().unwrap().faults;
        faults.break_before = Some(41);
        faults.break_after = Some(53);
        faults.refuse = Some((29, v1::ErrorReason::NotEnoughReplicas));
    }
    let running = fake.serve().await;
    let producer = Producer::new(client(&running), small_batches()).unwrap();
    produce(&producer, 0..1000, Some(0)).await;
    produce(&producer, 0..1000, Some(1)).await;
    timeout(PATIENCE, producer.close()).await.unwrap().unwrap();
    assert_eq!(numbers(&fake, 0), (0..1000).collect::<Vec<_>>());
    assert_eq!(numbers(&fake, 1), (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_that_forgot_the_session_gets_a_new_one() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let producer = Producer::new(client(&running), small_batches()).unwrap();
    produce(&producer, 0..300, None).await;
    producer.flush().await.unwrap();
    fake.state.lock().unwrap().partitions[0].sessions.clear();
    produce(&producer, 300..600, None).await;
    timeout(PATIENCE, producer.close()).await.unwrap().unwrap();
    assert_eq!(numbers(&fake, 0), (0..600).collect::<Vec<_>>());
    assert_eq!(fake.state.lock().unwrap().sessions_opened, 2);
}

#[tokio::test]
async fn a_refused_batch_fails_alone_and_the_rest_goes_on() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let failed = Arc::new(AtomicU32::new(0));
    let counter = failed.clone();
    let mut config = small_batches();
    config.on_batch = Some(Arc::new(move |report| {
        if report.result.is_err() {
            counter.fetch_add(report.records, Ordering::Relaxed);
        }
    }));
    let producer = Producer::new(client(&running), config).unwrap();
    produce(&producer, 0..50, None).await;
    producer.flush().await.unwrap();
    let refuse = Some((10, v1::ErrorReason::InvalidRecord));
    fake.state.lock().unwrap().faults.refuse = refuse;
    produce(&producer, 50..150, None).await;
    let error = timeout(PATIENCE, producer.flush())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), Some(varve_types::ErrorKind::InvalidRecord));
    fake.state.lock().unwrap().faults.refuse = None;
    produce(&producer, 150..200, None).await;
    timeout(PATIENCE, producer.close()).await.unwrap().unwrap();
    let arrived = numbers(&fake, 0);
    assert!(arrived.is_sorted_by(|a, b| a < b), "{arrived:?}");
    let failed = failed.load(Ordering::Relaxed) as usize;
    assert!(failed > 0);
    assert_eq!(arrived.len() + failed, 200);
}

#[tokio::test]
async fn a_restart_in_the_middle_is_survived_by_both_sides() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let client = client(&running);
    let config = ProducerConfig {
        compression: Compression::Lz4,
        ..small_batches()
    };
    let producer = Producer::new(client.clone(), config).unwrap();
    let assignment = Assignment {
        topic: topic(),
        partition: 0,
        start: Start::Earliest,
        end: End::Never,
    };
    let mut consumer = Consumer::open(client, ConsumerConfig::default(), vec![assignment])
        .await
        .unwrap();
    let reader = tokio::spawn(async move {
        let mut offsets = Vec::new();
        while offsets.len() < 2000 {
            let batch = consumer.next_batch().await.unwrap().unwrap();
            offsets.extend(
                batch
                    .records()
                    .unwrap()
                    .map(|record| record.unwrap().offset.get()),
            );
        }
        offsets
    });
    fake.state.lock().unwrap().faults.break_fetch = Some(37);
    produce(&producer, 0..1000, None).await;
    running.kill().await;
    let restart = async {
        let running = fake.serve().await;
        produce(&producer, 1000..2000, None).await;
        producer.flush().await.unwrap();
        running
    };
    let _running = timeout(PATIENCE, restart).await.unwrap();
    assert_eq!(numbers(&fake, 0), (0..2000).collect::<Vec<_>>());
    let offsets = timeout(PATIENCE, reader).await.unwrap().unwrap();
    assert_eq!(offsets, (0..2000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_paused_partition_is_held_by_its_window_and_loses_nothing() {
    let fake = Fake::new(2);
    let running = fake.serve().await;
    let client = client(&running);
    let producer = Producer::new(client.clone(), small_batches()).unwrap();
    for partition in 0..2 {
        produce(&producer, 0..6000, Some(partition)).await;
    }
    producer.close().await.unwrap();
    let assignments = (0..2).map(|partition| Assignment {
        topic: topic(),
        partition,
        start: Start::Earliest,
        end: End::CurrentEnd,
    });
    let config = ConsumerConfig {
        prefetch_bytes: 1,
        ..Default::default()
    };
    let mut consumer = Consumer::open(client, config, assignments.collect())
        .await
        .unwrap();
    let partition = |number| TopicPartition::new(topic(), PartitionId(number));
    consumer.pause([&partition(0)]).unwrap();
    for number in 0..6000 {
        let record = timeout(PATIENCE, consumer.records().next()).await.unwrap();
        let record = record.unwrap().unwrap();
        assert_eq!((record.partition.0, record.offset), (1, number));
    }
    {
        let mut state = fake.state.lock().unwrap();
        let batches: usize = state.partitions.iter().map(|log| log.batches.len()).sum();
        let fetched = state.fetched as usize;
        assert!(fetched + 300 < batches, "{fetched} of {batches} were sent");
        state.faults.break_fetch = Some(37);
    }
    consumer.resume([&partition(0)]).unwrap();
    // Batches and records by turns, calls dropped in between, streams that break.
    let mut next = 0;
    while let Some(batch) = timeout(PATIENCE, consumer.next_batch())
        .await
        .unwrap()
        .unwrap()
    {
        for record in batch.records().unwrap() {
            assert_eq!(record.unwrap().offset.get(), next);
            next += 1;
        }
        assert_eq!(batch.next_offset, next);
        if let Some(Some(record)) = consumer.records().next().now_or_never() {
            assert_eq!(record.unwrap().offset, next);
            next += 1;
        }
    }
    assert_eq!(next, 6000);
    assert!(consumer.is_done());
}

#[tokio::test]
async fn a_range_is_read_to_its_end() {
    let fake = Fake::new(3);
    let running = fake.serve().await;
    let client = client(&running);
    let producer = Producer::new(client.clone(), small_batches()).unwrap();
    for partition in 0..3 {
        produce(&producer, 0..100, Some(partition)).await;
    }
    producer.close().await.unwrap();
    let read = |start, end| {
        let client = client.clone();
        async move {
            let assignments = (0..3)
                .map(|partition| Assignment {
                    topic: topic(),
                    partition,
                    start,
                    end,
                })
                .collect();
            let config = ConsumerConfig {
                prefetch_bytes: 1,
                ..Default::default()
            };
            let mut consumer = Consumer::open(client, config, assignments).await.unwrap();
            let mut offsets = vec![Vec::new(); 3];
            while let Some(batch) = consumer.next_batch().await.unwrap() {
                let records = batch.records().unwrap();
                offsets[batch.partition.0 as usize]
                    .extend(records.map(|record| record.unwrap().offset.get()));
            }
            offsets
        }
    };
    let all = timeout(PATIENCE, read(Start::Earliest, End::CurrentEnd))
        .await
        .unwrap();
    assert!(
        all.iter()
            .all(|offsets| *offsets == (0..100).collect::<Vec<_>>())
    );
    let some = timeout(PATIENCE, read(Start::Offset(33), End::Offset(61)))
        .await
        .unwrap();
    assert!(
        some.iter()
            .all(|offsets| *offsets == (33..61).collect::<Vec<_>>())
    );
    let last = timeout(PATIENCE, read(Start::Last(7), End::CurrentEnd))
        .await
        .unwrap();
    assert!(
        last.iter()
            .all(|offsets| *offsets == (93..100).collect::<Vec<_>>())
    );
    let none = timeout(PATIENCE, read(Start::Latest, End::CurrentEnd))
        .await
        .unwrap();
    assert!(none.iter().all(Vec::is_empty));
}

#[tokio::test]
async fn what_cannot_be_delivered_says_so() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let client = client(&running);
    let config = ProducerConfig {
        delivery_timeout: Duration::from_millis(800),
        ..small_batches()
    };
    let producer = Producer::new(client, config).unwrap();
    let missing: TopicName = "missing".parse().unwrap();
    let record = RecordRef {
        value: Some(b"v"),
        ..Default::default()
    };
    let error = producer.send(&missing, record).await.unwrap_err();
    assert_eq!(error, ClientError::TopicNotFound("missing".to_owned()));
    let nowhere = RecordRef {
        partition: Some(4),
        ..record
    };
    let error = producer.send(&topic(), nowhere).await.unwrap_err();
    assert!(matches!(
        error,
        ClientError::PartitionNotFound {
            partition: 4,
            count: 1,
            ..
        }
    ));
    let handle = producer.send(&topic(), record).await.unwrap();
    handle.await.unwrap();
    running.kill().await;
    let handle = producer.send(&topic(), record).await.unwrap();
    let error = timeout(PATIENCE, handle).await.unwrap().unwrap_err();
    assert!(
        matches!(error, ClientError::DeliveryTimeout { .. }),
        "{error}"
    );
    assert!(error.is_timeout());
    if let ClientError::DeliveryTimeout { outcome, .. } = error {
        // Sent to a server that was gone, or never sent: never reported as appended.
        assert!(matches!(outcome, Outcome::Unknown | Outcome::NotApplied));
    }
    assert!(producer.flush().await.is_err());
    assert!(producer.flush().await.is_ok());
}
