//! The bytes of a record: they say which run, partition, key and number they are, and every byte follows from
//! those, so that nothing can change without being seen.

use crate::random::Random;

/// What a record says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    pub run: u64,
    pub partition: i32,
    pub key: u64,
    pub value: u64,
    /// Bytes of the whole value, at least.
    pub bytes: u64,
}

impl Payload {
    pub fn key_bytes(key: u64) -> Vec<u8> {
        format!("key-{key}").into_bytes()
    }

    pub fn value_bytes(&self) -> Vec<u8> {
        let Self {
            run,
            partition,
            key,
            value,
            bytes,
        } = self;
        let mut text = format!("varve {run:x} {partition} {key} {value} {bytes} ").into_bytes();
        let mut random = Random::new(run ^ value.rotate_left(17));
        while (text.len() as u64) < *bytes {
            text.push(b'a' + u8::try_from(random.below(26)).unwrap_or(0));
        }
        text
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(
        run: u64,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<u64, String> {
        let bytes = value.ok_or("it has no value")?;
        let head = &bytes[..bytes.len().min(128)];
        let words: Vec<_> = head.split(|b| *b == b' ').take(6).collect();
        let number = |at: usize, radix| {
            let word = words
                .get(at)
                .and_then(|word| std::str::from_utf8(word).ok());
            word.and_then(|word| u64::from_str_radix(word, radix).ok())
        };
        let all = (
            number(1, 16),
            number(2, 10),
            number(3, 10),
            number(4, 10),
            number(5, 10),
        );
        let (Some(of), Some(at), Some(k), Some(value), Some(size)) = all else {
            let text = String::from_utf8_lossy(head);
            return Err(format!("this run did not write its value: {text:?}"));
        };
        if of != run {
            return Err(format!("it is from another run: {of:x}"));
        }
        if i32::try_from(at) != Ok(partition) {
            return Err(format!("value {value} was sent to partition {at}"));
        }
        let expected = Self {
            run,
            partition,
            key: k,
            value,
            bytes: size,
        };
        // Before it is made again: a damaged size must not take all memory.
        if size > bytes.len() as u64 || bytes != expected.value_bytes() {
            return Err(format!("the bytes of value {value} were changed"));
        }
        if key != Some(&Self::key_bytes(k)[..]) {
            return Err(format!(
                "value {value} has another key than it was sent with"
            ));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_bit_is_seen() {
        let payload = Payload {
            run: 0xabc,
            partition: 3,
            key: 5,
            value: 77,
            bytes: 60,
        };
        let (key, mut bytes) = (Payload::key_bytes(5), payload.value_bytes());
        assert_eq!(bytes.len(), 60);
        let read = |bytes: &[u8]| Payload::read(0xabc, 3, Some(&key), Some(bytes));
        assert_eq!(read(&bytes), Ok(77));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert!(read(&bytes).is_err(), "bit {bit} of byte {at}");
                bytes[at] ^= 1 << bit;
            }
        }
        assert!(read(&bytes[..59]).is_err());
        assert!(Payload::read(0xabc, 2, Some(&key), Some(&bytes)).is_err());
        assert!(Payload::read(0xabd, 3, Some(&key), Some(&bytes)).is_err());
        assert!(Payload::read(0xabc, 3, Some(b"key-6"), Some(&bytes)).is_err());
        assert!(Payload::read(0xabc, 3, Some(&key), None).is_err());
    }
}
