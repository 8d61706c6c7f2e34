//! Turns a stream of bytes into records: delimited values with optional keys, JSON lines, or a format
//! with tokens. Pure: bytes in, records out, whole ones only.

use memchr::memmem;

use crate::format::{NumberAs, braces, number_modifier};
use crate::json;
use crate::parse::unescape;

/// A record cut out of the input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cut<'a> {
    /// Topic, where the input names one.
    pub topic: Option<&'a [u8]>,
    /// Partition, where the input names one.
    pub partition: Option<i32>,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
}

/// One field of an input format.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Literal(Vec<u8>),
    Topic,
    Partition(NumberAs),
    Key,
    KeyLength(NumberAs),
    Value,
    ValueLength(NumberAs),
    Timestamp(NumberAs),
}

/// How the input is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Splitter {
    /// Records end with a delimiter; a key may be split off.
    Delimited {
        /// Ends a record.
        delimiter: Vec<u8>,
        /// Stands between key and value.
        key_delimiter: Option<Vec<u8>>,
    },
    /// Records follow a format.
    Format(InputFormat),
}

/// A parsed input format, e.g. `%k %v\n` or `%K{big32}%k%V{big32}%v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFormat {
    fields: Vec<Field>,
}

/// What cutting gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A record, and the bytes it took.
    Record(Cut<'a>, usize),
    /// The rest is not a whole record yet.
    More,
}

impl Splitter {
    /// Cuts the first record off `input`. `last`: no more input will come, so what is left is a record
    /// even without its delimiter.
    ///
    /// # Errors
    /// What does not fit the format.
    pub fn next<'a>(&self, input: &'a [u8], last: bool) -> Result<Next<'a>, String> {
        match self {
            Self::Delimited {
                delimiter,
                key_delimiter,
            } => Ok(delimited(input, last, delimiter, key_delimiter.as_deref())),
            Self::Format(format) => format.next(input, last),
        }
    }
}

fn find(input: &[u8], needle: &[u8]) -> Option<usize> {
    match needle {
        [byte] => memchr::memchr(*byte, input),
        needle => memmem::find(input, needle),
    }
}

fn delimited<'a>(
    input: &'a [u8],
    last: bool,
    delimiter: &[u8],
    key_delimiter: Option<&[u8]>,
) -> Next<'a> {
    let (record, taken) = match find(input, delimiter) {
        Some(at) => (&input[..at], at + delimiter.len()),
        None if last && !input.is_empty() => (input, input.len()),
        None => return Next::More,
    };
    let (key, value) = match key_delimiter.and_then(|key| Some((find(record, key)?, key.len()))) {
        Some((at, len)) => (Some(&record[..at]), &record[at + len..]),
        None => (None, record),
    };
    Next::Record(
        Cut {
            key,
            value: Some(value),
            ..Cut::default()
        },
        taken,
    )
}

