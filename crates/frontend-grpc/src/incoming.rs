//! Accepted connections: bounded in number, without Nagle's delay, and ended by the server when a drain is
//! over. A peer that has not completed its TLS handshake and begun
//! to speak HTTP/2 within [`PREFACE_WAIT`] is dropped, so that silent
//! connections cannot use up the bound.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};
use varve_tls::{Accepted, Listener, ServerTls};

use crate::metrics::{Metrics, OpenGuard};

/// How long a new connection may take to send the HTTP/2 preface.
pub const PREFACE_WAIT: Duration = Duration::from_secs(10);
/// Bytes of the HTTP/2 preface.
const PREFACE_BYTES: usize = 24;
/// Pause after an accept that failed, most likely for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Connections of a listener. At most `max` are open at a time; others are closed at once and counted.
/// All end when `kill` is cancelled.
pub fn incoming(
    listener: Listener,
    metrics: Metrics,
    max: usize,
    tls: Option<Arc<ServerTls>>,
    kill: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    futures_util::stream::unfold(
        (listener, metrics, tls, kill),
        move |(listener, metrics, tls, kill)| async move {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        if metrics.open_connections() >= max {
                            metrics.connection_refused();
                            tracing::warn!(%peer, max, "connection refused: the limit of open connections is reached");
                            continue;
                        }
                        // Without this a small answer waits for the peer's delayed ACK.
                        if let Err(error) = stream.set_nodelay() {
                            tracing::debug!(
                                %peer, %error,
                                "the connection was lost before it was set up"
                            );
                            continue;
                        }
                        let info = TcpConnectInfo {
                            local_addr: stream.local_addr(),
                            remote_addr: stream.peer_addr(),
                        };
                        let stream = Accepted::new(stream, tls.as_deref());
                        let connection =
                            Connection::new(stream, info, metrics.connection(), kill.clone());
                        return Some((Ok(connection), (listener, metrics, tls, kill)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "could not accept a connection; trying again");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                }
            }
        },
    )
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: Accepted,
    info: TcpConnectInfo,
    token: CancellationToken,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    preface: Option<(Pin<Box<Sleep>>, usize)>,
    _open: OpenGuard,
}

impl Connection {
    fn new(
        stream: Accepted,
        info: TcpConnectInfo,
        open: OpenGuard,
        token: CancellationToken,
    ) -> Self {
        let sleep = Box::pin(tokio::time::sleep(PREFACE_WAIT));
        Self {
            stream,
            info,
            killed: Box::pin(token.clone().cancelled_owned()),
            token,
            preface: Some((sleep, 0)),
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
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some((_, seen)) = &mut self.preface {
            *seen += buf.filled().len() - before;
            if *seen >= PREFACE_BYTES {
                self.preface = None;
            }
        }
        if read.is_ready() {
            return read;
        }
        let late = self
            .preface
            .as_mut()
            .is_some_and(|(sleep, _)| sleep.as_mut().poll(cx).is_ready());
        if late || self.killed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Self::ended()));
        }
        Poll::Pending
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
