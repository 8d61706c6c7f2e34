//! What the other side of a connection speaks, by its first bytes, and how a listener answers what it does not serve.
//!
//! A client that was given the wrong port would otherwise learn only that the connection closed. [`Speech`] names
//! what its first bytes look like; [`go_away`] and [`bad_request`] are answers that HTTP clients can read, and
//! [`reason_in`] finds the text of the first in what a server sends. Invariants: nothing here reads or writes a
//! socket, and at most [`FIRST_BYTES`] bytes decide. It never decides who is let in.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// With this the HTTP/2 client begins (RFC 9113, 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// As many bytes are enough to tell what is spoken.
pub const FIRST_BYTES: usize = 8;
/// Error code of a GOAWAY frame: the client asks for more than the server gives.
pub const ENHANCE_YOUR_CALM: u32 = 0xb;
/// Error code of a GOAWAY frame: the client does what this port does not serve.
pub const PROTOCOL_ERROR: u32 = 0x1;

/// Bytes before the payload of an HTTP/2 frame.
const FRAME_HEADER: usize = 9;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
/// Bytes of a GOAWAY frame before its text: last stream and error code.
const GO_AWAY_FIELDS: usize = 8;
/// Longest text that is sent or looked for.
const TEXT_MAX: usize = 512;
/// How long a client that was answered may take to close the connection.
const LINGER: Duration = Duration::from_secs(1);
/// First words of HTTP/1 requests, as many bytes as a Kafka length has.
const METHODS: [&[u8; 4]; 8] = [
    b"GET ", b"PUT ", b"POST", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN",
];
/// Numbers that Kafka's APIs and their versions stay below.
const KAFKA_KEYS: u16 = 128;
const KAFKA_VERSIONS: u16 = 32;
/// Longest first request of a Kafka client; real ones have less than a hundred bytes.
const KAFKA_FIRST: u32 = 1 << 20;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// A TLS handshake.
    Tls,
    /// HTTP/1, as browsers and `curl` speak it.
    Http1,
    /// HTTP/2, and so gRPC.
    Http2,
    /// Kafka's protocol.
    Kafka,
}

impl Speech {
    /// What begins with these bytes; `None`: nothing that is known, or too few bytes.
    #[must_use]
    pub fn of(first: &[u8]) -> Option<Self> {
        let four = first.first_chunk::<4>();
        match first {
            [0x16, 0x03, ..] => Some(Self::Tls),
            [b'P', b'R', b'I', b' ', ..] => Some(Self::Http2),
            _ if four.is_some_and(|four| METHODS.contains(&four)) => Some(Self::Http1),
            [a, b, c, d, k, e, v, w, ..] => {
                let length = u32::from_be_bytes([*a, *b, *c, *d]);
                let key = u16::from_be_bytes([*k, *e]);
                let version = u16::from_be_bytes([*v, *w]);
                let is_request = (8..=KAFKA_FIRST).contains(&length)
                    && key < KAFKA_KEYS
                    && version < KAFKA_VERSIONS;
                is_request.then_some(Self::Kafka)
            }
            _ => None,
        }
    }

    /// The name that people know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls => "TLS",
            Self::Http1 => "HTTP/1",
            Self::Http2 => "HTTP/2 (gRPC)",
            Self::Kafka => "Kafka's protocol",
        }
    }
}

/// An HTTP/2 server's first and last words: it has read nothing, will not, and says why.
#[must_use]
pub fn go_away(code: u32, text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(TEXT_MAX)];
    let length = u32::try_from(GO_AWAY_FIELDS + text.len()).unwrap_or(u32::MAX);
    let mut bytes = vec![0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&length.to_be_bytes()[1..]);
    bytes.extend_from_slice(&[GO_AWAY, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(text);
    bytes
}

/// An HTTP/1 answer that says what is wrong. A TLS client reads it as the plaintext it is.
#[must_use]
pub fn bad_request(text: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}\n",
        text.len() + 1
    )
    .into_bytes()
}

