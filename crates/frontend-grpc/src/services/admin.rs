//! AdminService.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use varve_broker_api::{Broker, Error, Operations, Reassign};
use varve_proto::v1;
use varve_proto::v1::admin_service_server::AdminService;
use varve_types::{TopicPartition, limits};

use crate::context::CallContext;
use crate::shared::Shared;
use crate::translate::cluster::{self, to_detail, to_progress, to_state};
use crate::translate::{
    at_most, missing, page, page_size, to_topic_partition, topic_name, topic_partition,
    topic_partitions,
};

/// The service.
#[derive(Debug)]
pub struct Admin<B>(pub Arc<Shared<B>>);

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl<B: Broker + Operations> Admin<B> {
    async fn drain(
        &self,
        ctx: &CallContext,
        request: &v1::DrainNodeRequest,
    ) -> Result<v1::DrainNodeResponse, Error> {
        let node = cluster::node("node_id", request.node_id)?;
        let broker = &self.0.broker;
        let drain = broker.drain_node(&ctx.broker, node, request.force).await?;
        Ok(v1::DrainNodeResponse {
            state: to_state(drain.state) as i32,
            remaining_leaders: count(drain.leaders),
            stuck_leaders: count(drain.stuck),
        })
    }

    async fn resume(
        &self,
        ctx: &CallContext,
        request: &v1::ResumeNodeRequest,
    ) -> Result<v1::ResumeNodeResponse, Error> {
        let node = cluster::node("node_id", request.node_id)?;
        let state = self.0.broker.resume_node(&ctx.broker, node).await?;
        let state = to_state(state) as i32;
        Ok(v1::ResumeNodeResponse { state })
    }

    async fn decommission(
        &self,
        ctx: &CallContext,
        request: &v1::DecommissionNodeRequest,
    ) -> Result<v1::DecommissionNodeResponse, Error> {
        let node = cluster::node("node_id", request.node_id)?;
        let broker = &self.0.broker;
        let left = broker
            .decommission_node(&ctx.broker, node, request.dead)
            .await?;
        Ok(v1::DecommissionNodeResponse {
            state: to_state(left.state) as i32,
            remaining_replicas: count(left.replicas),
            moving_replicas: count(left.moving),
        })
    }

    async fn transfer(
        &self,
        ctx: &CallContext,
        request: &v1::TransferLeadershipRequest,
    ) -> Result<v1::TransferLeadershipResponse, Error> {
        let partition = topic_partition("topic_partition", request.topic_partition.as_ref())?;
        let to = match request.target_node_id {
            Some(_) => Some(cluster::node("target_node_id", request.target_node_id)?),
            None => None,
        };
        let broker = &self.0.broker;
        let hint = broker
            .transfer_leadership(&ctx.broker, partition, to)
            .await?;
        Ok(v1::TransferLeadershipResponse {
            leader: Some(crate::status::to_leader(&hint)),
        })
    }

    async fn elect(
        &self,
        ctx: &CallContext,
        request: &v1::ElectPreferredLeadersRequest,
    ) -> Result<v1::ElectPreferredLeadersResponse, Error> {
        at_most(
            "topics",
            request.topics.len(),
            limits::REQUEST_MAX_PARTITIONS,
        )?;
        let topics = request.topics.iter().map(|t| topic_name("topics", t));
        let topics = topics.collect::<Result<Vec<_>, _>>()?;
        let broker = &self.0.broker;
        let done = broker.elect_preferred_leaders(&ctx.broker, topics).await?;
        Ok(v1::ElectPreferredLeadersResponse {
            started: count(done.started),
            skipped: count(done.skipped),
        })
    }

    async fn reassign(
        &self,
        ctx: &CallContext,
        request: &v1::ReassignPartitionsRequest,
    ) -> Result<v1::ReassignPartitionsResponse, Error> {
        let wanted = &request.reassignments;
        if wanted.is_empty() {
            return Err(missing("reassignments"));
        }
        at_most(
            "reassignments",
            wanted.len(),
            limits::REQUEST_MAX_PARTITIONS,
        )?;
        let items = wanted.iter().map(cluster::reassignment);
        let items = items.collect::<Result<Vec<_>, _>>()?;
        let partitions: Vec<TopicPartition> = items.iter().map(|(id, _)| id.clone()).collect();
        let request = Reassign {
            items,
            validate_only: request.validate_only,
        };
        let results = self.0.broker.reassign(&ctx.broker, request).await?;
        Ok(v1::ReassignPartitionsResponse {
            failures: self.failures(&partitions, &results),
        })
    }

    fn list(
        &self,
        ctx: &CallContext,
        request: &v1::ListReassignmentsRequest,
    ) -> Result<v1::ListReassignmentsResponse, Error> {
        let size = page_size(request.page_size, 100, 1000)?;
        let all = self.0.broker.reassignments(&ctx.broker)?;
        // Padded, so that the order of the tokens is that of the numbers; a topic's name has no blank.
        let key = |m: &&varve_broker_api::Reassignment| {
            format!(
                "{} {:010}",
                m.partition.topic.as_str(),
                m.partition.partition.0
            )
        };
        let (moves, next_page_token) = page(all.iter(), key, &request.page_token, size)?;
        Ok(v1::ListReassignmentsResponse {
            reassignments: moves.into_iter().map(to_progress).collect(),
            next_page_token,
        })
    }

    async fn cancel(
        &self,
        ctx: &CallContext,
        request: &v1::CancelReassignmentsRequest,
    ) -> Result<v1::CancelReassignmentsResponse, Error> {
        if request.partitions.is_empty() {
            return Err(missing("partitions"));
        }
        let partitions = topic_partitions("partitions", &request.partitions)?;
        let broker = &self.0.broker;
        let results = broker
            .cancel_reassignments(&ctx.broker, partitions.clone())
            .await?;
        Ok(v1::CancelReassignmentsResponse {
            failures: self.failures(&partitions, &results),
        })
    }

    async fn features(
        &self,
        ctx: &CallContext,
        _: &v1::GetFeaturesRequest,
    ) -> Result<v1::GetFeaturesResponse, Error> {
        let features = self.0.broker.features(&ctx.broker)?;
        Ok(cluster::to_features(&features))
    }

    async fn finalize(
        &self,
        ctx: &CallContext,
        request: &v1::FinalizeFeaturesRequest,
    ) -> Result<v1::FinalizeFeaturesResponse, Error> {
        let level = request.level.map(|level| {
            let bad = || {
                let why = format!("level must be 1 to {}; found {level}", u16::MAX);
                Error::invalid("level", why)
            };
            u16::try_from(level).ok().filter(|l| *l > 0).ok_or_else(bad)
        });
        let (level, check) = (level.transpose()?, request.validate_only);
        let broker = &self.0.broker;
        let features = broker.finalize_features(&ctx.broker, level, check).await?;
        let features = Some(cluster::to_features(&features));
        Ok(v1::FinalizeFeaturesResponse { features })
    }

    fn failures(
        &self,
        partitions: &[TopicPartition],
        results: &[Result<(), Error>],
    ) -> Vec<v1::ReassignmentFailure> {
        let failed = partitions.iter().zip(results);
        let failed = failed.filter_map(|(id, result)| Some((id, result.as_ref().err()?)));
        failed
            .map(|(id, error)| v1::ReassignmentFailure {
                topic_partition: Some(to_topic_partition(id)),
                error: Some(self.0.partition_error(error)),
            })
            .collect()
    }
}

