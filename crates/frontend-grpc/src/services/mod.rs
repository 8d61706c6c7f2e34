//! The services of the public API. Each method reads its context, translates, asks the broker, and
//! translates back; nothing here decides anything about a log.

pub mod admin;
pub mod append;
pub mod cluster;
pub mod consumer;
pub mod group;
pub mod producer;
pub mod topic;
pub mod transaction;
