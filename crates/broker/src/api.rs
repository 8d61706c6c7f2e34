//! The broker as front ends see it: `broker_api::Broker`, each method a few lines over the room that does
//! the work.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use varve_broker_api as api;
use varve_broker_api::{Context, Error, Result};
use varve_groups::{Input, Reply};
use varve_partition::Verified;
use varve_record::Batch;
use varve_types::{
    Acks, ErrorKind, GroupName, LeaderEpoch, MemberId, Offset, ProducerId, TopicId, TopicName,
    TopicPartition, TransactionalId,
};

use crate::partition::Partition;
use crate::produce::{self, Receipt};
use crate::reader::{self, Wanted};
use crate::start::Broker;
use crate::{classic, coordinator, offsets};

impl api::Broker for Broker {
    type Receipt = Receipt;

    async fn produce(&self, ctx: &Context, request: api::Produce) -> Result<Receipt> {
        let inner = &*self.inner;
        if request.topic.is_internal() && !ctx.internal {
            let text = format!(
                "topic {:?} is internal; clients can read it but not write to it; nothing was \
                 appended",
                request.topic.as_str()
            );
            return Err(Error::new(ErrorKind::PolicyViolation, text));
        }
        let id = TopicPartition::new(request.topic, request.partition);
        check_transaction(
            &request.batch,
            request.transactional_id.as_ref(),
            request.acks,
        )?;
        let partition = &inner.registry.leading(&id)?;
        let producer = request.batch.header().producer();
        if let Err(error) = inner.space.check(partition) {
            partition.refusals.note(producer, &error, inner.clock.now());
            return Err(error);
        }
        let config = partition.config();
        let batch = request.batch;
        produce::check_size(partition, &config, &batch)?;
        let batch = inner.recompression.of(&id.topic, &config, batch).await?;
        let batch = produce::check(partition, &config, batch, inner.clock.wall_ms())?;
        // What waits for other replicas is bounded by partition first, so that one that cannot commit takes no bytes
        // that others need.
        let size = batch.header().size();
        let waiting = partition.refusals.waiting(producer, &*inner.clock);
        let place = match request.acks {
            Acks::All => match partition.place(size).await {
                Ok(place) => Some(place),
                Err(error) => return Err(waiting.refused(error)),
            },
            Acks::Leader | Acks::None => None,
        };
        let admission = match request.transactional_id.is_some() && !known(partition, &batch) {
            true => &inner.unverified,
            false => &inner.admission,
        };
        let Some(permit) = admission.admit(size).await else {
            return Err(waiting.refused(Error::new(
                ErrorKind::ShuttingDown,
                "the broker is shutting down; nothing was appended; use another node or try again \
                 later",
            )));
        };
        waiting.over();
        let permit = permit.placed(place);
        let terms = produce::Terms {
            expected_offset: request.expected_offset,
            ..produce::Terms::new(request.acks)
        };
        let now = inner.clock.now();
        let version = request.transaction_version;
        let receipt = match request.transactional_id {
            None => produce::enqueue(partition, batch, terms, permit, now)?,
            Some(name) => {
                let topic = inner.registry.topic(&id.topic)?.info.id;
                let held = (permit, now);
                inner.transactions.append(
                    (topic, partition),
                    (name, version),
                    batch,
                    terms,
                    held,
                )?
            }
        };
        Ok(match inner.registry.cluster() {
            Some(_) => receipt.hinted(Arc::clone(&inner.registry), id),
            None => receipt,
        })
    }

    async fn init_producer(
        &self,
        _ctx: &Context,
        request: api::InitProducer,
    ) -> Result<api::ProducerSession> {
        let registry = Arc::clone(&self.inner.registry);
        owned(async move { registry.init_producer(request.name).await }).await
    }

