//! Byte permits: nothing is queued without one, and it is held until the answer. When there is none the
//! caller waits, stops reading its socket, and the client feels it. This bounds every queue behind it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes per permit of the semaphore: coarse, so that the count fits 32 bits.
const UNIT_BYTES: usize = 1024;

/// Bytes in flight through the whole broker.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    units: Arc<Semaphore>,
    total: u32,
}

/// The right to have some bytes in flight. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _units: OwnedSemaphorePermit,
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
        Some(Permit { _units: units })
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
}
