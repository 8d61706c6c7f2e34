//! What a node is told when it starts.
//!
//! Invariant: [`RaftConfig::check`] accepts only timings that an election can work with.

use std::path::PathBuf;
use std::time::Duration;

use varve_types::{ClusterId, DirectoryId, NodeId};
use varve_vfs::Workers;

use crate::error::StartError;
use crate::types::Member;

/// Configuration of one node.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// The node's number.
    pub node: NodeId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// The cluster it belongs to; `None`: it does not know yet.
    pub cluster: Option<ClusterId>,
    /// `host:port` at which other nodes reach it.
    pub address: String,
    /// Rack or zone; may be empty.
    pub rack: String,
    /// Directory of the raft store, `<data>/raft`.
    pub dir: PathBuf,
    /// `host:port` of nodes to ask for the cluster. To found one, the same list on each, each node in it.
    pub seeds: Vec<String>,
    /// How many nodes found a cluster together; 0: this node never founds one.
    pub bootstrap_expect: usize,
    /// How many voters the leader keeps, if there are as many nodes.
    pub voters: usize,
    /// How often a leader shows that it is there.
    pub heartbeat: Duration,
    /// Shortest silence of a leader after which another is elected.
    pub election_min: Duration,
    /// Longest such silence.
    pub election_max: Duration,
    /// How long another node may take for an answer.
    pub call_timeout: Duration,
    /// How long a command may take.
    pub propose_timeout: Duration,
    /// Entries after which a snapshot is taken.
    pub snapshot_every: u64,
    /// Entries that are kept behind a snapshot, for members that are a little behind.
    pub entries_kept: u64,
    /// Who runs what blocks; anything but threads is for simulation.
    pub workers: Workers,
}

impl RaftConfig {
    /// Defaults for a node.
    #[must_use]
    pub fn new(node: NodeId, directory: DirectoryId, address: String, dir: PathBuf) -> Self {
        Self {
            node,
            directory,
            cluster: None,
            address,
            rack: String::new(),
            dir,
            seeds: Vec::new(),
            bootstrap_expect: 0,
            voters: 3,
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            call_timeout: Duration::from_secs(2),
            propose_timeout: Duration::from_secs(10),
            snapshot_every: 4096,
            entries_kept: 1024,
            workers: Workers::Threads,
        }
    }

    /// The node as a member.
    #[must_use]
    pub fn member(&self) -> Member {
        Member {
            node: self.node,
            directory: self.directory,
            address: self.address.clone(),
            rack: self.rack.clone(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let config = |why: &str| Err(StartError::Config(why.to_owned()));
        if self.node.0 < 0 {
            return config("the node id is negative");
        }
        if self.directory == DirectoryId::UNKNOWN {
            return config("the data directory has no id");
        }
        if self.address.is_empty() || self.address.len() > crate::codec::ADDRESS_MAX_BYTES {
            return config("the peer address is empty or too long");
        }
        if self.rack.len() > crate::codec::ADDRESS_MAX_BYTES {
            return config("the rack is too long");
        }
        if self.heartbeat.is_zero()
            || self.heartbeat >= self.election_min
            || self.election_min >= self.election_max
        {
            return config("heartbeat, shortest and longest election timeout must be ascending");
        }
        if self.voters == 0 || self.snapshot_every == 0 {
            return config(
                "the number of voters and the number of entries per snapshot must be at least 1",
            );
        }
        Ok(())
    }

    pub(crate) fn openraft(&self) -> openraft::Config {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: format!("node {}", self.node),
            heartbeat_interval: ms(self.heartbeat),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            install_snapshot_timeout: 60_000,
            max_payload_entries: 256,
            max_append_entries: Some(256),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.entries_kept,
            purge_batch_size: (self.snapshot_every / 4).max(1),
            enable_pre_vote: Some(true),
            // A leader that restarts is elected again: it may not have every committed entry applied.
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            ..openraft::Config::default()
        }
    }
}
