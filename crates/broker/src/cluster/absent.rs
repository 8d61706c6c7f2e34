//! Since when nodes are offline, by this node's clock: the metadata say that they are, not since when. Only for people
//! who ask; nothing is decided by it. A node that was offline when this one started has no time.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use varve_metadata::{NodeState, State};
use varve_types::NodeId;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    /// Nodes that are offline, with the time where it is known; `None`: nothing was noted yet.
    nodes: Mutex<Option<BTreeMap<NodeId, Option<i64>>>>,
}

impl Absent {
    /// Compares the metadata with what they said before.
    pub(crate) fn note(&self, state: &State, now_ms: i64) {
        let offline = state.nodes().iter();
        let offline = offline.filter(|(_, node)| node.state == NodeState::Fenced);
        self.note_all(offline.map(|(id, _)| *id), now_ms);
    }

    fn note_all(&self, offline: impl Iterator<Item = NodeId>, now_ms: i64) {
        let mut nodes = self.nodes.lock();
        let known = nodes.take();
        let since = |id: NodeId| match &known {
            None => (id, None),
            Some(known) => (id, known.get(&id).copied().unwrap_or(Some(now_ms))),
        };
        *nodes = Some(offline.map(since).collect());
    }

    /// When that node went offline, in milliseconds since the Unix epoch, if that is known.
    pub(crate) fn since(&self, node: NodeId) -> Option<i64> {
        self.nodes.lock().as_ref()?.get(&node).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_seen_to_go_has_a_time() {
        let absent = Absent::default();
        let note = |nodes: &[i32], now| absent.note_all(nodes.iter().map(|n| NodeId(*n)), now);
        note(&[3], 100);
        assert_eq!(absent.since(NodeId(3)), None, "it was gone before");
        note(&[2, 3], 200);
        note(&[2, 3], 300);
        assert_eq!(
            absent.since(NodeId(2)),
            Some(200),
            "since it was seen first"
        );
        assert_eq!(absent.since(NodeId(3)), None);
        note(&[3], 400);
        assert_eq!(absent.since(NodeId(2)), None, "it is back");
        note(&[], 500);
        note(&[3], 600);
        assert_eq!(absent.since(NodeId(3)), Some(600));
    }
}
