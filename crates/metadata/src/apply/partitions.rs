//! In-sync replicas, elections and moves of one partition (KIP-497, KIP-966, KIP-455).

use std::cmp::Ordering;

use varve_types::text::counted;
use varve_types::{BrokerEpoch, NodeId, PartitionId, TopicId, TopicName, limits};

use super::nodes::current;
use crate::command::{Election, PartitionKey};
use crate::leadership::{Edit, Ground, distinct};
use crate::planted::{self, Plant};
use crate::state::{NodeState, Partition, State};
use crate::{Command, Event, Rejection};

/// A partition that a command names, as it is before the command.
struct Found {
    name: TopicName,
    at: PartitionKey,
    partition: Partition,
    min_insync: usize,
}

impl Found {
    fn bad_isr(&self, why: String) -> Rejection {
        Rejection::BadIsr {
            name: self.name.clone(),
            partition: self.at.partition,
            why,
        }
    }

    fn not_electable(&self, why: String) -> Rejection {
        Rejection::NotElectable {
            name: self.name.clone(),
            partition: self.at.partition,
            why,
        }
    }

    fn bad_move(&self, why: String) -> Rejection {
        Rejection::BadReassignment {
            name: self.name.clone(),
            partition: self.at.partition,
            why,
        }
    }
}

fn find(state: &State, id: TopicId, partition: PartitionId) -> Result<Found, Rejection> {
    let Some((name, topic)) = state.topic_by_id(id) else {
        return Err(Rejection::TopicIdNotFound { id });
    };
    let name = name.clone();
    let Some(found) = topic.partition(partition) else {
        let partitions = topic.partition_count();
        return Err(Rejection::PartitionNotFound {
            name,
            partition,
            partitions,
        });
    };
    if found.partition_epoch == i32::MAX {
        return Err(Rejection::Exhausted {
            what: "the epochs of the partition",
        });
    }
    let topic = id;
    Ok(Found {
        name,
        at: PartitionKey { topic, partition },
        partition: found.clone(),
        min_insync: state.topic_by_id(id).map_or(1, |(_, t)| t.rules.min_insync),
    })
}

/// A leader asks for other in-sync replicas.
pub(super) fn alter(state: &mut State, command: Command) -> Result<Event, Rejection> {
    let Command::AlterPartition {
        topic_id,
        partition,
        leader,
        leader_epoch,
        partition_epoch,
        isr,
        broker_epoch,
    } = command
    else {
        unreachable!("called with an AlterPartition");
    };
    let found = find(state, topic_id, partition)?;
    current(state, leader, broker_epoch)?;
    let (name, is) = (found.name.clone(), &found.partition);
    let stale = planted::is(Plant::AcceptStaleAlter);
    match leader_epoch.get().cmp(&is.leader_epoch.get()) {
        Ordering::Less if !stale => {
            return Err(Rejection::FencedLeaderEpoch {
                name,
                partition,
                found: is.leader_epoch,
                given: leader_epoch,
            });
        }
        Ordering::Greater => {
            return Err(Rejection::UnknownLeaderEpoch {
                name,
                partition,
                found: is.leader_epoch,
                given: leader_epoch,
            });
        }
        Ordering::Less | Ordering::Equal => {}
    }
    if is.leader != Some(leader) && !stale {
        return Err(Rejection::NotLeader {
            name,
            partition,
            leader: is.leader,
            given: leader,
        });
    }
    let unchecked = stale || planted::is(Plant::SkipPartitionEpoch);
    if partition_epoch != is.partition_epoch && !unchecked {
        return Err(Rejection::StalePartitionEpoch {
            name,
            partition,
            found: is.partition_epoch,
            given: partition_epoch,
        });
    }
    let mut nodes: Vec<NodeId> = isr.iter().map(|(n, _)| *n).collect();
    nodes.sort_unstable();
    if !distinct(&nodes) {
        return Err(found.bad_isr("a node is named twice".to_owned()));
    }
    if !nodes.contains(&leader) {
        return Err(found.bad_isr(format!("leader {leader} is not among them")));
    }
    for (node, epoch) in &isr {
        if !is.replicas.contains(node) {
            return Err(found.bad_isr(format!("node {node} is not a replica")));
        }
        check_eligible(state, &found, *node, *epoch)?;
    }
    // Even the same replicas count as a change: a leader proposes them to make sure that what it proposed
    // before, and what may still be on its way, is out of date.
    let edit = Edit {
        touch: true,
        ..Edit::default()
    };
    state.edit(found.at, edit, |p| p.isr = nodes);
    changed(state, found.at)
}

