//! A broker that passes on what another node must answer, so that a client may ask any node.
//!
//! What this node cannot answer is sent once to the node that its own metadata names: the leader of a partition, the
//! coordinator of a group or of a transactional id. Requests about partitions of several leaders are split and put
//! together again. While there is no leader, the call waits, for as long as its caller does.
//!
//! Invariants: a call is passed on only with leave ([`Context::forward`]), and what arrives here from
//! another node has none: one hop, never a circle; an append or a change that may have arrived is made again
//! only where that is harmless, and otherwise its outcome is told to be unknown; a call that this node can
//! answer itself costs nothing more than without this layer. Whom a connection leads to is for [`Lines`] to
//! see to, not for an address.

mod convert;
mod groups;
mod listeners;
mod metrics;
mod nodes;
mod operations;
mod produce;
mod reads;
mod reset;
mod transactions;

use std::future::Future;
use std::sync::Arc;

use varve_broker_api as api;
use varve_broker_api::{Broker, ClassicGroups, ClassicResult, Context, Error, SharedBroker};
use varve_types::{
    GroupName, MemberId, NodeId, Offset, ProducerId, TopicId, TopicName, TopicPartition,
    TransactionalId,
};

pub use metrics::Metrics;
pub use nodes::{Line, LineError, Lines, line};
pub use produce::Receipt;

use crate::listeners::Listeners;
use crate::nodes::Nodes;

/// Result of every call.
type Result<T, E = Error> = std::result::Result<T, E>;

/// See the module. Cheap to clone.
#[derive(Debug)]
pub struct Forwarding<B> {
    broker: Arc<B>,
    nodes: Nodes,
    listeners: Arc<Listeners>,
}

impl<B> Clone for Forwarding<B> {
    fn clone(&self) -> Self {
        Self {
            broker: Arc::clone(&self.broker),
            nodes: self.nodes.clone(),
            listeners: Arc::clone(&self.listeners),
        }
    }
}

impl Forwarding<SharedBroker> {
    /// This broker as front ends take it, compiled here for every node.
    #[must_use]
    pub fn shared(&self) -> SharedBroker {
        SharedBroker::new(self.clone())
    }
}

impl<B: Broker> Forwarding<B> {
    /// Passes on what `broker` cannot answer, over `lines`.
    pub fn new(broker: Arc<B>, lines: Arc<dyn Lines>, metrics: Metrics) -> Self {
        let node = broker.node();
        let timeout = std::time::Duration::from_millis(node.request_timeout_ms.max(1));
        Self {
            broker,
            nodes: Nodes::new(lines, node.node, timeout, metrics),
            listeners: Arc::default(),
        }
    }

    fn me(&self) -> NodeId {
        self.nodes.me()
    }
}

/// Whoever speaks the classic protocol looks for the coordinator itself: nothing is passed on.
impl<B: Broker + ClassicGroups> ClassicGroups for Forwarding<B> {
    async fn join_group(
        &self,
        ctx: &Context,
        request: api::JoinGroup,
    ) -> ClassicResult<api::JoinedGroup> {
        self.broker.join_group(ctx, request).await
    }

    async fn sync_group(
        &self,
        ctx: &Context,
        request: api::SyncGroup,
    ) -> ClassicResult<api::SyncedGroup> {
        self.broker.sync_group(ctx, request).await
    }

    async fn classic_heartbeat(
        &self,
        ctx: &Context,
        request: api::ClassicHeartbeat,
    ) -> ClassicResult<()> {
        self.broker.classic_heartbeat(ctx, request).await
    }

    async fn leave_group(
        &self,
        ctx: &Context,
        request: api::LeaveGroup,
    ) -> ClassicResult<Vec<ClassicResult<()>>> {
        self.broker.leave_group(ctx, request).await
    }
}

impl<B: Broker> Broker for Forwarding<B> {
    type Receipt = Receipt<B::Receipt>;

    async fn produce(&self, ctx: &Context, request: api::Produce) -> Result<Self::Receipt> {
        self.append(ctx, request).await
    }

    // The session is made by the node that decides about metadata, which any node asks by itself.
    fn init_producer(
        &self,
        ctx: &Context,
        request: api::InitProducer,
    ) -> impl Future<Output = Result<api::ProducerSession>> + Send {
        self.broker.init_producer(ctx, request)
    }

    async fn fetch(
        &self,
        ctx: &Context,
        request: api::Fetch,
    ) -> Result<Vec<api::PartitionFetched>> {
        self.read(ctx, request).await
    }

    async fn list_offsets(
        &self,
        ctx: &Context,
        queries: Vec<api::OffsetQuery>,
    ) -> Vec<Result<api::OffsetFound>> {
        self.find_offsets(ctx, queries).await
    }

    fn epoch_end(
        &self,
        ctx: &Context,
        partition: &TopicPartition,
        epoch: varve_types::LeaderEpoch,
        current: Option<varve_types::LeaderEpoch>,
    ) -> Result<Option<api::EpochEnd>> {
        self.broker.epoch_end(ctx, partition, epoch, current)
    }

    fn create_topic(
        &self,
        ctx: &Context,
        request: api::CreateTopic,
    ) -> impl Future<Output = Result<api::TopicInfo>> + Send {
        self.broker.create_topic(ctx, request)
    }

