//! One line in the log for all coordinators that load together, however many partitions there are.
//!
//! Whoever loads holds a [`Load`]. When the last one is let go of, the sum is logged.

use std::sync::Arc;

use parking_lot::Mutex;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    /// Loads that are under way.
    open: usize,
    partitions: usize,
    transactional_ids: usize,
    transactions: usize,
}

/// What is being loaded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Loading(Arc<Mutex<Sum>>);

/// A load that is under way.
#[derive(Debug)]
pub(crate) struct Load(Loading);

impl Loading {
    /// Something begins to load, or a round of starts begins that is one event.
    pub(crate) fn begin(&self) -> Load {
        self.0.lock().open += 1;
        Load(self.clone())
    }

    /// One load is over; the sum, when it was the last and there is something to tell.
    fn end(&self) -> Option<Sum> {
        let mut sum = self.0.lock();
        sum.open -= 1;
        if sum.open > 0 {
            return None;
        }
        let all = std::mem::take(&mut *sum);
        (all.partitions > 0).then_some(all)
    }
}

impl Load {
    /// A partition was read, with this in it.
    pub(crate) fn loaded(self, transactional_ids: usize, transactions: usize) {
        let mut sum = self.0.0.lock();
        sum.partitions += 1;
        sum.transactional_ids += transactional_ids;
        sum.transactions += transactions;
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(all) = self.0.end() {
            tracing::info!(
                partitions = all.partitions,
                transactional_ids = all.transactional_ids,
                open_transactions = all.transactions,
                "transaction coordinators ready"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_that_overlap_are_one_event() {
        let loading = Loading::default();
        let round = loading.begin();
        let (first, second, given_up) = (loading.begin(), loading.begin(), loading.begin());
        first.loaded(3, 1);
        drop(round);
        drop(given_up);
        assert_eq!(loading.0.lock().open, 1);
        // As its drop does it.
        second.0.0.lock().partitions += 1;
        let sum = loading.end();
        std::mem::forget(second);
        let expected = Sum {
            open: 0,
            partitions: 2,
            transactional_ids: 3,
            transactions: 1,
        };
        assert_eq!(sum, Some(expected));
        assert_eq!(*loading.0.lock(), Sum::default());
        // Nothing was read: nothing is told.
        let _round = loading.begin();
        assert_eq!(loading.end(), None);
        loading.0.lock().open = 1;
    }
}
