//! A connection that a listener accepted, with TLS or without. The handshake is made by whoever reads or
//! writes first, so that an acceptor never waits for a caller and a bound on connections bounds handshakes.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::{FallibleAccept, TlsStream};
use varve_types::NodeId;

use crate::connector::reason;
use crate::material::ServerTls;
use crate::names;
use crate::net::Socket;
use crate::quiet::LogLimit;

/// Who is at the other end, as far as its certificate says. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    tls: bool,
    shown: Arc<OnceLock<Option<NodeId>>>,
}

impl Caller {
    /// Whether the connection is by TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// The node that the certificate names; `None`: it shows none, or the handshake is not over.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.shown.get().copied().flatten()
    }
}

/// How long a caller that was refused has to hear why.
const LINGER: Duration = Duration::from_secs(1);

enum State {
    Plain(Socket),
    Handshake(Box<FallibleAccept<Socket>>),
    Tls(Box<TlsStream<Socket>>),
    Refused(Box<Refused>),
    Failed,
}

/// A handshake that failed. The caller has been told, and would not hear it if the connection were closed
/// over what it has said meanwhile.
struct Refused {
    stream: Socket,
    error: Option<io::Error>,
    until: Pin<Box<Sleep>>,
}

impl Refused {
    /// Resolves when the caller has gone, or its time is over.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut scrap = [0; 1024];
        loop {
            let mut buf = ReadBuf::new(&mut scrap);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut buf);
            let more = matches!(&read, Poll::Ready(Ok(()))) && !buf.filled().is_empty();
            if read.is_pending() && self.until.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if !more {
                let error = self.error.take();
                return Poll::Ready(error.unwrap_or_else(|| io::ErrorKind::NotConnected.into()));
            }
        }
    }
}

/// An accepted connection.
pub struct Accepted {
    state: State,
    caller: Caller,
    remote: Option<SocketAddr>,
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accepted")
            .field("remote", &self.remote)
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

impl Accepted {
    /// A connection of a listener with that TLS; `None`: without.
    #[must_use]
    pub fn new(stream: Socket, tls: Option<&ServerTls>) -> Self {
        let remote = stream.peer_addr();
        let caller = Caller {
            tls: tls.is_some(),
            shown: Arc::default(),
        };
        let state = match tls {
            None => State::Plain(stream),
            Some(tls) => {
                let accept = TlsAcceptor::from(tls.config()).accept(stream);
                State::Handshake(Box::new(accept.into_fallible()))
            }
        };
        Self {
            state,
            caller,
            remote,
        }
    }

    /// Who is at the other end: known once something was read.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// Completes the handshake.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Plain(_) | State::Tls(_) => return Poll::Ready(Ok(())),
                State::Failed => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                State::Refused(refused) => {
                    let error = ready!(refused.poll_gone(cx));
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
                State::Handshake(handshake) => match ready!(Pin::new(handshake).poll(cx)) {
                    Ok(stream) => self.opened(stream),
                    Err((error, stream)) => self.refused(&error, stream),
                },
            }
        }
    }

    fn opened(&mut self, stream: TlsStream<Socket>) {
        let shown = stream.get_ref().1.peer_certificates();
        let node = shown.and_then(|c| c.first()).and_then(names::node_of);
        // Nobody else sets it.
        let _ = self.caller.shown.set(node);
        self.state = State::Tls(Box::new(stream));
    }

    fn refused(&mut self, error: &io::Error, stream: Socket) {
        let why = reason(error, "the caller");
        let remote = self.remote.map(tracing::field::display);
        static LIMIT: LogLimit = LogLimit::new();
        if LIMIT.allows() {
            tracing::info!(
                remote,
                why,
                "a TLS handshake failed; the connection is closed"
            );
        }
        self.state = State::Refused(Box::new(Refused {
            stream,
            error: Some(io::Error::new(error.kind(), why)),
            until: Box::pin(tokio::time::sleep(LINGER)),
        }));
    }
}

macro_rules! either {
    ($this:ident, $cx:ident, $stream:ident => $call:expr) => {{
        ready!($this.poll_open($cx))?;
        match &mut $this.state {
            State::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            State::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            State::Handshake(_) | State::Refused(_) | State::Failed => {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
        }
    }};
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, cx, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, cx, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, cx, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, cx, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            State::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            // Nothing was said yet: dropping it is all there is to do.
            State::Handshake(_) | State::Refused(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }
}
