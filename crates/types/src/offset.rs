//! Positions in a log: offsets, leader epochs, producer sequences. All are checked at the border, so
//! arithmetic inside may assert.

/// Position of a record in its partition. Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(i64);

impl Offset {
    /// The first offset of a new log.
    pub const ZERO: Self = Self(0);

    /// Checks that `raw` is not negative.
    #[must_use]
    pub const fn new(raw: i64) -> Option<Self> {
        if raw < 0 { None } else { Some(Self(raw)) }
    }

    /// The number, `>= 0`.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// This offset moved forward by `records`; `None` when it would pass `i64::MAX`.
    #[must_use]
    pub const fn checked_add(self, records: u64) -> Option<Self> {
        match self.0.checked_add_unsigned(records) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// This offset moved forward by `records`.
    ///
    /// # Panics
    /// When the result would pass `i64::MAX`: a log of that length is a bug of ours.
    #[must_use]
    pub const fn plus(self, records: u64) -> Self {
        match self.checked_add(records) {
            Some(offset) => offset,
            None => panic!("offset overflow"),
        }
    }

    /// Records between `earlier` and this offset; 0 when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        if self.0 > earlier.0 {
            (self.0 - earlier.0) as u64
        } else {
            0
        }
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Half-open range of offsets `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    /// First offset.
    pub start: Offset,
    /// One past the last offset.
    pub end: Offset,
}

/// Epoch of a partition's leader (KIP-101). Never negative; grows with every election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaderEpoch(i32);

impl LeaderEpoch {
    /// The epoch of a partition's first leader.
    pub const ZERO: Self = Self(0);

    /// Checks that `raw` is not negative.
    #[must_use]
    pub const fn new(raw: i32) -> Option<Self> {
        if raw < 0 { None } else { Some(Self(raw)) }
    }

    /// The number, `>= 0`.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The epoch after this one.
    ///
    /// # Panics
    /// After `i32::MAX` elections.
    #[must_use]
    pub const fn next(self) -> Self {
        assert!(self.0 < i32::MAX, "leader epoch overflow");
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Per-partition sequence number of an idempotent producer's record. Wraps from `i32::MAX` to 0 as
/// in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sequence(i32);

impl Sequence {
    /// The sequence a session starts with.
    pub const ZERO: Self = Self(0);

    /// Checks that `raw` is not negative.
    #[must_use]
    pub const fn new(raw: i32) -> Option<Self> {
        if raw < 0 { None } else { Some(Self(raw)) }
    }

    /// The number, `>= 0`.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The sequence `records` later, wrapping after `i32::MAX`.
    #[must_use]
    pub const fn plus(self, records: u32) -> Self {
        Self(((self.0 as i64 + records as i64) % (i32::MAX as i64 + 1)) as i32)
    }
}

impl std::fmt::Display for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_wraps_as_kafka_does() {
        let last = Sequence::new(i32::MAX).unwrap();
        assert_eq!(last.plus(1), Sequence::ZERO);
        assert_eq!(last.plus(11).get(), 10);
        assert_eq!(Sequence::ZERO.plus(5).get(), 5);
    }

    #[test]
    fn negative_positions_do_not_exist() {
        assert!(Offset::new(-1).is_none() && LeaderEpoch::new(-1).is_none());
        assert!(Sequence::new(-1).is_none());
        assert!(Offset::new(i64::MAX).unwrap().checked_add(1).is_none());
    }

    #[test]
    fn since_saturates_at_zero() {
        assert_eq!(Offset::new(10).unwrap().since(Offset::new(4).unwrap()), 6);
        assert_eq!(Offset::new(4).unwrap().since(Offset::new(10).unwrap()), 0);
    }
}
