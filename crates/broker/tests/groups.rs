//! Consumer groups over a cluster: members and what they own outlive the coordinator, and no partition is ever
//! believed to be owned by two.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::support::cluster::Nodes;
use crate::support::new_topic;
use varve_broker::Broker;
use varve_broker_api::{
    Broker as _, CommitOffsets, Context, GetOffsets, Heartbeat, HeartbeatReply, OffsetCommit,
    Result, Subscription,
};
use varve_groups::codec::partition_of;
use varve_types::{
    ErrorKind, GroupName, MemberId, NodeId, Offset, PartitionId, TopicName, TopicPartition,
};
use varve_vfs::mem::MemVfs;

const OFFSETS: &str = "__consumer_offsets";

/// A member as a client is one: it owns what it was told and has not given up.
struct Member {
    group: GroupName,
    id: MemberId,
    topic: TopicName,
    epoch: i32,
    owned: BTreeSet<TopicPartition>,
    /// It has been told that it is none.
    fenced: usize,
}

impl Member {
    fn new(group: &GroupName, id: &str, topic: &TopicName) -> Self {
        Self {
            group: group.clone(),
            id: id.parse().unwrap(),
            topic: topic.clone(),
            epoch: 0,
            owned: BTreeSet::new(),
            fenced: 0,
        }
    }

    fn request(&self) -> Heartbeat {
        Heartbeat {
            group: self.group.clone(),
            member: self.id.clone(),
            member_epoch: self.epoch,
            leave: false,
            keep_assignment: false,
            instance: None,
            subscription: (self.epoch == 0).then(|| Subscription {
                topics: vec![self.topic.clone()],
                ..Subscription::default()
            }),
            owned: Some(self.owned.iter().cloned().collect()),
            rack: String::new(),
            session_timeout: Some(Duration::from_secs(30)),
            rebalance_timeout: None,
            max_wait: Duration::ZERO,
        }
    }

    /// One heartbeat at whoever coordinates, and what follows from it.
    async fn beat(&mut self, nodes: &Nodes) {
        let request = self.request();
        let result = at_coordinator(nodes, |broker| {
            let request = request.clone();
            async move { broker.heartbeat(&Context::anonymous(), request).await }
        });
        match result.await {
            Ok(reply) => self.follow(reply),
            Err(error)
                if matches!(
                    error.kind,
                    ErrorKind::UnknownMember | ErrorKind::FencedMemberEpoch
                ) =>
            {
                self.fenced += 1;
                self.epoch = 0;
                self.owned.clear();
            }
            Err(error) => panic!("{}: {error:?}", self.id),
        }
    }

    fn follow(&mut self, reply: HeartbeatReply) {
        assert!(reply.member_epoch >= self.epoch, "epochs never decrease");
        self.epoch = reply.member_epoch;
        if let Some(assignment) = reply.assignment {
            self.owned = assignment.into_iter().collect();
        }
    }
}

