//! AdminService: messages to calls and back, and what is refused before a broker sees it.

use tonic::Code;
use tonic_types::StatusExt;
use varve_broker_api::*;
use varve_proto::v1;
use varve_proto::v1::admin_service_client::AdminServiceClient;
use varve_types::{ErrorKind, LeaderEpoch, NodeId, PartitionId, TopicName, TopicPartition};

use crate::fake::Fake;
use crate::{Harness, assert_fails, tp};

/// Node 1 is there, node 2 is not; partitions from 5 on do not exist.
fn node(node: NodeId) -> Result<()> {
    match node {
        NodeId(1) => Ok(()),
        _ => Err(Error::new(ErrorKind::NodeNotFound, "no such node")),
    }
}

fn each(ids: impl IntoIterator<Item = TopicPartition>) -> Vec<Result<()>> {
    let one = |id: TopicPartition| match id.partition.0 < 5 {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::PartitionNotFound, "no such")),
    };
    ids.into_iter().map(one).collect()
}

impl Operations for Fake {
    fn node_details(&self, _: &Context) -> Result<Vec<NodeDetail>> {
        let detail = |status| NodeDetail {
            status,
            replicas: 7,
            leaders: 3,
            decommissioning: false,
        };
        Ok(self.nodes().into_iter().map(detail).collect())
    }

    async fn drain_node(&self, _: &Context, id: NodeId, force: bool) -> Result<Drain> {
        node(id)?;
        Ok(Drain {
            state: NodeState::Draining,
            leaders: 2,
            stuck: u64::from(force),
        })
    }

    async fn resume_node(&self, _: &Context, id: NodeId) -> Result<NodeState> {
        node(id).map(|()| NodeState::Active)
    }

    async fn decommission_node(&self, _: &Context, id: NodeId, dead: bool) -> Result<Decommission> {
        node(id)?;
        Ok(Decommission {
            state: NodeState::Decommissioning,
            replicas: 9,
            moving: u64::from(dead),
        })
    }

    async fn transfer_leadership(
        &self,
        _: &Context,
        _: TopicPartition,
        to: Option<NodeId>,
    ) -> Result<LeaderHint> {
        let id = to.unwrap_or(NodeId(1));
        node(id)?;
        Ok(LeaderHint {
            node: id,
            address: "h:1".to_owned(),
            epoch: LeaderEpoch::new(4).unwrap(),
        })
    }

    async fn elect_preferred_leaders(
        &self,
        _: &Context,
        topics: Vec<TopicName>,
    ) -> Result<Elections> {
        Ok(Elections {
            started: topics.len() as u64,
            skipped: 1,
        })
    }

    async fn elect_preferred_leaders_of(
        &self,
        _: &Context,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Result<bool>>> {
        Ok(partitions.iter().map(|_| Ok(true)).collect())
    }

    async fn reassign(&self, _: &Context, request: Reassign) -> Result<Vec<Result<()>>> {
        Ok(each(request.items.into_iter().map(|(id, _)| id)))
    }

    fn features(&self, _: &Context) -> Result<Features> {
        let node = NodeFeatures {
            node: NodeId(1),
            version: "0.1.0".to_owned(),
            min: 1,
            max: 2,
        };
        Ok(Features {
            level: 1,
            possible: 2,
            nodes: vec![node],
        })
    }

    async fn finalize_features(
        &self,
        ctx: &Context,
        level: Option<u16>,
        validate_only: bool,
    ) -> Result<Features> {
        let now = self.features(ctx)?;
        match level.unwrap_or(now.possible) {
            level if level > now.possible => {
                Err(Error::new(ErrorKind::UnsupportedFeature, "node 1 cannot"))
            }
            _ if validate_only => Ok(now),
            level => Ok(Features { level, ..now }),
        }
    }

    fn reassignments(&self, _: &Context) -> Result<Vec<Reassignment>> {
        let one = |n| Reassignment {
            partition: TopicPartition::new("orders".parse().unwrap(), PartitionId(n)),
            leader: (n == 0).then_some(NodeId(1)),
            replicas: vec![NodeId(1), NodeId(2)],
            adding: vec![NodeId(2)],
            removing: Vec::new(),
            remaining_bytes: (n == 0).then_some(5),
        };
        Ok((0..3).map(one).collect())
    }

    async fn cancel_reassignments(
        &self,
        _: &Context,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Result<()>>> {
        Ok(each(partitions))
    }

    async fn log_directory(&self, _: &Context) -> Result<LogDirectory> {
        Ok(LogDirectory {
            path: "/data".to_owned(),
            space: None,
            closed: false,
            replicas: Vec::new(),
        })
    }

    async fn active_producers(
        &self,
        _: &Context,
        _: &TopicPartition,
    ) -> Result<Vec<ActiveProducer>> {
        Ok(Vec::new())
    }
}

fn admin(h: &Harness) -> AdminServiceClient<tonic::transport::Channel> {
    AdminServiceClient::new(h.channel.clone())
}

#[tokio::test]
async fn feature_levels_are_told_and_raised() {
    let h = Harness::start().await;
    let mut a = admin(&h);
    let now = a.get_features(v1::GetFeaturesRequest {}).await.unwrap();
    let now = now.into_inner();
    assert_eq!((now.level, now.possible_level), (1, 2));
    assert_eq!((now.nodes[0].node_id, now.nodes[0].max_level), (1, 2));
    let raise = |level, validate_only| v1::FinalizeFeaturesRequest {
        level,
        validate_only,
    };
    for (request, level) in [
        (raise(None, true), 1),
        (raise(Some(1), false), 1),
        (raise(None, false), 2),
    ] {
        let answer = a.finalize_features(request).await.unwrap().into_inner();
        assert_eq!(answer.features.unwrap().level, level);
    }
    for bad in [0, -1, 65_536, i32::MAX] {
        let status = a.finalize_features(raise(Some(bad), false)).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}");
        assert!(status.message().contains("level must be 1 to"), "{status}");
    }
    let status = a.finalize_features(raise(Some(3), false)).await;
    assert!(status.unwrap_err().message().contains("node 1 cannot"));
}

#[tokio::test]
async fn nodes_are_drained_resumed_and_decommissioned() {
    let h = Harness::start().await;
    let mut a = admin(&h);
    let nodes = a.list_nodes(v1::ListNodesRequest {}).await.unwrap();
    let nodes = nodes.into_inner().nodes;
    assert_eq!((nodes[0].replica_count, nodes[0].leader_count), (7, 3));
    assert_eq!(nodes[0].node.as_ref().unwrap().node_id, 1);
    let drain = |node_id, force| v1::DrainNodeRequest { node_id, force };
    let answer = a.drain_node(drain(Some(1), true)).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.state(), v1::NodeState::Draining);
    assert_eq!((answer.remaining_leaders, answer.stuck_leaders), (2, 1));
    assert_fails(
        a.drain_node(drain(Some(2), false)).await,
        Code::NotFound,
        "NODE_NOT_FOUND",
    );
    for bad in [None, Some(-1)] {
        let error = a.drain_node(drain(bad, false)).await.unwrap_err();
        let details = error.get_details_bad_request().unwrap();
        assert_eq!(details.field_violations[0].field, "node_id");
    }
    let resume = v1::ResumeNodeRequest { node_id: Some(1) };
    let state = a.resume_node(resume).await.unwrap().into_inner().state();
    assert_eq!(state, v1::NodeState::Active);
    let request = v1::DecommissionNodeRequest {
        node_id: Some(1),
        dead: true,
    };
    let left = a.decommission_node(request).await.unwrap().into_inner();
    assert_eq!(left.state(), v1::NodeState::Decommissioning);
    assert_eq!((left.remaining_replicas, left.moving_replicas), (9, 1));
}

