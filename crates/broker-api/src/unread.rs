//! The budget of a node for what was read of its logs and has not been taken by its reader yet: one for all streams
//! and connections of every protocol, so that readers that do not read cost a bounded amount of memory together.
//!
//! A front end gives each reader a small floor that needs no leave, so that a reader which does read always gets on,
//! and asks here for all that is beyond it. Invariant: nobody waits for this budget; what is short is the size of
//! reads. It never counts what is read for other nodes, nor what is on its way to the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module.
#[derive(Debug)]
pub struct UnreadBudget {
    limit: usize,
    held: AtomicUsize,
}

impl UnreadBudget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: AtomicUsize::new(0),
        })
    }

    /// The bound, in bytes.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that are held at present. Floors may take it beyond the bound.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// What one reader may have beyond its floor: a quarter of what is left, so that those who come later get some.
    #[must_use]
    pub fn share(&self) -> usize {
        self.limit.saturating_sub(self.held()) / 4
    }

    /// Counts bytes until the guard is dropped, whether there is room for them or not.
    #[must_use]
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Unread {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Unread {
            budget: Arc::clone(self),
            bytes,
        }
    }
}

/// Bytes that are held of a budget, until it is dropped.
#[derive(Debug)]
pub struct Unread {
    budget: Arc<UnreadBudget>,
    bytes: usize,
}

impl Unread {
    /// What is held now.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives bytes back, or takes more of them as far as there is room. Returns what is held now, at most `wanted`.
    pub fn resize(&mut self, wanted: usize) -> usize {
        let held = &self.budget.held;
        if wanted > self.bytes {
            let more = (wanted - self.bytes).min(self.budget.share());
            held.fetch_add(more, Ordering::Relaxed);
            self.bytes += more;
        } else {
            held.fetch_sub(self.bytes - wanted, Ordering::Relaxed);
            self.bytes = wanted;
        }
        self.bytes
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_readers_get_less_and_all_is_given_back() {
        let budget = UnreadBudget::new(1_000);
        let mut first = budget.hold(0);
        assert_eq!(first.resize(800), 250);
        let mut second = budget.hold(0);
        assert_eq!(second.resize(100), 100);
        assert_eq!(second.resize(800), 100 + (1_000 - 350) / 4);
        assert_eq!(first.resize(10), 10);
        assert_eq!(budget.held(), 10 + 262);
        // A floor is counted, and leaves nothing for others.
        let floor = budget.hold(5_000);
        assert_eq!(budget.share(), 0);
        assert_eq!(first.resize(50), 10);
        drop((first, second, floor));
        assert_eq!(budget.held(), 0);
    }
}
