//! Sizes and times as people write them: `64MiB`, `7d`, `250ms`. Parsing only; units are part of the
//! value so that no bare number has to be guessed at.

use std::time::Duration;

/// Parses a byte size: a number with an optional unit `B`, `KiB`, `MiB`, `GiB`, `TiB` (1024-based) or
/// `kB`, `KB`, `MB`, `GB`, `TB` (1000-based). Without unit: bytes.
///
/// # Errors
/// A sentence that names what was found and what is accepted.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let bad = || {
        format!("a size is a number with B, KiB, MiB, GiB, TiB, kB, MB, GB or TB; found {text:?}")
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(bad()),
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("the size {text:?} is too large"))
}

/// Parses a time span: a sum of numbers with `us`, `ms`, `s`, `m`, `h`, `d` or `w` (`1h30m`). Without
/// unit: milliseconds.
///
/// # Errors
/// A sentence that names what was found and what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("a time is a number with us, ms, s, m, h, d or w (1h30m); found {text:?}");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let micros: u64 = match rest[..letters].trim() {
            "us" => 1,
            "" | "ms" => 1_000,
            "s" => 1_000_000,
            "m" | "min" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            "w" => 604_800_000_000,
            _ => return Err(bad()),
        };
        rest = &rest[letters..];
        let step = number.checked_mul(micros).ok_or_else(bad)?;
        total = total
            .checked_add(Duration::from_micros(step))
            .ok_or_else(bad)?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("1 GiB"), Ok(1 << 30));
        assert_eq!(parse_bytes("1000"), Ok(1000));
        assert_eq!(parse_bytes("2MB"), Ok(2_000_000));
        for bad in ["", "MiB", "-1", "1.5GiB", "9XB", "99999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(parse_duration("30"), Ok(Duration::from_millis(30)));
        for bad in ["", "s", "5x", "-3s", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