#[tokio::test]
async fn leaderships_move() {
    let h = Harness::start().await;
    let mut a = admin(&h);
    let request = |partition, target_node_id| v1::TransferLeadershipRequest {
        topic_partition: partition,
        target_node_id,
    };
    let moved = a.transfer_leadership(request(tp("orders", 0), None));
    let leader = moved.await.unwrap().into_inner().leader.unwrap();
    assert_eq!((leader.node_id, leader.leader_epoch), (1, 4));
    assert_fails(
        a.transfer_leadership(request(None, None)).await,
        Code::InvalidArgument,
        "INVALID_REQUEST",
    );
    let topics = vec!["a".to_owned(), "b".to_owned()];
    let request = v1::ElectPreferredLeadersRequest { topics };
    let done = a.elect_preferred_leaders(request).await.unwrap();
    let done = done.into_inner();
    assert_eq!((done.started, done.skipped), (2, 1));
}

#[tokio::test]
async fn partitions_move_and_each_failure_is_told() {
    let h = Harness::start().await;
    let mut a = admin(&h);
    let to = |partition, node_ids: &[i32], replica_count| v1::Reassignment {
        topic_partition: tp("orders", partition),
        node_ids: node_ids.to_vec(),
        replica_count,
    };
    let request = |reassignments| v1::ReassignPartitionsRequest {
        reassignments,
        validate_only: false,
    };
    let some = vec![to(0, &[1, 2], 0), to(7, &[], 3)];
    let failures = a.reassign_partitions(request(some)).await.unwrap();
    let failures = failures.into_inner().failures;
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].topic_partition, tp("orders", 7));
    let error = failures[0].error.as_ref().unwrap();
    assert_eq!(error.reason(), v1::ErrorReason::PartitionNotFound);
    for bad in [
        Vec::new(),
        vec![to(0, &[], 0)],
        vec![to(0, &[1], 1)],
        vec![to(0, &[-1], 0)],
    ] {
        assert_fails(
            a.reassign_partitions(request(bad)).await,
            Code::InvalidArgument,
            "INVALID_REQUEST",
        );
    }
    let list = |page_token| v1::ListReassignmentsRequest {
        page_size: 2,
        page_token,
    };
    let first = a.list_reassignments(list(String::new())).await.unwrap();
    let first = first.into_inner();
    assert_eq!(first.reassignments.len(), 2);
    assert_eq!(first.reassignments[0].remaining_bytes, Some(5));
    assert_eq!(first.reassignments[1].remaining_bytes, None);
    let rest = a.list_reassignments(list(first.next_page_token)).await;
    let rest = rest.unwrap().into_inner();
    assert_eq!(
        (rest.reassignments.len(), rest.next_page_token.as_str()),
        (1, "")
    );
    let partitions = [1, 5].into_iter().filter_map(|n| tp("orders", n)).collect();
    let cancel = v1::CancelReassignmentsRequest { partitions };
    let failures = a.cancel_reassignments(cancel).await.unwrap();
    assert_eq!(failures.into_inner().failures.len(), 1);
}
