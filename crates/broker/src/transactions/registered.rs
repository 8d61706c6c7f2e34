//! What the leader's questions have found out, shared by those who ask and those who write markers.

use parking_lot::Mutex;
use varve_partition::Verified;
use varve_types::{Offset, ProducerId};

/// See [`varve_partition::Registered`].
#[derive(Debug, Default)]
pub(crate) struct Registered(Mutex<varve_partition::Registered>);

impl Registered {
    pub(crate) fn verified(&self, producer: ProducerId) -> Verified {
        self.0.lock().verified(producer)
    }

    pub(crate) fn note(&self, producer: ProducerId, verified: Verified) {
        self.0.lock().note(producer, verified);
    }

    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }

    pub(crate) fn ended(&self, marker: ProducerId, kept_at: Option<Offset>) {
        self.0.lock().ended(marker, kept_at);
    }
}
