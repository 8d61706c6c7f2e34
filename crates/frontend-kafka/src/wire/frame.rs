//! Frames: a length of four bytes, and that many bytes. Sans-IO: a connection reads into a buffer and asks for
//! the next frame, and writes what a [`Frame`] consists of.
//!
//! A length is believed only as far as bytes arrive: a buffer grows with what was received, never with what was
//! announced, so that a slow sender of a huge length costs what it sends.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::header::Prefix;

/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;
/// The least that a buffer grows by.
const GROWTH_MIN_BYTES: usize = 8 * 1024;

/// A length that no request has. The connection cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Longer than the listener takes.
    #[error("a frame of {length} bytes is announced; the limit is {most}")]
    TooLong {
        /// Bytes announced.
        length: usize,
        /// The most that is taken.
        most: usize,
    },
    /// Shorter than what every request begins with, or negative.
    #[error("a frame of {0} bytes is announced, which is too short for any request")]
    TooShort(i32),
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Clone, Copy)]
pub struct FrameReader {
    max_bytes: usize,
}

impl FrameReader {
    /// Takes frames of up to `max_bytes`.
    #[must_use]
    pub const fn new(max_bytes: usize) -> Self {
        Self { max_bytes }
    }

    /// The next whole frame, without its length; a slice of the buffer, which keeps the rest. `None`: more
    /// bytes are needed, and the buffer has room for some.
    ///
    /// # Errors
    /// A length that is too long or too short. The buffer is as it was.
    pub fn next(&self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
            buffer.reserve(GROWTH_MIN_BYTES);
            return Ok(None);
        };
        let announced = i32::from_be_bytes(*length);
        let length = usize::try_from(announced)
            .ok()
            .filter(|length| *length >= Prefix::BYTES)
            .ok_or(FrameError::TooShort(announced))?;
        if length > self.max_bytes {
            let most = self.max_bytes;
            return Err(FrameError::TooLong { length, most });
        }
        let missing = (LENGTH_BYTES + length).saturating_sub(buffer.len());
        if missing > 0 {
            buffer.reserve(missing.min(buffer.len().max(GROWTH_MIN_BYTES)));
            return Ok(None);
        }
        let _length = buffer.split_to(LENGTH_BYTES);
        Ok(Some(buffer.split_to(length).freeze()))
    }
}

/// A frame to send, length included: its parts one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    parts: Vec<Bytes>,
    length: usize,
}

impl Frame {
    pub(super) const fn new(parts: Vec<Bytes>, length: usize) -> Self {
        Self { parts, length }
    }

    /// The parts, in order. Long byte fields are the slices that the message had.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// The parts, to be sent.
    #[must_use]
    pub fn into_parts(self) -> Vec<Bytes> {
        self.parts
    }

    /// Bytes of all parts together.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// All parts in one piece, copied unless there is only one.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        if self.parts.len() == 1 {
            return self.parts.remove(0);
        }
        self.parts.concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: i32, body: &[u8]) -> BytesMut {
        let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
        buffer.extend_from_slice(body);
        buffer
    }

    #[test]
    fn frames_are_cut_one_after_the_other() {
        let reader = FrameReader::new(100);
        let mut buffer = frame(9, b"123456789");
        buffer.extend_from_slice(&frame(8, b"abcdefg"));
        assert_eq!(
            reader.next(&mut buffer),
            Ok(Some(Bytes::from_static(b"123456789")))
        );
        assert_eq!(reader.next(&mut buffer), Ok(None));
        buffer.extend_from_slice(b"h12");
        assert_eq!(
            reader.next(&mut buffer),
            Ok(Some(Bytes::from_static(b"abcdefgh")))
        );
        assert_eq!(reader.next(&mut buffer), Ok(None));
        assert_eq!(&buffer[..], b"12");
    }

    #[test]
    fn lengths_that_no_request_has_are_refused() {
        let reader = FrameReader::new(1 << 20);
        for length in [-1, i32::MIN, 0, 7] {
            let refused = reader.next(&mut frame(length, b""));
            assert_eq!(refused, Err(FrameError::TooShort(length)));
        }
        for length in [(1 << 20) + 1, i32::MAX] {
            let refused = reader.next(&mut frame(length, b""));
            let length = length as usize;
            let most = 1 << 20;
            assert_eq!(refused, Err(FrameError::TooLong { length, most }));
        }
    }

    #[test]
    fn a_buffer_grows_with_what_arrives_and_not_with_what_is_announced() {
        let reader = FrameReader::new(i32::MAX as usize);
        let mut buffer = frame(i32::MAX, b"");
        for _ in 0..200 {
            assert_eq!(reader.next(&mut buffer), Ok(None));
            let most = 4 * buffer.len().max(GROWTH_MIN_BYTES);
            assert!(
                buffer.capacity() <= most,
                "{} for {}",
                buffer.capacity(),
                buffer.len()
            );
            assert!(
                buffer.capacity() > buffer.len(),
                "there is room to read into"
            );
            buffer.extend_from_slice(&[0; 700]);
        }
    }
}
