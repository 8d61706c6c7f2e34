//! Transactions of producers that keep their epoch (KIP-98), as clients before Kafka 4.0 do: they register partitions
//! themselves, and what comes late for a transaction has the epoch of the next one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::Duration;

use crate::support::cluster::Nodes;
use crate::support::transactions::*;
use crate::support::{Fixture, new_topic};
use varve_broker_api::{
    Broker as _, Context, EndTransaction, Fetch, FetchPartition, Isolation, Operations as _,
    Produce, Result, TransactionState, TransactionVersion,
};
use varve_metadata::features;
use varve_types::{
    Acks, ErrorKind, GroupName, NodeId, Offset, PartitionId, ProducerId, TopicName, TopicPartition,
};

const V1: TransactionVersion = TransactionVersion::V1;

fn place(topic: &TopicName, n: i32) -> TopicPartition {
    TopicPartition::new(topic.clone(), PartitionId(n))
}

/// A batch that comes by itself: what its leader says.
async fn late(
    fixture: &Fixture,
    topic: &TopicName,
    (producer, sequence): (ProducerId, i32),
) -> Result<()> {
    let request = Produce {
        topic: topic.clone(),
        partition: PartitionId(0),
        acks: Acks::All,
        batch: txn_batch(producer, sequence, &["late"]),
        expected_offset: None,
        transactional_id: Some("one".parse().unwrap()),
        transaction_version: V1,
    };
    let context = Context::anonymous();
    let receipt = fixture.broker.produce(&context, request).await?;
    receipt.await.map(|_| ())
}

/// Where readers of committed records stop, and where others do.
async fn ends(at: &At<'_>, topic: &TopicName, n: i32) -> (i64, i64) {
    let fetched = at
        .call(|broker| {
            let fetch = Fetch {
                raw: false,
                isolation: Isolation::Uncommitted,
                partitions: vec![FetchPartition {
                    topic: topic.clone(),
                    partition: PartitionId(n),
                    offset: Offset::ZERO,
                    max_bytes: 1 << 20,
                    leader_epoch: None,
                }],
                max_wait: Duration::ZERO,
                min_bytes: 1,
                max_bytes: 1 << 20,
            };
            async move {
                let mut all = broker.fetch(&Context::anonymous(), fetch).await?;
                all.remove(0).result
            }
        })
        .await
        .unwrap();
    let end = |isolation| fetched.end(isolation).get();
    (end(Isolation::Committed), end(Isolation::Uncommitted))
}

/// Its leaders register what it writes to, and its ends keep the epoch: of which kind a transaction is says each
/// request by itself.
#[tokio::test]
async fn kinds_may_change_from_one_request_to_the_next() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 1).await;
    let group: GroupName = "g".parse().unwrap();
    let mut producer = Producer::open(&at, "one").await;
    let session = producer.session;
    let mut expected = Vec::new();
    for (round, commit) in [true, true, false, true].into_iter().enumerate() {
        let round = i64::try_from(round).unwrap();
        let value = format!("v{round}");
        producer.send(&at, &topic, 0, &[&value]).await.unwrap();
        let results = producer.commit_offset(&at, &group, &topic, round + 1).await;
        let results = results.unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        let (stable, end) = ends(&at, &topic, 0).await;
        assert_eq!(stable + 1, end, "round {round} is open");
        assert_eq!(committed(&at, &topic, 0).await, expected);
        assert_eq!(self::end(&fixture, session, commit).await.unwrap(), session);
        settled(&at, "one").await;
        if commit {
            expected.push(value);
        }
        let values: Vec<&str> = expected.iter().map(String::as_str).collect();
        sees(&at, &topic, 0, &values).await;
        let (stable, end) = ends(&at, &topic, 0).await;
        assert_eq!(stable, end, "nothing is left open by round {round}");
        let counts = if commit { round + 1 } else { round };
        assert_eq!(offset_of(&at, &group, true).await, Some(counts));
    }
    // The other way round: it registers by itself, and its end raises the epoch.
    producer.version = V1;
    let place = place(&topic, 0);
    producer.add(&at, Some(place), None).await.unwrap();
    producer.version = TransactionVersion::V2;
    producer.send(&at, &topic, 0, &["last"]).await.unwrap();
    producer.end(&at, true).await.unwrap();
    assert_eq!(producer.session.epoch, session.epoch + 1);
    producer.send(&at, &topic, 0, &["next"]).await.unwrap();
    assert_eq!(
        self::end(&fixture, producer.session, true).await.unwrap(),
        producer.session
    );
    settled(&at, "one").await;
    sees(&at, &topic, 0, &["v0", "v1", "v3", "last", "next"]).await;
    let (stable, end) = ends(&at, &topic, 0).await;
    assert_eq!(stable, end);
}

