//! GroupService.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use varve_broker_api::{Broker, Error};
use varve_proto::v1;
use varve_proto::v1::group_service_server::GroupService;
use varve_types::{TopicPartition, limits};

use crate::context::CallContext;
use crate::shared::Shared;
use crate::translate::group::{
    self, GroupFilter, to_committed, to_group, to_heartbeat, to_listing,
};
use crate::translate::{
    at_most, group_name, member_id, missing, page, page_size, to_topic_partition, topic_partitions,
};

/// The service.
#[derive(Debug)]
pub struct Groups<B>(pub Arc<Shared<B>>);

impl<B: Broker> Groups<B> {
    /// A drain ends a held heartbeat with UNAVAILABLE: the member repeats it elsewhere.
    async fn beat(
        &self,
        ctx: &CallContext,
        request: &v1::HeartbeatRequest,
    ) -> Result<v1::HeartbeatResponse, Error> {
        let mut beat = group::heartbeat(request)?;
        beat.max_wait = ctx.hold(beat.max_wait);
        let held = !beat.max_wait.is_zero();
        let answer = self.0.broker.heartbeat(&ctx.broker, beat);
        if !held {
            return answer.await.map(|reply| to_heartbeat(&reply));
        }
        tokio::select! {
            biased;
            reply = answer => reply.map(|reply| to_heartbeat(&reply)),
            () = self.0.drain.cancelled() => Err(Shared::<B>::shutting_down()),
        }
    }

    async fn commit(
        &self,
        ctx: &CallContext,
        request: &v1::CommitOffsetsRequest,
    ) -> Result<v1::CommitOffsetsResponse, Error> {
        let commit = group::commit(request)?;
        let partitions: Vec<_> = commit.offsets.iter().map(|o| o.partition.clone()).collect();
        let results = self.0.broker.commit_offsets(&ctx.broker, commit).await?;
        Ok(v1::CommitOffsetsResponse {
            failures: self.failures(&partitions, results),
        })
    }

    fn failures(
        &self,
        partitions: &[TopicPartition],
        results: Vec<Result<(), Error>>,
    ) -> Vec<v1::CommitFailure> {
        partitions
            .iter()
            .zip(results)
            .filter_map(|(tp, result)| {
                result.err().map(|error| v1::CommitFailure {
                    topic_partition: Some(to_topic_partition(tp)),
                    error: Some(self.0.partition_error(&error)),
                })
            })
            .collect()
    }

    async fn offsets(
        &self,
        ctx: &CallContext,
        request: &v1::GetOffsetsRequest,
    ) -> Result<v1::GetOffsetsResponse, Error> {
        let wanted = group::get_offsets(request)?;
        let found = self.0.broker.committed_offsets(&ctx.broker, wanted).await?;
        Ok(v1::GetOffsetsResponse {
            offsets: found.iter().map(to_committed).collect(),
        })
    }

    async fn reset(
        &self,
        ctx: &CallContext,
        request: &v1::ResetOffsetsRequest,
    ) -> Result<v1::ResetOffsetsResponse, Error> {
        let reset = self
            .0
            .broker
            .reset_offsets(&ctx.broker, group::reset(request)?)
            .await?;
        Ok(v1::ResetOffsetsResponse {
            offsets: reset.iter().map(to_committed).collect(),
        })
    }

    async fn delete_offsets_of(
        &self,
        ctx: &CallContext,
        request: &v1::DeleteOffsetsRequest,
    ) -> Result<v1::DeleteOffsetsResponse, Error> {
        let group = group_name("group", &request.group)?;
        let partitions = topic_partitions("partitions", &request.partitions)?;
        if partitions.is_empty() {
            return Err(missing("partitions"));
        }
        let results = self
            .0
            .broker
            .delete_offsets(&ctx.broker, &group, partitions.clone())
            .await?;
        Ok(v1::DeleteOffsetsResponse {
            failures: self.failures(&partitions, results),
        })
    }

    async fn list(
        &self,
        ctx: &CallContext,
        request: &v1::ListGroupsRequest,
    ) -> Result<v1::ListGroupsResponse, Error> {
        let size = page_size(request.page_size, 100, 1000)?;
        let filter = GroupFilter::read(request)?;
        let all = self.0.broker.groups(&ctx.broker).await?;
        let kept = all.iter().filter(|g| filter.keeps(g));
        let (groups, next_page_token) =
            page(kept, |g| g.group.to_string(), &request.page_token, size)?;
        let groups = groups.into_iter().map(to_listing).collect();
        Ok(v1::ListGroupsResponse {
            groups,
            next_page_token,
        })
    }

    async fn describe(
        &self,
        ctx: &CallContext,
        request: &v1::GetGroupRequest,
    ) -> Result<v1::GetGroupResponse, Error> {
        let group = group_name("group", &request.group)?;
        let found = self.0.broker.group(&ctx.broker, &group).await?;
        Ok(v1::GetGroupResponse {
            group: Some(to_group(&found)),
        })
    }

    async fn delete(
        &self,
        ctx: &CallContext,
        request: &v1::DeleteGroupRequest,
    ) -> Result<v1::DeleteGroupResponse, Error> {
        let group = group_name("group", &request.group)?;
        self.0.broker.delete_group(&ctx.broker, &group).await?;
        Ok(v1::DeleteGroupResponse {})
    }

    async fn expel(
        &self,
        ctx: &CallContext,
        request: &v1::RemoveMembersRequest,
    ) -> Result<v1::RemoveMembersResponse, Error> {
        let group = group_name("group", &request.group)?;
        at_most(
            "member_ids",
            request.member_ids.len(),
            limits::GROUP_MAX_MEMBERS,
        )?;
        let members = request
            .member_ids
            .iter()
            .map(|id| member_id("member_ids", id))
            .collect::<Result<_, _>>()?;
        let gone = self
            .0
            .broker
            .remove_members(&ctx.broker, &group, members)
            .await?;
        let member_ids = gone.iter().map(ToString::to_string).collect();
        Ok(v1::RemoveMembersResponse { member_ids })
    }
}

#[tonic::async_trait]
impl<B: Broker> GroupService for Groups<B> {
    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.beat(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.commit(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn get_offsets(
        &self,
        request: Request<v1::GetOffsetsRequest>,
    ) -> Result<Response<v1::GetOffsetsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.offsets(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn reset_offsets(
        &self,
        request: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.reset(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn delete_offsets(
        &self,
        request: Request<v1::DeleteOffsetsRequest>,
    ) -> Result<Response<v1::DeleteOffsetsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.delete_offsets_of(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.list(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn get_group(
        &self,
        request: Request<v1::GetGroupRequest>,
    ) -> Result<Response<v1::GetGroupResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.describe(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.delete(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn remove_members(
        &self,
        request: Request<v1::RemoveMembersRequest>,
    ) -> Result<Response<v1::RemoveMembersResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.expel(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }
}
