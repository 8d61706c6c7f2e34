//! The public gRPC protocol as a thin adapter over broker-api.
//!
//! A call is read ([`context`]), translated ([`translate`]), answered by the broker, and translated back;
//! errors go through one table ([`status`]). Streams are tasks of their own ([`streams`]). Invariants: no
//! sequence of bytes from the wire panics or is answered without a reason; a handler may be dropped at
//! any await; nothing here knows what is behind [`varve_broker_api::Broker`].

pub mod context;
pub mod deadline;
pub mod frames;
pub mod incoming;
pub mod layer;
pub mod metrics;
pub mod server;
pub mod services;
pub mod shared;
pub mod status;
pub mod streams;
pub mod translate;
mod transport;

pub use metrics::Metrics;
pub use server::{Health, Options, ServeError, Server};
