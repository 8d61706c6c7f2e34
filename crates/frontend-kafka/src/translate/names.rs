//! Names of groups, transactional ids and ids of members. Clients of this protocol make them of any characters (ids of
//! members of base64 with `+` and `/`, transactional ids of sentences), the broker takes those of names. What is a name
//! stays as it is. Anything else begins with [`MARK`], and what is no letter, digit, hyphen or underscore in it is
//! written as a dot and two hexadecimal digits.
//!
//! Invariant: what was encoded is decoded to what it was, and two that differ stay different.

use varve_types::{GroupName, MemberId, NameError, TransactionalId};

/// What begins with this is not as its client has it.
pub const MARK: &str = "x..";

/// The id of a member as the broker has it.
///
/// # Errors
/// When there is no id, or it is too long.
pub fn member(id: &str) -> Result<MemberId, NameError> {
    encoded(id, MemberId::new)
}

/// The name of a group as the broker has it. The empty one is a group for offsets: simple consumers that were given no
/// name commit to it.
///
/// # Errors
/// When it is too long.
pub fn group(name: &str) -> Result<GroupName, NameError> {
    match name.is_empty() {
        true => GroupName::new(MARK),
        false => encoded(name, GroupName::new),
    }
}

/// The name of a group with members.
///
/// # Errors
/// When there is no name, or it is too long.
pub fn group_of_members(name: &str) -> Result<GroupName, NameError> {
    encoded(name, GroupName::new)
}

/// The transactional id as the broker has it.
///
/// # Errors
/// When there is no id, or it is too long.
pub fn transactional(id: &str) -> Result<TransactionalId, NameError> {
    encoded(id, TransactionalId::new)
}

fn encoded<N>(id: &str, new: impl Fn(&str) -> Result<N, NameError>) -> Result<N, NameError> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if let (Ok(name), false) = (new(id), id.starts_with(MARK)) {
        return Ok(name);
    }
    if id.is_empty() {
        return new(id);
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
    new(&text)
}

/// A name or id as its client has it.
#[must_use]
pub fn decoded(id: &str) -> String {
    let Some(text) = id.strip_prefix(MARK) else {
        return id.to_owned();
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
    String::from_utf8(bytes).unwrap_or_else(|_| id.to_owned())
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
            let member = member(id).unwrap();
            assert_eq!(decoded(member.as_str()), id, "{member}");
            assert_eq!(decoded(group(id).unwrap().as_str()), id);
            assert_eq!(decoded(transactional(id).unwrap().as_str()), id);
        }
        assert_eq!(member("a+b").unwrap().as_str(), "x..a.2bb");
        let own = "kafka-python-3.0.12-5b";
        assert_eq!(member(own).unwrap().as_str(), own);
        assert!(member("").is_err() && group_of_members("").is_err());
        assert!(transactional("").is_err());
        assert_eq!(decoded(group("").unwrap().as_str()), "");
        assert_ne!(group("").unwrap(), group(MARK).unwrap());
        assert_eq!(decoded(group(MARK).unwrap().as_str()), MARK);
        assert!(member(&"+".repeat(100)).is_err(), "too long");
        assert_eq!(decoded("node.example"), "node.example");
    }
}
