//! A group of a running broker passes from the classic protocol to the consumer protocol and back, with its
//! members, over restarts. Calls of the classic protocol reach the coordinator as a front end's will.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use varve_broker_api::{
    Broker as _, CommitOffsets, Context, CreateTopic, Error, GetOffsets, GroupInfo, GroupState,
    Heartbeat, OffsetCommit, Subscription,
};
use varve_groups::codec::{
    EmbeddedAssignment, EmbeddedSubscription, by_topic, decode_assignment, encode_assignment,
    encode_subscription, partition_set,
};
use varve_groups::{
    ClassicError, ClassicHeartbeat, ClassicJoin, ClassicJoined, ClassicSync, Input, Reply, Ticket,
};
use varve_types::{
    ClusterId, GroupName, MemberId, NodeId, Offset, PartitionId, TopicName, TopicPartition,
};
use varve_vfs::mem::MemVfs;
use varve_vfs::{SystemClock, Vfs};

use crate::{Broker, BrokerConfig};

struct Node {
    broker: Broker,
    disk: Arc<MemVfs>,
}

impl Node {
    async fn on(disk: Arc<MemVfs>) -> Self {
        let mut config = BrokerConfig::new(PathBuf::from("/data"), ClusterId(1), NodeId(1));
        config.offsets_partitions = 3;
        config.min_free_bytes = 0;
        let vfs = Arc::clone(&disk) as Arc<dyn Vfs>;
        let clock = Arc::new(SystemClock::new());
        let broker = Broker::start(config, vfs, clock).await.unwrap();
        Self { broker, disk }
    }

    /// The process is killed; a new one finds what the page cache has.
    async fn restart(self) -> Self {
        let left = Arc::new(self.disk.image());
        self.broker.shutdown().await;
        Self::on(left).await
    }

    /// One call, again while the coordinator is not there yet.
    async fn call(&self, input: impl Fn(Ticket) -> Input) -> Result<Reply, Error> {
        loop {
            match self.broker.inner.groups.call(&input).await {
                Err(error) if error.kind.retry() != varve_types::Retry::Never => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                answer => return answer,
            }
        }
    }

