//! One connection: requests in, answers out in the same order.
//!
//! Appends follow each other without waiting for the answers before them, up to [`PIPELINE`]; they reach the broker in
//! their order. Any other request begins when those before it are answered, as clients of this protocol expect. One
//! that waits for other clients (a join is held until the whole group has joined) is given up when its own client is
//! gone; every other one that has arrived is carried out, whether or not somebody waits for its answer.
//!
//! Invariants: one task; at most [`PIPELINE`] requests are held, each within the server's budget of bytes; a client
//! that does not read its answers loses the connection after [`WRITE_STALL`].

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use varve_broker_api::{Broker, ClassicGroups, Operations};
use varve_tls::Accepted;
use varve_tls::speech::{self, Speech};
use varve_types::limits;

use super::intake::{Arrived, Ended, Intake, Times};
use crate::budget::Share;
use crate::calls::{self, Answer, Begun, Sent};
use crate::following::Following;
use crate::shared::Shared;

/// Most requests of a connection that are being answered.
const PIPELINE: usize = limits::KAFKA_PIPELINE;
/// Longest time in which a client takes nothing of an answer.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// Most slices of one write.
const SLICES: usize = 64;
/// Silence that a connection which has not sent anything yet may keep: it may be by mistake.
const FIRST_REQUEST: Duration = Duration::from_secs(30);

/// An answer, and the request's share of the budget, which is given back when the answer is sent.
type Held = (Answer, Option<Share>);

/// Requests that are being answered, in their order.
type Pending = FuturesOrdered<BoxFuture<'static, Held>>;

/// Requests of a connection that have begun.
struct Running {
    /// In the order of the requests.
    pending: Pending,
    /// An append that the broker has not taken yet.
    accepting: Option<BoxFuture<'static, BoxFuture<'static, Held>>>,
    /// A request that waits for those before it, and whether it waits for other clients then.
    waiting: Option<(BoxFuture<'static, Held>, bool)>,
    /// The one in `pending` is no append: nothing follows it.
    alone: bool,
    /// The one in `pending` waits for other clients.
    held: bool,
}

impl Running {
    fn idle(&self) -> bool {
        self.pending.is_empty() && self.accepting.is_none() && self.waiting.is_none()
    }

    fn takes_more(&self) -> bool {
        let held = self.accepting.is_some() || self.waiting.is_some() || self.alone;
        !held && self.pending.len() < PIPELINE
    }

    fn begin(&mut self, begun: Begun, share: Option<Share>) {
        match begun {
            Begun::Append(accept) => {
                let held = |answer: BoxFuture<'static, Answer>| -> BoxFuture<'static, Held> {
                    Box::pin(async move { (answer.await, share) })
                };
                self.accepting = Some(Box::pin(accept.map(held)));
            }
            Begun::Alone(answer) => self.wait(answer, share, false),
            Begun::Held(answer) => self.wait(answer, share, true),
        }
    }

    fn wait(&mut self, answer: BoxFuture<'static, Answer>, share: Option<Share>, held: bool) {
        let answer: BoxFuture<'static, Held> = Box::pin(async move { (answer.await, share) });
        self.waiting = Some((answer, held));
    }

    fn advance(&mut self) {
        if self.pending.is_empty() && self.accepting.is_none() {
            (self.alone, self.held) = (false, false);
            if let Some((waiting, held)) = self.waiting.take() {
                self.pending.push_back(waiting);
                (self.alone, self.held) = (true, held);
            }
        }
    }
}

/// Resolves when the broker has taken the append; never when there is none.
async fn accepted(
    accepting: &mut Option<BoxFuture<'static, BoxFuture<'static, Held>>>,
) -> BoxFuture<'static, Held> {
    match accepting {
        Some(accepting) => accepting.await,
        None => std::future::pending().await,
    }
}

/// See the module.
pub(super) struct Connection<B> {
    shared: Arc<Shared<B>>,
    stream: Accepted,
    peer: SocketAddr,
    intake: Intake,
    drain: CancellationToken,
    following: Following,
}

impl<B: Broker + ClassicGroups + Operations> Connection<B> {
    pub(super) fn new(
        shared: Arc<Shared<B>>,
        stream: Accepted,
        peer: SocketAddr,
        drain: CancellationToken,
    ) -> Self {
        let options = &shared.options;
        let times = Times {
            idle: options.idle_max,
            first: options.idle_max.min(FIRST_REQUEST),
            frame: options.frame_max,
        };
        let budget = shared.budget.of(peer.ip());
        let intake = Intake::new(options.request_max_bytes, budget, times);
        Self {
            shared,
            stream,
            peer,
            intake,
            drain,
            following: Following::default(),
        }
    }

    /// Serves until one side ends it.
    pub(super) async fn run(mut self) {
        if let Err(ended) = self.serve().await {
            self.note(&ended);
            if let Ended::Foreign(speech) = ended {
                let text = self.shared.elsewhere(speech);
                let answer = match speech {
                    Speech::Http2 => speech::go_away(speech::PROTOCOL_ERROR, &text),
                    // A TLS client knows by any plaintext what is wrong.
                    _ => speech::bad_request(&text),
                };
                return speech::answer_and_close(&mut self.stream, &answer).await;
            }
        }
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
    }

