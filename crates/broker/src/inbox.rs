//! A queue into a thread: many pushers, and one or more threads that wait for work.
//!
//! The queue itself has no bound; whoever pushes holds a permit of [`crate::admission`] or is one of a
//! fixed number of owners, so its length is bounded by those.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// Queue into one or more threads.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            items: VecDeque::new(),
            closed: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            ready: Condvar::new(),
        })
    }

    /// Queues an item; gives it back once the queue is closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for items and takes all of them. `false` once the queue is closed and empty.
    pub(crate) fn take_all(&self, into: &mut VecDeque<T>) -> bool {
        debug_assert!(into.is_empty());
        let mut state = self.state.lock();
        while state.items.is_empty() && !state.closed {
            self.ready.wait(&mut state);
        }
        std::mem::swap(&mut state.items, into);
        !into.is_empty()
    }

    /// Waits for one item. `None` once the queue is closed and empty.
    pub(crate) fn take_one(&self) -> Option<T> {
        let mut state = self.state.lock();
        while state.items.is_empty() && !state.closed {
            self.ready.wait(&mut state);
        }
        state.items.pop_front()
    }

    /// Refuses further items; those queued are still taken.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }

    /// Number of items that wait.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().items.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_queued_before_close_is_still_taken() {
        let inbox = Inbox::new();
        inbox.push(1).unwrap();
        inbox.push(2).unwrap();
        inbox.close();
        assert_eq!(inbox.push(3), Err(3));
        assert_eq!(inbox.take_one(), Some(1));
        let mut rest = VecDeque::new();
        assert!(inbox.take_all(&mut rest));
        assert_eq!(rest, [2]);
        rest.clear();
        assert!(!inbox.take_all(&mut rest));
        assert_eq!(inbox.take_one(), None);
    }

    #[test]
    fn a_waiting_thread_is_woken() {
        let inbox = Inbox::new();
        let other = Arc::clone(&inbox);
        let thread = std::thread::spawn(move || other.take_one());
        inbox.push(7).unwrap();
        assert_eq!(thread.join().unwrap(), Some(7));
    }
}
