//! Members of a consumer group: join, share, hand over, commit, come back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::timeout;
use varve_client::{
    Admin, Client, ClientConfig, ClientError, GroupConfig, GroupConsumer, Producer, ProducerConfig,
    RecordRef, Start, StartPolicy, proto as v1,
};
use varve_server::{Node, embedded};
use varve_types::{GroupName, TopicName, TopicPartition};

/// Only a failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// How long a member is asked for a batch before something else is looked at.
const TURN: Duration = Duration::from_millis(50);

pub struct Cluster {
    pub node: Node,
    pub client: Client,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// A node, and a topic of that many partitions.
    pub async fn start(partitions: i32) -> Self {
        Self::start_with(partitions, "15000").await
    }

    /// With sessions of that many milliseconds: short ones end while a busy machine does something else.
    pub async fn start_with(partitions: i32, session_ms: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let quick = [
            ("group.heartbeat.interval.ms", "100"),
            ("group.session.timeout.ms", session_ms),
        ];
        let node = embedded::start_with(dir.path(), &quick).await.unwrap();
        let client = Client::new(ClientConfig {
            brokers: vec![node.client_address().to_string()],
            ..Default::default()
        })
        .unwrap();
        let cluster = Self {
            node,
            client,
            _dir: dir,
        };
        cluster.create("events", partitions).await;
        cluster
    }

    pub async fn create(&self, topic: &str, partitions: i32) {
        let request = v1::CreateTopicRequest {
            topic: topic.to_owned(),
            partition_count: partitions,
            ..Default::default()
        };
        Admin::new(self.client.clone())
            .create_topic(request)
            .await
            .unwrap();
    }

    /// Appends a range of numbers to every partition of a topic.
    pub async fn produce(&self, topic: &str, partitions: i32, numbers: std::ops::Range<u32>) {
        let producer = Producer::new(self.client.clone(), ProducerConfig::default()).unwrap();
        let topic: TopicName = topic.parse().unwrap();
        for number in numbers {
            for partition in 0..partitions {
                let value = number.to_string();
                let record = RecordRef {
                    partition: Some(partition),
                    value: Some(value.as_bytes()),
                    ..Default::default()
                };
                producer.enqueue(&topic, record).await.unwrap();
            }
        }
        timeout(PATIENCE, producer.flush()).await.unwrap().unwrap();
    }

    fn join(&self, change: impl FnOnce(&mut GroupConfig)) -> Member {
        let group: GroupName = "workers".parse().unwrap();
        let mut config = GroupConfig::new(group, vec!["events".parse().unwrap()]);
        change(&mut config);
        let consumer = GroupConsumer::join(self.client.clone(), config).unwrap();
        Member {
            consumer,
            seen: Seen::default(),
        }
    }

    /// Committed offsets by partition of a topic.
    pub async fn committed(&self, topic: &str) -> BTreeMap<i32, i64> {
        let request = v1::GetOffsetsRequest {
            group: "workers".to_owned(),
            ..Default::default()
        };
        let answer = Admin::new(self.client.clone()).get_offsets(request).await;
        let offsets = match answer {
            Ok(answer) => answer.offsets,
            Err(error) if error.kind() == Some(varve_types::ErrorKind::GroupNotFound) => Vec::new(),
            Err(error) => panic!("{error}"),
        };
        let of_topic = offsets.into_iter().filter_map(|offset| {
            let place = offset.topic_partition?;
            (place.topic == topic).then_some((place.partition, offset.offset))
        });
        of_topic.collect()
    }

