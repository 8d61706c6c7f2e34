//! Cluster state as one pure `apply(state, command)`: nodes, topics with their partitions, producer ids.
//!
//! Invariants, checked by [`State::check`] after every command in debug builds and after every decoding,
//! and of each partition that a command touches in every build: the leader is in sync and alive; nobody
//! fenced is in sync; nobody is eligible beside enough replicas in sync; epochs and versions only grow; a
//! topic id belongs to one topic; a producer id is given out once. The same commands give the same state
//! on every node: nothing here reads a clock, draws a random number or iterates in an undefined order.
//! Times and ids arrive inside commands.

mod apply;
mod codec;
mod command;
pub mod command_codec;
mod controller;
pub mod features;
mod index;
mod leadership;
pub mod log;
mod placement;
pub mod planted;
mod rejection;
pub mod snapshot;
mod state;

pub use apply::apply;
pub use codec::CodecError;
pub use command::{Command, CreateTopic, Election, Event, PartitionKey};
pub use controller::{Controller, ControllerConfig, Heartbeat, Input, Output, Progress};
pub use features::FeatureRange;
pub use log::{Leadership, MetadataLog, ProposeError};
pub use rejection::Rejection;
pub use state::{Node, NodeState, Partition, State, Topic};