macro_rules! calls {
    ($($method:ident($request:ident) -> $response:ident by $by:ident;)*) => {
        #[tonic::async_trait]
        impl<B: Broker + Operations> AdminService for Admin<B> {
            async fn list_nodes(
                &self,
                request: Request<v1::ListNodesRequest>,
            ) -> Result<Response<v1::ListNodesResponse>, Status> {
                let ctx = self.0.context(&request)?;
                let nodes = self.0.broker.node_details(&ctx.broker);
                let nodes = nodes.map(|nodes| nodes.iter().map(to_detail).collect());
                let answer = nodes.map(|nodes| v1::ListNodesResponse { nodes });
                answer.map(Response::new).map_err(|e| self.0.fail(&e))
            }

            async fn list_reassignments(
                &self,
                request: Request<v1::ListReassignmentsRequest>,
            ) -> Result<Response<v1::ListReassignmentsResponse>, Status> {
                let ctx = self.0.context(&request)?;
                let answer = self.list(&ctx, request.get_ref());
                answer.map(Response::new).map_err(|e| self.0.fail(&e))
            }

            $(
                async fn $method(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$response>, Status> {
                    let ctx = self.0.context(&request)?;
                    let answer = self.0.within(&ctx, self.$by(&ctx, request.get_ref())).await;
                    answer.map(Response::new).map_err(|e| self.0.fail(&e))
                }
            )*
        }
    };
}

calls! {
    drain_node(DrainNodeRequest) -> DrainNodeResponse by drain;
    resume_node(ResumeNodeRequest) -> ResumeNodeResponse by resume;
    decommission_node(DecommissionNodeRequest) -> DecommissionNodeResponse by decommission;
    transfer_leadership(TransferLeadershipRequest) -> TransferLeadershipResponse by transfer;
    elect_preferred_leaders(ElectPreferredLeadersRequest) -> ElectPreferredLeadersResponse by elect;
    reassign_partitions(ReassignPartitionsRequest) -> ReassignPartitionsResponse by reassign;
    cancel_reassignments(CancelReassignmentsRequest) -> CancelReassignmentsResponse by cancel;
    get_features(GetFeaturesRequest) -> GetFeaturesResponse by features;
    finalize_features(FinalizeFeaturesRequest) -> FinalizeFeaturesResponse by finalize;
}