    pub async fn members(&self) -> usize {
        let request = v1::GetGroupRequest {
            group: "workers".to_owned(),
        };
        match Admin::new(self.client.clone()).get_group(request).await {
            Ok(found) => found.group.unwrap().members.len(),
            Err(error) if error.kind() == Some(varve_types::ErrorKind::GroupNotFound) => 0,
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn stop(self) {
        drop(self.client);
        self.node.shutdown().await.unwrap();
    }
}

type Seen = BTreeMap<TopicPartition, Vec<(i64, u32)>>;

struct Member {
    consumer: GroupConsumer,
    /// Offset and number of every record, in the order they came.
    seen: Seen,
}

impl Member {
    /// Takes one batch, or whatever else the membership has to do, for a short while.
    async fn turn(&mut self) -> Result<(), ClientError> {
        let Ok(batch) = timeout(TURN, self.consumer.next_batch()).await else {
            return Ok(());
        };
        let batch = batch?;
        let partition = TopicPartition::new(batch.topic.clone(), batch.partition);
        let seen = self.seen.entry(partition).or_default();
        let mut records = batch.records()?;
        while let Some(record) = records.next_ref()? {
            let number = std::str::from_utf8(record.value.unwrap()).unwrap();
            seen.push((record.offset.get(), number.parse().unwrap()));
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.seen.values().map(Vec::len).sum()
    }

    fn owned(&self) -> usize {
        self.consumer.owned().len()
    }
}

/// Gives every member its turn until the condition holds.
async fn until(
    what: &str,
    members: &mut [&mut Member],
    mut done: impl FnMut(&[&mut Member]) -> bool,
) {
    let work = async {
        while !done(members) {
            for member in members.iter_mut() {
                member.turn().await.unwrap();
            }
        }
    };
    assert!(timeout(PATIENCE, work).await.is_ok(), "waited for {what}");
}

/// Every partition's offsets without a gap and without one twice.
fn assert_consecutive(seen: &Seen, from: i64) {
    for (partition, records) in seen {
        for (index, (offset, number)) in records.iter().enumerate() {
            assert_eq!(*offset, from + index as i64, "{partition:?}");
            assert_eq!(i64::from(*number), *offset, "{partition:?}");
        }
    }
}

#[tokio::test]
async fn a_member_reads_commits_on_close_and_the_next_goes_on() {
    let cluster = Cluster::start(3).await;
    cluster.produce("events", 3, 0..50).await;
    let mut first = cluster.join(|_| {});
    until("everything", &mut [&mut first], |m| m[0].count() == 150).await;
    assert_eq!(first.owned(), 3);
    assert_consecutive(&first.seen, 0);
    first.consumer.close().await.unwrap();
    assert_eq!(cluster.members().await, 0, "it left");
    let all = |offset| BTreeMap::from([(0, offset), (1, offset), (2, offset)]);
    assert_eq!(cluster.committed("events").await, all(50));

    cluster.produce("events", 3, 50..60).await;
    let mut second = cluster.join(|_| {});
    until("the rest", &mut [&mut second], |m| m[0].count() == 30).await;
    assert_consecutive(&second.seen, 50);
    second.consumer.close().await.unwrap();
    assert_eq!(cluster.committed("events").await, all(60));
    cluster.stop().await;
}

#[tokio::test]
async fn a_second_member_gets_its_share_and_no_record_comes_twice() {
    let cluster = Cluster::start(4).await;
    cluster.produce("events", 4, 0..30).await;
    let mut first = cluster.join(|_| {});
    until("the first round", &mut [&mut first], |m| {
        m[0].count() == 120
    })
    .await;
    assert_eq!(first.owned(), 4);

    let mut second = cluster.join(|_| {});
    until("two shares", &mut [&mut first, &mut second], |m| {
        (m[0].owned(), m[1].owned()) == (2, 2)
    })
    .await;
    let (a, b) = (first.consumer.owned(), second.consumer.owned());
    assert!(a.is_disjoint(b), "{a:?} {b:?}");
    assert_eq!(
        second.count(),
        0,
        "what was given up had been committed first"
    );

    cluster.produce("events", 4, 30..40).await;
    until("the second round", &mut [&mut first, &mut second], |m| {
        m[0].count() + m[1].count() == 160
    })
    .await;
    assert_eq!(second.count(), 20);
    assert_consecutive(&second.seen, 30);
    assert_consecutive(&first.seen, 0);

    // The first goes; the second takes over where it stopped.
    first.consumer.close().await.unwrap();
    until("all of it", &mut [&mut second], |m| m[0].owned() == 4).await;
    cluster.produce("events", 4, 40..50).await;
    until("the third round", &mut [&mut second], |m| {
        m[0].count() == 60
    })
    .await;
    let partitions: BTreeSet<i32> = second.seen.keys().map(|p| p.partition.0).collect();
    assert_eq!(partitions, BTreeSet::from([0, 1, 2, 3]));
    second.consumer.close().await.unwrap();
    assert_eq!(cluster.members().await, 0);
    cluster.stop().await;
}

#[tokio::test]
async fn a_dropped_call_leaves_no_hand_over_half_done() {
    let cluster = Cluster::start(4).await;
    cluster.produce("events", 4, 0..30).await;
    let mut first = cluster.join(|_| {});
    until("the first round", &mut [&mut first], |m| {
        m[0].count() == 120
    })
    .await;
    let mut second = cluster.join(|_| {});
    let work = async {
        // So short that calls are dropped in the middle of the commit before the hand-over; then longer.
        let mut patience = Duration::from_micros(200);
        while (first.owned(), second.owned()) != (2, 2) {
            let _ = timeout(patience, first.consumer.next_batch()).await;
            patience += Duration::from_micros(500);
            second.turn().await.unwrap();
        }
    };
    timeout(PATIENCE, work).await.unwrap();
    assert_eq!(second.count(), 0, "all was committed before");
    cluster.produce("events", 4, 30..31).await;
    until("one more of each", &mut [&mut first, &mut second], |m| {
        m[0].count() + m[1].count() == 124
    })
    .await;
    first.consumer.close().await.unwrap();
    second.consumer.close().await.unwrap();
    let all = BTreeMap::from([(0, 31), (1, 31), (2, 31), (3, 31)]);
    assert_eq!(cluster.committed("events").await, all);
    cluster.stop().await;
}

#[tokio::test]
async fn a_member_that_vanishes_is_replaced_and_nothing_is_lost() {
    let cluster = Cluster::start_with(2, "1000").await;
    cluster.produce("events", 2, 0..20).await;
    let mut first = cluster.join(|config| config.auto_commit = None);
    until("all records", &mut [&mut first], |m| m[0].count() == 40).await;
    // No goodbye and no commit: what it had read comes again.
    drop(first);
    let mut second = cluster.join(|_| {});
    until("all again", &mut [&mut second], |m| m[0].count() == 40).await;
    assert_consecutive(&second.seen, 0);
    assert_eq!(cluster.members().await, 1, "the first was expelled");
    second.consumer.close().await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn only_what_was_processed_is_committed() {
    let cluster = Cluster::start(1).await;
    cluster.produce("events", 1, 0..30).await;
    let mut member = cluster.join(|config| config.auto_commit = None);
    for _ in 0..2 {
        let batch = timeout(PATIENCE, member.consumer.next_batch())
            .await
            .unwrap();
        let batch = batch.unwrap();
        assert!(batch.next_offset > 7, "in one batch: {batch:?}");
        let first = batch.records().unwrap().next_ref().unwrap().unwrap().offset;
        assert_eq!(first.get(), 0, "given again");
        member.consumer.not_processed();
        member.consumer.commit().await.unwrap();
        assert!(
            cluster.committed("events").await.is_empty(),
            "nothing is processed yet"
        );
    }
    let batch = timeout(PATIENCE, member.consumer.next_batch()).await;
    assert!(batch.unwrap().unwrap().next_offset > 7);
    member.consumer.processed_up_to(7);
    member.consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("events").await, BTreeMap::from([(0, 7)]));
    // Closing without automatic commits adds none.
    member.consumer.close().await.unwrap();
    assert_eq!(cluster.committed("events").await, BTreeMap::from([(0, 7)]));

    let mut again = cluster.join(|_| {});
    let batch = timeout(PATIENCE, again.consumer.next_batch())
        .await
        .unwrap();
    let first = batch
        .unwrap()
        .records()
        .unwrap()
        .next_ref()
        .unwrap()
        .unwrap()
        .offset;
    assert_eq!(first.get(), 7, "from the middle of a batch");
    again.consumer.not_processed();
    again.consumer.close().await.unwrap();
    assert_eq!(cluster.committed("events").await, BTreeMap::from([(0, 7)]));
    cluster.stop().await;
}

#[tokio::test]
async fn automatic_commits_follow_the_interval() {
    let cluster = Cluster::start(1).await;
    cluster.produce("events", 1, 0..10).await;
    let mut member = cluster.join(|config| config.auto_commit = Some(Duration::from_millis(50)));
    until("the records", &mut [&mut member], |m| m[0].count() == 10).await;
    let committed = async {
        while cluster.committed("events").await != BTreeMap::from([(0, 10)]) {
            member.turn().await.unwrap();
        }
    };
    timeout(PATIENCE, committed).await.unwrap();
    member.consumer.close().await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_pattern_brings_topics_that_come_later() {
    let cluster = Cluster::start(1).await;
    cluster.produce("events", 1, 0..5).await;
    let mut member = cluster.join(|config| {
        config.topics = Vec::new();
        config.topic_pattern = "event.*".to_owned();
    });
    until("the first topic", &mut [&mut member], |m| m[0].count() == 5).await;
    cluster.create("events-more", 2).await;
    cluster.create("other", 1).await;
    cluster.produce("other", 1, 0..5).await;
    cluster.produce("events-more", 2, 0..5).await;
    until("the second topic", &mut [&mut member], |m| {
        m[0].count() == 15
    })
    .await;
    assert_consecutive(&member.seen, 0);
    assert!(
        member
            .seen
            .keys()
            .all(|p| p.topic.as_str().starts_with("events"))
    );
    member.consumer.close().await.unwrap();
    assert_eq!(
        cluster.committed("events-more").await,
        BTreeMap::from([(0, 5), (1, 5)])
    );
    cluster.stop().await;
}

#[tokio::test]
async fn where_a_new_group_begins_is_its_choice() {
    let cluster = Cluster::start(1).await;
    cluster.produce("events", 1, 0..10).await;
    let mut member = cluster.join(|config| config.start = StartPolicy(Start::Last(3)));
    until("the last three", &mut [&mut member], |m| m[0].count() == 3).await;
    assert_consecutive(&member.seen, 7);
    member.consumer.close().await.unwrap();
    // From now on the committed offset counts.
    cluster.produce("events", 1, 10..12).await;
    let mut again = cluster.join(|config| config.start = StartPolicy(Start::Earliest));
    until("two more", &mut [&mut again], |m| m[0].count() == 2).await;
    assert_consecutive(&again.seen, 10);
    again.consumer.close().await.unwrap();

    let nothing = GroupConfig::new("workers".parse().unwrap(), Vec::new());
    let refused = GroupConsumer::join(cluster.client.clone(), nothing);
    assert!(matches!(refused, Err(ClientError::Config(_))));
    cluster.stop().await;
}
