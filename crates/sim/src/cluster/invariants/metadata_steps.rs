//! R1, R7, R10, R14 to R16, R18 and M8, step by step: what one change of the metadata may do to a partition
//! or a node. Says it anew, from the states before and after; asks no rule of the metadata.

use varve_metadata::{Command, Event, NodeState, Partition, PartitionKey, State, features};
use varve_types::{DirectoryId, NodeId, PartitionId};

/// Every partition, as it was and as it is.
pub(in crate::cluster) fn partitions<'a>(
    before: &'a State,
    after: &'a State,
) -> impl Iterator<Item = (PartitionKey, Option<&'a Partition>, &'a Partition)> {
    after.topics().values().flat_map(move |topic| {
        topic.partitions.iter().enumerate().map(move |(n, is)| {
            let key = PartitionKey {
                topic: topic.id,
                partition: PartitionId(n as i32),
            };
            (key, before.partition_at(key), is)
        })
    })
}

fn min_insync(state: &State, key: PartitionKey, partition: &Partition) -> usize {
    let topic = state.topic_by_id(key.topic).map(|(_, t)| t);
    topic.map_or(1, |t| t.min_insync_replicas(partition))
}

pub(in crate::cluster) fn check(
    before: &State,
    after: &State,
    command: &Command,
    made: &Event,
) -> Result<(), String> {
    nodes(before, after)?;
    alteration(before, command)?;
    for (key, was, is) in partitions(before, after) {
        let say = |why: &str| {
            let partition = key.partition;
            format!("{why} in partition {partition}: {was:?} became {is:?} by {command:?}")
        };
        let min = min_insync(after, key, is);
        if is.elr.iter().any(|n| is.isr.contains(n)) || (!is.elr.is_empty() && is.isr.len() >= min)
        {
            return Err(say("R14: eligible replicas beside enough in sync"));
        }
        let Some(was) = was else { continue };
        epochs(was, is).map_err(say)?;
        election(was, is, made).map_err(say)?;
        movement(was, is, (command, after.level(), min)).map_err(say)?;
        loss(before, key, is, command).map_err(say)?;
        let mut held = was.isr.iter().chain(&was.elr);
        let away = held.all(|n| !is.isr.contains(n) && !is.elr.contains(n));
        let unclean = matches!(made, Event::UncleanLeaderElected { .. });
        // What it registers with may be empty; whom a leader takes in has caught up with it.
        let lost = matches!(
            command,
            Command::RegisterNode { .. } | Command::AlterPartition { .. }
        );
        let some = !was.isr.is_empty() || !was.elr.is_empty();
        if some && away && !unclean && !lost {
            return Err(say(
                "R18: no replica is left that held the committed records",
            ));
        }
    }
    Ok(())
}

/// R1, R7: epochs grow with what they count.
fn epochs(was: &Partition, is: &Partition) -> Result<(), &'static str> {
    let elected = is.leader != was.leader;
    if is.leader_epoch < was.leader_epoch || is.partition_epoch < was.partition_epoch {
        return Err("R1: an epoch went back");
    }
    if elected && is.leader_epoch == was.leader_epoch {
        return Err("R1: another leader in the same epoch");
    }
    if is != was && is.partition_epoch == was.partition_epoch {
        return Err("R7: a change that the partition epoch does not count");
    }
    Ok(())
}

/// R15: whoever begins to lead held everything, unless somebody asked for an unclean election of a partition
/// that nobody led.
fn election(was: &Partition, is: &Partition, made: &Event) -> Result<(), &'static str> {
    let Some(leader) = is.leader.filter(|_| is.leader != was.leader) else {
        return Ok(());
    };
    if matches!(made, Event::UncleanLeaderElected { .. }) {
        return match (
            was.leader,
            is.elr.is_empty(),
            is.unclean_epoch == Some(is.leader_epoch),
        ) {
            (Some(_), ..) => Err("R15: an unclean election although there was a leader"),
            (None, false, _) => Err("R14: eligible beside an unclean leader"),
            (None, true, false) => Err("R11: an unclean election that was not announced"),
            (None, true, true) => Ok(()),
        };
    }
    // Whom this very change brings in sync may lead.
    if was.isr.contains(&leader) || was.elr.contains(&leader) || !was.isr.is_empty() {
        return Ok(());
    }
    Err("R15: a leader that was neither in sync nor eligible")
}

