//! Which producers' transactions a partition is known to be registered in, so that their further batches need no
//! question. A cache: what it forgets is asked again, and what it holds too long does no harm: where the epoch of a
//! producer is raised with the end of a transaction the partition refuses the old one, and where the producer
//! keeps its epoch the partition refuses what was verified before that end.
//!
//! Invariants: of one leadership; at most a fixed number of producers. Never decides what may be appended.

use std::collections::BTreeMap;

use varve_types::{Offset, ProducerId};

use crate::input::Verified;

/// Producers remembered in one partition; beyond it all are forgotten.
const MOST: usize = 10_000;

/// A producer.
#[derive(Debug, Clone, Copy)]
struct Known {
    epoch: i16,
    /// What is known of its present transaction.
    verified: Verified,
    /// Where the last marker is that left it its epoch: what was verified before is not of the present transaction.
    ended: Option<Offset>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Registered(BTreeMap<i64, Known>);

impl Registered {
    /// What is known of the partition's registration in the transaction of this session.
    #[must_use]
    pub fn verified(&self, producer: ProducerId) -> Verified {
        let known = self.0.get(&producer.id);
        let known = known.filter(|known| known.epoch == producer.epoch);
        known.map_or(Verified::No, |known| known.verified)
    }

    /// It was registered.
    pub fn note(&mut self, producer: ProducerId, verified: Verified) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let known = self.0.entry(producer.id).or_insert(Known {
            epoch: producer.epoch,
            verified: Verified::No,
            ended: None,
        });
        if known.epoch != producer.epoch {
            known.ended = None;
        }
        let late = match (verified, known.ended) {
            (Verified::Since(end), Some(marker)) => end <= marker,
            _ => false,
        };
        known.epoch = producer.epoch;
        if !late {
            known.verified = verified;
        }
    }

    /// The partition has refused it: it is to be asked again.
    pub fn forget(&mut self, producer: ProducerId) {
        self.0.remove(&producer.id);
    }

    /// Another leadership begins: what others have written meanwhile is not known.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The producer's transaction has ended here. `kept_at`: offset of the marker, where it left its producer the
    /// epoch.
    pub fn ended(&mut self, marker: ProducerId, kept_at: Option<Offset>) {
        let Some(known) = self.0.get_mut(&marker.id) else {
            return;
        };
        let Some(at) = kept_at else {
            if known.epoch < marker.epoch {
                self.0.remove(&marker.id);
            }
            return;
        };
        if known.epoch != marker.epoch {
            return;
        }
        known.ended = known.ended.max(Some(at));
        if matches!(known.verified, Verified::Since(end) if end <= at) {
            known.verified = Verified::No;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn session(epoch: i16) -> ProducerId {
        ProducerId { id: 7, epoch }
    }

    fn since(offset: i64) -> Verified {
        Verified::Since(at(offset))
    }

    fn at(offset: i64) -> Offset {
        Offset::new(offset).unwrap()
    }

    #[test]
    fn one_transaction_is_remembered_until_its_marker() {
        let mut known = Registered::default();
        let knows = |known: &Registered, epoch| known.verified(session(epoch)) == since(10);
        known.note(session(3), since(10));
        assert!(knows(&known, 3) && !knows(&known, 4) && !knows(&known, 2));
        // The next one was registered before an older marker was repeated.
        known.note(session(4), since(10));
        known.ended(session(4), None);
        assert!(knows(&known, 4));
        known.ended(session(5), None);
        assert!(!knows(&known, 4));
        known.note(session(6), since(10));
        known.clear();
        assert!(!knows(&known, 6));
        known.note(session(6), since(10));
        known.forget(session(6));
        assert!(!knows(&known, 6));
    }

    #[test]
    fn an_epoch_that_is_kept_is_remembered_until_the_next_marker() {
        let mut known = Registered::default();
        known.note(session(3), since(10));
        assert_eq!(known.verified(session(3)), since(10));
        known.ended(session(3), Some(at(9)));
        assert_eq!(
            known.verified(session(3)),
            since(10),
            "an older marker, repeated"
        );
        known.ended(session(3), Some(at(12)));
        assert_eq!(known.verified(session(3)), Verified::No);
        // An answer that was on its way when the marker came.
        known.note(session(3), since(12));
        assert_eq!(known.verified(session(3)), Verified::No);
        known.note(session(3), since(13));
        assert_eq!(known.verified(session(3)), since(13));
        known.note(session(4), since(11));
        assert_eq!(known.verified(session(4)), since(11), "of another epoch");
    }
}
