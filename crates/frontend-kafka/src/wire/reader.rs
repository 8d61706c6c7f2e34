//! Reads messages from a frame. The frame decides how much memory a message may take, not what it announces.

use bytes::Bytes;

use super::codec::{Source, Text, Uuid, Wire};
use super::error::{DecodeError, DecodeFault};

/// Bytes of memory that arrays of a message may take for each byte of its frame. Every message that a client
/// has reason to send needs less; an array of empty strings would take 32.
pub const MEMORY_FACTOR: usize = 16;
/// Bytes of memory that arrays of a message may take besides, so that short messages never meet the limit.
pub const MEMORY_FLOOR: usize = 64 * 1024;

/// A place in a frame.
#[derive(Debug)]
pub struct Reader {
    bytes: Bytes,
    at: usize,
    /// Where the value being read ends at the latest: the end of the frame, or of a tagged field.
    end: usize,
    message: &'static str,
    version: i16,
    flexible: bool,
    /// Bytes that arrays may still take in memory.
    memory: usize,
}

impl Reader {
    /// Reads `bytes` as `message`; `flexible` says whether lengths are compact and structures have tags.
    #[must_use]
    pub fn new(bytes: Bytes, message: &'static str, version: i16, flexible: bool) -> Self {
        let memory = bytes
            .len()
            .saturating_mul(MEMORY_FACTOR)
            .saturating_add(MEMORY_FLOOR);
        Self {
            at: 0,
            end: bytes.len(),
            bytes,
            message,
            version,
            flexible,
            memory,
        }
    }

    /// Ends the message.
    ///
    /// # Errors
    /// When bytes are left over.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.error("", DecodeFault::Trailing(left))),
        }
    }

    /// What has not been read, as a slice of the frame.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.bytes.slice(self.at..)
    }

    const fn left(&self) -> usize {
        self.end - self.at
    }

    fn error(&self, field: &str, fault: DecodeFault) -> DecodeError {
        DecodeError {
            message: self.message,
            version: self.version,
            field: field.to_owned(),
            offset: self.at,
            fault,
        }
    }

    /// Moves past `length` bytes and returns where they begin.
    fn take(&mut self, field: &str, length: usize) -> Result<usize, DecodeError> {
        let left = self.left();
        if length > left {
            let needed = length;
            return Err(self.error(field, DecodeFault::CutOff { needed, left }));
        }
        let start = self.at;
        self.at += length;
        Ok(start)
    }

    fn array_of<const N: usize>(&mut self, field: &str) -> Result<[u8; N], DecodeError> {
        let start = self.take(field, N)?;
        let mut value = [0; N];
        value.copy_from_slice(&self.bytes[start..self.at]);
        Ok(value)
    }

    /// A varint without sign: seven bits a byte, low bits first, at most 32 bits.
    pub(super) fn varint(&mut self, field: &str) -> Result<u32, DecodeError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array_of(field)?;
            // The fifth byte has four bits left.
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.error(field, DecodeFault::Varint))
    }

    /// The length of a value or the count of an array; `None` is null.
    fn length(&mut self, field: &str, short: bool) -> Result<Option<usize>, DecodeError> {
        let length = if self.flexible {
            i64::from(self.varint(field)?) - 1
        } else if short {
            i64::from(i16::from_be_bytes(self.array_of(field)?))
        } else {
            i64::from(i32::from_be_bytes(self.array_of(field)?))
        };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(self.error(field, DecodeFault::NegativeLength(length))),
        }
    }

    fn slice(&mut self, field: &str, short: bool) -> Result<Option<Bytes>, DecodeError> {
        let Some(length) = self.length(field, short)? else {
            return Ok(None);
        };
        let start = self.take(field, length)?;
        Ok(Some(self.bytes.slice(start..self.at)))
    }

    fn text(&mut self, field: &str) -> Result<Option<Text>, DecodeError> {
        Ok(self.slice(field, true)?.map(Text::from))
    }

    /// Refuses null where it is not allowed.
    fn allowed<T>(
        &self,
        field: &str,
        value: Option<T>,
        null: bool,
    ) -> Result<Option<T>, DecodeError> {
        if value.is_none() && !null {
            return Err(self.error(field, DecodeFault::Null));
        }
        Ok(value)
    }

    fn present<T>(&self, field: &str, value: Option<T>) -> Result<T, DecodeError> {
        value.ok_or_else(|| self.error(field, DecodeFault::Null))
    }

    /// Checks that `count` elements can be there and takes their memory from the frame's share.
    fn admit<T: Wire>(&mut self, field: &str, count: usize) -> Result<(), DecodeError> {
        let (least, left) = (T::LEAST_BYTES, self.left());
        if count > left / least {
            return Err(self.error(field, DecodeFault::CountTooLarge { count, least, left }));
        }
        let wanted = count.saturating_mul(size_of::<T>());
        match self.memory.checked_sub(wanted) {
            Some(memory) => {
                self.memory = memory;
                Ok(())
            }
            None => {
                let left = self.memory;
                Err(self.error(field, DecodeFault::Memory { wanted, left }))
            }
        }
    }

    fn elements<T: Wire>(&mut self, field: &str) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.length(field, false)? else {
            return Ok(None);
        };
        self.admit::<T>(field, count)?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(self).map_err(|e| e.within(field))?);
        }
        Ok(Some(elements))
    }

    /// Reads one tagged field: its value may not reach past the bytes it announced, nor leave any.
    fn tag(
        &mut self,
        tag: u32,
        each: &mut impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let announced = self.varint("tags")? as usize;
        let left = self.left();
        if announced > left {
            let needed = announced;
            return Err(self.error("tags", DecodeFault::CutOff { needed, left }));
        }
        let (start, outer) = (self.at, self.end);
        self.end = start + announced;
        if !each(self, tag)? {
            self.at = self.end;
        }
        let read = self.at - start;
        self.end = outer;
        if read != announced {
            let fault = DecodeFault::TagLength {
                tag,
                announced,
                read,
            };
            return Err(self.error("tags", fault));
        }
        Ok(())
    }
}

