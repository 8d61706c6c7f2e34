//! What is derived from the partitions so that no command walks all of them. Not in the snapshot.
//!
//! Invariant: equal to what [`Index::of`] makes of the topics; [`crate::State::check`] compares. Entries
//! that would be empty are not there, so equal states have equal indexes.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::{NodeId, PartitionId, TopicId, TopicName};

use crate::command::PartitionKey;
use crate::state::{Partition, Topic};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Index {
    /// Topics by id.
    pub(crate) names: BTreeMap<TopicId, TopicName>,
    /// Partitions that a node holds, is to hold, or is to give away.
    pub(crate) held: BTreeMap<NodeId, BTreeSet<PartitionKey>>,
    /// How many partitions a node leads.
    pub(crate) leading: BTreeMap<NodeId, usize>,
    /// Partitions that are being moved.
    pub(crate) reassigning: BTreeSet<PartitionKey>,
    /// Partitions that nobody leads.
    pub(crate) leaderless: BTreeSet<PartitionKey>,
    /// Partitions that another than the preferred leader leads.
    pub(crate) unpreferred: BTreeSet<PartitionKey>,
    /// Number of partitions.
    pub(crate) partitions: usize,
}

impl Index {
    /// The index of these topics.
    pub(crate) fn of(topics: &BTreeMap<TopicName, Topic>) -> Self {
        let mut index = Self::default();
        for (name, topic) in topics {
            index.names.insert(topic.id, name.clone());
            for (number, partition) in topic.partitions.iter().enumerate() {
                index.put(key(topic.id, number), None, Some(partition));
            }
        }
        index
    }

    /// A partition was `old` and is `new`; `None`: it was not, or is not, there.
    pub(crate) fn put(
        &mut self,
        key: PartitionKey,
        old: Option<&Partition>,
        new: Option<&Partition>,
    ) {
        let replicas = |p: Option<&'_ Partition>| p.map_or(&[][..], |p| &p.replicas[..]).to_vec();
        let (before, after) = (replicas(old), replicas(new));
        for node in before.iter().filter(|n| !after.contains(n)) {
            if let Some(keys) = self.held.get_mut(node) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.held.remove(node);
                }
            }
        }
        for node in after.iter().filter(|n| !before.contains(n)) {
            self.held.entry(*node).or_default().insert(key);
        }
        let leader = |p: Option<&Partition>| p.and_then(|p| p.leader);
        if leader(old) != leader(new) {
            if let Some(node) = leader(old)
                && let Some(count) = self.leading.get_mut(&node)
            {
                *count -= 1;
                if *count == 0 {
                    self.leading.remove(&node);
                }
            }
            if let Some(node) = leader(new) {
                *self.leading.entry(node).or_default() += 1;
            }
        }
        let mut mark = |set: fn(&mut Self) -> &mut BTreeSet<PartitionKey>,
                        is: fn(&Partition) -> bool| {
            match (old.is_some_and(is), new.is_some_and(is)) {
                (false, true) => {
                    set(self).insert(key);
                }
                (true, false) => {
                    set(self).remove(&key);
                }
                _ => {}
            }
        };
        mark(|i| &mut i.reassigning, Partition::is_reassigning);
        mark(|i| &mut i.leaderless, |p| p.leader.is_none());
        mark(
            |i| &mut i.unpreferred,
            |p| p.leader.is_some() && p.leader != p.preferred_leader(),
        );
        self.partitions += usize::from(new.is_some());
        self.partitions -= usize::from(old.is_some());
    }

    /// Partitions that `node` holds.
    pub(crate) fn held_by(&self, node: NodeId) -> usize {
        self.held.get(&node).map_or(0, BTreeSet::len)
    }
}

/// Key of a topic's partition by its place in the list.
pub(crate) fn key(topic: TopicId, number: usize) -> PartitionKey {
    PartitionKey {
        topic,
        partition: PartitionId(number as i32),
    }
}
