//! Topic configs in human units: `retention.ms=7d` and `segment.bytes=1GiB` become the numbers that the cluster
//! keeps, and tables show both. Numbers pass through unchanged, so `-1` stays possible; keys that are unknown here
//! are left to the cluster, which names the nearest one.

use varve_types::config::{ConfigKey, KEYS};
use varve_types::kafka_configs::Scope;
use varve_types::size::{format_bytes, format_ms, parse_bytes, parse_duration};

use crate::failure::Failure;

/// What stands for "no limit" in a key whose default is the largest number.
const MOST: &str = "9223372036854775807";
/// "No limit" in words, in and out.
const UNLIMITED: &str = "unlimited";

fn key(name: &str) -> Option<&'static ConfigKey> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether -1 means no limit.
fn takes_minus_one(key: &ConfigKey) -> bool {
    key.expected.contains("-1 for no limit")
}

/// Whether the largest number means no limit.
fn takes_most(key: &ConfigKey) -> bool {
    key.default == MOST
}

/// The configs with every human unit turned into a number.
///
/// # Errors
/// Usage: what is wrong with a value, with an example. Nothing was sent.
pub fn numbers(pairs: Vec<(String, String)>) -> Result<Vec<(String, String)>, Failure> {
    pairs
        .into_iter()
        .map(|(name, value)| match number(&name, &value) {
            Ok(value) => Ok((name, value)),
            Err(error) => Err(Failure::usage(format!(
                "{name}: {error}; nothing was changed"
            ))),
        })
        .collect()
}

/// One value as a number, if its key takes a time or a size.
fn number(name: &str, value: &str) -> Result<String, String> {
    let (time, size) = (name.ends_with(".ms"), name.ends_with(".bytes"));
    let Some(key) = key(name) else {
        // Kafka's own; `unlimited` means nothing for them.
        let is_kafkas = Scope::Topic.find(name).is_some();
        return match value.trim().parse::<i64>() {
            Err(_) if is_kafkas && time => milliseconds(value.trim()),
            Err(_) if is_kafkas && size => bytes(value.trim()),
            _ => Ok(value.to_owned()),
        };
    };
    if !time && !size && !takes_most(key) {
        return Ok(value.to_owned());
    }
    let text = value.trim();
    if text.parse::<i64>().is_ok() {
        return Ok(text.to_owned());
    }
    if matches!(
        text.to_ascii_lowercase().as_str(),
        UNLIMITED | "infinite" | "infinity" | "∞"
    ) {
        return match (takes_minus_one(key), takes_most(key)) {
            (true, _) => Ok("-1".to_owned()),
            (_, true) => Ok(MOST.to_owned()),
            _ => Err(format!("needs a limit: {}", key.expected)),
        };
    }
    let parsed = if time {
        milliseconds(text)
    } else if size {
        bytes(text)
    } else {
        return Ok(value.to_owned());
    };
    let no_limit = if takes_minus_one(key) {
        "; -1 or unlimited removes the limit"
    } else {
        ""
    };
    parsed.map_err(|error| format!("{error}{no_limit}"))
}

/// A time in milliseconds.
fn milliseconds(text: &str) -> Result<String, String> {
    let span = parse_duration(text)?;
    if !span.as_micros().is_multiple_of(1000) {
        return Err(format!("{text:?} is not a whole number of milliseconds"));
    }
    let number = i64::try_from(span.as_millis());
    number
        .map(|number| number.to_string())
        .map_err(|_| format!("the time {text:?} is too large"))
}

/// A size in bytes.
fn bytes(text: &str) -> Result<String, String> {
    let number = i64::try_from(parse_bytes(text)?);
    number
        .map(|number| number.to_string())
        .map_err(|_| format!("the size {text:?} is too large"))
}

/// A value in human units: `7d`, `1GiB`, `unlimited`; itself where that says nothing more.
#[must_use]
pub fn human(name: &str, value: &str) -> String {
    let Some(key) = key(name) else {
        return value.to_owned();
    };
    if value == "-1" && takes_minus_one(key) || value == MOST && takes_most(key) {
        return UNLIMITED.to_owned();
    }
    match value.parse::<u64>() {
        Ok(number) if number > 0 && name.ends_with(".ms") => format_ms(number),
        Ok(number) if name.ends_with(".bytes") => format_bytes(number),
        _ => value.to_owned(),
    }
}

/// A value for a table: in human units, and as the number that is stored: `7d (604800000)`.
#[must_use]
pub fn both(name: &str, value: &str) -> String {
    match human(name, value) {
        same if same == value => same,
        human => format!("{human} ({value})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_become_numbers() {
        for (name, given, sent) in [
            ("retention.ms", "1h", "3600000"),
            ("retention.ms", " 1.5 H ", "5400000"),
            ("retention.ms", "-1", "-1"),
            ("retention.ms", "unlimited", "-1"),
            ("retention.ms", "604800000", "604800000"),
            ("retention.bytes", "0.5GiB", "536870912"),
            ("segment.bytes", "1gib", "1073741824"),
            ("segment.bytes", "1 GiB", "1073741824"),
            ("max.compaction.lag.ms", "unlimited", MOST),
            ("flush.messages", "unlimited", MOST),
            ("flush.messages", "many", "many"),
            ("cleanup.policy", "compact", "compact"),
            ("no.such.ms", "1h", "1h"),
            ("segment.jitter.ms", "1h", "3600000"),
            ("segment.index.bytes", " 10MiB", "10485760"),
            ("local.retention.ms", "-2", "-2"),
        ] {
            assert_eq!(number(name, given).as_deref(), Ok(sent), "{name}={given}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused_with_an_example() {
        for (name, given, words) in [
            ("retention.ms", "10x", "is not a time"),
            ("retention.ms", "10x", "1h30m"),
            ("retention.ms", "10x", "-1 or unlimited"),
            ("retention.ms", "-1h", "is negative"),
            ("retention.ms", "5M", "minutes or months"),
            ("retention.ms", "1us", "whole number of milliseconds"),
            ("retention.ms", "99999999999999999999", "is too large"),
            ("segment.bytes", "1XB", "is not a size"),
            ("segment.bytes", "unlimited", "needs a limit"),
            ("retention.bytes", "8388608TiB", "is too large"),
        ] {
            let error = number(name, given).unwrap_err();
            assert!(error.contains(words), "{name}={given}: {error}");
        }
        let failure = numbers(vec![("retention.ms".to_owned(), "10x".to_owned())]).unwrap_err();
        assert!(failure.message.starts_with("retention.ms: "), "{failure:?}");
    }

    #[test]
    fn tables_show_both() {
        for (name, stored, shown) in [
            ("retention.ms", "604800000", "7d (604800000)"),
            ("retention.ms", "-1", "unlimited (-1)"),
            ("retention.bytes", "-1", "unlimited (-1)"),
            ("compression.gzip.level", "-1", "-1"),
            ("compression.zstd.level", "-1", "-1"),
            ("segment.bytes", "1073741824", "1GiB (1073741824)"),
            ("flush.messages", MOST, "unlimited (9223372036854775807)"),
            ("min.compaction.lag.ms", "0", "0"),
            ("max.message.bytes", "1000", "1000"),
            ("durability", "fsync", "fsync"),
            ("min.insync.replicas", "1", "1"),
        ] {
            assert_eq!(both(name, stored), shown, "{name}");
        }
        for key in KEYS {
            let shown = human(key.name, key.default);
            let sent = number(key.name, &shown);
            assert_eq!(sent.as_deref(), Ok(key.default), "{} as {shown}", key.name);
        }
    }
}
