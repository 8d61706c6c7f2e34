//! Pauses between attempts: exponential, with jitter, bounded. Randomness comes from a seed that the
//! caller gives, so that a test sees the same pauses every time.

use std::time::Duration;

/// A small generator of random numbers (xorshift64*). Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that starts from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // The state must not be 0.
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is at least 1.
    pub const fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() >> 32) as usize % bound
    }
}

/// How long to wait before an attempt is repeated.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Pause after the first failure.
    pub first: Duration,
    /// Longest pause.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            max: Duration::from_secs(1),
        }
    }
}

impl Backoff {
    /// The pause after `failures` failures in a row (1, 2, ...): doubled each time, give or take 20 %.
    #[must_use]
    pub fn pause(&self, failures: u32, random: &mut Random) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1 << failures.saturating_sub(1).min(20));
        let base = doubled.min(self.max);
        base.mul_f64(0.8 + 0.4 * (random.below(1000) as f64 / 1000.0))
            .min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_stay_bounded() {
        let backoff = Backoff::default();
        let mut random = Random::new(7);
        for (failures, expected) in [(1, 50), (2, 100), (3, 200), (5, 800)] {
            let pause = backoff.pause(failures, &mut random).as_millis();
            assert!(
                pause >= expected * 8 / 10 && pause <= expected * 12 / 10,
                "{pause}"
            );
        }
        for failures in [6, 30, u32::MAX] {
            assert!(backoff.pause(failures, &mut random) <= backoff.max);
        }
    }

    #[test]
    fn equal_seeds_give_equal_numbers() {
        let (mut a, mut b) = (Random::new(5), Random::new(5));
        let numbers: Vec<_> = (0..100).map(|_| a.below(8)).collect();
        assert_eq!(numbers, (0..100).map(|_| b.below(8)).collect::<Vec<_>>());
        for number in 0..8 {
            assert!(numbers.contains(&number));
        }
    }
}
