//! A consumer of given partitions: every verb, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::timeout;
use varve_client::{
    Assignment, ClientError, CommitConfig, CommittedOffset, Consumer, ConsumerConfig, End,
    GroupConfig, GroupConsumer, Producer, ProducerConfig, RecordRef, Start,
};
use varve_types::{ErrorKind, PartitionId, TopicPartition};

use crate::groups::{Cluster, PATIENCE};

fn p(partition: i32) -> TopicPartition {
    TopicPartition::new("events".parse().unwrap(), PartitionId(partition))
}

fn all(partitions: i32, start: Start, end: End) -> Vec<Assignment> {
    let assignment = |partition| Assignment {
        topic: "events".parse().unwrap(),
        partition,
        start,
        end,
    };
    (0..partitions).map(assignment).collect()
}

async fn open(cluster: &Cluster, assignments: Vec<Assignment>) -> Consumer {
    let config = ConsumerConfig::default();
    Consumer::open(cluster.client.clone(), config, assignments)
        .await
        .unwrap()
}

async fn open_in_group(cluster: &Cluster, interval: Option<Duration>) -> Consumer {
    let commits = CommitConfig {
        interval,
        ..CommitConfig::new("workers".parse().unwrap())
    };
    let (client, config) = (cluster.client.clone(), ConsumerConfig::default());
    let assignments = all(2, Start::Earliest, End::Never);
    Consumer::open_in_group(client, config, commits, assignments)
        .await
        .unwrap()
}

/// So many offsets, by partition in the order in which they came.
async fn read(consumer: &mut Consumer, count: usize) -> BTreeMap<i32, Vec<i64>> {
    let mut seen: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    let mut records = consumer.records();
    for _ in 0..count {
        let record = timeout(PATIENCE, records.next()).await.unwrap();
        let record = record.unwrap().unwrap();
        seen.entry(record.partition.0)
            .or_default()
            .push(record.offset);
    }
    seen
}

fn ranges<const N: usize>(wanted: [(i32, std::ops::Range<i64>); N]) -> BTreeMap<i32, Vec<i64>> {
    wanted
        .map(|(partition, range)| (partition, range.collect()))
        .into()
}

