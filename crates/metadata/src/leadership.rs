//! Who is in sync, who is eligible, and who leads: the one place that decides it (KIP-841, KIP-966).
//!
//! Every change of a partition or of a node that holds it is an edit followed by [`settle`]. Invariants
//! that it brings about, whatever the edit was:
//! - no fenced or unknown node is in sync; nobody who is stopping is in sync where enough others are;
//! - the leader is in sync and active; one that is stopping goes on leading only while no other can;
//! - without a leader nobody is in sync, and everybody who was is eligible: without a leader nothing is
//!   committed, so each of them holds everything that ever will have been;
//! - nobody is eligible while `min.insync.replicas` are in sync: commits go on without those who left;
//! - a move ends when every target replica is in sync and one of them can lead, and not before (below feature
//!   level 3: when every one is in sync, even if all of them are stopping).

use std::collections::BTreeMap;

use varve_types::{LeaderEpoch, NodeId};

use crate::features::MOVES_END_LED;
use crate::planted::{self, Plant};
use crate::state::{Node, NodeState, Partition};

/// What an edit is, beside what it changed in the partition.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Edit {
    /// A replica that may lack committed records: neither in sync nor eligible.
    pub(crate) lost: Option<NodeId>,
    /// The leader begins a new epoch even if it stays the same: what followers were seen to have is void.
    pub(crate) new_epoch: bool,
    /// The partition epoch grows even if nothing else changes.
    pub(crate) touch: bool,
    /// An operator chose a leader that may lack records: what others have beyond it is void.
    pub(crate) unclean: bool,
}

/// What the state says about the ground a partition stands on.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) nodes: &'a BTreeMap<NodeId, Node>,
    /// `min.insync.replicas` of the topic.
    pub(crate) min_insync: usize,
    /// Feature level of the cluster.
    pub(crate) level: u16,
}

impl Ground<'_> {
    pub(crate) fn is(&self, node: NodeId, state: NodeState) -> bool {
        self.nodes.get(&node).is_some_and(|n| n.state == state)
    }

    pub(crate) fn active(&self, node: NodeId) -> bool {
        self.is(node, NodeState::Active)
    }

    fn alive(&self, node: NodeId) -> bool {
        let fenced = planted::is(Plant::FencedInSync) && self.is(node, NodeState::Fenced);
        self.active(node) || self.is(node, NodeState::Draining) || fenced
    }

    /// In-sync replicas that are needed to commit: no more than the partition has when nothing moves.
    pub(crate) fn min(&self, partition: &Partition) -> usize {
        effective_min(self.min_insync, partition)
    }
}

/// `min.insync.replicas` for this partition. Replicas that are being added do not raise it.
pub(crate) fn effective_min(configured: usize, partition: &Partition) -> usize {
    let settled = partition.replicas.len() - partition.adding.len();
    configured.min(settled).max(1)
}

/// Who could lead `partition` without losing anything: the first active replica in sync, else the first
/// active one that is eligible. Also whether it is in sync.
pub(crate) fn candidate(
    ground: &Ground<'_>,
    replicas: &[NodeId],
    isr: &[NodeId],
    elr: &[NodeId],
) -> Option<NodeId> {
    let first = |among: &[NodeId]| {
        let mut replicas = replicas.iter().copied();
        replicas.find(|n| among.contains(n) && ground.active(*n))
    };
    let anyone = || first(replicas).filter(|_| planted::is(Plant::ElectAnyone));
    first(isr).or_else(|| first(elr)).or_else(anyone)
}