impl InputFormat {
    /// Parses a format: `%t %p %k %v %T`, lengths `%K %V`, literals between them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut fields = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            push_literal(&mut fields, unescape(&rest[..at])?);
            let mut after = rest[at + 1..].chars();
            let letter = after
                .next()
                .ok_or("the format ends with a single %; write %% for a percent sign")?;
            let (modifier, remaining) = match letter {
                '%' => (None, after.as_str()),
                _ => braces(after.as_str())?,
            };
            let number = || modifier.map_or(Ok(NumberAs::Decimal), number_modifier);
            match letter {
                '%' => push_literal(&mut fields, b"%".to_vec()),
                'k' => fields.push(Field::Key),
                'v' | 's' => fields.push(Field::Value),
                't' => fields.push(Field::Topic),
                'K' => fields.push(Field::KeyLength(number()?)),
                'V' | 'S' => fields.push(Field::ValueLength(number()?)),
                'p' => fields.push(Field::Partition(number()?)),
                'T' | 'd' => fields.push(Field::Timestamp(number()?)),
                other => {
                    return Err(format!(
                        "an input format has no %{other}; use %t, %p, %k, %K, %v, %V or %T"
                    ));
                }
            }
            rest = remaining;
        }
        push_literal(&mut fields, unescape(rest)?);
        let format = Self { fields };
        format.check()?;
        Ok(format)
    }

    /// Every field must have an end: a literal behind it, or a length before it.
    fn check(&self) -> Result<(), String> {
        if !self
            .fields
            .iter()
            .any(|field| matches!(field, Field::Key | Field::Value))
        {
            return Err("the format has neither %k nor %v".to_owned());
        }
        for (index, field) in self.fields.iter().enumerate() {
            let before = &self.fields[..index];
            let bounded = match field {
                Field::Literal(_) => true,
                Field::Key => before.iter().any(|f| matches!(f, Field::KeyLength(_))),
                Field::Value => before.iter().any(|f| matches!(f, Field::ValueLength(_))),
                Field::Topic => false,
                Field::Partition(style)
                | Field::KeyLength(style)
                | Field::ValueLength(style)
                | Field::Timestamp(style) => *style != NumberAs::Decimal,
            };
            let literal_follows = matches!(self.fields.get(index + 1), Some(Field::Literal(_)));
            if !bounded && !literal_follows {
                return Err(
                    "each field needs a delimiter after it or its length before it, as in '%k %v\\n'"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    fn next<'a>(&self, input: &'a [u8], last: bool) -> Result<Next<'a>, String> {
        if input.is_empty() {
            return Ok(Next::More);
        }
        let mut cut = Cut::default();
        let (mut key_length, mut value_length) = (None, None);
        let mut at = 0;
        let mut fields = self.fields.iter().peekable();
        while let Some(field) = fields.next() {
            let rest = &input[at..];
            let end = match fields.peek() {
                Some(Field::Literal(end)) => Some(end.as_slice()),
                _ => None,
            };
            let is_final = end.is_some() && fields.clone().nth(1).is_none();
            let span = match field {
                Field::Literal(text) => {
                    if rest.len() < text.len() {
                        // The last record may lack its final delimiter.
                        if last && fields.peek().is_none() {
                            return Ok(Next::Record(cut, input.len()));
                        }
                        return more(last);
                    }
                    if !rest.starts_with(text) {
                        return Err(format!("expected {:?}", String::from_utf8_lossy(text)));
                    }
                    at += text.len();
                    continue;
                }
                Field::Key => bytes(rest, key_length, end, last && is_final),
                Field::Value => bytes(rest, value_length, end, last && is_final),
                Field::Topic => bytes(rest, None, end, last && is_final),
                Field::Partition(style)
                | Field::KeyLength(style)
                | Field::ValueLength(style)
                | Field::Timestamp(style) => match style {
                    NumberAs::Decimal => bytes(rest, None, end, last && is_final),
                    NumberAs::Big(len) | NumberAs::Little(len) => rest.get(..*len),
                },
            };
            let Some(span) = span else { return more(last) };
            at += span.len();
            match field {
                Field::Key => cut.key = (key_length != Some(-1)).then_some(span),
                Field::Value => cut.value = (value_length != Some(-1)).then_some(span),
                Field::Topic => cut.topic = Some(span),
                Field::KeyLength(style) => key_length = Some(number(span, *style)?),
                Field::ValueLength(style) => value_length = Some(number(span, *style)?),
                Field::Timestamp(style) => cut.timestamp = Some(number(span, *style)?),
                Field::Partition(style) => {
                    let partition = i32::try_from(number(span, *style)?);
                    cut.partition = Some(partition.map_err(|error| error.to_string())?);
                }
                Field::Literal(_) => {}
            }
        }
        Ok(Next::Record(cut, at))
    }
}

fn push_literal(fields: &mut Vec<Field>, text: Vec<u8>) {
    match fields.last_mut() {
        _ if text.is_empty() => {}
        Some(Field::Literal(last)) => last.extend(text),
        _ => fields.push(Field::Literal(text)),
    }
}

fn more<'a>(last: bool) -> Result<Next<'a>, String> {
    if last {
        Err("the input ends in the middle of a record".to_owned())
    } else {
        Ok(Next::More)
    }
}

/// The field's bytes: of the given length (-1 is null), or up to the delimiter.
fn bytes<'a>(
    rest: &'a [u8],
    length: Option<i64>,
    end: Option<&[u8]>,
    to_the_end: bool,
) -> Option<&'a [u8]> {
    match (length, end) {
        (Some(length), _) => rest.get(..usize::try_from(length.max(0)).ok()?),
        (None, Some(end)) => match find(rest, end) {
            Some(at) => Some(&rest[..at]),
            None if to_the_end => Some(rest),
            None => None,
        },
        (None, None) => None,
    }
}

fn number(span: &[u8], style: NumberAs) -> Result<i64, String> {
    let wide = |bytes: &[u8]| {
        let negative = bytes[0] & 0x80 != 0;
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        whole[8 - bytes.len()..].copy_from_slice(bytes);
        i64::from_be_bytes(whole)
    };
    match style {
        NumberAs::Decimal => std::str::from_utf8(span)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or_else(|| format!("{:?} is not a number", String::from_utf8_lossy(span))),
        NumberAs::Big(_) => Ok(wide(span)),
        NumberAs::Little(_) => {
            let mut reversed = span.to_vec();
            reversed.reverse();
            Ok(wide(&reversed))
        }
    }
}

