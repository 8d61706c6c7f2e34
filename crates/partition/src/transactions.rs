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

/// The aborted transactions of a log, by marker.
#[derive(Debug, Clone, Default)]
pub struct AbortedList {
    /// Markers rising.
    list: Vec<Aborted>,
    /// Greatest number of offsets between the first record of one and its marker.
    longest: u64,
    /// Those whose marker is below were forgotten, because the log has nothing of them. An older view of it may.
    floor: Offset,
}

/// What was forgotten makes no difference: the log is without it.
impl PartialEq for AbortedList {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Eq for AbortedList {}

impl AbortedList {
    fn new(list: Vec<Aborted>) -> Self {
        let mut new = Self {
            list,
            ..Self::default()
        };
        new.measure();
        new
    }

    fn measure(&mut self) {
        self.longest = self.list.iter().map(Aborted::span).max().unwrap_or(0);
    }

    fn push(&mut self, aborted: Aborted) {
        self.longest = self.longest.max(aborted.span());
        self.list.push(aborted);
    }

    /// Markers from `end` on were never written.
    fn cut(&mut self, end: Offset) {
        let keep = self.list.partition_point(|a| a.last < end);
        if keep < self.list.len() {
            self.list.truncate(keep);
            self.measure();
        }
    }

    /// Of those whose marker is below `start` the log has no records.
    fn trim(&mut self, start: Offset) {
        self.floor = self.floor.max(start);
        let gone = self.list.partition_point(|a| a.last < start);
        if gone > 0 {
            self.list.drain(..gone);
            self.measure();
        }
    }

    /// Whoever reads what the log had before it was trimmed or compacted finds nothing here about transactions whose
    /// marker is below.
    #[must_use]
    pub const fn floor(&self) -> Offset {
        self.floor
    }

    /// Those with an offset in `[from, to)`.
    pub fn overlapping(&self, from: Offset, to: Offset) -> impl Iterator<Item = &Aborted> {
        let at = self.list.partition_point(|a| a.last < from);
        let longest = self.longest;
        self.list[at..]
            .iter()
            // A marker so far off has no record that far back.
            .take_while(move |a| a.last.since(to) < longest || a.last < to)
            .filter(move |a| a.first < to)
    }

    /// Becomes what `newer` is, at the price of the difference: a copy for readers is kept up to date by it.
    pub fn follow(&mut self, newer: &Self) {
        if let Some(first) = newer.list.first() {
            let gone = self.list.partition_point(|a| a.last < first.last);
            self.list.drain(..gone);
        } else {
            self.list.clear();
        }
        let known = |a: &Aborted| {
            let found = newer.list.binary_search_by_key(&a.last, |n| n.last);
            found.is_ok_and(|at| newer.list[at] == *a)
        };
        while self.list.last().is_some_and(|a| !known(a)) {
            self.list.pop();
        }
        let at = match self.list.last() {
            Some(last) => newer.list.partition_point(|n| n.last <= last.last),
            None => 0,
        };
        self.list.extend_from_slice(&newer.list[at..]);
        self.longest = newer.longest;
        self.floor = newer.floor;
    }

    /// All of them, by marker.
    #[must_use]
    pub fn all(&self) -> &[Aborted] {
        &self.list
    }
}

/// Transactions of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transactions {
    /// First offsets of transactions that are open, or whose marker is not committed.
    unstable: BTreeSet<Offset>,
    /// Marker and first offset of those whose marker is not committed, markers rising.
    ending: VecDeque<(Offset, Offset)>,
    aborted: AbortedList,
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
            aborted: AbortedList::new(aborted),
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
            self.aborted.push(Aborted {
                producer,
                first,
                last: marker,
            });
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
        self.aborted.cut(end);
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

    /// Nothing is left of transactions that ended below `start`, but those that were committed.
    pub(crate) fn trim(&mut self, start: Offset) {
        self.aborted.trim(start);
    }

    /// Those that were aborted.
    pub(crate) const fn aborted(&self) -> &AbortedList {
        &self.aborted
    }

    /// Open transactions, and those being ended, and aborted ones.
    fn count(&self) -> usize {
        self.unstable.len() + self.aborted.list.len()
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
        self.aborted.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn o(n: i64) -> Offset {
        Offset::new(n).unwrap()
    }

    fn found(t: &Transactions, from: i64, to: i64) -> Vec<i64> {
        let all = t.aborted().overlapping(o(from), o(to));
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
        assert_eq!((found(&t, 0, 99), t.aborted.longest), (vec![20], 16));
        // What is gone makes later searches no longer.
        t.trim(o(21));
        assert_eq!((t.aborted.longest, t.aborted.floor()), (0, o(21)));
    }

    #[test]
    fn a_copy_follows_cuts_trims_and_additions() {
        let entry = |producer, first, last| Aborted {
            producer,
            first: o(first),
            last: o(last),
        };
        let mut list = AbortedList::default();
        let mut copy = AbortedList::default();
        for n in 0..5 {
            list.push(entry(7, 10 * n, 10 * n + 5));
        }
        copy.follow(&list);
        assert_eq!(copy, list);
        // The last two were never written, and another came in the place of the first of them.
        list.cut(o(35));
        list.push(entry(8, 31, 35));
        copy.follow(&list);
        assert_eq!(copy, list);
        list.trim(o(16));
        list.push(entry(9, 2, 60));
        copy.follow(&list);
        assert_eq!((&copy, copy.floor()), (&list, o(16)));
        list.trim(o(61));
        copy.follow(&list);
        assert_eq!((copy.all(), copy.floor()), (&[][..], o(61)));
        copy.follow(&AbortedList::default());
        assert_eq!(copy, AbortedList::default());
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
