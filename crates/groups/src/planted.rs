//! Safety lines of the coordinator that can be taken out, one at a time, to prove that the simulator notices.
//! Without the feature `planted` every question here is the constant `false`; the feature is for the simulator and
//! never for a shipped binary. The choice is per thread.

/// A safety line that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A member may commit with an epoch that is over.
    AcceptOldEpoch,
    /// A commit is answered while it is still being written.
    CommitBeforeDurable,
    /// A member is told what it may own while that is still being written.
    GrantBeforeDurable,
    /// Offsets of a transaction count before it is committed.
    PendingCounts,
    /// A new coordinator does not know offsets of transactions that were open.
    ForgetPending,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AcceptOldEpoch,
        Self::CommitBeforeDurable,
        Self::GrantBeforeDurable,
        Self::PendingCounts,
        Self::ForgetPending,
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