    fn delete_topic(
        &self,
        ctx: &Context,
        topic: &TopicName,
        id: Option<TopicId>,
    ) -> impl Future<Output = Result<()>> + Send {
        self.broker.delete_topic(ctx, topic, id)
    }

    fn topic(&self, ctx: &Context, topic: &TopicName) -> Result<api::TopicInfo> {
        self.broker.topic(ctx, topic)
    }

    fn topics(&self, ctx: &Context) -> Result<Vec<api::TopicInfo>> {
        self.broker.topics(ctx)
    }

    fn partitions(&self, ctx: &Context, topic: &TopicName) -> Result<Vec<api::PartitionInfo>> {
        self.broker.partitions(ctx, topic)
    }

    fn topic_configs(&self, ctx: &Context, topic: &TopicName) -> Result<Vec<api::ConfigEntry>> {
        self.broker.topic_configs(ctx, topic)
    }

    fn update_topic_configs(
        &self,
        ctx: &Context,
        request: api::UpdateConfigs,
    ) -> impl Future<Output = Result<api::TopicInfo>> + Send {
        self.broker.update_topic_configs(ctx, request)
    }

    fn add_partitions(
        &self,
        ctx: &Context,
        request: api::AddPartitions,
    ) -> impl Future<Output = Result<api::TopicInfo>> + Send {
        self.broker.add_partitions(ctx, request)
    }

    async fn delete_records(
        &self,
        ctx: &Context,
        items: Vec<api::DeleteBefore>,
    ) -> Vec<Result<Offset>> {
        self.trim(ctx, items).await
    }

    async fn heartbeat(
        &self,
        ctx: &Context,
        request: api::Heartbeat,
    ) -> Result<api::HeartbeatReply> {
        self.beat(ctx, request).await
    }

    async fn commit_offsets(
        &self,
        ctx: &Context,
        request: api::CommitOffsets,
    ) -> Result<Vec<Result<()>>> {
        self.commit(ctx, request).await
    }

    async fn committed_offsets(
        &self,
        ctx: &Context,
        request: api::GetOffsets,
    ) -> Result<Vec<api::CommittedOffset>> {
        self.committed(ctx, request).await
    }

    async fn reset_offsets(
        &self,
        ctx: &Context,
        request: api::ResetOffsets,
    ) -> Result<Vec<api::CommittedOffset>> {
        self.reset(ctx, request).await
    }

    async fn delete_offsets(
        &self,
        ctx: &Context,
        group: &GroupName,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Result<()>>> {
        self.forget_offsets(ctx, group, partitions).await
    }

    async fn groups(&self, ctx: &Context) -> Result<Vec<api::GroupListing>> {
        self.all_groups(ctx).await
    }

    async fn group(&self, ctx: &Context, group: &GroupName) -> Result<api::GroupInfo> {
        self.describe_group(ctx, group).await
    }

    async fn delete_group(&self, ctx: &Context, group: &GroupName) -> Result<()> {
        self.drop_group(ctx, group).await
    }

    async fn remove_members(
        &self,
        ctx: &Context,
        group: &GroupName,
        members: Vec<MemberId>,
    ) -> Result<Vec<MemberId>> {
        self.expel(ctx, group, members).await
    }

    async fn init_transactions(
        &self,
        ctx: &Context,
        request: api::InitTransactions,
    ) -> Result<ProducerId> {
        self.begin_session(ctx, request).await
    }

    /// Not passed on: who keeps an epoch finds the coordinator by itself, and the calls of the public API that this
    /// would be passed on by know only of the other kind.
    async fn add_to_transaction(
        &self,
        ctx: &Context,
        request: api::AddToTransaction,
    ) -> Result<()> {
        self.broker.add_to_transaction(ctx, request).await
    }

    async fn commit_transaction_offsets(
        &self,
        ctx: &Context,
        request: api::CommitTransactionOffsets,
    ) -> Result<Vec<Result<()>>> {
        self.commit_in_transaction(ctx, request).await
    }

    async fn end_transaction(
        &self,
        ctx: &Context,
        request: api::EndTransaction,
    ) -> Result<ProducerId> {
        self.end(ctx, request).await
    }

    async fn transactions(&self, ctx: &Context) -> Result<Vec<api::TransactionListing>> {
        self.all_transactions(ctx).await
    }

    async fn transaction(
        &self,
        ctx: &Context,
        id: &TransactionalId,
    ) -> Result<api::TransactionInfo> {
        self.describe_transaction(ctx, id).await
    }

    async fn abort_transaction(&self, ctx: &Context, id: &TransactionalId) -> Result<()> {
        self.abort(ctx, id).await
    }

    fn node(&self) -> api::NodeInfo {
        self.broker.node()
    }

    fn nodes(&self) -> Vec<api::NodeStatus> {
        self.listeners.known(self.broker.nodes())
    }

    fn health(&self) -> api::ClusterHealth {
        self.broker.health()
    }

    fn metadata_version(&self) -> u64 {
        self.broker.metadata_version()
    }

    fn metadata_newest(&self) -> impl Future<Output = bool> + Send {
        self.broker.metadata_newest()
    }

    fn metadata_changed(&self, seen: u64) -> impl Future<Output = u64> + Send {
        self.broker.metadata_changed(seen)
    }
}

/// An answer that is missing from what another node sent.
fn missing(what: &str) -> Error {
    Error::new(
        varve_types::ErrorKind::StorageError,
        format!("the node answered without {what}; it may run another version"),
    )
}
