//! Several servers of our own that are one cluster, each a process, next to this program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use varve_client::proto::{
    CreateTopicRequest, GetMetadataRequest, GetMetadataResponse, NodeState, PartitionMetadata,
};
use varve_client::{Admin, Client, ClientConfig};
use varve_types::TopicName;

use crate::server::{Server, free_port};

/// Longest time for anything but what is measured.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time between looks at the metadata.
const LOOK: Duration = Duration::from_millis(50);

/// Directory and settings of a node.
type Start = (PathBuf, Vec<(&'static str, String)>);

/// A cluster whose processes end with this value.
#[derive(Debug)]
pub struct Cluster {
    nodes: BTreeMap<i32, Server>,
    addresses: BTreeMap<i32, String>,
    /// Data directory and configuration of each, to start it again.
    how: BTreeMap<i32, Start>,
}

impl Cluster {
    /// Starts so many nodes below `dir`, numbered from 1, and waits until all take part. `env`: further
    /// configuration of each.
    pub async fn start(dir: &Path, count: usize, env: &[(&'static str, String)]) -> Result<Self> {
        let peers: Result<Vec<String>> = (0..count)
            .map(|_| Ok(format!("127.0.0.1:{}", free_port()?)))
            .collect();
        let peers = peers?;
        let (mut nodes, mut how) = (BTreeMap::new(), BTreeMap::new());
        for (id, peer) in (1..).zip(&peers) {
            let mut all = vec![
                ("VARVE_NODE__ID", id.to_string()),
                ("VARVE_CLUSTER__SEEDS", peers.join(",")),
                ("VARVE_LISTENERS__PEER__ADDRESS", peer.clone()),
                ("VARVE_LISTENERS__PEER__TLS__MODE", "insecure".to_owned()),
            ];
            all.extend_from_slice(env);
            let data = dir.join(format!("node-{id}"));
            std::fs::create_dir_all(&data)?;
            nodes.insert(id, Server::launch(&data, &all)?);
            how.insert(id, (data, all));
        }
        for server in nodes.values_mut() {
            server.wait_ready()?;
        }
        let addresses = nodes
            .iter()
            .map(|(id, server)| (*id, server.address.clone()))
            .collect();
        let cluster = Self {
            nodes,
            addresses,
            how,
        };
        let active = |metadata: &GetMetadataResponse| {
            let nodes = metadata.nodes.iter();
            let active = nodes.filter(|n| n.state == i32::from(NodeState::Active));
            (active.count() == count && metadata.controller_node_id.is_some()).then_some(())
        };
        cluster
            .until("every node to take part", &[], active)
            .await?;
        Ok(cluster)
    }

    /// Addresses of the nodes that run, with commas between.
    pub fn brokers(&self) -> String {
        let all: Vec<&str> = self.nodes.values().map(|s| s.address.as_str()).collect();
        all.join(",")
    }

    /// Addresses of all nodes, running or not: what a client is configured with.
    pub fn all_brokers(&self) -> Vec<String> {
        self.addresses.values().cloned().collect()
    }

    /// The nodes that run.
    pub const fn nodes(&self) -> &BTreeMap<i32, Server> {
        &self.nodes
    }

    /// Takes a node out, to be stopped or, when it is dropped, killed.
    pub fn take(&mut self, id: i32) -> Result<Server> {
        self.nodes
            .remove(&id)
            .with_context(|| format!("node {id} does not run"))
    }

    /// Starts a node again that was taken out, and waits until it is in sync.
    pub fn restart(&mut self, id: i32) -> Result<()> {
        let (data, env) = self.how.get(&id).context("no such node")?;
        let mut server = Server::launch(data, env)?;
        server.wait_ready()?;
        self.addresses.insert(id, server.address.clone());
        self.nodes.insert(id, server);
        Ok(())
    }

    /// Calls at the nodes that run.
    pub fn admin(&self) -> Result<Admin> {
        let brokers = self.nodes.values().map(|s| s.address.clone()).collect();
        Ok(Admin::new(Client::new(ClientConfig {
            brokers,
            request_timeout: Duration::from_secs(120),
            ..ClientConfig::default()
        })?))
    }

    /// Makes a topic with three replicas, `min.insync.replicas` 2, and waits until all are in sync and
    /// each partition is led by the node it prefers.
    pub async fn topic(&self, name: &str, partitions: i32) -> Result<TopicName> {
        let request = CreateTopicRequest {
            topic: name.to_owned(),
            partition_count: partitions,
            replication_factor: 3,
            configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
            ..CreateTopicRequest::default()
        };
        let created = self.admin()?.create_topic(request).await;
        created.context("create the topic")?;
        let whole = |p: &PartitionMetadata| {
            p.in_sync_node_ids.len() == 3 && p.leader_node_id == p.replica_node_ids.first().copied()
        };
        let good = |metadata: &GetMetadataResponse| {
            let all = &metadata.topics.first()?.partitions;
            let wanted = usize::try_from(partitions).ok()?;
            (all.len() == wanted && all.iter().all(whole)).then_some(())
        };
        self.until("every replica to be in sync", &[name], good)
            .await?;
        Ok(name.parse()?)
    }

    /// Asks for metadata again and again until they say what is wanted.
    pub async fn until<T>(
        &self,
        what: &str,
        topics: &[&str],
        mut good: impl FnMut(&GetMetadataResponse) -> Option<T>,
    ) -> Result<T> {
        let admin = self.admin()?;
        let request = GetMetadataRequest {
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            all_topics: false,
        };
        let started = Instant::now();
        loop {
            if let Ok(metadata) = admin.get_metadata(request.clone()).await
                && let Some(found) = good(&metadata)
            {
                return Ok(found);
            }
            if started.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} in vain for {what}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The node that decides about metadata.
    pub async fn controller(&self) -> Result<i32> {
        self.until("a controller", &[], |m| m.controller_node_id)
            .await
    }
}
