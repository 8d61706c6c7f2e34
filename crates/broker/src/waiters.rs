//! Readers parked at the end of partitions. A reader registers once with every partition it reads and is
//! woken by the first that moves; a partition without readers pays one relaxed load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Readers that wait for one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    parked: Mutex<Vec<Arc<Notify>>>,
    count: AtomicUsize,
}

impl Waiters {
    /// Adds a reader until [`Self::remove`] or the next [`Self::wake`].
    pub(crate) fn add(&self, reader: &Arc<Notify>) {
        let mut parked = self.parked.lock();
        if !parked.iter().any(|r| Arc::ptr_eq(r, reader)) {
            parked.push(Arc::clone(reader));
        }
        self.count.store(parked.len(), Ordering::SeqCst);
    }

    /// Removes a reader that no longer waits.
    pub(crate) fn remove(&self, reader: &Arc<Notify>) {
        let mut parked = self.parked.lock();
        parked.retain(|r| !Arc::ptr_eq(r, reader));
        self.count.store(parked.len(), Ordering::SeqCst);
    }

    /// Wakes everybody.
    pub(crate) fn wake(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let woken = std::mem::take(&mut *self.parked.lock());
        self.count.store(0, Ordering::SeqCst);
        for reader in woken {
            reader.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn one_wake_reaches_a_reader_of_many_partitions() {
        let partitions = [Waiters::default(), Waiters::default()];
        let reader = Arc::new(Notify::new());
        for p in &partitions {
            p.add(&reader);
            p.add(&reader);
        }
        assert!(reader.notified().now_or_never().is_none());
        partitions[1].wake();
        assert!(reader.notified().now_or_never().is_some());
        partitions[0].remove(&reader);
        partitions[0].wake();
        assert!(reader.notified().now_or_never().is_none());
    }
}
