//! The five codecs of a batch payload, in the framings of Kafka's Java client: gzip members, snappy in
//! xerial blocks (a raw snappy block is read too), LZ4 frames of independent 64 KiB blocks, zstd
//! frames. Decompression stops at a bound, so a small batch cannot fill the memory.

use std::cell::RefCell;
use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use varve_types::limits;
use zstd::zstd_safe::{DCtx, DParameter};

use crate::error::BatchError;

/// Codec of a batch payload. The number is that of the attribute bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    /// Records as they are.
    #[default]
    None = 0,
    /// gzip.
    Gzip = 1,
    /// Snappy.
    Snappy = 2,
    /// LZ4 frame.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

/// zstd refuses frames that ask for a larger window: 2^27 bytes is what its highest level asks for, and what decoders
/// take unless they are told otherwise (RFC 8878, 3.1.1.1.2, leaves the limit to them).
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// A decoder that a large window has made larger than this is not kept for the next payload.
const ZSTD_KEPT_BYTES: usize = 8 * 1024 * 1024;
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\x00";
const XERIAL_HEADER_BYTES: usize = 16;
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

const _: () = assert!(1 << ZSTD_WINDOW_LOG_MAX >= limits::DECOMPRESSED_MAX_BYTES);

impl Compression {
    /// Every codec.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of attribute bits 0-2.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`] for 5 to 7.
    pub const fn from_bits(bits: i16) -> Result<Self, BatchError> {
        match bits {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(BatchError::UnknownCompression(other as u8)),
        }
    }

    /// Name as in configuration: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == s)
            .ok_or_else(|| format!("unknown codec {s:?}: use none, gzip, snappy, lz4 or zstd"))
    }
}

/// Appends `payload`, compressed, to `out`. `level` is the codec's own scale (gzip 0-9, zstd -7 to 22;
/// the others have none); `None` takes the codec's default.
///
/// # Errors
/// [`BatchError::Compress`] when the codec fails.
pub fn compress(
    codec: Compression,
    level: Option<i32>,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let result = match codec {
        Compression::None => {
            out.extend_from_slice(payload);
            Ok(())
        }
        Compression::Gzip => gzip(level, payload, out),
        Compression::Snappy => snappy(payload, out),
        Compression::Lz4 => lz4(payload, out),
        Compression::Zstd => zstd(level, payload, out),
    };
    result.map_err(|reason| BatchError::Compress { codec, reason })
}

fn gzip(level: Option<i32>, payload: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let level = level.map_or_else(flate2::Compression::default, |level| {
        flate2::Compression::new(level.clamp(0, 9) as u32)
    });
    let mut encoder = flate2::write::GzEncoder::new(out, level);
    encoder.write_all(payload).map_err(|e| e.to_string())?;
    encoder.finish().map(drop).map_err(|e| e.to_string())
}

fn snappy(payload: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    out.extend_from_slice(XERIAL_MAGIC);
    // Version 1, readable by version 1.
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    let mut encoder = snap::raw::Encoder::new();
    for block in payload.chunks(XERIAL_BLOCK_BYTES) {
        let at = out.len();
        out.resize(at + 4 + snap::raw::max_compress_len(block.len()), 0);
        let len = encoder
            .compress(block, &mut out[at + 4..])
            .map_err(|e| e.to_string())?;
        out[at..at + 4].copy_from_slice(&(len as u32).to_be_bytes());
        out.truncate(at + 4 + len);
    }
    Ok(())
}

fn lz4(payload: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    // Java's reader accepts independent blocks only.
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(payload).map_err(|e| e.to_string())?;
    encoder.finish().map(drop).map_err(|e| e.to_string())
}

fn zstd(level: Option<i32>, payload: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    thread_local! {
        // A compression context is large; one a thread is reused.
        static COMPRESSOR: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> =
            const { RefCell::new(None) };
    }
    let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(have, _)| *have != level) {
            *slot = Some((
                level,
                zstd::bulk::Compressor::new(level).map_err(|e| e.to_string())?,
            ));
        }
        let Some((_, compressor)) = slot else {
            return Err("no context".to_owned());
        };
        let at = out.len();
        out.resize(at + zstd::zstd_safe::compress_bound(payload.len()), 0);
        let len = compressor
            .compress_to_buffer(payload, &mut out[at..])
            .map_err(|e| e.to_string())?;
        out.truncate(at + len);
        Ok(())
    })
}