/// Brings an edited partition in order. `before` is what it was before the edit.
pub(crate) fn settle(before: &Partition, p: &mut Partition, ground: &Ground<'_>, edit: Edit) {
    let allowed = |n: &NodeId, p: &Partition| p.replicas.contains(n) && edit.lost != Some(*n);
    let mut eligible: Vec<NodeId> = Vec::new();
    if !edit.unclean || planted::is(Plant::UncleanKeepsEligible) {
        eligible.extend(before.isr.iter().chain(&before.elr).chain(&p.isr));
    }
    let mut isr = std::mem::take(&mut p.isr);
    isr.retain(|n| allowed(n, p) && ground.alive(*n));
    let active: Vec<NodeId> = isr.iter().copied().filter(|n| ground.active(*n)).collect();
    if active.len() >= ground.min(p) {
        isr = active;
    }
    if p.is_reassigning() && move_is_over(p, &isr, ground) {
        p.replicas = p.target();
        p.adding.clear();
        p.removing.clear();
        isr.retain(|n| p.replicas.contains(n));
    }
    let min = ground.min(p);
    let whole = |n: &NodeId| allowed(n, p) || planted::is(Plant::LostIsEligible);
    eligible.retain(|n| p.replicas.contains(n) && whole(n));
    eligible.sort_unstable();
    eligible.dedup();
    let may_lead = if isr.len() < min { &eligible[..] } else { &[] };
    let keeps = |n: &NodeId| isr.contains(n);
    let elected = p
        .leader
        .filter(|n| keeps(n) && ground.active(*n))
        .or_else(|| candidate(ground, &p.replicas, &isr, may_lead))
        .or_else(|| p.leader.filter(keeps));
    // An epoch is never used twice: a partition that has used up its epochs stays without a leader.
    let changes = elected != before.leader || edit.new_epoch;
    p.leader = elected.filter(|_| !changes || before.leader_epoch.get() < i32::MAX - 1);
    match p.leader {
        Some(leader) if !isr.contains(&leader) => isr = vec![leader],
        Some(_) => {}
        None => {
            if planted::is(Plant::LeaderlessForgets) {
                eligible.retain(|n| before.elr.contains(n));
            }
            isr.clear();
        }
    }
    isr.sort_unstable();
    let enough = isr.len() >= min;
    let none = enough && !planted::is(Plant::EligibleBesideEnough);
    p.elr = if none { Vec::new() } else { eligible };
    p.elr.retain(|n| !isr.contains(n));
    p.isr = isr;
    let elects = p.leader != before.leader && !planted::is(Plant::NoEpochOnElection);
    p.leader_epoch = match elects || edit.new_epoch {
        true => LeaderEpoch::new(before.leader_epoch.get().saturating_add(1))
            .unwrap_or(before.leader_epoch),
        false => before.leader_epoch,
    };
    if edit.unclean && p.leader.is_some() && !planted::is(Plant::UncleanUntold) {
        p.unclean_epoch = Some(p.leader_epoch);
    }
    p.partition_epoch = before.partition_epoch;
    if *p != *before || edit.touch {
        p.partition_epoch = before.partition_epoch.saturating_add(1);
    }
}

/// Whether what a move adds can do without what it removes. Where all of its targets are stopping, the leader
/// would go with the move, and nobody could take over.
fn move_is_over(p: &Partition, isr: &[NodeId], ground: &Ground<'_>) -> bool {
    let target = p.target();
    let can_lead = |n: &NodeId| isr.contains(n) && ground.active(*n);
    let unled = ground.level < MOVES_END_LED || planted::is(Plant::MoveEndsUnled);
    let led = unled || target.iter().any(can_lead);
    if planted::is(Plant::MoveEndsEarly) {
        return target.iter().any(|n| isr.contains(n));
    }
    led && target.iter().all(|n| isr.contains(n))
}

/// What must hold of a partition by itself and with its nodes.
pub(crate) fn check(p: &Partition, ground: &Ground<'_>) -> Result<(), String> {
    let ascending = |v: &[NodeId]| v.windows(2).all(|w| w[0] < w[1]);
    if p.replicas.is_empty() || !distinct(&p.replicas) {
        return Err("its replicas are not one or more distinct nodes".to_owned());
    }
    if let Some(node) = p.replicas.iter().find(|n| !ground.nodes.contains_key(n)) {
        return Err(format!("replica {node} is not a known node"));
    }
    for (what, list) in [
        ("in sync", &p.isr),
        ("eligible", &p.elr),
        ("being added", &p.adding),
        ("being removed", &p.removing),
    ] {
        if !ascending(list) {
            return Err(format!(
                "the replicas {what} are not distinct and ascending"
            ));
        }
        if let Some(node) = list.iter().find(|n| !p.replicas.contains(n)) {
            return Err(format!("node {node} is {what} but is not a replica"));
        }
    }
    if p.adding.iter().any(|n| p.removing.contains(n)) || p.adding.len() == p.replicas.len() {
        return Err(
            "the replicas being added and removed overlap, or are all there are".to_owned(),
        );
    }
    if p.is_reassigning() && p.target().is_empty() {
        return Err("every replica is being removed".to_owned());
    }
    match p.leader {
        Some(leader) if !p.isr.contains(&leader) => {
            return Err(format!("leader {leader} is not among the in-sync replicas"));
        }
        None if !p.isr.is_empty() => return Err("replicas are in sync without a leader".to_owned()),
        _ => {}
    }
    if let Some(node) = p.isr.iter().find(|n| !ground.alive(**n)) {
        return Err(format!("node {node} is in sync and fenced"));
    }
    if let Some(node) = p.elr.iter().find(|n| p.isr.contains(n)) {
        return Err(format!("node {node} is in sync and eligible"));
    }
    let beside = planted::is(Plant::EligibleBesideEnough);
    if !p.elr.is_empty() && p.isr.len() >= ground.min(p) && !beside {
        return Err("replicas are eligible although enough are in sync".to_owned());
    }
    if p.unclean_epoch
        .is_some_and(|unclean| unclean > p.leader_epoch)
    {
        return Err(format!(
            "epoch {:?} started uncleanly and lies in the future",
            p.unclean_epoch
        ));
    }
    if p.partition_epoch < 0 {
        return Err(format!("its partition epoch is {}", p.partition_epoch));
    }
    Ok(())
}

/// Whether no node is there twice.
pub(crate) fn distinct(nodes: &[NodeId]) -> bool {
    (1..nodes.len()).all(|i| !nodes[..i].contains(&nodes[i]))
}
