//! How fast moves may copy to this node: what its file says (`replica.move.max.bytes.per.second`), and the throttles
//! that tools set while moves run, under Kafka's names. The smallest of them holds.
//!
//! Invariants: replicas that are in sync are never held back; a throttle lasts until it is deleted or the node stops.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use varve_broker_api::{Error, Result, THROTTLES, Throttle};
use varve_types::ErrorKind;
use varve_vfs::Tick;

use crate::rate::Rate;

/// Throttles of moves between nodes; others are kept and shown only.
const OF_MOVES: [&str; 2] = [
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
];

/// See the module.
#[derive(Debug)]
pub(crate) struct Throttles {
    /// From the node's file; 0: no limit.
    configured: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rate: Rate,
    set: BTreeMap<&'static str, u64>,
}

impl Throttles {
    pub(crate) const fn new(configured: u64) -> Self {
        let state = State {
            rate: Rate::new(configured),
            set: BTreeMap::new(),
        };
        Self {
            configured,
            state: Mutex::new(state),
        }
    }

    /// Notes bytes that moves have copied, and says how long to pause before the next.
    pub(crate) fn spent(&self, bytes: u64, now: Tick) -> Duration {
        self.state.lock().rate.spent(bytes, now)
    }

    /// What is set now.
    pub(crate) fn all(&self) -> Vec<Throttle> {
        let state = self.state.lock();
        let set = state.set.iter();
        set.map(|(name, bytes)| Throttle {
            name,
            bytes_per_second: *bytes,
        })
        .collect()
    }

    /// Sets or deletes throttles: all of them or none.
    ///
    /// # Errors
    /// `InvalidConfig` for a name that there is not, or a rate of 0.
    pub(crate) fn set(&self, changes: &[(&'static str, Option<u64>)]) -> Result<()> {
        for (name, bytes) in changes {
            if !THROTTLES.contains(name) || *bytes == Some(0) {
                let text = format!(
                    "broker config {name:?} needs at least 1 byte per second, or nothing would move; nothing was changed"
                );
                return Err(Error::new(ErrorKind::InvalidConfig, text).with("key", *name));
            }
        }
        let mut state = self.state.lock();
        for (name, bytes) in changes {
            match bytes {
                Some(bytes) => state.set.insert(name, *bytes),
                None => state.set.remove(name),
            };
        }
        let limits = OF_MOVES
            .iter()
            .filter_map(|name| state.set.get(name).copied());
        let limits = limits.chain((self.configured > 0).then_some(self.configured));
        let limit = limits.min().unwrap_or(0);
        state.rate.set(limit);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::from_start(Duration::from_secs(seconds))
    }

    /// Whether a megabyte has to be paid for.
    fn pause(throttles: &Throttles, seconds: u64) -> Duration {
        throttles.spent(1_000_000, at(seconds))
    }

    #[test]
    fn the_smallest_limit_holds_and_ends_when_it_is_deleted() {
        let [follower, leader] = OF_MOVES;
        let throttles = Throttles::new(0);
        assert_eq!(pause(&throttles, 1), Duration::ZERO);
        throttles
            .set(&[(follower, Some(2_000_000)), (leader, Some(1_000_000))])
            .unwrap();
        assert_eq!(pause(&throttles, 100), Duration::from_millis(900));
        throttles.set(&[(leader, None)]).unwrap();
        assert_eq!(pause(&throttles, 200), Duration::from_millis(400));
        assert_eq!(throttles.all()[0].bytes_per_second, 2_000_000);
        throttles.set(&[(follower, None), (leader, None)]).unwrap();
        assert_eq!(pause(&throttles, 300), Duration::ZERO);
        assert!(throttles.all().is_empty());
    }

    #[test]
    fn the_limit_of_the_file_stays_and_a_bad_change_changes_nothing() {
        let [follower, leader] = OF_MOVES;
        let throttles = Throttles::new(1_000_000);
        throttles.set(&[(follower, Some(u64::MAX))]).unwrap();
        assert_eq!(pause(&throttles, 100), Duration::from_millis(900));
        let bad = throttles
            .set(&[(leader, Some(5)), (follower, Some(0))])
            .unwrap_err();
        assert_eq!(bad.kind, ErrorKind::InvalidConfig);
        assert_eq!(throttles.all().len(), 1);
    }
}