/// What a server's first bytes say about a connection that it does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// More bytes may tell.
    Undecided,
    /// It serves the connection, or says nothing that is understood here.
    None,
    /// Its own words.
    Text(String),
}

/// Looks for a refusal at the beginning of what an HTTP/2 server sends. Safe for any bytes.
#[must_use]
pub fn reason_in(mut bytes: &[u8]) -> Reason {
    loop {
        let Some(header) = bytes.first_chunk::<FRAME_HEADER>() else {
            return Reason::Undecided;
        };
        let [a, b, c, kind, flags, ..] = *header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let is_known = matches!(kind, SETTINGS | GO_AWAY) && flags & !1 == 0;
        if !is_known || length > GO_AWAY_FIELDS + TEXT_MAX {
            return Reason::None;
        }
        let Some(payload) = bytes.get(FRAME_HEADER..FRAME_HEADER + length) else {
            return Reason::Undecided;
        };
        if kind == GO_AWAY {
            let code = payload.get(4..GO_AWAY_FIELDS);
            let text = payload.get(GO_AWAY_FIELDS..).unwrap_or_default();
            // Without an error it is an ordinary end.
            return match std::str::from_utf8(text) {
                Ok(text) if !text.is_empty() && code != Some(&[0; 4]) => {
                    Reason::Text(text.to_owned())
                }
                _ => Reason::None,
            };
        }
        bytes = &bytes[FRAME_HEADER + length..];
    }
}

/// Sends an answer and waits a moment for the client to hear it: a connection that is closed over unread bytes takes
/// the answer with it.
pub async fn answer_and_close(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) {
    let talk = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        let mut scrap = [0; 1024];
        while stream.read(&mut scrap).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whether the client heard it changes nothing here.
    let _ = tokio::time::timeout(LINGER, talk).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_what_is_spoken() {
        for (bytes, speech) in [
            (&b"PRI * HTTP/2.0\r\n"[..], Some(Speech::Http2)),
            (b"GET / HTTP/1.1\r\n", Some(Speech::Http1)),
            (b"OPTIONS *", Some(Speech::Http1)),
            (&[0x16, 3, 1, 2, 0, 1], Some(Speech::Tls)),
            // ApiVersions and Metadata.
            (&[0, 0, 0, 40, 0, 18, 0, 4], Some(Speech::Kafka)),
            (&[0, 0, 0, 30, 0, 3, 0, 12, 0], Some(Speech::Kafka)),
            (b"", None),
            (b"PRI", None),
            (&[0, 0, 0, 40, 0, 18], None),
            (&[0xff; 24], None),
            (&[0; 24], None),
            (b"SSH-2.0-OpenSSH", None),
        ] {
            assert_eq!(Speech::of(bytes), speech, "{bytes:?}");
        }
        assert_eq!(
            Speech::of(&PREFACE[..FIRST_BYTES]),
            Some(Speech::Http2),
            "enough bytes"
        );
    }

    #[test]
    fn a_refusal_is_found_however_it_is_cut() {
        let text = "too many connections";
        let whole = go_away(ENHANCE_YOUR_CALM, text);
        for cut in 0..whole.len() {
            assert_eq!(reason_in(&whole[..cut]), Reason::Undecided, "{cut}");
        }
        assert_eq!(reason_in(&whole), Reason::Text(text.to_owned()));
        let long = "x".repeat(5000);
        let Reason::Text(short) = reason_in(&go_away(PROTOCOL_ERROR, &long)) else {
            panic!("a long text is cut and still read");
        };
        assert_eq!(short.len(), TEXT_MAX);
        // An ordinary beginning, an ordinary end, and noise.
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let headers = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
        assert_eq!(reason_in(&[&settings[..], &headers].concat()), Reason::None);
        assert_eq!(reason_in(&go_away(0, "bye")), Reason::None);
        assert_eq!(reason_in(b"HTTP/1.1 400 Bad Request"), Reason::None);
        assert_eq!(reason_in(&[0xff; 100]), Reason::None);
    }
}
