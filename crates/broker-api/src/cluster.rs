//! The cluster as clients see it.

use std::collections::BTreeMap;

use varve_types::{ClusterId, NodeId};

use crate::LimitUse;

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Semantic version of the server.
    pub version: &'static str,
    /// Commit it was built from; empty when unknown.
    pub revision: &'static str,
    /// Cluster.
    pub cluster: ClusterId,
    /// Node.
    pub node: NodeId,
    /// Features that this node and every voter support.
    pub features: Vec<&'static str>,
    /// Largest request message, bytes.
    pub max_request_bytes: usize,
    /// Largest `max_bytes` of a read.
    pub max_fetch_bytes: usize,
    /// Deadline of calls that name none, milliseconds.
    pub request_timeout_ms: u64,
    /// Broker clock, milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Where its other listeners are reached, `host:port` by the name of the listener.
    pub listeners: BTreeMap<String, String>,
}

/// State of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Serving.
    Active,
    /// Handing over; still serving.
    Draining,
    /// Leads nothing and takes no leadership.
    Drained,
    /// Replicas are being moved away for good.
    Decommissioning,
    /// Not heard of.
    Offline,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Id.
    pub node: NodeId,
    /// `host:port` for clients.
    pub address: String,
    /// Where its other listeners are reached, `host:port` by the name of the listener, as far as that is known here.
    pub listeners: BTreeMap<String, String>,
    /// Rack or zone.
    pub rack: String,
    /// State.
    pub state: NodeState,
    /// Server version.
    pub version: String,
    /// Leads the metadata.
    pub controller: bool,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterHealth {
    /// Controller, if there is one.
    pub controller: Option<NodeId>,
    /// Nodes that are offline.
    pub offline: Vec<NodeId>,
    /// When they went offline, in milliseconds since the Unix epoch, as far as this node has seen it.
    pub offline_since: BTreeMap<NodeId, i64>,
    /// Nodes that are draining.
    pub draining: Vec<NodeId>,
    /// Partitions without a leader.
    pub leaderless: u64,
    /// Partitions with fewer replicas in sync than they should have.
    pub under_replicated: u64,
    /// Partitions below `min.insync.replicas`: writes are refused.
    pub under_min_isr: u64,
    /// Nodes low on disk space.
    pub low_space: Vec<NodeId>,
    /// Partitions that are not led by their preferred leader.
    pub non_preferred: u64,
    /// Limits of the node that answers of which most is used: soon, something is refused there.
    pub near_limits: Vec<LimitUse>,
}

impl ClusterHealth {
    /// Nothing is wrong. Leaders that are not the preferred ones are no fault, and limits that are near are a warning.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.controller.is_some()
            && self.offline.is_empty()
            && self.leaderless == 0
            && self.under_replicated == 0
            && self.under_min_isr == 0
            && self.low_space.is_empty()
    }
}
