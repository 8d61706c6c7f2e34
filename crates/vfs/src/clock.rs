//! Time as an argument. Cores never ask for it: whoever runs them reads a [`Clock`] and passes a [`Tick`].
//! Deadlines use the monotonic tick; wall-clock time is data (timestamps, retention) and may jump.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment of monotonic time: the span since the clock was made, in nanoseconds resolution. Ticks of
/// different clocks cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(Duration);

impl Tick {
    /// The moment the clock was made.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The moment `since_start` after the clock was made.
    #[must_use]
    pub const fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The span since the clock was made.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The span from `earlier` to this moment; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `span` before; the start of the clock when that lies before it.
    #[must_use]
    pub const fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }

    /// The moment `span` later.
    #[must_use]
    pub const fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// A source of time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Monotonic time.
    fn now(&self) -> Tick;

    /// Milliseconds since 1970-01-01 UTC, by a clock that people may set.
    fn wall_ms(&self) -> i64;
}

/// This machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Tick {
        Tick(self.start.elapsed())
    }

    fn wall_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(span) => i64::try_from(span.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }
}

/// A clock that moves only when told, for tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock {
    state: Mutex<(Tick, i64)>,
}

impl ManualClock {
    /// A clock at tick zero whose wall clock shows `wall_ms`.
    #[must_use]
    pub fn new(wall_ms: i64) -> Self {
        Self {
            state: Mutex::new((Tick::ZERO, wall_ms)),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (Tick, i64)> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Moves both clocks forward.
    pub fn advance(&self, span: Duration) {
        let mut state = self.state();
        state.0 = state.0.plus(span);
        state.1 = state
            .1
            .saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
    }

    /// Sets the wall clock, as a person or NTP does; monotonic time does not move.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        self.state().1 = wall_ms;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Tick {
        self.state().0
    }

    fn wall_ms(&self) -> i64 {
        self.state().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_ignores_wall_clock_jumps() {
        let clock = ManualClock::new(1_000);
        clock.advance(Duration::from_millis(5));
        clock.set_wall_ms(3);
        assert_eq!(clock.now(), Tick::from_start(Duration::from_millis(5)));
        assert_eq!(clock.wall_ms(), 3);
        assert_eq!(Tick::ZERO.since(clock.now()), Duration::ZERO);
    }

    #[test]
    fn system_clock_moves_forward() {
        let clock = SystemClock::new();
        let before = clock.now();
        assert!(clock.now() >= before);
        assert!(clock.wall_ms() > 1_600_000_000_000);
    }
}
