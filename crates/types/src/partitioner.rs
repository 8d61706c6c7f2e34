//! How keys map to partitions. Part of the public API: every client and the server must agree, so the
//! function never changes and its published vectors are tests here.

/// 32-bit murmur2 with the seed of Kafka's Java client (`org.apache.kafka.common.utils.Utils.murmur2`).
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    (h ^ (h >> 15)) as i32
}

/// Partition of a key: `(murmur2(key) & 0x7fffffff) % partition_count`. An empty key is a key; only a
/// record without key has no partition of its own.
///
/// # Panics
/// When `partition_count` is not positive.
#[must_use]
pub fn partition_for_key(key: &[u8], partition_count: i32) -> crate::PartitionId {
    assert!(
        partition_count > 0,
        "a topic has at least one partition, found {partition_count}"
    );
    crate::PartitionId((murmur2(key) & 0x7fff_ffff) % partition_count)
}

/// Partition of an internal topic that holds everything about `name`, a group or a transactional id: Kafka's
/// `abs(hash(name)) % partitions`, where the hash is that of a Java string.
///
/// # Panics
/// When `partition_count` is not positive.
#[must_use]
pub fn coordinator_partition(name: &str, partition_count: i32) -> crate::PartitionId {
    assert!(
        partition_count > 0,
        "a topic has at least one partition, found {partition_count}"
    );
    let hash = name.bytes().fold(0_i32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(i32::from(byte))
    });
    // Kafka takes the absolute value, and 0 for the one number that has none.
    crate::PartitionId(hash.checked_abs().unwrap_or(0) % partition_count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "abc".hashCode() is 96354 and "polygenelubricants".hashCode() is `i32::MIN` in Java.
    #[test]
    fn coordinators_are_where_kafka_has_them() {
        assert_eq!(coordinator_partition("abc", 50).0, 96_354 % 50);
        assert_eq!(coordinator_partition("polygenelubricants", 50).0, 0);
    }

    /// The vectors of Kafka's own `UtilsTest`.
    #[test]
    fn published_murmur2_vectors() {
        assert_eq!(murmur2(b"21"), -973_932_308);
        assert_eq!(murmur2(b"foobar"), -790_332_482);
        assert_eq!(murmur2(b"a-little-bit-long-string"), -985_981_536);
        assert_eq!(murmur2(b"a-little-bit-longer-string"), -1_486_304_829);
        assert_eq!(
            murmur2(b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"),
            -58_897_971
        );
        assert_eq!(murmur2(b"abc"), 479_470_107);
    }

    #[test]
    fn empty_key_is_a_key() {
        assert_eq!(partition_for_key(b"", 7), partition_for_key(b"", 7));
        assert!((0..7).contains(&partition_for_key(b"", 7).0));
    }
}
