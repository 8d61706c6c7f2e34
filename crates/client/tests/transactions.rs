//! The transactional producer against a server in the test's process: what counts, what does not, and what can be
//! done after each kind of failure.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use crate::fake::{Fake, PATIENCE, Running};
use tokio::time::timeout;
use varve_client::{
    Client, ClientConfig, ProducerConfig, RecordRef, TransactionError, TransactionalConfig,
    TransactionalProducer, proto as v1,
};
use varve_types::{ErrorKind, GroupName, Offset, PartitionId, TopicName, TopicPartition};

const ID: &str = "billing-1";

fn topic() -> TopicName {
    "events".parse().unwrap()
}

async fn open(running: &Running) -> TransactionalProducer {
    let brokers = vec![running.address.to_string()];
    let client = Client::new(ClientConfig {
        brokers,
        ..Default::default()
    });
    let config = TransactionalConfig {
        producer: ProducerConfig {
            linger: Duration::ZERO,
            delivery_timeout: PATIENCE,
            ..Default::default()
        },
        ..Default::default()
    };
    let opened = TransactionalProducer::open(client.unwrap(), ID.parse().unwrap(), config);
    timeout(PATIENCE, opened).await.unwrap().unwrap()
}

async fn send(producer: &TransactionalProducer, partition: i32, value: &str) {
    let record = RecordRef {
        partition: Some(partition),
        value: Some(value.as_bytes()),
        ..Default::default()
    };
    producer.enqueue(&topic(), record).await.unwrap();
}

/// Sends a record and waits until the server has it.
async fn sent(producer: &TransactionalProducer, partition: i32, value: &str) {
    let record = RecordRef {
        partition: Some(partition),
        value: Some(value.as_bytes()),
        ..Default::default()
    };
    let handle = producer.send(&topic(), record).await.unwrap();
    timeout(PATIENCE, handle).await.unwrap().unwrap();
}

async fn commit(producer: &mut TransactionalProducer) -> Result<(), TransactionError> {
    timeout(PATIENCE, producer.commit()).await.unwrap()
}

async fn abort(producer: &mut TransactionalProducer) -> Result<(), TransactionError> {
    timeout(PATIENCE, producer.abort()).await.unwrap()
}

#[tokio::test]
async fn records_and_offsets_count_together() {
    let fake = Fake::new(2);
    let running = fake.serve().await;
    let mut producer = open(&running).await;
    let first = producer.session();
    let group = GroupName::new("readers").unwrap();
    let place = (
        TopicPartition::new(topic(), PartitionId(0)),
        Offset::new(7).unwrap(),
    );
    for round in 0..3 {
        producer.begin().unwrap();
        send(&producer, 0, &format!("a{round}")).await;
        send(&producer, 1, &format!("b{round}")).await;
        let offsets = std::slice::from_ref(&place);
        let added = producer.commit_offsets(&group, "", 0, offsets);
        timeout(PATIENCE, added).await.unwrap().unwrap();
        assert_eq!(fake.committed(0).len(), round);
        commit(&mut producer).await.unwrap();
    }
    assert_eq!(producer.session().epoch, first.epoch + 3);
    assert_eq!(fake.committed(0), ["a0", "a1", "a2"]);
    assert_eq!(fake.committed(1), ["b0", "b1", "b2"]);
    let state = fake.state.lock().unwrap();
    assert_eq!(state.transactions.offsets.len(), 3);
    assert_eq!(state.transactions.offsets[0].1.offset, 7);
    assert_eq!(
        state.sessions_opened, 0,
        "no session beside the transactions'"
    );
}

#[tokio::test]
async fn nothing_of_an_aborted_transaction_counts() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let mut producer = open(&running).await;
    producer.begin().unwrap();
    sent(&producer, 0, "aborted").await;
    abort(&mut producer).await.unwrap();
    producer.begin().unwrap();
    send(&producer, 0, "kept").await;
    commit(&mut producer).await.unwrap();
    assert_eq!(fake.records(0).len(), 2);
    assert_eq!(fake.committed(0), ["kept"]);
    // Nobody is asked about a transaction in which nothing was sent.
    let ends = fake.state.lock().unwrap().transactions.ends;
    producer.begin().unwrap();
    commit(&mut producer).await.unwrap();
    producer.begin().unwrap();
    abort(&mut producer).await.unwrap();
    assert_eq!(fake.state.lock().unwrap().transactions.ends, ends);
}

#[tokio::test]
async fn an_end_is_repeated_until_it_is_answered() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let mut producer = open(&running).await;
    {
        let transactions = &mut fake.state.lock().unwrap().transactions;
        (transactions.busy, transactions.unanswered) = (2, 1);
    }
    producer.begin().unwrap();
    send(&producer, 0, "a").await;
    commit(&mut producer).await.unwrap();
    assert_eq!(fake.state.lock().unwrap().transactions.ends, 4);
    producer.begin().unwrap();
    send(&producer, 0, "b").await;
    commit(&mut producer).await.unwrap();
    assert_eq!(fake.committed(0), ["a", "b"]);
}

