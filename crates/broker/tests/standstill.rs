//! A partition that commits nothing, because a follower it waits for is away, and what the others on its leader are
//! served meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::Duration;

use crate::support::cluster::Nodes;
use crate::support::{batch, idempotent_batch, metric, new_topic, produce, until};
use varve_broker::peer::{MarkerOrder, MarkerOutcome, PeerService as _};
use varve_broker::{Broker, Receipt};
use varve_broker_api::{Broker as _, Context, CreateTopic, Error, InitProducer, Produce};
use varve_metadata::PartitionKey;
use varve_record::Batch;
use varve_types::{
    Acks, ErrorKind, LeaderEpoch, NodeId, PartitionId, ProducerId, Sequence, TopicName,
};

/// Bytes that a node admits here.
const BUDGET: usize = 256 * 1024;
/// What an append that waits for others counts for, at least.
const UNIT: usize = 4 * 1024;
/// Far below what anything waits for before it gives up.
const SOON: Duration = Duration::from_secs(5);

const IN_FLIGHT: &str = "varve_produce_in_flight_bytes";
const OWED: &str = "varve_produce_answers_owed";

/// Two nodes, one of them cut off; the other leads both of these, and the first of them commits nothing.
struct Standstill {
    nodes: Nodes,
    leader: NodeId,
    broker: Broker,
    stuck: (TopicName, i32),
    sound: (TopicName, i32),
}

impl Standstill {
    async fn new() -> Self {
        let nodes = Nodes::patient(2, BUDGET).await;
        let any = nodes.brokers[&NodeId(1)].clone();
        let create = async |name: &str, replicas: i32, configs: &[(&str, &str)]| {
            let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
            let request = CreateTopic {
                replication_factor: Some(replicas),
                configs: configs.iter().map(pair).collect(),
                ..new_topic(name, 4)
            };
            let created = any.create_topic(&Context::anonymous(), request).await;
            created.unwrap().name
        };
        let two = create("two", 2, &[("min.insync.replicas", "2")]).await;
        let one = create("one", 1, &[]).await;
        // The metadata are led by node 1: the other one goes.
        let leader = NodeId(1);
        let led = |topic: &TopicName| {
            let leads = |n: &i32| nodes.partition(topic.as_str(), *n).leader == Some(leader);
            (0..4).find(leads).unwrap()
        };
        let stuck = (two.clone(), led(&two));
        let sound = (one.clone(), led(&one));
        let broker = nodes.brokers[&leader].clone();
        nodes.in_sync("two", stuck.1, 2).await;
        for (topic, n) in [&stuck, &sound] {
            // The leader may not know yet that it leads.
            let mut appended = produce(&broker, topic, *n, batch(&["a"])).await;
            for _ in 0..400 {
                if appended.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
                appended = produce(&broker, topic, *n, batch(&["a"])).await;
            }
            appended.unwrap();
        }
        nodes.net.cut(NodeId(2));
        Self {
            nodes,
            leader,
            broker,
            stuck,
            sound,
        }
    }

    async fn send(&self, batch: Batch) -> Result<Receipt, Error> {
        let request = Produce {
            transaction_version: Default::default(),
            transactional_id: None,
            topic: self.stuck.0.clone(),
            partition: PartitionId(self.stuck.1),
            acks: Acks::All,
            batch,
            expected_offset: None,
        };
        let context = Context::anonymous();
        let sent = self.broker.produce(&context, request);
        tokio::time::timeout(SOON, sent).await.unwrap()
    }

