//! Where transactions are in one partition: which are undecided, and which were aborted. Part of the table of
//! producers, and derivable from the log like it.
//!
//! Invariants: markers rise, in `ending` and in `aborted`; a first offset is unstable exactly while its
//! transaction is open or its marker is not committed. Never decides what may be appended.

use std::collections::{BTreeSet, VecDeque};

use varve_types::{Offset, limits};

/// A transaction that was aborted: readers of committed records pass its records over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Id of its producer.
    pub producer: i64,
    /// Offset of its first record.
    pub first: Offset,
    /// Offset of its marker, after which the producer's records are of another transaction.
    pub last: Offset,
}

impl Aborted {
    const fn span(&self) -> u64 {
        self.last.since(self.first)
    }
}

/// Transactions of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transactions {
    /// First offsets of transactions that are open, or whose marker is not committed.
    unstable: BTreeSet<Offset>,
    /// Marker and first offset of those whose marker is not committed, markers rising.
    ending: VecDeque<(Offset, Offset)>,
    /// By marker, rising.
    aborted: Vec<Aborted>,
    /// Greatest number of offsets between the first record of an aborted transaction and its marker.
    longest: u64,
}

impl Transactions {
    /// Builds what a snapshot holds. `None` when it contradicts itself.
    pub(crate) fn new(
        open: impl Iterator<Item = Offset>,
        ending: Vec<(Offset, Offset)>,
        aborted: Vec<Aborted>,
    ) -> Option<Self> {
        let rising =
            ending.is_sorted_by(|a, b| a.0 < b.0) && aborted.is_sorted_by(|a, b| a.last < b.last);
        let after = ending.iter().all(|(marker, first)| first < marker)
            && aborted.iter().all(|a| a.first < a.last && a.producer >= 0);
        let mut unstable = BTreeSet::new();
        let firsts = ending.iter().map(|(_, first)| *first);
        let once = open.chain(firsts).all(|first| unstable.insert(first));
        (rising && after && once).then(|| Self {
            unstable,
            ending: ending.into(),
            longest: aborted.iter().map(Aborted::span).max().unwrap_or(0),
            aborted,
        })
    }

    /// A session's open transaction is another now.
    pub(crate) fn moved(&mut self, before: Option<Offset>, after: Option<Offset>) {
        if before == after {
            return;
        }
        if let Some(first) = before {
            self.unstable.remove(&first);
        }
        if let Some(first) = after {
            self.unstable.insert(first);
        }
    }

    /// The transaction that began at `first` has a marker. Its session has it no more.
    pub(crate) fn ended(&mut self, producer: i64, first: Offset, marker: Offset, aborted: bool) {
        self.unstable.insert(first);
        self.ending.push_back((marker, first));
        if aborted {
            let entry = Aborted {
                producer,
                first,
                last: marker,
            };
            self.longest = self.longest.max(entry.span());
            self.aborted.push(entry);
        }
    }

    /// The log ends at `end` again: markers from there on were never written. Their sessions get their
    /// transactions back by [`Self::moved`].
    pub(crate) fn cut(&mut self, end: Offset) {
        while let Some((marker, first)) = self.ending.back().copied()
            && marker >= end
        {
            self.ending.pop_back();
            self.unstable.remove(&first);
        }
        let keep = self.aborted.partition_point(|a| a.last < end);
        if keep < self.aborted.len() {
            self.aborted.truncate(keep);
            self.longest = self.aborted.iter().map(Aborted::span).max().unwrap_or(0);
        }
    }

    /// The first offset that may yet turn out to belong to an aborted transaction, given that everything below
    /// `high_watermark` is committed.
    pub(crate) fn stable_below(&mut self, high_watermark: Offset) -> Offset {
        while let Some((marker, first)) = self.ending.front().copied()
            && marker < high_watermark
        {
            self.ending.pop_front();
            self.unstable.remove(&first);
        }
        let first = self.unstable.first().copied();
        first.map_or(high_watermark, |first| first.min(high_watermark))
    }

    /// Records below `start` are gone.
    pub(crate) fn trim(&mut self, start: Offset) {
        let gone = self.aborted.partition_point(|a| a.last < start);
        self.aborted.drain(..gone);
    }

