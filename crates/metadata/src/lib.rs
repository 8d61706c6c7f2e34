//! Cluster state as one pure `apply(state, command)`: nodes, topics with their partitions, producer ids.
//!
//! Invariants, checked by [`State::check`] after every command and after every decoding: a partition's
//! leader and in-sync replicas are among its replicas, replicas are distinct known nodes, epochs and
//! versions only grow, a topic id belongs to one topic, a producer id is given out once. The same
//! commands give the same state on every node: nothing here reads a clock, draws a random number or
//! iterates in an undefined order. Times and ids arrive inside commands.

mod apply;
mod command;
mod placement;
pub mod snapshot;
mod state;

pub use apply::apply;
pub use command::{Command, CreateTopic, Event, Rejection};
pub use state::{Node, Partition, State, Topic};
