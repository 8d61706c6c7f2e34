//! Byte permits: nothing is queued without one, and it is held while the bytes are this node's affair: until they are
//! in the log as safely as the topic asks of one replica, or the answer is there. When there is none the caller waits,
//! stops reading its socket, and the client feels it. This bounds every queue behind it.
//!
//! What waits for other replicas has given its bytes back, or one partition that cannot commit would stop all others.
//! Only its answer is owed then. What is bounded beside the bytes is how much each partition has that is not committed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use varve_types::Offset;

/// Bytes per permit of the semaphore: coarse, so that the count fits 32 bits.
const UNIT_BYTES: usize = 1024;

/// What an append that waits for other replicas counts for in its partition, at least: however small it is, its answer
/// takes memory, some hundred bytes of it.
const WAITING_UNIT_BYTES: usize = 4 * 1024;
/// How long an append waits for a partition that commits nothing. The caller's other partitions wait with it.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Bytes in flight through the whole broker.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    units: Arc<Semaphore>,
    total: u32,
}

/// The right to have some bytes in flight, and some uncommitted in a partition. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None`: the bytes are given back already.
    units: Option<OwnedSemaphorePermit>,
    _place: Option<Place>,
}

impl Permit {
    /// The same, with a place among what is uncommitted.
    pub(crate) fn placed(self, place: Option<Place>) -> Self {
        Self {
            _place: place,
            ..self
        }
    }

    /// The bytes are safe, or not needed any more: from here on only an answer is owed.
    pub(crate) fn give_back_bytes(&mut self) {
        self.units = None;
    }

    /// Whether the bytes are still counted.
    pub(crate) const fn holds_bytes(&self) -> bool {
        self.units.is_some()
    }
}

/// A place among what a partition has not committed. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(
    #[expect(dead_code, reason = "held, never looked at")] OwnedSemaphorePermit,
);

/// What one partition has taken from clients that wait for other replicas too. It bounds the answers that are owed, and
/// is the back-pressure of followers that are slower than their leader.
#[derive(Debug)]
pub(crate) struct Uncommitted {
    units: Arc<Semaphore>,
    total: u32,
    standstill: Duration,
}

impl Uncommitted {
    /// Takes `bytes` at a time.
    pub(crate) fn new(bytes: usize) -> Self {
        let total = (bytes / WAITING_UNIT_BYTES).clamp(1, u32::MAX as usize >> 4) as u32;
        Self {
            units: Arc::new(Semaphore::new(total as usize)),
            total,
            standstill: STANDSTILL,
        }
    }

    /// A place for `bytes`, which is waited for while `committed` moves. `None`: it stands still.
    pub(crate) async fn place(
        &self,
        bytes: usize,
        committed: impl Fn() -> Offset,
    ) -> Option<Place> {
        let units = (bytes.div_ceil(WAITING_UNIT_BYTES) as u32).clamp(1, self.total);
        let mut seen = committed();
        let place = Arc::clone(&self.units).acquire_many_owned(units);
        tokio::pin!(place);
        loop {
            if let Ok(place) = tokio::time::timeout(self.standstill, place.as_mut()).await {
                return place.ok().map(Place);
            }
            if std::mem::replace(&mut seen, committed()) == seen {
                return None;
            }
        }
    }
}

impl Admission {
    /// Admits `bytes` at a time.
    pub(crate) fn new(bytes: usize) -> Self {
        let total = (bytes / UNIT_BYTES).clamp(1, u32::MAX as usize >> 4) as u32;
        Self {
            units: Arc::new(Semaphore::new(total as usize)),
            total,
        }
    }

    /// Waits for room for `bytes`. Something larger than the whole budget waits for all of it. `None`
    /// once closed.
    pub(crate) async fn admit(&self, bytes: usize) -> Option<Permit> {
        let units = (bytes.div_ceil(UNIT_BYTES) as u32).clamp(1, self.total);
        let units = Arc::clone(&self.units)
            .acquire_many_owned(units)
            .await
            .ok()?;
        Some(Permit {
            units: Some(units),
            _place: None,
        })
    }

    /// Refuses everything from here on; what waits is refused too.
    pub(crate) fn close(&self) {
        self.units.close();
    }

    /// Bytes in flight, rounded up.
    pub(crate) fn in_flight_bytes(&self) -> u64 {
        let free = self.units.available_permits() as u64;
        u64::from(self.total).saturating_sub(free) * UNIT_BYTES as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn bytes_in_flight_are_bounded() {
        let admission = Admission::new(4096);
        let first = admission.admit(3000).now_or_never().flatten().unwrap();
        assert_eq!(admission.in_flight_bytes(), 3072);
        assert!(admission.admit(2000).now_or_never().is_none(), "no room");
        drop(first);
        let all = admission.admit(1 << 20).now_or_never().flatten();
        assert!(all.is_some(), "larger than the budget takes all of it");
        admission.close();
        assert!(admission.admit(1).now_or_never().unwrap().is_none());
    }

    #[tokio::test]
    async fn what_only_waits_for_others_holds_no_bytes_but_a_place_in_its_partition() {
        let admission = Admission::new(8192);
        let uncommitted = Uncommitted {
            standstill: Duration::from_millis(20),
            ..Uncommitted::new(8192)
        };
        let still = || Offset::ZERO;
        let mut waiting = Vec::new();
        for _ in 0..2 {
            // However little it is.
            let place = uncommitted.place(1, still).await;
            let permit = admission.admit(8192).now_or_never().flatten().unwrap();
            let mut permit = permit.placed(place);
            assert!(permit.holds_bytes());
            permit.give_back_bytes();
            assert!(!permit.holds_bytes());
            waiting.push(permit);
        }
        assert_eq!(admission.in_flight_bytes(), 0);
        assert!(uncommitted.place(1, still).await.is_none(), "no room");
        waiting.clear();
        let all = uncommitted.place(1 << 20, still).await;
        assert!(all.is_some(), "larger than the budget takes all of it");
        // Whoever waits where something is committed now and then goes on waiting.
        let commits = std::cell::Cell::new(0);
        let moving = || {
            commits.set(commits.get() + 1);
            Offset::ZERO.plus(commits.get())
        };
        let waits = uncommitted.place(1, moving);
        tokio::pin!(waits);
        let long = tokio::time::timeout(10 * uncommitted.standstill, waits.as_mut()).await;
        assert!(long.is_err(), "still waiting");
        drop(all);
        assert!(waits.await.is_some());
    }
}
