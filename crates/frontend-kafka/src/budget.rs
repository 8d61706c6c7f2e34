//! Leave to hold the bytes of large requests.
//!
//! Appends and everything else have a budget each: requests that wait long (for records, for a group) do not keep
//! records out. One peer has at most half of each, so that a peer which announces much and sends little does not keep
//! out others. Leave is given for a whole request at once, first come first served, so that two that wait cannot wait
//! for each other.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use varve_types::limits;

/// Largest frame of anything but an append.
pub const CONTROL_MAX_BYTES: usize = limits::KAFKA_CONTROL_MAX_BYTES;

/// What a request is to the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It brings records.
    Append,
    /// Any other.
    Control,
}

/// The right to hold one request; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    _of_all: OwnedSemaphorePermit,
    _of_peer: OwnedSemaphorePermit,
}

/// The budget of a server.
#[derive(Debug)]
pub struct Budget {
    all: [Arc<Semaphore>; 2],
    peers: Mutex<HashMap<IpAddr, Weak<PeerBudget>>>,
    of_peer: [usize; 2],
}

/// What is left to one peer; shared by its connections.
#[derive(Debug)]
pub struct PeerBudget {
    budget: Arc<Budget>,
    address: IpAddr,
    left: [Arc<Semaphore>; 2],
}

impl Budget {
    /// So many bytes for appends, of which the largest request has `append_max`, and so many for all others.
    #[must_use]
    pub fn new(appends: usize, append_max: usize, control: usize, control_max: usize) -> Arc<Self> {
        let most = |bytes: usize, one: usize| bytes.max(one).min(Semaphore::MAX_PERMITS);
        let half = |bytes: usize, one: usize| most(bytes / 2, one);
        let all = [most(appends, append_max), most(control, control_max)];
        Arc::new(Self {
            all: all.map(|bytes| Arc::new(Semaphore::new(bytes))),
            peers: Mutex::default(),
            of_peer: [half(appends, append_max), half(control, control_max)],
        })
    }

    /// That of a peer, for one more connection of it.
    #[must_use]
    pub fn of(self: &Arc<Self>, address: IpAddr) -> Arc<PeerBudget> {
        let mut peers = self.peers.lock();
        if let Some(known) = peers.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        let peer = Arc::new(PeerBudget {
            budget: Arc::clone(self),
            address,
            left: self.of_peer.map(|bytes| Arc::new(Semaphore::new(bytes))),
        });
        peers.insert(address, Arc::downgrade(&peer));
        peer
    }
}

impl PeerBudget {
    /// Waits for the right to hold so many bytes. Nothing is held by one that is dropped.
    ///
    /// Never more than the largest request of its kind, or it waits for ever.
    pub async fn take(self: Arc<Self>, kind: Kind, bytes: u32) -> Option<Share> {
        let kind = usize::from(kind == Kind::Control);
        // The peer's first: whoever waits for the whole then holds nothing that others want.
        let of_peer = Arc::clone(&self.left[kind]).acquire_many_owned(bytes);
        let of_peer = of_peer.await.ok()?;
        let of_all = Arc::clone(&self.budget.all[kind]).acquire_many_owned(bytes);
        Some(Share {
            _of_all: of_all.await.ok()?,
            _of_peer: of_peer,
        })
    }
}

impl Drop for PeerBudget {
    fn drop(&mut self) {
        let mut peers = self.budget.peers.lock();
        // Another may have come in its place meanwhile.
        if peers
            .get(&self.address)
            .is_some_and(|known| known.strong_count() == 0)
        {
            peers.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_peer_leaves_half_to_others_and_waits_for_itself() {
        let budget = Budget::new(100, 10, 40, 10);
        let one = budget.of(address(1));
        let take = |peer: &Arc<PeerBudget>, kind, bytes| Arc::clone(peer).take(kind, bytes);
        let held: Vec<_> = (0..5)
            .map(|_| {
                take(&one, Kind::Append, 10)
                    .now_or_never()
                    .flatten()
                    .unwrap()
            })
            .collect();
        assert!(take(&one, Kind::Append, 1).now_or_never().is_none());
        // Another connection of the same peer has no more.
        assert!(
            take(&budget.of(address(1)), Kind::Append, 1)
                .now_or_never()
                .is_none()
        );
        // What is no append has its own, and so have others.
        assert!(take(&one, Kind::Control, 10).now_or_never().is_some());
        let two = budget.of(address(2));
        let others: Vec<_> = (0..5)
            .map(|_| {
                take(&two, Kind::Append, 10)
                    .now_or_never()
                    .flatten()
                    .unwrap()
            })
            .collect();
        let three = budget.of(address(3));
        assert!(take(&three, Kind::Append, 1).now_or_never().is_none());
        drop(others);
        assert!(take(&three, Kind::Append, 1).now_or_never().is_some());
        drop(held);
        assert!(take(&one, Kind::Append, 10).now_or_never().is_some());
    }

    #[test]
    fn peers_that_are_gone_are_forgotten() {
        let budget = Budget::new(100, 10, 40, 10);
        let one = budget.of(address(1));
        let again = budget.of(address(1));
        drop(one);
        assert_eq!(budget.peers.lock().len(), 1);
        drop(again);
        assert!(budget.peers.lock().is_empty());
    }

    #[test]
    fn the_largest_request_fits_into_any_budget() {
        let budget = Budget::new(1, 64, 1, 32);
        let one = budget.of(address(1));
        assert!(
            Arc::clone(&one)
                .take(Kind::Append, 64)
                .now_or_never()
                .is_some()
        );
        assert!(one.take(Kind::Control, 32).now_or_never().is_some());
    }
}
