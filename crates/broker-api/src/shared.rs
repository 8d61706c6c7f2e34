//! A broker behind a pointer. A front end is generic over its broker; one that is started with a [`SharedBroker`]
//! is compiled once, in its own crate and beside the others, instead of in the crate that puts a node together.
//!
//! Invariants: every call goes to the broker behind it unchanged, and costs one allocation more than without the
//! pointer (an append: two). A call is about a batch, a fetch or an administrative act, never about a single record.

use std::pin::Pin;
use std::sync::Arc;

use varve_types::{
    GroupName, LeaderEpoch, MemberId, NodeId, Offset, ProducerId, TopicId, TopicName,
    TopicPartition, TransactionalId,
};

use crate::*;

/// A future behind a pointer.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A broker of any kind. Cloning shares it.
#[derive(Clone)]
pub struct SharedBroker(Arc<dyn Erased>);

impl SharedBroker {
    /// Puts `broker` behind a pointer.
    pub fn new(broker: impl Broker + ClassicGroups + Operations) -> Self {
        Self(Arc::new(broker))
    }
}

impl std::fmt::Debug for SharedBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedBroker").finish_non_exhaustive()
    }
}

/// Writes the object-safe twin of the traits, its implementation for every broker, and theirs for [`SharedBroker`].
/// Arguments before the semicolon are borrowed; calls under `later` are awaited.
macro_rules! erased {
    ($($trait:ident
        later { $($later:ident($($lb:ident: &$lbt:ty),*; $($lo:ident: $lot:ty),*) -> $lout:ty;)* }
        now { $($now:ident($($nb:ident: &$nbt:ty),*; $($no:ident: $not:ty),*) -> $nout:ty;)* }
    )*) => {
        trait Erased: Send + Sync {
            fn produce<'a>(&'a self, ctx: &'a Context, request: Produce)
                -> Boxed<'a, Result<Boxed<'static, Result<Appended>>>>;
            $($(fn $later<'a>(&'a self, $($lb: &'a $lbt,)* $($lo: $lot),*) -> Boxed<'a, $lout>;)*
            $(fn $now(&self, $($nb: &$nbt,)* $($no: $not),*) -> $nout;)*)*
        }

        impl<B: Broker + ClassicGroups + Operations> Erased for B {
            fn produce<'a>(&'a self, ctx: &'a Context, request: Produce)
                -> Boxed<'a, Result<Boxed<'static, Result<Appended>>>> {
                Box::pin(async move {
                    let receipt = Broker::produce(self, ctx, request).await?;
                    Ok(Box::pin(receipt) as Boxed<'static, _>)
                })
            }
            $($(fn $later<'a>(&'a self, $($lb: &'a $lbt,)* $($lo: $lot),*) -> Boxed<'a, $lout> {
                Box::pin($trait::$later(self, $($lb,)* $($lo),*))
            })*
            $(fn $now(&self, $($nb: &$nbt,)* $($no: $not),*) -> $nout {
                $trait::$now(self, $($nb,)* $($no),*)
            })*)*
        }

        $(erased!(@one $trait
            { $(async fn $later(&self, $($lb: &$lbt,)* $($lo: $lot),*) -> $lout {
                self.0.$later($($lb,)* $($lo),*).await
            })* }
            { $(fn $now(&self, $($nb: &$nbt,)* $($no: $not),*) -> $nout {
                self.0.$now($($nb,)* $($no),*)
            })* }
        );)*
    };
    (@one Broker { $($later:item)* } { $($now:item)* }) => {
        impl Broker for SharedBroker {
            type Receipt = Boxed<'static, Result<Appended>>;
            async fn produce(&self, ctx: &Context, request: Produce) -> Result<Self::Receipt> {
                self.0.produce(ctx, request).await
            }
            $($later)* $($now)*
        }
    };
    (@one $trait:ident { $($later:item)* } { $($now:item)* }) => {
        impl $trait for SharedBroker { $($later)* $($now)* }
    };
}

erased! {
    Broker
    later {
        init_producer(ctx: &Context; request: InitProducer) -> Result<ProducerSession>;
        fetch(ctx: &Context; request: Fetch) -> Result<Vec<PartitionFetched>>;
        list_offsets(ctx: &Context; queries: Vec<OffsetQuery>) -> Vec<Result<OffsetFound>>;
        create_topic(ctx: &Context; request: CreateTopic) -> Result<TopicInfo>;
        delete_topic(ctx: &Context, topic: &TopicName; id: Option<TopicId>) -> Result<()>;
        update_topic_configs(ctx: &Context; request: UpdateConfigs) -> Result<TopicInfo>;
        add_partitions(ctx: &Context; request: AddPartitions) -> Result<TopicInfo>;
        delete_records(ctx: &Context; items: Vec<DeleteBefore>) -> Vec<Result<Offset>>;
        heartbeat(ctx: &Context; request: Heartbeat) -> Result<HeartbeatReply>;
        commit_offsets(ctx: &Context; request: CommitOffsets) -> Result<Vec<Result<()>>>;
        committed_offsets(ctx: &Context; request: GetOffsets) -> Result<Vec<CommittedOffset>>;
        reset_offsets(ctx: &Context; request: ResetOffsets) -> Result<Vec<CommittedOffset>>;
        delete_offsets(ctx: &Context, group: &GroupName; partitions: Vec<TopicPartition>) -> Result<Vec<Result<()>>>;
        groups(ctx: &Context;) -> Result<Vec<GroupListing>>;
        group(ctx: &Context, group: &GroupName;) -> Result<GroupInfo>;
        delete_group(ctx: &Context, group: &GroupName;) -> Result<()>;
        remove_members(ctx: &Context, group: &GroupName; members: Vec<MemberId>) -> Result<Vec<MemberId>>;
        init_transactions(ctx: &Context; request: InitTransactions) -> Result<ProducerId>;
        add_to_transaction(ctx: &Context; request: AddToTransaction) -> Result<()>;
        commit_transaction_offsets(ctx: &Context; request: CommitTransactionOffsets) -> Result<Vec<Result<()>>>;
        end_transaction(ctx: &Context; request: EndTransaction) -> Result<ProducerId>;
        transactions(ctx: &Context;) -> Result<Vec<TransactionListing>>;
        transaction(ctx: &Context, id: &TransactionalId;) -> Result<TransactionInfo>;
        abort_transaction(ctx: &Context, id: &TransactionalId;) -> Result<()>;
        metadata_newest(;) -> bool;
        metadata_changed(; seen: u64) -> u64;
    }
    now {
        epoch_end(ctx: &Context, partition: &TopicPartition; epoch: LeaderEpoch, current: Option<LeaderEpoch>) -> Result<Option<EpochEnd>>;
        topic(ctx: &Context, topic: &TopicName;) -> Result<TopicInfo>;
        topics(ctx: &Context;) -> Result<Vec<TopicInfo>>;
        partitions(ctx: &Context, topic: &TopicName;) -> Result<Vec<PartitionInfo>>;
        topic_configs(ctx: &Context, topic: &TopicName;) -> Result<Vec<ConfigEntry>>;
        node(;) -> NodeInfo;
        nodes(;) -> Vec<NodeStatus>;
        health(;) -> ClusterHealth;
        metadata_version(;) -> u64;
    }
    ClassicGroups
    later {
        join_group(ctx: &Context; request: JoinGroup) -> ClassicResult<JoinedGroup>;
        sync_group(ctx: &Context; request: SyncGroup) -> ClassicResult<SyncedGroup>;
        classic_heartbeat(ctx: &Context; request: ClassicHeartbeat) -> ClassicResult<()>;
        leave_group(ctx: &Context; request: LeaveGroup) -> ClassicResult<Vec<ClassicResult<()>>>;
    }
    now {
    }
    Operations
    later {
        drain_node(ctx: &Context; node: NodeId, force: bool) -> Result<Drain>;
        resume_node(ctx: &Context; node: NodeId) -> Result<NodeState>;
        decommission_node(ctx: &Context; node: NodeId, dead: bool) -> Result<Decommission>;
        transfer_leadership(ctx: &Context; partition: TopicPartition, to: Option<NodeId>) -> Result<LeaderHint>;
        elect_preferred_leaders(ctx: &Context; topics: Vec<TopicName>) -> Result<Elections>;
        elect_preferred_leaders_of(ctx: &Context; partitions: Vec<TopicPartition>) -> Result<Vec<Result<bool>>>;
        reassign(ctx: &Context; request: Reassign) -> Result<Vec<Result<()>>>;
        finalize_features(ctx: &Context; level: Option<u16>, validate_only: bool) -> Result<Features>;
        cancel_reassignments(ctx: &Context; partitions: Vec<TopicPartition>) -> Result<Vec<Result<()>>>;
        log_directory(ctx: &Context;) -> Result<LogDirectory>;
        active_producers(ctx: &Context, partition: &TopicPartition;) -> Result<Vec<ActiveProducer>>;
    }
    now {
        node_details(ctx: &Context;) -> Result<Vec<NodeDetail>>;
        features(ctx: &Context;) -> Result<Features>;
        reassignments(ctx: &Context;) -> Result<Vec<Reassignment>>;
        quorum(ctx: &Context;) -> Result<Quorum>;
        throttles(ctx: &Context;) -> Vec<Throttle>;
        set_throttles(ctx: &Context; changes: Vec<(&'static str, Option<u64>)>) -> Result<()>;
    }
}
