//! The seam between cluster state and whatever agrees on its commands: one node's file, or a consensus of
//! several. Everybody above knows this trait alone.
//!
//! Invariants: the state that [`MetadataLog::look`] shows only moves forward, on every node through the same
//! commands in the same order; a command that was answered is part of the state that the asking node sees.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use varve_types::NodeId;

use crate::command::{Command, Event};
use crate::rejection::Rejection;
use crate::state::State;

/// Something that comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who leads the metadata log, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// Grows with every change of leader.
    pub term: u64,
    /// Who leads; `None`: nobody that this node knows of.
    pub leader: Option<NodeId>,
    /// This node leads, and has applied everything that earlier leaders have committed.
    pub here: bool,
}

/// Why a command has no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was committed and changed nothing.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It was not made: nobody leads the metadata log at present.
    #[error("the metadata has no leader at present; nothing was changed; try again")]
    NoLeader,
    /// It may have been made, or may be made yet.
    #[error("the metadata change may or may not have been made: {0}; check before you try again")]
    Unknown(String),
    /// This node takes no part any more.
    #[error("the metadata of this node is out of service: {0}; nothing was changed")]
    Stopped(String),
}

/// The commands of a cluster, in one order for all nodes, and the state they lead to.
pub trait MetadataLog: Send + Sync + 'static {
    /// Shows the newest state that is applied here. To be brief: changes wait meanwhile.
    fn look(&self, look: &mut dyn FnMut(&State));

    /// Resolves with the version of the state here, once it is greater than `version`.
    fn newer_than(&self, version: u64) -> Later<'_, u64>;

    /// Commits a command, whichever node leads. Once it resolves, the state here has seen the command.
    fn propose(&self, command: Command) -> Later<'_, Result<Event, ProposeError>>;

    /// Resolves when everything that was committed before the call is applied here (ReadIndex).
    fn catch_up(&self) -> Later<'_, Result<(), ProposeError>>;

    /// Who leads.
    fn leadership(&self) -> Leadership;

    /// Resolves with who leads, once that is not `seen` any more.
    fn leadership_after(&self, seen: Leadership) -> Later<'_, Leadership>;

    /// The other node that this node has heard last as leader, and how long ago. `None`: none in this run, or
    /// not known.
    fn heard_leader(&self) -> Option<(NodeId, Duration)> {
        None
    }
}

/// Takes a value out of the newest state of a log.
pub fn read<T>(log: &dyn MetadataLog, take: impl FnOnce(&State) -> T) -> T {
    let (mut take, mut taken) = (Some(take), None);
    log.look(&mut |state| {
        if let Some(take) = take.take() {
            taken = Some(take(state));
        }
    });
    match taken {
        Some(value) => value,
        None => unreachable!("a metadata log shows its state when asked"),
    }
}
