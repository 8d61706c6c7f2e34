//! The seam to the network: what listens, and what connects. A server has [`Tcp`]; a simulation of whole servers
//! puts in connections of its own, and everything above them is the same, TLS included.
//!
//! Invariants: a TCP connection that was opened or accepted here waits for no delayed acknowledgement (no
//! Nagle); what is not TCP is never told apart above this module.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// What a call of [`Network`] resolves to.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// Opens listeners and connections.
pub trait Network: Send + Sync + Debug {
    /// Listens at `host:port`; port 0 is any that is free.
    fn listen<'a>(&'a self, address: &'a str) -> Later<'a, Listener>;

    /// Connects to `port` of `host`, a name or an address.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Later<'a, Socket>;
}

/// The network of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn listen<'a>(&'a self, address: &'a str) -> Later<'a, Listener> {
        Box::pin(async move { TcpListener::bind(address).await.map(Listener::Tcp) })
    }

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Later<'a, Socket> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Socket::Tcp(stream))
        })
    }
}

/// A connection that is not TCP.
pub trait Wire: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Wire for T {}

/// A listener that is not TCP.
pub trait Accept: Debug + Send + Sync {
    /// The next connection, and who opened it.
    fn accept(&self) -> Later<'_, (Socket, SocketAddr)>;

    /// Where it listens.
    ///
    /// # Errors
    /// When that is not known.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A listener.
#[derive(Debug)]
pub enum Listener {
    /// Of this machine.
    Tcp(TcpListener),
    /// Another.
    Other(Box<dyn Accept>),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl Listener {
    /// The next connection, and who opened it. Safe to drop.
    ///
    /// # Errors
    /// When there is none, mostly for want of file descriptors. Others may come.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Tcp(stream), peer))
            }
            Self::Other(listener) => listener.accept().await,
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When that is not known.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Other(listener) => listener.local_addr(),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Socket {
    /// Of this machine.
    Tcp(TcpStream),
    /// Another.
    Other {
        /// What is read and written.
        wire: Box<dyn Wire>,
        /// This end.
        local: Option<SocketAddr>,
        /// The other end.
        remote: Option<SocketAddr>,
    },
}

impl Socket {
    /// Sends what is written at once, however little it is.
    ///
    /// # Errors
    /// When the connection is already lost.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Other { .. } => Ok(()),
        }
    }

    /// This end, if it is known.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Other { local, .. } => *local,
        }
    }

    /// The other end, if it is known.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Other { remote, .. } => *remote,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Other { wire, .. } => Pin::new(wire).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Other { wire, .. } => Pin::new(wire).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Other { wire, .. } => Pin::new(wire).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Other { wire, .. } => wire.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Other { wire, .. } => Pin::new(wire).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Other { wire, .. } => Pin::new(wire).poll_shutdown(cx),
        }
    }
}
