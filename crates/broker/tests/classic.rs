//! Groups of the classic protocol through the broker, over a cluster: members join, one of them assigns, and what
//! they have outlives their coordinator; nobody joins before every node can read what is then written.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::Duration;

use crate::support::cluster::Nodes;
use crate::support::new_topic;
use bytes::Bytes;
use varve_broker::Broker;
use varve_broker_api::{
    Broker as _, ClassicError, ClassicGroups as _, ClassicHeartbeat, ClassicResult, ClassicState,
    CommitOffsets, Context, Error, GroupProtocol, JoinGroup, JoinedGroup, LeaveGroup, OffsetCommit,
    Operations as _, SyncGroup,
};
use varve_groups::codec::partition_of;
use varve_metadata::features;
use varve_types::{ErrorKind, GroupName, MemberId, Offset, PartitionId, TopicPartition};

const OFFSETS: &str = "__consumer_offsets";

fn group() -> GroupName {
    "billing".parse().unwrap()
}

fn passes(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::NotCoordinator
            | ErrorKind::CoordinatorLoading
            | ErrorKind::NotLeader
            | ErrorKind::LeaderNotAvailable
            | ErrorKind::NotEnoughReplicas
            | ErrorKind::CommitTimeout
    )
}

/// Asks every node until the coordinator answers, as a client finds it.
async fn ask<T, F>(nodes: &Nodes, call: impl Fn(Broker) -> F) -> ClassicResult<T>
where
    F: Future<Output = ClassicResult<T>>,
{
    for _ in 0..400 {
        for broker in nodes.brokers.values() {
            match call(broker.clone()).await {
                Err(ClassicError::Failed(error)) if passes(&error) => {}
                answer => return answer,
            }
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("no coordinator answers");
}

/// A member, as a client is one.
struct Member {
    id: Option<MemberId>,
    generation: i32,
    context: Context,
}

impl Member {
    fn new(client: &str) -> Self {
        Self {
            id: None,
            generation: -1,
            context: Context {
                client_id: client.into(),
                ..Context::anonymous()
            },
        }
    }

    async fn join_once(&self, nodes: &Nodes) -> ClassicResult<JoinedGroup> {
        ask(nodes, |broker| {
            let request = JoinGroup {
                group: group(),
                member: self.id.clone(),
                instance: None,
                protocol_type: "consumer".to_owned(),
                protocols: vec![("mine".to_owned(), Bytes::from_static(b"of the member"))],
                session_timeout: Duration::from_secs(45),
                rebalance_timeout: Duration::from_secs(60),
                require_known_member_id: true,
            };
            let context = self.context.clone();
            async move { broker.join_group(&context, request).await }
        })
        .await
    }

    /// With the second call that KIP-394 asks for.
    async fn join(&mut self, nodes: &Nodes) -> JoinedGroup {
        loop {
            match self.join_once(nodes).await {
                Ok(joined) => {
                    assert_eq!(self.id.as_ref(), Some(&joined.member));
                    self.generation = joined.generation;
                    return joined;
                }
                Err(ClassicError::MemberIdRequired(id)) => {
                    assert_eq!(self.id, None, "asked once");
                    self.id = Some(id);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    async fn sync(&self, nodes: &Nodes, assigns: &[(&MemberId, &'static str)]) -> Bytes {
        let assign = |(id, text): &(&MemberId, &'static str)| {
            ((*id).clone(), Bytes::from_static(text.as_bytes()))
        };
        let synced = ask(nodes, |broker| {
            let request = SyncGroup {
                group: group(),
                member: self.id.clone().unwrap(),
                generation: self.generation,
                instance: None,
                protocol_type: Some("consumer".to_owned()),
                protocol: Some("mine".to_owned()),
                assignments: assigns.iter().map(assign).collect(),
            };
            let context = self.context.clone();
            async move { broker.sync_group(&context, request).await }
        })
        .await;
        synced.unwrap().assignment
    }

    async fn beat(&self, nodes: &Nodes) -> ClassicResult<()> {
        ask(nodes, |broker| {
            let request = ClassicHeartbeat {
                group: group(),
                member: self.id.clone().unwrap(),
                generation: self.generation,
                instance: None,
            };
            let context = self.context.clone();
            async move { broker.classic_heartbeat(&context, request).await }
        })
        .await
    }

    async fn commit(&self, nodes: &Nodes, generation: i32) -> Result<(), Error> {
        let committed = ask(nodes, |broker| {
            let at = TopicPartition::new("orders".parse().unwrap(), PartitionId(0));
            let request = CommitOffsets {
                group: group(),
                member: self.id.clone(),
                member_epoch: generation,
                offsets: vec![OffsetCommit {
                    partition: at,
                    offset: Offset::ZERO,
                    leader_epoch: None,
                    metadata: String::new(),
                }],
            };
            async move {
                let committed = broker.commit_offsets(&Context::anonymous(), request).await;
                Ok(committed?.into_iter().collect::<Result<(), Error>>())
            }
        })
        .await;
        match committed {
            Ok(result) => result,
            Err(ClassicError::Failed(error)) => Err(*error),
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn leave(&self, nodes: &Nodes) -> Vec<ClassicResult<()>> {
        let left = ask(nodes, |broker| {
            let request = LeaveGroup {
                group: group(),
                members: vec![
                    (self.id.clone(), None),
                    (Some("nobody".parse().unwrap()), None),
                ],
            };
            async move { broker.leave_group(&Context::anonymous(), request).await }
        });
        left.await.unwrap()
    }
}

async fn orders(nodes: &Nodes) {
    let request = varve_broker_api::CreateTopic {
        replication_factor: Some(3),
        ..new_topic("orders", 1)
    };
    let any = nodes.brokers.values().next().unwrap().clone();
    any.create_topic(&Context::anonymous(), request)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_the_classic_protocol_share_a_group_and_outlive_its_coordinator() {
    let mut nodes = Nodes::new(3).await;
    orders(&nodes).await;
    let (mut a, mut b) = (Member::new("x..app 1.0"), Member::new(""));
    let (first, second) = tokio::join!(a.join(&nodes), b.join(&nodes));
    assert_eq!((first.generation, second.generation), (1, 1));
    let id = a.id.clone().unwrap();
    assert!(id.as_str().starts_with("x__app_1_0-"), "{id}");
    let leads_a = first.leader.as_ref() == Some(&id);
    let told = if leads_a { &first } else { &second };
    let others = if leads_a { &second } else { &first };
    assert_eq!((told.members.len(), others.members.len()), (2, 0));
    let said: Vec<_> = told.members.iter().map(|m| &*m.metadata).collect();
    assert_eq!(said, [b"of the member".as_slice(); 2]);
    let assigns = [(&id, "to a"), (&second.member, "to b")];
    let (to_a, to_b) = match leads_a {
        true => tokio::join!(a.sync(&nodes, &assigns), b.sync(&nodes, &[])),
        false => tokio::join!(a.sync(&nodes, &[]), b.sync(&nodes, &assigns)),
    };
    assert_eq!((&*to_a, &*to_b), (b"to a".as_slice(), b"to b".as_slice()));
    a.commit(&nodes, 1).await.unwrap();
    let stale = a.commit(&nodes, 7).await.unwrap_err();
    assert_eq!(stale.kind, ErrorKind::StaleMemberEpoch, "{stale:?}");

    // The next coordinator knows members, generation and assignments.
    let number = partition_of(&group(), 3).0;
    let (leader, _) = nodes.leader(OFFSETS, number).await;
    let left = nodes.kill(leader).await;
    let other = nodes.brokers.keys().next().copied();
    nodes.shared.lead(other.unwrap());
    assert_eq!(a.beat(&nodes).await, Ok(()));
    assert_eq!(&*b.sync(&nodes, &[]).await, b"to b");
    let (_, coordinator) = nodes.leader(OFFSETS, number).await;
    let found = coordinator.group(&Context::anonymous(), &group()).await;
    let found = found.unwrap();
    assert_eq!(
        (found.protocol, found.group_epoch),
        (GroupProtocol::Classic, 1)
    );
    let classic = found.classic.unwrap();
    assert_eq!(classic.state, ClassicState::Stable);
    assert_eq!(
        (&*classic.protocol_type, &*classic.protocol),
        ("consumer", "mine")
    );
    assert_eq!(classic.leader, first.leader);
    let of_a = found.members.iter().find(|m| m.member == id).unwrap();
    assert_eq!(&*of_a.classic.as_ref().unwrap().assignment, b"to a");
    nodes.restart(leader, left).await;
    nodes.active(3).await;

    // One leaves; the other is asked to join again, and has the group for itself.
    let left = b.leave(&nodes).await;
    assert_eq!(left, [Ok(()), Err(ClassicError::UnknownMember)]);
    assert_eq!(b.beat(&nodes).await, Err(ClassicError::UnknownMember));
    assert_eq!(a.beat(&nodes).await, Err(ClassicError::RebalanceInProgress));
    let alone = a.join(&nodes).await;
    assert_eq!((alone.generation, alone.members.len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_before_every_node_can_read_what_is_written() {
    let nodes = Nodes::at_level(3, features::CLASSIC_GROUPS - 1).await;
    orders(&nodes).await;
    let mut member = Member::new("app");
    let refused = member.join_once(&nodes).await.unwrap_err();
    let ClassicError::Failed(error) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.kind, ErrorKind::UnsupportedFeature, "{error:?}");
    assert!(error.message.contains("need level 5"), "{error:?}");
    nodes.shared.raise();
    let any = nodes.brokers.values().next().unwrap();
    let raised = any
        .finalize_features(&Context::anonymous(), None, false)
        .await;
    assert_eq!(raised.unwrap().level, features::KNOWN_LEVEL);
    assert_eq!(member.join(&nodes).await.generation, 1);
}
