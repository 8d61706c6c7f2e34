//! Records inside a decompressed payload: one parser over slices, used by the verifying walk and by
//! readers alike, and the shared-buffer view that readers hand out.
//!
//! The parser trusts nothing: every length is checked against the record, every record against the
//! payload.

use bytes::Bytes;
use varve_types::Offset;

use crate::error::{BatchError, RecordFault};
use crate::header::{BatchHeader, TimestampType};
use crate::varint;

/// The fields of one record, borrowed from the payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawRecord<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: HeadersRef<'a>,
}

/// Walks the records of a payload.
#[derive(Debug, Clone)]
pub(crate) struct RecordParser<'a> {
    payload: &'a [u8],
    at: usize,
}

/// A nullable byte string: a length (negative is null) and its bytes.
#[inline]
fn nullable<'a>(
    body: &'a [u8],
    at: &mut usize,
    field: &'static str,
) -> Result<Option<&'a [u8]>, RecordFault> {
    let len = varint::get_i32(body, at).ok_or(RecordFault::Field(field))?;
    if len < 0 {
        return if len == -1 {
            Ok(None)
        } else {
            Err(RecordFault::Field(field))
        };
    }
    let bytes = body.get(*at..).and_then(|rest| rest.get(..len as usize));
    let bytes = bytes.ok_or(RecordFault::Field(field))?;
    *at += len as usize;
    Ok(Some(bytes))
}

impl<'a> RecordParser<'a> {
    pub(crate) const fn new(payload: &'a [u8], at: usize) -> Self {
        Self { payload, at }
    }

    /// Position of the next record.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// Bytes not walked yet.
    pub(crate) const fn remaining(&self) -> usize {
        self.payload.len() - self.at
    }

    /// The next record, with all its lengths checked (its headers too).
    #[inline]
    pub(crate) fn next_record(&mut self) -> Result<RawRecord<'a>, RecordFault> {
        let mut at = self.at;
        let len = varint::get_i32(self.payload, &mut at).ok_or(RecordFault::Truncated)?;
        let len = usize::try_from(len).map_err(|_| RecordFault::Field("length"))?;
        let body = self.payload.get(at..).and_then(|rest| rest.get(..len));
        let body = body.ok_or(RecordFault::Truncated)?;
        self.at = at + len;
        Self::parse_body(body)
    }

    #[inline]
    fn parse_body(body: &'a [u8]) -> Result<RawRecord<'a>, RecordFault> {
        let attributes = *body.first().ok_or(RecordFault::Field("attributes"))?;
        if attributes != 0 {
            return Err(RecordFault::Attributes(attributes));
        }
        let mut at = 1;
        let timestamp_delta =
            varint::get_i64(body, &mut at).ok_or(RecordFault::Field("timestamp delta"))?;
        let offset_delta =
            varint::get_i32(body, &mut at).ok_or(RecordFault::Field("offset delta"))?;
        let key = nullable(body, &mut at, "key")?;
        let value = nullable(body, &mut at, "value")?;
        let count = varint::get_i32(body, &mut at).ok_or(RecordFault::Field("header count"))?;
        let start = at;
        if count != 0 {
            check_headers(body, &mut at, count)?;
        }
        if at != body.len() {
            return Err(RecordFault::TrailingBytes(body.len() - at));
        }
        let headers = HeadersRef {
            bytes: &body[start..],
            count: count as u32,
        };
        Ok(RawRecord {
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers,
        })
    }
}

/// Walks the headers once, so that iterating over them later cannot fail.
fn check_headers(body: &[u8], at: &mut usize, count: i32) -> Result<(), RecordFault> {
    if count < 0 {
        return Err(RecordFault::Field("header count"));
    }
    for _ in 0..count {
        nullable(body, at, "header name")?.ok_or(RecordFault::Field("header name"))?;
        nullable(body, at, "header value")?;
    }
    Ok(())
}

/// The headers of a record, in order. Names may repeat.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadersRef<'a> {
    bytes: &'a [u8],
    count: u32,
}

impl<'a> HeadersRef<'a> {
    /// Number of headers.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers as (name, value) pairs. Names are bytes: no protocol makes clients keep to UTF-8.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let (bytes, mut at) = (self.bytes, 0);
        (0..self.count).map_while(move |_| {
            let name = nullable(bytes, &mut at, "header name").ok()??;
            let value = nullable(bytes, &mut at, "header value").ok()?;
            Some((name, value))
        })
    }
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// Offset in the log (in a batch without a place: the index).
    pub offset: Offset,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: HeadersRef<'a>,
}

/// One record that shares its batch's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordView {
    /// Offset in the log (in a batch without a place: the index).
    pub offset: Offset,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Key; `None` is null.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers as (name, value); names are bytes, UTF-8 in most cases.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// The records of one batch. Decompressed once; records are slices of that buffer.
#[derive(Debug, Clone)]
pub struct Records {
    payload: Bytes,
    at: usize,
    index: u32,
    count: u32,
    base_offset: Offset,
    last_offset_delta: i32,
    base_timestamp: i64,
    append_time: Option<i64>,
}

impl Records {
    pub(crate) fn new(header: &BatchHeader, payload: Bytes) -> Self {
        let append_time = (header.timestamp_type() == TimestampType::LogAppendTime)
            .then_some(header.max_timestamp);
        Self {
            payload,
            at: 0,
            index: 0,
            count: header.record_count as u32,
            base_offset: header.base_offset,
            last_offset_delta: header.last_offset_delta,
            base_timestamp: header.base_timestamp,
            append_time,
        }
    }

    /// Byte position of the next record in the payload.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// Records not read yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        (self.count - self.index) as usize
    }

    /// The next record, borrowed: no reference count is touched and nothing is allocated. `None` after
    /// the last one, and after an error.
    pub fn next_ref(&mut self) -> Option<Result<RecordRef<'_>, BatchError>> {
        if self.index == self.count {
            return None;
        }
        let index = self.index;
        let mut parser = RecordParser::new(&self.payload, self.at);
        let result = parser.next_record().and_then(|raw| {
            let in_batch = raw.offset_delta >= 0 && raw.offset_delta <= self.last_offset_delta;
            if !in_batch {
                let expected = self.last_offset_delta.min(index as i32);
                return Err(RecordFault::OffsetDelta {
                    expected,
                    found: raw.offset_delta,
                });
            }
            let created = self.base_timestamp.checked_add(raw.timestamp_delta);
            let timestamp = self.append_time.or(created).ok_or(RecordFault::Timestamp)?;
            Ok(RecordRef {
                offset: self.base_offset.plus(raw.offset_delta as u64),
                timestamp,
                key: raw.key,
                value: raw.value,
                headers: raw.headers,
            })
        });
        self.at = parser.position();
        self.index = if result.is_ok() {
            index + 1
        } else {
            self.count
        };
        Some(result.map_err(|fault| BatchError::Record { index, fault }))
    }
}

impl Iterator for Records {
    type Item = Result<RecordView, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A second handle of the buffer ends the borrow of `self`.
        let payload = self.payload.clone();
        let record = self.next_ref()?;
        Some(record.map(|record| {
            let share = |slice: &[u8]| payload.slice_ref(slice);
            RecordView {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.map(share),
                value: record.value.map(share),
                headers: record
                    .headers
                    .iter()
                    .map(|(name, value)| (share(name), value.map(share)))
                    .collect(),
            }
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.remaining()))
    }
}
