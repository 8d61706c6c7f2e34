//! Ids of members. Clients of this protocol make them of any characters (librdkafka of base64 with `+` and `/`), the
//! broker takes those of names. An id that is a name stays as it is. Any other begins with [`MARK`], and what is no letter,
//! digit, hyphen or underscore is written as a dot and two hexadecimal digits.

use varve_types::{MemberId, NameError};

/// What an id begins with that is not as its client has it.
pub const MARK: &str = "x..";

/// The id as the broker has it.
///
/// # Errors
/// When there is no id, or it is too long.
pub fn encoded(id: &str) -> Result<MemberId, NameError> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if let (Ok(member), false) = (MemberId::new(id), id.starts_with(MARK)) {
        return Ok(member);
    }
    if id.is_empty() {
        return MemberId::new(id);
    }
    let mut text = String::with_capacity(id.len() + 16);
    text.push_str(MARK);
    for byte in id.bytes() {
        if plain(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!(".{byte:02x}"));
        }
    }
    MemberId::new(&text)
}

/// The id as its client has it.
#[must_use]
pub fn decoded(id: &MemberId) -> String {
    let Some(text) = id.as_str().strip_prefix(MARK) else {
        return id.as_str().to_owned();
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail
            .get(..2)
            .filter(|_| *first == b'.')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| id.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_any_characters_come_back() {
        for id in [
            "a",
            "a-b_C9",
            "0kR+Wv/7Tg",
            "rdkafka-ü 1",
            "a.b",
            ".2e",
            "+/=",
        ] {
            let member = encoded(id).unwrap();
            assert_eq!(decoded(&member), id, "{member}");
        }
        assert_eq!(encoded("a+b").unwrap().as_str(), "x..a.2bb");
        let own = "kafka-python-3.0.12-5b";
        assert_eq!(encoded(own).unwrap().as_str(), own);
        assert!(encoded("").is_err());
        assert!(encoded(&"+".repeat(100)).is_err(), "too long");
        let own = MemberId::new("node.example").unwrap();
        assert_eq!(decoded(&own), "node.example");
    }
}
