//! Transactions through the broker: what readers see of them, what a crash leaves of them, who is fenced.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::cluster::Nodes;
use crate::support::transactions::*;
use crate::support::{Fixture, new_topic};
use varve_broker_api::{
    Broker as _, Context, EndTransaction, Fetch, FetchPartition, Isolation, OffsetQuery, Position,
    Produce, Result, TransactionState, TransactionVersion,
};
use varve_types::{
    Acks, ErrorKind, GroupName, NodeId, PartitionId, ProducerId, TopicName, TopicPartition,
};
use varve_vfs::Vfs as _;

#[tokio::test]
async fn a_commit_shows_everything_at_once_and_an_abort_nothing() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 2).await;
    let mut producer = Producer::open(&at, "one").await;
    producer.send(&at, &topic, 0, &["a", "b"]).await.unwrap();
    producer.send(&at, &topic, 1, &["c"]).await.unwrap();
    assert!(committed(&at, &topic, 0).await.is_empty());
    assert_eq!(
        read(&at, &topic, 0, Isolation::Uncommitted).await,
        ["a", "b"]
    );
    let before = producer.session;
    producer.end(&at, true).await.unwrap();
    assert_eq!(
        producer.session.epoch,
        before.epoch + 1,
        "raised by the end"
    );
    sees(&at, &topic, 0, &["a", "b"]).await;
    sees(&at, &topic, 1, &["c"]).await;
    // The next one is aborted, with a record of somebody else in between.
    settled(&at, "one").await;
    producer.send(&at, &topic, 0, &["d"]).await.unwrap();
    let plain = crate::support::batch(&["e"]);
    crate::support::produce(&fixture.broker, &topic, 0, plain)
        .await
        .unwrap();
    producer.send(&at, &topic, 0, &["f"]).await.unwrap();
    assert_eq!(
        committed(&at, &topic, 0).await,
        ["a", "b"],
        "e waits behind d"
    );
    producer.end(&at, false).await.unwrap();
    assert_eq!(settled(&at, "one").await, TransactionState::CompleteAbort);
    sees(&at, &topic, 0, &["a", "b", "e"]).await;
    let all = read(&at, &topic, 0, Isolation::Uncommitted).await;
    assert_eq!(all, ["a", "b", "d", "e", "f"]);
}

#[tokio::test]
async fn positions_go_by_the_end_that_the_reader_has() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 1).await;
    let plain = crate::support::batch(&["a", "b"]);
    crate::support::produce(&fixture.broker, &topic, 0, plain)
        .await
        .unwrap();
    let mut producer = Producer::open(&at, "one").await;
    producer.send(&at, &topic, 0, &["c"]).await.unwrap();
    for (isolation, latest) in [(Isolation::Committed, 2), (Isolation::Uncommitted, 3)] {
        for (position, expected) in [
            (Position::Latest, latest),
            (Position::Last(1), latest - 1),
            (Position::Earliest, 0),
        ] {
            let query = OffsetQuery {
                partition: TopicPartition::new(topic.clone(), PartitionId(0)),
                position: Some(position),
                with_time: false,
                isolation,
            };
            let context = Context::anonymous();
            let found = fixture.broker.list_offsets(&context, vec![query]).await;
            let found = found.into_iter().next().unwrap().unwrap();
            assert_eq!(
                found.offset,
                Some(offset(expected)),
                "{isolation:?} {position:?}"
            );
            assert_eq!(found.end(isolation), offset(latest));
        }
    }
}

#[tokio::test]
async fn batches_that_wait_for_the_registration_keep_their_order() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 1).await;
    let producer = Producer::open(&at, "one").await;
    let mut receipts = Vec::new();
    for sequence in 0..5 {
        let value = sequence.to_string();
        let request = Produce {
            transaction_version: Default::default(),
            topic: topic.clone(),
            partition: PartitionId(0),
            acks: Acks::All,
            batch: txn_batch(producer.session, sequence, &[&value]),
            expected_offset: None,
            transactional_id: Some(producer.id.clone()),
        };
        let receipt = fixture.broker.produce(&Context::anonymous(), request).await;
        receipts.push(receipt.unwrap());
    }
    for (n, receipt) in (0..).zip(receipts) {
        assert_eq!(receipt.await.unwrap().base_offset, Some(offset(n)));
    }
}

