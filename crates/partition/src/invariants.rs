//! What must hold after every step, checked in production too: a log that breaks one of these must stop
//! rather than lie.

use varve_types::Offset;

/// Cursors of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursors {
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) flushed: Offset,
    pub(crate) written: Offset,
    pub(crate) log_end: Offset,
}

impl Cursors {
    /// Asserts the order of the cursors.
    pub(crate) fn check(&self) {
        assert!(
            self.log_start <= self.high_watermark,
            "log start above high watermark: {self:?}"
        );
        assert!(
            self.high_watermark <= self.log_end,
            "high watermark above log end: {self:?}"
        );
        assert!(
            self.flushed <= self.written,
            "flushed more than was written: {self:?}"
        );
        assert!(
            self.written <= self.log_end,
            "wrote more than was assigned: {self:?}"
        );
    }

    /// Asserts where the last stable offset lies.
    pub(crate) fn check_stable(&self, last_stable: Offset) {
        assert!(
            self.log_start <= last_stable && last_stable <= self.high_watermark,
            "last stable offset {last_stable} outside of what is committed: {self:?}"
        );
    }

    /// Asserts that nothing went back since `before`. Holds for every step but a cut of the log.
    pub(crate) fn check_since(&self, before: &Self) {
        assert!(
            self.high_watermark >= before.high_watermark,
            "high watermark went back: {before:?} to {self:?}"
        );
        assert!(
            self.log_start >= before.log_start,
            "log start went back: {before:?} to {self:?}"
        );
        assert!(
            self.flushed >= before.flushed,
            "flushed went back: {before:?} to {self:?}"
        );
    }
}