/// Asks one node after the other until one coordinates the group.
async fn at_coordinator<T, F: Future<Output = Result<T>>>(
    nodes: &Nodes,
    call: impl Fn(Broker) -> F,
) -> Result<T> {
    let mut last = None;
    for _ in 0..400 {
        for broker in nodes.brokers.values() {
            match call(broker.clone()).await {
                Err(error)
                    if error.kind.retry() != varve_types::Retry::Never && elsewhere(error.kind) =>
                {
                    last = Some(error);
                }
                result => return result,
            }
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("nobody coordinates the group: {last:?}");
}

const fn elsewhere(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        ErrorKind::UnknownMember | ErrorKind::FencedMemberEpoch | ErrorKind::StaleMemberEpoch
    )
}

fn nobody_shares(members: &[Member]) {
    let mut seen = BTreeSet::new();
    for member in members {
        for partition in &member.owned {
            assert!(
                seen.insert(partition.clone()),
                "{partition} is owned by two, {} is one of them",
                member.id
            );
        }
    }
}

/// Heartbeats in turn until everybody owns `each` partitions.
async fn share(nodes: &Nodes, members: &mut [Member], each: &[usize]) {
    for _ in 0..200 {
        for at in 0..members.len() {
            members[at].beat(nodes).await;
            nobody_shares(members);
        }
        let mut owned: Vec<usize> = members.iter().map(|m| m.owned.len()).collect();
        owned.sort_unstable();
        if owned == each {
            return;
        }
        // Rounds are few, and what they wait for takes its time.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let owned: Vec<_> = members.iter().map(|m| (&m.id, &m.owned)).collect();
    panic!("the group does not come to rest: {owned:?}");
}

/// Six partitions on three nodes.
async fn orders(nodes: &Nodes) -> TopicName {
    let mut request = new_topic("orders", 6);
    request.replication_factor = Some(3);
    let broker = &nodes.brokers[&NodeId(1)];
    let made = broker.create_topic(&Context::anonymous(), request).await;
    made.unwrap().name
}

async fn kill_coordinator(nodes: &mut Nodes, group: &GroupName) -> NodeId {
    let number = partition_of(group, 3).0;
    let (dead, _) = nodes.leader(OFFSETS, number).await;
    if dead == NodeId(1) {
        nodes.shared.lead(NodeId(2));
    }
    nodes.kill(dead).await;
    dead
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_what_they_own_outlive_their_coordinator() {
    let mut nodes = Nodes::new(3).await;
    let topic = orders(&nodes).await;
    let group: GroupName = "billing".parse().unwrap();
    let mut members = vec![
        Member::new(&group, "a", &topic),
        Member::new(&group, "b", &topic),
    ];
    share(&nodes, &mut members, &[3, 3]).await;
    let before: Vec<_> = members.iter().map(|m| (m.epoch, m.owned.clone())).collect();

    let mine = members[0].owned.first().cloned().unwrap();
    let commit = CommitOffsets {
        group: group.clone(),
        member: Some(members[0].id.clone()),
        member_epoch: members[0].epoch,
        offsets: vec![OffsetCommit {
            partition: mine.clone(),
            offset: Offset::ZERO,
            leader_epoch: None,
            metadata: "mine".to_owned(),
        }],
    };
    let committed = at_coordinator(&nodes, |broker| {
        let commit = commit.clone();
        async move { broker.commit_offsets(&Context::anonymous(), commit).await }
    });
    committed.await.unwrap().remove(0).unwrap();

    kill_coordinator(&mut nodes, &group).await;
    for member in &mut members {
        member.beat(&nodes).await;
    }
    nobody_shares(&members);
    let after: Vec<_> = members.iter().map(|m| (m.epoch, m.owned.clone())).collect();
    assert_eq!(before, after, "a group at rest does not notice");
    assert_eq!(members.iter().map(|m| m.fenced).sum::<usize>(), 0);

    // The epoch of before still commits, and what was committed is there.
    let again = at_coordinator(&nodes, |broker| {
        let commit = commit.clone();
        async move { broker.commit_offsets(&Context::anonymous(), commit).await }
    });
    again.await.unwrap().remove(0).unwrap();
    let get = GetOffsets {
        require_stable: false,
        group: group.clone(),
        partitions: vec![mine],
        include_lag: false,
    };
    let found = at_coordinator(&nodes, |broker| {
        let get = get.clone();
        async move { broker.committed_offsets(&Context::anonymous(), get).await }
    });
    assert_eq!(found.await.unwrap()[0].metadata, "mine");

    // A third one gets its share, and only what others have given up.
    members.push(Member::new(&group, "c", &topic));
    share(&nodes, &mut members, &[2, 2, 2]).await;
    assert_eq!(members.iter().map(|m| m.fenced).sum::<usize>(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_goes_on_at_the_next_coordinator() {
    let mut nodes = Nodes::new(3).await;
    let topic = orders(&nodes).await;
    let group: GroupName = "billing".parse().unwrap();
    let mut members = vec![Member::new(&group, "a", &topic)];
    share(&nodes, &mut members, &[6]).await;

    // The second joins, the first has not heard of it, and the coordinator dies.
    members.push(Member::new(&group, "b", &topic));
    members[1].beat(&nodes).await;
    nobody_shares(&members);
    kill_coordinator(&mut nodes, &group).await;
    members[1].beat(&nodes).await;
    nobody_shares(&members);
    assert!(
        members[1].owned.is_empty(),
        "the first still owns everything"
    );
    share(&nodes, &mut members, &[3, 3]).await;
    assert_eq!(members.iter().map(|m| m.fenced).sum::<usize>(), 0);
}

/// A commit of a reader without members.
async fn commit(broker: &Broker, group: &GroupName, topic: &TopicName, offset: i64) -> Result<()> {
    let commit = CommitOffsets {
        group: group.clone(),
        member: None,
        member_epoch: 0,
        offsets: vec![OffsetCommit {
            partition: TopicPartition::new(topic.clone(), varve_types::PartitionId(0)),
            offset: Offset::new(offset).unwrap(),
            leader_epoch: None,
            metadata: String::new(),
        }],
    };
    let mut done = broker.commit_offsets(&Context::anonymous(), commit).await?;
    done.remove(0)
}

async fn committed(broker: &Broker, group: &GroupName) -> Result<Option<i64>> {
    let get = GetOffsets {
        require_stable: false,
        group: group.clone(),
        partitions: vec![],
        include_lag: false,
    };
    let found = broker.committed_offsets(&Context::anonymous(), get).await?;
    Ok(found.first().map(|o| o.offset.get()))
}

/// One record to the first partition, as soon as somebody leads it.
async fn produce(nodes: &Nodes, topic: &TopicName, value: &str) {
    for _ in 0..200 {
        let (_, leader) = nodes.leader(topic.as_str(), 0).await;
        let sent = crate::support::produce(&leader, topic, 0, crate::support::batch(&[value]));
        if sent.await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{value} is never acknowledged");
}

/// Found by a history of chaos (seed 21): a coordinator that had been paused told an offset that was older than one
/// its successor had acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_was_replaced_without_knowing_tells_nothing() {
    let nodes = Nodes::new(3).await;
    let topic = orders(&nodes).await;
    for value in ["a", "b"] {
        produce(&nodes, &topic, value).await;
    }
    let group: GroupName = "billing".parse().unwrap();
    let at = at_coordinator(&nodes, |broker| {
        let (group, topic) = (group.clone(), topic.clone());
        async move { commit(&broker, &group, &topic, 1).await }
    });
    at.await.unwrap();
    let number = partition_of(&group, 3).0;
    let (old, coordinator) = nodes.leader(OFFSETS, number).await;
    assert_eq!(committed(&coordinator, &group).await.unwrap(), Some(1));
    if old == NodeId(1) {
        nodes.shared.lead(NodeId(2));
    }
    nodes.net.cut(old);
    crate::support::until("another coordinator", || {
        nodes
            .partition(OFFSETS, number)
            .leader
            .is_some_and(|l| l != old)
    })
    .await;
    let (_, new) = nodes.leader(OFFSETS, number).await;
    for _ in 0..400 {
        if commit(&new, &group, &topic, 2).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(committed(&new, &group).await.unwrap(), Some(2));
    let told = committed(&coordinator, &group).await;
    assert_eq!(
        told.unwrap_err().kind,
        ErrorKind::CoordinatorLoading,
        "it has not heard of its successor, and must not tell what it remembers"
    );
    nodes.net.heal();
}

/// A member that its successor knows is not sent away by a coordinator that was replaced without knowing; nor is one
/// kept that its successor has not heard of for a session, and whose partitions are others' by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_was_replaced_without_knowing_expels_and_keeps_nobody() {
    let nodes = Nodes::new(3).await;
    let topic = orders(&nodes).await;
    let group: GroupName = "billing".parse().unwrap();
    let beat = |broker: Broker, member: &str, member_epoch: i32| {
        let heartbeat = Heartbeat {
            group: group.clone(),
            member: member.parse().unwrap(),
            member_epoch,
            leave: false,
            keep_assignment: false,
            instance: None,
            subscription: (member_epoch == 0).then(|| Subscription {
                topics: vec![topic.clone()],
                ..Subscription::default()
            }),
            owned: Some(Vec::new()),
            rack: String::new(),
            session_timeout: None,
            rebalance_timeout: None,
            max_wait: Duration::ZERO,
        };
        async move { broker.heartbeat(&Context::anonymous(), heartbeat).await }
    };
    let made = at_coordinator(&nodes, |broker| {
        let (group, topic) = (group.clone(), topic.clone());
        async move { commit(&broker, &group, &topic, 0).await }
    });
    made.await.unwrap();
    let number = partition_of(&group, 3).0;
    let (old, asleep) = nodes.leader(OFFSETS, number).await;
    if old == NodeId(1) {
        nodes.shared.lead(NodeId(2));
    }
    let join = async |broker: &Broker, member: &str| {
        for _ in 0..400 {
            if let Ok(reply) = beat(broker.clone(), member, 0).await {
                return reply.member_epoch;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{member} could not join");
    };
    let early = join(&asleep, "early").await;
    beat(asleep.clone(), "early", early).await.unwrap();
    nodes.net.cut(old);
    crate::support::until("another coordinator", || {
        let leader = nodes.partition(OFFSETS, number).leader;
        leader.is_some_and(|l| l != old)
    })
    .await;
    let (_, new) = nodes.leader(OFFSETS, number).await;
    let epoch = join(&new, "late").await;
    for (member, epoch) in [("late", epoch), ("early", early)] {
        let refused = beat(asleep.clone(), member, epoch).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::CoordinatorLoading, "{refused:?}");
        assert!(refused.message.contains("cannot confirm"), "{refused:?}");
    }
    beat(new.clone(), "late", epoch).await.unwrap();
    // Where it can be confirmed, a member that nobody knows is told so.
    let unknown = beat(new, "late", epoch + 7).await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::FencedMemberEpoch, "{unknown:?}");
    nodes.net.heal();
}

/// Flips a bit of what that partition of the topic of groups has there.
fn flip(disk: &MemVfs, number: PartitionId, what: &str) {
    let mut found = Vec::new();
    disk.for_each_file(&mut |path, bytes| {
        let dir = path.parent().unwrap();
        let topic = dir.parent().and_then(|p| p.file_name()?.to_str());
        let at = bytes.windows(what.len()).position(|w| w == what.as_bytes());
        if topic.is_some_and(|name| name.starts_with(OFFSETS))
            && dir.ends_with(number.to_string())
            && path.extension().is_some_and(|e| e == "log")
            && let Some(at) = at
        {
            found.push((path.to_owned(), at));
        }
    });
    assert_eq!(found.len(), 1, "a record is in one file");
    for (path, at) in found {
        assert!(disk.damage(&path, &mut |data: &mut Vec<u8>| data[at] ^= 4));
    }
}

/// What became of a group after the damage is not known, so what was true before it is not acted on.
#[tokio::test(flavor = "multi_thread")]
async fn groups_that_cannot_be_read_whole_are_left_as_they_are() {
    let count = 3;
    let (damaged, sound): (GroupName, GroupName) = ("a".parse().unwrap(), "b".parse().unwrap());
    let (bad, good) = (partition_of(&damaged, count), partition_of(&sound, count));
    assert_ne!(bad, good, "the groups are in partitions of their own");
    let session = Duration::from_secs(3);
    let start = async |disk: &Arc<MemVfs>| {
        let clock = Arc::new(varve_vfs::SystemClock::new());
        crate::support::Fixture::with(Arc::clone(disk), clock, |config| {
            config.clean_start = true;
            config.offsets_partitions = count;
            config.offsets_segment_bytes = 4096;
            config.group_session_timeout = session;
        })
        .await
    };
    let disk = Arc::new(MemVfs::new());
    varve_vfs::durable::create_dir_all(&*disk, "/data".as_ref()).unwrap();
    let f = start(&disk).await;
    let context = Context::anonymous();
    let topic = f.create("t", 1).await;
    for group in [&damaged, &sound] {
        let mut member = Member::new(group, "m", &topic);
        let request = Heartbeat {
            session_timeout: None,
            ..member.request()
        };
        member.follow(f.broker.heartbeat(&context, request).await.unwrap());
        // The damage is in a segment that was finished: the last one is looked through by every start.
        for what in ["here it breaks", "later", "later", "later", "later"] {
            let commit = CommitOffsets {
                group: group.clone(),
                member: Some(member.id.clone()),
                member_epoch: member.epoch,
                offsets: vec![OffsetCommit {
                    partition: TopicPartition::new(topic.clone(), PartitionId(0)),
                    offset: Offset::ZERO,
                    leader_epoch: None,
                    metadata: format!("{what} {}", ".".repeat(1500)),
                }],
            };
            let committed = f.broker.commit_offsets(&context, commit).await.unwrap();
            assert!(committed.iter().all(Result::is_ok), "{committed:?}");
        }
    }
    assert!(f.broker.shutdown().await);
    flip(&disk, bad, "here it breaks");
    let f = start(&disk).await;
    let end = |number: PartitionId| {
        let all = f.broker.partitions(&context, &OFFSETS.parse().unwrap());
        let all = all.unwrap();
        all.iter().find(|p| p.partition == number).unwrap().log_end
    };
    let before = end(bad);
    assert!(before > Offset::ZERO, "it takes records");
    let get = |group: &GroupName| GetOffsets {
        require_stable: false,
        group: group.clone(),
        partitions: vec![],
        include_lag: false,
    };
    let refused = f.broker.committed_offsets(&context, get(&damaged)).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::LeaderNotAvailable);
    let known = f.broker.committed_offsets(&context, get(&sound)).await;
    assert_eq!(known.unwrap().len(), 1);
    // The session of the member that is known ends, and so would that of the other.
    let mut members = 1;
    for _ in 0..400 {
        members = f
            .broker
            .group(&context, &sound)
            .await
            .unwrap()
            .members
            .len();
        if members == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(members, 0, "never let go of");
    assert!(f.broker.shutdown().await);
    assert_eq!(end(bad), before, "nothing is written");
}
