//! What members are told of partitions that come and go, and what they can still do about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio::time::timeout;
use varve_client::{
    Admin, ClientError, GroupConfig, GroupConsumer, Rebalance, RebalanceFuture, RebalanceListener,
    Start, proto as v1,
};
use varve_types::{PartitionId, TopicPartition};

use crate::groups::{Cluster, PATIENCE};

const TURN: Duration = Duration::from_millis(20);

fn p(partition: i32) -> TopicPartition {
    TopicPartition::new("events".parse().unwrap(), PartitionId(partition))
}

fn numbers<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Vec<i32> {
    let numbers = partitions.into_iter();
    numbers.map(|partition| partition.partition.0).collect()
}

/// Writes down what it is told, and does what it is set up to do.
#[derive(Clone, Default)]
struct Told {
    lines: Arc<Mutex<Vec<String>>>,
    /// Seek and pause what is assigned.
    start: Option<Start>,
    pause: bool,
    /// Commit what was processed, when revoked.
    commit: bool,
    /// Wait for this, when revoked.
    gate: Option<Arc<Notify>>,
}

impl Told {
    /// Whether a line begins with `word`.
    fn has(&self, word: &str) -> bool {
        let lines = self.lines.lock().unwrap();
        lines.iter().any(|line| line.starts_with(word))
    }