/// A line of JSON; an empty line is nothing.
///
/// # Errors
/// What is wrong with the line.
pub fn json_line(line: &[u8]) -> Result<Option<json::JsonRecord>, String> {
    if line.trim_ascii().is_empty() {
        Ok(None)
    } else {
        json::read(line).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pair = (Option<String>, Option<String>);

    fn all(splitter: &Splitter, input: &[u8], last: bool) -> Result<(Vec<Pair>, usize), String> {
        let text =
            |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let (mut found, mut at) = (Vec::new(), 0);
        while let Next::Record(cut, taken) = splitter.next(&input[at..], last)? {
            found.push((text(cut.key), text(cut.value)));
            at += taken;
        }
        Ok((found, at))
    }

    fn pair(key: Option<&str>, value: &str) -> Pair {
        (key.map(str::to_owned), Some(value.to_owned()))
    }

    fn lines(key_delimiter: Option<&[u8]>) -> Splitter {
        Splitter::Delimited {
            delimiter: b"\n".to_vec(),
            key_delimiter: key_delimiter.map(<[u8]>::to_vec),
        }
    }

    #[test]
    fn lines_and_keys() {
        let (found, taken) = all(&lines(None), b"a\n\nb\nrest", false).unwrap();
        assert_eq!(found, [pair(None, "a"), pair(None, ""), pair(None, "b")]);
        assert_eq!(taken, 5);
        let (found, _) = all(&lines(None), b"a\nrest", true).unwrap();
        assert_eq!(found, [pair(None, "a"), pair(None, "rest")]);
        let (found, _) = all(&lines(Some(b"::")), b"k::v::w\nplain\n::e\n", true).unwrap();
        assert_eq!(
            found,
            [
                pair(Some("k"), "v::w"),
                pair(None, "plain"),
                pair(Some(""), "e")
            ]
        );
    }

    #[test]
    fn delimiters_of_several_bytes() {
        let splitter = Splitter::Delimited {
            delimiter: b"--\n".to_vec(),
            key_delimiter: None,
        };
        let (found, taken) = all(&splitter, b"a\nb--\nc-", false).unwrap();
        assert_eq!((found, taken), (vec![pair(None, "a\nb")], 6));
    }

    #[test]
    fn formats_with_delimiters() {
        let format = Splitter::Format(InputFormat::parse("%k %v\\n").unwrap());
        let (found, _) = all(&format, b"a 1\nb 2 3\nc 4", true).unwrap();
        assert_eq!(
            found,
            [
                pair(Some("a"), "1"),
                pair(Some("b"), "2 3"),
                pair(Some("c"), "4")
            ]
        );
        assert!(all(&format, b"nokey", true).is_err());
        assert_eq!(all(&format, b"nokey", false).unwrap().1, 0);
        let full = Splitter::Format(InputFormat::parse("%t,%p,%T,%v\\n").unwrap());
        let Next::Record(cut, 12) = full.next(b"x,3,1234,hi\n", false).unwrap() else {
            panic!()
        };
        assert_eq!(cut.topic, Some(&b"x"[..]));
        assert_eq!((cut.partition, cut.timestamp), (Some(3), Some(1234)));
        assert!(full.next(b"x,y,1,z\n", false).is_err());
    }

    #[test]
    fn formats_with_lengths() {
        let format = InputFormat::parse("%K{big16}%k%V{little32}%v").unwrap();
        let format = Splitter::Format(format);
        let input = b"\x00\x02ab\x03\x00\x00\x00xyz\xff\xff\x00\x00\x00\x00";
        let (found, taken) = all(&format, input, true).unwrap();
        assert_eq!(found, [pair(Some("ab"), "xyz"), pair(None, "")]);
        assert_eq!(taken, input.len());
        assert!(all(&format, &input[..8], true).is_err());
        let ascii = Splitter::Format(InputFormat::parse("%V:%v,").unwrap());
        let (found, _) = all(&ascii, b"3:a,b,1:c,", true).unwrap();
        assert_eq!(found, [pair(None, "a,b"), pair(None, "c")]);
    }

    #[test]
    fn formats_that_cannot_be_read_are_refused() {
        for bad in [
            "",
            "%",
            "%k%v\\n",
            "%v",
            "%t %p\\n",
            "%o %v\\n",
            "%K%k%v\\n",
        ] {
            assert!(InputFormat::parse(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn chunks_do_not_change_the_records(
            input in proptest::collection::vec(proptest::sample::select(&b"ab:\n"[..]), 0..200),
            cut: proptest::sample::Index,
        ) {
            let splitter = lines(Some(b":"));
            let whole = all(&splitter, &input, true).unwrap().0;
            let middle = cut.index(input.len() + 1);
            let (mut parts, taken) = all(&splitter, &input[..middle], false).unwrap();
            parts.extend(all(&splitter, &input[taken..], true).unwrap().0);
            proptest::prop_assert_eq!(parts, whole);
        }

        #[test]
        fn no_input_panics(
            format in "(%[kvKVtpT](\\{(big|little)(8|16|32|64)\\})?[ ,]?){1,5}",
            input: Vec<u8>,
        ) {
            if let Ok(format) = InputFormat::parse(&format) {
                let _ = all(&Splitter::Format(format), &input, true);
            }
        }
    }
}
