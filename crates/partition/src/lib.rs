//! The replication state machine of one partition, without I/O.
//!
//! [`Core::step`] takes an input and the time that the rim observed, and pushes outputs that the rim
//! performs in order. It never blocks, reads no clock and touches no file; the same code runs in
//! production, in unit tests and under simulation.
//!
//! Invariants, asserted after every step: `log_start <= high_watermark <= log_end`,
//! `flushed <= written <= log_end`, the high watermark never decreases within an epoch, the last stable
//! offset lies between log start and high watermark and decreases only with it, and every ticket is answered
//! exactly once.

mod core;
mod epochs;
mod follower;
pub mod input;
mod invariants;
mod leader;
pub mod output;
mod pending_acks;
pub mod planted;
mod producer_codec;
pub mod producer_state;
mod registered;
mod transactions;

pub use crate::core::{Core, CoreConfig, Recovered};
pub use epochs::Epochs;
pub use input::{
    Append, Assignment, FetchId, Fetched, Heard, Input, IsrRefusal, Now, Position, Replicated,
    Ticket, TransactionEnd, Verified,
};
pub use output::{Accepted, Distrust, FetchGrant, FetchRefusal, Output, Rejection};
pub use producer_codec::SnapshotError;
pub use producer_state::ProducerTable;
pub use registered::Registered;
pub use transactions::{Aborted, AbortedList};
