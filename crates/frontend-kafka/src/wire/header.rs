//! Headers of requests and responses. Which header a message has follows from its API and version; the first
//! eight bytes of a request are the same in all of them, so that every request can be answered.

use bytes::Bytes;

use super::codec::{EncodeError, Source, Text, Writer};
use super::error::DecodeError;
use super::generated::ApiKey;
use super::reader::Reader;

/// What a request begins with, whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Says which API; [`ApiKey::from_key`] knows those that have a table.
    pub api_key: i16,
    /// Version of the API.
    pub api_version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
}

impl Prefix {
    /// Bytes of a prefix.
    pub const BYTES: usize = 8;

    /// Reads the first eight bytes of a frame.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn read(frame: &Bytes) -> Result<Self, DecodeError> {
        Self::from_reader(&mut Reader::new(frame.clone(), HEADER, 0, false))
    }

    fn from_reader(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            api_key: reader.int16("request_api_key")?,
            api_version: reader.int16("request_api_version")?,
            correlation_id: reader.int32("correlation_id")?,
        })
    }
}

/// The name of a header in errors.
const HEADER: &str = "RequestHeader";

/// The header of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The first eight bytes.
    pub prefix: Prefix,
    /// What the client calls itself.
    pub client_id: Option<Text>,
}

/// The version of a request's header: 2 has tagged fields. Version 0, without a client's name, belonged to one
/// API between brokers that clients never use.
#[must_use]
pub const fn request_header_version(key: ApiKey, version: i16) -> i16 {
    match key.flexible_from() {
        Some(first) if version >= first => 2,
        _ => 1,
    }
}

/// The version of a response's header: 1 has tagged fields. `ApiVersions` never has them, because a client that
/// asks for versions cannot know yet which header the server would choose.
#[must_use]
pub const fn response_header_version(key: ApiKey, version: i16) -> i16 {
    match (key, key.flexible_from()) {
        (ApiKey::ApiVersions, _) => 0,
        (_, Some(first)) if version >= first => 1,
        _ => 0,
    }
}

impl RequestHeader {
    /// Reads a header of version 0, 1 or 2 and returns what follows.
    ///
    /// # Errors
    /// When the bytes are no such header.
    pub fn read(frame: Bytes, version: i16) -> Result<(Self, Bytes), DecodeError> {
        // The client's name has a plain length even where all else is compact.
        let mut reader = Reader::new(frame, HEADER, version, false);
        let prefix = Prefix::from_reader(&mut reader)?;
        let client_id = if version >= 1 {
            reader.string_or_null("client_id", true)?
        } else {
            None
        };
        let mut rest = reader.rest();
        if version >= 2 {
            rest = skip_tags(rest, HEADER, version)?;
        }
        Ok((Self { prefix, client_id }, rest))
    }

    /// Writes a header of version 0, 1 or 2.
    ///
    /// # Errors
    /// When the client's name is longer than 32,767 bytes.
    pub(super) fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        w.int16(self.prefix.api_key);
        w.int16(self.prefix.api_version);
        w.int32(self.prefix.correlation_id);
        if version >= 1 {
            w.plain_string_or_null("client_id", self.client_id.as_ref())?;
        }
        if version >= 2 {
            w.varint(0);
        }
        Ok(())
    }
}

/// Reads the header of a response and returns the correlation id and what follows.
///
/// # Errors
/// When the bytes are no such header.
pub fn read_response_header(frame: Bytes, version: i16) -> Result<(i32, Bytes), DecodeError> {
    const RESPONSE: &str = "ResponseHeader";
    let mut reader = Reader::new(frame, RESPONSE, version, false);
    let correlation_id = reader.int32("correlation_id")?;
    let mut rest = reader.rest();
    if version >= 1 {
        rest = skip_tags(rest, RESPONSE, version)?;
    }
    Ok((correlation_id, rest))
}

/// No header has a tag of its own.
fn skip_tags(bytes: Bytes, header: &'static str, version: i16) -> Result<Bytes, DecodeError> {
    let mut reader = Reader::new(bytes, header, version, true);
    reader.tags(&[], |_, _| Ok(false))?;
    Ok(reader.rest())
}