async fn end(fixture: &Fixture, producer: ProducerId, commit: bool) -> Result<ProducerId> {
    let request = EndTransaction {
        id: "one".parse().unwrap(),
        producer,
        commit,
        version: V1,
    };
    let context = Context::anonymous();
    fixture.broker.end_transaction(&context, request).await
}

#[tokio::test]
async fn epoch_and_sequences_go_on_from_one_transaction_to_the_next() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 2).await;
    let mut producer = Producer::open(&at, "one").await.of(V1);
    let session = producer.session;
    let mut expected = Vec::new();
    for (round, commit) in [true, false, false, true, true].into_iter().enumerate() {
        let value = format!("v{round}");
        producer.send(&at, &topic, 0, &[&value]).await.unwrap();
        producer.send(&at, &topic, 1, &[&value]).await.unwrap();
        let open = committed(&at, &topic, 0).await;
        assert_eq!(open, expected, "before the end");
        producer.end(&at, commit).await.unwrap();
        assert_eq!(producer.session, session);
        // Asked again, as by a producer that did not hear the answer.
        assert_eq!(end(&fixture, session, commit).await.unwrap(), session);
        let otherwise = kind(end(&fixture, session, !commit).await);
        assert_eq!(otherwise, ErrorKind::InvalidTransactionState);
        if commit {
            expected.push(value);
        }
        let values: Vec<&str> = expected.iter().map(String::as_str).collect();
        sees(&at, &topic, 0, &values).await;
        sees(&at, &topic, 1, &values).await;
    }
    let all = read(&at, &topic, 0, Isolation::Uncommitted).await;
    assert_eq!(all, ["v0", "v1", "v2", "v3", "v4"]);
    // Where they stand outlives a restart.
    let fixture = fixture.crash_and_restart().await;
    let at = At::One(&fixture.broker);
    producer.send(&at, &topic, 0, &["more"]).await.unwrap();
    producer.end(&at, true).await.unwrap();
    sees(&at, &topic, 0, &["v0", "v3", "v4", "more"]).await;
}

#[tokio::test]
async fn what_comes_late_begins_nothing() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 2).await;
    let mut producer = Producer::open(&at, "one").await.of(V1);
    let session = producer.session;
    // Of a partition that nobody has registered.
    let unregistered = kind(late(&fixture, &topic, (session, 0)).await);
    assert_eq!(unregistered, ErrorKind::InvalidTransactionState);
    producer.send(&at, &topic, 0, &["a"]).await.unwrap();
    producer.end(&at, true).await.unwrap();
    settled(&at, "one").await;
    let after = kind(late(&fixture, &topic, (session, 1)).await);
    assert_eq!(after, ErrorKind::InvalidTransactionState);
    // While the next one is open elsewhere.
    producer.send(&at, &topic, 1, &["b"]).await.unwrap();
    let beside = kind(late(&fixture, &topic, (session, 1)).await);
    assert_eq!(beside, ErrorKind::InvalidTransactionState);
    assert_eq!(committed(&at, &topic, 0).await, ["a"]);
    crate::support::produce(
        &fixture.broker,
        &topic,
        0,
        crate::support::batch(&["plain"]),
    )
    .await
    .unwrap();
    sees(&at, &topic, 0, &["a", "plain"]).await;
    producer.end(&at, true).await.unwrap();
    sees(&at, &topic, 1, &["b"]).await;
}

