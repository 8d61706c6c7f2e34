//! Several nodes that are one cluster, each a child process that can be stopped, killed and started again
//! on its ports and its directory.

use std::path::Path;
use std::time::Duration;

use crate::node::{Node, free_port};
use crate::wait;

/// Far more than an election takes; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster. Nodes are numbered from 1.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    peers: Vec<String>,
}

#[allow(clippy::expect_used, reason = "test harness")]
impl Cluster {
    /// Starts three nodes below `dir` and waits until all are ready.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, 3, &[])
    }

    /// Starts so many nodes with further environment and waits until all are ready.
    pub fn start_with(dir: &Path, count: usize, env: &[(&str, &str)]) -> Self {
        let mut cluster = Self::prepare(dir, count, env);
        cluster.start_all();
        cluster
    }

    /// So many nodes that do not run yet.
    pub fn prepare(dir: &Path, count: usize, env: &[(&str, &str)]) -> Self {
        let peers: Vec<String> = (0..count)
            .map(|_| format!("127.0.0.1:{}", free_port()))
            .collect();
        let seeds = peers.join(",");
        let nodes = peers.iter().enumerate().map(|(index, peer)| {
            let id = (index + 1).to_string();
            let mut all = vec![
                ("VARVE_NODE__ID", id.as_str()),
                ("VARVE_CLUSTER__SEEDS", &seeds),
                ("VARVE_LISTENERS__PEER__ADDRESS", peer),
                ("VARVE_SHUTDOWN__DRAIN_GRACE", "0s"),
            ];
            all.extend_from_slice(env);
            Node::prepare(&dir.join(format!("node-{id}")), &all)
        });
        Self {
            nodes: nodes.collect(),
            peers,
        }
    }

    /// Starts every node and waits until all are ready.
    pub fn start_all(&mut self) {
        for node in &mut self.nodes {
            node.spawn();
        }
        for node in &mut self.nodes {
            node.wait_ready();
        }
        self.wait_active(self.count());
    }

    /// Addresses of the nodes for other nodes, with commas between.
    pub fn seeds(&self) -> String {
        self.peers.join(",")
    }

    /// `host:port` of a node for other nodes.
    pub fn peer(&self, id: usize) -> &str {
        &self.peers[id - 1]
    }

    /// A node.
    pub fn node(&self, id: usize) -> &Node {
        &self.nodes[id - 1]
    }

    /// A node, to be stopped, killed or started.
    pub fn node_mut(&mut self, id: usize) -> &mut Node {
        &mut self.nodes[id - 1]
    }

    /// Number of nodes, running or not.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Every node's address for clients, with commas between.
    pub fn addresses(&self) -> String {
        let all: Vec<String> = self.nodes.iter().map(Node::address).collect();
        all.join(",")
    }

    /// Some node that runs.
    pub fn alive(&self) -> &Node {
        let alive = self.nodes.iter().find(|node| node.runs());
        alive.expect("a node that runs")
    }

    /// Runs a command that answers in JSON at a node that runs; `None` when it fails.
    pub fn json(&self, args: &[&str]) -> Option<serde_json::Value> {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let output = crate::run(self.alive(), &all);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until so many nodes take part.
    pub fn wait_active(&self, count: usize) {
        wait::until(&format!("{count} active nodes"), PATIENCE, || {
            let metadata = self.json(&["cluster", "metadata"])?;
            let nodes = metadata["nodes"].as_array()?.iter();
            let active = nodes.filter(|node| node["state"] == "NODE_STATE_ACTIVE");
            (active.count() == count).then_some(())
        });
    }

    /// Leader and replicas in sync of each partition of a topic, by number. `None` while it cannot be told.
    pub fn partitions(&self, topic: &str) -> Option<Vec<(Option<usize>, usize)>> {
        let metadata = self.json(&["cluster", "metadata", topic])?;
        let partitions = metadata["topics"][0]["partitions"].as_array()?.clone();
        let of = |partition: serde_json::Value| {
            let leader = partition["leaderNodeId"].as_u64();
            let in_sync = partition["inSyncNodeIds"].as_array().map_or(0, Vec::len);
            (leader.and_then(|id| usize::try_from(id).ok()), in_sync)
        };
        Some(partitions.into_iter().map(of).collect())
    }

    /// Waits until every partition of a topic has a leader and so many replicas in sync.
    pub fn wait_in_sync(&self, topic: &str, count: usize) {
        let what = format!("{count} replicas of {topic} in sync");
        wait::until(&what, PATIENCE, || {
            let all = self.partitions(topic)?;
            let good = |p: &(Option<usize>, usize)| p.0.is_some() && p.1 >= count;
            (!all.is_empty() && all.iter().all(good)).then_some(())
        });
    }

    /// The node that leads a partition.
    pub fn leader(&self, topic: &str, partition: usize) -> usize {
        let what = format!("a leader of {topic}-{partition}");
        wait::until(&what, PATIENCE, || self.partitions(topic)?[partition].0)
    }

    /// The node that decides about metadata.
    pub fn controller(&self) -> usize {
        wait::until("a controller", PATIENCE, || {
            let id = self.json(&["cluster", "metadata"])?["controllerNodeId"].as_u64()?;
            usize::try_from(id).ok()
        })
    }

    /// The node that coordinates a group.
    pub fn coordinator(&self, group: &str) -> usize {
        let what = format!("a coordinator of {group}");
        wait::until(&what, PATIENCE, || {
            let found = self.json(&["group", "describe", group])?;
            let id = found["group"]["coordinatorNodeId"].as_u64()?;
            usize::try_from(id).ok()
        })
    }
}