/// Records in `__transaction_state`.
async fn decisions(fixture: &Fixture) -> i64 {
    let mut all = 0;
    for n in 0..3 {
        let topic = "__transaction_state".parse().unwrap();
        let query = OffsetQuery {
            partition: TopicPartition::new(topic, PartitionId(n)),
            position: Some(Position::Latest),
            with_time: false,
            isolation: Isolation::Uncommitted,
        };
        let context = Context::anonymous();
        let found = fixture.broker.list_offsets(&context, vec![query]).await;
        let found = found.into_iter().next().unwrap().unwrap();
        all += found.high_watermark.get();
    }
    all
}

#[tokio::test]
async fn partitions_that_a_transaction_comes_to_at_a_time_are_registered_together() {
    const PARTITIONS: i32 = 12;
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", PARTITIONS).await;
    let mut producer = Producer::open(&at, "one").await;
    let mut before = decisions(&fixture).await;
    // The second time, the transaction before may still be being completed: nobody is told to come back.
    for round in 0..2 {
        let mut receipts = Vec::new();
        for n in 0..PARTITIONS {
            let request = Produce {
                transaction_version: Default::default(),
                topic: topic.clone(),
                partition: PartitionId(n),
                acks: Acks::All,
                batch: txn_batch(producer.session, 0, &["a"]),
                expected_offset: None,
                transactional_id: Some(producer.id.clone()),
            };
            let receipt = fixture.broker.produce(&Context::anonymous(), request).await;
            receipts.push(receipt.unwrap());
        }
        for receipt in receipts {
            receipt.await.unwrap();
        }
        let written = decisions(&fixture).await - before;
        assert!(
            (1..i64::from(PARTITIONS)).contains(&written),
            "{written} records for {PARTITIONS} partitions in round {round}"
        );
        producer.end(&at, true).await.unwrap();
        before = decisions(&fixture).await;
    }
    for n in 0..PARTITIONS {
        sees(&at, &topic, n, &["a", "a"]).await;
    }
}

