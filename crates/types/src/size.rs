//! Sizes and times as people write them: `64MiB`, `1.5h`, `7d`, `250 ms`. Parses such texts and writes them.
//! Arithmetic is exact in 128 bits; a fraction is rounded down to a byte or a microsecond. Nothing here guesses: a
//! text that could mean two things is refused with an example.

use std::time::Duration;

/// Units of size, the largest binary one first: [`format_bytes`] takes the first that divides evenly.
const BINARY: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// Units of time in milliseconds, the largest first.
const SPANS: &[(&str, u64)] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Most digits of a number: more cannot fit 64 bits, and this many always fit 128.
const DIGITS_MAX: usize = 25;

/// Parses a byte size: a number with an optional unit `B`, `KiB`, `MiB`, `GiB`, `TiB` (1024-based) or
/// `kB`, `MB`, `GB`, `TB` (1000-based). Capitals do not matter, a space before the unit is allowed, and the
/// number may have a fraction when it has a unit (`1.5GiB`). Without unit: bytes.
///
/// # Errors
/// A sentence that names what was found and what is accepted.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let example = "such as 512KiB or 1.5GiB";
    let bad = || {
        format!(
            "{text:?} is not a size; use a number with B, KiB, MiB, GiB, TiB, kB, MB, GB or TB, {example}"
        )
    };
    let trimmed = text.trim();
    if trimmed.starts_with('-') {
        return Err(format!(
            "{text:?} is negative; a size is 0 or more, {example}"
        ));
    }
    let (number, rest) = Number::split(trimmed).ok_or_else(bad)?;
    let unit = rest.trim();
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" if number.has_fraction() => return Err(bad()),
        "" | "b" | "byte" | "bytes" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(bad()),
    };
    number
        .times(factor)
        .and_then(|bytes| u64::try_from(bytes).ok())
        .ok_or_else(|| format!("the size {text:?} is too large; the limit is 16777215TiB"))
}

/// Parses a time span: a sum of numbers with `us`, `ms`, `s`, `m`, `h`, `d` or `w` (`1h30m`, `1.5h`, `7 days`).
/// Capitals do not matter, except that a lone `M` is refused: it could mean months. Without unit: milliseconds.
///
/// # Errors
/// A sentence that names what was found and what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let example = "such as 250ms, 1h30m or 7d";
    let bad =
        || format!("{text:?} is not a time; use a number with us, ms, s, m, h, d or w, {example}");
    let large = || format!("the time {text:?} is too large; the limit is 30500568w");
    let mut rest = text.trim();
    if rest.starts_with('-') {
        return Err(format!(
            "{text:?} is negative; a time is 0 or more, {example}"
        ));
    }
    let mut total: u128 = 0;
    let mut first = true;
    while first || !rest.is_empty() {
        let (number, after) = Number::split(rest).ok_or_else(bad)?;
        let letters = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let unit = after[..letters].trim();
        rest = &after[letters..];
        let micros = match unit {
            "" if first && rest.is_empty() && !number.has_fraction() => 1_000,
            "M" => {
                return Err(format!(
                    "{text:?} could mean minutes or months; use m for minutes and d for days, {example}"
                ));
            }
            unit => span(unit).ok_or_else(bad)?,
        };
        total += number.times(micros).ok_or_else(large)?;
        first = false;
    }
    let micros = u64::try_from(total).map_err(|_| large())?;
    Ok(Duration::from_micros(micros))
}

/// Microseconds of a unit of time.
fn span(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "us" => 1,
        "ms" => 1_000,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000_000,
        "d" | "day" | "days" => 86_400_000_000,
        "w" | "week" | "weeks" => 604_800_000_000,
        _ => return None,
    })
}

/// A decimal number: its digits as one integer, and how many of them are behind the point.
struct Number {
    digits: u128,
    behind: u32,
}

impl Number {
    /// Takes a number off the front.
    fn split(text: &str) -> Option<(Self, &str)> {
        let end = |text: &str| {
            text.find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len())
        };
        let (whole, mut rest) = text.split_at(end(text));
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            (fraction, rest) = after.split_at(end(after));
            if fraction.is_empty() {
                return None;
            }
        }
        if whole.is_empty() {
            return None;
        }
        let digits = format!("{}{fraction}", whole.trim_start_matches('0'));
        // Beyond what 64 bits can hold in any unit; the caller says that it is too large.
        let number = match digits.len() {
            0 => Self {
                digits: 0,
                behind: 0,
            },
            1..=DIGITS_MAX => Self {
                digits: digits.parse().ok()?,
                behind: u32::try_from(fraction.len()).ok()?,
            },
            _ => Self {
                digits: u128::MAX,
                behind: 0,
            },
        };
        Some((number, rest))
    }

    const fn has_fraction(&self) -> bool {
        self.behind > 0
    }

    /// The number times `factor`, rounded down.
    fn times(&self, factor: u64) -> Option<u128> {
        let scale = 10_u128.checked_pow(self.behind)?;
        Some(self.digits.checked_mul(u128::from(factor))? / scale)
    }
}