    /// Aborted transactions with an offset in `[from, to)`, by marker.
    pub(crate) fn aborted(&self, from: Offset, to: Offset) -> impl Iterator<Item = &Aborted> {
        let at = self.aborted.partition_point(|a| a.last < from);
        let longest = self.longest;
        self.aborted[at..]
            .iter()
            // A marker so far off has no record that far back.
            .take_while(move |a| a.last.since(to) < longest || a.last < to)
            .filter(move |a| a.first < to)
    }

    /// Open transactions, and those being ended, and aborted ones.
    fn count(&self) -> usize {
        self.unstable.len() + self.aborted.len()
    }

    /// Whether no further one may begin.
    pub(crate) fn is_full(&self) -> bool {
        self.count() >= limits::TRANSACTIONS_PER_PARTITION_MAX
    }

    /// Open transactions.
    pub(crate) fn open_count(&self) -> usize {
        self.unstable.len() - self.ending.len()
    }

    /// For a snapshot: marker and first offset of those that are not known to be committed.
    pub(crate) const fn ending(&self) -> &VecDeque<(Offset, Offset)> {
        &self.ending
    }

    /// For a snapshot.
    pub(crate) fn all_aborted(&self) -> &[Aborted] {
        &self.aborted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn o(n: i64) -> Offset {
        Offset::new(n).unwrap()
    }

    fn found(t: &Transactions, from: i64, to: i64) -> Vec<i64> {
        let all = t.aborted(o(from), o(to));
        all.map(|a| a.last.get()).collect()
    }

    #[test]
    fn aborted_ones_are_found_by_what_they_overlap() {
        let mut t = Transactions::default();
        for (first, marker) in [(0, 3), (5, 9), (4, 20), (30, 40)] {
            t.moved(None, Some(o(first)));
            t.moved(Some(o(first)), None);
            t.ended(7, o(first), o(marker), true);
        }
        assert_eq!(found(&t, 0, 1), [3]);
        assert_eq!(found(&t, 0, 4), [3]);
        assert_eq!(found(&t, 0, 5), [3, 20]);
        assert_eq!(found(&t, 3, 6), [3, 9, 20]);
        assert_eq!(found(&t, 9, 10), [9, 20]);
        assert_eq!(found(&t, 10, 30), [20]);
        assert_eq!(found(&t, 21, 30), Vec::<i64>::new());
        assert_eq!(found(&t, 40, 41), [40]);
        assert_eq!(found(&t, 41, 99), Vec::<i64>::new());
        t.trim(o(10));
        assert_eq!(found(&t, 0, 99), [20, 40]);
        t.cut(o(40));
        assert_eq!((found(&t, 0, 99), t.longest), (vec![20], 16));
    }

    #[test]
    fn a_transaction_is_unstable_until_its_marker_is_committed() {
        let mut t = Transactions::default();
        t.moved(None, Some(o(2)));
        assert_eq!(t.stable_below(o(1)), o(1));
        assert_eq!(t.stable_below(o(5)), o(2));
        t.moved(Some(o(2)), None);
        t.ended(7, o(2), o(5), false);
        assert_eq!((t.stable_below(o(5)), t.open_count()), (o(2), 0));
        assert_eq!(t.stable_below(o(6)), o(6));
    }

    #[test]
    fn the_bound_counts_what_may_yet_be_aborted() {
        let ending = vec![(o(3_000_000), o(2_000_000))];
        let aborted = |n: i64| {
            (0..n).map(|i| Aborted {
                producer: 1,
                first: o(2 * i),
                last: o(2 * i + 1),
            })
        };
        let most = limits::TRANSACTIONS_PER_PARTITION_MAX as i64;
        let below = Transactions::new(
            std::iter::empty(),
            ending.clone(),
            aborted(most - 2).collect(),
        );
        assert!(!below.unwrap().is_full());
        let open = std::iter::once(o(2_500_000));
        let full = Transactions::new(open, ending, aborted(most - 2).collect());
        assert!(full.unwrap().is_full());
    }
}
