//! Broker to broker over tonic: replication, signs of life, the messages of the metadata consensus, what leaders
//! and coordinators of transactions say to each other, and calls of clients that one node passes on to another.
//!
//! [`PeerClient`] is the broker's [`varve_broker::peer::Peers`]; [`PeerServer`] serves what implements
//! [`varve_broker::peer::PeerService`] and [`RaftHandler`]. Invariants: every call says who speaks, in which
//! cluster and to whom, and is refused when that does not fit; bulk data and consensus never share a
//! connection; records are asked of the service only when the connection has room for them, so what waits
//! for a slow follower is bounded; no bytes from the wire panic. Nothing here decides anything about a
//! partition or the cluster, and nothing is sent twice.

pub mod client;
pub mod convert;
pub mod identity;
mod incoming;
mod outcome;
mod passed_on;
pub mod server;
pub mod transaction;

pub use client::{Called, Calls, ClientOptions, PeerClient};
pub use identity::{Identity, KnownCluster};
pub use outcome::{CallError, CallErrorKind};
pub use passed_on::{CallService, CallsHandle};
pub use server::{PeerServer, RaftHandler, ServeError, ServerOptions};
