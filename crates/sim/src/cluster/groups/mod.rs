//! Consumer groups over the simulated partitions: coordinators with the real core on the nodes that lead
//! `__consumer_offsets`, members that come, go, fall silent and commit with epochs that are over, and producers that
//! commit offsets in their transactions.
//!
//! What the rim does here is what the real rim does (`varve-broker`, `coordinator.rs` and `coordinators.rs`), one
//! message at a time. There is one group. Seeds that have transactions have it: see
//! [`super::knobs::Knobs::transactions`].

mod host;
mod members;
pub(super) mod seen;

use std::collections::BTreeMap;

use varve_groups::{AppendId, HeartbeatReply};
use varve_types::{ErrorKind, GroupName, LeaderEpoch, NodeId, ProducerId, TopicName};

pub(super) use host::{Caller, Host};
pub(super) use members::{MEMBERS, Member};

/// What is asked of the coordinator of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// A member speaks: its number, its epoch, what it owns, and whether it leaves.
    Heartbeat {
        member: usize,
        epoch: i32,
        owned: Vec<i32>,
        leave: bool,
    },
    /// A member commits that offset of a partition.
    Commit {
        member: usize,
        epoch: i32,
        partition: i32,
        serial: u64,
    },
    /// A producer does, in its transaction.
    TxnCommit {
        producer: ProducerId,
        /// Number of its transactional id.
        name: usize,
        partition: i32,
        serial: u64,
    },
    /// What is committed.
    Offsets,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Heartbeat(HeartbeatReply),
    Committed,
    /// Partitions with their offset; those that transactions may change are named apart.
    Offsets {
        stable: BTreeMap<i32, u64>,
        unstable: Vec<i32>,
    },
    Failed(ErrorKind, Option<NodeId>),
}

/// An append of the coordinator of that leadership has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appended {
    pub(super) epoch: LeaderEpoch,
    pub(super) id: AppendId,
    pub(super) result: Result<(), ErrorKind>,
}

/// The group of the whole world.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) seen: seen::Seen,
    /// Members that run, by the number that messages for them carry.
    pub(super) members: BTreeMap<usize, Member>,
    next_member: usize,
    next_commit: u64,
}

impl Group {
    /// An offset that was never committed before.
    pub(super) fn serial(&mut self) -> u64 {
        self.next_commit += 1;
        self.next_commit
    }
}

fn group() -> GroupName {
    match GroupName::new("g") {
        Ok(name) => name,
        Err(error) => unreachable!("g is a legal name: {error}"),
    }
}

fn topic() -> TopicName {
    match TopicName::new("t") {
        Ok(name) => name,
        Err(error) => unreachable!("t is a legal name: {error}"),
    }
}