    async fn describe(&self) -> GroupInfo {
        let context = Context::anonymous();
        loop {
            match self.broker.group(&context, &group()).await {
                Ok(found) => return found,
                Err(error) => {
                    assert_ne!(error.kind.retry(), varve_types::Retry::Never, "{error:?}")
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn group() -> GroupName {
    "billing".parse().unwrap()
}

fn topic() -> TopicName {
    "orders".parse().unwrap()
}

fn partitions(numbers: &[i32]) -> BTreeSet<TopicPartition> {
    let of = |n: &i32| TopicPartition::new(topic(), PartitionId(*n));
    numbers.iter().map(of).collect()
}

/// A consumer of the classic protocol with a cooperative assignor.
struct Classic {
    id: MemberId,
    known: bool,
    generation: i32,
    owned: BTreeSet<TopicPartition>,
}

impl Classic {
    fn new(id: &str) -> Self {
        Self {
            id: id.parse().unwrap(),
            known: false,
            generation: -1,
            owned: BTreeSet::new(),
        }
    }

    async fn join(&mut self, node: &Node) -> ClassicJoined {
        let said = encode_subscription(&EmbeddedSubscription {
            version: 3,
            topics: vec![topic()],
            user_data: None,
            owned: by_topic(&self.owned),
            generation: self.generation,
            rack: None,
        });
        let join = ClassicJoin {
            group: group(),
            member: self.known.then(|| self.id.clone()),
            proposed: self.id.clone(),
            instance: None,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("cooperative-sticky".to_owned(), said)],
            session_timeout_ms: 45_000,
            rebalance_timeout_ms: 60_000,
            client_id: Arc::from("app"),
            peer: None,
            require_known_member_id: false,
        };
        let input = |ticket| Input::ClassicJoin {
            ticket,
            join: Box::new(join.clone()),
        };
        match node.call(input).await {
            Ok(Reply::ClassicJoined(joined)) => {
                self.known = true;
                self.generation = joined.generation;
                *joined
            }
            other => panic!("{}: {other:?}", self.id),
        }
    }

    /// Whether it is to join again, having given something up.
    async fn sync(&mut self, node: &Node, assigns: &[(&str, &[i32])]) -> bool {
        let assign = |(id, numbers): &(&str, &[i32])| {
            let assignment = encode_assignment(&EmbeddedAssignment {
                version: 3,
                partitions: by_topic(&partitions(numbers)),
                user_data: None,
            });
            (id.parse().unwrap(), assignment)
        };
        let sync = ClassicSync {
            group: group(),
            member: self.id.clone(),
            generation: self.generation,
            instance: None,
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("cooperative-sticky".to_owned()),
            assignments: assigns.iter().map(assign).collect(),
        };
        let input = |ticket| Input::ClassicSync {
            ticket,
            sync: Box::new(sync.clone()),
        };
        match node.call(input).await {
            Ok(Reply::ClassicSynced(synced)) => {
                let told = decode_assignment(&synced.assignment).unwrap();
                let told = partition_set(&told.partitions);
                let gives_up = !self.owned.is_subset(&told);
                self.owned = told;
                gives_up
            }
            Ok(Reply::ClassicFailed(ClassicError::RebalanceInProgress)) => true,
            other => panic!("{}: {other:?}", self.id),
        }
    }

    /// One heartbeat, and what follows from it in a group where the coordinator assigns.
    async fn beat(&mut self, node: &Node) {
        if !self.is_to_join(node).await {
            return;
        }
        loop {
            let joined = self.join(node).await;
            assert_eq!(joined.leader, None, "the coordinator assigns");
            if !self.sync(node, &[]).await {
                return;
            }
        }
    }

    async fn is_to_join(&self, node: &Node) -> bool {
        let heartbeat = ClassicHeartbeat {
            group: group(),
            member: self.id.clone(),
            generation: self.generation,
            instance: None,
        };
        let input = |ticket| Input::ClassicHeartbeat {
            ticket,
            heartbeat: Box::new(heartbeat.clone()),
        };
        match node.call(input).await {
            Ok(Reply::ClassicAlive) => false,
            Ok(Reply::ClassicFailed(ClassicError::RebalanceInProgress)) => true,
            other => panic!("{}: {other:?}", self.id),
        }
    }
}

/// A consumer of the consumer protocol.
struct Consumer {
    epoch: i32,
    owned: BTreeSet<TopicPartition>,
}

impl Consumer {
    async fn beat(&mut self, node: &Node, leave: bool) {
        let heartbeat = Heartbeat {
            group: group(),
            member: "new".parse().unwrap(),
            member_epoch: self.epoch,
            leave,
            keep_assignment: false,
            instance: None,
            subscription: Some(Subscription {
                topics: vec![topic()],
                ..Subscription::default()
            }),
            owned: Some(self.owned.iter().cloned().collect()),
            rack: String::new(),
            session_timeout: None,
            rebalance_timeout: None,
            max_wait: Duration::ZERO,
        };
        let context = Context::anonymous();
        let reply = loop {
            match node.broker.heartbeat(&context, heartbeat.clone()).await {
                Ok(reply) => break reply,
                Err(error) => {
                    assert_ne!(error.kind.retry(), varve_types::Retry::Never, "{error:?}")
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        self.epoch = reply.member_epoch;
        if let Some(assignment) = reply.assignment {
            self.owned = assignment.into_iter().collect();
        }
    }
}

async fn commit(node: &Node, member: &Classic, offset: i64) -> Result<(), Error> {
    let request = CommitOffsets {
        group: group(),
        member: Some(member.id.clone()),
        member_epoch: member.generation,
        offsets: vec![OffsetCommit {
            partition: TopicPartition::new(topic(), PartitionId(0)),
            offset: Offset::new(offset).unwrap(),
            leader_epoch: None,
            metadata: String::new(),
        }],
    };
    let context = Context::anonymous();
    let results = node.broker.commit_offsets(&context, request).await?;
    results.into_iter().collect()
}

async fn two_classic_members(node: &Node) -> (Classic, Classic) {
    let request = CreateTopic {
        topic: topic(),
        partitions: Some(4),
        replication_factor: None,
        configs: BTreeMap::new(),
        labels: BTreeMap::new(),
        placement: BTreeMap::new(),
        validate_only: false,
        request_id: None,
    };
    let context = Context::anonymous();
    node.broker.create_topic(&context, request).await.unwrap();
    let (mut a, mut b) = (Classic::new("a"), Classic::new("b"));
    let (first, second) = tokio::join!(a.join(node), b.join(node));
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!(share(node, &mut a, &mut b, &first).await, (false, false));
    assert_eq!(a.owned, partitions(&[0, 1]));
    assert_eq!(b.owned, partitions(&[2, 3]));
    (a, b)
}

/// The leader of the generation assigns two partitions to each.
async fn share(
    node: &Node,
    a: &mut Classic,
    b: &mut Classic,
    joined: &ClassicJoined,
) -> (bool, bool) {
    let assigns: [(&str, &[i32]); 2] = [("a", &[0, 1]), ("b", &[2, 3])];
    let of = |member: &Classic| match joined.leader.as_ref() == Some(&member.id) {
        true => assigns.to_vec(),
        false => Vec::new(),
    };
    let (by_a, by_b) = (of(a), of(b));
    tokio::join!(a.sync(node, &by_a), b.sync(node, &by_b))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_passes_from_one_protocol_to_the_other_and_back_over_restarts() {
    let disk = Arc::new(MemVfs::new());
    varve_vfs::durable::create_dir_all(&*disk, &PathBuf::from("/data")).unwrap();
    let mut node = Node::on(disk).await;
    let (mut a, mut b) = two_classic_members(&node).await;
    commit(&node, &a, 0).await.unwrap();

    // A member of the consumer protocol joins; the next process knows the mixed group.
    let mut new = Consumer {
        epoch: 0,
        owned: BTreeSet::new(),
    };
    new.beat(&node, false).await;
    assert_eq!(new.epoch, 2);
    node = node.restart().await;
    let found = node.describe().await;
    assert_eq!(found.members.len(), 3);
    assert_eq!(
        found.group_epoch, 3,
        "the next coordinator goes on counting"
    );
    assert_eq!(found.state, GroupState::Reconciling);

    // What it had, it may commit, until it has joined again.
    commit(&node, &a, 0).await.unwrap();
    let shared = loop {
        a.beat(&node).await;
        b.beat(&node).await;
        new.beat(&node, false).await;
        let all: Vec<_> = [&a.owned, &b.owned, &new.owned]
            .into_iter()
            .flatten()
            .collect();
        let once: BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), once.len(), "a partition is owned by two");
        if node.describe().await.state == GroupState::Stable && once.len() == 4 {
            break all.len();
        }
    };
    assert_eq!(shared, 4);
    assert_eq!(new.owned.len(), 1);
    let old = Classic {
        generation: 1,
        ..Classic::new("a")
    };
    assert!(
        commit(&node, &old, 0).await.is_err(),
        "of an old generation"
    );

    // It leaves; the next process knows the classic group, asks its members to join again, and they share it by
    // themselves.
    new.beat(&node, true).await;
    node = node.restart().await;
    assert_eq!(node.describe().await.members.len(), 2);
    assert!(a.is_to_join(&node).await, "in the generation that it has");
    let (first, _) = tokio::join!(a.join(&node), b.join(&node));
    share(&node, &mut a, &mut b, &first).await;
    let all: BTreeSet<_> = a.owned.union(&b.owned).cloned().collect();
    assert_eq!(all, partitions(&[0, 1, 2, 3]));
    commit(&node, &a, 0).await.unwrap();

    let request = GetOffsets {
        group: group(),
        partitions: Vec::new(),
        include_lag: false,
        require_stable: false,
    };
    let context = Context::anonymous();
    let kept = node
        .broker
        .committed_offsets(&context, request)
        .await
        .unwrap();
    assert_eq!(
        kept.len(),
        1,
        "offsets are those of the group, not of its protocol"
    );
    node.broker.shutdown().await;
}
