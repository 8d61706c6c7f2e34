//! A bound on log lines that strangers can cause: whoever reaches a port could fill the disk with them otherwise.
//!
//! Invariant: at most [`LINES_PER_SECOND`] lines in a second of one limit, whatever the number of threads.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Lines of one limit in one second.
pub const LINES_PER_SECOND: u32 = 10;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Counts lines. One for each kind of line.
#[derive(Debug, Default)]
pub struct LogLimit {
    /// The second in the upper half, its lines in the lower.
    state: AtomicU64,
}

impl LogLimit {
    /// No line yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
        }
    }

    /// Whether one more line may be logged.
    pub fn allows(&self) -> bool {
        self.allows_in(BEGAN.elapsed().as_secs())
    }

    fn allows_in(&self, second: u64) -> bool {
        let second = second << 32;
        let counted = |state: u64| {
            let lines = if state & !u64::from(u32::MAX) == second {
                state & u64::from(u32::MAX)
            } else {
                0
            };
            Some(second | (lines + 1).min(u64::from(u32::MAX)))
        };
        let before = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted)
            .unwrap_or_default();
        let fresh = before & !u64::from(u32::MAX) != second;
        fresh || before & u64::from(u32::MAX) < u64::from(LINES_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines() {
        let limit = LogLimit::new();
        for second in [7, 8] {
            let allowed = (0..100).filter(|_| limit.allows_in(second)).count();
            assert_eq!(allowed, LINES_PER_SECOND as usize);
        }
        assert!(limit.allows());
    }
}
