//! Big-endian fields and short strings, as the records of `__consumer_offsets` have them. Decoding is
//! total: the bytes may be anything.

use crate::codec::CodecError;

pub(super) fn bad(field: &'static str, why: &dyn std::fmt::Display) -> CodecError {
    CodecError::Field {
        field,
        why: why.to_string(),
    }
}

/// Strings are at most 4096 bytes here: names by their rule, free text by its limit.
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    let Ok(len) = i16::try_from(text.len()) else {
        unreachable!("a string of a record is bounded by limits")
    };
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A string, or length -1 for none.
pub(super) fn put_optional_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.extend_from_slice(&(-1_i16).to_be_bytes()),
    }
}

/// Free text of records is cut at this length, bytes.
const TEXT_MAX_BYTES: usize = 249;

/// As much of a text as is kept in a record.
pub(crate) fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Reads fields one after the other and names the one that fails.
pub(super) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(what: &'static str, rest: &'a [u8]) -> Self {
        Self { what, rest }
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(CodecError::Short {
                what: self.what,
                field,
            });
        };
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn i16(&mut self, field: &'static str) -> Result<i16, CodecError> {
        self.take(field).map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, CodecError> {
        self.take(field).map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, CodecError> {
        self.take(field).map(i64::from_be_bytes)
    }

    pub(super) fn version(&mut self, known: i16) -> Result<(), CodecError> {
        let found = self.i16("version")?;
        if found == known {
            return Ok(());
        }
        Err(CodecError::Version {
            what: self.what,
            found,
            known,
        })
    }

    pub(super) fn string(&mut self, field: &'static str) -> Result<&'a str, CodecError> {
        let len = self.i16(field)?;
        let len = usize::try_from(len).map_err(|_| bad(field, &format!("its length is {len}")))?;
        let Some((text, rest)) = self.rest.split_at_checked(len) else {
            return Err(CodecError::Short {
                what: self.what,
                field,
            });
        };
        self.rest = rest;
        std::str::from_utf8(text).map_err(|e| bad(field, &e))
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        self.take::<1>(field).map(|[byte]| byte)
    }

    /// Length of a list.
    pub(super) fn count(&mut self, field: &'static str) -> Result<i32, CodecError> {
        let count = self.i32(field)?;
        if count < 0 {
            return Err(bad(field, &format!("its length is {count}")));
        }
        Ok(count)
    }

    /// Bytes with their length, 32 bits.
    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], CodecError> {
        let len = self.count(field)?.unsigned_abs() as usize;
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            return Err(CodecError::Short {
                what: self.what,
                field,
            });
        };
        self.rest = rest;
        Ok(bytes)
    }

    /// Bytes with their length, 32 bits, or nothing where that is -1.
    pub(super) fn optional_bytes(
        &mut self,
        field: &'static str,
    ) -> Result<Option<&'a [u8]>, CodecError> {
        if let Some(rest) = self.rest.strip_prefix(&[0xff; 4]) {
            self.rest = rest;
            return Ok(None);
        }
        self.bytes(field).map(Some)
    }

    /// A string, or nothing where its length is -1.
    pub(super) fn optional_string(
        &mut self,
        field: &'static str,
    ) -> Result<Option<&'a str>, CodecError> {
        if let Some(rest) = self.rest.strip_prefix(&[0xff, 0xff]) {
            self.rest = rest;
            return Ok(None);
        }
        self.string(field).map(Some)
    }

    pub(super) fn end(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(CodecError::Trailing {
                what: self.what,
                extra,
            }),
        }
    }
}
