//! Strings and ids as they are on the wire.

use std::fmt;

use bytes::Bytes;

/// A string that is a slice of the frame it came in.
///
/// Holding one means that it is UTF-8. It keeps its frame alive: what is stored longer than a request is
/// copied out with `as_str`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Bytes);

impl Text {
    /// The empty string.
    pub const EMPTY: Self = Self(Bytes::new());

    /// A string that is part of the program.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The string. Checks UTF-8 again, which costs a few nanoseconds for a name and spares an allocation.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Bytes> for Text {
    /// Clients send bytes of any kind where the protocol has text. Those that are not UTF-8 are written as people write
    /// them: `\xff`.
    fn from(bytes: Bytes) -> Self {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Self(bytes),
            Err(_) => Self::from(escaped(&bytes)),
        }
    }
}

/// Bytes as text, no longer than a string may be if the bytes are not: where escapes would not fit, each byte that is
/// not UTF-8 is a question mark.
fn escaped(bytes: &[u8]) -> String {
    let bad: usize = bytes.utf8_chunks().map(|c| c.invalid().len()).sum();
    let fits = bytes.len() + 3 * bad <= i16::MAX as usize;
    let mut text = String::with_capacity(bytes.len() + if fits { 3 * bad } else { 0 });
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            match fits {
                true => text.push_str(&format!("\\x{byte:02x}")),
                false => text.push('?'),
            }
        }
    }
    text
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

/// Sixteen bytes that name a topic or a directory; zero names nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

impl Uuid {
    /// Names nothing.
    pub const ZERO: Self = Self(0);
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        let (a, b, c) = (n >> 96, (n >> 80) & 0xffff, (n >> 64) & 0xffff);
        let (d, e) = ((n >> 48) & 0xffff, n & 0xffff_ffff_ffff);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_utf8_and_prints_as_a_string() {
        let text = Text::from(Bytes::from_static("größe".as_bytes()));
        assert_eq!(text.as_str(), "größe");
        assert_eq!((text.len(), text.is_empty()), (7, false));
        assert_eq!(format!("{text} {text:?}"), "größe \"größe\"");
        assert_eq!(Text::from_static("a"), Text::from(String::from("a")));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_escaped() {
        let of = |bytes: &'static [u8]| Text::from(Bytes::from_static(bytes));
        assert_eq!(of(b"caf\xe9 \xc3(").as_str(), "caf\\xe9 \\xc3(");
        assert_eq!(of(b"\xff\xfe\x01").as_str(), "\\xff\\xfe\u{1}");
        assert_ne!(of(b"a\xff"), of(b"a\xfe"));
        let long = Text::from(Bytes::from(vec![0xff; i16::MAX as usize]));
        assert_eq!(long.len(), i16::MAX as usize);
    }

    #[test]
    fn an_id_prints_in_groups() {
        let id = Uuid(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
        assert_eq!(id.to_string(), "01234567-89ab-cdef-fedc-ba9876543210");
    }
}
