//! What the transport has taken of a stream, and whether it waits for more. A stream reads by this: little, and only
//! when it is asked for more, until its client has shown that it reads; then ahead of it, in larger pieces.
//!
//! Invariant: a message counts as taken once the transport asks for what follows it, never before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;
use varve_broker_api::Unread;

/// A client that has taken this much of its stream reads it.
const PROVEN_BYTES: usize = 256 * 1024;
/// Largest message until then, unless one record or batch is larger.
const UNPROVEN_MESSAGE_BYTES: usize = 16 * 1024;
/// Largest message that needs no leave of the budget.
const FLOOR_BYTES: usize = 64 * 1024;
/// A message is at most this part of what the client has taken.
const TAKEN_PER_MESSAGE: usize = 32;
/// Messages of a stream that are in memory: being sent, waiting, and being made.
const MESSAGES_HELD: usize = 3;
#[derive(Debug, Default)]
struct State {
    taken: AtomicUsize,
    hungry: AtomicBool,
    asked: Notify,
}

/// See the module. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<State>);

impl Pace {
    /// Bytes of records that the transport has taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Whether the transport waits for a message.
    #[must_use]
    pub fn hungry(&self) -> bool {
        self.0.hungry.load(Ordering::Acquire)
    }

    /// Resolves once the transport waits for a message. For one task only; may be dropped.
    pub async fn asked(&self) {
        while !self.hungry() {
            self.0.asked.notified().await;
        }
    }

    /// The transport asks for a message; those bytes are what it was given last.
    pub fn took(&self, bytes: usize) {
        if bytes > 0 {
            self.0.taken.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// There is no message for it.
    pub fn found_nothing(&self) {
        if !self.0.hungry.swap(true, Ordering::AcqRel) {
            self.0.asked.notify_one();
        }
    }

    /// It was given a message.
    pub fn given(&self) {
        self.0.hungry.store(false, Ordering::Release);
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
        pace.given();
        assert!(!window.is_open());
        pace.took(PROVEN_BYTES);
        assert!(window.is_open());
        // What is left to read is not known yet.
        assert_eq!(window.next(MIB), FLOOR_BYTES);
        pace.took(100 * MIB);
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
