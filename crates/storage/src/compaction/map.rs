//! The last offset of each key, in bounded memory: 24 bytes a slot, open addressing, keys as 128-bit hashes.
//!
//! Invariants: a key that was put is found; the table never grows and says when it is full. A hash stands for
//! its key, so two keys of one hash would lose a record: with 128 bits the chance is below 1 in 10^20 for a
//! billion keys.

use std::hash::Hasher;

use varve_types::Offset;

/// Bytes of a slot.
pub(crate) const SLOT_BYTES: usize = size_of::<Slot>();

/// A key's hash.
pub(crate) type KeyHash = (u64, u64);

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: KeyHash,
    /// Last offset; negative in a slot that is free.
    offset: i64,
}

const FREE: Slot = Slot {
    hash: (0, 0),
    offset: -1,
};

#[derive(Debug)]
pub(crate) struct OffsetMap {
    slots: Vec<Slot>,
    len: usize,
    /// Most keys: more would make a search long.
    max: usize,
}

/// The hash that stands for a key.
pub(crate) fn hash(key: &[u8]) -> KeyHash {
    // Two passes of a keyed hash with different beginnings. `DefaultHasher::new` has no randomness.
    let half = |salt: u64| {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(salt);
        hasher.write(key);
        hasher.finish()
    };
    (half(0x6c6f_6720_6b65_7931), half(0x6c6f_6720_6b65_7932))
}

impl OffsetMap {
    /// A table for `keys` keys, or fewer when that would take more than `bytes`. At least one.
    pub(crate) fn new(keys: u64, bytes: usize) -> Self {
        let most = (bytes / SLOT_BYTES).max(2);
        let wanted = usize::try_from(keys.saturating_mul(4) / 3 + 2).unwrap_or(most);
        let slots = wanted.min(most);
        Self {
            slots: vec![FREE; slots],
            len: 0,
            max: (slots * 3 / 4).max(1),
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the hash is, or the free place where it would go.
    fn place(&self, hash: KeyHash) -> usize {
        let mut at = ((u128::from(hash.0) * self.slots.len() as u128) >> 64) as usize;
        loop {
            let slot = &self.slots[at];
            if slot.offset < 0 || slot.hash == hash {
                return at;
            }
            at = if at + 1 == self.slots.len() {
                0
            } else {
                at + 1
            };
        }
    }

    /// Notes that the key is at `offset`, the largest so far. `false`, and nothing noted, when the table is
    /// full.
    pub(crate) fn put(&mut self, hash: KeyHash, offset: Offset) -> bool {
        let at = self.place(hash);
        if self.slots[at].offset < 0 {
            if self.len == self.max {
                return false;
            }
            self.len += 1;
        }
        self.slots[at] = Slot {
            hash,
            offset: offset.get(),
        };
        true
    }

    /// The last offset of a key.
    pub(crate) fn get(&self, hash: KeyHash) -> Option<Offset> {
        Offset::new(self.slots[self.place(hash)].offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn o(offset: i64) -> Offset {
        Offset::new(offset).unwrap()
    }

    #[test]
    fn the_last_offset_of_each_key_is_found() {
        let mut map = OffsetMap::new(1000, usize::MAX);
        for i in 0..3000 {
            let key = (i % 1000_i64).to_string();
            assert!(map.put(hash(key.as_bytes()), o(i)));
        }
        for i in 0..1000_i64 {
            assert_eq!(map.get(hash(i.to_string().as_bytes())), Some(o(2000 + i)));
        }
        assert_eq!(map.get(hash(b"another")), None);
    }

    #[test]
    fn a_full_table_says_so_and_keeps_what_it_has() {
        let mut map = OffsetMap::new(u64::MAX, 10 * SLOT_BYTES);
        let put = (0..20_i64).filter(|i| map.put(hash(&i.to_le_bytes()), o(*i)));
        let put: Vec<i64> = put.collect();
        assert_eq!(
            put,
            (0..7).collect::<Vec<_>>(),
            "three quarters of the slots"
        );
        assert!(
            map.put(hash(&3_i64.to_le_bytes()), o(50)),
            "a key that is there"
        );
        assert_eq!(map.get(hash(&3_i64.to_le_bytes())), Some(o(50)));
        let mut tiny = OffsetMap::new(0, 0);
        assert!(tiny.put(hash(b"a"), o(1)) && tiny.get(hash(b"b")).is_none());
    }
}
