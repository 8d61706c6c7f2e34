//! Which nodes hold a partition when only their number is said: as few moves as possible, as many racks as
//! possible, and load where there is least. Pure; what it chooses is checked again by the metadata.

use std::collections::BTreeMap;

use varve_metadata::{Partition, State};
use varve_types::NodeId;
use varve_types::text::counted;

/// Load of the nodes that take replicas, with what was chosen since.
pub(crate) struct Chooser<'a> {
    state: &'a State,
    loads: BTreeMap<NodeId, usize>,
}

impl<'a> Chooser<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        let usable = state.nodes().iter().filter(|(_, n)| n.takes_replicas());
        let loads = usable.map(|(id, _)| (*id, state.held_by(*id))).collect();
        Self { state, loads }
    }

    /// The replicas of `partition` when there are `count` of them; the present ones keep their order.
    ///
    /// # Errors
    /// Too few nodes take replicas, or the number is not one.
    pub(crate) fn choose(
        &mut self,
        partition: &Partition,
        count: i32,
    ) -> Result<Vec<NodeId>, String> {
        let mut kept = partition.target();
        let wanted = usize::try_from(count).ok().filter(|n| *n > 0);
        let Some(wanted) = wanted else {
            return Err(format!(
                "a partition needs at least one replica; found {count}"
            ));
        };
        let free = self.loads.keys().filter(|n| !kept.contains(n)).count();
        if wanted > kept.len() + free {
            let nodes = kept.len() + free;
            return Err(format!(
                "a partition was to get {}, but only {} can hold one; start more nodes, or ask for \
                 fewer replicas",
                counted(wanted, "replica"),
                counted(nodes, "node")
            ));
        }
        while kept.len() > wanted {
            self.drop_one(partition, &mut kept);
        }
        while kept.len() < wanted {
            self.add_one(&mut kept);
        }
        Ok(kept)
    }

    fn rack(&self, node: NodeId) -> &str {
        self.state.node(node).map_or("", |n| n.rack.as_str())
    }

    /// Gives up the replica that is missed least: one out of sync, one whose rack has another, the one on the
    /// fullest node, the last; the leader last of all.
    fn drop_one(&mut self, partition: &Partition, kept: &mut Vec<NodeId>) {
        let worst = kept.iter().enumerate().max_by_key(|(place, node)| {
            let twin = |n: &&NodeId| *n != *node && self.rack(**n) == self.rack(**node);
            (
                partition.leader != Some(**node),
                !partition.isr.contains(node),
                kept.iter().any(|n| twin(&n)),
                self.loads.get(node).copied().unwrap_or(usize::MAX),
                *place,
            )
        });
        if let Some((place, _)) = worst {
            let node = kept.remove(place);
            if let Some(load) = self.loads.get_mut(&node) {
                *load = load.saturating_sub(1);
            }
        }
    }

    /// Takes the emptiest node of a rack that has no replica yet, or of any.
    fn add_one(&mut self, kept: &mut Vec<NodeId>) {
        let free = self.loads.iter().filter(|(n, _)| !kept.contains(n));
        let best = free.min_by_key(|(node, load)| {
            let taken = kept.iter().any(|n| self.rack(*n) == self.rack(**node));
            (taken, **load, **node)
        });
        if let Some(node) = best.map(|(node, _)| *node) {
            kept.push(node);
            if let Some(load) = self.loads.get_mut(&node) {
                *load += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use varve_metadata::{Command, CreateTopic, FeatureRange, apply};
    use varve_types::{BrokerEpoch, DirectoryId, PartitionId, TopicId};

    fn state(racks: &[&str]) -> State {
        let mut state = State::default();
        for (n, rack) in racks.iter().enumerate() {
            let node = NodeId(n as i32 + 1);
            let register = Command::RegisterNode {
                node,
                incarnation: 1,
                directory: DirectoryId(n as u128 + 1),
                address: "a:1".to_owned(),
                peer_address: "a:2".to_owned(),
                rack: (*rack).to_owned(),
                features: FeatureRange::THIS_PROGRAM,
                version: String::new(),
                clean: None,
            };
            apply(&mut state, register).unwrap();
            let epoch = state.node(node).unwrap().epoch;
            apply(&mut state, Command::UnfenceNode { node, epoch }).unwrap();
        }
        state
    }

    fn create(state: &mut State, nodes: &[i32]) -> Partition {
        let topic = CreateTopic {
            name: "t".parse().unwrap(),
            id: TopicId(1),
            partitions: 1,
            replication_factor: nodes.len() as i32,
            configs: BTreeMap::new(),
            labels: BTreeMap::new(),
            created_ms: 0,
            placement: [(0, nodes.iter().map(|n| NodeId(*n)).collect())].into(),
        };
        apply(state, Command::CreateTopic(topic)).unwrap();
        let (_, topic) = state.topic_by_id(TopicId(1)).unwrap();
        topic.partition(PartitionId(0)).unwrap().clone()
    }

    fn ids(nodes: &[i32]) -> Vec<NodeId> {
        nodes.iter().map(|n| NodeId(*n)).collect()
    }

    #[test]
    fn growth_takes_new_racks_first_and_keeps_what_is_there() {
        let mut s = state(&["a", "a", "b", "c"]);
        let p = create(&mut s, &[2]);
        let mut chooser = Chooser::new(&s);
        assert_eq!(chooser.choose(&p, 3), Ok(ids(&[2, 3, 4])));
        assert_eq!(chooser.choose(&p, 4), Ok(ids(&[2, 3, 4, 1])));
    }

    #[test]
    fn shrinking_keeps_the_leader_and_the_racks() {
        let mut s = state(&["a", "a", "b"]);
        let p = create(&mut s, &[1, 2, 3]);
        let mut chooser = Chooser::new(&s);
        assert_eq!(chooser.choose(&p, 2), Ok(ids(&[1, 3])));
        assert_eq!(chooser.choose(&p, 1), Ok(ids(&[1])));
    }

    #[test]
    fn one_that_is_out_of_sync_goes_first() {
        let mut s = state(&["", "", ""]);
        create(&mut s, &[1, 2, 3]);
        let node = NodeId(2);
        let epoch: BrokerEpoch = s.node(node).unwrap().epoch;
        apply(&mut s, Command::FenceNode { node, epoch }).unwrap();
        let (_, topic) = s.topic_by_id(TopicId(1)).unwrap();
        let p = topic.partitions[0].clone();
        assert_eq!(Chooser::new(&s).choose(&p, 2), Ok(ids(&[1, 3])));
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let mut s = state(&["", ""]);
        let p = create(&mut s, &[1]);
        let mut chooser = Chooser::new(&s);
        for count in [0, -1] {
            assert!(chooser.choose(&p, count).is_err());
        }
        let why = chooser.choose(&p, 3).unwrap_err();
        assert!(
            why.contains("a partition was to get 3 replicas, but only 2 nodes can hold one"),
            "{why}"
        );
    }
}
