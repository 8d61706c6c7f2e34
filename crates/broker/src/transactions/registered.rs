//! Which producers' transactions a partition is known to be registered in, so that their further batches need no
//! question. A cache: what it forgets is asked again, and what it holds too long does no harm, because the epoch
//! of a producer is raised with the end of each transaction and the partition refuses the old one.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use varve_types::ProducerId;

/// Producers remembered in one partition; beyond it all are forgotten.
const MOST: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Registered(Mutex<BTreeMap<i64, i16>>);

impl Registered {
    /// Whether the partition was registered in the transaction of this epoch.
    pub(crate) fn knows(&self, producer: ProducerId) -> bool {
        self.0.lock().get(&producer.id) == Some(&producer.epoch)
    }

    /// It was.
    pub(crate) fn note(&self, producer: ProducerId) {
        let mut known = self.0.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(producer.id, producer.epoch);
    }

    /// Another leadership begins: what others have written meanwhile is not known.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }

    /// The producer's transaction has ended here.
    pub(crate) fn forget(&self, marker: ProducerId) {
        let mut known = self.0.lock();
        if known
            .get(&marker.id)
            .is_some_and(|epoch| *epoch < marker.epoch)
        {
            known.remove(&marker.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn session(epoch: i16) -> ProducerId {
        ProducerId { id: 7, epoch }
    }

    #[test]
    fn one_transaction_is_remembered_until_its_marker() {
        let known = Registered::default();
        known.note(session(3));
        assert!(known.knows(session(3)) && !known.knows(session(4)) && !known.knows(session(2)));
        // The next one was registered before an older marker was repeated.
        known.note(session(4));
        known.forget(session(4));
        assert!(known.knows(session(4)));
        known.forget(session(5));
        assert!(!known.knows(session(4)));
        known.note(session(6));
        known.clear();
        assert!(!known.knows(session(6)));
    }
}