/// Replaces the contents of `out` with `payload`, decompressed, stopping at `max` bytes.
///
/// # Errors
/// [`BatchError::Decompress`] when the payload is damaged; [`BatchError::DecompressedTooLarge`] when it
/// is larger than `max`.
pub fn decompress(
    codec: Compression,
    payload: &[u8],
    max: usize,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    out.clear();
    let within = match codec {
        Compression::None => {
            out.extend_from_slice(&payload[..payload.len().min(max)]);
            Ok(payload.len() <= max)
        }
        Compression::Gzip => bounded(flate2::read::MultiGzDecoder::new(payload), max, out),
        Compression::Snappy => unsnappy(payload, max, out),
        Compression::Lz4 => bounded(lz4_flex::frame::FrameDecoder::new(payload), max, out),
        Compression::Zstd => unzstd(payload, max, out),
    };
    judged(codec, max, within)
}

/// As [`decompress`], of what `reader` unpacks.
pub(crate) fn unpack(
    codec: Compression,
    reader: impl Read,
    max: usize,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    out.clear();
    judged(codec, max, bounded(reader, max, out))
}

fn judged(codec: Compression, max: usize, within: Within) -> Result<(), BatchError> {
    match within {
        Ok(true) => Ok(()),
        Ok(false) => Err(BatchError::DecompressedTooLarge { codec, max }),
        Err(reason) => Err(BatchError::Decompress { codec, reason }),
    }
}

/// Whether the bound was kept, or what is damaged.
type Within = Result<bool, String>;

/// Memory that a buffer grows by at first.
const GROWTH_BYTES: usize = 64 * 1024;

/// Reads at most one byte past the bound, which is how it learns that it was passed. The buffer doubles up to the bound
/// and never beyond.
fn bounded(mut reader: impl Read, max: usize, out: &mut Vec<u8>) -> Within {
    loop {
        let left = max + 1 - out.len();
        if out.capacity() == out.len() {
            out.reserve_exact(out.len().max(GROWTH_BYTES).min(left));
        }
        let room = (out.capacity() - out.len()).min(left);
        let mut some = reader.by_ref().take(room as u64);
        let read = some.read_to_end(out).map_err(|e| e.to_string())?;
        if read < room {
            return Ok(true);
        }
        if out.len() > max {
            return Ok(false);
        }
    }
}

fn unsnappy(payload: &[u8], max: usize, out: &mut Vec<u8>) -> Within {
    if !payload.starts_with(XERIAL_MAGIC) {
        return unsnappy_block(payload, max, out);
    }
    let mut rest = payload
        .get(XERIAL_HEADER_BYTES..)
        .ok_or("the xerial header is cut off")?;
    while !rest.is_empty() {
        let (len, tail) = rest
            .split_first_chunk::<4>()
            .ok_or("a block length is cut off")?;
        let len = u32::from_be_bytes(*len) as usize;
        let block = tail.get(..len).ok_or("a block is cut off")?;
        if !unsnappy_block(block, max, out)? {
            return Ok(false);
        }
        rest = &tail[len..];
    }
    Ok(true)
}

/// Bytes that one byte of snappy can stand for: an element has at least two and copies at most 64.
const SNAPPY_MOST: usize = 64;

fn unsnappy_block(block: &[u8], max: usize, out: &mut Vec<u8>) -> Within {
    let at = out.len();
    let len = snap::raw::decompress_len(block).map_err(|e| e.to_string())?;
    if len / SNAPPY_MOST > block.len() {
        return Err(format!("{} bytes cannot hold {len}", block.len()));
    }
    if at + len > max {
        // Not decompressed: the length alone says that it is too large.
        return Ok(false);
    }
    out.resize(at + len, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut out[at..])
        .map(|_| true)
        .map_err(|e| e.to_string())
}

fn unzstd(payload: &[u8], max: usize, out: &mut Vec<u8>) -> Within {
    thread_local! {
        static CONTEXT: RefCell<DCtx<'static>> = RefCell::new(zstd_context());
    }
    CONTEXT.with_borrow_mut(|context| {
        let _ = context.reset(zstd::zstd_safe::ResetDirective::SessionOnly);
        let decoder = zstd::stream::read::Decoder::with_context(payload, context);
        let within = bounded(decoder, max, out);
        if context.sizeof() > ZSTD_KEPT_BYTES {
            *context = zstd_context();
        }
        within
    })
}

