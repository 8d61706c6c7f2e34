//! Buffers that large reads are made into, used again once every reader has let go of what was read. Memory
//! fresh from the system costs a page fault per page before the first byte is in it, and none of it is in a
//! CPU's cache; a buffer that was just in use costs neither.
//!
//! Invariants: a buffer is in the pool or lent, never both; a small slice never keeps a large buffer from the
//! others; the pool holds a bounded number of buffers of bounded size.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Reads of fewer bytes get memory of their own.
const POOLED_MIN_BYTES: usize = 256 * 1024;
/// Larger buffers are not kept.
const POOLED_MAX_BYTES: usize = 4 * 1024 * 1024;

/// A pool of read buffers. Clones share it; the default one keeps nothing.
#[derive(Debug, Clone, Default)]
pub struct ReadBuffers {
    pool: Arc<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    /// The last one returned is the first one lent: it is the warmest.
    free: Mutex<Vec<Vec<u8>>>,
    kept: usize,
}

impl Pool {
    fn give_back(&self, mut buffer: Vec<u8>) {
        if !(POOLED_MIN_BYTES..=POOLED_MAX_BYTES).contains(&buffer.capacity()) {
            return;
        }
        buffer.clear();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.kept {
            free.push(buffer);
        }
    }
}

/// A buffer with what was read into it; goes back to its pool when the last slice of it is dropped.
struct Lent {
    buffer: Vec<u8>,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.buffer));
    }
}

impl ReadBuffers {
    /// A pool that keeps at most `kept` buffers of at most 4 MiB each.
    #[must_use]
    pub fn new(kept: usize) -> Self {
        let pool = Pool {
            free: Mutex::default(),
            kept,
        };
        Self {
            pool: Arc::new(pool),
        }
    }

    /// An empty buffer for a read of `len` bytes.
    pub(crate) fn take(&self, len: usize) -> Vec<u8> {
        if len < POOLED_MIN_BYTES {
            return Vec::new();
        }
        let mut free = self
            .pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_default()
    }

    /// Takes back a buffer that nothing was shared of.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        self.pool.give_back(buffer);
    }

    /// The part `from..to` of a buffer as shared bytes.
    pub(crate) fn share(&self, buffer: Vec<u8>, from: usize, to: usize) -> Bytes {
        if self.pool.kept == 0 || buffer.capacity() < POOLED_MIN_BYTES {
            return Bytes::from(buffer).slice(from..to);
        }
        if to - from < buffer.capacity() / 2 {
            let small = Bytes::copy_from_slice(&buffer[from..to]);
            self.pool.give_back(buffer);
            return small;
        }
        let pool = Arc::clone(&self.pool);
        Bytes::from_owner(Lent { buffer, pool }).slice(from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(buffers: &ReadBuffers) -> usize {
        buffers.pool.free.lock().unwrap().len()
    }

    fn filled(buffers: &ReadBuffers, len: usize) -> Vec<u8> {
        let mut buffer = buffers.take(len);
        assert!(buffer.is_empty());
        buffer.resize(len, 7);
        buffer
    }

    #[test]
    fn a_buffer_returns_with_its_last_slice_and_is_used_again() {
        let buffers = ReadBuffers::new(2);
        let buffer = filled(&buffers, 1 << 20);
        let at = buffer.as_ptr();
        let whole = buffers.share(buffer, 0, 1 << 20);
        let part = whole.slice(10..20);
        drop(whole);
        assert_eq!(free(&buffers), 0);
        assert_eq!(part.as_ref(), [7; 10]);
        drop(part);
        assert_eq!(free(&buffers), 1);
        let again = buffers.take(1 << 20);
        assert_eq!(again.as_ptr(), at);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = ReadBuffers::new(2);
        let all: Vec<Bytes> = [1 << 20, 1 << 20, 1 << 20, POOLED_MAX_BYTES + 1, 100]
            .map(|len| buffers.share(filled(&buffers, len), 0, len))
            .into();
        drop(all);
        assert_eq!(free(&buffers), 2);
        let none = ReadBuffers::default();
        drop(none.share(filled(&none, 1 << 20), 0, 1 << 20));
        assert_eq!(free(&none), 0);
    }

    #[test]
    fn a_small_slice_does_not_hold_a_large_buffer() {
        let buffers = ReadBuffers::new(2);
        let slice = buffers.share(filled(&buffers, 1 << 20), 5, 105);
        assert_eq!((slice.as_ref(), free(&buffers)), ([7; 100].as_slice(), 1));
    }
}