#[tokio::test]
async fn offsets_count_with_the_transaction_that_they_are_of() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 1).await;
    let values = ["1", "2", "3", "4", "5"];
    crate::support::produce(&fixture.broker, &topic, 0, crate::support::batch(&values))
        .await
        .unwrap();
    let group: GroupName = "g".parse().unwrap();
    let mut producer = Producer::open(&at, "one").await.of(V1);
    for (commit, to, expected) in [(false, 1, None), (true, 2, Some(2)), (false, 4, Some(2))] {
        let results = producer.commit_offset(&at, &group, &topic, to).await;
        let results = results.unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_ne!(group_offset(&at, &group).await, Some(to), "before the end");
        producer.end(&at, commit).await.unwrap();
        settled(&at, "one").await;
        assert_eq!(group_offset(&at, &group).await, expected);
    }
    // A commit for a group that was not added begins nothing.
    let mut stranger = Producer::open(&at, "two").await.of(V1);
    stranger
        .add(&at, Some(place(&topic, 0)), None)
        .await
        .unwrap();
    let other: GroupName = "other".parse().unwrap();
    let late = stranger.commit_unadded(&at, &other, &topic, 3).await;
    assert_eq!(kind(late), ErrorKind::InvalidTransactionState);
    assert_eq!(group_offset(&at, &other).await, None);
    let fixture = fixture.crash_and_restart().await;
    let at = At::One(&fixture.broker);
    assert_eq!(group_offset(&at, &group).await, Some(2));
}

#[tokio::test]
async fn a_successor_ends_what_was_left_behind() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 1).await;
    let mut first = Producer::open(&at, "one").await.of(V1);
    first.send(&at, &topic, 0, &["left behind"]).await.unwrap();
    let mut second = Producer::open(&at, "one").await.of(V1);
    assert!(second.session.epoch > first.session.epoch);
    assert_eq!(kind(first.end(&at, true).await), ErrorKind::ProducerFenced);
    let again = first.add(&at, Some(place(&topic, 0)), None).await;
    assert!(again.is_ok(), "it has registered that");
    assert_eq!(
        kind(first.send(&at, &topic, 0, &["zombie"]).await),
        ErrorKind::ProducerFenced
    );
    second.send(&at, &topic, 0, &["mine"]).await.unwrap();
    second.end(&at, true).await.unwrap();
    sees(&at, &topic, 0, &["mine"]).await;
    assert_eq!(settled(&at, "one").await, TransactionState::CompleteCommit);
}

#[tokio::test]
async fn nobody_keeps_an_epoch_before_every_node_can_read_what_is_written() {
    let nodes = Nodes::at_level(3, features::KEPT_EPOCHS - 1).await;
    let at = At::Any(&nodes);
    let context = Context::anonymous();
    let any = nodes.brokers[&NodeId(1)].clone();
    let topic = any.create_topic(&context, new_topic("t", 1)).await;
    let topic = topic.unwrap().name;
    let mut producer = Producer::open(&at, "one").await.of(V1);
    let refused = producer.send(&at, &topic, 0, &["early"]).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::UnsupportedFeature, "{refused:?}");
    assert!(refused.message.contains("need level 6"), "{refused:?}");
    nodes.shared.raise();
    let raised = any.finalize_features(&context, None, false).await;
    assert_eq!(raised.unwrap().level, features::KNOWN_LEVEL);
    producer.send(&at, &topic, 0, &["a"]).await.unwrap();
    producer.end(&at, true).await.unwrap();
    sees(&at, &topic, 0, &["a"]).await;
}
