//! Streaming calls. Each is one task that owns its state and one channel of capacity 1 to the transport:
//! the task reads no further than one message ahead of what the transport has taken, so a client that
//! does not read holds back its own stream and costs a bounded amount of memory ([`pace`], [`reader`]).
//!
//! Invariants: a stream ends when its client goes; a draining server announces the end with an event and
//! ends each stream itself when the grace is over; no error ends a stream without a reason.

pub mod consume;
pub mod fetch_stream;
pub mod membership;
pub mod pace;
pub mod produce_stream;
pub mod reader;
pub mod subscribe;
pub mod watch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use varve_broker_api::{Broker, Error};
use varve_proto::v1;

use self::pace::Pace;
use crate::metrics::OpenGuard;
use crate::shared::Shared;
use crate::status::to_duration;

/// Idle time before a sign of life, when the client names none.
pub const IDLE_DEFAULT: Duration = Duration::from_secs(15);
/// Shortest idle time before a sign of life.
pub const IDLE_MIN: Duration = Duration::from_secs(1);

/// A transport that has taken nothing for this long is read for no further.
pub const STALLED: Duration = Duration::from_secs(1);

/// A future that a stream's loop keeps across turns.
pub type Parked<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The client is gone: nothing more can be sent.
#[derive(Debug)]
pub struct Gone;

/// The sending end of a stream.
#[derive(Debug)]
pub struct Outlet<T> {
    messages: mpsc::Sender<Result<T, Status>>,
    pace: Pace,
}

/// Room for one message.
#[derive(Debug)]
pub struct Room<'a, T> {
    permit: mpsc::Permit<'a, Result<T, Status>>,
    pace: &'a Pace,
}

impl<T> Room<'_, T> {
    /// Sends a message.
    pub fn send(self, message: T) {
        // Not only once the transport takes it: nothing more is to be read for it until then.
        self.pace.given();
        self.permit.send(Ok(message));
    }
}

impl<T> Outlet<T> {
    /// Sends a message, once the transport has room for it.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn send(&self, message: T) -> Result<(), Gone> {
        self.ready().await?.send(message);
        Ok(())
    }

    /// Waits until the transport has room for one message. May be dropped.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn ready(&self) -> Result<Room<'_, T>, Gone> {
        let permit = self.messages.reserve().await.map_err(|_| Gone)?;
        Ok(Room {
            permit,
            pace: &self.pace,
        })
    }

    /// Sends a message. A transport that takes nothing for [`STALLED`] makes `shed` run once: what was read beyond this
    /// message can be read again.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn deliver(&self, message: T, shed: impl FnOnce()) -> Result<(), Gone> {
        let room = match tokio::time::timeout(STALLED, self.ready()).await {
            Ok(room) => room?,
            Err(_) => {
                shed();
                self.ready().await?
            }
        };
        room.send(message);
        Ok(())
    }

    /// What the transport takes.
    #[must_use]
    pub const fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Ends the stream with a status.
    pub async fn end(&self, status: Status) {
        // The client being gone already is no fault.
        let _ = self.messages.send(Err(status)).await;
    }

    /// Resolves when the client is gone.
    pub async fn closed(&self) {
        self.messages.closed().await;
    }
}

/// The receiving end of a stream, which the transport polls.
#[derive(Debug)]
pub struct Outbound<T> {
    messages: mpsc::Receiver<Result<T, Status>>,
    pace: Pace,
    _open: OpenGuard,
}

impl<T> Outbound<T> {
    /// The answer to a call: what is sent of it is tracked on its way to the socket.
    #[must_use]
    pub fn respond(self) -> tonic::Response<Self> {
        let pace = self.pace.clone();
        let mut response = tonic::Response::new(self);
        response.extensions_mut().insert(pace);
        response
    }

    /// What the transport takes.
    #[must_use]
    pub const fn pace(&self) -> &Pace {
        &self.pace
    }
}

impl<T> Stream for Outbound<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.messages.poll_recv(cx);
        match &polled {
            Poll::Ready(_) => self.pace.given(),
            Poll::Pending => self.pace.found_nothing(),
        }
        polled
    }
}

/// Both ends of a new stream of `method`. `capacity` messages may wait for the transport.
pub fn channel<B: Broker, T>(
    shared: &Arc<Shared<B>>,
    method: &'static str,
    capacity: usize,
) -> (Outlet<T>, Outbound<T>) {
    let (tx, messages) = mpsc::channel(capacity);
    let pace = Pace::default();
    (
        Outlet {
            messages: tx,
            pace: pace.clone(),
        },
        Outbound {
            messages,
            pace,
            _open: shared.metrics.stream(method),
        },
    )
}

/// What a drain asks of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainStep {
    /// Announce the end.
    Announce,
    /// End now.
    End,
}

/// Follows the server's drain on behalf of one stream.
#[derive(Debug)]
pub struct Drainer {
    token: CancellationToken,
    grace: Duration,
    ends: Option<Instant>,
}

impl Drainer {
    /// Follows the drain of a server.
    #[must_use]
    pub fn new<B: Broker>(shared: &Shared<B>) -> Self {
        Self {
            token: shared.drain.clone(),
            grace: shared.grace,
            ends: None,
        }
    }

    /// The next step: announce, then end once the grace is over. May be dropped and called again.
    pub async fn next(&mut self) -> DrainStep {
        match self.ends {
            None => {
                self.token.cancelled().await;
                self.ends = Some(Instant::now() + self.grace);
                DrainStep::Announce
            }
            Some(at) => {
                tokio::time::sleep_until(at).await;
                DrainStep::End
            }
        }
    }

    /// Whether the end has been announced.
    #[must_use]
    pub const fn announced(&self) -> bool {
        self.ends.is_some()
    }

    /// The event that announces the end.
    #[must_use]
    pub fn event(&self) -> v1::Drain {
        v1::Drain {
            grace: Some(to_duration(self.grace)),
            leader: None,
        }
    }
}

/// Waits for a parked future; for ever when there is none.
pub async fn parked<T>(slot: &mut Option<Parked<T>>) -> T {
    match slot {
        Some(future) => future.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Waits until a time; for ever when there is none.
pub async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Reads the idle time of a stream.
///
/// # Errors
/// `InvalidRequest`.
pub fn idle(value: Option<&prost_types::Duration>) -> Result<Duration, Error> {
    let idle = crate::translate::duration("idle_heartbeat", value)?;
    Ok(idle
        .unwrap_or(IDLE_DEFAULT)
        .clamp(IDLE_MIN, Duration::from_secs(3600)))
}
