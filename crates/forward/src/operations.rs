//! Operators' calls are decided by what all nodes agree on, which any node asks by itself: nothing is passed
//! on here.

use std::future::Future;

use varve_broker_api as api;
use varve_broker_api::{Context, Operations};
use varve_types::{NodeId, TopicName, TopicPartition};

use crate::{Forwarding, Result};

impl<B: Operations> Operations for Forwarding<B> {
    fn node_details(&self, ctx: &Context) -> Result<Vec<api::NodeDetail>> {
        self.broker.node_details(ctx)
    }

    fn drain_node(
        &self,
        ctx: &Context,
        node: NodeId,
        force: bool,
    ) -> impl Future<Output = Result<api::Drain>> + Send {
        self.broker.drain_node(ctx, node, force)
    }

    fn resume_node(
        &self,
        ctx: &Context,
        node: NodeId,
    ) -> impl Future<Output = Result<api::NodeState>> + Send {
        self.broker.resume_node(ctx, node)
    }

    fn decommission_node(
        &self,
        ctx: &Context,
        node: NodeId,
        dead: bool,
    ) -> impl Future<Output = Result<api::Decommission>> + Send {
        self.broker.decommission_node(ctx, node, dead)
    }

    fn transfer_leadership(
        &self,
        ctx: &Context,
        partition: TopicPartition,
        to: Option<NodeId>,
    ) -> impl Future<Output = Result<api::LeaderHint>> + Send {
        self.broker.transfer_leadership(ctx, partition, to)
    }

    fn elect_preferred_leaders(
        &self,
        ctx: &Context,
        topics: Vec<TopicName>,
    ) -> impl Future<Output = Result<api::Elections>> + Send {
        self.broker.elect_preferred_leaders(ctx, topics)
    }

    fn elect_preferred_leaders_of(
        &self,
        ctx: &Context,
        partitions: Vec<TopicPartition>,
    ) -> impl Future<Output = Result<Vec<Result<bool>>>> + Send {
        self.broker.elect_preferred_leaders_of(ctx, partitions)
    }

    fn reassign(
        &self,
        ctx: &Context,
        request: api::Reassign,
    ) -> impl Future<Output = Result<Vec<Result<()>>>> + Send {
        self.broker.reassign(ctx, request)
    }

    fn features(&self, ctx: &Context) -> Result<api::Features> {
        self.broker.features(ctx)
    }

    fn finalize_features(
        &self,
        ctx: &Context,
        level: Option<u16>,
        validate_only: bool,
    ) -> impl Future<Output = Result<api::Features>> + Send {
        self.broker.finalize_features(ctx, level, validate_only)
    }

    fn reassignments(&self, ctx: &Context) -> Result<Vec<api::Reassignment>> {
        self.broker.reassignments(ctx)
    }

    fn quorum(&self, ctx: &Context) -> Result<api::Quorum> {
        self.broker.quorum(ctx)
    }

    fn throttles(&self, ctx: &Context) -> Vec<api::Throttle> {
        self.broker.throttles(ctx)
    }

    fn set_throttles(
        &self,
        ctx: &Context,
        changes: Vec<(&'static str, Option<u64>)>,
    ) -> Result<()> {
        self.broker.set_throttles(ctx, changes)
    }

    fn cancel_reassignments(
        &self,
        ctx: &Context,
        partitions: Vec<TopicPartition>,
    ) -> impl Future<Output = Result<Vec<Result<()>>>> + Send {
        self.broker.cancel_reassignments(ctx, partitions)
    }

    fn log_directory(
        &self,
        ctx: &Context,
    ) -> impl Future<Output = Result<api::LogDirectory>> + Send {
        self.broker.log_directory(ctx)
    }

    fn active_producers(
        &self,
        ctx: &Context,
        partition: &TopicPartition,
    ) -> impl Future<Output = Result<Vec<api::ActiveProducer>>> + Send {
        self.broker.active_producers(ctx, partition)
    }
}
