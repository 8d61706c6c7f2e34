//! Which nodes hold a new partition: an explicit placement is checked, otherwise partitions go round
//! the nodes so that replicas and preferred leaders are spread evenly. Pure and deterministic.

use std::collections::{BTreeMap, BTreeSet};

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
        return Ok(spread(state, (from, to), replication_factor));
    }
    let bad = |why: String| Rejection::BadPlacement {
        name: name.clone(),
        why,
    };
    if let Some(number) = placement.keys().find(|n| !(from..to).contains(n)) {
        return Err(bad(format!(
            "it names partition {number}, and the new ones are {from}..{to}"
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
                "partition {number} names node {node}, which is not known"
            )));
        }
        replicas.push(nodes.clone());
    }
    Ok(replicas)
}

/// Round the nodes, starting behind the partitions that exist; the distance between the first and the
/// other replicas grows with each round, so that a lost node's load falls on all others.
fn spread(state: &State, (from, to): (i32, i32), replication_factor: i32) -> Vec<Vec<NodeId>> {
    let nodes: Vec<NodeId> = state.nodes.keys().copied().collect();
    let count = nodes.len();
    let start: usize = state.topics.values().map(|t| t.partitions.len()).sum();
    (from..to)
        .enumerate()
        .map(|(index, _)| {
            let at = start + index;
            let (first, round) = (at % count, at / count);
            (0..replication_factor as usize)
                .map(|replica| match replica {
                    0 => nodes[first],
                    _ => {
                        let shift = 1 + (round + replica - 1) % (count - 1);
                        nodes[(first + shift) % count]
                    }
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Node;

    fn state(nodes: i32) -> State {
        let node = || Node {
            address: "a:1".to_owned(),
            rack: String::new(),
        };
        State {
            nodes: (0..nodes).map(|n| (NodeId(n), node())).collect(),
            ..State::default()
        }
    }

    #[test]
    fn replicas_are_distinct_and_leaders_even() {
        for nodes in 1..6 {
            for factor in 1..=nodes {
                let placed = spread(&state(nodes), (0, nodes * 4), factor);
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
    fn explicit_placement_is_checked() {
        let name = TopicName::new("t").unwrap();
        let run = |pairs: &[(i32, &[i32])]| {
            let placement = pairs
                .iter()
                .map(|(p, nodes)| (*p, nodes.iter().copied().map(NodeId).collect()))
                .collect();
            place(&state(3), &name, (0, 2), 2, &placement)
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
