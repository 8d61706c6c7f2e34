//! Which leader wrote which offsets: each leader epoch with the offset of its first record. Answers where
//! a follower's history leaves the leader's. Lives in memory and in the `leader-epoch` file, which can be
//! derived from the batches, except for an epoch in which nothing was written yet.

use std::sync::Arc;

use varve_types::{LeaderEpoch, Offset};

/// Epochs and their first offsets, both growing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochIndex {
    /// Shared with the views that readers hold: changes are rare, views are made after every append.
    entries: Arc<Vec<(LeaderEpoch, Offset)>>,
    /// Grows with every change, so that the file is written when it must be.
    version: u64,
}

impl EpochIndex {
    pub(crate) fn new(entries: Vec<(LeaderEpoch, Offset)>) -> Self {
        Self {
            entries: Arc::new(entries),
            version: 0,
        }
    }

    /// All entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        self.entries.as_slice()
    }

    /// The newest epoch.
    #[must_use]
    pub fn last(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// Notes that `epoch` begins at `start`. Does nothing if it is not newer than the last.
    pub(crate) fn begin(&mut self, epoch: LeaderEpoch, start: Offset) {
        if self.last().is_some_and(|last| epoch <= last) {
            return;
        }
        // An epoch in which nothing was written leaves no trace in the batches either.
        while self.entries.last().is_some_and(|(_, s)| *s >= start) {
            Arc::make_mut(&mut self.entries).pop();
        }
        Arc::make_mut(&mut self.entries).push((epoch, start));
        self.version += 1;
    }

    /// Notes that a batch of `epoch` lies at `start`, the log's end so far. `false`, and nothing noted, when
    /// an earlier batch has a later epoch.
    pub(crate) fn note(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        let Some(last) = self.last() else {
            self.begin(epoch, start);
            return true;
        };
        if last < epoch {
            self.begin(epoch, start);
        } else if last > epoch {
            // Epochs that this log began as leader and wrote nothing in.
            let written = self.entries.partition_point(|(_, s)| *s < start);
            if self.entries[..written]
                .last()
                .is_some_and(|(e, _)| *e > epoch)
            {
                return false;
            }
            Arc::make_mut(&mut self.entries).truncate(written);
            self.version += 1;
            self.begin(epoch, start);
        }
        true
    }

    /// Forgets epochs that begin at or past `end`.
    pub(crate) fn truncate_to(&mut self, end: Offset) {
        let before = self.entries.len();
        Arc::make_mut(&mut self.entries).retain(|(_, start)| *start < end);
        self.version += u64::from(self.entries.len() != before);
    }

    /// Forgets epochs that ended at or before `log_start`.
    pub(crate) fn trim(&mut self, log_start: Offset) {
        let over = self
            .entries
            .partition_point(|(_, start)| *start <= log_start);
        if over > 1 {
            Arc::make_mut(&mut self.entries).drain(..over - 1);
            self.version += 1;
        }
        if self
            .entries
            .first()
            .is_some_and(|first| first.1 < log_start)
        {
            Arc::make_mut(&mut self.entries)[0].1 = log_start;
            self.version += 1;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.version += u64::from(!self.entries.is_empty());
        Arc::make_mut(&mut self.entries).clear();
    }

    /// The largest epoch at or below `epoch` and the offset after its last record, which is the start of
    /// the next epoch or `log_end`. For an epoch older than all, that epoch and the start of the first.
    /// `None` when no epoch is known at all.
    #[must_use]
    pub fn end_offset_for(
        &self,
        epoch: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let after = self.entries.partition_point(|(e, _)| *e <= epoch);
        let end = self.entries.get(after).map_or(log_end, |(_, start)| *start);
        match after.checked_sub(1).and_then(|i| self.entries.get(i)) {
            Some((floor, _)) => Some((*floor, end)),
            None => self.entries.first().map(|(_, start)| (epoch, *start)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: i32, start: i64) -> (LeaderEpoch, Offset) {
        (
            LeaderEpoch::new(epoch).unwrap(),
            Offset::new(start).unwrap(),
        )
    }

    fn index(entries: &[(i32, i64)]) -> EpochIndex {
        EpochIndex::new(entries.iter().map(|(e, s)| at(*e, *s)).collect())
    }

    #[test]
    fn answers_where_an_epoch_ends() {
        let index = index(&[(2, 10), (5, 30)]);
        let ask = |e: i32| index.end_offset_for(at(e, 0).0, at(0, 50).1);
        assert_eq!(ask(1), Some(at(1, 10)), "older than all");
        assert_eq!(ask(2), Some(at(2, 30)));
        assert_eq!(ask(4), Some(at(2, 30)), "an epoch this log never saw");
        assert_eq!(ask(5), Some(at(5, 50)));
        assert_eq!(ask(9), Some(at(5, 50)), "newer than all: never undefined");
        assert_eq!(
            EpochIndex::default().end_offset_for(at(1, 0).0, Offset::ZERO),
            None
        );
    }

    #[test]
    fn batches_of_an_older_epoch_replace_epochs_without_batches() {
        let mut index = index(&[(1, 0), (6, 10), (7, 20)]);
        assert!(!index.note(at(5, 0).0, at(0, 20).1), "epoch 6 has batches");
        assert_eq!(index.entries(), [at(1, 0), at(6, 10), at(7, 20)]);
        assert!(index.note(at(6, 0).0, at(0, 20).1));
        assert_eq!(index.entries(), [at(1, 0), at(6, 10)]);
        assert!(index.note(at(8, 0).0, at(0, 30).1));
        assert_eq!(index.last(), Some(at(8, 0).0));
    }

    #[test]
    fn begins_truncates_and_trims() {
        let mut index = index(&[(1, 0), (2, 10)]);
        index.begin(at(2, 0).0, at(0, 12).1);
        assert_eq!(index.entries(), [at(1, 0), at(2, 10)], "not newer");
        index.begin(at(3, 0).0, at(0, 10).1);
        assert_eq!(
            index.entries(),
            [at(1, 0), at(3, 10)],
            "epoch 2 wrote nothing"
        );
        index.trim(at(0, 4).1);
        assert_eq!(index.entries(), [at(1, 4), at(3, 10)]);
        index.trim(at(0, 20).1);
        assert_eq!(index.entries(), [at(3, 20)]);
        index.truncate_to(at(0, 20).1);
        assert!(index.entries().is_empty());
    }
}
