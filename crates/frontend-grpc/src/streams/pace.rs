//! What the transport has taken of a stream, and whether it waits for more. A stream reads by this: little, and only
//! when it is asked for more, until its client has shown that it reads; then ahead of it, in larger pieces.
//!
//! Invariant: bytes count as taken once the transport lets go of them, which is when they are in the socket. That it
//! asks for more says nothing: it asks for one piece more than the socket takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;
use varve_broker_api::Unread;

/// A client that has taken this much of its stream reads it.
const PROVEN_BYTES: usize = 256 * 1024;
/// Largest message until then, unless one record or batch is larger.
const UNPROVEN_MESSAGE_BYTES: usize = 16 * 1024;
/// Largest message that needs no leave of the budget.
pub const FLOOR_BYTES: usize = 64 * 1024;
/// A message is at most this part of what the client has taken.
const TAKEN_PER_MESSAGE: usize = 32;
/// Messages of a stream that are in memory: being sent, waiting, and being made.
const MESSAGES_HELD: usize = 3;
#[derive(Debug, Default)]
struct State {
    taken: AtomicUsize,
    /// Bytes that the transport has and the socket has not.
    in_flight: AtomicUsize,
    /// The transport found no message.
    empty: AtomicBool,
    asked: Notify,
}

/// See the module. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<State>);

impl Pace {
    /// Bytes that the socket has taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Whether the transport waits for a message: it has none, and nothing of earlier ones.
    #[must_use]
    pub fn hungry(&self) -> bool {
        self.0.empty.load(Ordering::Acquire) && self.0.in_flight.load(Ordering::Acquire) == 0
    }

    /// Resolves once the transport waits for a message. For one task only; may be dropped.
    pub async fn asked(&self) {
        while !self.hungry() {
            self.0.asked.notified().await;
        }
    }

    /// The transport asked for a message, and there is none.
    pub fn found_nothing(&self) {
        self.0.empty.store(true, Ordering::Release);
        self.0.asked.notify_one();
    }

    /// There is a message for it.
    pub fn given(&self) {
        self.0.empty.store(false, Ordering::Release);
    }

    /// Bytes on their way to the socket, which count as taken when they are let go of.
    #[must_use]
    pub fn track(&self, bytes: Bytes) -> Bytes {
        self.0.in_flight.fetch_add(bytes.len(), Ordering::AcqRel);
        let pace = self.clone();
        Bytes::from_owner(InFlight { bytes, pace })
    }
}

struct InFlight {
    bytes: Bytes,
    pace: Pace,
}

impl AsRef<[u8]> for InFlight {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let (state, bytes) = (&self.pace.0, self.bytes.len());
        state.taken.fetch_add(bytes, Ordering::Relaxed);
        state.in_flight.fetch_sub(bytes, Ordering::AcqRel);
        state.asked.notify_one();
    }
}

/// How much a stream may read at a time, and when. Until its client has taken 256 KiB, it reads only when its
/// transport asks, one small message at a time, and forgets what else it had to read for that; then it reads ahead, and
/// what it reads beyond a floor comes of the node's budget.
#[derive(Debug)]
pub struct Window {
    pace: Pace,
    unread: Unread,
    last_read: usize,
}

impl Window {
    /// A window by what `pace` says, with a part of the node's budget.
    #[must_use]
    pub const fn new(pace: Pace, unread: Unread) -> Self {
        Self {
            pace,
            unread,
            last_read: 0,
        }
    }

    /// Whether the stream reads ahead of its transport: its client has shown that it reads.
    #[must_use]
    pub fn reads_ahead(&self) -> bool {
        self.pace.taken() >= PROVEN_BYTES
    }

    /// Whether a read may begin now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.reads_ahead() || self.pace.hungry()
    }

    /// Resolves once [`Self::is_open`]. May be dropped.
    pub async fn opened(&self) {
        self.pace.asked().await;
    }

    /// Bytes that the next message may have, of at most `most`.
    pub fn next(&mut self, most: usize) -> usize {
        if !self.reads_ahead() {
            self.unread.resize(0);
            return most.min(UNPROVEN_MESSAGE_BYTES);
        }
        let floor = most.min(FLOOR_BYTES);
        // A reader at the end of a log needs little, however much it has read before.
        let wanted = (self.pace.taken() / TAKEN_PER_MESSAGE).min(self.last_read.saturating_mul(4));
        let beyond = wanted.clamp(floor, most) - floor;
        floor + self.unread.resize(beyond * MESSAGES_HELD) / MESSAGES_HELD
    }

    /// Takes in how many bytes a read came to.
    pub const fn read(&mut self, bytes: usize) {
        self.last_read = bytes;
    }
}

#[cfg(test)]
mod tests {
    use varve_broker_api::UnreadBudget;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn messages_grow_with_what_is_taken_and_what_there_is() {
        let budget = UnreadBudget::new(96 * MIB);
        let pace = Pace::default();
        let mut window = Window::new(pace.clone(), budget.hold(0));
        assert!(!window.is_open());
        assert_eq!(window.next(MIB), UNPROVEN_MESSAGE_BYTES);
        pace.found_nothing();
        assert!(window.is_open());
        // The transport asks for more while it still has all of this.
        let first = pace.track(Bytes::from(vec![7; PROVEN_BYTES]));
        assert_eq!((first[0], window.is_open()), (7, false));
        drop(first.clone());
        assert_eq!((pace.taken(), window.is_open()), (0, false));
        drop(first);
        pace.given();
        assert_eq!((pace.taken(), window.is_open()), (PROVEN_BYTES, true));
        // What is left to read is not known yet.
        assert_eq!(window.next(MIB), FLOOR_BYTES);
        drop(pace.track(Bytes::from(vec![7; 100 * MIB])));
        for (read, next) in [
            (FLOOR_BYTES, 4 * FLOOR_BYTES),
            (MIB, MIB),
            (10, FLOOR_BYTES),
        ] {
            window.read(read);
            assert_eq!(window.next(MIB), next);
        }
        assert_eq!(budget.held(), 0);
        // A budget that is used up leaves the floor, and a small bound of the client holds in any case.
        let others = budget.hold(96 * MIB);
        window.read(MIB);
        assert_eq!(window.next(MIB), FLOOR_BYTES);
        assert_eq!(window.next(1000), 1000);
        drop(others);
        assert_eq!(window.next(MIB), MIB);
        drop(window);
        assert_eq!(budget.held(), 0);
    }
}
