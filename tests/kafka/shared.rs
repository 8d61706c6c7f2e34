//! One group, two protocols: a member that speaks Kafka's and one of our own client share the partitions of a topic,
//! and each takes over from the other. And `--dev`: the node that a program written for a cluster finds on a laptop.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use varve_client::{Client as Own, ClientConfig, GroupConfig, GroupConsumer};
use varve_frontend_kafka::wire::generated::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, RequestTopicPartitions,
};
use varve_frontend_kafka::wire::generated::create_topics::{CreatableTopic, CreateTopicsRequest};
use varve_frontend_kafka::wire::generated::metadata::{MetadataRequest, MetadataRequestTopic};
use varve_frontend_kafka::wire::{Text, Uuid};
use varve_tests::node::free_port;

use crate::Bed;
use crate::client::{Client, ask};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member by the consumer protocol of KIP-848.
struct KafkaMember {
    client: Client,
    topic: Uuid,
    epoch: i32,
    owned: BTreeSet<i32>,
}

impl KafkaMember {
    async fn beat(&mut self) {
        let owned = self.owned.iter().copied().collect();
        let joins = self.epoch == 0;
        let request = ConsumerGroupHeartbeatRequest {
            group_id: Text::from_static("both"),
            member_id: Text::from_static("kafka"),
            member_epoch: self.epoch,
            rebalance_timeout_ms: 10_000,
            subscribed_topic_names: joins.then(|| vec![Text::from_static("orders")]),
            topic_partitions: Some(match joins {
                true => Vec::new(),
                false => vec![RequestTopicPartitions {
                    topic_id: self.topic,
                    partitions: owned,
                }],
            }),
            ..ConsumerGroupHeartbeatRequest::default()
        };
        let answer = ask!(self.client, 1, ConsumerGroupHeartbeat, request);
        assert_eq!(answer.error_code, 0, "{answer:?}");
        self.epoch = answer.member_epoch;
        if let Some(assignment) = answer.assignment {
            let topics = assignment.topic_partitions.into_iter();
            self.owned = topics.flat_map(|t| t.partitions).collect();
        }
    }

    async fn leave(mut self) {
        self.epoch = -1;
        self.owned.clear();
        self.beat().await;
    }
}

fn of_own(member: &GroupConsumer) -> BTreeSet<i32> {
    member.owned().iter().map(|p| p.partition.0).collect()
}

/// Lets both go on until they own so many partitions each; at no moment both own one.
async fn share(
    own: &mut GroupConsumer,
    mut kafka: Option<&mut KafkaMember>,
    wanted: (usize, usize),
) {
    let shared = async {
        loop {
            // There are no records: it does what the coordinator says, and waits.
            let _ = tokio::time::timeout(Duration::from_millis(50), own.next_batch()).await;
            let mine = of_own(own);
            let theirs = match &mut kafka {
                Some(member) => {
                    member.beat().await;
                    member.owned.clone()
                }
                None => BTreeSet::new(),
            };
            assert!(mine.is_disjoint(&theirs), "{mine:?} and {theirs:?}");
            if (mine.len(), theirs.len()) == wanted {
                return;
            }
        }
    };
    let shared = tokio::time::timeout(PATIENCE, shared).await;
    assert!(shared.is_ok(), "{wanted:?} was not reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_both_protocols_share_a_group() {
    let bed = Bed::start(&[("group.heartbeat.interval.ms", "100")]).await;
    let mut client = bed.client().await;
    client.create("orders", 4).await;
    let topic = client.describe("orders").await.topic_id;
    let own = Own::new(ClientConfig {
        brokers: vec![bed.node.client_address().to_string()],
        ..ClientConfig::default()
    });
    let group = "both".parse().unwrap();
    let config = GroupConfig::new(group, vec!["orders".parse().unwrap()]);
    let mut own = GroupConsumer::join(own.unwrap(), config).unwrap();
    share(&mut own, None, (4, 0)).await;
    let mut kafka = KafkaMember {
        client,
        topic,
        epoch: 0,
        owned: BTreeSet::new(),
    };
    share(&mut own, Some(&mut kafka), (2, 2)).await;
    kafka.leave().await;
    share(&mut own, None, (4, 0)).await;
    own.close().await.unwrap();
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_for_development_lets_programs_for_a_cluster_run() {
    let dir = tempfile::tempdir().unwrap();
    let (kafka, client, http) = (free_port(), free_port(), free_port());
    let mut node = Command::new(varve_tests::varve())
        .args(["server", "--dev", "--data-dir"])
        .arg(dir.path())
        .args(["--listen", &format!("127.0.0.1:{client}")])
        .args(["--http", &format!("127.0.0.1:{http}")])
        // What the environment says counts, also where the flag stands for something else.
        .env(
            "VARVE_LISTENERS__KAFKA__ADDRESS",
            format!("127.0.0.1:{kafka}"),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let connected = async {
        loop {
            if let Ok(stream) = tokio::net::TcpStream::connect(("127.0.0.1", kafka)).await {
                return Client::over(stream);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut client = tokio::time::timeout(PATIENCE, connected).await.unwrap();
    let wanted = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Text::from_static("three"),
            num_partitions: 1,
            replication_factor: 3,
            ..CreatableTopic::default()
        }],
        ..CreateTopicsRequest::default()
    };
    let made = ask!(client, 7, CreateTopics, wanted);
    let made = &made.topics[0];
    assert_eq!(
        (made.error_code, made.replication_factor),
        (0, 1),
        "{made:?}"
    );
    let request = || MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(Text::from_static("asked-for")),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    let there = async {
        while ask!(client, 9, Metadata, request()).topics[0].error_code != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.unwrap();
    let pid = rustix::process::Pid::from_child(&node);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let (mut said, mut stderr) = (String::new(), node.stderr.take().unwrap());
    stderr.read_to_string(&mut said).unwrap();
    assert!(node.wait().unwrap().success(), "{said}");
    assert!(said.contains("the topic gets fewer"), "{said}");
}
