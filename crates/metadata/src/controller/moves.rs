//! Which replicas move: away from nodes that are being emptied, and from full nodes to empty ones. A move
//! is one replica of one partition for another; the rest of the partition stays as it is.
//!
//! Invariants: no more than a given number of partitions move at once, those that people move among them;
//! a move never leaves a partition in fewer racks; load is counted as it will be when the moves are over; a
//! partition is not moved for balance while one of its replicas is out of sync, since that move might never end;
//! a move whose end would be on a node that is being emptied is given another end, however many are under way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use varve_types::{NodeId, limits};

use super::ControllerConfig;
use crate::command::{Command, PartitionKey};
use crate::state::{Node, Partition, State};

/// How far a node is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Partitions it still holds.
    pub left: usize,
    /// Of these, how many are on the move.
    pub moving: usize,
    /// Nodes that can take replicas. With none, or no more than each partition has replicas, nothing moves.
    pub usable: usize,
}

impl Progress {
    /// How far `node` is emptied. Looks at every partition that it holds.
    #[must_use]
    pub fn of(state: &State, node: NodeId) -> Self {
        let held = state.index.held.get(&node);
        let moving = held.into_iter().flatten();
        Self {
            left: state.held_by(node),
            moving: moving.filter(|at| state.reassigning().contains(at)).count(),
            usable: usable(state).count(),
        }
    }

    /// Whether the node may be stopped and unregistered.
    #[must_use]
    pub const fn done(&self) -> bool {
        self.left == 0
    }
}

/// Where the search goes on, so that what cannot move does not hide what can.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursor {
    from: Option<PartitionKey>,
    node: Option<NodeId>,
}

fn usable(state: &State) -> impl Iterator<Item = NodeId> {
    let nodes = state.nodes().iter();
    nodes.filter(|(_, n)| n.takes_replicas()).map(|(id, _)| *id)
}

/// Whether there is anything to move, now or when other moves are over.
pub(super) fn wanted(state: &State, config: &ControllerConfig) -> bool {
    let emptied = |(id, n): (&NodeId, &Node)| n.decommissioning && state.held_by(*id) > 0;
    state.nodes().iter().any(emptied)
        || !state.reassigning().is_empty()
        || config.balance_replicas && lopsided(&loads(state)).is_some()
}

/// Load of each usable node when all moves are over.
fn loads(state: &State) -> BTreeMap<NodeId, usize> {
    let mut loads: BTreeMap<_, _> = usable(state).map(|n| (n, state.held_by(n))).collect();
    for at in state.reassigning() {
        for node in state.partition_at(*at).map_or(&[][..], |p| &p.removing) {
            if let Some(load) = loads.get_mut(node) {
                *load = load.saturating_sub(1);
            }
        }
    }
    loads
}

/// The fullest and the emptiest node, if they are too far apart: more than a tenth of the mean, and at
/// least two partitions, so that a move never asks for another one back.
fn lopsided(loads: &BTreeMap<NodeId, usize>) -> Option<(NodeId, NodeId)> {
    let (full, most) = loads
        .iter()
        .max_by_key(|(id, n)| (**n, std::cmp::Reverse(**id)))?;
    let (empty, least) = loads.iter().min_by_key(|(id, n)| (**n, **id))?;
    let mean = loads.values().sum::<usize>() / loads.len();
    (most - least >= (mean / 10).max(2)).then_some((*full, *empty))
}

/// Adds the moves that are due to the plan.
pub(super) fn plan(
    state: &State,
    config: &ControllerConfig,
    cursor: &mut Cursor,
    plan: &mut Vec<Command>,
) {
    let mut free = config
        .moves_at_once
        .saturating_sub(state.reassigning().len());
    let mut work = Work {
        state,
        loads: loads(state),
        chosen: BTreeSet::new(),
        looked: config.looked_at_per_plan,
    };
    let emptied: Vec<NodeId> = state
        .nodes()
        .iter()
        .filter(|(id, n)| n.decommissioning && state.held_by(**id) > 0)
        .map(|(id, _)| *id)
        .collect();
    for node in &emptied {
        work.empty(*node, cursor, &mut free, plan);
    }
    if emptied.is_empty() && config.balance_replicas {
        while free > 0
            && let Some((full, empty)) = lopsided(&work.loads)
            && work.level(full, empty, cursor, plan)
        {
            free -= 1;
        }
    }
}

struct Work<'a> {
    state: &'a State,
    loads: BTreeMap<NodeId, usize>,
    chosen: BTreeSet<PartitionKey>,
    looked: usize,
}

