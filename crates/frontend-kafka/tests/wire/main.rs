//! The wire codec from outside: what is written is read again, byte by byte as the protocol's documents say,
//! as another implementation does, and whatever hostile bytes say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod chance;
mod golden;
mod hostile;
mod memory;
mod oracle;
mod printed;
mod round_trip;

use bytes::{Bytes, BytesMut};
use varve_frontend_kafka::wire::{
    ApiKey, DecodeError, Frame, FrameReader, Prefix, Request, RequestError, RequestHeader,
    Response, Text,
};
use varve_frontend_kafka::wire::{
    decode_request, decode_response, encode_request, encode_response,
};

/// A request or a response.
#[derive(Debug, Clone, PartialEq)]
enum Message {
    Request(Request),
    Response(Response),
}

/// What the tests say in every header.
const CORRELATION_ID: i32 = 0x1234_5678;
const CLIENT_ID: Text = Text::from_static("client");

/// One message that a version can say.
struct Case {
    key: ApiKey,
    version: i16,
    is_request: bool,
}

impl Case {
    /// Every message in every version.
    fn all() -> impl Iterator<Item = Self> {
        let versions = ApiKey::ALL.iter().flat_map(|key| {
            (key.first_version()..=key.last_version()).map(move |version| (*key, version))
        });
        versions.flat_map(|(key, version)| {
            [true, false].map(|is_request| Self {
                key,
                version,
                is_request,
            })
        })
    }

    fn name(&self) -> String {
        let name = if self.is_request {
            self.key.request_name()
        } else {
            self.key.response_name()
        };
        format!("{name} v{}", self.version)
    }

    /// Header version 2 of requests and 1 of responses end with tags.
    fn random(&self, seed: u64) -> Message {
        let mut chance = chance::Chance::new(seed, self.version);
        if self.is_request {
            Message::Request(chance.request(self.key))
        } else {
            Message::Response(chance.response(self.key))
        }
    }

    fn encode(&self, message: &Message) -> Frame {
        let frame = match message {
            Message::Request(m) => encode_request(CORRELATION_ID, Some(CLIENT_ID), self.version, m),
            Message::Response(m) => encode_response(CORRELATION_ID, self.version, m),
        };
        frame.unwrap_or_else(|e| panic!("{}: {e}\n{message:?}", self.name()))
    }

    /// Reads a frame without its length. A header that is not the tests' own is an error of ours.
    fn decode(&self, frame: Bytes) -> Result<Message, DecodeError> {
        if !self.is_request {
            let (_, response) = decode_response(self.key, self.version, frame)?;
            return Ok(Message::Response(response));
        }
        match decode_request(frame) {
            Ok((_, request)) => Ok(Message::Request(request)),
            Err(RequestError::NoPrefix(error) | RequestError::Malformed(_, error)) => Err(error),
            Err(other) => panic!("{}: {other}", self.name()),
        }
    }
}

/// A frame without its length; through the reader of frames when it is long enough for a request.
fn unframed(frame: Frame) -> Bytes {
    let length = frame.length();
    let bytes = frame.into_bytes();
    assert_eq!(
        bytes.len(),
        length,
        "the frame's length is that of its parts"
    );
    let announced = u32::try_from(length - 4).unwrap();
    assert_eq!(bytes[..4], announced.to_be_bytes(), "and what it announces");
    let body = bytes.slice(4..);
    if body.len() >= Prefix::BYTES {
        let mut buffer = BytesMut::from(&bytes[..]);
        let cut = FrameReader::new(1 << 26).next(&mut buffer).unwrap();
        assert_eq!(cut.as_ref(), Some(&body));
        assert!(buffer.is_empty(), "nothing follows it");
    }
    body
}

/// Length of the tests' header.
fn header_length(case: &Case) -> usize {
    let flexible = case.key.is_flexible(case.version);
    match case.is_request {
        true => 8 + 2 + CLIENT_ID.len() + usize::from(flexible),
        false => 4 + usize::from(flexible && case.key != ApiKey::ApiVersions),
    }
}

/// The header that a request of the tests has.
fn assert_header(case: &Case, header: &RequestHeader) {
    assert_eq!(header.prefix.api_key, case.key as i16);
    assert_eq!(header.prefix.api_version, case.version);
    assert_eq!(header.prefix.correlation_id, CORRELATION_ID);
    assert_eq!(header.client_id, Some(CLIENT_ID));
}
