//! The formats before the batch: message sets of magic 0 and 1, which old producers send. A set is read once and
//! becomes one batch; nothing else of this crate, and nothing that stores or serves records, knows of them.
//!
//! A set is a run of messages. One that names a codec wraps another set, whose messages are the records. Offsets in
//! a set say nothing that its order does not say, and are not read.
//!
//! Invariants: every checksum is checked before what it covers is believed; a set is converted whole or not at all;
//! what is unpacked, and the records that come of it, keep the limits of a batch (`limits::DECOMPRESSED_MAX_BYTES`
//! each); no input makes this panic. Never writes the old formats.

use std::io::Read as _;

use crate::batch::{Batch, VerifyLimits};
use crate::builder::BatchBuilder;
use crate::compress::{self, Compression};
use crate::crc::crc32;
use crate::error::{BatchError, MessageFault};
use crate::header::{ATTR_COMPRESSION, ATTR_LOG_APPEND_TIME};

/// Offset and size, in front of every message.
const OVERHEAD_BYTES: usize = 12;
/// The checksum, which covers what follows it.
const CRC_BYTES: usize = 4;
/// Checksum, magic, attributes, and the lengths of key and value.
const LEAST_BYTES: [usize; 2] = [14, 22];
/// Where the magic is, in a set as in a batch.
const MAGIC_AT: usize = 16;
/// A producer's word for "no timestamp".
const NO_TIMESTAMP: i64 = -1;

/// Whether `bytes` begin as a set of an old format does.
#[must_use]
pub fn is_message_set(bytes: &[u8]) -> bool {
    bytes
        .get(MAGIC_AT)
        .is_some_and(|magic| usize::from(*magic) < LEAST_BYTES.len())
}

/// Makes a batch of a message set: its records in their order, compressed as the set's first message says. Records
/// without a timestamp get `now_ms`, milliseconds since the epoch, as those do that come without one in any other way.
///
/// # Errors
/// [`BatchError`]: [`BatchError::Message`] for what is wrong with a message, the others for limits and codecs.
pub fn convert(set: &[u8], now_ms: i64, limits: &VerifyLimits) -> Result<Batch, BatchError> {
    let (found, max) = (set.len(), limits.max_batch_bytes);
    if found > max {
        return Err(BatchError::TooLarge { found, max });
    }
    let messages = Messages { set, at: 0 };
    let codec = match messages.clone().next() {
        None => return Err(BatchError::Empty),
        Some(Err(fault)) => return Err(BatchError::Message { index: 0, fault }),
        Some(Ok(message)) => message.codec,
    };
    let mut conversion = Conversion {
        builder: BatchBuilder::new(codec, None),
        limits: *limits,
        now_ms,
    };
    let mut unpacked = Vec::new();
    for message in messages {
        let message = message.map_err(|fault| conversion.wrong(fault))?;
        match message.codec {
            Compression::None => conversion.add(&message)?,
            _ => conversion.unwrap(&message, &mut unpacked)?,
        }
    }
    conversion.builder.build_batch()
}

/// A batch that is being made.
struct Conversion {
    builder: BatchBuilder,
    limits: VerifyLimits,
    now_ms: i64,
}

impl Conversion {
    /// The record that would come next is the one that is wrong.
    const fn wrong(&self, fault: MessageFault) -> BatchError {
        let index = self.builder.len();
        BatchError::Message { index, fault }
    }

    fn add(&mut self, message: &Message<'_>) -> Result<(), BatchError> {
        let max = self.limits.max_records;
        if self.builder.len() >= max {
            let found = i32::try_from(max.saturating_add(1)).unwrap_or(i32::MAX);
            return Err(BatchError::TooManyRecords { found, max });
        }
        let time = match message.timestamp {
            NO_TIMESTAMP => self.now_ms,
            time if time < 0 => return Err(self.wrong(MessageFault::Timestamp(time))),
            time => time,
        };
        self.builder.append(time, message.key, message.value, &[])
    }

