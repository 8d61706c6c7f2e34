//! Which nodes hold a new partition. An explicit placement is checked; otherwise partitions go round the
//! nodes so that leaders are spread evenly over nodes and the replicas of each partition over racks.
//! Pure and deterministic. Nodes that are fenced, stopping or being emptied get nothing by themselves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use varve_types::{NodeId, TopicName};

use crate::{Rejection, State};

/// Replicas of partitions `from..to`, in order.
pub(crate) fn place(
    state: &State,
    name: &TopicName,
    (from, to): (i32, i32),
    replication_factor: i32,
    placement: &BTreeMap<i32, Vec<NodeId>>,
) -> Result<Vec<Vec<NodeId>>, Rejection> {
    if placement.is_empty() {
        let order = striped(state);
        if replication_factor.unsigned_abs() as usize > order.len() {
            return Err(Rejection::NotEnoughNodes {
                name: name.clone(),
                wanted: replication_factor,
                usable: order.len(),
                known: state.nodes.len(),
            });
        }
        return Ok(spread(
            &order,
            state.partition_count(),
            (from, to),
            replication_factor,
        ));
    }
    let bad = |why: String| Rejection::BadPlacement {
        name: name.clone(),
        why,
    };
    if let Some(number) = placement.keys().find(|n| !(from..to).contains(n)) {
        return Err(bad(format!(
            "it names partition {number}, but the new ones are {from}..{to}"
        )));
    }
    let mut replicas = Vec::new();
    for number in from..to {
        let Some(nodes) = placement.get(&number) else {
            return Err(bad(format!("it leaves out partition {number}")));
        };
        let distinct: BTreeSet<_> = nodes.iter().collect();
        if nodes.len() as i64 != i64::from(replication_factor) || distinct.len() != nodes.len() {
            return Err(bad(format!(
                "partition {number} needs {replication_factor} distinct nodes"
            )));
        }
        if let Some(node) = nodes.iter().find(|n| !state.nodes.contains_key(n)) {
            return Err(bad(format!(
                "partition {number} names node {node}, which is unknown"
            )));
        }
        replicas.push(nodes.clone());
    }
    Ok(replicas)
}

/// Usable nodes with the number of their rack, one of each rack in turn.
fn striped(state: &State) -> Vec<(NodeId, usize)> {
    let mut racks: BTreeMap<&str, VecDeque<NodeId>> = BTreeMap::new();
    for (id, node) in state.nodes.iter().filter(|(_, n)| n.takes_replicas()) {
        racks.entry(&node.rack).or_default().push_back(*id);
    }
    let mut racks: Vec<_> = racks.into_values().collect();
    let mut order = Vec::new();
    let mut left = true;
    while left {
        left = false;
        for (number, rack) in racks.iter_mut().enumerate() {
            if let Some(node) = rack.pop_front() {
                order.push((node, number));
                left = true;
            }
        }
    }
    order
}

/// Round the nodes, starting behind the partitions that exist; the distance between the first and the
/// other replicas grows with each round, so that a lost node's load falls on all others. A rack is used
/// again only when every rack has been.
fn spread(
    order: &[(NodeId, usize)],
    start: usize,
    (from, to): (i32, i32),
    replication_factor: i32,
) -> Vec<Vec<NodeId>> {
    let count = order.len();
    let factor = replication_factor.unsigned_abs() as usize;
    let racks = order.iter().map(|(_, rack)| *rack).max().unwrap_or(0) + 1;
    let one = |at: usize| {
        let (first, round) = (at % count, at / count);
        let mut chosen = Vec::with_capacity(factor);
        let mut used = BTreeSet::from([order[first].1]);
        chosen.push(order[first].0);
        let mut next = first + 1 + round % (count - 1).max(1);
        while chosen.len() < factor {
            if used.len() == racks {
                used.clear();
            }
            let ring = (0..count).map(|step| (next + step) % count);
            let free = |i: &usize| !chosen.contains(&order[*i].0);
            let place = ring
                .clone()
                .find(|i| free(i) && !used.contains(&order[*i].1));
            // Racks of different sizes: those that are left may have no free node.
            let Some(place) = place.or_else(|| ring.clone().find(free)) else {
                break;
            };
            chosen.push(order[place].0);
            used.insert(order[place].1);
            next = place + 1;
        }
        chosen
    };
    (from..to)
        .enumerate()
        .map(|(index, _)| one(start + index))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests_support::node;

    fn state(racks: &[&str]) -> State {
        let nodes = racks.iter().enumerate();
        State {
            nodes: nodes
                .map(|(n, rack)| (NodeId(n as i32), node(rack)))
                .collect(),
            ..State::default()
        }
    }

    #[test]
    fn replicas_are_distinct_and_leaders_even() {
        for nodes in 1..6 {
            for factor in 1..=nodes {
                let order = striped(&state(&vec![""; nodes as usize]));
                let placed = spread(&order, 0, (0, nodes * 4), factor);
                let mut leaders = BTreeMap::new();
                for replicas in &placed {
                    let distinct: BTreeSet<_> = replicas.iter().collect();
                    assert_eq!(
                        distinct.len(),
                        factor as usize,
                        "{nodes} nodes, factor {factor}"
                    );
                    *leaders.entry(replicas[0]).or_insert(0) += 1;
                }
                assert!(leaders.len() == nodes as usize && leaders.values().all(|n| *n == 4));
            }
        }
    }

    #[test]
    fn replicas_lie_in_as_many_racks_as_there_are() {
        for racks in [
            &["a", "b", "c", "a", "b", "c"][..],
            &["a", "a", "a", "b", "b", "c"],
            &["a", "b", "b", "b", "b"],
        ] {
            let s = state(racks);
            let all: BTreeSet<_> = racks.iter().collect();
            for factor in 1..=4 {
                let placed = spread(&striped(&s), 3, (0, 60), factor);
                let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
                for replicas in placed {
                    let used: BTreeSet<_> = replicas.iter().map(|n| &s.nodes[n].rack).collect();
                    assert_eq!(
                        used.len(),
                        all.len().min(factor as usize),
                        "{racks:?} {factor}"
                    );
                    replicas
                        .iter()
                        .for_each(|n| *load.entry(*n).or_default() += 1);
                }
                if racks.len() == 2 * all.len() && all.len() == 3 && racks[3] == "a" && factor <= 3
                {
                    let (least, most) =
                        (load.values().min().unwrap(), load.values().max().unwrap());
                    assert!(most - least <= 12, "even racks, uneven nodes: {load:?}");
                }
            }
        }
    }

    #[test]
    fn explicit_placement_is_checked() {
        let name = TopicName::new("t").unwrap();
        let run = |pairs: &[(i32, &[i32])]| {
            let placement = pairs
                .iter()
                .map(|(p, nodes)| (*p, nodes.iter().copied().map(NodeId).collect()))
                .collect();
            place(&state(&["", "", ""]), &name, (0, 2), 2, &placement)
        };
        assert!(run(&[(0, &[2, 1]), (1, &[0, 2])]).is_ok());
        for bad in [
            &[(0, &[2, 1][..])][..],
            &[(0, &[2, 2]), (1, &[0, 1])],
            &[(0, &[2]), (1, &[0, 1])],
            &[(0, &[2, 9]), (1, &[0, 1])],
            &[(0, &[2, 1]), (2, &[0, 1])],
        ] {
            assert!(
                matches!(run(bad), Err(Rejection::BadPlacement { .. })),
                "{bad:?}"
            );
        }
    }
}