#[tokio::test]
async fn polls_end_in_time_and_streams_at_the_end() {
    let cluster = Cluster::start(2).await;
    let mut consumer = open(&cluster, all(2, Start::Earliest, End::Never)).await;
    assert!(consumer.poll(Duration::ZERO).await.unwrap().is_none());
    let short = Duration::from_millis(30);
    assert!(consumer.poll(short).await.unwrap().is_none());
    cluster.produce("events", 2, 0..20).await;
    // Calls that are given no time at all get there as well.
    let work = async {
        let mut count = 0;
        while count < 40 {
            match consumer.poll(Duration::ZERO).await.unwrap() {
                Some(batch) => count += batch.records().unwrap().count(),
                None => tokio::task::yield_now().await,
            }
        }
        assert_eq!(count, 40);
    };
    timeout(PATIENCE, work).await.unwrap();
    assert!(!consumer.is_done());

    let mut bounded = open(&cluster, all(2, Start::Last(3), End::CurrentEnd)).await;
    let batches: Vec<_> = timeout(PATIENCE, bounded.stream().collect()).await.unwrap();
    let batches: Vec<_> = batches.into_iter().map(Result::unwrap).collect();
    let count = |batch: &varve_client::FetchedBatch| batch.records().unwrap().count();
    assert_eq!(batches.iter().map(count).sum::<usize>(), 6);
    assert!(bounded.is_done());
    assert!(bounded.poll(PATIENCE).await.unwrap().is_none(), "at once");
    assert!(bounded.records().next().await.is_none());
    assert_eq!(bounded.assignment(), &BTreeSet::from([p(0), p(1)]));
    // More, and less.
    bounded.seek(&p(1), Start::Offset(18)).await.unwrap();
    assert_eq!(read(&mut bounded, 2).await, ranges([(1, 18..20)]));
    bounded.unassign(&[p(1), p(7)]).await.unwrap();
    assert_eq!(bounded.assignment(), &BTreeSet::from([p(0)]));
    let mut again = all(2, Start::Offset(5), End::Offset(7));
    let twice = bounded.assign(again.clone()).await.unwrap_err();
    assert!(matches!(twice, ClientError::Config(_)), "{twice}");
    again.remove(0);
    bounded.assign(again).await.unwrap();
    assert_eq!(read(&mut bounded, 2).await, ranges([(1, 5..7)]));
    bounded.close().await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn records_are_whole_and_a_stream_that_is_dropped_loses_none() {
    let cluster = Cluster::start(1).await;
    let producer = Producer::new(cluster.client.clone(), ProducerConfig::default()).unwrap();
    let headers: [(&[u8], _); 3] = [
        (b"kind", Some(&b"a"[..])),
        (b"kind", None),
        (b"empty", None),
    ];
    for number in 0..20_i64 {
        let key = number.to_string();
        let record = RecordRef {
            key: Some(key.as_bytes()),
            value: (number != 7).then_some(b"value"),
            headers: &headers,
            timestamp_ms: Some(1_700_000_000_000 + number),
            ..Default::default()
        };
        producer.enqueue(&p(0).topic, record).await.unwrap();
    }
    producer.close().await.unwrap();
    let mut consumer = open(&cluster, all(1, Start::Earliest, End::CurrentEnd)).await;
    for number in 0..10_i64 {
        // A stream for each record.
        let record = timeout(PATIENCE, consumer.records().next()).await.unwrap();
        let record = record.unwrap().unwrap();
        assert_eq!(record.topic_partition(), p(0));
        assert_eq!(record.offset, number);
        assert_eq!(record.timestamp, 1_700_000_000_000 + number);
        assert_eq!(record.key.as_deref(), Some(number.to_string().as_bytes()));
        assert_eq!(record.value.is_some(), number != 7);
        assert_eq!(record.header("kind"), Some(&b"a"[..]));
        assert_eq!(record.header("empty"), None);
        assert_eq!(record.headers.len(), 3);
        assert_eq!(consumer.position(&p(0)), Ok(number + 1));
    }
    consumer.not_processed();
    // The rest as a batch, with the record that was put back.
    let rest = timeout(PATIENCE, consumer.next_batch()).await.unwrap();
    let rest = rest.unwrap().unwrap();
    let first = rest.records().unwrap().next_ref().unwrap().unwrap().offset;
    assert_eq!(first.get(), 9);
    assert_eq!(rest.next_offset, consumer.position(&p(0)).unwrap());
    cluster.stop().await;
}

#[tokio::test]
async fn a_paused_partition_waits_and_the_others_go_on() {
    let cluster = Cluster::start(3).await;
    cluster.produce("events", 3, 0..10).await;
    let mut consumer = open(&cluster, all(3, Start::Earliest, End::Never)).await;
    // In the middle of a batch of each.
    let first = read(&mut consumer, 1).await;
    let paused = p(*first.keys().next().unwrap());
    consumer.pause([&paused]).unwrap();
    assert_eq!(consumer.paused(), BTreeSet::from([paused.clone()]));
    cluster.produce("events", 3, 10..20).await;
    let others = read(&mut consumer, 40).await;
    assert_eq!(others.len(), 2);
    assert!(
        others
            .values()
            .all(|offsets| offsets.iter().copied().eq(0..20))
    );
    let nothing = consumer.poll(Duration::from_millis(100)).await.unwrap();
    assert!(nothing.is_none(), "{nothing:?}");
    assert_eq!(consumer.position(&paused), Ok(1));
    // Calls that are dropped change nothing.
    for _ in 0..20 {
        assert!(consumer.poll(Duration::ZERO).await.unwrap().is_none());
    }
    let strange = [&paused, &p(9)];
    let refused = consumer.resume(strange).unwrap_err();
    assert_eq!(refused, ClientError::NotAssigned(p(9)));
    assert_eq!(consumer.pause(strange), Err(refused));
    assert_eq!(consumer.paused().len(), 1, "nothing was changed");
    consumer.resume([&paused]).unwrap();
    let rest = read(&mut consumer, 19).await;
    assert_eq!(rest, ranges([(paused.partition.0, 1..20)]));
    cluster.stop().await;
}

#[tokio::test]
async fn a_seek_holds_from_the_next_record_on() {
    let cluster = Cluster::start(2).await;
    cluster.produce("events", 2, 0..50).await;
    let mut consumer = open(&cluster, all(1, Start::Offset(10), End::Never)).await;
    assert_eq!(read(&mut consumer, 5).await, ranges([(0, 10..15)]));
    assert_eq!(consumer.seek(&p(0), Start::Offset(40)).await, Ok(40));
    assert_eq!(consumer.position(&p(0)), Ok(40));
    assert_eq!(read(&mut consumer, 10).await, ranges([(0, 40..50)]));
    assert_eq!(consumer.seek(&p(0), Start::Earliest).await, Ok(0));
    assert_eq!(read(&mut consumer, 50).await, ranges([(0, 0..50)]));
    assert_eq!(consumer.seek(&p(0), Start::Last(2)).await, Ok(48));
    assert_eq!(read(&mut consumer, 2).await, ranges([(0, 48..50)]));
    // Every record is younger than that, and none is older than the end of time.
    assert_eq!(consumer.seek(&p(0), Start::Timestamp(1)).await, Ok(0));
    assert_eq!(read(&mut consumer, 1).await, ranges([(0, 0..1)]));
    assert_eq!(consumer.seek(&p(0), Start::Latest).await, Ok(50));
    cluster.produce("events", 1, 50..51).await;
    assert_eq!(read(&mut consumer, 1).await, ranges([(0, 50..51)]));

    let invalid = consumer.seek(&p(0), Start::Offset(-1)).await.unwrap_err();
    let wanted = ClientError::InvalidOffset {
        partition: p(0),
        offset: -1,
    };
    assert_eq!(invalid, wanted);
    let unassigned = Err(ClientError::NotAssigned(p(1)));
    assert_eq!(consumer.seek(&p(1), Start::Earliest).await, unassigned);
    assert_eq!(consumer.position(&p(1)), unassigned);
    assert_eq!(consumer.position(&p(0)), Ok(51), "nothing was changed");

    // Where there is nothing: an error, and a seek goes on from it.
    consumer.seek(&p(0), Start::Offset(9_000)).await.unwrap();
    let error = timeout(PATIENCE, consumer.next_batch()).await.unwrap();
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::OffsetOutOfRange), "{error}");
    consumer.seek(&p(0), Start::Offset(49)).await.unwrap();
    assert_eq!(read(&mut consumer, 2).await, ranges([(0, 49..51)]));
    cluster.stop().await;
}