    /// Adds the messages that one message wraps. `unpacked` is memory to use again.
    fn unwrap(&mut self, wrapper: &Message<'_>, unpacked: &mut Vec<u8>) -> Result<(), BatchError> {
        let value = wrapper.value.ok_or(self.wrong(MessageFault::Wraps))?;
        let max = self.limits.max_unpacked_bytes;
        match (wrapper.magic, wrapper.codec) {
            (0, Compression::Lz4) => unpack_lz4_of_magic_0(value, max, unpacked)?,
            (_, codec) => compress::decompress(codec, value, max, unpacked)?,
        }
        if unpacked.is_empty() {
            return Err(self.wrong(MessageFault::Wraps));
        }
        let inner = Messages {
            set: unpacked.as_slice(),
            at: 0,
        };
        for message in inner {
            let message = message.map_err(|fault| self.wrong(fault))?;
            if message.codec != Compression::None {
                return Err(self.wrong(MessageFault::Nested));
            }
            if message.magic != wrapper.magic {
                let (found, outer) = (message.magic, wrapper.magic);
                return Err(self.wrong(MessageFault::OtherMagic { found, outer }));
            }
            self.add(&message)?;
        }
        Ok(())
    }
}

/// One message, borrowed from its set.
#[derive(Debug)]
struct Message<'a> {
    magic: u8,
    codec: Compression,
    timestamp: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

/// Walks a set. Nothing follows a fault.
#[derive(Debug, Clone)]
struct Messages<'a> {
    set: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, MessageFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.set.get(self.at..).filter(|rest| !rest.is_empty())?;
        let message = frame(rest).and_then(|body| {
            self.at += OVERHEAD_BYTES + body.len();
            parse(body)
        });
        if message.is_err() {
            self.at = self.set.len();
        }
        Some(message)
    }
}

/// The message at the start of `rest`, without its offset and size.
fn frame(rest: &[u8]) -> Result<&[u8], MessageFault> {
    let cut_off = |needed| MessageFault::Truncated {
        needed,
        found: rest.len(),
    };
    let mut head = Fields(rest);
    head.take(8).ok_or(cut_off(OVERHEAD_BYTES))?;
    let size = head.i32().ok_or(cut_off(OVERHEAD_BYTES))?;
    let length = usize::try_from(size).unwrap_or(0);
    if length < LEAST_BYTES[0] {
        return Err(MessageFault::Size(size));
    }
    let needed = OVERHEAD_BYTES.saturating_add(length);
    head.take(length).ok_or(cut_off(needed))
}

fn parse(body: &[u8]) -> Result<Message<'_>, MessageFault> {
    let mut fields = Fields(body);
    let stated = fields.i32().ok_or(MessageFault::Field("crc"))? as u32;
    let magic = fields.byte().ok_or(MessageFault::Field("magic"))?;
    let least = LEAST_BYTES.get(usize::from(magic));
    let least = least.ok_or(MessageFault::Magic(magic as i8))?;
    let computed = crc32(&body[CRC_BYTES..]);
    if computed != stated {
        return Err(MessageFault::Crc { stated, computed });
    }
    if body.len() < *least {
        return Err(MessageFault::Size(body.len() as i32));
    }
    let attributes = fields.byte().ok_or(MessageFault::Field("attributes"))?;
    let attributes = i16::from(attributes);
    let codec = codec(attributes)?;
    let timestamp = match magic {
        0 => NO_TIMESTAMP,
        _ if attributes & ATTR_LOG_APPEND_TIME != 0 => return Err(MessageFault::LogAppendTime),
        _ => fields.i64().ok_or(MessageFault::Field("timestamp"))?,
    };
    let key = fields.nullable().ok_or(MessageFault::Field("key"))?;
    let value = fields.nullable().ok_or(MessageFault::Field("value"))?;
    if !fields.0.is_empty() {
        return Err(MessageFault::TrailingBytes(fields.0.len()));
    }
    Ok(Message {
        magic,
        codec,
        timestamp,
        key,
        value,
    })
}

