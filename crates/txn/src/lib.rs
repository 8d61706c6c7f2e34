//! Transactions over several partitions, without I/O.
//!
//! The core is [`Coordinator`]: one value that holds every transactional id of one partition of the compacted topic
//! `__transaction_state` and is stepped with inputs. It follows KIP-98 with the second part of KIP-890: every
//! transaction ends with a raised epoch, so nothing that was sent for it can touch the next one. Producers that cannot
//! do that keep their epoch; their transactions are numbered, durably, so that no late marker touches the next one.
//!
//! Invariants:
//! - **T1** all partitions of a transaction get the same decision, whoever coordinates meanwhile;
//! - **T3** the producer's epoch rises with every new session and with every end of a transaction, unless its producer
//!   keeps it; then the number of the transaction rises;
//! - **T4** a transaction is open no longer than its timeout, as long as appends work;
//! - **T5** a decision is durable before the first marker is sent, and before it is answered;
//! - **T6** a partition counts as registered only when that is durable;
//! - a ticket is answered at most once, and one transactional id has at most one append under way.
//!
//! Never here: I/O, clocks, threads, randomness, a wire format of requests.

pub mod codec;
mod coordinator;
mod entry;
mod input;
mod output;
pub mod planted;
mod record;
mod rules;

pub use coordinator::{Config, Coordinator};
pub use input::{AppendId, Input, Lost, Next, Now, Tick, Ticket};
pub use output::{Description, Failure, Listing, Markers, Output, Reply};
pub use record::{Cause, Place, Record, State};