    /// Sends to the partition that commits nothing until it takes no more.
    async fn fill(&self, batch: impl Fn() -> Batch) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        loop {
            match self.send(batch()).await {
                Ok(receipt) => receipts.push(receipt),
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Throttled, "{error:?}");
                    assert!(error.retry_after.is_some(), "{error:?}");
                    return receipts;
                }
            }
        }
    }

    /// The other partition answers, and all bytes are given back.
    async fn others_are_served(&self) {
        let (topic, n) = &self.sound;
        let large = "x".repeat(BUDGET / 2);
        let answered = produce(&self.broker, topic, *n, batch(&[&large]));
        let answered = tokio::time::timeout(SOON, answered).await.unwrap();
        answered.unwrap();
        until("all bytes are given back", || {
            metric(&self.broker, IN_FLIGHT) == 0.0
        })
        .await;
    }

    fn key(&self, (topic, n): &(TopicName, i32)) -> PartitionKey {
        self.nodes.shared.look(|state| PartitionKey {
            topic: state.topic(topic).unwrap().id,
            partition: PartitionId(*n),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_follower_holds_no_bytes_that_other_partitions_need() {
    let at = Standstill::new().await;
    let large = "x".repeat(16 * 1024);
    let waiting = at.fill(|| batch(&[&large])).await;
    assert_eq!(waiting.len(), BUDGET / (16 * 1024 + UNIT));
    at.others_are_served().await;
    // Once the follower is back everything is acknowledged.
    at.nodes.net.heal();
    for receipt in waiting {
        let answer = tokio::time::timeout(4 * SOON, receipt).await.unwrap();
        assert_eq!(answer.unwrap().replicas, 2);
    }
    let (topic, n) = &at.stuck;
    produce(&at.broker, topic, *n, batch(&["z"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_a_partition_owes_are_bounded_and_forgotten_with_those_who_wait() {
    let at = Standstill::new().await;
    let waiting = at.fill(|| batch(&["a"])).await;
    assert_eq!(waiting.len(), BUDGET / UNIT);
    until("each is owed an answer", || {
        metric(&at.broker, OWED) == waiting.len() as f64
    })
    .await;
    at.others_are_served().await;
    // Nobody waits any more: others may.
    drop(waiting);
    until("no answer is owed", || metric(&at.broker, OWED) == 0.0).await;
    // Nothing is appended for a batch that is there already, and nothing is kept of it.
    let context = Context::anonymous();
    let anonymous = InitProducer { name: None };
    let session = at.broker.init_producer(&context, anonymous).await.unwrap();
    let repeated = || idempotent_batch(session.producer, Sequence::ZERO, &["b"]);
    let waiting = at.fill(repeated).await;
    assert_eq!(waiting.len(), BUDGET / UNIT);
    at.others_are_served().await;
    at.nodes.net.heal();
    let mut offsets = std::collections::BTreeSet::new();
    for receipt in waiting {
        let answer = tokio::time::timeout(4 * SOON, receipt).await.unwrap();
        offsets.insert(answer.unwrap().base_offset);
    }
    assert_eq!(offsets.len(), 1);
    assert_eq!(metric(&at.broker, OWED), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn markers_that_are_repeated_for_one_partition_hold_up_no_other() {
    let at = Standstill::new().await;
    let order = |partitions: Vec<PartitionKey>, id| MarkerOrder {
        producer: ProducerId { id, epoch: 1 },
        number: None,
        commit: true,
        coordinator_epoch: LeaderEpoch::ZERO,
        partitions,
    };
    let (stuck, sound) = (at.key(&at.stuck), at.key(&at.sound));
    let service = at.nodes.service(at.leader);
    // More than their budget has units.
    let repeats = 5000;
    let told = service.write_markers(order(vec![stuck; repeats], 7));
    let told = tokio::spawn(told);
    until("the markers are in the log", || {
        metric(&at.broker, OWED) == repeats as f64
    })
    .await;
    let healthy = service.write_markers(order(vec![sound], 8));
    let healthy = tokio::time::timeout(SOON, healthy).await.unwrap();
    assert_eq!(healthy, [MarkerOutcome::Done]);
    // Whoever waited gives up, and nothing stays of that.
    let told = tokio::time::timeout(6 * SOON, told).await.unwrap().unwrap();
    assert_eq!(told, vec![MarkerOutcome::Again; repeats]);
    until("no answer is owed", || metric(&at.broker, OWED) == 0.0).await;
    at.nodes.net.heal();
    let told = service.write_markers(order(vec![stuck; 2], 7));
    let told = tokio::time::timeout(4 * SOON, told).await.unwrap();
    assert_eq!(told, [MarkerOutcome::Done; 2]);
}
