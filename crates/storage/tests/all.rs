//! The storage engine: its log, journal, compaction, formats, and what crashes and damage do to them. One binary for
//! all of it: each module is a suite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

mod bad_files;
mod close;
mod common;
mod compacted_damage;
mod compaction;
mod compaction_crash;
mod compaction_format;
mod compaction_model;
mod crash;
mod example;
mod flips;
mod format;
mod journal;
mod log;
mod model;
mod reads;
mod repair;
