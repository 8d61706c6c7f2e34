//! Runs the cores: lanes that own partitions, flushers, readers, admission, the group coordinator.
//!
//! Invariants: a partition is changed by its lane alone; nothing is queued without a permit; an
//! accepted append is owned by the broker and happens whether or not anybody waits for it; reads never
//! enter a lane. This crate knows no protocol.

mod admission;
mod alone;
mod api;
mod changes;
mod classic;
mod cleaner;
mod closing;
mod cluster;
mod committer;
mod config;
mod configs;
mod confirm;
mod coordinator;
mod coordinators;
mod damage;
mod failure;
mod flusher;
mod group_metrics;
mod housekeeping;
mod inbox;
mod inspect;
mod internal_topic;
mod isolation;
mod lane;
mod leaderships;
pub mod metadata_file;
mod metrics;
mod node_count;
mod offsets;
mod opener;
mod operate;
mod partition;
pub mod peer;
mod produce;
mod producer_sessions;
mod rate;
mod reader;
mod recompress;
mod refusals;
mod registry;
mod reject;
mod scrape;
mod scrub;
pub mod scrub_file;
mod stall;
mod start;
mod storage_health;
mod throttles;
mod topic_metrics;
mod transactions;
mod unplaced;
mod waiters;
mod work;

pub use cluster::join::PeerHandle;
pub use cluster::{Cluster, ClusterConfig, Members};
pub use config::{BrokerConfig, PerPartition};
pub use produce::Receipt;
pub use start::{Broker, StartError};
pub use storage_health::{DamagedRange, ScrubStatus, StorageHealth};
