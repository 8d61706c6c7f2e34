//! The independent checker: a history of what clients saw in, a verdict out.
//!
//! It judges a log service by nothing but what its clients were told: sends and their answers, polls, ends of logs,
//! committed offsets, transactions, who owned what in a group, and one read of everything at the end. It shares no type
//! with the server or the client, does no I/O and reads no clock; the same history has the same verdict for ever.
//!
//! Time is linear in the events, memory in the sends and the offsets: about 80 bytes for each of both. A call
//! without an answer may or may not have happened.

mod checker;
mod copies;
mod end;
mod graph;
pub mod history;
mod offsets;
mod owners;
mod txns;
mod verdict;

pub use checker::{Checker, Required};
pub use history::{Acks, Event, Header, HistoryError, read_history};
pub use verdict::{Coverage, Finding, Kind, Outcome, Verdict};