fn zstd_context() -> DCtx<'static> {
    let mut context = DCtx::create();
    // It can only fail for a value outside the codec's range, and then its default is stricter.
    let _ = context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX));
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for codec in Compression::ALL {
            assert_eq!(codec.name().parse(), Ok(codec));
            assert_eq!(Compression::from_bits(codec as i16), Ok(codec));
        }
        assert!("brotli".parse::<Compression>().is_err());
        assert_eq!(
            Compression::from_bits(5),
            Err(BatchError::UnknownCompression(5))
        );
    }

    #[test]
    fn every_codec_round_trips_and_keeps_the_bound() {
        let payload: Vec<u8> = (0..300_000_u32)
            .flat_map(|i| (i / 7).to_le_bytes())
            .collect();
        for codec in Compression::ALL {
            let mut packed = vec![9; 3];
            compress(codec, None, &payload, &mut packed).unwrap();
            assert_eq!(packed[..3], [9; 3]);
            let mut out = vec![1, 2, 3];
            decompress(codec, &packed[3..], payload.len(), &mut out).unwrap();
            assert!(out == payload, "{codec}");
            assert_eq!(
                decompress(codec, &packed[3..], payload.len() - 1, &mut out),
                Err(BatchError::DecompressedTooLarge {
                    codec,
                    max: payload.len() - 1
                }),
                "{codec}"
            );
            if codec != Compression::None {
                assert!(matches!(
                    decompress(codec, &packed[3..packed.len() / 2], payload.len(), &mut out),
                    Err(BatchError::Decompress { .. })
                ));
            }
        }
    }

    #[test]
    fn raw_snappy_is_read() {
        let payload = b"abcabcabcabcabcabcabcabc".repeat(50);
        let raw = snap::raw::Encoder::new().compress_vec(&payload).unwrap();
        let mut out = Vec::new();
        decompress(Compression::Snappy, &raw, 1 << 20, &mut out).unwrap();
        assert_eq!(out, payload);
    }

    #[test]
    fn memory_never_grows_past_the_bound() {
        // As large as may be, and one byte more: neither doubles the buffer beyond the bound.
        for bytes in [
            limits::DECOMPRESSED_MAX_BYTES,
            limits::DECOMPRESSED_MAX_BYTES + 1,
        ] {
            let zeros = vec![0_u8; bytes];
            for codec in [Compression::Lz4, Compression::Zstd] {
                let mut packed = Vec::new();
                compress(codec, None, &zeros, &mut packed).unwrap();
                let (mut out, max) = (Vec::new(), limits::DECOMPRESSED_MAX_BYTES);
                let fits = decompress(codec, &packed, max, &mut out).is_ok();
                assert_eq!(fits, bytes == max);
                assert!(out.capacity() <= max + 1, "{codec}: {}", out.capacity());
            }
        }
    }

    #[test]
    fn a_block_that_states_more_than_it_can_hold_takes_no_memory() {
        // 60 MiB, says its length.
        let mut out = Vec::new();
        let error = decompress(
            Compression::Snappy,
            &[0x80, 0x80, 0x80, 0x1e, 0, 0],
            limits::DECOMPRESSED_MAX_BYTES,
            &mut out,
        );
        assert!(matches!(error, Err(BatchError::Decompress { .. })));
        assert_eq!(out.capacity(), 0);
    }

    #[test]
    fn a_bomb_is_stopped_at_the_bound() {
        let zeros = vec![0_u8; 32 * 1024 * 1024];
        for codec in [
            Compression::Gzip,
            Compression::Zstd,
            Compression::Lz4,
            Compression::Snappy,
        ] {
            let mut packed = Vec::new();
            compress(codec, None, &zeros, &mut packed).unwrap();
            let mut out = Vec::new();
            let result = decompress(codec, &packed, 1024, &mut out);
            assert_eq!(
                result,
                Err(BatchError::DecompressedTooLarge { codec, max: 1024 })
            );
            assert!(
                out.capacity() <= 1024 * 1024,
                "{codec}: {} bytes",
                out.capacity()
            );
        }
    }
}
