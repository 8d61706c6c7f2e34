//! Reading frames from a connection: whole, bounded, and in time.
//!
//! Invariants: a frame longer than the listener takes is refused by its length alone; beyond
//! [`FREE_BYTES`] a frame takes its share of the server's budget before memory is taken for it, all of it at once, so that
//! connections cannot wait for each other; a frame that has begun ends in time or the connection does. A read
//! that is dropped loses nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::wire::frame::LENGTH_BYTES;
use crate::wire::{FrameError, FrameReader};

/// Bytes of a frame that a connection may hold without a share of the budget.
pub const FREE_BYTES: usize = 64 * 1024;

/// A request as it came, with its share of the budget.
#[derive(Debug)]
pub struct Arrived {
    /// The frame without its length.
    pub frame: Bytes,
    /// Given back when the request is answered.
    pub share: Option<OwnedSemaphorePermit>,
}

/// Why a connection gives no more frames.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The client closed it between two frames.
    #[error("the client closed the connection")]
    Closed,
    /// The client closed it within a frame.
    #[error("the client closed the connection within a request")]
    CutOff,
    /// Nothing came for too long.
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    /// A frame had begun and did not end.
    #[error("a request had begun and was not complete after {0:?}")]
    Slow(Duration),
    /// A length that is not taken.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The transport failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Times of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Silence after which it is closed.
    pub idle: Duration,
    /// Silence with which it may begin.
    pub first: Duration,
    /// Longest time from the first byte of a frame to its last.
    pub frame: Duration,
}

/// Cuts what a connection sends into frames.
#[derive(Debug)]
pub struct Intake {
    frames: FrameReader,
    buffer: BytesMut,
    budget: Arc<Semaphore>,
    share: Option<OwnedSemaphorePermit>,
    times: Times,
    /// When the present frame began.
    began: Option<Instant>,
    /// When the connection last did something.
    quiet_since: Instant,
    /// A frame has come.
    spoke: bool,
}

impl Intake {
    /// Takes frames of up to `max_bytes`, the longer ones from `budget`, which has more than that.
    #[must_use]
    pub fn new(max_bytes: usize, budget: Arc<Semaphore>, times: Times) -> Self {
        Self {
            frames: FrameReader::new(max_bytes),
            buffer: BytesMut::new(),
            budget,
            share: None,
            times,
            began: None,
            quiet_since: Instant::now(),
            spoke: false,
        }
    }

    /// The connection did something: its time of silence begins anew.
    pub fn touch(&mut self) {
        self.quiet_since = Instant::now();
        self.began = None;
    }

    /// The next frame. With `busy` silence is no fault: the client waits for an answer. Safe to drop.
    ///
    /// # Errors
    /// [`Ended`]. Nothing can be read afterwards.
    pub async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        busy: bool,
    ) -> Result<Arrived, Ended> {
        loop {
            if let Some(frame) = self.frames.next(&mut self.buffer)? {
                self.touch();
                self.spoke = true;
                let share = self.share.take();
                return Ok(Arrived { frame, share });
            }
            if !self.buffer.is_empty() && self.began.is_none() {
                self.began = Some(Instant::now());
            }
            let idle = match self.spoke {
                true => self.times.idle,
                false => self.times.first,
            };
            let (until, ended) = match (self.began, busy) {
                (Some(began), _) => (
                    Some(began + self.times.frame),
                    Ended::Slow(self.times.frame),
                ),
                (None, true) => (None, Ended::Closed),
                (None, false) => (Some(self.quiet_since + idle), Ended::Idle(idle)),
            };
            let read = self.more(stream);
            let read = match until {
                None => read.await?,
                Some(until) => match tokio::time::timeout_at(until, read).await {
                    Ok(read) => read?,
                    Err(_) => return Err(ended),
                },
            };
            if read == 0 {
                return Err(match self.buffer.is_empty() {
                    true => Ended::Closed,
                    false => Ended::CutOff,
                });
            }
        }
    }

    /// Reads some bytes, once there is leave to hold them.
    async fn more(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        let wanted = self.wanted();
        if wanted > 0 && self.share.is_none() {
            let budget = Arc::clone(&self.budget);
            let share = budget.acquire_many_owned(wanted).await;
            self.share = Some(share.map_err(|_| std::io::ErrorKind::ConnectionAborted)?);
        }
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(1);
        }
        stream.read_buf(&mut self.buffer).await
    }

    /// What the present frame takes from the budget.
    fn wanted(&self) -> u32 {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return 0;
        };
        // Checked by the frame reader: at most what the listener takes.
        let length = u32::from_be_bytes(*length);
        if length as usize <= FREE_BYTES {
            0
        } else {
            length
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const TIMES: Times = Times {
        idle: Duration::from_millis(100),
        first: Duration::from_millis(100),
        frame: Duration::from_millis(150),
    };

    fn frame(length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes().to_vec();
        frame.resize(LENGTH_BYTES + length, 7);
        frame
    }

    #[tokio::test]
    async fn frames_come_whole_and_a_large_one_takes_its_share() {
        let budget = Arc::new(Semaphore::new(1 << 20));
        let mut intake = Intake::new(1 << 20, Arc::clone(&budget), TIMES);
        let (mut client, mut server) = tokio::io::duplex(1 << 21);
        client.write_all(&frame(20)).await.unwrap();
        client.write_all(&frame(100_000)).await.unwrap();
        let small = intake.next(&mut server, false).await.unwrap();
        assert_eq!((small.frame.len(), small.share.is_none()), (20, true));
        let large = intake.next(&mut server, false).await.unwrap();
        assert_eq!(large.frame.len(), 100_000);
        assert_eq!(budget.available_permits(), (1 << 20) - 100_000);
        drop(large);
        assert_eq!(budget.available_permits(), 1 << 20);
        drop(client);
        let ended = intake.next(&mut server, false).await;
        assert!(matches!(ended, Err(Ended::Closed)));
    }

    #[tokio::test]
    async fn a_frame_that_does_not_end_and_silence_end_the_connection() {
        let budget = Arc::new(Semaphore::new(1 << 20));
        let mut intake = Intake::new(1 << 20, Arc::clone(&budget), TIMES);
        let (mut client, mut server) = tokio::io::duplex(64);
        let begun = Instant::now();
        let ended = intake.next(&mut server, false).await;
        assert!(matches!(ended, Err(Ended::Idle(_))));
        assert!(begun.elapsed() >= TIMES.idle);
        intake.touch();
        client.write_all(&frame(90_000)[..60]).await.unwrap();
        let begun = Instant::now();
        let ended = intake.next(&mut server, true).await;
        assert!(matches!(ended, Err(Ended::Slow(_))));
        assert!(begun.elapsed() >= TIMES.frame);
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_refused_at_once() {
        let budget = Arc::new(Semaphore::new(1 << 20));
        let mut intake = Intake::new(1 << 20, budget, TIMES);
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(&i32::MAX.to_be_bytes()).await.unwrap();
        let ended = intake.next(&mut server, false).await;
        assert!(matches!(
            ended,
            Err(Ended::Frame(FrameError::TooLong { .. }))
        ));
        assert!(intake.buffer.capacity() < 64 * 1024);
    }
}