/// Whether `node` in `epoch` may be in sync. One that is stopping may stay, and is not let in.
fn check_eligible(
    state: &State,
    found: &Found,
    node: NodeId,
    epoch: BrokerEpoch,
) -> Result<(), Rejection> {
    let epoch = match state.node(node) {
        Some(known) if planted::is(Plant::AcceptStaleReplica) => known.epoch,
        _ => epoch,
    };
    let why = match current(state, node, epoch) {
        Ok(NodeState::Active) => return Ok(()),
        Ok(NodeState::Draining) if planted::is(Plant::AcceptStopping) => return Ok(()),
        Ok(NodeState::Fenced) if planted::is(Plant::FencedInSync) => return Ok(()),
        Ok(NodeState::Draining) if found.partition.isr.contains(&node) => return Ok(()),
        Ok(NodeState::Draining) => "it is stopping".to_owned(),
        Ok(NodeState::Fenced) => "it is fenced".to_owned(),
        Err(rejection) => rejection.to_string(),
    };
    Err(Rejection::IneligibleReplica {
        name: found.name.clone(),
        partition: found.at.partition,
        node,
        why,
    })
}

/// An election that somebody asked for.
pub(super) fn elect(
    state: &mut State,
    topic_id: TopicId,
    partition: PartitionId,
    how: Election,
) -> Result<Event, Rejection> {
    let found = find(state, topic_id, partition)?;
    let is = &found.partition;
    let node = match how {
        Election::Preferred => is.preferred_leader(),
        Election::Clean(Some(node)) | Election::Unclean(node) => Some(node),
        Election::Clean(None) => is.leader,
    };
    let Some(node) = node else {
        let eligible: Vec<String> = is.elr.iter().map(ToString::to_string).collect();
        return Err(found.not_electable(match &eligible[..] {
            [] => "no replica is known to hold all committed records. If none can be restored, an \
                unclean election makes one of them the leader, and the records it lacks are lost"
                .to_owned(),
            [node] => format!(
                "only node {node} holds all committed records, and it is not active; start it"
            ),
            nodes => format!(
                "only nodes {} hold all committed records, and none of them is active; start one \
                 of them",
                nodes.join(", ")
            ),
        }));
    };
    if is.leader == Some(node) {
        return changed(state, found.at);
    }
    if !is.replicas.contains(&node) {
        return Err(found.not_electable(format!("node {node} is not a replica")));
    }
    let ground = Ground {
        nodes: &state.nodes,
        min_insync: found.min_insync,
        level: state.level,
    };
    if !ground.active(node) {
        return Err(found.not_electable(format!("node {node} is fenced or stopping")));
    }
    if let Election::Unclean(_) = how {
        if let Some(leader) = is.leader.filter(|_| !planted::is(Plant::UncleanOverLeader)) {
            return Err(found.not_electable(format!(
                "node {leader} already leads it; an unclean election is only for partitions \
                 without a leader"
            )));
        }
        let edit = Edit {
            unclean: true,
            ..Edit::default()
        };
        state.edit(found.at, edit, |p| {
            p.isr = vec![node];
            p.leader = Some(node);
        });
        return changed(state, found.at).map(|event| match event {
            Event::PartitionChanged {
                at,
                leader: Some(leader),
                leader_epoch,
                partition_epoch,
            } => Event::UncleanLeaderElected {
                at,
                leader,
                leader_epoch,
                partition_epoch,
            },
            other => other,
        });
    }
    if !is.isr.contains(&node) {
        return Err(found.not_electable(format!("node {node} is not in sync")));
    }
    state.edit(found.at, Edit::default(), |p| p.leader = Some(node));
    changed(state, found.at)
}

