//! Batches: golden bytes, hostile bytes, and message sets of old clients. One binary for all of it: each module is a
//! suite.

mod batches;
mod golden;
mod message_sets;
