//! The one function that changes a state. A rejection leaves it untouched: everything is checked before
//! anything is written.

mod configs;
mod nodes;
mod partitions;
mod topics;

use std::collections::BTreeMap;

use varve_types::{ProducerId, limits};

use crate::features::KNOWN_LEVEL;
use crate::state::State;
use crate::{Command, Event, Rejection, snapshot};

/// Most named producers of a cluster.
const NAMED_PRODUCERS_MAX: usize = 100_000;
/// Most configs or labels of one topic, and the longest text among them in bytes.
const TEXTS_MAX: usize = 64;
const TEXT_MAX_BYTES: usize = 4096;

/// Applies one command.
///
/// # Errors
/// Why it was refused; the state is as it was. After one that [`Rejection::is_fatal`] the node must stop.
///
/// # Panics
/// When the new state breaks an invariant: a bug of ours.
pub fn apply(state: &mut State, command: Command) -> Result<Event, Rejection> {
    let needed = command.level();
    if needed > state.level {
        let level = state.level;
        return Err(Rejection::LevelNotReached { needed, level });
    }
    let event = match command {
        command @ Command::RegisterNode { .. } => nodes::register(state, command),
        Command::FenceNode { node, epoch } => nodes::fence(state, node, epoch),
        Command::UnfenceNode { node, epoch } => nodes::unfence(state, node, epoch),
        Command::BeginShutdown { node, epoch } => nodes::begin_shutdown(state, node, epoch),
        Command::UnregisterNode { node } => nodes::unregister(state, node),
        Command::SetDecommissioning { node, on } => nodes::set_decommissioning(state, node, on),
        Command::CreateTopic(topic) => topics::create(state, topic),
        Command::DeleteTopic { name, id } => topics::delete(state, name, id),
        Command::AddPartitions {
            name,
            total,
            placement,
        } => topics::add_partitions(state, name, total, &placement),
        Command::SetTopicConfigs { name, configs } => topics::set_configs(state, name, configs),
        command @ Command::AlterPartition { .. } => partitions::alter(state, command),
        Command::ElectLeader {
            topic_id,
            partition,
            how,
        } => partitions::elect(state, topic_id, partition, how),
        Command::Reassign {
            topic_id,
            partition,
            target,
        } => partitions::reassign(state, topic_id, partition, target),
        Command::ReplicaLost {
            node,
            epoch,
            topic_id,
            partition,
        } => partitions::replica_lost(state, node, epoch, (topic_id, partition)),
        Command::GiveUpReplica {
            node,
            epoch,
            topic_id,
            partition,
        } => partitions::give_up(state, node, epoch, (topic_id, partition)),
        Command::FinalizeFeature { level } => finalize(state, level),
        Command::CheckState { version, checksum } => check(state, version, checksum),
        Command::AllocateProducerIds { count } => allocate(state, count),
        Command::BumpProducerEpoch { name } => bump_producer(state, name),
    }?;
    state.version += 1;
    debug_assert_eq!(state.check(), Ok(()), "every command keeps the invariants");
    Ok(event)
}

fn finalize(state: &mut State, given: u16) -> Result<Event, Rejection> {
    let bad = |why: String| Rejection::BadFeatureLevel { given, why };
    if given < state.level {
        return Err(bad(format!(
            "the cluster is at {}, and levels can only be raised",
            state.level
        )));
    }
    if state.nodes.is_empty() {
        return Err(bad("no registered node supports it".to_owned()));
    }
    let unable = |(_, n): &(_, &crate::Node)| !n.features.contains(given);
    if let Some((id, node)) = state.nodes.iter().find(unable) {
        return Err(bad(format!(
            "node {id} (version {}) supports levels {} to {}; upgrade or unregister it first",
            node.version, node.features.min, node.features.max
        )));
    }
    if given > KNOWN_LEVEL {
        let known = KNOWN_LEVEL;
        return Err(Rejection::BeyondThisProgram { given, known });
    }
    state.level = given;
    Ok(Event::FeatureFinalized { level: given })
}

fn check(state: &State, version: u64, given: u32) -> Result<Event, Rejection> {
    let compared = state.version == version;
    if compared {
        let found = snapshot::checksum(state);
        if found != given {
            return Err(Rejection::Diverged {
                version,
                given,
                found,
            });
        }
    }
    Ok(Event::StateChecked { compared })
}

fn allocate(state: &mut State, count: u32) -> Result<Event, Rejection> {
    range(
        "the number of producer ids",
        count.into(),
        1,
        u32::MAX.into(),
    )?;
    let first = state.next_producer_id();
    let Some(next) = first.checked_add(count.into()) else {
        return Err(Rejection::Exhausted {
            what: "producer ids",
        });
    };
    state.next_producer_id = next;
    Ok(Event::ProducerIdsAllocated { first, count })
}

fn bump_producer(state: &mut State, name: String) -> Result<Event, Rejection> {
    if name.is_empty() || name.len() > limits::NAME_MAX_BYTES {
        let why = format!(
            "it has {} bytes; it must have 1 to {}",
            name.len(),
            limits::NAME_MAX_BYTES
        );
        return Err(Rejection::BadText {
            what: "the name of a producer",
            why,
        });
    }
    let known = state.producers.get(&name).copied();
    if known.is_none() && state.producers.len() >= NAMED_PRODUCERS_MAX {
        return Err(Rejection::Exhausted {
            what: "the names of producers",
        });
    }
    let producer = match known {
        Some(ProducerId { id, epoch }) if epoch < i16::MAX => ProducerId {
            id,
            epoch: epoch + 1,
        },
        // New, or its epochs are used up: an id of its own from the start.
        _ => {
            let id = state.next_producer_id();
            let next = id.checked_add(1).ok_or(Rejection::Exhausted {
                what: "producer ids",
            })?;
            state.next_producer_id = next;
            ProducerId { id, epoch: 0 }
        }
    };
    state.producers.insert(name, producer);
    Ok(Event::ProducerEpochBumped { producer })
}

fn range(what: &'static str, found: i64, min: i64, max: i64) -> Result<(), Rejection> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(Rejection::OutOfRange {
        what,
        found,
        min,
        max,
    })
}

fn text(what: &'static str, value: &str, min: usize) -> Result<(), Rejection> {
    if (min..=TEXT_MAX_BYTES).contains(&value.len()) {
        return Ok(());
    }
    let why = format!(
        "it has {} bytes; it must have {min} to {TEXT_MAX_BYTES}",
        value.len()
    );
    Err(Rejection::BadText { what, why })
}

fn check_texts(what: &'static str, texts: &BTreeMap<String, String>) -> Result<(), Rejection> {
    if texts.len() > TEXTS_MAX {
        let why = format!("there are {}; at most {TEXTS_MAX} are allowed", texts.len());
        return Err(Rejection::BadText { what, why });
    }
    texts
        .iter()
        .try_for_each(|(k, v)| text(what, k, 1).and_then(|()| text(what, v, 0)))
}
