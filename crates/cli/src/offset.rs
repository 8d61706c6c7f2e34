//! The grammar of offsets: where reading begins and ends.
//!
//! The union of kcat's and rpk's grammars. Times become milliseconds here; offsets are resolved against
//! the log later.

use varve_client::{End, Start};

use crate::parse::time;

/// Where a read begins, with the group's position as one more place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A place in the log.
    Place(Start),
    /// The group's committed offset.
    Stored,
}

/// Where a read begins and ends. `None`: not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spec {
    /// First record.
    pub start: Option<From>,
    /// One past the last record.
    pub end: Option<End>,
}

impl Spec {
    /// This spec together with `other`: kcat gives `s@` and `e@` separately.
    ///
    /// # Errors
    /// When both give a start, or both give an end.
    pub fn and(self, other: Self) -> Result<Self, String> {
        if self.start.is_some() && other.start.is_some() {
            return Err("the start is given twice".to_owned());
        }
        if self.end.is_some() && other.end.is_some() {
            return Err("the end is given twice".to_owned());
        }
        Ok(Self {
            start: self.start.or(other.start),
            end: self.end.or(other.end),
        })
    }
}

/// Parses one spec: `beginning`, `end`, `stored`, `42`, `-100`, `+100`, `10:20`, `:end`, `@TIME`,
/// `@TIME:TIME`, `s@TIME`, `e@TIME`. `now_ms` is what times before now count from.
///
/// # Errors
/// What is expected.
pub fn parse(text: &str, now_ms: i64) -> Result<Spec, String> {
    if let Some(moment) = text.strip_prefix("s@") {
        let start = From::Place(Start::Timestamp(time(moment, now_ms)?));
        return Ok(Spec {
            start: Some(start),
            end: None,
        });
    }
    if let Some(moment) = text.strip_prefix("e@") {
        let end = End::Timestamp(time(moment, now_ms)?);
        return Ok(Spec {
            start: None,
            end: Some(end),
        });
    }
    if let Some(times) = text.strip_prefix('@') {
        return time_range(times, now_ms);
    }
    match text.split_once(':') {
        None => Ok(Spec {
            start: Some(place(text)?),
            end: None,
        }),
        Some((start, end)) => {
            if start.is_empty() && end.is_empty() {
                return Err(
                    "a range needs a start or an end, such as 10:20, 10: or :end".to_owned(),
                );
            }
            let start = if start.is_empty() {
                None
            } else {
                Some(place(start)?)
            };
            let end = if end.is_empty() {
                None
            } else {
                Some(range_end(end)?)
            };
            check(start, end)?;
            Ok(Spec { start, end })
        }
    }
}

fn check(start: Option<From>, end: Option<End>) -> Result<(), String> {
    let backwards = match (start, end) {
        (Some(From::Place(Start::Offset(start))), Some(End::Offset(end))) => start > end,
        (Some(From::Place(Start::Timestamp(start))), Some(End::Timestamp(end))) => start > end,
        _ => false,
    };
    if backwards {
        Err("the range ends before it starts".to_owned())
    } else {
        Ok(())
    }
}

/// `T`, `T1:T2`, `:T2`. Times have colons of their own, so every place to split is tried.
fn time_range(text: &str, now_ms: i64) -> Result<Spec, String> {
    let whole = time(text, now_ms);
    if let Ok(ms) = whole {
        return Ok(Spec {
            start: Some(From::Place(Start::Timestamp(ms))),
            end: None,
        });
    }
    for (at, _) in text.match_indices(':') {
        let (start, end) = (&text[..at], &text[at + 1..]);
        let start = match start {
            "" => Ok(None),
            start => time(start, now_ms).map(|ms| Some(From::Place(Start::Timestamp(ms)))),
        };
        let end = match end {
            "" => Ok(None),
            "end" => Ok(Some(End::CurrentEnd)),
            end => time(end, now_ms).map(|ms| Some(End::Timestamp(ms))),
        };
        if let (Ok(start), Ok(end)) = (start, end)
            && (start.is_some() || end.is_some())
        {
            check(start, end)?;
            return Ok(Spec { start, end });
        }
    }
    whole.map(|_| Spec::default())
}

fn place(text: &str) -> Result<From, String> {
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<i64>().ok().filter(|_| plain)
    };
    let start = match text {
        "beginning" | "start" | "earliest" => Start::Earliest,
        "end" | "latest" => Start::Latest,
        "stored" | "committed" => return Ok(From::Stored),
        _ => {
            let (sign, digits) = match text.split_at_checked(1) {
                Some(("-", digits)) => (-1, digits),
                Some(("+", digits)) => (1, digits),
                _ => (0, text),
            };
            match (sign, number(digits)) {
                (0, Some(offset)) => Start::Offset(offset),
                (-1, Some(count)) => Start::Last(count),
                (1, Some(count)) => Start::AfterEarliest(count),
                _ => {
                    return Err(format!(
                        "{text:?} is not an offset; use beginning, end, stored, a number, -N, +N, \
                         N:M or @TIME"
                    ));
                }
            }
        }
    };
    Ok(From::Place(start))
}

