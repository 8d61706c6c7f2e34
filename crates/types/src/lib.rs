//! The words of the field and every hard limit.
//!
//! Invariants: holding a value of one of these types means it is legal (a `TopicName` has passed the
//! name rule, an `Offset` is never negative). Nothing here performs I/O, reads a clock, or knows a
//! protocol or a file format.

pub mod acks;
pub mod config;
pub mod error;
pub mod id;
pub mod kafka_configs;
pub mod limit_table;
pub mod limits;
pub mod migration;
pub mod offset;
pub mod partitioner;
pub mod size;
pub mod text;

pub use acks::Acks;
pub use config::{ConfigError, TopicConfig};
pub use error::{ErrorKind, Outcome, Retry};
pub use id::{
    BrokerEpoch, ClusterId, DirectoryId, GroupName, MemberId, NameError, NodeId, PartitionId,
    ProducerId, TopicId, TopicName, TopicPartition, TransactionalId,
};
pub use migration::GroupMigration;
pub use offset::{LeaderEpoch, Offset, OffsetRange, Sequence};
