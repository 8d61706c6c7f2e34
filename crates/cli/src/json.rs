//! Records as JSON lines: a stable contract, so that `consume -J | produce -J` keeps every byte.
//!
//! Bytes that are UTF-8 are strings; others come as `..._base64`. A null key or value is `null`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::format::Fields;

#[derive(Serialize)]
struct HeaderOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

#[derive(Serialize)]
struct RecordOut<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<HeaderOut<'a>>,
}

/// Text when it is some, base64 when it is not; the outer `None` leaves the field out.
fn split(bytes: Option<&[u8]>) -> (Option<Option<&str>>, Option<String>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => (Some(None), None),
        Some((Ok(text), _)) => (Some(Some(text)), None),
        Some((Err(_), bytes)) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// Appends the record as one JSON object, without a line end. `values` off leaves the value out.
///
/// # Errors
/// Cannot happen for a record; the serializer's error is passed on.
pub fn write(
    fields: &Fields<'_>,
    values: bool,
    pretty: bool,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    let (key, key_base64) = split(fields.key);
    let (value, value_base64) = if values {
        split(fields.value)
    } else {
        (None, None)
    };
    let headers = fields.headers.iter().map(|(name, bytes)| {
        let (key, key_base64) = split(Some(name));
        let (value, value_base64) = split(bytes);
        HeaderOut {
            key,
            key_base64,
            value,
            value_base64,
        }
    });
    let record = RecordOut {
        topic: fields.topic,
        partition: fields.partition,
        offset: fields.offset,
        timestamp: fields.timestamp,
        key,
        key_base64,
        value,
        value_base64,
        headers: headers.collect(),
    };
    if pretty {
        serde_json::to_writer_pretty(out, &record)
    } else {
        serde_json::to_writer(out, &record)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderIn<'a> {
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    value: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    value_base64: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordIn<'a> {
    #[serde(borrow, default)]
    topic: Option<Cow<'a, str>>,
    #[serde(default)]
    #[allow(dead_code, reason = "accepted, so that consumed lines can be produced")]
    partition: Option<i32>,
    #[serde(default)]
    #[allow(dead_code, reason = "accepted, so that consumed lines can be produced")]
    offset: Option<i64>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    value: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    value_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    headers: Vec<HeaderIn<'a>>,
}

/// A record read from a JSON line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonRecord {
    /// Topic it came from.
    pub topic: Option<String>,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn join(
    what: &str,
    text: Option<Cow<'_, str>>,
    encoded: Option<Cow<'_, str>>,
) -> Result<Option<Vec<u8>>, String> {
    match (text, encoded) {
        (Some(_), Some(_)) => Err(format!("both {what} and {what}_base64 are given")),
        (Some(text), None) => Ok(Some(text.into_owned().into_bytes())),
        (None, Some(encoded)) => STANDARD
            .decode(encoded.as_bytes())
            .map(Some)
            .map_err(|error| format!("{what}_base64: {error}")),
        (None, None) => Ok(None),
    }
}

/// Reads one line.
///
/// # Errors
/// What is wrong with it.
pub fn read(line: &[u8]) -> Result<JsonRecord, String> {
    let record: RecordIn<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let headers = record.headers.into_iter().map(|header| {
        let value = join("value", header.value, header.value_base64)?;
        let key = join("key", header.key, header.key_base64)?;
        Ok((key.ok_or("a header has no key")?, value))
    });
    Ok(JsonRecord {
        topic: record.topic.map(Cow::into_owned),
        timestamp: record.timestamp,
        key: join("key", record.key, record.key_base64)?,
        value: join("value", record.value, record.value_base64)?,
        headers: headers.collect::<Result<_, String>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use varve_record::{BatchBuilder, Compression};

    fn through(record: &JsonRecord) -> (String, JsonRecord) {
        let mut builder = BatchBuilder::new(Compression::None, None);
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_deref()))
            .collect();
        let timestamp = record.timestamp.unwrap();
        builder
            .append_raw(
                timestamp,
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            )
            .unwrap();
        let batch = builder.build_batch().unwrap();
        let mut records = batch.records().unwrap();
        let stored = records.next_ref().unwrap().unwrap();
        let fields = Fields {
            topic: "t",
            offset: 42,
            timestamp: stored.timestamp,
            key: stored.key,
            value: stored.value,
            headers: stored.headers,
            ..Default::default()
        };
        let mut line = Vec::new();
        write(&fields, true, false, &mut line).unwrap();
        (
            String::from_utf8(line.clone()).unwrap(),
            read(&line).unwrap(),
        )
    }

    #[test]
    fn the_contract() {
        let record = JsonRecord {
            topic: Some("t".to_owned()),
            timestamp: Some(1_767_225_600_000),
            key: Some(b"k1".to_vec()),
            value: Some(b"hello".to_vec()),
            headers: vec![(b"a".to_vec(), Some(b"b".to_vec()))],
        };
        let (line, back) = through(&record);
        assert_eq!(
            line,
            r#"{"topic":"t","partition":0,"offset":42,"timestamp":1767225600000,"key":"k1","value":"hello","headers":[{"key":"a","value":"b"}]}"#
        );
        assert_eq!(back, record);
    }

    #[test]
    fn nulls_and_bytes_that_are_no_text() {
        let record = JsonRecord {
            topic: Some("t".to_owned()),
            timestamp: Some(0),
            key: None,
            value: Some(vec![0xff, 0x00]),
            headers: vec![(b"h".to_vec(), None), (vec![0xfe], Some(Vec::new()))],
        };
        let (line, back) = through(&record);
        assert!(
            line.contains(r#""key":null,"value_base64":"/wA=""#),
            "{line}"
        );
        assert!(
            line.contains(r#"[{"key":"h","value":null},{"key_base64":"/g==","value":""}]"#),
            "{line}"
        );
        assert_eq!(back, record);
    }

    #[test]
    fn wrong_lines_are_explained() {
        for (line, word) in [
            ("", "EOF"),
            ("{", "EOF"),
            (r#"{"value":1}"#, "invalid type"),
            (r#"{"val":"x"}"#, "unknown field"),
            (r#"{"value":"a","value_base64":"YQ=="}"#, "both"),
            (r#"{"key_base64":"!"}"#, "key_base64"),
            (r#"{"headers":[{"value":"a"}]}"#, "a header has no key"),
        ] {
            let error = read(line.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[a-z\"\\\\ä]{1,8}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 1..8),
        ]
    }

    proptest! {
        #[test]
        fn every_record_survives_the_round_trip(
            timestamp in 0..4_000_000_000_000_i64,
            key: Option<Vec<u8>>,
            value: Option<Vec<u8>>,
            headers in proptest::collection::vec((name(), any::<Option<Vec<u8>>>()), 0..4),
        ) {
            let record = JsonRecord {
                topic: Some("t".to_owned()),
                timestamp: Some(timestamp),
                key,
                value,
                headers,
            };
            prop_assert_eq!(through(&record).1, record);
        }
    }
}
