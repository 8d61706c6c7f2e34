//! Calls about groups, each answered by the group's coordinator.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use varve_broker_api as api;
use varve_broker_api::{Broker, Context, Error, LeaderHint, NodeState};
use varve_client::proto::group_service_client::GroupServiceClient;
use varve_client::{RpcError, proto as v1};
use varve_types::{GroupName, LeaderEpoch, MemberId, TopicPartition};

use crate::nodes::{Failure, Line, Nodes, Retry};
use crate::{Forwarding, Result, convert, missing};

/// Groups in one page of a list.
const PAGE: i32 = 1000;
/// Longest time for other partitions' ends: a lag that is not known in time is left out.
const LAG_WITHIN: Duration = Duration::from_secs(2);

impl<B: Broker> Forwarding<B> {
    /// Answers here, or at the coordinator, and waits for one that is missing. `repeat`: a call that may
    /// have arrived may be made again.
    pub(crate) async fn coordinated<T, L, R>(
        &self,
        ctx: &Context,
        repeat: bool,
        local: impl Fn() -> L,
        remote: impl Fn(LeaderHint, Duration) -> R,
    ) -> Result<T>
    where
        L: Future<Output = Result<T>>,
        R: Future<Output = Result<T, Failure>>,
    {
        let mut error = match local().await {
            Err(error) if ctx.forward.is_some() && Nodes::again(&error) => error,
            answer => return answer,
        };
        let mut retry = Retry::new(self.nodes.until(ctx));
        loop {
            if let Some(to) = self.nodes.target(&error) {
                error = match remote(to, retry.left()).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) if failure.unknown && !repeat => return Err(failure.error),
                    Err(failure) => failure.harmless(),
                };
            }
            if !Nodes::again(&error) || !retry.pause().await {
                return Err(error);
            }
            error = match local().await {
                Err(error) if Nodes::again(&error) => error,
                answer => return answer,
            };
        }
    }

    /// One call at one node.
    async fn ask<Q, A, F>(
        &self,
        ctx: &Context,
        method: &'static str,
        to: &LeaderHint,
        within: Duration,
        message: Q,
        call: impl FnOnce(GroupServiceClient<Line>, tonic::Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<tonic::Response<A>, tonic::Status>>,
    {
        let answer = async {
            let service = self.nodes.groups(to)?;
            let request = self.nodes.request(ctx, message, within);
            let response = call(service, request).await;
            let response = response.map_err(|status| RpcError::from_status(&status))?;
            Ok(response.into_inner())
        };
        self.nodes.outcome(ctx, method, to, answer.await)
    }

    pub(crate) async fn beat(
        &self,
        ctx: &Context,
        beat: api::Heartbeat,
    ) -> Result<api::HeartbeatReply> {
        let local = || self.broker.heartbeat(ctx, beat.clone());
        let remote = |to: LeaderHint, _| {
            let message = convert::heartbeat(&beat);
            let within = beat.max_wait + self.nodes.read_timeout();
            async move {
                let call = |mut service: GroupServiceClient<Line>, request| async move {
                    service.heartbeat(request).await
                };
                let reply = self
                    .ask(ctx, "Heartbeat", &to, within, message, call)
                    .await?;
                known(convert::reply(reply))
            }
        };
        self.coordinated(ctx, true, local, remote).await
    }

    pub(crate) async fn commit(
        &self,
        ctx: &Context,
        commit: api::CommitOffsets,
    ) -> Result<Vec<Result<()>>> {
        let local = || self.broker.commit_offsets(ctx, commit.clone());
        let remote = |to: LeaderHint, left| {
            let commit = &commit;
            async move {
                let call = |mut service: GroupServiceClient<Line>, request| async move {
                    service.commit_offsets(request).await
                };
                let message = convert::commit(commit);
                let answer = self
                    .ask(ctx, "CommitOffsets", &to, left, message, call)
                    .await?;
                let sent = commit.offsets.iter().map(|o| &o.partition);
                Ok(convert::failures(&to, sent, answer.failures))
            }
        };
        self.coordinated(ctx, true, local, remote).await
    }

    pub(crate) async fn committed(
        &self,
        ctx: &Context,
        wanted: api::GetOffsets,
    ) -> Result<Vec<api::CommittedOffset>> {
        let local = || async {
            let found = self.broker.committed_offsets(ctx, wanted.clone()).await?;
            Ok(match wanted.include_lag {
                true => self.with_ends(ctx, found).await,
                false => found,
            })
        };
        let remote = |to: LeaderHint, left| {
            let message = v1::GetOffsetsRequest {
                require_stable: false,
                group: wanted.group.to_string(),
                partitions: wanted.partitions.iter().map(convert::partition).collect(),
                include_lag: wanted.include_lag,
            };
            async move {
                let call = |mut service: GroupServiceClient<Line>, request| async move {
                    service.get_offsets(request).await
                };
                let answer = self
                    .ask(ctx, "GetOffsets", &to, left, message, call)
                    .await?;
                let found = answer.offsets.into_iter().map(convert::committed);
                known(found.collect())
            }
        };
        self.coordinated(ctx, true, local, remote).await
    }

    /// Adds the ends of partitions that other nodes lead. That is a question of this node's own, whatever
    /// leave the call came with.
    async fn with_ends(
        &self,
        ctx: &Context,
        mut found: Vec<api::CommittedOffset>,
    ) -> Vec<api::CommittedOffset> {
        let unknown: Vec<usize> = (0..found.len())
            .filter(|index| found[*index].high_watermark.is_none())
            .collect();
        if unknown.is_empty() {
            return found;
        }
        let query = |index: &usize| api::OffsetQuery {
            isolation: api::Isolation::default(),
            partition: found[*index].partition.clone(),
            position: Some(api::Position::Offset(found[*index].offset)),
            with_time: true,
        };
        let queries = unknown.iter().map(query).collect();
        let ends = self.find_offsets(&own(ctx, LAG_WITHIN), queries).await;
        for (index, end) in unknown.into_iter().zip(ends) {
            let Ok(end) = end else { continue };
            found[index].high_watermark = Some(end.high_watermark);
            found[index].next_time_ms = end.timestamp_ms;
        }
        found
    }

    pub(crate) async fn forget_offsets(
        &self,
        ctx: &Context,
        group: &GroupName,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Result<()>>> {
        let local = || self.broker.delete_offsets(ctx, group, partitions.clone());
        let remote = |to: LeaderHint, left| {
            let partitions = &partitions;
            async move {
                let message = v1::DeleteOffsetsRequest {
                    group: group.to_string(),
                    partitions: partitions.iter().map(convert::partition).collect(),
                };
                let call = |mut service: GroupServiceClient<Line>, request| async move {
                    service.delete_offsets(request).await
                };
                let answer = self
                    .ask(ctx, "DeleteOffsets", &to, left, message, call)
                    .await?;
                Ok(convert::failures(&to, partitions, answer.failures))
            }
        };
        self.coordinated(ctx, true, local, remote).await
    }

    pub(crate) async fn describe_group(
        &self,
        ctx: &Context,
        group: &GroupName,
    ) -> Result<api::GroupInfo> {
        let local = || self.broker.group(ctx, group);
        let remote = |to: LeaderHint, left| async move {
            let message = v1::GetGroupRequest {
                group: group.to_string(),
            };
            let call = |mut service: GroupServiceClient<Line>, request| async move {
                service.get_group(request).await
            };
            let answer = self.ask(ctx, "GetGroup", &to, left, message, call).await?;
            let group = answer.group.ok_or_else(|| missing("a group"));
            known(group.and_then(convert::group))
        };
        self.coordinated(ctx, true, local, remote).await
    }

    pub(crate) async fn drop_group(&self, ctx: &Context, group: &GroupName) -> Result<()> {
        let local = || self.broker.delete_group(ctx, group);
        let remote = |to: LeaderHint, left| async move {
            let message = v1::DeleteGroupRequest {
                group: group.to_string(),
            };
            let call = |mut service: GroupServiceClient<Line>, request| async move {
                service.delete_group(request).await
            };
            self.ask(ctx, "DeleteGroup", &to, left, message, call)
                .await?;
            Ok(())
        };
        self.coordinated(ctx, false, local, remote).await
    }

    pub(crate) async fn expel(
        &self,
        ctx: &Context,
        group: &GroupName,
        members: Vec<MemberId>,
    ) -> Result<Vec<MemberId>> {
        let local = || self.broker.remove_members(ctx, group, members.clone());
        let remote = |to: LeaderHint, left| {
            let members = &members;
            async move {
                let message = v1::RemoveMembersRequest {
                    group: group.to_string(),
                    member_ids: members.iter().map(ToString::to_string).collect(),
                };
                let call = |mut service: GroupServiceClient<Line>, request| async move {
                    service.remove_members(request).await
                };
                let answer = self
                    .ask(ctx, "RemoveMembers", &to, left, message, call)
                    .await?;
                let gone = answer.member_ids.iter().map(|id| convert::member_id(id));
                known(gone.collect())
            }
        };
        self.coordinated(ctx, false, local, remote).await
    }

    pub(crate) async fn reset_at<L>(
        &self,
        ctx: &Context,
        reset: &api::ResetOffsets,
        local: impl Fn() -> L,
    ) -> Result<Vec<api::CommittedOffset>>
    where
        L: Future<Output = Result<Vec<api::CommittedOffset>>>,
    {
        let remote = |to: LeaderHint, left| async move {
            let call = |mut service: GroupServiceClient<Line>, request| async move {
                service.reset_offsets(request).await
            };
            let message = convert::reset(reset);
            let answer = self
                .ask(ctx, "ResetOffsets", &to, left, message, call)
                .await?;
            let found = answer.offsets.into_iter().map(convert::committed);
            known(found.collect())
        };
        self.coordinated(ctx, false, local, remote).await
    }

    /// The groups of every node that takes part.
    pub(crate) async fn all_groups(&self, ctx: &Context) -> Result<Vec<api::GroupListing>> {
        let local = || self.broker.groups(ctx);
        let remote = |to, left| async move { self.groups_of(ctx, &to, left).await };
        let mut all = self.of_everyone(ctx, local, remote).await?;
        all.sort_by(|a, b| a.group.cmp(&b.group));
        all.dedup_by(|a, b| a.group == b.group);
        Ok(all)
    }

    /// What this node says and what every other one says that takes part, in no order.
    pub(crate) async fn of_everyone<T, L, R>(
        &self,
        ctx: &Context,
        local: impl Fn() -> L,
        remote: impl Fn(LeaderHint, Duration) -> R,
    ) -> Result<Vec<T>>
    where
        L: Future<Output = Result<Vec<T>>>,
        R: Future<Output = Result<Vec<T>, Failure>>,
    {
        let mut retry = Retry::new(self.nodes.until(ctx));
        loop {
            let mut all = local().await?;
            if ctx.forward.is_none() {
                return Ok(all);
            }
            let nodes = self.broker.nodes().into_iter();
            let others = nodes
                .filter(|n| n.node != self.me() && n.state != NodeState::Offline)
                .map(|n| LeaderHint {
                    node: n.node,
                    address: n.address,
                    epoch: LeaderEpoch::ZERO,
                });
            let left = retry.left();
            let asked: Vec<_> = others.map(|to| remote(to, left)).collect();
            let mut failed = None;
            for answer in join_all(asked).await {
                match answer {
                    Ok(some) => all.extend(some),
                    Err(failure) => failed = Some(failure.harmless()),
                }
            }
            match failed {
                None => return Ok(all),
                // One that is dead is waited for until others have taken over from it.
                Some(error) if !Nodes::again(&error) || !retry.pause().await => return Err(error),
                Some(_) => {}
            }
        }
    }

    async fn groups_of(
        &self,
        ctx: &Context,
        to: &LeaderHint,
        left: Duration,
    ) -> Result<Vec<api::GroupListing>, Failure> {
        let mut request = v1::ListGroupsRequest {
            page_size: PAGE,
            ..Default::default()
        };
        let mut groups = Vec::new();
        loop {
            let call = |mut service: GroupServiceClient<Line>, request| async move {
                service.list_groups(request).await
            };
            let within = left.min(self.nodes.read_timeout());
            let page = self.ask(ctx, "ListGroups", to, within, request.clone(), call);
            let page = page.await?;
            for group in &page.groups {
                groups.push(known(convert::listing(group))?);
            }
            if page.next_page_token.is_empty() {
                return Ok(groups);
            }
            request.page_token = page.next_page_token;
        }
    }
}

/// An error that says for certain what happened.
pub(crate) fn known<T>(result: Result<T>) -> Result<T, Failure> {
    result.map_err(|error: Error| Failure {
        error,
        unknown: false,
    })
}

/// The context of a question that this node has itself.
pub(crate) fn own(ctx: &Context, within: Duration) -> Context {
    let latest = tokio::time::Instant::now().into_std() + within;
    Context {
        deadline: Some(ctx.deadline.map_or(latest, |deadline| deadline.min(latest))),
        forward: Some(Arc::default()),
        ..ctx.clone()
    }
}
