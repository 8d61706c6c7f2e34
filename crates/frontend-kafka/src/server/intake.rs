//! Reading frames from a connection: whole, bounded, and in time.
//!
//! Invariants: a frame longer than the listener takes for its kind is refused by its first bytes alone; beyond
//! [`FREE_BYTES`] a frame takes its share of the budget before memory is taken for it; a frame that has begun ends in
//! time or the connection does, and waiting for the budget is not the client's time; no memory of a large frame is kept
//! once it is taken. A read that is dropped loses nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, timeout_at};

use varve_tls::speech::Speech;

use crate::budget::{CONTROL_MAX_BYTES, Kind, PeerBudget, Share};
use crate::wire::frame::LENGTH_BYTES;
use crate::wire::{ApiKey, FrameError, FrameReader};

/// Bytes of a frame that a connection may hold without a share of the budget.
pub const FREE_BYTES: usize = 64 * 1024;
/// Bytes by which it is known what a frame is: its length and the number of its API.
const KNOWN_BYTES: usize = LENGTH_BYTES + 2;

/// Bytes that are read ahead of their turn to notice the end of a connection behind them.
const AHEAD_BYTES: usize = 4 * 1024;

/// A request as it came, with its share of the budget.
#[derive(Debug)]
pub struct Arrived {
    /// The frame without its length.
    pub frame: Bytes,
    /// Given back when the request is answered.
    pub share: Option<Share>,
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
    /// The server had no memory for a frame for too long.
    #[error("there was no room for a request within {0:?}; it was not read")]
    Busy(Duration),
    /// A length that is not taken.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The client speaks something else.
    #[error("this looks like {}", .0.name())]
    Foreign(Speech),
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
pub struct Intake {
    frames: FrameReader,
    buffer: BytesMut,
    budget: Arc<PeerBudget>,
    /// That of the present frame.
    share: Option<Share>,
    /// Since when it is waited for.
    waiting: Option<(Instant, BoxFuture<'static, Option<Share>>)>,
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
    pub fn new(max_bytes: usize, budget: Arc<PeerBudget>, times: Times) -> Self {
        Self {
            frames: FrameReader::new(max_bytes),
            buffer: BytesMut::new(),
            budget,
            share: None,
            waiting: None,
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
            self.check_speech()?;
            self.check_kind()?;
            if let Some(frame) = self.frames.next(&mut self.buffer)? {
                if frame.len() > FREE_BYTES {
                    // Otherwise the memory of this one would be used again, and kept for as long as the connection.
                    self.buffer = BytesMut::from(&self.buffer[..]);
                }
                self.touch();
                self.spoke = true;
                let share = self.share.take();
                return Ok(Arrived { frame, share });
            }
            if !self.buffer.is_empty() && self.began.is_none() {
                self.began = Some(Instant::now());
            }
            self.admit().await?;
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

    /// Resolves when the connection has ended, while no request is to be taken from it. What comes before the end is
    /// kept for then; of more than [`AHEAD_BYTES`] the rest is not read, nor an end behind it. Safe to drop.
    pub async fn gone(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Ended {
        loop {
            let room = AHEAD_BYTES.saturating_sub(self.buffer.len());
            if room == 0 {
                return std::future::pending().await;
            }
            match stream.read_buf(&mut (&mut self.buffer).limit(room)).await {
                Ok(0) if self.buffer.is_empty() => return Ended::Closed,
                Ok(0) => return Ended::CutOff,
                Ok(_) => {}
                Err(error) => return Ended::Io(error),
            }
        }
    }

    /// Reads some bytes into the room that there is.
    async fn more(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(1);
        }
        stream.read_buf(&mut self.buffer).await
    }

    /// What the present frame is, and how long, once that is known.
    fn known(&self) -> Option<(Kind, usize)> {
        let head = self.buffer.first_chunk::<KNOWN_BYTES>()?;
        let [a, b, c, d, key @ ..] = *head;
        let kind = match i16::from_be_bytes(key) == ApiKey::Produce as i16 {
            true => Kind::Append,
            false => Kind::Control,
        };
        Some((kind, u32::from_be_bytes([a, b, c, d]) as usize))
    }

    /// Whether the first bytes are of another protocol: as a length they would make no sense to anybody.
    fn check_speech(&self) -> Result<(), Ended> {
        match Speech::of(&self.buffer) {
            Some(speech) if !self.spoke && speech != Speech::Kafka => Err(Ended::Foreign(speech)),
            _ => Ok(()),
        }
    }

    fn check_kind(&self) -> Result<(), FrameError> {
        match self.known() {
            Some((Kind::Control, length)) if length > CONTROL_MAX_BYTES => {
                let most = CONTROL_MAX_BYTES;
                Err(FrameError::TooLong { length, most })
            }
            _ => Ok(()),
        }
    }

    /// Waits for leave to hold the present frame, if it needs that.
    async fn admit(&mut self) -> Result<(), Ended> {
        let Some((kind, length)) = self.known() else {
            return Ok(());
        };
        // Checked by the frame reader: at most what the listener takes.
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        if length <= FREE_BYTES || self.share.is_some() {
            return Ok(());
        }
        let budget = &self.budget;
        let (since, share) = self.waiting.get_or_insert_with(|| {
            let share = Arc::clone(budget).take(kind, bytes);
            (Instant::now(), Box::pin(share))
        });
        let share = timeout_at(*since + self.times.frame, share).await;
        let waited = since.elapsed();
        self.waiting = None;
        let share = share.map_err(|_| Ended::Busy(self.times.frame))?;
        self.share = Some(
            share
                .ok_or(std::io::ErrorKind::ConnectionAborted)
                .map_err(std::io::Error::from)?,
        );
        self.began = self.began.map(|began| began + waited);
        // Its memory is paid for: one piece, and nothing is copied as it grows.
        let whole = LENGTH_BYTES + length;
        self.buffer.reserve(whole.saturating_sub(self.buffer.len()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_util::FutureExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::budget::Budget;

    /// By the clock of the machine, so that a third of any of them is more than a busy one loses.
    const TIMES: Times = Times {
        idle: Duration::from_millis(1000),
        first: Duration::from_millis(1000),
        frame: Duration::from_millis(1500),
    };

    /// Of an append.
    fn frame(length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&(ApiKey::Produce as i16).to_be_bytes());
        frame.resize(LENGTH_BYTES + length, 7);
        frame
    }

    fn budget() -> Arc<Budget> {
        Budget::new(1 << 20, 1 << 19, 1 << 20, 1 << 19)
    }

    fn intake(budget: &Arc<Budget>) -> Intake {
        Intake::new(1 << 19, budget.of(IpAddr::from([127, 0, 0, 1])), TIMES)
    }

    /// What another connection of the same peer can have at once.
    fn left(budget: &Arc<Budget>) -> u32 {
        let peer = budget.of(IpAddr::from([127, 0, 0, 1]));
        let fits = |bytes: &u32| {
            let share = Arc::clone(&peer).take(Kind::Append, *bytes);
            share.now_or_never().is_some()
        };
        (0..=1 << 19).rev().step_by(1000).find(fits).unwrap()
    }

    #[tokio::test]
    async fn frames_come_whole_and_a_large_one_takes_its_share() {
        let budget = budget();
        let mut intake = intake(&budget);
        let (mut client, mut server) = tokio::io::duplex(1 << 21);
        client.write_all(&frame(20)).await.unwrap();
        client.write_all(&frame(100_000)).await.unwrap();
        client.write_all(&frame(30)).await.unwrap();
        let small = intake.next(&mut server, false).await.unwrap();
        assert_eq!((small.frame.len(), small.share.is_none()), (20, true));
        let all = left(&budget);
        let large = intake.next(&mut server, false).await.unwrap();
        assert_eq!(large.frame.len(), 100_000);
        assert_eq!(left(&budget), all - 100_000);
        drop(large);
        assert_eq!(left(&budget), all);
        // Its memory is not kept for the next.
        assert!(
            intake.buffer.capacity() <= FREE_BYTES,
            "{}",
            intake.buffer.capacity()
        );
        let small = intake.next(&mut server, false).await.unwrap();
        assert_eq!(small.frame.len(), 30);
        drop(client);
        let ended = intake.next(&mut server, false).await;
        assert!(matches!(ended, Err(Ended::Closed)));
    }

    #[tokio::test]
    async fn waiting_for_room_is_not_the_clients_slowness_and_has_an_end() {
        let budget = budget();
        let mut intake = intake(&budget);
        let (mut client, mut server) = tokio::io::duplex(1 << 21);
        let peer = budget.of(IpAddr::from([127, 0, 0, 1]));
        let held = Arc::clone(&peer).take(Kind::Append, 1 << 19).await.unwrap();
        client.write_all(&frame(100_000)[..50_000]).await.unwrap();
        let begun = Instant::now();
        let waits = intake.next(&mut server, false);
        // Dropped within its wait, which changes nothing.
        assert!(
            timeout_at(begun + TIMES.frame * 2 / 3, waits)
                .await
                .is_err()
        );
        drop(held);
        let waits = intake.next(&mut server, false);
        assert!(
            timeout_at(Instant::now() + TIMES.frame * 2 / 3, waits)
                .await
                .is_err()
        );
        client.write_all(&frame(100_000)[50_000..]).await.unwrap();
        let frame_ = intake.next(&mut server, false).await.unwrap();
        assert!(begun.elapsed() > TIMES.frame && frame_.frame.len() == 100_000);
        drop(frame_);
        let _held = peer.take(Kind::Append, 1 << 19).await.unwrap();
        client.write_all(&frame(100_000)).await.unwrap();
        let ended = intake.next(&mut server, false).await;
        assert!(matches!(ended, Err(Ended::Busy(_))));
    }

    #[tokio::test]
    async fn a_frame_that_does_not_end_and_silence_end_the_connection() {
        let mut intake = intake(&budget());
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
    async fn an_end_is_noticed_behind_requests_whose_turn_has_not_come() {
        let mut intake = intake(&budget());
        let (mut client, mut server) = tokio::io::duplex(1 << 16);
        client.write_all(&frame(20)).await.unwrap();
        let begun = Instant::now();
        let noticed = tokio::time::timeout(TIMES.frame * 2, intake.gone(&mut server)).await;
        assert!(noticed.is_err() && begun.elapsed() >= TIMES.frame * 2);
        // Its turn comes, however long that took.
        let arrived = intake.next(&mut server, true).await.unwrap();
        assert_eq!(arrived.frame.len(), 20);
        drop(client);
        assert!(matches!(intake.gone(&mut server).await, Ended::Closed));
    }

    #[tokio::test]
    async fn little_is_read_ahead_of_its_turn() {
        let mut intake = intake(&budget());
        let (mut client, mut server) = tokio::io::duplex(1 << 21);
        client.write_all(&frame(1 << 18)).await.unwrap();
        drop(client);
        let noticed = tokio::time::timeout(TIMES.idle, intake.gone(&mut server)).await;
        assert!(noticed.is_err());
        assert_eq!(intake.buffer.len(), AHEAD_BYTES);
        assert!(intake.buffer.capacity() < 4 * AHEAD_BYTES);
        let arrived = intake.next(&mut server, true).await.unwrap();
        assert_eq!(arrived.frame.len(), 1 << 18);
        assert!(matches!(intake.gone(&mut server).await, Ended::Closed));
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_refused_at_once() {
        let mut intake = intake(&budget());
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(&i32::MAX.to_be_bytes()).await.unwrap();
        let ended = intake.next(&mut server, false).await;
        assert!(matches!(
            ended,
            Err(Ended::Frame(FrameError::TooLong { .. }))
        ));
        assert!(intake.buffer.capacity() < 64 * 1024);
    }

    #[tokio::test]
    async fn another_protocol_is_named() {
        for (bytes, speech) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Speech::Http2),
            (b"GET / HTTP/1.1\r\n\r\n", Speech::Http1),
            (&[0x16, 3, 1, 2, 0, 1, 0, 1], Speech::Tls),
        ] {
            let mut intake = intake(&budget());
            let (mut client, mut server) = tokio::io::duplex(64);
            client.write_all(bytes).await.unwrap();
            let ended = intake.next(&mut server, false).await;
            assert!(matches!(ended, Err(Ended::Foreign(found)) if found == speech));
        }
    }

    #[tokio::test]
    async fn only_an_append_may_be_large() {
        let mut intake = Intake::new(
            1 << 25,
            Budget::new(1 << 26, 1 << 25, 1 << 25, 1 << 24).of(IpAddr::from([127, 0, 0, 1])),
            TIMES,
        );
        let (mut client, mut server) = tokio::io::duplex(64);
        let length = CONTROL_MAX_BYTES as u32 + 1;
        client.write_all(&length.to_be_bytes()).await.unwrap();
        client
            .write_all(&(ApiKey::Fetch as i16).to_be_bytes())
            .await
            .unwrap();
        let ended = intake.next(&mut server, false).await;
        assert!(matches!(
            ended,
            Err(Ended::Frame(FrameError::TooLong {
                most: CONTROL_MAX_BYTES,
                ..
            }))
        ));
        assert!(intake.buffer.capacity() < 64 * 1024);
    }
}
