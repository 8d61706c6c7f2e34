//! A queue into a worker: many pushers, and one or more workers that wait for work, on threads or as tasks.
//!
//! The queue itself has no bound; whoever pushes holds a permit of [`crate::admission`] or is one of a
//! fixed number of owners, so its length is bounded by those.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::{Condvar, Mutex};

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
    /// Tasks that wait; none where workers are threads.
    tasks: Vec<Waker>,
}

/// Queue into one or more workers.
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
            tasks: Vec::new(),
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
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        self.ready.notify_one();
        tasks.into_iter().for_each(Waker::wake);
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

    /// Waits for one item and takes it. `false` once the queue is closed and empty.
    pub(crate) fn take_one(&self, into: &mut VecDeque<T>) -> bool {
        debug_assert!(into.is_empty());
        let mut state = self.state.lock();
        while state.items.is_empty() && !state.closed {
            self.ready.wait(&mut state);
        }
        into.extend(state.items.pop_front());
        !into.is_empty()
    }

    /// As [`Self::take_all`] and [`Self::take_one`], for a task: there is something, or the queue is closed.
    pub(crate) async fn ready(&self) {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if !state.items.is_empty() || state.closed {
                return Poll::Ready(());
            }
            state.tasks.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Takes what is there, `one` item or all, without waiting. Returns whether the queue goes on.
    pub(crate) fn try_take(&self, one: bool, into: &mut VecDeque<T>) -> bool {
        debug_assert!(into.is_empty());
        let mut state = self.state.lock();
        if one {
            into.extend(state.items.pop_front());
        } else {
            std::mem::swap(&mut state.items, into);
        }
        !into.is_empty() || !state.closed
    }

    /// Refuses further items; those queued are still taken.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        self.ready.notify_all();
        tasks.into_iter().for_each(Waker::wake);
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
        let mut taken = VecDeque::new();
        assert!(inbox.take_one(&mut taken));
        assert_eq!(std::mem::take(&mut taken), [1]);
        assert!(inbox.take_all(&mut taken));
        assert_eq!(std::mem::take(&mut taken), [2]);
        assert!(!inbox.take_all(&mut taken));
        assert!(!inbox.take_one(&mut taken));
    }

    #[test]
    fn a_waiting_thread_is_woken() {
        let inbox = Inbox::new();
        let other = Arc::clone(&inbox);
        let thread = std::thread::spawn(move || {
            let mut taken = VecDeque::new();
            other.take_one(&mut taken);
            taken
        });
        inbox.push(7).unwrap();
        assert_eq!(thread.join().unwrap(), [7]);
    }
}