impl Source for Reader {
    type Error = DecodeError;

    fn version(&self) -> i16 {
        self.version
    }

    fn boolean(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        Ok(self.int8(field)? != 0)
    }

    fn int8(&mut self, field: &'static str) -> Result<i8, DecodeError> {
        self.array_of(field).map(i8::from_be_bytes)
    }

    fn int16(&mut self, field: &'static str) -> Result<i16, DecodeError> {
        self.array_of(field).map(i16::from_be_bytes)
    }

    fn uint16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array_of(field).map(u16::from_be_bytes)
    }

    fn int32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array_of(field).map(i32::from_be_bytes)
    }

    fn int64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array_of(field).map(i64::from_be_bytes)
    }

    fn uuid(&mut self, field: &'static str) -> Result<Uuid, DecodeError> {
        self.array_of(field)
            .map(|bytes| Uuid(u128::from_be_bytes(bytes)))
    }

    fn string(&mut self, field: &'static str) -> Result<Text, DecodeError> {
        let text = self.text(field)?;
        self.present(field, text)
    }

    fn string_or_null(
        &mut self,
        field: &'static str,
        null: bool,
    ) -> Result<Option<Text>, DecodeError> {
        let text = self.text(field)?;
        self.allowed(field, text, null)
    }

    fn bytes(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        let bytes = self.slice(field, false)?;
        self.present(field, bytes)
    }

    fn bytes_or_null(
        &mut self,
        field: &'static str,
        null: bool,
    ) -> Result<Option<Bytes>, DecodeError> {
        let bytes = self.slice(field, false)?;
        self.allowed(field, bytes, null)
    }

    fn array<T: Wire>(&mut self, field: &'static str) -> Result<Vec<T>, DecodeError> {
        let elements = self.elements(field)?;
        self.present(field, elements)
    }

    fn array_or_null<T: Wire>(
        &mut self,
        field: &'static str,
        null: bool,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let elements = self.elements(field)?;
        self.allowed(field, elements, null)
    }

    fn structure<T: Wire>(&mut self, field: &'static str) -> Result<T, DecodeError> {
        T::read(self).map_err(|e| e.within(field))
    }

    fn structure_or_null<T: Wire>(
        &mut self,
        field: &'static str,
        null: bool,
    ) -> Result<Option<T>, DecodeError> {
        let value = match self.int8(field)? {
            -1 => None,
            1 => Some(self.structure(field)?),
            other => return Err(self.error(field, DecodeFault::Presence(other))),
        };
        self.allowed(field, value, null)
    }

    fn tags(
        &mut self,
        _known: &'static [u32],
        mut each: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.varint("tags")?;
        let mut last = None;
        // A tag takes at least two bytes, so a count that is a lie ends with the frame.
        for _ in 0..count {
            let tag = self.varint("tags")?;
            if last.replace(tag).is_some_and(|before| before >= tag) {
                return Err(self.error("tags", DecodeFault::TagOrder { tag }));
            }
            self.tag(tag, &mut each)?;
        }
        Ok(())
    }
}
