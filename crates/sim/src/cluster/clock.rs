//! The clocks of a node: they run fast or slow, begin anywhere, and the one on the wall jumps.

use crate::rng::Rng;

/// Furthest that a wall clock is off, milliseconds.
const WALL_MS: u64 = 288_000;

/// What a node takes for the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    from: u64,
    /// Milliseconds in 1,000 true ones.
    rate: u64,
    wall: i64,
}

impl Clock {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut clock = Self {
            from: rng.below(1 << 40),
            rate: 950 + rng.below(101),
            wall: 0,
        };
        clock.jump(rng);
        clock
    }

    /// Somebody sets the clock on the wall.
    pub(super) fn jump(&mut self, rng: &mut Rng) {
        self.wall = rng.below(2 * WALL_MS) as i64 - WALL_MS as i64;
    }

    /// The clock that only grows.
    pub(super) const fn mono(&self, now: u64) -> u64 {
        self.from + now * self.rate / 1_000
    }

    /// The clock on the wall.
    pub(super) const fn wall(&self, now: u64) -> i64 {
        1_700_000_000_000 + now as i64 + self.wall
    }
}