#[tokio::test]
async fn a_reader_commits_for_a_group_without_members() {
    let cluster = Cluster::start(2).await;
    cluster.produce("events", 2, 0..10).await;
    let mut consumer = open_in_group(&cluster, None).await;
    assert!(consumer.committed([&p(0)]).await.unwrap().is_empty());
    consumer.commit().await.unwrap();
    assert!(
        cluster.committed("events").await.is_empty(),
        "nothing to commit"
    );
    consumer.pause([&p(1)]).unwrap();
    assert_eq!(read(&mut consumer, 4).await, ranges([(0, 0..4)]));
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("events").await, BTreeMap::from([(0, 4)]));
    let told = CommittedOffset {
        offset: 6,
        metadata: "so far".to_owned(),
        leader_epoch: None,
    };
    consumer
        .commit_offsets([(p(1), told.clone())])
        .await
        .unwrap();
    let none: [(TopicPartition, i64); 0] = [];
    consumer.commit_offsets(none).await.unwrap();
    let found = consumer.committed([&p(0), &p(1)]).await.unwrap();
    let wanted = BTreeMap::from([(p(0), CommittedOffset::from(4)), (p(1), told)]);
    assert_eq!(found, wanted);

    let negative = consumer.commit_offsets([(p(0), 5), (p(1), -1)]).await;
    assert!(matches!(negative, Err(ClientError::InvalidOffset { .. })));
    let elsewhere = consumer.commit_offsets([(p(0), 5), (p(7), 1)]).await;
    assert_eq!(elsewhere, Err(ClientError::NotAssigned(p(7))));
    let beyond = consumer.commit_offsets([(p(0), 11)]).await.unwrap_err();
    assert!(!beyond.is_retryable(), "{beyond}");
    let unchanged = BTreeMap::from([(0, 4), (1, 6)]);
    assert_eq!(cluster.committed("events").await, unchanged);
    consumer.close().await.unwrap();

    // From where it was; without being asked, what was processed is committed at the end.
    let mut again = open_in_group(&cluster, Some(Duration::from_secs(600))).await;
    assert_eq!(read(&mut again, 10).await, ranges([(0, 4..10), (1, 6..10)]));
    again.close().await.unwrap();
    let ends = BTreeMap::from([(0, 10), (1, 10)]);
    assert_eq!(cluster.committed("events").await, ends);

    // A group with members is theirs.
    let config = GroupConfig::new("workers".parse().unwrap(), vec![p(0).topic]);
    let mut member = GroupConsumer::join(cluster.client.clone(), config).unwrap();
    let work = async {
        while member.owned().len() < 2 {
            member.poll(Duration::from_millis(20)).await.unwrap();
        }
    };
    timeout(PATIENCE, work).await.unwrap();
    let mut stranger = open_in_group(&cluster, None).await;
    let refused = stranger.commit_offsets([(p(0), 1)]).await.unwrap_err();
    assert!(!refused.is_retryable(), "{refused}");
    member.close().await.unwrap();
    assert_eq!(cluster.committed("events").await, ends);
    cluster.stop().await;
}