    async fn serve(&mut self) -> Result<(), Ended> {
        let mut running = Running {
            pending: FuturesOrdered::new(),
            accepting: None,
            waiting: None,
            alone: false,
            held: false,
        };
        let mut draining = false;
        loop {
            running.advance();
            if draining && running.idle() {
                return Ok(());
            }
            let (reads, busy) = (!draining && running.takes_more(), !running.idle());
            let (intake, stream) = (&mut self.intake, &mut self.stream);
            let arrives = async {
                match reads {
                    true => intake.next(stream, busy).await,
                    false => Err(intake.gone(stream).await),
                }
            };
            tokio::select! {
                biased;
                Some(first) = running.pending.next(), if !running.pending.is_empty() => {
                    if let Some(why) = self.answer(&mut running.pending, first).await? {
                        self.shared.metrics.closed(why);
                        return Ok(());
                    }
                }
                answer = accepted(&mut running.accepting), if running.accepting.is_some() => {
                    running.accepting = None;
                    running.pending.push_back(answer);
                }
                arrived = arrives, if reads || running.held => {
                    let Arrived { frame, share } = arrived?;
                    let begun = calls::begin(&self.shared, self.peer, frame, &mut self.following);
                    running.begin(begun, share);
                }
                () = self.drain.cancelled(), if !draining => draining = true,
                () = self.following.step() => {}
            }
        }
    }

    /// Sends an answer, and with it those behind it that are ready: appends that one flush has covered are answered by
    /// one write. Resolves to why the connection is to end, if it is.
    async fn answer(
        &mut self,
        pending: &mut Pending,
        first: Held,
    ) -> Result<Option<&'static str>, Ended> {
        let (mut parts, mut held, mut ends) = (Vec::new(), Vec::new(), None);
        let mut next = Some(first);
        while let Some((answer, share)) = next {
            match answer {
                Answer::Frame(frame, Sent { outgoing, follows }) => {
                    if let Some(follows) = follows {
                        let shared = Arc::clone(&self.shared);
                        self.following.answered(*follows, || shared);
                    }
                    parts.extend(frame.into_parts());
                    held.push((outgoing, share));
                }
                Answer::Nothing => held.push((None, share)),
                Answer::Close(why) => {
                    ends = Some(why);
                    break;
                }
            }
            // Nobody is woken for what becomes ready from here on until it is waited for again, which it is.
            next = match parts.len() < SLICES {
                true => pending.next().now_or_never().flatten(),
                false => None,
            };
        }
        if !parts.is_empty() {
            send_and_read(&mut self.stream, parts, &mut self.following).await?;
            self.following.sent();
        }
        drop(held);
        self.intake.touch();
        Ok(ends)
    }

    /// Says why the connection ends, where that is not the client's own doing.
    fn note(&self, ended: &Ended) {
        let reason = match ended {
            Ended::Closed => return,
            Ended::CutOff => "cut_off",
            Ended::Idle(_) => "idle",
            Ended::Slow(_) => "slow_request",
            Ended::Busy(_) => "busy",
            Ended::Frame(_) => "bad_length",
            Ended::Foreign(_) => "other_protocol",
            Ended::Io(_) => "lost",
        };
        self.shared.metrics.closed(reason);
        let why = match ended {
            Ended::Foreign(speech) => format!("{ended}: {}", self.shared.elsewhere(*speech)),
            ended => ended.to_string(),
        };
        let is_told = matches!(
            ended,
            Ended::Frame(_) | Ended::Slow(_) | Ended::Busy(_) | Ended::Foreign(_)
        );
        if is_told && self.shared.log_limit.allows() {
            tracing::info!(peer = %self.peer, why, "closing a Kafka connection");
        } else {
            tracing::debug!(peer = %self.peer, why, "closing a Kafka connection");
        }
    }
}

/// Sends an answer, and reads ahead whenever the client has not taken it yet.
async fn send_and_read(
    stream: &mut (impl AsyncWrite + Unpin),
    parts: Vec<Bytes>,
    following: &mut Following,
) -> io::Result<()> {
    let mut sending = pin!(send(stream, parts));
    loop {
        tokio::select! {
            biased;
            sent = &mut sending => return sent,
            () = following.step() => {}
        }
    }
}

/// Sends the parts of an answer one after the other.
async fn send(stream: &mut (impl AsyncWrite + Unpin), parts: Vec<Bytes>) -> io::Result<()> {
    let mut parts = std::collections::VecDeque::from(parts);
    let stalled = |_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not read its responses",
        )
    };
    while !parts.is_empty() {
        let slices: Vec<IoSlice<'_>> = parts
            .iter()
            .take(SLICES)
            .map(|part| IoSlice::new(part))
            .collect();
        let write = timeout(WRITE_STALL, stream.write_vectored(&slices));
        let mut sent = write.await.map_err(stalled)??;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(part) = parts.front_mut() {
            let of_this = sent.min(part.len());
            part.advance(of_this);
            sent -= of_this;
            if !part.is_empty() {
                break;
            }
            parts.pop_front();
        }
    }
    timeout(WRITE_STALL, stream.flush())
        .await
        .map_err(stalled)?
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn parts_are_sent_in_order_whatever_the_transport_takes() {
        let (mut server, mut client) = tokio::io::duplex(7);
        let parts: Vec<Bytes> = (0..200_u8)
            .map(|n| Bytes::from(vec![n; n as usize % 13]))
            .collect();
        let whole: Vec<u8> = parts.concat();
        let sending = tokio::spawn(async move {
            send(&mut server, parts).await.unwrap();
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        sending.await.unwrap();
        assert_eq!(received, whole);
    }
}
