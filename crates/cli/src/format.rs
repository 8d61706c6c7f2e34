//! Output formats: a text with tokens becomes a list once, and is rendered for every record.
//!
//! Tokens: `%v %s` value, `%V %S` its length (-1 for null), `%k %K` key and its length, `%h` headers,
//! `%t %p %o` topic, partition, offset, `%T` timestamp in ms, `%d` the same as RFC 3339, `%i` running
//! count from 1, `%e` leader epoch, `%%`. Modifiers in braces: `%v{hex}`, `%v{base64}`, `%K{big32}`,
//! `%d{strftime[%F %T]}`, `%h{%k=%v\n}`.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use varve_record::HeadersRef;

use crate::parse::{rfc3339, unescape};

/// How bytes are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BytesAs {
    /// As they are.
    #[default]
    Raw,
    /// Lower-case hexadecimal digits.
    Hex,
    /// Base64 with padding.
    Base64,
}

/// How a number is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NumberAs {
    /// Decimal digits.
    #[default]
    Decimal,
    /// Big-endian bytes, 1 to 8.
    Big(usize),
    /// Little-endian bytes, 1 to 8.
    Little(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TimeAs {
    Milliseconds(NumberAs),
    Rfc3339,
    Strftime(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(Vec<u8>),
    Value(BytesAs),
    ValueLength(NumberAs),
    Key(BytesAs),
    KeyLength(NumberAs),
    Headers,
    EachHeader(Vec<Token>),
    Topic,
    Partition(NumberAs),
    Offset(NumberAs),
    Time(TimeAs),
    Count(NumberAs),
    LeaderEpoch(NumberAs),
}

/// What a format is filled with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset; negative when unknown.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: HeadersRef<'a>,
    /// Running count, from 1.
    pub count: u64,
    /// Epoch of the leader that appended the record.
    pub leader_epoch: i32,
}

/// A parsed format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    tokens: Vec<Token>,
    null: Vec<u8>,
}

impl Format {
    /// Parses a format. `null` is printed for a null key or value.
    ///
    /// # Errors
    /// What is wrong, and at which token.
    pub fn parse(text: &str, null: &str) -> Result<Self, String> {
        Ok(Self {
            tokens: tokens(text, false)?,
            null: null.as_bytes().to_vec(),
        })
    }

    /// `None` when the format uses only where a record is (topic, partition, offset, count), otherwise a
    /// token that needs the record itself.
    #[must_use]
    pub fn needs_record(&self) -> Option<&'static str> {
        self.tokens.iter().find_map(|token| match token {
            Token::Value(_) => Some("%v"),
            Token::ValueLength(_) => Some("%V"),
            Token::Key(_) => Some("%k"),
            Token::KeyLength(_) => Some("%K"),
            Token::Headers | Token::EachHeader(_) => Some("%h"),
            Token::Time(_) => Some("%T"),
            Token::LeaderEpoch(_) => Some("%e"),
            Token::Literal(_)
            | Token::Topic
            | Token::Partition(_)
            | Token::Offset(_)
            | Token::Count(_) => None,
        })
    }

    /// Appends the rendered record to `out`.
    pub fn render(&self, fields: &Fields<'_>, out: &mut Vec<u8>) {
        for token in &self.tokens {
            self.render_token(token, fields, out);
        }
    }

    fn render_token(&self, token: &Token, fields: &Fields<'_>, out: &mut Vec<u8>) {
        match token {
            Token::Literal(text) => out.extend_from_slice(text),
            Token::Value(style) => self.bytes(fields.value, *style, out),
            Token::ValueLength(style) => number(length(fields.value), *style, out),
            Token::Key(style) => self.bytes(fields.key, *style, out),
            Token::KeyLength(style) => number(length(fields.key), *style, out),
            Token::Headers => self.headers(fields, out),
            Token::EachHeader(tokens) => {
                for (name, value) in fields.headers.iter() {
                    let header = Fields {
                        key: Some(name),
                        value,
                        ..*fields
                    };
                    for token in tokens {
                        self.render_token(token, &header, out);
                    }
                }
            }
            Token::Topic => out.extend_from_slice(fields.topic.as_bytes()),
            Token::Partition(style) => number(i64::from(fields.partition), *style, out),
            Token::Offset(style) => number(fields.offset, *style, out),
            Token::Time(style) => time(fields.timestamp, style, out),
            Token::Count(style) => number(fields.count as i64, *style, out),
            Token::LeaderEpoch(style) => number(i64::from(fields.leader_epoch), *style, out),
        }
    }

    fn bytes(&self, bytes: Option<&[u8]>, style: BytesAs, out: &mut Vec<u8>) {
        let Some(bytes) = bytes else {
            out.extend_from_slice(&self.null);
            return;
        };
        match style {
            BytesAs::Raw => out.extend_from_slice(bytes),
            BytesAs::Hex => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                out.extend(
                    bytes
                        .iter()
                        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]),
                );
            }
            BytesAs::Base64 => out.extend_from_slice(STANDARD.encode(bytes).as_bytes()),
        }
    }

    fn headers(&self, fields: &Fields<'_>, out: &mut Vec<u8>) {
        for (index, (name, value)) in fields.headers.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            out.push(b'=');
            self.bytes(value, BytesAs::Raw, out);
        }
    }
}

fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

fn number(value: i64, style: NumberAs, out: &mut Vec<u8>) {
    match style {
        NumberAs::Decimal => {
            // Into a vector: cannot fail.
            let _ = write!(out, "{value}");
        }
        NumberAs::Big(bytes) => out.extend_from_slice(&value.to_be_bytes()[8 - bytes..]),
        NumberAs::Little(bytes) => out.extend_from_slice(&value.to_le_bytes()[..bytes]),
    }
}

fn time(ms: i64, style: &TimeAs, out: &mut Vec<u8>) {
    match style {
        TimeAs::Milliseconds(style) => number(ms, *style, out),
        TimeAs::Rfc3339 => out.extend_from_slice(rfc3339(ms).as_bytes()),
        TimeAs::Strftime(format) => {
            let moment = jiff::Timestamp::from_millisecond(ms).map(|moment| {
                let moment = moment.to_zoned(jiff::tz::TimeZone::UTC);
                jiff::fmt::strtime::format(format, &moment)
            });
            match moment {
                Ok(Ok(text)) => out.extend_from_slice(text.as_bytes()),
                _ => number(ms, NumberAs::Decimal, out),
            }
        }
    }
}

/// Parses a number's modifier: `big16`, `little32`, `ascii`.
///
/// # Errors
/// When it is none.
pub fn number_modifier(modifier: &str) -> Result<NumberAs, String> {
    let bytes = |bits: &str| match bits {
        "8" => Some(1),
        "16" => Some(2),
        "32" => Some(4),
        "64" => Some(8),
        _ => None,
    };
    let style = if modifier == "ascii" {
        Some(NumberAs::Decimal)
    } else if modifier == "byte" {
        Some(NumberAs::Big(1))
    } else if let Some(bits) = modifier.strip_prefix("big") {
        bytes(bits).map(NumberAs::Big)
    } else if let Some(bits) = modifier.strip_prefix("little") {
        bytes(bits).map(NumberAs::Little)
    } else {
        None
    };
    style.ok_or_else(|| {
        format!(
            "{{{modifier}}} is not a number format; use ascii, big8 to big64 or little8 to little64"
        )
    })
}

fn bytes_modifier(modifier: &str) -> Result<BytesAs, String> {
    match modifier {
        "raw" => Ok(BytesAs::Raw),
        "hex" => Ok(BytesAs::Hex),
        "base64" => Ok(BytesAs::Base64),
        _ => Err(format!(
            "{{{modifier}}} is not a format for bytes; use hex or base64"
        )),
    }
}

fn time_modifier(modifier: &str) -> Result<TimeAs, String> {
    if modifier == "rfc3339" {
        return Ok(TimeAs::Rfc3339);
    }
    if let Some(format) = modifier
        .strip_prefix("strftime[")
        .and_then(|m| m.strip_suffix(']'))
    {
        let epoch = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
        jiff::fmt::strtime::format(format, &epoch).map_err(|error| error.to_string())?;
        return Ok(TimeAs::Strftime(format.to_owned()));
    }
    number_modifier(modifier)
        .map(TimeAs::Milliseconds)
        .map_err(|_| format!("{{{modifier}}} is not a time format; use rfc3339 or strftime[...]"))
}

/// Splits `{...}` off the front of `rest`, matching inner braces.
pub(crate) fn braces(rest: &str) -> Result<(Option<&str>, &str), String> {
    if !rest.starts_with('{') {
        return Ok((None, rest));
    }
    let mut depth = 0_usize;
    for (at, character) in rest.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Ok((Some(&rest[1..at]), &rest[at + 1..]));
                }
            }
            _ => {}
        }
    }
    Err("a { has no matching }".to_owned())
}

fn tokens(text: &str, in_header: bool) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(at) = rest.find('%') else {
            push_literal(&mut tokens, unescape(rest)?);
            break;
        };
        push_literal(&mut tokens, unescape(&rest[..at])?);
        let mut after = rest[at + 1..].chars();
        let Some(letter) = after.next() else {
            return Err("the format ends with a single %; write %% for a percent sign".to_owned());
        };
        if letter == '%' {
            push_literal(&mut tokens, b"%".to_vec());
            rest = after.as_str();
            continue;
        }
        let (modifier, remaining) = braces(after.as_str())?;
        tokens.push(token(letter, modifier, in_header)?);
        rest = remaining;
    }
    Ok(tokens)
}

fn push_literal(tokens: &mut Vec<Token>, text: Vec<u8>) {
    match tokens.last_mut() {
        _ if text.is_empty() => {}
        Some(Token::Literal(last)) => last.extend(text),
        _ => tokens.push(Token::Literal(text)),
    }
}

