//! What a broker needs to know, resolved: no options, no files, no environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use varve_types::{ClusterId, DirectoryId, GroupMigration, NodeId, limits};
use varve_vfs::Workers;

/// Partitions that have metric series of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PerPartition {
    /// All, those of internal topics too.
    All,
    /// Those of topics that users created.
    #[default]
    User,
    /// None: series of topics and of the node remain.
    None,
}

/// Configuration of a broker, passed by value when it starts.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Directory that holds `topics/` and `metadata`. Locked and identified by the caller.
    pub data_dir: PathBuf,
    /// Cluster.
    pub cluster: ClusterId,
    /// Node.
    pub node: NodeId,
    /// Identity of the data directory; unknown unless the caller says it.
    pub directory: DirectoryId,
    /// `host:port` for clients.
    pub address: String,
    /// Where other listeners of this node are reached, `host:port` by the name of the listener.
    pub listeners: BTreeMap<String, String>,
    /// Rack or zone; may be empty.
    pub rack: String,
    /// Semantic version of the server.
    pub version: &'static str,
    /// Commit it was built from; may be empty.
    pub revision: &'static str,
    /// The last run of this directory ended with a clean shutdown mark.
    pub clean_start: bool,
    /// Partitions of a topic that names no number.
    pub num_partitions: i32,
    /// Replicas of a topic that names no number; `None`: three, or as many as there are nodes.
    pub default_replication_factor: Option<i32>,
    /// Topic configs that hold where a topic sets none.
    pub topic_defaults: BTreeMap<String, String>,
    /// Threads that own partitions, `>= 1`.
    pub lanes: usize,
    /// Threads that flush, `>= 1`.
    pub flush_threads: usize,
    /// Bytes of appends that may be on their way into the logs, in the whole broker. As many of each partition may be
    /// there and wait for other replicas.
    pub in_flight_bytes: usize,
    /// Free bytes below which writes are refused.
    pub min_free_bytes: u64,
    /// Free share of the disk, in percent, below which writes are refused.
    pub min_free_percent: u64,
    /// Bytes of the journal at most, and never more than a sixteenth of the disk; below 1 MiB there is none.
    pub journal_max_bytes: u64,
    /// Bytes that the scrub reads in a second; 0 turns it off.
    pub scrub_bytes_per_second: u64,
    /// Bytes that compaction reads and writes in a second at most, all logs together; 0 for no limit.
    pub cleaner_bytes_per_second: u64,
    /// Least time from the beginning of one scrub pass to the next.
    pub scrub_interval: Duration,
    /// How often retention is applied and compaction looks for work; rounded to half seconds.
    pub housekeeping_interval: Duration,
    /// Memory for producer sessions, in bytes; beyond it those that were used least recently give way.
    pub producer_sessions_bytes: u64,
    /// Deadline of calls that name none.
    pub request_timeout: Duration,
    /// Largest `max_bytes` of a fetch.
    pub fetch_max_bytes: usize,
    /// Partitions of `__consumer_offsets`.
    pub offsets_partitions: i32,
    /// Size of their segments, in bytes.
    pub offsets_segment_bytes: u64,
    /// Partitions of `__transaction_state`, when it is created.
    pub transactions_partitions: i32,
    /// Partitions that have metric series of their own. What is wrong with a partition is shown in any case.
    pub per_partition_metrics: PerPartition,
    /// Groups that have metric series of their own.
    pub groups_metrics: usize,
    /// Time an empty group keeps its offsets.
    pub offsets_retention: Duration,
    /// Session timeout of group members that name none.
    pub group_session_timeout: Duration,
    /// Interval of group heartbeats.
    pub group_heartbeat_interval: Duration,
    /// Most transactional ids that this node coordinates.
    pub transactional_ids_max: usize,
    /// Most groups that this node coordinates.
    pub groups_max: usize,
    /// Most members of a group.
    pub group_max_size: usize,
    /// How long a classic group that begins waits for members that start together.
    pub group_initial_rebalance_delay: Duration,
    /// Which way a group with members may pass between the classic and the consumer protocol.
    pub group_migration: GroupMigration,
    /// Who runs what blocks; anything but threads is for simulation.
    pub workers: Workers,
}

impl BrokerConfig {
    /// Built-in defaults for a node that keeps its data in `data_dir`.
    #[must_use]
    pub fn new(data_dir: PathBuf, cluster: ClusterId, node: NodeId) -> Self {
        Self {
            data_dir,
            cluster,
            node,
            directory: DirectoryId::UNKNOWN,
            address: "localhost:8278".to_owned(),
            listeners: BTreeMap::new(),
            rack: String::new(),
            version: env!("CARGO_PKG_VERSION"),
            revision: "",
            clean_start: false,
            num_partitions: 1,
            default_replication_factor: None,
            topic_defaults: BTreeMap::new(),
            lanes: 1,
            flush_threads: 4,
            in_flight_bytes: 64 * 1024 * 1024,
            min_free_bytes: 5 * 1024 * 1024 * 1024,
            min_free_percent: 5,
            journal_max_bytes: 0,
            scrub_bytes_per_second: 10 * 1024 * 1024,
            cleaner_bytes_per_second: 0,
            scrub_interval: Duration::from_secs(24 * 60 * 60),
            housekeeping_interval: Duration::from_secs(30),
            producer_sessions_bytes: limits::PRODUCER_SESSIONS_DEFAULT_BYTES,
            request_timeout: Duration::from_secs(30),
            fetch_max_bytes: limits::FETCH_MAX_BYTES,
            offsets_partitions: 50,
            transactions_partitions: 50,
            offsets_segment_bytes: 100 * 1024 * 1024,
            per_partition_metrics: PerPartition::default(),
            groups_metrics: limits::GROUPS_METRICS_DEFAULT_MAX,
            offsets_retention: Duration::from_secs(10_080 * 60),
            group_session_timeout: Duration::from_secs(45),
            group_heartbeat_interval: Duration::from_secs(5),
            transactional_ids_max: limits::TRANSACTIONAL_IDS_DEFAULT_MAX,
            groups_max: limits::GROUPS_DEFAULT_MAX,
            group_max_size: limits::GROUP_MAX_MEMBERS,
            group_initial_rebalance_delay: Duration::from_millis(500),
            group_migration: GroupMigration::default(),
            workers: Workers::Threads,
        }
    }
}
