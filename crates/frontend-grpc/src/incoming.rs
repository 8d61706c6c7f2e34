//! Accepted connections: bounded in number, without Nagle's delay, and ended by the server when a drain is
//! over. A peer that has not completed its TLS handshake and begun to speak HTTP/2 within [`PREFACE_WAIT`] is dropped,
//! so that silent connections cannot use up the bound.
//!
//! A client that is refused learns why where its protocol has a way to say it: beyond the bound by an HTTP/2 GOAWAY;
//! one that speaks something else reads what this port is and where it should go. Invariant: what strangers send costs
//! a bounded number of log lines and of answers on their way.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};
use varve_broker_api::Broker;
use varve_tls::speech::{self, PREFACE, Speech};
use varve_tls::{
    Accepted, Admission, Admitted, ConnectionLimits, Listener, LogLimit, Refused, ServerTls, Socket,
};
use varve_types::NodeId;

use crate::metrics::{Metrics, OpenGuard};

/// How long a new connection may take to send the HTTP/2 preface.
pub const PREFACE_WAIT: Duration = Duration::from_secs(10);
/// What the configuration keys of the listener begin with.
const KEYS: &str = "listeners.client";
/// Pause after an accept that failed, most likely for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Refused clients that are told why at a time; others are only closed.
const REFUSALS: usize = 64;
/// Connections that have begun to speak HTTP/2 and wait for the server.
const BEGUN: usize = 64;

/// The ports of this node, for clients that came to the wrong one.
#[derive(Debug, Clone)]
pub struct Ports {
    node: NodeId,
    kafka: Option<String>,
    http: Option<String>,
}

impl Ports {
    /// Those of the broker's node.
    #[must_use]
    pub fn of(broker: &impl Broker) -> Self {
        let mut info = broker.node();
        Self {
            node: info.node,
            kafka: info.listeners.remove("kafka"),
            http: info.listeners.remove("http"),
        }
    }

    fn elsewhere(&self, speech: Option<Speech>) -> String {
        let own = format!("this is the gRPC listener of node {}", self.node);
        let at = |what: &str, address: &Option<String>| match address {
            Some(address) => format!("{own}; {what} is at {address}"),
            None => own.clone(),
        };
        match speech {
            Some(Speech::Kafka) if self.kafka.is_none() => {
                format!("{own}, and Kafka's protocol is off (listeners.kafka.address)")
            }
            Some(Speech::Kafka) => at("Kafka's protocol", &self.kafka),
            Some(Speech::Http1) => at("HTTP (metrics and health)", &self.http),
            Some(Speech::Tls) => format!("{own}, and it has no TLS (listeners.client.tls.mode)"),
            Some(Speech::Http2) | None => own,
        }
    }
}

/// What counts a connection while it is open.
type Open = (OpenGuard, Admitted);

/// What all connections of a listener share.
struct Door {
    ports: Ports,
    metrics: Metrics,
    tls: Option<Arc<ServerTls>>,
    kill: CancellationToken,
    admission: Arc<Admission>,
    limit: LogLimit,
    refusals: Arc<Semaphore>,
    begun: mpsc::Sender<Connection>,
}

/// Connections of a listener that have begun to speak HTTP/2. Those beyond `limits` are refused and counted. All end
/// when `kill` is cancelled.
pub fn incoming(
    listener: Listener,
    ports: Ports,
    metrics: Metrics,
    limits: ConnectionLimits,
    tls: Option<Arc<ServerTls>>,
    kill: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    let (begun, ready) = mpsc::channel(BEGUN);
    let door = Arc::new(Door {
        ports,
        metrics,
        tls,
        kill,
        admission: Admission::new(KEYS, limits),
        limit: LogLimit::new(),
        refusals: Arc::new(Semaphore::new(REFUSALS)),
        begun,
    });
    futures_util::stream::unfold(
        (listener, door, ready),
        |(listener, door, mut ready)| async {
            loop {
                tokio::select! {
                    // The door holds a sender: this never ends before the listener does.
                    Some(connection) = ready.recv() => {
                        return Some((Ok(connection), (listener, door, ready)));
                    }
                    accepted = listener.accept() => match accepted {
                        Ok((stream, peer)) => door.open(stream, peer),
                        Err(error) => {
                            tracing::warn!(%error, "could not accept a connection; trying again");
                            tokio::time::sleep(ACCEPT_RETRY).await;
                        }
                    },
                }
            }
        },
    )
}