#[tokio::test]
async fn broken_streams_lose_and_double_nothing_of_a_transaction() {
    let fake = Fake::new(1);
    {
        let faults = &mut fake.state.lock().unwrap().faults;
        faults.break_before = Some(7);
        faults.break_after = Some(5);
    }
    let running = fake.serve().await;
    let mut producer = open(&running).await;
    let mut expected = Vec::new();
    for round in 0..5 {
        producer.begin().unwrap();
        for number in 0..5 {
            let value = format!("{round}-{number}");
            sent(&producer, 0, &value).await;
            expected.push(value);
        }
        commit(&mut producer).await.unwrap();
    }
    assert_eq!(fake.committed(0), expected);
}

#[tokio::test]
async fn a_record_that_fails_leaves_nothing_but_to_abort() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let mut producer = open(&running).await;
    producer.begin().unwrap();
    sent(&producer, 0, "a").await;
    let refuse = Some((1, v1::ErrorReason::InvalidRecord));
    fake.state.lock().unwrap().faults.refuse = refuse;
    send(&producer, 0, "bad").await;
    let error = commit(&mut producer).await.unwrap_err();
    assert!(matches!(error, TransactionError::MustAbort(_)), "{error}");
    let error = commit(&mut producer).await.unwrap_err();
    assert!(matches!(error, TransactionError::OutOfTurn(_)), "{error}");
    fake.state.lock().unwrap().faults.refuse = None;
    abort(&mut producer).await.unwrap();
    producer.begin().unwrap();
    send(&producer, 0, "again").await;
    commit(&mut producer).await.unwrap();
    assert_eq!(fake.committed(0), ["again"]);
}

#[tokio::test]
async fn a_transaction_whose_time_was_over_is_done_again() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let mut producer = open(&running).await;
    producer.begin().unwrap();
    sent(&producer, 0, "late").await;
    fake.state.lock().unwrap().transactions.time_out(ID);
    let error = commit(&mut producer).await.unwrap_err();
    assert!(matches!(error, TransactionError::MustAbort(_)), "{error}");
    let kind = error.cause().and_then(varve_client::ClientError::kind);
    assert_eq!(kind, Some(ErrorKind::TransactionAborted));
    abort(&mut producer).await.unwrap();
    producer.begin().unwrap();
    send(&producer, 0, "again").await;
    commit(&mut producer).await.unwrap();
    assert_eq!(fake.committed(0), ["again"]);
}

#[tokio::test]
async fn a_leader_that_refuses_the_session_does_not_say_who_is_fenced() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let mut producer = open(&running).await;
    producer.begin().unwrap();
    sent(&producer, 0, "late").await;
    fake.state.lock().unwrap().transactions.time_out(ID);
    // The leader knows of a newer epoch; the coordinator, that it is this producer's own.
    send(&producer, 0, "later").await;
    let error = commit(&mut producer).await.unwrap_err();
    assert!(matches!(error, TransactionError::MustAbort(_)), "{error}");
    abort(&mut producer).await.unwrap();
    producer.begin().unwrap();
    send(&producer, 0, "again").await;
    commit(&mut producer).await.unwrap();
    assert_eq!(fake.committed(0), ["again"]);
}

#[tokio::test]
async fn a_newer_producer_of_the_same_id_fences_the_older() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let mut older = open(&running).await;
    older.begin().unwrap();
    sent(&older, 0, "older").await;
    let mut newer = open(&running).await;
    let error = commit(&mut older).await.unwrap_err();
    assert!(matches!(error, TransactionError::Fenced(_)), "{error}");
    let error = older.begin().unwrap_err();
    assert!(matches!(error, TransactionError::OutOfTurn(_)), "{error}");
    newer.begin().unwrap();
    send(&newer, 0, "newer").await;
    commit(&mut newer).await.unwrap();
    assert_eq!(fake.committed(0), ["newer"]);
}

#[tokio::test]
async fn what_is_open_is_aborted_when_the_producer_goes() {
    let fake = Fake::new(1);
    let running = fake.serve().await;
    let mut producer = open(&running).await;
    producer.begin().unwrap();
    sent(&producer, 0, "a").await;
    producer.close().await.unwrap();
    assert!(!fake.state.lock().unwrap().transactions.is_open(ID));
    let mut producer = open(&running).await;
    producer.begin().unwrap();
    sent(&producer, 0, "b").await;
    drop(producer);
    let gone = async {
        while fake.state.lock().unwrap().transactions.is_open(ID) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
    assert!(fake.committed(0).is_empty());
}