#[tokio::test]
async fn automatic_commits_do_not_hold_up_the_reading() {
    let cluster = Cluster::start(2).await;
    cluster.produce("events", 2, 0..10).await;
    let mut consumer = open_in_group(&cluster, Some(Duration::ZERO)).await;
    assert_eq!(read(&mut consumer, 20).await.len(), 2);
    let wanted = BTreeMap::from([(0, 10), (1, 10)]);
    let work = async {
        while cluster.committed("events").await != wanted {
            let more = consumer.poll(Duration::from_millis(5)).await.unwrap();
            assert!(more.is_none());
        }
    };
    timeout(PATIENCE, work).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_said_at_once() {
    let cluster = Cluster::start(1).await;
    let (client, config) = (cluster.client.clone(), ConsumerConfig::default());
    let opened = Consumer::open(
        client.clone(),
        config.clone(),
        all(2, Start::Earliest, End::Never),
    );
    let error = opened.await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::PartitionNotFound), "{error}");
    let mut missing = all(1, Start::Earliest, End::Never);
    missing[0].topic = "missing".parse().unwrap();
    let opened = Consumer::open(client.clone(), config.clone(), missing).await;
    assert_eq!(opened.unwrap_err().kind(), Some(ErrorKind::TopicNotFound));
    let twice = [
        all(1, Start::Earliest, End::Never),
        all(1, Start::Latest, End::Never),
    ]
    .concat();
    let opened = Consumer::open(client, config, twice).await;
    assert!(matches!(opened, Err(ClientError::Config(_))));
    let mut alone = open(&cluster, all(1, Start::Earliest, End::Never)).await;
    for refused in [
        alone.commit().await,
        alone.commit_offsets([(p(0), 0)]).await,
        alone.committed([&p(0)]).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("no group"), "{error}");
    }
    let mut none = open(&cluster, Vec::new()).await;
    assert!(none.is_done());
    assert!(none.poll(PATIENCE).await.unwrap().is_none());
    cluster.stop().await;
}
