//! How many of something the coordinators of a node have together, where one limit of the node bounds all of them.
//!
//! Invariant: what a coordinator counted is taken back when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeCount(Arc<AtomicUsize>);

impl NodeCount {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// For a coordinator that has none yet.
    pub(crate) fn share(&self) -> Share {
        Share {
            all: self.clone(),
            own: 0,
        }
    }
}

/// The part of one coordinator.
#[derive(Debug)]
pub(crate) struct Share {
    all: NodeCount,
    own: usize,
}

impl Share {
    /// How many the other coordinators have.
    pub(crate) fn elsewhere(&self) -> usize {
        self.all.get() - self.own
    }

    /// This one has so many now.
    pub(crate) fn set(&mut self, own: usize) {
        match own.checked_sub(self.own) {
            Some(0) => {}
            Some(more) => {
                self.all.0.fetch_add(more, Ordering::Relaxed);
            }
            None => {
                self.all.0.fetch_sub(self.own - own, Ordering::Relaxed);
            }
        }
        self.own = own;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_taken_back() {
        let all = NodeCount::default();
        let (mut a, mut b) = (all.share(), all.share());
        a.set(5);
        b.set(2);
        a.set(3);
        assert_eq!((all.get(), a.elsewhere(), b.elsewhere()), (5, 2, 3));
        drop(a);
        assert_eq!((all.get(), b.elsewhere()), (2, 0));
    }
}
