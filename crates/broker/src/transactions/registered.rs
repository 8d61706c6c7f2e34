//! What the leader's questions have found out, shared by those who ask and those who write markers.
//!
//! Invariant: what is known was found out in the leadership that it is told with, since it rests on places in the log.

use parking_lot::Mutex;
use varve_partition::Verified;
use varve_types::{LeaderEpoch, Offset, ProducerId};

#[derive(Debug, Default)]
struct InLeadership {
    epoch: Option<LeaderEpoch>,
    known: varve_partition::Registered,
}

/// See [`varve_partition::Registered`].
#[derive(Debug, Default)]
pub(crate) struct Registered(Mutex<InLeadership>);

impl Registered {
    /// What is known, and in which leadership.
    pub(crate) fn verified(&self, producer: ProducerId) -> (Option<LeaderEpoch>, Verified) {
        let this = self.0.lock();
        (this.epoch, this.known.verified(producer))
    }

    /// It was registered, as a question of that leadership has found out.
    pub(crate) fn note(
        &self,
        producer: ProducerId,
        verified: Verified,
        epoch: Option<LeaderEpoch>,
    ) {
        let mut this = self.0.lock();
        if this.epoch == epoch {
            this.known.note(producer, verified);
        }
    }

    pub(crate) fn forget(&self, producer: ProducerId) {
        self.0.lock().known.forget(producer);
    }

    /// Another leadership begins, or none.
    pub(crate) fn begin(&self, epoch: Option<LeaderEpoch>) {
        let mut this = self.0.lock();
        this.epoch = epoch;
        this.known.clear();
    }

    pub(crate) fn ended(&self, marker: ProducerId, kept_at: Option<Offset>) {
        self.0.lock().known.ended(marker, kept_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_in_one_leadership_is_not_told_in_the_next() {
        let (one, two) = (LeaderEpoch::new(1), LeaderEpoch::new(2));
        let producer = ProducerId { id: 7, epoch: 0 };
        let since = Verified::Since(Offset::ZERO);
        let known = Registered::default();
        known.begin(one);
        known.note(producer, since, one);
        assert_eq!(known.verified(producer), (one, since));
        known.begin(two);
        assert_eq!(known.verified(producer), (two, Verified::No));
        // An answer to a question of the leadership before.
        known.note(producer, since, one);
        assert_eq!(known.verified(producer), (two, Verified::No));
        known.note(producer, since, two);
        known.forget(producer);
        assert_eq!(known.verified(producer), (two, Verified::No));
    }
}