/// zstd came with the batch: no message has it.
fn codec(attributes: i16) -> Result<Compression, MessageFault> {
    let bits = attributes & ATTR_COMPRESSION;
    match Compression::from_bits(bits) {
        Ok(codec) if codec != Compression::Zstd => Ok(codec),
        _ => Err(MessageFault::Codec(bits as u8)),
    }
}

/// Fields of a message, from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// A byte string behind its length, of which -1 is null.
    fn nullable(&mut self) -> Option<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }
}

/// Unpacks LZ4 as producers of magic 0 frame it: the checksum of the frame's header is computed over too many bytes
/// (KAFKA-3160), so it proves nothing and the right one is put in its place.
fn unpack_lz4_of_magic_0(payload: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let Some((mut header, at)) = lz4_header(payload) else {
        // Cut off, or no frame: the decoder says which.
        return compress::decompress(Compression::Lz4, payload, max, out);
    };
    header[at] = (xxh32_short(&header[LZ4_MAGIC.len()..at]) >> 8) as u8;
    let (header, rest) = (&header[..=at], &payload[at + 1..]);
    let frame = lz4_flex::frame::FrameDecoder::new(header.chain(rest));
    compress::unpack(Compression::Lz4, frame, max, out)
}

const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
/// Magic, flags, block size, length of the content, dictionary, checksum.
const LZ4_HEADER_MAX_BYTES: usize = 4 + 1 + 1 + 8 + 4 + 1;

/// The header of an LZ4 frame, and where its checksum is.
fn lz4_header(payload: &[u8]) -> Option<([u8; LZ4_HEADER_MAX_BYTES], usize)> {
    const CONTENT_LENGTH: u8 = 1 << 3;
    const DICTIONARY: u8 = 1;
    let flags = *payload.strip_prefix(&LZ4_MAGIC)?.first()?;
    let mut at = 6;
    if flags & CONTENT_LENGTH != 0 {
        at += 8;
    }
    if flags & DICTIONARY != 0 {
        at += 4;
    }
    let mut header = [0; LZ4_HEADER_MAX_BYTES];
    header[..=at].copy_from_slice(payload.get(..=at)?);
    Some((header, at))
}

/// xxHash32 with seed 0 of fewer than 16 bytes, which is what the header of an LZ4 frame has.
fn xxh32_short(bytes: &[u8]) -> u32 {
    const PRIME: [u32; 5] = [
        0x9E37_79B1,
        0x85EB_CA77,
        0xC2B2_AE3D,
        0x27D4_EB2F,
        0x1656_67B1,
    ];
    debug_assert!(bytes.len() < 16, "longer input is hashed in stripes");
    let mut hash = PRIME[4].wrapping_add(bytes.len() as u32);
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(PRIME[2]));
        hash = hash.rotate_left(17).wrapping_mul(PRIME[3]);
    }
    for byte in tail {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(PRIME[4]));
        hash = hash.rotate_left(11).wrapping_mul(PRIME[0]);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(PRIME[1]);
    hash = (hash ^ (hash >> 13)).wrapping_mul(PRIME[2]);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // Published test values of xxHash32 with seed 0.
        assert_eq!(xxh32_short(b""), 0x02CC_5D05);
        assert_eq!(xxh32_short(b"a"), 0x550D_7456);
        assert_eq!(xxh32_short(b"abc"), 0x32D1_53FF);
    }

    #[test]
    fn the_header_that_is_written_right_has_the_checksum_that_is_computed_here() {
        let mut packed = Vec::new();
        compress::compress(Compression::Lz4, None, b"some bytes", &mut packed).unwrap();
        let (header, at) = lz4_header(&packed).unwrap();
        assert_eq!(header[at], (xxh32_short(&header[4..at]) >> 8) as u8);
    }
}
