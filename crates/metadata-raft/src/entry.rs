//! An entry of the metadata log as bytes and back: the value of a record of the log, and a part of messages.
//! See `FORMAT.md`.
//!
//! Invariants: decoding is total; decoding then encoding gives the same bytes; a command inside stays the
//! bytes that `varve_metadata::command_codec` made.

use bytes::Bytes;

use crate::codec::{CodecError, Reader, Writer};
use crate::types::{CommandBytes, Entry, Payload};

/// Format version that is written; also the only one that is read.
pub const VERSION: u8 = 1;
/// Longest command.
pub const COMMAND_MAX_BYTES: usize = 1024 * 1024;
/// Bytes before the body of an entry.
pub const HEADER_BYTES: usize = 2 + 8 + 8;

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The bytes of an entry.
#[must_use]
pub fn encode(entry: &Entry) -> Vec<u8> {
    let mut w = Writer(Vec::with_capacity(HEADER_BYTES + 64));
    w.u8(VERSION);
    w.u8(match &entry.payload {
        Payload::Blank => BLANK,
        Payload::Normal(_) => COMMAND,
        Payload::Membership(_) => MEMBERSHIP,
    });
    w.log_id(&entry.log_id);
    match &entry.payload {
        Payload::Blank => {}
        Payload::Normal(command) => w.0.extend_from_slice(&command.0),
        Payload::Membership(membership) => w.membership(membership),
    }
    w.0
}

/// The entry of those bytes.
///
/// # Errors
/// [`CodecError`] for anything that [`encode`] does not write.
pub fn decode(bytes: &[u8]) -> Result<Entry, CodecError> {
    let mut r = Reader::new(bytes);
    let version = r.u8("version of an entry")?;
    if version != VERSION {
        return Err(r.bad(
            "version of an entry",
            format!("it is {version}, but this program knows {VERSION}: a newer program wrote it"),
        ));
    }
    let kind = r.u8("kind of an entry")?;
    let log_id = r.log_id()?;
    let payload = match kind {
        BLANK => Payload::Blank,
        COMMAND => {
            let command = r.rest();
            if command.len() > COMMAND_MAX_BYTES {
                let why = format!(
                    "it has {} bytes; the limit is {COMMAND_MAX_BYTES}",
                    command.len()
                );
                return Err(r.bad("command", why));
            }
            Payload::Normal(CommandBytes(Bytes::copy_from_slice(command)))
        }
        MEMBERSHIP => Payload::Membership(r.membership()?),
        other => {
            let why = format!("it is {other}: a newer program wrote it");
            return Err(r.bad("kind of an entry", why));
        }
    };
    r.end()?;
    Ok(Entry { log_id, payload })
}
