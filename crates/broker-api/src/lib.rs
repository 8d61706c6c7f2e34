//! The protocol-neutral API of the broker: plain data, one [`Broker`] trait, one [`Error`].
//!
//! Front ends speak to this and to nothing behind it. Invariants: no type here is serialisable (each
//! adapter has its own twins), none names a protocol, none names a core. A mutation is owned by the
//! broker from the moment it is accepted: dropping a future here never leaves half an append behind.

pub mod admin;
pub mod classic;
pub mod cluster;
pub mod context;
pub mod error;
pub mod fetch;
pub mod group;
pub mod limits;
pub mod operate;
pub mod produce;
pub mod shared;
pub mod transaction;
pub mod unread;

use std::future::Future;

pub use admin::*;
pub use classic::*;
pub use cluster::*;
pub use context::{Context, Forward};
pub use error::{Error, LeaderHint};
pub use fetch::*;
pub use group::*;
pub use limits::{LimitUse, Limits};
pub use operate::*;
pub use produce::*;
pub use shared::{Boxed, SharedBroker};
pub use transaction::*;
pub use unread::{Unread, UnreadBudget};

/// Result of every call.
pub type Result<T> = std::result::Result<T, Error>;

/// A broker, as every front end sees it.
///
/// All methods may be called from any task. Unless said otherwise a call that fails with an error of
/// [`varve_types::Outcome::NotApplied`] changed nothing.
pub trait Broker: Send + Sync + 'static {
    /// Resolves to the outcome of an accepted append.
    type Receipt: Future<Output = Result<Appended>> + Send + Unpin + 'static;

    /// Accepts one batch for one partition. The returned future waits for admission (a byte permit),
    /// so a caller that awaits it before reading more input is held back when the broker is full.
    /// Batches of one partition are appended in the order in which these futures completed. The
    /// [`Broker::Receipt`] resolves when `acks` is satisfied; dropping it does not undo the append.
    fn produce(
        &self,
        ctx: &Context,
        request: Produce,
    ) -> impl Future<Output = Result<Self::Receipt>> + Send;

    /// Opens a producer session.
    fn init_producer(
        &self,
        ctx: &Context,
        request: InitProducer,
    ) -> impl Future<Output = Result<ProducerSession>> + Send;

    /// Reads from any number of partitions, waiting up to `max_wait` for `min_bytes` in all. Parks
    /// once, however many partitions there are. Safe to drop at any time.
    fn fetch(
        &self,
        ctx: &Context,
        request: Fetch,
    ) -> impl Future<Output = Result<Vec<PartitionFetched>>> + Send;

    /// Resolves positions and bounds, one result per query, in order.
    fn list_offsets(
        &self,
        ctx: &Context,
        queries: Vec<OffsetQuery>,
    ) -> impl Future<Output = Vec<Result<OffsetFound>>> + Send;

    /// Where the records of `epoch` end, by which a reader finds out whether its leader's log still has what it has
    /// read; `None`: the log has no record of that epoch or an older one. `current` is checked and fenced when given.
    /// Answers from memory; a broker that keeps no epochs knows of none.
    fn epoch_end(
        &self,
        ctx: &Context,
        partition: &varve_types::TopicPartition,
        epoch: varve_types::LeaderEpoch,
        current: Option<varve_types::LeaderEpoch>,
    ) -> Result<Option<EpochEnd>> {
        let _ = (ctx, partition, epoch, current);
        Ok(None)
    }

    /// Creates a topic. Durable when it returns.
    fn create_topic(
        &self,
        ctx: &Context,
        request: CreateTopic,
    ) -> impl Future<Output = Result<TopicInfo>> + Send;

    /// Deletes a topic and its data; `id` guards against deleting a newer topic of the same name.
    fn delete_topic(
        &self,
        ctx: &Context,
        topic: &varve_types::TopicName,
        id: Option<varve_types::TopicId>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// One topic. Answers from memory.
    fn topic(&self, ctx: &Context, topic: &varve_types::TopicName) -> Result<TopicInfo>;

    /// Every topic the caller may see, ordered by name, internal ones included.
    fn topics(&self, ctx: &Context) -> Result<Vec<TopicInfo>>;

    /// Partitions of a topic, ordered by number.
    fn partitions(
        &self,
        ctx: &Context,
        topic: &varve_types::TopicName,
    ) -> Result<Vec<PartitionInfo>>;

    /// Effective configs of a topic, ordered by name.
    fn topic_configs(
        &self,
        ctx: &Context,
        topic: &varve_types::TopicName,
    ) -> Result<Vec<ConfigEntry>>;

    /// Changes configs of a topic: all of them or none.
    fn update_topic_configs(
        &self,
        ctx: &Context,
        request: UpdateConfigs,
    ) -> impl Future<Output = Result<TopicInfo>> + Send;

    /// Raises the number of partitions to a total.
    fn add_partitions(
        &self,
        ctx: &Context,
        request: AddPartitions,
    ) -> impl Future<Output = Result<TopicInfo>> + Send;

    /// Moves log starts forward, one result (the new log start) per item, in order.
    fn delete_records(
        &self,
        ctx: &Context,
        items: Vec<DeleteBefore>,
    ) -> impl Future<Output = Vec<Result<varve_types::Offset>>> + Send;

    /// The whole membership protocol of a group in one idempotent call (KIP-848). Safe to drop.
    fn heartbeat(
        &self,
        ctx: &Context,
        request: Heartbeat,
    ) -> impl Future<Output = Result<HeartbeatReply>> + Send;

    /// Commits offsets. Durable when it returns; one result per item, in order.
    fn commit_offsets(
        &self,
        ctx: &Context,
        request: CommitOffsets,
    ) -> impl Future<Output = Result<Vec<Result<()>>>> + Send;

    /// Committed offsets, ordered by topic and partition; partitions without one are left out.
    fn committed_offsets(
        &self,
        ctx: &Context,
        request: GetOffsets,
    ) -> impl Future<Output = Result<Vec<CommittedOffset>>> + Send;

    /// Sets the offsets of a group without members.
    fn reset_offsets(
        &self,
        ctx: &Context,
        request: ResetOffsets,
    ) -> impl Future<Output = Result<Vec<CommittedOffset>>> + Send;

    /// Removes committed offsets; one result per partition, in order.
    fn delete_offsets(
        &self,
        ctx: &Context,
        group: &varve_types::GroupName,
        partitions: Vec<varve_types::TopicPartition>,
    ) -> impl Future<Output = Result<Vec<Result<()>>>> + Send;

    /// Every group, ordered by name.
    fn groups(&self, ctx: &Context) -> impl Future<Output = Result<Vec<GroupListing>>> + Send;

    /// One group with its members.
    fn group(
        &self,
        ctx: &Context,
        group: &varve_types::GroupName,
    ) -> impl Future<Output = Result<GroupInfo>> + Send;

    /// Deletes a group without members, with its offsets.
    fn delete_group(
        &self,
        ctx: &Context,
        group: &varve_types::GroupName,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Expels members (all when `members` is empty); returns those expelled.
    fn remove_members(
        &self,
        ctx: &Context,
        group: &varve_types::GroupName,
        members: Vec<varve_types::MemberId>,
    ) -> impl Future<Output = Result<Vec<varve_types::MemberId>>> + Send;

    /// Opens the session of a transactional id; fences whoever had it. Durable when it returns.
    fn init_transactions(
        &self,
        ctx: &Context,
        request: InitTransactions,
    ) -> impl Future<Output = Result<varve_types::ProducerId>> + Send;

    /// Registers partitions in the transaction of a producer that keeps its epoch. Durable when it returns; all or
    /// none.
    fn add_to_transaction(
        &self,
        ctx: &Context,
        request: AddToTransaction,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Commits offsets as part of a transaction; one result per item, in order.
    fn commit_transaction_offsets(
        &self,
        ctx: &Context,
        request: CommitTransactionOffsets,
    ) -> impl Future<Output = Result<Vec<Result<()>>>> + Send;

    /// Ends a transaction. The decision is durable when it returns; the session to go on with.
    fn end_transaction(
        &self,
        ctx: &Context,
        request: EndTransaction,
    ) -> impl Future<Output = Result<varve_types::ProducerId>> + Send;

    /// Every transactional id, ordered by name. This node's own alone where calls are not passed on.
    fn transactions(
        &self,
        ctx: &Context,
    ) -> impl Future<Output = Result<Vec<TransactionListing>>> + Send;

    /// One transactional id with its transaction.
    fn transaction(
        &self,
        ctx: &Context,
        id: &varve_types::TransactionalId,
    ) -> impl Future<Output = Result<TransactionInfo>> + Send;

    /// Aborts the open transaction of a transactional id. The decision is durable when it returns.
    fn abort_transaction(
        &self,
        ctx: &Context,
        id: &varve_types::TransactionalId,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Version, identity and limits of this node.
    fn node(&self) -> NodeInfo;

    /// Nodes of the cluster with their state.
    fn nodes(&self) -> Vec<NodeStatus>;

    /// What is wrong, if anything.
    fn health(&self) -> ClusterHealth;

    /// Number that grows with every change of metadata (topics, partitions, leaders).
    fn metadata_version(&self) -> u64;

    /// Waits until everything that was acknowledged anywhere before the call is part of the metadata here. `false`:
    /// that could not be found out, because no quorum answers.
    fn metadata_newest(&self) -> impl Future<Output = bool> + Send;

    /// Resolves once the metadata version is above `seen`.
    fn metadata_changed(&self, seen: u64) -> impl Future<Output = u64> + Send;
}