fn range_end(text: &str) -> Result<End, String> {
    match text {
        "end" | "latest" => Ok(End::CurrentEnd),
        _ => match place(text)? {
            From::Place(Start::Offset(offset)) => Ok(End::Offset(offset)),
            _ => Err(format!("{text:?} cannot end a range; use a number or end")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_225_600_000;

    fn spec(start: Option<Start>, end: Option<End>) -> Result<Spec, String> {
        Ok(Spec {
            start: start.map(From::Place),
            end,
        })
    }

    #[test]
    fn places() {
        for (text, start) in [
            ("beginning", Start::Earliest),
            ("start", Start::Earliest),
            ("earliest", Start::Earliest),
            ("end", Start::Latest),
            ("latest", Start::Latest),
            ("42", Start::Offset(42)),
            ("0", Start::Offset(0)),
            ("-100", Start::Last(100)),
            ("+100", Start::AfterEarliest(100)),
        ] {
            assert_eq!(parse(text, NOW), spec(Some(start), None), "{text}");
        }
        for text in ["stored", "committed"] {
            assert_eq!(
                parse(text, NOW),
                Ok(Spec {
                    start: Some(From::Stored),
                    end: None
                })
            );
        }
    }

    #[test]
    fn ranges() {
        let at = |offset| Some(Start::Offset(offset));
        assert_eq!(parse("10:20", NOW), spec(at(10), Some(End::Offset(20))));
        assert_eq!(parse("10:10", NOW), spec(at(10), Some(End::Offset(10))));
        assert_eq!(parse(":20", NOW), spec(None, Some(End::Offset(20))));
        assert_eq!(parse("10:", NOW), spec(at(10), None));
        assert_eq!(parse(":end", NOW), spec(None, Some(End::CurrentEnd)));
        assert_eq!(
            parse("-5:end", NOW),
            spec(Some(Start::Last(5)), Some(End::CurrentEnd))
        );
        assert_eq!(
            parse("beginning:7", NOW),
            spec(Some(Start::Earliest), Some(End::Offset(7)))
        );
    }

    #[test]
    fn times_in_every_form() {
        let at = |ms| Some(Start::Timestamp(ms));
        let hour = 3_600_000;
        assert_eq!(parse("@1767225600000", NOW), spec(at(NOW), None));
        assert_eq!(parse("@1767225600", NOW), spec(at(NOW), None));
        assert_eq!(parse("@2026-01-01", NOW), spec(at(NOW), None));
        assert_eq!(parse("@-1h", NOW), spec(at(NOW - hour), None));
        assert_eq!(
            parse("@-48h:-24h", NOW),
            spec(at(NOW - 48 * hour), Some(End::Timestamp(NOW - 24 * hour)))
        );
        assert_eq!(
            parse("@2026-01-01T00:00:00Z:2026-01-01T01:00:00Z", NOW),
            spec(at(NOW), Some(End::Timestamp(NOW + hour)))
        );
        assert_eq!(
            parse("@2026-01-01T00:00:00+01:00:end", NOW),
            spec(at(NOW - hour), Some(End::CurrentEnd))
        );
        assert_eq!(
            parse("@:-1h", NOW),
            spec(None, Some(End::Timestamp(NOW - hour)))
        );
        assert_eq!(parse("@-1h:", NOW), spec(at(NOW - hour), None));
        assert_eq!(parse("s@1767225600000", NOW), spec(at(NOW), None));
        assert_eq!(
            parse("e@1767225600000", NOW),
            spec(None, Some(End::Timestamp(NOW)))
        );
    }

    #[test]
    fn two_halves_become_one() {
        let start = parse("s@1767225600000", NOW).unwrap();
        let end = parse("e@1767225600001", NOW).unwrap();
        let both = start.and(end).unwrap();
        assert_eq!(both.start, Some(From::Place(Start::Timestamp(NOW))));
        assert_eq!(both.end, Some(End::Timestamp(NOW + 1)));
        assert!(both.and(start).is_err() && both.and(end).is_err());
    }

    #[test]
    fn nonsense_is_refused_with_a_hint() {
        for bad in [
            "",
            ":",
            "20:10",
            "x",
            "--5",
            "-",
            "+",
            "4x",
            "10:-5",
            "10:x",
            "1:2:3",
            "@",
            "@:",
            "@x",
            "@-1h:-2h",
            "s@",
            "e@x",
            "99999999999999999999",
            "10:stored",
        ] {
            assert!(parse(bad, NOW).is_err(), "{bad:?}");
        }
        assert!(parse("begining", NOW).unwrap_err().contains("beginning"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text, NOW);
            let _ = parse(&format!("@{text}"), NOW);
        }

        #[test]
        fn numbers_round_trip(start in 0..i64::MAX / 2, len in 0..1_000_000_i64) {
            let range = parse(&format!("{start}:{}", start + len), NOW);
            let expected = spec(Some(Start::Offset(start)), Some(End::Offset(start + len)));
            proptest::prop_assert_eq!(range, expected);
        }
    }
}
