//! Connections to servers, with TLS or without, and why there is none in words that name the remedy.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, InvalidMessage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::explained::Fault;
use crate::material::ClientTls;
use crate::net::{Network, Socket, Tcp};
use crate::speech::{self, Reason};

/// First byte of a TLS alert, and of a handshake message. No HTTP/2 frame of a server begins so: its first
/// three bytes are the length of SETTINGS, far below.
const TLS_FIRST: [u8; 2] = [0x15, 0x16];

/// What an HTTP/1 server's answer begins with.
const HTTP1: &[u8] = b"HTTP/1.";

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ConnectError {
    text: String,
    unread: bool,
}

impl ConnectError {
    /// Any reason.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            unread: false,
        }
    }

    /// Whether the server has said that it read nothing of what was sent: sending it elsewhere is safe.
    #[must_use]
    pub const fn is_unread(&self) -> bool {
        self.unread
    }

    /// The one that is among the causes of `error`.
    #[must_use]
    pub fn within<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            // An I/O error shows what it carries as itself, not as its source.
            let carried = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            if let Some(found) = carried.and_then(|c| Self::within(c)) {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }

    fn io(self, kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, self)
    }
}

/// What went wrong with a handshake. `other` is the other side.
pub(crate) fn reason(error: &io::Error, other: &str) -> String {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(tls) = tls else {
        return if error.kind() == io::ErrorKind::UnexpectedEof {
            format!("{other} closed the connection during the TLS handshake")
        } else {
            format!("the TLS handshake failed: {error}")
        };
    };
    match tls {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!(
                "{other} does not speak TLS here: one side has TLS on, the other has it \
                 off"
            )
        }
        rustls::Error::NoCertificatesPresented => {
            format!("{other} showed no certificate, but this port requires one")
        }
        rustls::Error::InvalidCertificate(why) => match why {
            // A CA that was made anew has the old one's name and another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                format!("the certificate of {other} is not signed by a CA that this side trusts")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("{other}'s certificate has expired")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("{other}'s certificate is not valid yet: compare the clocks")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the certificate of {other} is for another name: {why}")
            }
            why => format!("the certificate of {other} was not accepted: {why}"),
        },
        rustls::Error::AlertReceived(alert) => alert_reason(*alert, other),
        tls => format!("the TLS handshake failed: {tls}"),
    }
}

fn alert_reason(alert: AlertDescription, other: &str) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            format!("{other} requires a certificate, but none is configured here")
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            format!("{other} does not know the CA of this side's certificate")
        }
        AlertDescription::CertificateExpired => {
            format!("{other} says that this side's certificate has expired")
        }
        alert => format!("{other} refused the TLS connection: {alert:?}"),
    }
}

/// Opens connections: a connector of tonic's channels. The timeout is the channel's.
#[derive(Debug, Clone)]
pub struct Connector {
    tls: Option<Arc<ClientTls>>,
    name: Option<String>,
    network: Arc<dyn Network>,
    fault: Fault,
}

impl Connector {
    /// With that TLS; `None`: without. `name`: what the server's certificate must name, if not the host of
    /// the address.
    #[must_use]
    pub fn new(tls: Option<Arc<ClientTls>>, name: Option<String>) -> Self {
        Self {
            tls,
            name,
            network: Arc::new(Tcp),
            fault: Fault::default(),
        }
    }

    /// Opens connections of that network.
    #[must_use]
    pub fn over(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// What became of the connections, for [`crate::Explained`].
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault.clone()
    }

    async fn connect(self, uri: Uri) -> io::Result<TokioIo<Connection>> {
        let bad = |why: &str| {
            let error = ConnectError::new(format!("{uri} is not an address: {why}"));
            error.io(io::ErrorKind::InvalidInput)
        };
        let host = uri.host().ok_or_else(|| bad("no host"))?;
        let port = uri.port_u16().ok_or_else(|| bad("no port"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = self.network.connect(host, port).await?;
        let Some(tls) = self.tls else {
            return Ok(TokioIo::new(Connection {
                stream: Stream::Plain(stream),
                head: Some(Vec::new()),
                fault: self.fault,
            }));
        };
        let name = self.name.unwrap_or_else(|| host.to_owned());
        let name = ServerName::try_from(name).map_err(|_| {
            bad("not a name that a certificate can \
            have")
        })?;
        let handshake = TlsConnector::from(tls.config()).connect(name, stream);
        let stream = handshake
            .await
            .map_err(|error| ConnectError::new(reason(&error, "the server")).io(error.kind()))?;
        Ok(TokioIo::new(Connection {
            stream: Stream::Tls(Box::new(stream)),
            head: Some(Vec::new()),
            fault: self.fault,
        }))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Connection>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // What was wrong with the last one is no reason for this one.
        self.fault.set(None);
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// The first bytes, until it is clear whether the server serves the connection.
    head: Option<Vec<u8>>,
    fault: Fault,
}

#[derive(Debug)]
enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Connection {
    /// Keeps the reason for those whose calls end with the connection.
    fn failed(&self, error: ConnectError, kind: io::ErrorKind) -> io::Error {
        self.fault.set(Some(error.clone()));
        error.io(kind)
    }

    /// Looks at what has arrived while it may still be a refusal.
    fn look(&mut self, arrived: &[u8]) -> io::Result<()> {
        let Some(head) = &mut self.head else {
            return Ok(());
        };
        if arrived.is_empty() && head.is_empty() {
            self.head = None;
            let why = "the server closed the connection and sent nothing: it is stopping, or this is not a gRPC \
                       port (varve's is 8278 unless its configuration says otherwise)";
            return Err(self.failed(ConnectError::new(why), io::ErrorKind::UnexpectedEof));
        }
        head.extend_from_slice(arrived);
        let plain = matches!(self.stream, Stream::Plain(_));
        let why = if plain && head.first().is_some_and(|first| TLS_FIRST.contains(first)) {
            ConnectError::new("the server speaks TLS here: turn TLS on (--tls, --tls-ca)")
        } else if head.starts_with(HTTP1) {
            ConnectError::new(
                "the server answers by HTTP/1, so this is not a gRPC port (varve's is 8278 unless its configuration \
                 says otherwise)",
            )
        } else if head.len() < HTTP1.len() && HTTP1.starts_with(head) && !arrived.is_empty() {
            return Ok(());
        } else {
            match speech::reason_in(head) {
                Reason::Undecided if !arrived.is_empty() => return Ok(()),
                Reason::Undecided | Reason::None => {
                    self.head = None;
                    return Ok(());
                }
                Reason::Text(text) => ConnectError { text, unread: true },
            }
        };
        self.head = None;
        Err(self.failed(why, io::ErrorKind::InvalidData))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = match &mut this.stream {
            Stream::Plain(stream) => ready!(Pin::new(stream).poll_read(cx, buf)),
            Stream::Tls(stream) => {
                let read = ready!(Pin::new(stream.as_mut()).poll_read(cx, buf));
                // A server that refuses this side's certificate says so after the handshake.
                read.map_err(|error| match tls_fault(&error) {
                    true => {
                        let why = ConnectError::new(reason(&error, "the server"));
                        this.failed(why, error.kind())
                    }
                    false => error,
                })
            }
        };
        let closed = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        match &read {
            // Closed over what this side had sent.
            Err(error) if closed(error) && this.head.as_ref().is_some_and(Vec::is_empty) => {
                this.look(&[])?;
            }
            Ok(()) if room > 0 => this.look(buf.filled().get(before..).unwrap_or_default())?,
            _ => {}
        }
        Poll::Ready(read)
    }
}

fn tls_fault(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some())
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
