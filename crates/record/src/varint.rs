//! Zigzag varints of a record's fields: seven bits a byte, low bits first, at most 5 bytes for 32 bits
//! and 10 for 64. Decoding never reads past the slice and refuses values that do not fit.

/// Most bytes of a 32-bit varint.
pub const MAX_I32_BYTES: usize = 5;
/// Most bytes of a 64-bit varint.
pub const MAX_I64_BYTES: usize = 10;

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

const fn unzigzag(raw: u64) -> i64 {
    ((raw >> 1) as i64) ^ -((raw & 1) as i64)
}

/// Bytes that `value` takes.
#[must_use]
pub const fn size(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends `value`.
#[inline]
pub fn put(buffer: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    if raw < 0x80 {
        buffer.push(raw as u8);
        return;
    }
    let mut bytes = [0_u8; MAX_I64_BYTES];
    let mut len = 0;
    while raw >= 0x80 {
        bytes[len] = raw as u8 | 0x80;
        raw >>= 7;
        len += 1;
    }
    bytes[len] = raw as u8;
    buffer.extend_from_slice(&bytes[..=len]);
}

/// Reads a 64-bit varint at `*at` and moves `*at` past it. `None` when it is cut off or does not fit.
#[inline]
pub fn get_i64(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag(u64::from(first)));
    }
    let mut raw = u64::from(first & 0x7f);
    let mut shift = 7;
    loop {
        *at += 1;
        let byte = *bytes.get(*at)?;
        // The tenth byte has one bit left.
        if shift == 63 && byte > 1 {
            return None;
        }
        raw |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            *at += 1;
            return Some(unzigzag(raw));
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// Reads a 32-bit varint at `*at` and moves `*at` past it. `None` when it is cut off or does not fit.
#[inline]
pub fn get_i32(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let start = *at;
    let value = get_i64(bytes, at)?;
    if *at - start > MAX_I32_BYTES {
        return None;
    }
    i32::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_encodings() {
        for (value, expected) in [
            (0_i64, &[0x00][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (64, &[0x80, 0x01]),
            (-64, &[0x7f]),
            (-65, &[0x81, 0x01]),
            (300, &[0xd8, 0x04]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (
                i64::MAX,
                &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
        ] {
            let mut buffer = Vec::new();
            put(&mut buffer, value);
            assert_eq!(buffer, expected, "{value}");
            assert_eq!(size(value), expected.len(), "{value}");
            let mut at = 0;
            assert_eq!(get_i64(&buffer, &mut at), Some(value));
            assert_eq!(at, buffer.len());
        }
    }

    #[test]
    fn cut_off_and_oversized_values_are_refused() {
        assert_eq!(get_i64(&[], &mut 0), None);
        assert_eq!(get_i64(&[0x80], &mut 0), None);
        assert_eq!(get_i64(&[0xff; 11], &mut 0), None);
        let mut big = vec![0xff; 9];
        big.push(0x02);
        assert_eq!(get_i64(&big, &mut 0), None);
        let mut buffer = Vec::new();
        put(&mut buffer, i64::from(i32::MAX) + 1);
        assert_eq!(get_i32(&buffer, &mut 0), None);
        assert_eq!(get_i32(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], &mut 0), None);
    }

    proptest::proptest! {
        #[test]
        fn round_trip(value: i64) {
            let mut buffer = Vec::new();
            put(&mut buffer, value);
            proptest::prop_assert_eq!(buffer.len(), size(value));
            let mut at = 0;
            proptest::prop_assert_eq!(get_i64(&buffer, &mut at), Some(value));
            proptest::prop_assert_eq!(at, buffer.len());
        }
    }
}