/// A move begins, is replaced by another, or is cancelled.
pub(super) fn reassign(
    state: &mut State,
    topic_id: TopicId,
    partition: PartitionId,
    target: Option<Vec<NodeId>>,
) -> Result<Event, Rejection> {
    let found = find(state, topic_id, partition)?;
    let is = &found.partition;
    let mut new = is.clone();
    let old: Vec<NodeId> = is
        .replicas
        .iter()
        .filter(|n| !is.adding.contains(n))
        .copied()
        .collect();
    if let Some(target) = target {
        check_target(state, &found, &target)?;
        let without = |all: &[NodeId], these: &[NodeId]| -> Vec<NodeId> {
            let mut rest: Vec<_> = all.iter().filter(|n| !these.contains(n)).copied().collect();
            rest.sort_unstable();
            rest
        };
        new.adding = without(&target, &old);
        new.removing = without(&old, &target);
        let stay = old.iter().filter(|n| !target.contains(n));
        new.replicas = target.iter().chain(stay).copied().collect();
    } else {
        if !is.is_reassigning() {
            return Err(found.bad_move("it has no reassignment that could be cancelled".to_owned()));
        }
        new.replicas = old;
        new.adding.clear();
        new.removing.clear();
    }
    // Those that an earlier move was adding leave at once: not if committed records would be too few.
    let leaves = |n: &&NodeId| !new.replicas.contains(n);
    let holds = |n: &&NodeId| is.isr.contains(n) || is.elr.contains(n);
    let lost = is.adding.iter().filter(leaves).find(holds);
    let ground = Ground {
        nodes: &state.nodes,
        min_insync: found.min_insync,
        level: state.level,
    };
    let remain = is.isr.iter().filter(|n| new.replicas.contains(n)).count();
    if let Some(node) = lost
        && remain < ground.min(&new)
        && !planted::is(Plant::MoveDropsHolders)
    {
        return Err(found.bad_move(format!(
            "node {node} holds committed records, and without it only {} would be left, fewer than \
             min.insync.replicas; wait until others are in sync, or keep it",
            counted(remain, "in-sync replica")
        )));
    }
    state.edit(found.at, Edit::default(), |p| {
        p.replicas = new.replicas;
        p.adding = new.adding;
        p.removing = new.removing;
    });
    changed(state, found.at)
}

fn check_target(state: &State, found: &Found, target: &[NodeId]) -> Result<(), Rejection> {
    let most = limits::REPLICATION_FACTOR_MAX;
    if target.is_empty() || target.len() > most as usize || !distinct(target) {
        return Err(found.bad_move(format!("it needs 1 to {most} distinct nodes")));
    }
    for node in target {
        let Some(known) = state.nodes.get(node) else {
            return Err(found.bad_move(format!("node {node} is unknown")));
        };
        if found.partition.replicas.contains(node) {
            continue;
        }
        if known.decommissioning {
            return Err(found.bad_move(format!("node {node} is being emptied")));
        }
        let (held, max) = (state.held_by(*node) + 1, limits::PARTITIONS_PER_NODE_MAX);
        if held > max {
            let (node, found) = (*node, held);
            return Err(Rejection::NodeFull { node, found, max });
        }
    }
    Ok(())
}

/// A replica may lack what it had. The leader begins a new epoch, so that what it saw of that replica
/// before cannot bring it back in sync.
pub(super) fn replica_lost(
    state: &mut State,
    node: NodeId,
    epoch: BrokerEpoch,
    (topic_id, partition): (TopicId, PartitionId),
) -> Result<Event, Rejection> {
    let found = find(state, topic_id, partition)?;
    current(state, node, epoch)?;
    if !found.partition.replicas.contains(&node) {
        let why = format!("holds no replica of {}:{partition}", found.name);
        return Err(Rejection::BadNodeState { node, why });
    }
    let edit = Edit {
        lost: Some(node),
        new_epoch: true,
        touch: true,
        ..Edit::default()
    };
    state.edit(found.at, edit, |_| {});
    changed(state, found.at)
}

/// A damaged replica gives way to those that are whole, as long as there is one.
pub(super) fn give_up(
    state: &mut State,
    node: NodeId,
    epoch: BrokerEpoch,
    (topic_id, partition): (TopicId, PartitionId),
) -> Result<Event, Rejection> {
    let found = find(state, topic_id, partition)?;
    if !found.partition.has_others(node) && !planted::is(Plant::GiveUpLast) {
        return Err(Rejection::LastReplica {
            name: found.name,
            partition,
            node,
        });
    }
    replica_lost(state, node, epoch, (topic_id, partition))
}

fn changed(state: &State, at: PartitionKey) -> Result<Event, Rejection> {
    let Some(p) = state.partition_at(at) else {
        return Err(Rejection::TopicIdNotFound { id: at.topic });
    };
    Ok(Event::PartitionChanged {
        at,
        leader: p.leader,
        leader_epoch: p.leader_epoch,
        partition_epoch: p.partition_epoch,
    })
}
