//! Accepted connections: bounded in number, without Nagle's delay, and ended by the server when its time is
//! over.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use varve_tls::{Accepted, Caller, Listener, ServerTls};

/// Pause after an accept that failed, most likely for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long a new connection may take to complete its handshake and say something.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);

/// Connections of a listener. At most `max` are open at a time; others are closed at once. All end when
/// `kill` is cancelled.
pub(crate) fn incoming(
    listener: Listener,
    max: usize,
    tls: Option<Arc<ServerTls>>,
    kill: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    let open = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
    futures_util::stream::unfold(
        (listener, open, tls, kill),
        move |(listener, open, tls, kill)| async move {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let Ok(permit) = Arc::clone(&open).try_acquire_owned() else {
                            tracing::warn!(%peer, max, "connection refused: the limit of open connections is reached");
                            continue;
                        };
                        // Without this a small answer waits for the peer's delayed ACK.
                        if let Err(error) = stream.set_nodelay() {
                            tracing::debug!(
                                %peer, %error,
                                "the connection was lost before it was set up"
                            );
                            continue;
                        }
                        let connection = Connection {
                            stream: Accepted::new(stream, tls.as_deref()),
                            late: Some(Box::pin(tokio::time::sleep(HANDSHAKE_WAIT))),
                            killed: Box::pin(kill.clone().cancelled_owned()),
                            token: kill.clone(),
                            _open: permit,
                        };
                        return Some((Ok(connection), (listener, open, tls, kill)));
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
pub(crate) struct Connection {
    stream: Accepted,
    /// Until something was read.
    late: Option<Pin<Box<Sleep>>>,
    token: CancellationToken,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    _open: OwnedSemaphorePermit,
}

impl Connection {
    fn ended() -> io::Error {
        io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the server has closed the connection",
        )
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.stream.caller()
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
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.late = None;
            return read;
        }
        let late = self.late.as_mut();
        let late = late.is_some_and(|late| late.as_mut().poll(cx).is_ready());
        if late || self.killed.as_mut().poll(cx).is_ready() {
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
