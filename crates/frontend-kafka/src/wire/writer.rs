//! Writes messages. The same code first measures a message and then writes it, so that lengths are right and
//! the buffer is taken once. Long byte fields, which are records, are not copied: the message becomes parts.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{Text, Uuid, Wire};
use super::error::{EncodeError, EncodeFault};

/// From this length on, a byte field is a part of its own instead of a copy: one more slice of a vectored write
/// costs about as much as copying this much.
pub const PART_MIN_BYTES: usize = 1024;

/// The most that a varint length or count can say, kept within what readers of 32 bits take.
const LONG_MAX: usize = i32::MAX as usize - 1;

/// Measures or writes one message.
#[derive(Debug)]
pub struct Writer {
    message: &'static str,
    version: i16,
    flexible: bool,
    /// Bytes so far.
    length: usize,
    /// Those of them that are parts of their own.
    apart: usize,
    /// `None` while measuring.
    out: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    buffer: BytesMut,
    done: Vec<Bytes>,
}

impl Writer {
    /// A writer that only counts.
    #[must_use]
    pub const fn measuring(message: &'static str, version: i16, flexible: bool) -> Self {
        Self {
            message,
            version,
            flexible,
            length: 0,
            apart: 0,
            out: None,
        }
    }

    /// A writer into a buffer of `capacity` bytes, which is what [`Self::copied`] measured.
    #[must_use]
    pub fn writing(message: &'static str, version: i16, flexible: bool, capacity: usize) -> Self {
        let parts = Parts {
            buffer: BytesMut::with_capacity(capacity),
            done: Vec::new(),
        };
        Self {
            out: Some(parts),
            ..Self::measuring(message, version, flexible)
        }
    }

    /// Bytes so far.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// Bytes so far that had to be copied: all but long byte fields.
    #[must_use]
    pub const fn copied(&self) -> usize {
        self.length - self.apart
    }

    /// What was written, in order. Nothing when it was only measured.
    #[must_use]
    pub fn into_parts(self) -> Vec<Bytes> {
        let Some(mut parts) = self.out else {
            return Vec::new();
        };
        if !parts.buffer.is_empty() {
            parts.done.push(parts.buffer.freeze());
        }
        parts.done
    }

    /// The version of the message.
    #[must_use]
    pub const fn version(&self) -> i16 {
        self.version
    }

    fn error(&self, field: &str, fault: EncodeFault) -> EncodeError {
        EncodeError {
            message: self.message,
            version: self.version,
            field: field.to_owned(),
            fault,
        }
    }

    /// Refuses a field that is set and that this version does not have.
    ///
    /// # Errors
    /// When it is set.
    pub fn must_be_default(
        &self,
        field: &'static str,
        is_default: bool,
    ) -> Result<(), EncodeError> {
        if is_default {
            Ok(())
        } else {
            Err(self.error(field, EncodeFault::NotInVersion))
        }
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        if let Some(out) = &mut self.out {
            out.buffer.put_slice(bytes);
        }
    }

    /// A varint without sign.
    pub(super) fn varint(&mut self, mut value: u32) {
        let mut bytes = [0_u8; 5];
        let mut at = 0;
        while value >= 0x80 {
            bytes[at] = value as u8 | 0x80;
            value >>= 7;
            at += 1;
        }
        bytes[at] = value as u8;
        self.raw(&bytes[..=at]);
    }

    /// One byte.
    pub fn boolean(&mut self, value: bool) {
        self.raw(&[u8::from(value)]);
    }

    /// One byte.
    pub fn int8(&mut self, value: i8) {
        self.raw(&value.to_be_bytes());
    }

