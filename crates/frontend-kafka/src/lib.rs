//! The Kafka protocol as a thin adapter over `broker-api`: clients of that protocol work unchanged.
//!
//! [`wire`] knows bytes and nothing else, [`translate`] turns what they say into the words of `broker-api` and back,
//! `calls` asks the broker, [`server`] accepts connections and keeps their order.
//!
//! Invariants: record batches pass through untouched, in both directions, and what is older becomes one; requests of
//! one connection are answered in the order in which they came; what a client sends costs bounded memory, and a fault
//! of one connection is no other's; an API or version that is not announced in [`versions`] is refused as the protocol
//! says.

mod ahead;
mod budget;
mod calls;
mod following;
mod refused;
mod sessions;
mod shared;

pub mod config_table;
pub mod served;
pub mod server;
pub mod translate;
pub mod versions;
pub mod wire;

/// The name of this listener, in configuration and in what nodes tell of themselves.
pub const LISTENER: &str = "kafka";

pub use server::{Metrics, NodeConfig, Options, Outcome, ServeError, Server};