impl Door {
    /// Begins a connection in a task of its own, so that nobody waits for a client's first bytes.
    fn open(self: &Arc<Self>, stream: Socket, peer: SocketAddr) {
        let (door, kill) = (Arc::clone(self), self.kill.clone());
        let admitted = match self.admission.admit(peer.ip()) {
            Ok(admitted) => admitted,
            Err(why) => {
                self.metrics.connection_refused();
                if self.limit.allows() {
                    tracing::warn!(%peer, %why, "connection refused");
                }
                if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
                    tokio::spawn(async move {
                        let _ = kill.run_until_cancelled(door.refuse(stream, why)).await;
                        drop(permit);
                    });
                }
                return;
            }
        };
        // Without this a small answer waits for the peer's delayed ACK.
        if let Err(error) = stream.set_nodelay() {
            tracing::debug!(%peer, %error, "connection lost before it was set up");
            return;
        }
        let open = (self.metrics.connection(), admitted);
        tokio::spawn(async move {
            let _ = kill
                .run_until_cancelled(door.begin(stream, peer, open))
                .await;
        });
    }

    async fn refuse(&self, stream: Socket, why: Refused) {
        let mut stream = Accepted::new(stream, self.tls.as_deref());
        let text = format!(
            "node {} refuses new connections: {why}; use another node or close some",
            self.ports.node
        );
        let answer = speech::go_away(speech::ENHANCE_YOUR_CALM, &text);
        speech::answer_and_close(&mut stream, &answer).await;
    }

    /// Waits for the preface and hands the connection on, or answers what came instead. All of the waiting ends at one
    /// time: bytes that come one by one buy a client no more of it.
    async fn begin(&self, stream: Socket, peer: SocketAddr, open: Open) {
        let info = TcpConnectInfo {
            local_addr: stream.local_addr(),
            remote_addr: stream.peer_addr(),
        };
        let mut stream = Accepted::new(stream, self.tls.as_deref());
        let mut first = Vec::with_capacity(PREFACE.len());
        let deadline = Instant::now() + PREFACE_WAIT;
        while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
            let rest = PREFACE.len() - first.len();
            let mut more = (&mut stream).take(rest as u64);
            match tokio::time::timeout_at(deadline, more.read_buf(&mut first)).await {
                Ok(Ok(read)) if read > 0 => {}
                // Silent, gone, or without a handshake, of which the listener has told.
                _ => return,
            }
        }
        if first == PREFACE {
            let connection = Connection::new(stream, info, open, self.kill.clone());
            let _ = self.begun.send(connection).await;
            return;
        }
        self.answer(stream, first, peer, deadline).await;
    }

    async fn answer(
        &self,
        mut stream: Accepted,
        mut first: Vec<u8>,
        peer: SocketAddr,
        deadline: Instant,
    ) {
        // What decides may come in pieces.
        while first.len() < speech::FIRST_BYTES {
            match tokio::time::timeout_at(deadline, stream.read_buf(&mut first)).await {
                Ok(Ok(read)) if read > 0 => {}
                _ => break,
            }
        }
        let speech = Speech::of(&first);
        let text = self.ports.elsewhere(speech);
        if self.limit.allows() {
            let looks_like = speech.map_or("nothing that is known here", Speech::name);
            tracing::info!(%peer, looks_like, why = text, "a connection that does not speak gRPC is closed");
        }
        if matches!(speech, Some(Speech::Http1 | Speech::Tls)) {
            // A TLS client knows by any plaintext what is wrong.
            speech::answer_and_close(&mut stream, &speech::bad_request(&text)).await;
        }
    }
}

/// One connection, whose preface was read.
#[derive(Debug)]
pub struct Connection {
    stream: Accepted,
    info: TcpConnectInfo,
    token: CancellationToken,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// What of the preface was not read again yet.
    preface: &'static [u8],
    _open: Open,
}

impl Connection {
    fn new(stream: Accepted, info: TcpConnectInfo, open: Open, token: CancellationToken) -> Self {
        Self {
            stream,
            info,
            killed: Box::pin(token.clone().cancelled_owned()),
            token,
            preface: PREFACE,
            _open: open,
        }
    }

    fn ended() -> io::Error {
        io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the server has closed the connection",
        )
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.token.is_cancelled() {
            return Poll::Ready(Err(Self::ended()));
        }
        if !self.preface.is_empty() {
            let (now, rest) = self
                .preface
                .split_at(self.preface.len().min(buf.remaining()));
            buf.put_slice(now);
            self.preface = rest;
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() && self.killed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Self::ended()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