    async fn fetch(
        &self,
        ctx: &Context,
        mut fetch: api::Fetch,
    ) -> Result<Vec<api::PartitionFetched>> {
        let inner = &*self.inner;
        fetch.max_bytes = fetch.max_bytes.min(inner.config.fetch_max_bytes);
        fetch.max_wait = fetch
            .max_wait
            .min(Duration::from_millis(varve_types::limits::WAIT_MAX_MS));
        let wanted: Vec<Wanted> = std::mem::take(&mut fetch.partitions)
            .into_iter()
            .map(|request| {
                let id = TopicPartition::new(request.topic.clone(), request.partition);
                let partition = inner.registry.readable(&id, &ctx.rack);
                Wanted { request, partition }
            })
            .collect();
        let mut results = reader::fetch(&fetch, &wanted).await;
        for (result, wanted) in results.iter_mut().zip(&wanted) {
            // What a copy cannot answer its leader knows better.
            if result.result.is_err() && wanted.partition.as_ref().is_ok_and(|p| p.copy) {
                let id = TopicPartition::new(result.topic.clone(), result.partition);
                result.result = Err(inner.registry.not_leading(&id));
            }
        }
        Ok(results)
    }

    async fn list_offsets(
        &self,
        ctx: &Context,
        queries: Vec<api::OffsetQuery>,
    ) -> Vec<Result<api::OffsetFound>> {
        // Together: one that waits for its leader to know what is committed holds no other up.
        let registry = &self.inner.registry;
        let find = |query| offsets::find(registry, query, &ctx.rack);
        futures_util::future::join_all(queries.iter().map(find)).await
    }

    fn epoch_end(
        &self,
        _ctx: &Context,
        partition: &TopicPartition,
        epoch: LeaderEpoch,
        current: Option<LeaderEpoch>,
    ) -> Result<Option<api::EpochEnd>> {
        let partition = self.inner.registry.leading(partition)?;
        reader::epoch_end(&partition, epoch, current)
    }

    async fn create_topic(
        &self,
        ctx: &Context,
        request: api::CreateTopic,
    ) -> Result<api::TopicInfo> {
        if request.topic.is_internal() && !ctx.internal {
            return Err(Error::invalid(
                "topic",
                format!(
                    "topic names that begin with \"__varve\" are reserved, and {:?} is one; \
                     nothing was created",
                    request.topic.as_str()
                ),
            ));
        }
        let registry = Arc::clone(&self.inner.registry);
        owned(async move { registry.create_topic(request).await }).await
    }

    async fn delete_topic(
        &self,
        ctx: &Context,
        topic: &TopicName,
        id: Option<TopicId>,
    ) -> Result<()> {
        check_not_internal(ctx, topic)?;
        let (registry, topic) = (Arc::clone(&self.inner.registry), topic.clone());
        owned(async move { registry.delete_topic(&topic, id).await }).await
    }

    fn topic(&self, _ctx: &Context, topic: &TopicName) -> Result<api::TopicInfo> {
        self.inner.registry.topic(topic).map(|t| t.info.clone())
    }

    fn topics(&self, _ctx: &Context) -> Result<Vec<api::TopicInfo>> {
        Ok(self
            .inner
            .registry
            .view()
            .topics
            .values()
            .map(|t| t.info.clone())
            .collect())
    }

    fn partitions(&self, _ctx: &Context, topic: &TopicName) -> Result<Vec<api::PartitionInfo>> {
        let topic = self.inner.registry.topic(topic)?;
        match self.inner.registry.cluster() {
            Some(cluster) => Ok(self.inner.describe_all(cluster, &topic)),
            None => Ok(topic
                .partitions
                .values()
                .map(|p| self.inner.describe(p))
                .collect()),
        }
    }

    fn topic_configs(&self, _ctx: &Context, topic: &TopicName) -> Result<Vec<api::ConfigEntry>> {
        self.inner.registry.topic_configs(topic)
    }

    async fn update_topic_configs(
        &self,
        ctx: &Context,
        request: api::UpdateConfigs,
    ) -> Result<api::TopicInfo> {
        check_not_internal(ctx, &request.topic)?;
        let registry = Arc::clone(&self.inner.registry);
        owned(async move { registry.update_configs(request).await }).await
    }

