//! Safety lines of the coordinator that can be taken out, one at a time, to prove that the simulator notices.
//! Without the feature `planted` every question here is the constant `false`; the feature is for the simulator and
//! never for a shipped binary. The choice is per thread.

/// A safety line that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Markers are sent while the decision is still being written.
    MarkerBeforeDecision,
    /// A partition counts as registered while that is still being written.
    RegisteredBeforeDurable,
    /// A producer is told that its transaction has ended while the decision is still being written.
    EndedBeforeDurable,
    /// The end of a transaction leaves the producer's epoch as it is.
    NoEpochBump,
    /// A session that another has replaced may go on.
    AcceptOldSession,
    /// A new coordinator takes partitions for told that an earlier one may not have told.
    ForgetUntold,
    /// A transaction may be open for ever.
    NeverTimesOut,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::MarkerBeforeDecision,
        Self::RegisteredBeforeDurable,
        Self::EndedBeforeDurable,
        Self::NoEpochBump,
        Self::AcceptOldSession,
        Self::ForgetUntold,
        Self::NeverTimesOut,
    ];
}

#[cfg(feature = "planted")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Plant>> = const { std::cell::Cell::new(None) };
}

/// Takes a safety line out, on this thread, until the next call; `None` puts it back.
#[cfg(feature = "planted")]
pub fn set(plant: Option<Plant>) {
    ACTIVE.with(|active| active.set(plant));
}

/// Whether that line is out.
#[cfg(feature = "planted")]
pub(crate) fn is(plant: Plant) -> bool {
    ACTIVE.with(std::cell::Cell::get) == Some(plant)
}

/// Whether that line is out: never, in this build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub(crate) const fn is(_: Plant) -> bool {
    false
}
