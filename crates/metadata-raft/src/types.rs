//! The words between this crate and openraft: ids, members, the type configuration.
//!
//! Invariants: a member's raft id comes from its data directory, so a node that lost its disk comes back as
//! another member and never votes in place of the log that it lost. Standard Raft terms: one leader a term.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use varve_types::{DirectoryId, NodeId};

/// A member of the consensus: see [`raft_id`].
pub type RaftId = u64;

/// The raft id of a data directory: its random 128 bits folded into 64. 0 is nobody.
#[must_use]
pub const fn raft_id(directory: DirectoryId) -> RaftId {
    let folded = ((directory.0 >> 64) as u64).rotate_left(32) ^ directory.0 as u64;
    if folded == 0 { 1 } else { folded }
}

/// Where and what a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The broker's number.
    pub node: NodeId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// `host:port` for other nodes.
    pub address: String,
    /// Rack or zone; may be empty.
    pub rack: String,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            node: NodeId(-1),
            directory: DirectoryId::UNKNOWN,
            address: String::new(),
            rack: String::new(),
        }
    }
}

/// A command of the metadata log, encoded (`varve_metadata::command_codec`).
#[derive(Clone, PartialEq, Eq)]
pub struct CommandBytes(pub Bytes);

impl fmt::Debug for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandBytes({})", self.0.len())
    }
}

impl fmt::Display for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

openraft::declare_raft_types!(
    /// What openraft runs with here.
    pub TypeConfig:
        D = CommandBytes,
        R = (),
        NodeId = RaftId,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

/// Term and index of an entry.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote: term, for whom, and whether a quorum has granted it.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// An entry of the metadata log.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// What an entry carries.
pub type Payload = openraft::EntryPayload<CommandBytes, RaftId, Member>;
/// Voters and learners.
pub type Membership = openraft::Membership<RaftId, Member>;
/// A membership and the entry that made it.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot: what it covers and the encoded state.
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Bytes>;

/// The log id of a term and an index.
#[must_use]
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: leader_id_std::LeaderId::new(term, 0).to_committed(),
        index,
    }
}

/// A vote of its parts.
#[must_use]
pub fn vote(term: u64, voted_for: RaftId, committed: bool) -> Vote {
    Vote {
        leader_id: leader_id_std::LeaderId::new(term, voted_for),
        committed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raft_id_is_never_zero_and_uses_both_halves() {
        assert_eq!(raft_id(DirectoryId(0)), 1);
        assert_ne!(raft_id(DirectoryId(1)), raft_id(DirectoryId(1 << 64)));
    }
}
