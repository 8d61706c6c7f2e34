//! Nodes come, are fenced and unfenced, stop, and are forgotten (KIP-631, KIP-841).

use varve_types::text::counted;
use varve_types::{BrokerEpoch, DirectoryId, NodeId, limits};

use super::{range, text};
use crate::command::PartitionKey;
use crate::leadership::Edit;
use crate::planted::{self, Plant};
use crate::state::{Node, NodeState, State};
use crate::{Command, Event, Rejection};

/// Registration. Nothing of an older run of the node holds any more: it begins fenced, in a new epoch.
pub(super) fn register(state: &mut State, command: Command) -> Result<Event, Rejection> {
    let Command::RegisterNode {
        node,
        incarnation,
        directory,
        address,
        peer_address,
        rack,
        features,
        version,
        clean,
    } = command
    else {
        unreachable!("called with a registration");
    };
    range("the node id", node.0.into(), 0, i32::MAX.into())?;
    text("the address of a node", &address, 1)?;
    text("the address of a node for other nodes", &peer_address, 0)?;
    text("the rack of a node", &rack, 0)?;
    text("the version of a node", &version, 0)?;
    if !features.contains(state.level) {
        return Err(Rejection::BadNodeState {
            node,
            why: format!(
                "(version {version}) supports feature levels {} to {}, but the cluster is at {}",
                features.min, features.max, state.level
            ),
        });
    }
    let known = state.nodes.get(&node);
    if let Some(known) = known {
        let same_disk = known.directory == directory;
        if known.incarnation == incarnation && same_disk {
            return Ok(Event::NodeRegistered {
                node,
                epoch: known.epoch,
                changed: Vec::new(),
            });
        }
        // One that was stopping and comes back with its disk has stopped.
        let stopped = known.state == NodeState::Draining && same_disk;
        let free = stopped || planted::is(Plant::LiveIdTaken);
        if known.state != NodeState::Fenced && !free {
            return Err(Rejection::DuplicateNode {
                node,
                directory: known.directory,
                address: known.address.clone(),
            });
        }
    } else if state.nodes.len() >= limits::NODES_MAX {
        return Err(Rejection::Exhausted {
            what: "the places of nodes",
        });
    }
    let version_after = i64::try_from(state.version.saturating_add(1)).ok();
    let Some(epoch) = version_after.and_then(BrokerEpoch::new) else {
        return Err(Rejection::Exhausted {
            what: "broker epochs",
        });
    };
    let same_disk = known
        .is_none_or(|k| k.directory == directory || k.directory == DirectoryId::UNKNOWN)
        || planted::is(Plant::NewDiskIsSame);
    let epoch = match known {
        Some(known) if planted::is(Plant::SameBrokerEpoch) => known.epoch,
        _ => epoch,
    };
    let clean = same_disk && known.is_none_or(|k| clean == Some(k.epoch));
    let decommissioning = known.is_some_and(|k| k.decommissioning);
    state.nodes.insert(
        node,
        Node {
            address,
            peer_address,
            rack,
            directory,
            incarnation,
            epoch,
            state: NodeState::Fenced,
            decommissioning,
            features,
            version,
        },
    );
    let changed = edit_held(state, node, |state, at| {
        // Another disk has nothing. The same one after an unclean stop lacks what only the page cache had.
        let unclean = !clean && !planted::is(Plant::UncleanIsClean);
        let lost = !same_disk || (unclean && may_have_lost(state, at));
        lost.then_some(node)
    });
    Ok(Event::NodeRegistered {
        node,
        epoch,
        changed,
    })
}

/// Whether an unclean stop may cost acknowledged records of a replica that others may have (KIP-966).
fn may_have_lost(state: &State, at: PartitionKey) -> bool {
    let topic = state.topic_by_id(at.topic).map(|(_, t)| t);
    topic.is_some_and(|t| {
        let replicas = t.partition(at.partition).map_or(0, |p| p.replicas.len());
        t.rules.replicated && replicas > 1
    })
}

