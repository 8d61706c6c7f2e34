//! Small texts of the command line: escapes, times, headers, key=value pairs.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use varve_types::size::parse_duration;

/// Replaces `\n`, `\t`, `\r`, `\0`, `\\` and `\xNN`; other characters stand for themselves.
///
/// # Errors
/// What is wrong with an escape.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let mut taken = 1;
        match escape.chars().next() {
            Some('n') => bytes.push(b'\n'),
            Some('t') => bytes.push(b'\t'),
            Some('r') => bytes.push(b'\r'),
            Some('0') => bytes.push(0),
            Some('\\') => bytes.push(b'\\'),
            Some('x') => {
                let digits = escape
                    .get(1..3)
                    .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
                let digits = digits.ok_or("\\x needs two hexadecimal digits, such as \\x1f")?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?);
                taken = 3;
            }
            Some(other) => {
                return Err(format!(
                    "unknown escape \\{other}; use \\n, \\t, \\r, \\0, \\\\ or \\xNN"
                ));
            }
            None => {
                return Err("the text ends with a single \\; write \\\\ for a backslash".to_owned());
            }
        }
        rest = &escape[taken..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// A delimiter: escapes are replaced, and it is not empty.
///
/// # Errors
/// What is wrong with it.
pub fn delimiter(text: &str) -> Result<Vec<u8>, String> {
    let bytes = unescape(text)?;
    if bytes.is_empty() {
        Err("a delimiter must not be empty".to_owned())
    } else {
        Ok(bytes)
    }
}

/// A moment, in milliseconds since the epoch: 13 digits are milliseconds, 10 are seconds; a date, a date
/// with time (UTC unless it says otherwise); or `-1h`, a time before `now_ms`.
///
/// # Errors
/// What is expected.
pub fn time(text: &str, now_ms: i64) -> Result<i64, String> {
    if let Some(span) = text.strip_prefix('-') {
        let span = parse_duration(span)?;
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        return Ok(now_ms.saturating_sub(span).max(0));
    }
    if text == "now" {
        return Ok(now_ms);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return match (text.len(), text.parse::<i64>()) {
            (13, Ok(ms)) => Ok(ms),
            (10, Ok(seconds)) => Ok(seconds * 1000),
            _ => Err(format!(
                "{text:?} is not a time: use 13 digits (milliseconds) or 10 digits (seconds)"
            )),
        };
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment.as_millisecond());
    }
    let utc = |moment: DateTime| {
        let moment = TimeZone::UTC
            .to_timestamp(moment)
            .map_err(|error| error.to_string())?;
        Ok(moment.as_millisecond())
    };
    if let Ok(moment) = text.parse::<DateTime>() {
        return utc(moment);
    }
    Err(format!(
        "{text:?} is not a time: use milliseconds (13 digits), seconds (10), 2026-11-01, \
         2026-11-01T12:00:00Z, or -1h (an hour ago)"
    ))
}

/// `NAME=VALUE`; `NAME` alone is null, `NAME=` is empty.
///
/// # Errors
/// When there is no name.
pub fn header(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err("a header needs a name: NAME=VALUE".to_owned());
    }
    Ok((name.to_owned(), value))
}

/// `KEY=VALUE`.
///
/// # Errors
/// When it is not.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("expected KEY=VALUE, found {text:?}")),
    }
}

/// RFC 3339 of milliseconds since the epoch.
#[must_use]
pub fn rfc3339(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |moment| format!("{moment:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(
            unescape(r"a\tb\n\\\x00\xfF\0").unwrap(),
            b"a\tb\n\\\x00\xff\0"
        );
        assert_eq!(unescape("ä").unwrap(), "ä".as_bytes());
        for bad in [r"\q", r"\x1", r"\xzz", r"a\"] {
            assert!(unescape(bad).is_err(), "{bad}");
        }
        assert!(delimiter("").is_err());
    }

    #[test]
    fn times() {
        let now = 1_767_225_600_000;
        assert_eq!(time("1767225600000", now), Ok(1_767_225_600_000));
        assert_eq!(time("1767225600", now), Ok(1_767_225_600_000));
        assert_eq!(time("2026-01-01", now), Ok(1_767_225_600_000));
        assert_eq!(time("2026-01-01T00:00:01", now), Ok(1_767_225_601_000));
        assert_eq!(
            time("2026-01-01T01:00:00+01:00", now),
            Ok(1_767_225_600_000)
        );
        assert_eq!(time("2026-01-01T00:00:00.250Z", now), Ok(1_767_225_600_250));
        assert_eq!(time("-1h", now), Ok(now - 3_600_000));
        assert_eq!(time("-1h30m", now), Ok(now - 5_400_000));
        assert_eq!(time("now", now), Ok(now));
        for bad in ["", "12", "yesterday", "-", "-1y", "2026-13-01"] {
            assert!(time(bad, now).is_err(), "{bad}");
        }
        assert_eq!(rfc3339(1_767_225_600_250), "2026-01-01T00:00:00.250Z");
    }

    #[test]
    fn headers_and_pairs() {
        assert_eq!(
            header("a=b=c"),
            Ok(("a".to_owned(), Some("b=c".to_owned())))
        );
        assert_eq!(header("a="), Ok(("a".to_owned(), Some(String::new()))));
        assert_eq!(header("a"), Ok(("a".to_owned(), None)));
        assert!(header("=x").is_err());
        assert_eq!(pair("k=v"), Ok(("k".to_owned(), "v".to_owned())));
        assert!(pair("k").is_err() && pair("=v").is_err());
    }
}
