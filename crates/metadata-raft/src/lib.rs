//! Puts the cluster state (`varve-metadata`) on a consensus of several nodes (openraft).
//!
//! Invariants: a command is applied on every node in the same order; what was answered survives the loss of
//! any minority of the voters; a vote and an entry are on stable storage before anybody is told; a node that
//! cannot read or write its store is out of service and changes nothing. It takes no decision about the
//! cluster state of its own, knows no protocol, and reads no clock but tokio's timers.

mod bootstrap;
mod codec;
mod config;
pub mod disk;
pub mod entry;
mod error;
pub mod files;
pub mod machine;
mod members;
pub mod message;
pub mod network;
mod node;
mod patience;
mod propose;
mod serve;
pub mod snapshot_file;
pub mod store;
pub mod types;

pub use codec::CodecError;
pub use config::RaftConfig;
pub use error::{StartError, StoreError};
pub use members::ChangeError;
pub use network::{Answered, Transport, TransportError};
pub use node::{MemberStatus, MetadataRaft, Phase, Status};