/// A size as people write it, if it is a whole number of a binary unit: `1GiB`, otherwise plain bytes: `1000`.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    let unit = BINARY
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// A time as people write it, if two units are enough: `7d`, `1h30m`, otherwise plain milliseconds: `90061001ms`.
#[must_use]
pub fn format_ms(ms: u64) -> String {
    let mut left = ms;
    let mut parts = Vec::new();
    for (name, factor) in SPANS {
        if left >= *factor {
            parts.push(format!("{}{name}", left / factor));
            left %= factor;
        }
    }
    match parts.len() {
        1 | 2 => parts.concat(),
        _ => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("1 GiB", 1 << 30),
            ("1gib", 1 << 30),
            ("1G", 1 << 30),
            ("0.5GiB", 1 << 29),
            ("1.5 kb", 1500),
            ("1000", 1000),
            ("0", 0),
            ("2MB", 2_000_000),
            ("00012B", 12),
            ("18446744073709551615", u64::MAX),
            ("0.0000000000000001TiB", 0),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in [
            "", " ", "MiB", "1.5", "9XB", "1.GiB", ".5GiB", "1e3", "1,5GiB", "+1",
        ] {
            let error = parse_bytes(bad).unwrap_err();
            assert!(
                error.contains("is not a size") && error.contains("512KiB"),
                "{error}"
            );
        }
        let negative = parse_bytes("-1GiB").unwrap_err();
        assert!(negative.contains("is negative"), "{negative}");
        for large in [
            "16777216TiB",
            "18446744073709551616",
            "99999999999999999999999999999999999TB",
        ] {
            let error = parse_bytes(large).unwrap_err();
            assert!(error.contains("is too large"), "{error}");
        }
        assert_eq!(parse_bytes("16777215TiB"), Ok(16_777_215 << 40));
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("7d", 604_800_000),
            ("7 D", 604_800_000),
            ("1H", 3_600_000),
            ("2 weeks", 1_209_600_000),
            ("90 minutes", 5_400_000),
            ("30", 30),
            ("0", 0),
            ("0.5s", 500),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        assert_eq!(parse_duration("1us"), Ok(Duration::from_micros(1)));
        for bad in ["", "s", "5x", "1h30", "1.5", "PT1H", "1d-1h", "1 000", "h1"] {
            let error = parse_duration(bad).unwrap_err();
            assert!(
                error.contains("is not a time") && error.contains("1h30m"),
                "{bad}: {error}"
            );
        }
        let negative = parse_duration("-3s").unwrap_err();
        assert!(negative.contains("is negative"), "{negative}");
        let month = parse_duration("5M").unwrap_err();
        assert!(month.contains("minutes or months"), "{month}");
        for large in [
            "99999999999999999999s",
            "30500569w",
            "9999999999999999999999999999999999w",
        ] {
            let error = parse_duration(large).unwrap_err();
            assert!(error.contains("is too large"), "{error}");
        }
        assert!(parse_duration("30500568w").is_ok());
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (bytes, text) in [
            (1 << 30, "1GiB"),
            (4096, "4KiB"),
            (1000, "1000"),
            (0, "0"),
            (1536, "1536"),
        ] {
            assert_eq!(format_bytes(bytes), text);
        }
        for (ms, text) in [
            (604_800_000, "7d"),
            (5_400_000, "1h30m"),
            (250, "250ms"),
            (0, "0ms"),
            (90_061_001, "90061001ms"),
        ] {
            assert_eq!(format_ms(ms), text);
        }
        for shift in 0..63 {
            for number in [1_u64 << shift, (1 << shift) + 1, 3 << shift.min(61)] {
                assert_eq!(parse_bytes(&format_bytes(number)), Ok(number));
                if number < u64::MAX / 1000 {
                    let written = format_ms(number);
                    assert_eq!(
                        parse_duration(&written),
                        Ok(Duration::from_millis(number)),
                        "{written}"
                    );
                }
            }
        }
    }
}
