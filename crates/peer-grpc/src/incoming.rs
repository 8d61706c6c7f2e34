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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Pause after an accept that failed, most likely for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Connections of a listener. At most `max` are open at a time; others are closed at once. All end when
/// `kill` is cancelled.
pub(crate) fn incoming(
    listener: TcpListener,
    max: usize,
    kill: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    let open = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
    futures_util::stream::unfold(
        (listener, open, kill),
        move |(listener, open, kill)| async move {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let Ok(permit) = Arc::clone(&open).try_acquire_owned() else {
                            tracing::warn!(%peer, max, "connection refused: the limit of open connections is reached");
                            continue;
                        };
                        // Without this a small answer waits for the peer's delayed ACK.
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(%peer, %error, "connection lost before it was set up");
                            continue;
                        }
                        let connection = Connection {
                            stream,
                            killed: Box::pin(kill.clone().cancelled_owned()),
                            token: kill.clone(),
                            _open: permit,
                        };
                        return Some((Ok(connection), (listener, open, kill)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept failed; trying again");
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
    stream: TcpStream,
    token: CancellationToken,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    _open: OwnedSemaphorePermit,
}

impl Connection {
    fn ended() -> io::Error {
        io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the server has ended the connection",
        )
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
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
