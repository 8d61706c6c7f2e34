//! The broker as operators see it: `broker_api::Operations` over the cluster that this node is part of.

use std::sync::Arc;

use varve_broker_api as api;
use varve_broker_api::{Context, Error, Operations, Result};
use varve_metadata::{FeatureRange, PartitionKey};
use varve_types::{ErrorKind, NodeId, TopicName, TopicPartition};

use crate::api::owned;
use crate::cluster::InCluster;
use crate::start::{Broker, Inner};
use crate::throttles::Throttles;

impl Inner {
    fn throttles(&self) -> &Throttles {
        let cluster = self.registry.cluster();
        cluster.map_or(&self.throttles_alone, |cluster| &cluster.links.moves)
    }

    fn operated(&self) -> Result<Arc<InCluster>> {
        if self.registry.cluster().is_some_and(|c| c.is_gone()) {
            let text = format!(
                "node {} was decommissioned and no longer follows the cluster; nothing was \
                 changed; ask another node",
                self.config.node
            );
            return Err(Error::new(ErrorKind::ShuttingDown, text));
        }
        self.registry.cluster().cloned().ok_or_else(|| {
            let text = format!(
                "node {} is alone, so no other node can take over anything; nothing was changed. \
                 To run several nodes, start a cluster with cluster.seeds",
                self.config.node
            );
            Error::new(ErrorKind::PolicyViolation, text)
        })
    }

    /// Bytes that `node` still lacks of a partition that this node leads.
    fn missing_bytes(&self, key: PartitionKey, node: NodeId) -> Option<u64> {
        let view = self.registry.view();
        let partition = view.by_key.get(&key)?;
        partition.leading()?;
        let (start, end) = (partition.log_start(), partition.log_end());
        let records = end.get().saturating_sub(start.get()).unsigned_abs();
        let has = partition.followers.end_of(node).unwrap_or(start);
        let lacks = end.get().saturating_sub(has.max(start).get()).max(0);
        let bytes = u128::from(partition.size_bytes()) * u128::from(lacks.unsigned_abs());
        let bytes = bytes.checked_div(u128::from(records)).unwrap_or(0);
        u64::try_from(bytes).ok()
    }
}

impl Operations for Broker {
    fn node_details(&self, _ctx: &Context) -> Result<Vec<api::NodeDetail>> {
        if self.inner.registry.cluster().is_some() {
            return Ok(self.inner.operated()?.node_details());
        }
        let held = self.inner.registry.view().partitions().count() as u64;
        let nodes = api::Broker::nodes(self).into_iter();
        let detail = |status| api::NodeDetail {
            status,
            replicas: held,
            leaders: held,
            decommissioning: false,
        };
        Ok(nodes.map(detail).collect())
    }

    async fn drain_node(&self, _ctx: &Context, node: NodeId, force: bool) -> Result<api::Drain> {
        self.inner.operated()?.drain_node(node, force).await
    }

    async fn resume_node(&self, _ctx: &Context, node: NodeId) -> Result<api::NodeState> {
        let cluster = self.inner.operated()?;
        owned(async move { cluster.resume_node(node).await }).await
    }

    async fn decommission_node(
        &self,
        _ctx: &Context,
        node: NodeId,
        dead: bool,
    ) -> Result<api::Decommission> {
        self.inner.operated()?.decommission_node(node, dead).await
    }

    async fn transfer_leadership(
        &self,
        _ctx: &Context,
        partition: TopicPartition,
        to: Option<NodeId>,
    ) -> Result<api::LeaderHint> {
        let cluster = self.inner.operated()?;
        owned(async move { cluster.transfer_leadership(partition, to).await }).await
    }

    async fn elect_preferred_leaders(
        &self,
        _ctx: &Context,
        topics: Vec<TopicName>,
    ) -> Result<api::Elections> {
        let cluster = self.inner.operated()?;
        owned(async move { cluster.elect_preferred_leaders(&topics).await }).await
    }

    async fn elect_preferred_leaders_of(
        &self,
        _ctx: &Context,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Result<bool>>> {
        let cluster = self.inner.operated()?;
        owned(async move { Ok(cluster.elect_preferred_leaders_of(partitions).await) }).await
    }

    async fn reassign(&self, _ctx: &Context, request: api::Reassign) -> Result<Vec<Result<()>>> {
        let cluster = self.inner.operated()?;
        owned(async move { cluster.reassign(request).await }).await
    }

    fn features(&self, _ctx: &Context) -> Result<api::Features> {
        if self.inner.registry.cluster().is_none() {
            // A node without others has nobody to agree with: it works at its program's level.
            let (config, range) = (&self.inner.config, FeatureRange::THIS_PROGRAM);
            return Ok(api::Features {
                level: range.max,
                possible: range.max,
                nodes: vec![api::NodeFeatures {
                    node: config.node,
                    version: config.version.to_owned(),
                    min: range.min,
                    max: range.max,
                }],
            });
        }
        Ok(self.inner.operated()?.features())
    }

    async fn finalize_features(
        &self,
        _ctx: &Context,
        level: Option<u16>,
        validate_only: bool,
    ) -> Result<api::Features> {
        let cluster = self.inner.operated()?;
        owned(async move { cluster.finalize_features(level, validate_only).await }).await
    }

    fn reassignments(&self, _ctx: &Context) -> Result<Vec<api::Reassignment>> {
        if self.inner.registry.cluster().is_none() {
            return Ok(Vec::new());
        }
        let cluster = self.inner.operated()?;
        Ok(cluster.reassignments(|key, node| self.inner.missing_bytes(key, node)))
    }

    fn quorum(&self, _ctx: &Context) -> Result<api::Quorum> {
        if self.inner.registry.cluster().is_some() {
            return self.inner.operated()?.quorum();
        }
        // It agrees with itself, and has applied all of that.
        let node = self.inner.config.node;
        let committed = api::Broker::metadata_version(self);
        Ok(api::Quorum {
            leader: Some(node),
            epoch: 1,
            committed,
            members: vec![api::QuorumMember {
                node,
                voter: true,
                log_end: Some(committed),
            }],
        })
    }

    fn throttles(&self, _ctx: &Context) -> Vec<api::Throttle> {
        self.inner.throttles().all()
    }

    fn set_throttles(
        &self,
        _ctx: &Context,
        changes: Vec<(&'static str, Option<u64>)>,
    ) -> Result<()> {
        self.inner.throttles().set(&changes)
    }

    async fn cancel_reassignments(
        &self,
        _ctx: &Context,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Result<()>>> {
        let cluster = self.inner.operated()?;
        owned(async move { Ok(cluster.cancel_reassignments(partitions).await) }).await
    }

    async fn log_directory(&self, _ctx: &Context) -> Result<api::LogDirectory> {
        Ok(self.inner.log_directory().await)
    }

    async fn active_producers(
        &self,
        _ctx: &Context,
        partition: &TopicPartition,
    ) -> Result<Vec<api::ActiveProducer>> {
        self.inner.active_producers(partition).await
    }
}