    /// Two bytes.
    pub fn int16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    /// Two bytes, without a sign.
    pub fn uint16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    /// Four bytes.
    pub fn int32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn int64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.raw(&value.0.to_be_bytes());
    }

    /// The length of a value or the count of an array; `None` is null.
    fn length_of(
        &mut self,
        field: &str,
        length: Option<usize>,
        short: bool,
    ) -> Result<(), EncodeError> {
        let most = if short { i16::MAX as usize } else { LONG_MAX };
        let length = match length {
            None => -1,
            Some(length) => i32::try_from(length)
                .ok()
                .filter(|_| length <= most)
                .ok_or_else(|| self.error(field, EncodeFault::TooLong { length, most }))?,
        };
        if self.flexible {
            self.varint((length + 1).unsigned_abs());
        } else if short {
            // Checked above: at most `i16::MAX`.
            self.int16(length as i16);
        } else {
            self.int32(length);
        }
        Ok(())
    }

    /// A string, at most 32,767 bytes.
    ///
    /// # Errors
    /// When it is longer.
    pub fn string(&mut self, field: &'static str, value: &Text) -> Result<(), EncodeError> {
        self.string_or_null(field, Some(value), false)
    }

    /// A string or null.
    ///
    /// # Errors
    /// Null where it is not allowed, or a string that is too long.
    pub fn string_or_null(
        &mut self,
        field: &'static str,
        value: Option<&Text>,
        null: bool,
    ) -> Result<(), EncodeError> {
        self.allowed(field, value.is_some(), null)?;
        self.length_of(field, value.map(Text::len), true)?;
        self.raw(value.map_or(&[], Text::as_bytes));
        Ok(())
    }

    /// A string or null with a plain length, whatever the version: the client's name in a header.
    pub(super) fn plain_string_or_null(
        &mut self,
        field: &'static str,
        value: Option<&Text>,
    ) -> Result<(), EncodeError> {
        let flexible = std::mem::replace(&mut self.flexible, false);
        let written = self.string_or_null(field, value, true);
        self.flexible = flexible;
        written
    }

    /// Bytes.
    ///
    /// # Errors
    /// More than 2 GiB.
    pub fn bytes(&mut self, field: &'static str, value: &Bytes) -> Result<(), EncodeError> {
        self.bytes_or_null(field, Some(value), false)
    }

    /// Bytes or null. Long ones become a part of their own, without a copy.
    ///
    /// # Errors
    /// Null where it is not allowed, or more than 2 GiB.
    pub fn bytes_or_null(
        &mut self,
        field: &'static str,
        value: Option<&Bytes>,
        null: bool,
    ) -> Result<(), EncodeError> {
        self.allowed(field, value.is_some(), null)?;
        self.length_of(field, value.map(Bytes::len), false)?;
        let Some(value) = value else {
            return Ok(());
        };
        if value.len() < PART_MIN_BYTES {
            self.raw(value);
            return Ok(());
        }
        self.length += value.len();
        self.apart += value.len();
        if let Some(out) = &mut self.out {
            if !out.buffer.is_empty() {
                out.done.push(out.buffer.split().freeze());
            }
            out.done.push(value.clone());
        }
        Ok(())
    }

    /// An array.
    ///
    /// # Errors
    /// What an element cannot say in this version.
    pub fn array<T: Wire>(&mut self, field: &'static str, value: &[T]) -> Result<(), EncodeError> {
        self.array_or_null(field, Some(value), false)
    }

    /// An array or null.
    ///
    /// # Errors
    /// Null where it is not allowed, or what an element cannot say in this version.
    pub fn array_or_null<T: Wire>(
        &mut self,
        field: &'static str,
        value: Option<&[T]>,
        null: bool,
    ) -> Result<(), EncodeError> {
        self.allowed(field, value.is_some(), null)?;
        self.length_of(field, value.map(<[T]>::len), false)?;
        for element in value.unwrap_or_default() {
            element.write(self).map_err(|e| e.within(field))?;
        }
        Ok(())
    }

    /// A structure in place.
    ///
    /// # Errors
    /// What it cannot say in this version.
    pub fn structure<T: Wire>(
        &mut self,
        field: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        value.write(self).map_err(|e| e.within(field))
    }

    /// A structure or null.
    ///
    /// # Errors
    /// Null where it is not allowed, or what it cannot say in this version.
    pub fn structure_or_null<T: Wire>(
        &mut self,
        field: &'static str,
        value: Option<&T>,
        null: bool,
    ) -> Result<(), EncodeError> {
        self.allowed(field, value.is_some(), null)?;
        match value {
            None => self.int8(-1),
            Some(value) => {
                self.int8(1);
                self.structure(field, value)?;
            }
        }
        Ok(())
    }

    fn allowed(&self, field: &str, present: bool, null: bool) -> Result<(), EncodeError> {
        if present || null {
            Ok(())
        } else {
            Err(self.error(field, EncodeFault::Null))
        }
    }

    /// How many tagged fields follow, in versions that have them.
    pub fn tag_count(&mut self, count: u32) {
        if self.flexible {
            self.varint(count);
        }
    }

    /// One tagged field, whose value `value` writes; it is called twice, the first time to measure.
    ///
    /// # Errors
    /// What the value cannot say in this version.
    pub fn tag(
        &mut self,
        tag: u32,
        value: impl Fn(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut measured = Self::measuring(self.message, self.version, self.flexible);
        value(&mut measured)?;
        let length = measured.length();
        let most = LONG_MAX;
        let announced = u32::try_from(length)
            .map_err(|_| self.error("tags", EncodeFault::TooLong { length, most }))?;
        self.varint(tag);
        self.varint(announced);
        value(self)
    }
}