#[tokio::test]
async fn offsets_of_a_transaction_count_when_it_is_committed() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 1).await;
    let values = ["1", "2", "3", "4", "5"];
    crate::support::produce(&fixture.broker, &topic, 0, crate::support::batch(&values))
        .await
        .unwrap();
    let group: GroupName = "g".parse().unwrap();
    let mut producer = Producer::open(&at, "one").await;
    for (commit, to, expected) in [(false, 1, None), (true, 2, Some(2)), (false, 4, Some(2))] {
        let results = producer
            .commit_offset(&at, &group, &topic, to)
            .await
            .unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        let before = group_offset(&at, &group).await;
        assert_ne!(before, Some(to), "before the end");
        producer.end(&at, commit).await.unwrap();
        settled(&at, "one").await;
        assert_eq!(group_offset(&at, &group).await, expected);
    }
    // Beyond the end of the log there is nothing to have been read.
    let results = producer
        .commit_offset(&at, &group, &topic, 99)
        .await
        .unwrap();
    assert_eq!(
        kind(results.into_iter().next().unwrap()),
        ErrorKind::OffsetOutOfRange
    );
    // What was committed is there after a restart, what was aborted is not.
    let fixture = fixture.crash_and_restart().await;
    assert_eq!(
        group_offset(&At::One(&fixture.broker), &group).await,
        Some(2)
    );
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_all_of_it_or_nothing() {
    let versions = [TransactionVersion::V1, TransactionVersion::V2];
    let cases = versions.iter().flat_map(|v| (0..4).map(move |s| (*v, s)));
    for (version, step) in cases {
        let fixture = Fixture::new().await;
        let at = At::One(&fixture.broker);
        let topic = fixture.create("t", 2).await;
        let group: GroupName = "g".parse().unwrap();
        let input = crate::support::batch(&["x", "y"]);
        crate::support::produce(&fixture.broker, &topic, 1, input)
            .await
            .unwrap();
        let mut producer = Producer::open(&at, "one").await.of(version);
        let mut fixture = fixture;
        for n in 0..4 {
            let at = At::One(&fixture.broker);
            match n {
                0 => producer.send(&at, &topic, 0, &["a"]).await.unwrap(),
                1 => {
                    let results = producer.commit_offset(&at, &group, &topic, 0).await;
                    assert!(results.unwrap().iter().all(Result::is_ok));
                }
                2 => producer.send(&at, &topic, 1, &["b"]).await.unwrap(),
                _ => producer.end(&at, true).await.unwrap(),
            }
            if n == step {
                fixture = fixture.crash_and_restart().await;
            }
        }
        let at = At::One(&fixture.broker);
        assert_eq!(settled(&at, "one").await, TransactionState::CompleteCommit);
        sees(&at, &topic, 0, &["a"]).await;
        sees(&at, &topic, 1, &["x", "y", "b"]).await;
        assert_eq!(
            group_offset(&at, &group).await,
            Some(0),
            "{version:?} {step}"
        );
    }
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_aborted() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 1).await;
    let mut producer = Producer::with_timeout(&at, "slow", Duration::from_secs(1)).await;
    producer.send(&at, &topic, 0, &["a"]).await.unwrap();
    let plain = crate::support::batch(&["b"]);
    crate::support::produce(&fixture.broker, &topic, 0, plain)
        .await
        .unwrap();
    sees(&at, &topic, 0, &["b"]).await;
    let late = producer.send(&at, &topic, 0, &["c"]).await;
    assert!(
        matches!(
            late.map_err(|e| e.kind),
            Err(ErrorKind::ProducerFenced | ErrorKind::TransactionAborted)
        ),
        "what comes late is no part of anything"
    );
    assert_eq!(
        kind(producer.end(&at, true).await),
        ErrorKind::TransactionAborted
    );
    sees(&at, &topic, 0, &["b"]).await;
}

#[tokio::test]
async fn a_successor_fences_and_ends_what_was_left_behind() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 1).await;
    let mut first = Producer::open(&at, "one").await;
    first.send(&at, &topic, 0, &["a"]).await.unwrap();
    let mut second = Producer::open(&at, "one").await;
    assert_eq!(second.session.id, first.session.id);
    assert!(second.session.epoch > first.session.epoch);
    assert_eq!(
        kind(first.send(&at, &topic, 0, &["b"]).await),
        ErrorKind::ProducerFenced
    );
    assert_eq!(kind(first.end(&at, true).await), ErrorKind::ProducerFenced);
    second.send(&at, &topic, 0, &["c"]).await.unwrap();
    second.end(&at, true).await.unwrap();
    sees(&at, &topic, 0, &["c"]).await;
    // An operator ends what hangs.
    second.send(&at, &topic, 0, &["d"]).await.unwrap();
    let context = Context::anonymous();
    fixture
        .broker
        .abort_transaction(&context, &second.id)
        .await
        .unwrap();
    sees(&at, &topic, 0, &["c"]).await;
    assert_eq!(
        kind(second.end(&at, true).await),
        ErrorKind::TransactionAborted
    );
    let listed = fixture.broker.transactions(&context).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, second.id);
}