    fn note(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

impl RebalanceListener for Told {
    fn on_assigned(&mut self, rebalance: Rebalance) -> RebalanceFuture {
        let told = self.clone();
        Box::pin(async move {
            assert_eq!(rebalance.group().as_str(), "workers");
            told.note(format!("assigned {:?}", numbers(rebalance.partitions())));
            for partition in rebalance.partitions() {
                if let Some(start) = told.start {
                    rebalance.seek(partition, start).await.unwrap();
                }
                if told.pause {
                    rebalance.pause(partition).unwrap();
                }
            }
            let strange = rebalance.seek(&p(9), Start::Offset(0)).await;
            assert_eq!(strange, Err(ClientError::NotAssigned(p(9))));
            assert!(rebalance.pause(&p(9)).is_err());
            let negative = Start::Offset(-3);
            if let Some(any) = rebalance.partitions().first() {
                let refused = rebalance.seek(any, negative).await;
                assert!(matches!(refused, Err(ClientError::InvalidOffset { .. })));
            }
        })
    }

    fn on_revoked(&mut self, rebalance: Rebalance) -> RebalanceFuture {
        let told = self.clone();
        Box::pin(async move {
            let processed: Vec<(i32, i64)> = rebalance
                .processed()
                .iter()
                .map(|(partition, offset)| (partition.partition.0, *offset))
                .collect();
            let partitions = numbers(rebalance.partitions());
            told.note(format!("revoked {partitions:?} at {processed:?}"));
            if let Some(gate) = &told.gate {
                gate.notified().await;
                told.note("went on".to_owned());
            }
            if told.commit {
                rebalance.commit_processed().await.unwrap();
                let elsewhere = rebalance.commit([(p(9), 0)]).await;
                assert_eq!(elsewhere, Err(ClientError::NotAssigned(p(9))));
                assert!(rebalance.seek(&p(0), Start::Earliest).await.is_err());
            }
        })
    }

    fn on_lost(&mut self, partitions: BTreeSet<TopicPartition>) -> RebalanceFuture {
        self.note(format!("lost {:?}", numbers(&partitions)));
        Box::pin(async {})
    }
}

fn join(cluster: &Cluster, told: &Told, change: impl FnOnce(&mut GroupConfig)) -> GroupConsumer {
    let topics = vec!["events".parse().unwrap()];
    let mut config = GroupConfig::new("workers".parse().unwrap(), topics);
    config.auto_commit = None;
    change(&mut config);
    GroupConsumer::join_with(cluster.client.clone(), config, told.clone()).unwrap()
}

/// So many offsets, by partition in the order in which they came.
async fn read(consumer: &mut GroupConsumer, count: usize) -> BTreeMap<i32, Vec<i64>> {
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

/// Polls, and gets nothing, until the condition holds.
async fn settle(members: &mut [&mut GroupConsumer], done: impl Fn(&[&mut GroupConsumer]) -> bool) {
    let work = async {
        while !done(members) {
            for member in members.iter_mut() {
                let batch = member.poll(TURN).await.unwrap();
                assert!(batch.is_none(), "{batch:?}");
            }
        }
    };
    timeout(PATIENCE, work).await.unwrap();
}

async fn expel(cluster: &Cluster, member: &GroupConsumer) {
    let request = v1::RemoveMembersRequest {
        group: "workers".to_owned(),
        member_ids: vec![member.member_id().to_owned()],
    };
    let admin = Admin::new(cluster.client.clone());
    admin.remove_members(request).await.unwrap();
}

#[tokio::test]
async fn a_hand_over_is_told_and_committed_by_the_listener() {
    let cluster = Cluster::start(2).await;
    cluster.produce("events", 2, 0..10).await;
    let told = Told {
        commit: true,
        ..Told::default()
    };
    let mut first = join(&cluster, &told, |_| {});
    let all = BTreeMap::from([(0, (0..10).collect()), (1, (0..10).collect())]);
    assert_eq!(read(&mut first, 20).await, all);
    assert_eq!(told.take(), ["assigned [0, 1]"]);
    assert!(cluster.committed("events").await.is_empty());

    let other = Told::default();
    let mut second = join(&cluster, &other, |_| {});
    settle(&mut [&mut first, &mut second], |m| {
        m[0].owned().len() == 1 && m[1].owned().len() == 1
    })
    .await;
    let kept = numbers(first.assignment())[0];
    let gone = 1 - kept;
    assert_eq!(told.take(), [format!("revoked [{gone}] at [({gone}, 10)]")]);
    assert_eq!(other.take(), [format!("assigned [{gone}]")]);
    assert_eq!(cluster.committed("events").await, [(gone, 10)].into());
    let lost = first.seek(&p(gone), Start::Earliest).await;
    assert_eq!(lost, Err(ClientError::NotAssigned(p(gone))));
    let lost = first.commit_offsets([(p(gone), 1)]).await;
    assert_eq!(lost, Err(ClientError::NotAssigned(p(gone))));

    // The end is told as well.
    first.close().await.unwrap();
    assert_eq!(told.take(), [format!("revoked [{kept}] at [({kept}, 10)]")]);
    settle(&mut [&mut second], |m| m[0].owned().len() == 2).await;
    assert_eq!(other.take(), [format!("assigned [{kept}]")]);
    second.close().await.unwrap();
    assert_eq!(cluster.committed("events").await, [(0, 10), (1, 10)].into());
    cluster.stop().await;
}

#[tokio::test]
async fn a_member_that_was_expelled_commits_nothing_and_begins_again() {
    let cluster = Cluster::start(1).await;
    cluster.produce("events", 1, 0..10).await;
    let told = Told::default();
    let mut member = join(&cluster, &told, |_| {});
    assert_eq!(read(&mut member, 4).await, [(0, (0..4).collect())].into());
    member.commit().await.unwrap();
    assert_eq!(read(&mut member, 3).await, [(0, (4..7).collect())].into());
    expel(&cluster, &member).await;
    let fenced = member.commit().await.unwrap_err();
    assert!(matches!(fenced, ClientError::Fenced { .. }), "{fenced}");
    assert!(fenced.to_string().contains("workers"), "{fenced}");
    let fenced = member.commit_offsets([(p(0), 7)]).await.unwrap_err();
    assert!(matches!(fenced, ClientError::Fenced { .. }), "{fenced}");
    assert_eq!(cluster.committed("events").await, [(0, 4)].into());
    // It comes back by itself, as somebody else would: from the last commit.
    assert_eq!(read(&mut member, 6).await, [(0, (4..10).collect())].into());
    assert_eq!(told.take(), ["assigned [0]", "lost [0]", "assigned [0]"]);
    member.commit().await.unwrap();
    assert_eq!(cluster.committed("events").await, [(0, 10)].into());
    member.close().await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_callback_is_called_once_however_often_the_call_is_dropped() {
    let cluster = Cluster::start(2).await;
    cluster.produce("events", 2, 0..5).await;
    let gate = Arc::new(Notify::new());
    let told = Told {
        gate: Some(gate.clone()),
        ..Told::default()
    };
    let mut first = join(&cluster, &told, |config| {
        config.auto_commit = Some(Duration::from_secs(600));
    });
    read(&mut first, 10).await;
    let mut second = join(&cluster, &Told::default(), |_| {});
    let work = async {
        // The partitions may have come one after the other, on a busy machine.
        while !told.has("revoked") {
            first.poll(Duration::from_micros(300)).await.unwrap();
            second.poll(Duration::ZERO).await.unwrap();
        }
    };
    timeout(PATIENCE, work).await.unwrap();
    // While it works, nothing is given to anybody, whatever comes.
    cluster.produce("events", 2, 5..6).await;
    for _ in 0..50 {
        assert!(
            first
                .poll(Duration::from_micros(300))
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            second
                .poll(Duration::from_micros(300))
                .await
                .unwrap()
                .is_none()
        );
    }
    assert!(second.owned().is_empty());
    gate.notify_one();
    let got = timeout(PATIENCE, async {
        let mut got = BTreeMap::new();
        while got.len() < 2 {
            for member in [&mut first, &mut second] {
                if let Some(batch) = member.poll(TURN).await.unwrap() {
                    let mut records = batch.records().unwrap();
                    let offset = records.next_ref().unwrap().unwrap().offset.get();
                    got.insert(batch.partition.0, offset);
                }
            }
        }
        got
    });
    assert_eq!(
        got.await.unwrap(),
        [(0, 5), (1, 5)].into(),
        "all before was committed"
    );
    let lines = told.take();
    let revoked = lines.iter().filter(|line| line.starts_with("revoked"));
    assert_eq!(revoked.count(), 1, "{lines:?}");
    assert_eq!(lines.last().unwrap(), "went on", "{lines:?}");
    gate.notify_one();
    first.close().await.unwrap();
    second.close().await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn who_is_too_slow_to_give_up_is_told_of_the_loss() {
    let cluster = Cluster::start(2).await;
    cluster.produce("events", 2, 0..5).await;
    let gate = Arc::new(Notify::new());
    let told = Told {
        gate: Some(gate.clone()),
        ..Told::default()
    };
    let mut first = join(&cluster, &told, |config| {
        config.auto_commit = Some(Duration::from_secs(600));
        config.rebalance_timeout = Duration::from_secs(3);
    });
    read(&mut first, 10).await;
    let mut second = join(&cluster, &Told::default(), |config| {
        config.rebalance_timeout = Duration::from_secs(3);
    });
    let work = async {
        let mut given = None;
        while given.is_none() {
            first.poll(TURN).await.unwrap();
            given = second.poll(TURN).await.unwrap();
        }
        given.unwrap()
    };
    // The first one hangs in its callback: it is expelled, and the second goes on without its consent, from
    // the last commit, which there is none of.
    let batch = timeout(PATIENCE, work).await.unwrap();
    let mut records = batch.records().unwrap();
    assert_eq!(records.next_ref().unwrap().unwrap().offset.get(), 0);
    gate.notify_one();
    let work = async {
        while told.lines.lock().unwrap().len() < 5 {
            first.poll(TURN).await.unwrap();
        }
    };
    timeout(PATIENCE, work).await.unwrap();
    let lines = told.take();
    let asked = i32::from(lines[1].starts_with("revoked [1]"));
    let wanted = [
        format!("revoked [{asked}] at [({asked}, 5)]"),
        "went on".to_owned(),
        format!("lost [{asked}]"),
        format!("lost [{}]", 1 - asked),
    ];
    assert_eq!(lines[1..5], wanted);
    assert!(cluster.committed("events").await.is_empty(), "too late");
    drop(first);
    drop(second);
    cluster.stop().await;
}

#[tokio::test]
async fn a_listener_chooses_where_to_begin_and_a_pause_keeps_the_membership() {
    let cluster = Cluster::start_with(2, "5000").await;
    cluster.produce("events", 2, 0..10).await;
    let told = Told {
        start: Some(Start::Last(2)),
        pause: true,
        ..Told::default()
    };
    let mut member = join(&cluster, &told, |_| {});
    settle(&mut [&mut member], |m| m[0].owned().len() == 2).await;
    assert_eq!(member.paused(), BTreeSet::from([p(0), p(1)]));
    assert_eq!(member.position(&p(1)), Ok(8));
    // Longer than a session lasts: polls and pauses keep nobody from being a member.
    let quiet = member.poll(Duration::from_millis(7500)).await.unwrap();
    assert!(quiet.is_none());
    assert_eq!(cluster.members().await, 1);
    member.resume([&p(1)]).unwrap();
    assert_eq!(read(&mut member, 2).await, [(1, vec![8, 9])].into());
    member.seek(&p(1), Start::Offset(9)).await.unwrap();
    assert_eq!(read(&mut member, 1).await, [(1, vec![9])].into());
    member.commit().await.unwrap();
    assert_eq!(cluster.committed("events").await, [(1, 10)].into());
    assert_eq!(told.take(), ["assigned [0, 1]"]);
    // What is lost and comes back is not paused, unless the listener does so again.
    expel(&cluster, &member).await;
    let work = async {
        while told.lines.lock().unwrap().len() < 2 {
            member.poll(TURN).await.unwrap();
        }
    };
    timeout(PATIENCE, work).await.unwrap();
    assert_eq!(told.take(), ["lost [0, 1]", "assigned [0, 1]"]);
    settle(&mut [&mut member], |m| m[0].paused().len() == 2).await;
    member.close().await.unwrap();

    let mut plain = join(&cluster, &Told::default(), |_| {});
    read(&mut plain, 1).await;
    plain.pause([&p(0)]).unwrap();
    expel(&cluster, &plain).await;
    let work = async {
        while !plain.paused().is_empty() {
            if plain.poll(TURN).await.unwrap().is_some() {
                plain.not_processed();
            }
        }
    };
    timeout(PATIENCE, work).await.unwrap();
    assert_eq!(read(&mut plain, 10).await, [(0, (0..10).collect())].into());
    plain.close().await.unwrap();
    cluster.stop().await;
}
