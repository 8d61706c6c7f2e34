//! The leader-epoch cache (KIP-101, KIP-279): where each leader epoch of a log begins, and so where it
//! ends. Pure data; derivable from the log.
//!
//! Invariants: epochs strictly rise, start offsets never fall, an epoch that held nothing leaves no
//! entry behind once a later one begins at the same offset.

use varve_types::{LeaderEpoch, Offset};

/// Leader epochs with the offset at which each begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl Epochs {
    /// From what a log found in its batches, ascending.
    ///
    /// # Errors
    /// The entry that does not rise above the one before it.
    pub fn new(
        entries: impl IntoIterator<Item = (LeaderEpoch, Offset)>,
    ) -> Result<Self, (LeaderEpoch, Offset)> {
        let mut epochs = Self::default();
        for (epoch, start) in entries {
            if !epochs.may_follow(epoch, start) {
                return Err((epoch, start));
            }
            epochs.assign(epoch, start);
        }
        Ok(epochs)
    }

    /// Whether records of this epoch may begin or go on at this offset.
    pub(crate) fn may_follow(&self, epoch: LeaderEpoch, at: Offset) -> bool {
        self.entries
            .last()
            .is_none_or(|(last, start)| *last <= epoch && *start <= at)
    }

    /// Records from `start` on belong to `epoch`. Known already: nothing changes.
    ///
    /// # Panics
    /// When the epoch or the offset lies before the last entry: callers ask [`Self::may_follow`] first.
    pub(crate) fn assign(&mut self, epoch: LeaderEpoch, start: Offset) {
        assert!(
            self.may_follow(epoch, start),
            "leader epoch {epoch} at {start} does not follow {:?}",
            self.entries.last()
        );
        while let Some((last, last_start)) = self.entries.last().copied() {
            if last == epoch {
                return;
            }
            if last_start < start {
                break;
            }
            self.entries.pop();
        }
        self.entries.push((epoch, start));
    }

    /// Epoch of the last record; `None` when the log is empty since its beginning.
    #[must_use]
    pub fn last(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// The largest epoch not above `epoch`, with the offset at which it ends in a log that ends at
    /// `log_end`; `None` when every epoch known here is newer: all that is left of this log was written
    /// later.
    #[must_use]
    pub fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let after = self.entries.partition_point(|(e, _)| *e <= epoch);
        let end = self.entries.get(after).map_or(log_end, |(_, start)| *start);
        let (found, _) = self.entries.get(after.checked_sub(1)?)?;
        Some((*found, end))
    }

    /// Epoch of the record at an offset, if the log still knows it.
    #[must_use]
    pub fn of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        after
            .checked_sub(1)
            .and_then(|n| self.entries.get(n))
            .map(|(epoch, _)| *epoch)
    }

    /// Epoch of the record before `end`: what a replica that ends there says of its log.
    #[must_use]
    pub fn before(&self, end: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|(_, start)| *start < end);
        after
            .checked_sub(1)
            .and_then(|n| self.entries.get(n))
            .map(|(epoch, _)| *epoch)
    }

    /// The log ends at `end` now.
    pub(crate) fn truncate(&mut self, end: Offset) {
        self.entries.retain(|(_, start)| *start < end);
    }

    /// The log begins at `start` now: epochs that ended before the last record that went are forgotten. That
    /// record's own epoch is kept, so that a replica that ends right there is recognised.
    pub(crate) fn trim(&mut self, start: Offset) {
        let after = self.entries.partition_point(|(_, s)| *s < start);
        if after > 1 {
            self.entries.drain(..after - 1);
        }
    }

    /// Every epoch with its start.
    #[must_use]
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn e(n: i32) -> LeaderEpoch {
        LeaderEpoch::new(n).unwrap()
    }

    fn o(n: i64) -> Offset {
        Offset::new(n).unwrap()
    }

    fn epochs() -> Epochs {
        Epochs::new([(e(1), o(0)), (e(3), o(10)), (e(4), o(25))]).unwrap()
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let epochs = epochs();
        let end = |epoch| epochs.end_of(e(epoch), o(40));
        assert_eq!(end(1), Some((e(1), o(10))));
        assert_eq!(end(2), Some((e(1), o(10))), "unknown: the one before it");
        assert_eq!(end(3), Some((e(3), o(25))));
        assert_eq!(end(4), Some((e(4), o(40))));
        assert_eq!(end(9), Some((e(4), o(40))), "newer than all: the last");
        assert_eq!(end(0), None, "older than all");
        assert_eq!(Epochs::default().end_of(e(7), o(5)), None);
    }

    #[test]
    fn truncation_and_trimming_forget() {
        let mut epochs = epochs();
        epochs.truncate(o(25));
        assert_eq!(epochs.last(), Some(e(3)));
        epochs.trim(o(10));
        assert_eq!(epochs.entries(), [(e(1), o(0)), (e(3), o(10))]);
        epochs.trim(o(12));
        assert_eq!(epochs.entries(), [(e(3), o(10))]);
        assert_eq!(epochs.end_of(e(1), o(20)), None);
    }

    #[test]
    fn an_epoch_without_records_leaves_nothing() {
        let mut epochs = epochs();
        epochs.assign(e(5), o(30));
        epochs.assign(e(6), o(30));
        assert_eq!(epochs.entries().last(), Some(&(e(6), o(30))));
        assert_eq!(epochs.before(o(30)), Some(e(4)));
        assert_eq!(epochs.of(o(30)), Some(e(6)));
        assert!(!epochs.may_follow(e(5), o(31)) && !epochs.may_follow(e(7), o(29)));
    }

    proptest! {
        /// The rule of divergence finds the longest common prefix of two logs that were written under
        /// rising epochs, in at most one question per epoch.
        #[test]
        fn repeated_questions_find_the_common_prefix(
            common in proptest::collection::vec(0..3i32, 0..20),
            left in proptest::collection::vec(0..4i32, 0..10),
            right in proptest::collection::vec(0..4i32, 0..10),
        ) {
            // Epochs as they come to be: even ones on the left, odd ones on the right after they part.
            let mut epoch = 0;
            let shared: Vec<i32> = common.iter().map(|step| { epoch += 2 * step; epoch }).collect();
            let branch = |steps: &[i32], odd: i32| {
                let mut at = epoch + 2 + odd;
                let mut log = shared.clone();
                log.extend(steps.iter().map(|step| { at += 2 * step; at }));
                log
            };
            let (a, mut b) = (branch(&left, 0), branch(&right, 1));
            let build = |log: &[i32]| {
                let mut epochs = Epochs::default();
                for (n, epoch) in log.iter().enumerate() {
                    epochs.assign(e(*epoch), o(n as i64));
                }
                epochs
            };
            let leader = build(&a);
            let mut questions = 0;
            loop {
                let follower = build(&b);
                let end = o(b.len() as i64);
                let Some(last) = follower.before(end) else { break };
                let Some((epoch, leader_end)) = leader.end_of(last, o(a.len() as i64)) else {
                    b.clear();
                    break;
                };
                if epoch == last && leader_end >= end {
                    break;
                }
                let to = match follower.end_of(epoch, end) {
                    Some((own, own_end)) if own == epoch => leader_end.min(own_end),
                    Some((_, own_end)) => own_end,
                    None => o(0),
                };
                prop_assert!(to < end, "every answer shortens the log");
                b.truncate(to.get() as usize);
                questions += 1;
            }
            prop_assert_eq!(&b[..], &a[..b.len()]);
            prop_assert!(b.len() >= shared.len());
            prop_assert!(questions <= right.len() + 2);
        }
    }
}