#[tokio::test]
async fn where_nobody_has_used_transactions_none_is_found() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 1).await;
    let mut producer = Producer::with_session("none", ProducerId { id: 1, epoch: 0 });
    let sent = producer.send(&at, &topic, 0, &["a"]).await;
    assert_eq!(kind(sent), ErrorKind::UnknownProducer);
    assert_eq!(
        kind(producer.end(&at, true).await),
        ErrorKind::UnknownProducer
    );
    assert_eq!(
        kind(state(&at, &producer.id).await),
        ErrorKind::TransactionNotFound
    );
    let context = Context::anonymous();
    let aborted = fixture.broker.abort_transaction(&context, &producer.id);
    assert_eq!(kind(aborted.await), ErrorKind::TransactionNotFound);
    let listed = fixture.broker.transactions(&context).await.unwrap();
    assert!(listed.is_empty());
    let topics = fixture.broker.topics(&context).unwrap();
    assert_eq!(topics.len(), 1, "nothing was made for it");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let fixture = Fixture::new().await;
    let at = At::One(&fixture.broker);
    let topic = fixture.create("t", 1).await;
    let mut producer = Producer::open(&at, "one").await;
    // One without anything in it is a transaction too.
    producer.end(&at, true).await.unwrap();
    let mut stranger = Producer::with_session("two", producer.session);
    assert_eq!(
        kind(stranger.send(&at, &topic, 0, &["a"]).await),
        ErrorKind::UnknownProducer
    );
    assert_eq!(
        kind(stranger.end(&at, true).await),
        ErrorKind::UnknownProducer
    );
    for (id, acks) in [(None, Acks::All), (Some(producer.id.clone()), Acks::Leader)] {
        let request = Produce {
            transaction_version: Default::default(),
            topic: topic.clone(),
            partition: PartitionId(0),
            acks,
            batch: txn_batch(producer.session, 0, &["a"]),
            expected_offset: None,
            transactional_id: id,
        };
        let receipt = fixture.broker.produce(&Context::anonymous(), request).await;
        assert_eq!(kind(receipt.map(|_| ())), ErrorKind::InvalidRequest);
    }
    assert!(
        read(&at, &topic, 0, Isolation::Uncommitted)
            .await
            .is_empty()
    );
    producer.send(&at, &topic, 0, &["a"]).await.unwrap();
    let session = producer.session;
    producer.end(&at, true).await.unwrap();
    let after = producer.session;
    // The same call again, as after an answer that was lost.
    producer.session = session;
    producer.end(&at, true).await.unwrap();
    assert_eq!(producer.session, after);
    producer.session = session;
    assert_eq!(
        kind(producer.end(&at, false).await),
        ErrorKind::InvalidTransactionState
    );
    sees(&at, &topic, 0, &["a"]).await;
}

/// The node that coordinates "one".
fn coordinator(nodes: &Nodes) -> NodeId {
    let count = nodes.shared.look(|state| {
        let topic = state.topic(&"__transaction_state".parse().unwrap());
        i32::try_from(topic.unwrap().partitions.len()).unwrap()
    });
    let number = varve_types::partitioner::coordinator_partition("one", count);
    nodes
        .partition("__transaction_state", number.0)
        .leader
        .unwrap()
}

#[tokio::test]
async fn transactions_outlive_coordinators_and_leaders() {
    outlive(TransactionVersion::V2).await;
}

#[tokio::test]
async fn transactions_with_one_epoch_outlive_coordinators_and_leaders() {
    outlive(TransactionVersion::V1).await;
}

async fn outlive(version: TransactionVersion) {
    let mut nodes = Nodes::new(3).await;
    let request = varve_broker_api::CreateTopic {
        replication_factor: Some(3),
        ..new_topic("t", 3)
    };
    let context = Context::anonymous();
    let any = nodes.brokers[&NodeId(1)].clone();
    let topic = any.create_topic(&context, request).await.unwrap().name;
    let group: GroupName = "g".parse().unwrap();
    for n in 0..3 {
        nodes.in_sync("t", n, 3).await;
    }
    let mut producer = Producer::open(&At::Any(&nodes), "one").await.of(version);
    let mut expected = Vec::new();
    for round in 0..4 {
        let value = format!("v{round}");
        let victim = coordinator(&nodes);
        let mut left = None;
        for step in 0..4 {
            if step == round {
                left = Some(nodes.kill(victim).await);
                let other = nodes.brokers.keys().next().copied();
                nodes.shared.lead(other.unwrap());
            }
            let at = At::Any(&nodes);
            match step {
                0 => {
                    for n in 0..3 {
                        producer.send(&at, &topic, n, &[&value]).await.unwrap();
                    }
                }
                1 => {
                    let results = producer.commit_offset(&at, &group, &topic, 0).await;
                    assert!(results.unwrap().iter().all(Result::is_ok));
                }
                2 => producer.end(&at, round % 2 == 0).await.unwrap(),
                _ => {}
            }
        }
        if round % 2 == 0 {
            expected.push(value);
        }
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        for n in 0..3 {
            sees(&At::Any(&nodes), &topic, n, &expected).await;
        }
        nodes.restart(victim, left.unwrap()).await;
        nodes.active(3).await;
        for n in 0..3 {
            nodes.in_sync("t", n, 3).await;
        }
        settled(&At::Any(&nodes), "one").await;
    }
    assert_eq!(group_offset(&At::Any(&nodes), &group).await, Some(0));
}