impl Work<'_> {
    /// Partitions of `node` behind the cursor, then those before it.
    fn held(&self, node: NodeId, cursor: &mut Cursor) -> Vec<PartitionKey> {
        if cursor.node != Some(node) {
            *cursor = Cursor {
                from: None,
                node: Some(node),
            };
        }
        let Some(all) = self.state.index.held.get(&node) else {
            return Vec::new();
        };
        let behind = match cursor.from {
            Some(from) => all.range((Bound::Excluded(from), Bound::Unbounded)),
            None => all.range(..),
        };
        let before = cursor.from.map(|from| all.range(..=from));
        let all = behind.chain(before.into_iter().flatten());
        all.take(self.looked).copied().collect()
    }

    fn empty(
        &mut self,
        node: NodeId,
        cursor: &mut Cursor,
        free: &mut usize,
        plan: &mut Vec<Command>,
    ) {
        for at in self.held(node, cursor) {
            self.looked = self.looked.saturating_sub(1);
            cursor.from = Some(at);
            let Some((p, moving)) = self.leaving(at, node) else {
                continue;
            };
            if *free == 0 && !moving {
                continue;
            }
            let mut to: Vec<(usize, NodeId)> =
                self.loads.iter().map(|(id, load)| (*load, *id)).collect();
            to.sort_unstable();
            let fits = |(load, id): &&(usize, NodeId)| {
                *load < limits::PARTITIONS_PER_NODE_MAX && !p.replicas.contains(id)
            };
            let other_rack = |(_, id): &&(usize, NodeId)| {
                self.racks(&p, node, *id) >= self.racks(&p, node, node)
            };
            let best = to.iter().filter(fits).find(other_rack);
            if let Some((_, to)) = best.or_else(|| to.iter().find(fits)).copied() {
                self.push(at, &p, (node, to), plan);
                *free -= usize::from(!moving);
            }
        }
    }

    /// The partition with the replicas that it will have, if `node` is one of them, and whether it is on the
    /// move already: then that move may wait for `node` for ever.
    fn leaving(&self, at: PartitionKey, node: NodeId) -> Option<(Partition, bool)> {
        let mut p = self.state.partition_at(at)?.clone();
        let moving = p.is_reassigning();
        p.replicas = p.target();
        let wanted = p.leader.is_some() && p.replicas.contains(&node);
        (wanted && !self.chosen.contains(&at)).then_some((p, moving))
    }

    /// Moves one partition from the fullest to the emptiest node; false if none can.
    fn level(
        &mut self,
        full: NodeId,
        empty: NodeId,
        cursor: &mut Cursor,
        plan: &mut Vec<Command>,
    ) -> bool {
        for at in self.held(full, cursor) {
            self.looked = self.looked.saturating_sub(1);
            cursor.from = Some(at);
            let Some(p) = self.movable(at) else { continue };
            if !p.replicas.contains(&empty)
                && self.racks(&p, full, empty) >= self.racks(&p, full, full)
            {
                self.push(at, &p, (full, empty), plan);
                return true;
            }
        }
        false
    }

    /// The partition, if it is whole, not on the move, and not chosen already.
    fn movable(&self, at: PartitionKey) -> Option<Partition> {
        let p = self.state.partition_at(at)?;
        let whole = p.isr.len() == p.replicas.len();
        let free = whole && !p.is_reassigning() && !self.chosen.contains(&at);
        free.then(|| p.clone())
    }

    /// Racks that the partition would be in with `to` in the place of `from`.
    fn racks(&self, p: &Partition, from: NodeId, to: NodeId) -> usize {
        let place = |n: &NodeId| if *n == from { to } else { *n };
        let rack = |n| self.state.node(n).map(|n| n.rack.as_str());
        let racks: BTreeSet<_> = p.replicas.iter().map(place).map(rack).collect();
        racks.len()
    }

    fn push(
        &mut self,
        at: PartitionKey,
        p: &Partition,
        (from, to): (NodeId, NodeId),
        plan: &mut Vec<Command>,
    ) {
        let place = |n: &NodeId| if *n == from { to } else { *n };
        plan.push(Command::Reassign {
            topic_id: at.topic,
            partition: at.partition,
            target: Some(p.replicas.iter().map(place).collect()),
        });
        self.chosen.insert(at);
        if let Some(load) = self.loads.get_mut(&from) {
            *load = load.saturating_sub(1);
        }
        if let Some(load) = self.loads.get_mut(&to) {
            *load += 1;
        }
    }
}
