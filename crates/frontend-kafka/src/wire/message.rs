//! Whole messages: a frame to a request, a response to a frame; and the client's side of the same.

use bytes::Bytes;
use thiserror::Error;

use super::error::{DecodeError, EncodeError, EncodeFault};
use super::frame::{Frame, LENGTH_BYTES};
use super::generated::{ApiKey, Request, Response};
use super::header::{
    Prefix, RequestHeader, read_response_header, request_header_version, response_header_version,
};
use super::reader::Reader;
use super::writer::Writer;

/// Why a frame is not a request that can be served. All but the first can be answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Not even the first eight bytes are there.
    #[error(transparent)]
    NoPrefix(DecodeError),
    /// An API without a table.
    #[error("API key {} is unknown", .0.api_key)]
    UnknownApi(Prefix),
    /// A version without a table. `ApiVersions` is answered in version 0 with the versions there are.
    #[error("{} has no version {}", .1.name(), .0.api_version)]
    UnsupportedVersion(Prefix, ApiKey),
    /// Not what the API and version say.
    #[error("{1}")]
    Malformed(Prefix, DecodeError),
}

impl RequestError {
    /// What the request began with, to answer it.
    #[must_use]
    pub const fn prefix(&self) -> Option<Prefix> {
        match self {
            Self::NoPrefix(_) => None,
            Self::UnknownApi(prefix)
            | Self::UnsupportedVersion(prefix, _)
            | Self::Malformed(prefix, _) => Some(*prefix),
        }
    }
}

impl ApiKey {
    /// Whether there is a table for `version`.
    #[must_use]
    pub const fn has_version(self, version: i16) -> bool {
        self.first_version() <= version && version <= self.last_version()
    }

    /// Whether `version` has compact lengths and tagged fields.
    #[must_use]
    pub const fn is_flexible(self, version: i16) -> bool {
        matches!(self.flexible_from(), Some(first) if version >= first)
    }
}

/// Reads a request from a frame without its length. Strings and records are slices of the frame.
///
/// # Errors
/// When it is no request, or none of a version with a table.
pub fn decode_request(frame: Bytes) -> Result<(RequestHeader, Request), RequestError> {
    let prefix = Prefix::read(&frame).map_err(RequestError::NoPrefix)?;
    let version = prefix.api_version;
    let key = ApiKey::from_key(prefix.api_key).ok_or(RequestError::UnknownApi(prefix))?;
    if !key.has_version(version) {
        return Err(RequestError::UnsupportedVersion(prefix, key));
    }
    let malformed = |error| RequestError::Malformed(prefix, error);
    let header_version = request_header_version(key, version);
    let (header, body) = RequestHeader::read(frame, header_version).map_err(malformed)?;
    let mut reader = Reader::new(body, key.request_name(), version, key.is_flexible(version));
    let request = Request::read(key, &mut reader).map_err(malformed)?;
    // What follows is ignored, as Kafka ignores it: librdkafka 2.16 ends the question for all topics, as of Metadata 9,
    // with three bytes that belong to no field.
    Ok((header, request))
}

/// Reads the response to a request of `key` and `version` from a frame without its length.
///
/// # Errors
/// When it is no such response.
pub fn decode_response(
    key: ApiKey,
    version: i16,
    frame: Bytes,
) -> Result<(i32, Response), DecodeError> {
    let (id, body) = read_response_header(frame, response_header_version(key, version))?;
    let mut reader = Reader::new(body, key.response_name(), version, key.is_flexible(version));
    let response = Response::read(key, &mut reader)?;
    reader.finish()?;
    Ok((id, response))
}

/// Writes the response to a request: length, header and body. Records of a kilobyte and more are not copied but
/// are parts of the frame.
///
/// # Errors
/// When the version cannot say it, or it is longer than 2 GiB.
pub fn encode_response(
    correlation_id: i32,
    version: i16,
    response: &Response,
) -> Result<Frame, EncodeError> {
    let key = response.key();
    let tags = response_header_version(key, version) >= 1;
    encode(key, key.response_name(), version, |w| {
        w.int32(correlation_id);
        if tags {
            w.varint(0);
        }
        response.write(w)
    })
}

/// Writes a request: length, header and body. Key and version are those of the request and of `version`.
///
/// # Errors
/// When the version cannot say it, or it is longer than 2 GiB.
pub fn encode_request(
    correlation_id: i32,
    client_id: Option<super::Text>,
    version: i16,
    request: &Request,
) -> Result<Frame, EncodeError> {
    let key = request.key();
    let prefix = Prefix {
        api_key: key as i16,
        api_version: version,
        correlation_id,
    };
    let header = RequestHeader { prefix, client_id };
    encode(key, key.request_name(), version, |w| {
        header.write(w, request_header_version(key, version))?;
        request.write(w)
    })
}

fn encode(
    key: ApiKey,
    message: &'static str,
    version: i16,
    write: impl Fn(&mut Writer) -> Result<(), EncodeError>,
) -> Result<Frame, EncodeError> {
    let flexible = key.is_flexible(version);
    let refused = |fault| EncodeError {
        message,
        version,
        field: String::new(),
        fault,
    };
    if !key.has_version(version) {
        return Err(refused(EncodeFault::NoSuchVersion));
    }
    let mut measured = Writer::measuring(message, version, flexible);
    write(&mut measured)?;
    let (length, most) = (measured.length(), i32::MAX as usize);
    let announced =
        i32::try_from(length).map_err(|_| refused(EncodeFault::TooLong { length, most }))?;
    let capacity = LENGTH_BYTES + measured.copied();
    let mut writer = Writer::writing(message, version, flexible, capacity);
    writer.int32(announced);
    write(&mut writer)?;
    assert_eq!(
        writer.length(),
        LENGTH_BYTES + length,
        "{message} v{version} was measured wrong"
    );
    Ok(Frame::new(writer.into_parts(), LENGTH_BYTES + length))
}