pub(super) fn fence(
    state: &mut State,
    node: NodeId,
    epoch: BrokerEpoch,
) -> Result<Event, Rejection> {
    current(state, node, epoch)?;
    become_(state, node, NodeState::Fenced)
}

pub(super) fn unfence(
    state: &mut State,
    node: NodeId,
    epoch: BrokerEpoch,
) -> Result<Event, Rejection> {
    if current(state, node, epoch)? == NodeState::Draining {
        let why = "is stopping; it rejoins with a new registration".to_owned();
        return Err(Rejection::BadNodeState { node, why });
    }
    become_(state, node, NodeState::Active)
}

pub(super) fn begin_shutdown(
    state: &mut State,
    node: NodeId,
    epoch: BrokerEpoch,
) -> Result<Event, Rejection> {
    match current(state, node, epoch)? {
        // Nothing depends on it: it may stop as it is.
        NodeState::Fenced => become_(state, node, NodeState::Fenced),
        NodeState::Active | NodeState::Draining => become_(state, node, NodeState::Draining),
    }
}

pub(super) fn unregister(state: &mut State, node: NodeId) -> Result<Event, Rejection> {
    let Some(known) = state.nodes.get(&node) else {
        return Err(Rejection::NodeNotFound { node });
    };
    let held = state.held_by(node);
    let why = if held > 0 {
        format!(
            "still holds {}; first decommission it, or move them away",
            counted(held, "replica")
        )
    } else if known.state != NodeState::Fenced {
        "is alive; stop it first".to_owned()
    } else {
        state.nodes.remove(&node);
        return Ok(Event::NodeUnregistered { node });
    };
    Err(Rejection::BadNodeState { node, why })
}

pub(super) fn set_decommissioning(
    state: &mut State,
    node: NodeId,
    on: bool,
) -> Result<Event, Rejection> {
    let Some(known) = state.nodes.get_mut(&node) else {
        return Err(Rejection::NodeNotFound { node });
    };
    known.decommissioning = on;
    Ok(Event::NodeChanged {
        node,
        state: known.state,
        changed: Vec::new(),
    })
}

/// The state of a node, if `epoch` is its present one.
pub(super) fn current(
    state: &State,
    node: NodeId,
    given: BrokerEpoch,
) -> Result<NodeState, Rejection> {
    let Some(known) = state.nodes.get(&node) else {
        return Err(Rejection::NodeNotFound { node });
    };
    if known.epoch == given || planted::is(Plant::SkipBrokerEpoch) {
        return Ok(known.state);
    }
    let found = known.epoch;
    Err(Rejection::StaleBrokerEpoch { node, found, given })
}

fn become_(state: &mut State, node: NodeId, new: NodeState) -> Result<Event, Rejection> {
    let mut changed = Vec::new();
    if let Some(known) = state.nodes.get_mut(&node)
        && known.state != new
    {
        known.state = new;
        if new == NodeState::Fenced && planted::is(Plant::FenceChangesNothing) {
            let state = new;
            return Ok(Event::NodeChanged {
                node,
                state,
                changed,
            });
        }
        changed = edit_held(state, node, |_, _| None);
    }
    Ok(Event::NodeChanged {
        node,
        state: new,
        changed,
    })
}

/// Brings every partition that `node` holds in order, and names those that changed.
fn edit_held(
    state: &mut State,
    node: NodeId,
    lost: impl Fn(&State, PartitionKey) -> Option<NodeId>,
) -> Vec<PartitionKey> {
    let held = state.index.held.get(&node);
    let held: Vec<PartitionKey> = held.into_iter().flatten().copied().collect();
    let mut changed = Vec::new();
    for at in held {
        let edit = Edit {
            lost: lost(state, at),
            ..Edit::default()
        };
        if state.edit(at, edit, |_| {}) {
            changed.push(at);
        }
    }
    changed
}