    async fn add_partitions(
        &self,
        ctx: &Context,
        request: api::AddPartitions,
    ) -> Result<api::TopicInfo> {
        check_not_internal(ctx, &request.topic)?;
        let registry = Arc::clone(&self.inner.registry);
        owned(async move { registry.add_partitions(request).await }).await
    }

    async fn delete_records(
        &self,
        ctx: &Context,
        items: Vec<api::DeleteBefore>,
    ) -> Vec<Result<Offset>> {
        let mut results = Vec::with_capacity(items.len());
        for item in items {
            results.push(match check_not_internal(ctx, &item.partition.topic) {
                Ok(()) => offsets::delete_before(&self.inner.registry, &item).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    async fn heartbeat(&self, ctx: &Context, h: api::Heartbeat) -> Result<api::HeartbeatReply> {
        let heartbeat = Box::new(varve_groups::Heartbeat {
            group: h.group,
            member: h.member,
            member_epoch: h.member_epoch,
            leave: h.leave,
            keep_assignment: h.keep_assignment,
            instance: h.instance,
            subscription: h.subscription.map(|s| varve_groups::Subscription {
                topics: s.topics,
                pattern: s.pattern,
                assignor: s.assignor,
            }),
            owned: h.owned,
            rack: h.rack,
            session_timeout_ms: h.session_timeout.map(millis),
            rebalance_timeout_ms: h.rebalance_timeout.map(millis),
            max_wait_ms: millis(h.max_wait),
            client_id: Arc::clone(&ctx.client_id),
            peer: ctx.peer,
        });
        match self
            .call(|ticket| Input::Heartbeat { ticket, heartbeat })
            .await?
        {
            Reply::Heartbeat(r) => Ok(api::HeartbeatReply {
                member_epoch: r.member_epoch,
                assignment: r.assignment,
                heartbeat_interval: Duration::from_millis(r.heartbeat_interval_ms),
                session_timeout: Duration::from_millis(r.session_timeout_ms),
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn commit_offsets(
        &self,
        ctx: &Context,
        request: api::CommitOffsets,
    ) -> Result<Vec<Result<()>>> {
        let api::CommitOffsets {
            group,
            member,
            member_epoch,
            offsets,
        } = request;
        // Positions no record can have yet are refused here, where the logs are known.
        let checked: Vec<Result<()>> = offsets
            .iter()
            .map(|o| offsets::check_commit(&self.inner.registry, ctx, o))
            .collect();
        let wanted = offsets
            .into_iter()
            .zip(&checked)
            .filter(|(_, c)| c.is_ok())
            .map(|(o, _)| offsets::to_core(o))
            .collect();
        let wall_ms = self.inner.clock.wall_ms();
        let reply = self
            .call(|ticket| Input::Commit {
                ticket,
                group,
                member,
                member_epoch,
                offsets: wanted,
                wall_ms,
            })
            .await?;
        let Reply::Committed(results) = reply else {
            return Err(unexpected(&reply));
        };
        let mut results = results.into_iter();
        Ok(checked
            .into_iter()
            .map(|check| match check {
                Ok(()) => results.next().unwrap_or(Ok(())).map_err(coordinator::error),
                Err(error) => Err(error),
            })
            .collect())
    }

    async fn committed_offsets(
        &self,
        _ctx: &Context,
        request: api::GetOffsets,
    ) -> Result<Vec<api::CommittedOffset>> {
        let api::GetOffsets {
            group,
            partitions,
            include_lag,
            require_stable,
        } = request;
        let found = self.offsets_of(group, partitions, require_stable).await?;
        let registry = include_lag.then_some(&*self.inner.registry);
        let found = found.into_iter().map(|o| offsets::from_core(o, registry));
        let found = found.collect();
        Ok(match registry {
            Some(registry) => offsets::with_times(registry, found).await,
            None => found,
        })
    }

    async fn reset_offsets(
        &self,
        _ctx: &Context,
        request: api::ResetOffsets,
    ) -> Result<Vec<api::CommittedOffset>> {
        let group = request.group.clone();
        let current = self.offsets_of(group.clone(), Vec::new(), false).await?;
        let source = match &request.target {
            api::ResetTarget::FromGroup(other) => {
                Some(self.offsets_of(other.clone(), Vec::new(), false).await?)
            }
            _ => None,
        };
        let registry = &self.inner.registry;
        let plan = offsets::plan_reset(registry, &request, &current, source.as_deref()).await?;
        let wall_ms = self.inner.clock.wall_ms();
        if request.validate_only {
            return Ok(plan
                .into_iter()
                .map(|o| offsets::planned(o, wall_ms))
                .collect());
        }
        let wanted = plan.into_iter().map(offsets::to_core).collect();
        let reply = self
            .call(|ticket| Input::SetOffsets {
                ticket,
                group,
                offsets: wanted,
                wall_ms,
            })
            .await?;
        match reply {
            Reply::OffsetsSet(set) => Ok(set
                .into_iter()
                .map(|o| offsets::from_core(o, None))
                .collect()),
            other => Err(unexpected(&other)),
        }
    }

    async fn delete_offsets(
        &self,
        _ctx: &Context,
        group: &GroupName,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Result<()>>> {
        let group = group.clone();
        match self
            .call(|ticket| Input::DeleteOffsets {
                ticket,
                group,
                partitions,
            })
            .await?
        {
            Reply::OffsetsDeleted(results) => Ok(results
                .into_iter()
                .map(|r| r.map_err(coordinator::error))
                .collect()),
            other => Err(unexpected(&other)),
        }
    }

    async fn groups(&self, _ctx: &Context) -> Result<Vec<api::GroupListing>> {
        match self.call(|ticket| Input::ListGroups { ticket }).await? {
            Reply::Groups(groups) => Ok(groups
                .into_iter()
                .map(|g| api::GroupListing {
                    group: g.group,
                    state: state(g.state),
                    coordinator: self.inner.config.node,
                    members: g.members,
                    simple: g.simple,
                    protocol: protocol(g.classic.is_some()),
                    classic: g.classic.map(classic::group),
                })
                .collect()),
            other => Err(unexpected(&other)),
        }
    }

    async fn group(&self, _ctx: &Context, group: &GroupName) -> Result<api::GroupInfo> {
        let group = group.clone();
        match self
            .call(|ticket| Input::GetGroup { ticket, group })
            .await?
        {
            Reply::Group(g) => Ok(api::GroupInfo {
                group: g.group,
                state: state(g.state),
                coordinator: self.inner.config.node,
                group_epoch: g.group_epoch,
                assignment_epoch: g.assignment_epoch,
                assignor: g.assignor.to_owned(),
                members: g.members.into_iter().map(member).collect(),
                simple: g.simple,
                protocol: protocol(g.classic.is_some()),
                classic: g.classic.map(classic::group),
            }),
            other => Err(unexpected(&other)),
        }
    }

    async fn delete_group(&self, _ctx: &Context, group: &GroupName) -> Result<()> {
        let group = group.clone();
        match self
            .call(|ticket| Input::DeleteGroup { ticket, group })
            .await?
        {
            Reply::GroupDeleted => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn remove_members(
        &self,
        _ctx: &Context,
        group: &GroupName,
        members: Vec<MemberId>,
    ) -> Result<Vec<MemberId>> {
        let group = group.clone();
        match self
            .call(|ticket| Input::RemoveMembers {
                ticket,
                group,
                members,
            })
            .await?
        {
            Reply::MembersRemoved(members) => Ok(members),
            other => Err(unexpected(&other)),
        }
    }

    async fn init_transactions(
        &self,
        _ctx: &Context,
        request: api::InitTransactions,
    ) -> Result<ProducerId> {
        self.inner.transactions.init(request).await
    }

    async fn add_to_transaction(
        &self,
        _ctx: &Context,
        request: api::AddToTransaction,
    ) -> Result<()> {
        self.inner.transactions.add(request).await
    }

    async fn commit_transaction_offsets(
        &self,
        ctx: &Context,
        request: api::CommitTransactionOffsets,
    ) -> Result<Vec<Result<()>>> {
        self.inner.transactions.commit_offsets(ctx, request).await
    }

    async fn end_transaction(
        &self,
        _ctx: &Context,
        request: api::EndTransaction,
    ) -> Result<ProducerId> {
        self.inner.transactions.end(request).await
    }

    async fn transactions(&self, _ctx: &Context) -> Result<Vec<api::TransactionListing>> {
        self.inner.transactions.list().await
    }

    async fn transaction(
        &self,
        _ctx: &Context,
        id: &TransactionalId,
    ) -> Result<api::TransactionInfo> {
        self.inner.transactions.describe(id).await
    }

    async fn abort_transaction(&self, _ctx: &Context, id: &TransactionalId) -> Result<()> {
        self.inner.transactions.abort(id).await
    }

    fn node(&self) -> api::NodeInfo {
        let config = &self.inner.config;
        api::NodeInfo {
            version: config.version,
            revision: config.revision,
            cluster: config.cluster,
            node: config.node,
            features: vec!["consumer-groups", "idempotent-producer", "transactions"],
            max_request_bytes: varve_types::limits::REQUEST_MAX_BYTES,
            max_fetch_bytes: config.fetch_max_bytes,
            request_timeout_ms: millis(config.request_timeout),
            now_ms: self.inner.clock.wall_ms(),
            listeners: config.listeners.clone(),
        }
    }

    fn nodes(&self) -> Vec<api::NodeStatus> {
        if let Some(cluster) = self.inner.registry.cluster() {
            return cluster.nodes();
        }
        let config = &self.inner.config;
        let draining = self.inner.draining();
        vec![api::NodeStatus {
            node: config.node,
            address: config.address.clone(),
            listeners: config.listeners.clone(),
            rack: config.rack.clone(),
            state: if draining {
                api::NodeState::Draining
            } else {
                api::NodeState::Active
            },
            version: config.version.to_owned(),
            controller: true,
        }]
    }

    fn health(&self) -> api::ClusterHealth {
        let inner = &*self.inner;
        let limits = inner.limits.get();
        let near_limits = limits.map(|limits| limits.near()).unwrap_or_default();
        if let Some(cluster) = inner.registry.cluster() {
            return api::ClusterHealth {
                near_limits,
                ..cluster.health(inner.space.refuses())
            };
        }
        let node = inner.config.node;
        let view = inner.registry.view();
        let leaderless = view.partitions().filter(|p| p.offline().is_some()).count() as u64;
        let below = inner.space.refuses();
        api::ClusterHealth {
            controller: Some(node),
            draining: if inner.draining() {
                vec![node]
            } else {
                Vec::new()
            },
            leaderless,
            low_space: if below { vec![node] } else { Vec::new() },
            near_limits,
            ..api::ClusterHealth::default()
        }
    }

    fn metadata_version(&self) -> u64 {
        self.inner.registry.view().version
    }

    async fn metadata_newest(&self) -> bool {
        let registry = &self.inner.registry;
        let Some(cluster) = registry.cluster() else {
            return true;
        };
        if !self.inner.newest.newest(&cluster.log).await {
            return false;
        }
        let version = varve_metadata::log::read(&*cluster.log, varve_metadata::State::version);
        // What callers are shown follows the log by a moment.
        let mut shown = registry.watch();
        shown.wait_for(|shown| *shown >= version).await.is_ok()
    }

    fn metadata_changed(&self, seen: u64) -> impl Future<Output = u64> + Send {
        let mut watch = self.inner.registry.watch();
        async move {
            loop {
                let version = *watch.borrow_and_update();
                if version > seen {
                    return version;
                }
                if watch.changed().await.is_err() {
                    // The broker is gone; nothing will ever change again.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl Broker {
    pub(crate) async fn call(
        &self,
        input: impl FnOnce(varve_groups::Ticket) -> Input,
    ) -> Result<Reply> {
        self.inner.groups.call(input).await
    }

    async fn offsets_of(
        &self,
        group: GroupName,
        partitions: Vec<TopicPartition>,
        require_stable: bool,
    ) -> Result<Vec<varve_groups::CommittedOffset>> {
        let name = group.clone();
        match self
            .call(|ticket| Input::GetOffsets {
                ticket,
                group,
                partitions,
                require_stable,
            })
            .await?
        {
            Reply::Offsets(offsets) => Ok(offsets),
            Reply::OffsetsUnstable { unstable, .. } => {
                let some = unstable.first().map(ToString::to_string);
                let text = format!(
                    "a transaction without an outcome yet may change offsets of group {:?} (in \
                     {}); nothing was changed; try again",
                    name.as_str(),
                    some.unwrap_or_default()
                );
                Err(Error::new(ErrorKind::ConcurrentTransactions, text).with("group", &name))
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// A batch is part of a transaction exactly when its caller says whose.
fn check_transaction(batch: &Batch, id: Option<&TransactionalId>, acks: Acks) -> Result<()> {
    let header = batch.header();
    if header.is_transactional() != id.is_some() {
        let text = "the transactional bit and the transactional id must both be set or both be \
            absent; nothing was appended";
        return Err(Error::invalid("transactional_id", text));
    }
    if id.is_some() && (acks != Acks::All || header.producer().is_none()) {
        let text = "an append in a transaction needs a producer session and acks=all; nothing was \
            appended";
        return Err(Error::invalid("transactional_id", text));
    }
    Ok(())
}

/// Whether a batch of a transaction need not wait for a word of its coordinator.
fn known(partition: &Partition, batch: &Batch) -> bool {
    let session = batch.header().session();
    session.is_some_and(|session| partition.registered.verified(session).1 != Verified::No)
}

/// Runs a change of metadata to its end, whoever still waits for it: a caller that is cancelled or runs out
/// of time must not leave a change that is on disk and not in memory.
pub(crate) async fn owned<T: Send + 'static>(
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(change).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(
            ErrorKind::StorageError,
            format!("the change was interrupted ({error}); it may or may not have been made"),
        )),
    }
}

fn check_not_internal(ctx: &Context, topic: &TopicName) -> Result<()> {
    if topic.is_internal() && !ctx.internal {
        let text = format!(
            "topic {:?} is internal; nothing was changed",
            topic.as_str()
        );
        return Err(Error::new(ErrorKind::PolicyViolation, text));
    }
    Ok(())
}

/// The core answers each call with its own reply; anything else is a bug, and told as one.
pub(crate) fn unexpected(reply: &Reply) -> Error {
    tracing::error!(
        ?reply,
        "internal error: the group coordinator answered another call"
    );
    Error::new(
        ErrorKind::StorageError,
        "internal error in the group coordinator",
    )
}

fn state(state: varve_groups::GroupState) -> api::GroupState {
    match state {
        varve_groups::GroupState::Empty => api::GroupState::Empty,
        varve_groups::GroupState::Stable => api::GroupState::Stable,
        varve_groups::GroupState::Reconciling => api::GroupState::Reconciling,
    }
}

fn member(m: varve_groups::MemberDescription) -> api::MemberInfo {
    api::MemberInfo {
        member: m.member,
        instance: m.instance,
        client_id: m.client_id,
        peer: m.peer,
        member_epoch: m.member_epoch,
        rack: m.rack,
        subscription: api::Subscription {
            topics: m.subscription.topics,
            pattern: m.subscription.pattern,
            assignor: m.subscription.assignor,
        },
        owned: m.owned,
        target: m.target,
        since_heartbeat: Duration::from_millis(m.since_heartbeat_ms),
        protocol: protocol(m.classic.is_some()),
        classic: m.classic.map(classic::member),
    }
}

const fn protocol(classic: bool) -> api::GroupProtocol {
    match classic {
        true => api::GroupProtocol::Classic,
        false => api::GroupProtocol::Consumer,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