/// R18: a move ends when its targets are in sync, and takes nothing from what is committed.
fn movement(
    was: &Partition,
    is: &Partition,
    (command, level, min): (&Command, u16, usize),
) -> Result<(), &'static str> {
    let asked = matches!(command, Command::Reassign { .. });
    let holds = |n: &NodeId| is.isr.contains(n) || is.elr.contains(n);
    if was.is_reassigning() && !is.is_reassigning() && !asked && !is.replicas.iter().all(holds) {
        return Err("R18: a move ends before its targets are in sync");
    }
    // Before that level one to stopping replicas takes the leader, and those in sync are eligible.
    let left = is.isr.len() + is.leader.map_or(is.elr.len(), |_| 0);
    if asked && was.isr.len() >= min && left < min {
        return Err("R18: a move leaves fewer in sync than commits need");
    }
    let gone = was.leader.is_some() && is.leader.is_none();
    if asked && gone && level >= features::MOVES_END_LED {
        return Err("R18: a move takes the leader and leaves none");
    }
    Ok(())
}

/// R10, R16: what has lost something is neither in sync nor eligible.
fn loss(
    before: &State,
    key: PartitionKey,
    is: &Partition,
    command: &Command,
) -> Result<(), &'static str> {
    let counts = |n: &NodeId| is.isr.contains(n) || is.elr.contains(n);
    match command {
        Command::RegisterNode {
            node, directory, ..
        } => {
            let disk = before.node(*node).map(|n| n.directory);
            let other = disk.is_some_and(|d| d != *directory && d != DirectoryId::UNKNOWN);
            if other && counts(node) {
                return Err("R16: an empty disk counts");
            }
        }
        Command::GiveUpReplica {
            node,
            topic_id,
            partition,
            ..
        } if (key.topic, key.partition) == (*topic_id, *partition) && counts(node) => {
            return Err("R10: a replica that was given up counts");
        }
        _ => {}
    }
    Ok(())
}

/// R7: an ISR change that was made named everything as it was.
fn alteration(before: &State, command: &Command) -> Result<(), String> {
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
        return Ok(());
    };
    let key = PartitionKey {
        topic: *topic_id,
        partition: *partition,
    };
    let epoch = |n: &NodeId| before.node(*n).map(|n| n.epoch);
    let same = before.partition_at(key).is_some_and(|p| {
        let led = (p.leader, p.leader_epoch) == (Some(*leader), *leader_epoch);
        led && p.partition_epoch == *partition_epoch && epoch(leader) == Some(*broker_epoch)
    });
    let runs = isr.iter().all(|(n, e)| epoch(n) == Some(*e));
    match same && runs {
        true => Ok(()),
        false => Err(format!("R7: made although out of date: {command:?}")),
    }
}

/// M8: the id of a node that lives is not another's, and each run has an epoch of its own.
fn nodes(before: &State, after: &State) -> Result<(), String> {
    for (id, was) in before.nodes() {
        let Some(is) = after.node(*id) else { continue };
        let same = (was.incarnation, was.directory) == (is.incarnation, is.directory);
        if !same && is.epoch <= was.epoch {
            return Err(format!("M8: two runs of node {id} in epoch {}", is.epoch));
        }
        let stopped = was.state == NodeState::Draining && was.directory == is.directory;
        if !same && was.state != NodeState::Fenced && !stopped {
            return Err(format!("M8: the id of node {id}, which lives, was taken"));
        }
    }
    Ok(())
}