/// Found by the simulator (seed 4149): a coordinator that had been replaced without hearing of it told the owner of a
/// session, by what it remembered, that nobody knows that session, and the producer gave up for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_was_replaced_without_knowing_sends_nobody_away() {
    let nodes = Nodes::new(3).await;
    let id = "one";
    let first = Producer::open(&At::Any(&nodes), id).await;
    let old = coordinator(&nodes);
    let asleep = nodes.brokers[&old].clone();
    let other = (1..=3).map(NodeId).find(|n| *n != old).unwrap();
    nodes.shared.lead(other);
    nodes.net.cut(old);
    crate::support::until("another coordinator", || coordinator(&nodes) != old).await;
    let others = nodes.brokers.iter().filter(|(n, _)| **n != old);
    let others = others.map(|(_, broker)| broker.clone()).collect();
    let living = At::Living(Arc::new(Mutex::new(others)));
    let mut second = Producer::open(&living, id).await;
    assert!(second.session.epoch > first.session.epoch);
    let refused = |producer: ProducerId| {
        let request = EndTransaction {
            version: Default::default(),
            id: id.parse().unwrap(),
            producer,
            commit: true,
        };
        let asleep = asleep.clone();
        async move {
            let context = Context::anonymous();
            let ended = asleep.end_transaction(&context, request);
            ended.await.unwrap_err()
        }
    };
    let error = refused(second.session).await;
    assert_eq!(error.kind, ErrorKind::CoordinatorLoading, "{error:?}");
    assert!(error.message.contains("cannot confirm"), "{error:?}");
    // Healed it knows better than to answer for somebody else, and the session works.
    nodes.net.heal();
    for _ in 0..400 {
        if refused(second.session).await.kind == ErrorKind::NotCoordinator {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let error = refused(second.session).await;
    assert_eq!(error.kind, ErrorKind::NotCoordinator, "{error:?}");
    nodes.active(3).await;
    let request = varve_broker_api::CreateTopic {
        replication_factor: Some(3),
        ..new_topic("t", 1)
    };
    let any = nodes.brokers[&other].clone();
    let topic = any.create_topic(&Context::anonymous(), request).await;
    let topic = topic.unwrap().name;
    let at = At::Any(&nodes);
    second.send(&at, &topic, 0, &["a"]).await.unwrap();
    second.end(&at, true).await.unwrap();
    sees(&at, &topic, 0, &["a"]).await;
}

#[tokio::test]
async fn compaction_keeps_what_is_undecided_and_drops_what_was_aborted() {
    let disk = std::sync::Arc::new(varve_vfs::mem::MemVfs::new());
    let (broker, _, _) = crate::support::watched(&disk).await;
    let at = At::One(&broker);
    let topic = crate::support::create_with(
        &broker,
        "c",
        &[("cleanup.policy", "compact"), ("segment.bytes", "4096")],
    )
    .await;
    let mut producer = Producer::open(&at, "one").await;
    producer.send(&at, &topic, 0, &["kept"]).await.unwrap();
    producer.end(&at, true).await.unwrap();
    settled(&at, "one").await;
    let long = "x".repeat(900);
    for _ in 0..8 {
        producer.send(&at, &topic, 0, &[&long]).await.unwrap();
    }
    producer.end(&at, false).await.unwrap();
    settled(&at, "one").await;
    // Every record has the same key: only the last that counts is left, and it is the first.
    for _ in 0..100 {
        let all = read(&at, &topic, 0, Isolation::Uncommitted).await;
        assert_eq!(committed(&at, &topic, 0).await, ["kept"]);
        if all.len() < 9 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the log is never compacted");
}

/// Aborted transactions that a reader of everything is told of, from the start of the log to the last stable offset.
async fn told_aborted(broker: &varve_broker::Broker, topic: &TopicName) -> BTreeSet<(i64, i64)> {
    let (mut from, mut told, mut idle) = (offset(0), BTreeSet::new(), 0);
    loop {
        let isolation = Isolation::Committed;
        let fetch = Fetch {
            raw: true,
            isolation,
            partitions: vec![FetchPartition {
                topic: topic.clone(),
                partition: PartitionId(0),
                offset: from,
                max_bytes: 1 << 20,
                leader_epoch: None,
            }],
            max_wait: Duration::ZERO,
            min_bytes: 1,
            max_bytes: 1 << 20,
        };
        let fetched = broker.fetch(&Context::anonymous(), fetch).await.unwrap();
        let fetched = fetched.into_iter().next().unwrap().result.unwrap();
        let aborted = fetched.aborted.iter();
        told.extend(aborted.map(|a| (a.producer, a.first.get())));
        match crate::support::next_place(from, &fetched, isolation, &mut idle).await {
            Some(next) => from = next,
            None => return told,
        }
    }
}

/// The start of a compacted log never moves, so nothing else would ever forget them.
#[tokio::test]
async fn a_compacted_log_forgets_what_was_aborted_and_readers_never_see_any_of_it() {
    let disk = std::sync::Arc::new(varve_vfs::mem::MemVfs::new());
    let (broker, _, _) = crate::support::watched(&disk).await;
    let at = At::One(&broker);
    let configs = [("cleanup.policy", "compact"), ("segment.bytes", "4096")];
    let topic = crate::support::create_with(&broker, "c", &configs).await;
    let mut producer = Producer::open(&at, "one").await;
    producer.send(&at, &topic, 0, &["kept"]).await.unwrap();
    producer.end(&at, true).await.unwrap();
    settled(&at, "one").await;
    let rounds = 40;
    let over = std::sync::atomic::AtomicBool::new(false);
    let aborting = async {
        let long = "x".repeat(900);
        for _ in 0..rounds {
            producer.send(&at, &topic, 0, &[&long]).await.unwrap();
            producer.end(&at, false).await.unwrap();
            settled(&at, "one").await;
        }
        // What is in the segment that is written to is not compacted.
        let mut told = told_aborted(&broker, &topic).await;
        for _ in 0..400 {
            if told.len() <= 8 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
            told = told_aborted(&broker, &topic).await;
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        told
    };
    let reading = async {
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            assert_eq!(committed(&at, &topic, 0).await, ["kept"]);
            tokio::task::yield_now().await;
        }
    };
    let (told, ()) = tokio::join!(aborting, reading);
    assert!(told.len() <= 8, "{} of {rounds} are kept", told.len());
    assert_eq!(committed(&at, &topic, 0).await, ["kept"]);
    assert!(broker.shutdown().await);
    // The snapshot that was saved has no more of them, and the log alone says the same.
    for with_snapshots in [true, false] {
        if !with_snapshots {
            remove_snapshots(&disk, "/data/topics".as_ref());
        }
        let (broker, _, _) = crate::support::watched(&disk).await;
        assert_eq!(committed(&At::One(&broker), &topic, 0).await, ["kept"]);
        let found = told_aborted(&broker, &topic).await;
        assert!(found.is_subset(&told), "{found:?} of {told:?}");
        broker.shutdown().await;
    }
}

/// Removes what spares a start the reading of logs.
fn remove_snapshots(disk: &varve_vfs::mem::MemVfs, dir: &std::path::Path) {
    for entry in disk.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        match entry.is_dir {
            true => remove_snapshots(disk, &path),
            false if entry.name.ends_with(".snapshot") => disk.remove_file(&path).unwrap(),
            false => {}
        }
    }
}