fn token(letter: char, modifier: Option<&str>, in_header: bool) -> Result<Token, String> {
    let number = || modifier.map_or(Ok(NumberAs::Decimal), number_modifier);
    let bytes = || modifier.map_or(Ok(BytesAs::Raw), bytes_modifier);
    let plain = |token: Token| match modifier {
        None => Ok(token),
        Some(modifier) => Err(format!("%{letter} takes no {{{modifier}}}")),
    };
    match letter {
        'v' | 's' => bytes().map(Token::Value),
        'V' | 'S' => number().map(Token::ValueLength),
        'k' => bytes().map(Token::Key),
        'K' => number().map(Token::KeyLength),
        'h' if in_header => Err("%h cannot stand inside %h{...}".to_owned()),
        'h' => match modifier {
            None => Ok(Token::Headers),
            Some(inner) => tokens(inner, true).map(Token::EachHeader),
        },
        't' => plain(Token::Topic),
        'p' => number().map(Token::Partition),
        'o' => number().map(Token::Offset),
        'T' => number().map(|style| Token::Time(TimeAs::Milliseconds(style))),
        'd' => modifier
            .map_or(Ok(TimeAs::Rfc3339), time_modifier)
            .map(Token::Time),
        'i' => number().map(Token::Count),
        'e' => number().map(Token::LeaderEpoch),
        other => Err(format!("unknown token %{other}; %% prints a percent sign")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use varve_record::{BatchBuilder, Compression};

    fn render(format: &str) -> String {
        let mut builder = BatchBuilder::new(Compression::None, None);
        let headers = [("a", Some(&b"1"[..])), ("b", None)];
        builder
            .append(1_767_225_600_250, Some(b"key"), Some(b"v\xff"), &headers)
            .unwrap();
        let batch = builder.build_batch().unwrap();
        let mut records = batch.records().unwrap();
        let record = records.next_ref().unwrap().unwrap();
        let fields = Fields {
            topic: "orders",
            partition: 3,
            offset: 42,
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
            count: 7,
            leader_epoch: 5,
        };
        let mut out = Vec::new();
        Format::parse(format, "NULL")
            .unwrap()
            .render(&fields, &mut out);
        out.iter().map(|byte| char::from(*byte)).collect()
    }

    #[test]
    fn every_token() {
        for (format, expected) in [
            ("%v|%s", "v\u{ff}|v\u{ff}"),
            ("%V %S", "2 2"),
            ("%k %K", "key 3"),
            ("%t[%p]@%o\\n", "orders[3]@42\n"),
            ("%T", "1767225600250"),
            ("%d", "2026-01-01T00:00:00.250Z"),
            ("%d{rfc3339}", "2026-01-01T00:00:00.250Z"),
            ("%d{strftime[%F %T]}", "2026-01-01 00:00:00"),
            ("%i/%e", "7/5"),
            ("%h", "a=1,b=NULL"),
            ("%h{%k:%v;}", "a:1;b:NULL;"),
            ("%v{hex} %v{base64}", "76ff dv8="),
            ("%K{big32}%K{little16}%K{big8}", "\0\0\0\u{3}\u{3}\0\u{3}"),
            ("100%%\\t\\x41", "100%\tA"),
            ("", ""),
            ("plain {braces}", "plain {braces}"),
        ] {
            assert_eq!(render(format), expected, "{format}");
        }
    }

    #[test]
    fn nulls_print_as_asked_and_have_length_minus_one() {
        let fields = Fields {
            topic: "t",
            ..Default::default()
        };
        let mut out = Vec::new();
        Format::parse("%k|%v|%K|%V", "-")
            .unwrap()
            .render(&fields, &mut out);
        assert_eq!(out, b"-|-|-1|-1");
    }

    #[test]
    fn mistakes_are_explained() {
        for (format, word) in [
            ("%", "end"),
            ("%y", "unknown token %y"),
            ("%v{rot13}", "not a format for bytes"),
            ("%K{big7}", "number format"),
            ("%d{soon}", "time format"),
            ("%t{hex}", "takes no"),
            ("%v{hex", "no matching }"),
            ("%h{%h}", "inside"),
            ("\\q", "escape"),
        ] {
            let error = Format::parse(format, "").unwrap_err();
            assert!(error.contains(word), "{format}: {error}");
        }
    }

    #[test]
    fn formats_of_acknowledgements_need_no_record() {
        assert_eq!(
            Format::parse("%t[%p]@%o %i\\n", "").unwrap().needs_record(),
            None
        );
        assert_eq!(
            Format::parse("%o %v", "").unwrap().needs_record(),
            Some("%v")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_format_panics(text: String) {
            if let Ok(format) = Format::parse(&text, "") {
                let mut out = Vec::new();
                format.render(&Fields { topic: "t", timestamp: -1, ..Default::default() }, &mut out);
            }
        }
    }
}
