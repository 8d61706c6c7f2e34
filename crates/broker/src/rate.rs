//! A token bucket for work that must not take a whole disk: bytes are reported after they were moved, and the
//! answer is how long to pause.
//!
//! Invariants: over any span the bytes that were let through are at most rate × span + one burst + the last
//! report; time that nobody used is kept for one burst at most. Time is an argument; nothing here waits.

use std::time::Duration;

use varve_vfs::Tick;

/// Idle time that may be made up for.
const BURST: Duration = Duration::from_millis(100);

/// Bytes per second of one worker.
#[derive(Debug)]
pub(crate) struct Rate {
    /// 0: no limit.
    bytes_per_second: u64,
    /// When everything reported so far is paid for.
    paid: Tick,
}

impl Rate {
    pub(crate) const fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            paid: Tick::ZERO,
        }
    }

    /// Another rate from now on; what is open stays to be paid for.
    pub(crate) const fn set(&mut self, bytes_per_second: u64) {
        self.bytes_per_second = bytes_per_second;
    }

    /// Notes bytes that were moved and says how long to pause before the next.
    pub(crate) fn spent(&mut self, bytes: u64, now: Tick) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let earliest = Tick::from_start(now.since_start().saturating_sub(BURST));
        self.paid = self.paid.max(earliest).plus(cost);
        self.paid.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn without_a_limit_nothing_pauses() {
        let mut rate = Rate::new(0);
        assert_eq!(rate.spent(u64::MAX, at(0)), Duration::ZERO);
    }

    #[test]
    fn what_is_spent_is_paid_for_in_time() {
        let mut rate = Rate::new(1_000_000);
        // A second's worth, of which the burst is free.
        assert_eq!(
            rate.spent(1_000_000, at(10_000)),
            Duration::from_millis(900)
        );
        // Too early: what is open adds up.
        assert_eq!(rate.spent(100_000, at(10_500)), Duration::from_millis(500));
        assert_eq!(rate.spent(0, at(11_000)), Duration::ZERO);
    }

    #[test]
    fn idle_time_is_kept_for_one_burst() {
        let mut rate = Rate::new(1_000_000);
        assert_eq!(rate.spent(0, at(0)), Duration::ZERO);
        assert_eq!(rate.spent(100_000, at(3_600_000)), Duration::ZERO);
        assert_eq!(rate.spent(1_000, at(3_600_000)), Duration::from_millis(1));
    }

    #[test]
    fn over_a_long_run_the_rate_holds() {
        let mut rate = Rate::new(10 << 20);
        let (mut now, mut bytes) = (at(0), 0_u64);
        while now < at(60_000) {
            bytes += 70_000;
            now = now.plus(rate.spent(70_000, now).max(Duration::from_micros(100)));
        }
        let limit = (10_u64 << 20) * 60 + (10 << 20) / 10 + 70_000;
        assert!(
            bytes <= limit && bytes > limit * 98 / 100,
            "{bytes} of {limit}"
        );
    }
}
