//! Safety lines of the metadata that can be taken out, one at a time, to prove that the simulator notices.
//! Without the feature `planted` every question here is the constant `false`; the feature is for the
//! simulator and never for a shipped binary. The choice is per thread.

/// A safety line that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// What is decided about an earlier run of a node is not refused (KIP-903).
    SkipBrokerEpoch,
    /// A replica is taken in sync by what an earlier run of it has shown (KIP-903).
    AcceptStaleReplica,
    /// An ISR change is no compare-and-set on the partition epoch (KIP-497).
    SkipPartitionEpoch,
    /// An ISR change of an earlier leader, decided on an older state, is made.
    AcceptStaleAlter,
    /// A replica that is stopping is let in sync (KIP-841).
    AcceptStopping,
    /// A fenced replica may be and stay in sync (KIP-841).
    FencedInSync,
    /// Fencing a node leaves the partitions that it holds as they are.
    FenceChangesNothing,
    /// A registration takes over the id of a node that is alive.
    LiveIdTaken,
    /// A new run of a node keeps the broker epoch of the one before.
    SameBrokerEpoch,
    /// A replica that may have lost what only the page cache had counts as whole (KIP-966).
    UncleanIsClean,
    /// An empty disk counts as the one that it replaced.
    NewDiskIsSame,
    /// A replica that was given up stays eligible.
    LostIsEligible,
    /// The last replica that holds everything is given up because of a damaged record.
    GiveUpLast,
    /// A change of leader begins no new leader epoch.
    NoEpochOnElection,
    /// With no replica in sync or eligible, any active one is elected.
    ElectAnyone,
    /// Replicas stay eligible while enough are in sync to commit without them.
    EligibleBesideEnough,
    /// Who was in sync when the leader went away is not eligible.
    LeaderlessForgets,
    /// A move ends when one replica of its target is in sync.
    MoveEndsEarly,
    /// A move ends though all of its targets are stopping, and takes the leader with it.
    MoveEndsUnled,
    /// A move that is given up drops replicas without which too few hold what is committed.
    MoveDropsHolders,
    /// An unclean election replaces a leader that is there.
    UncleanOverLeader,
    /// An unclean election leaves others eligible, though what they have beyond it is void.
    UncleanKeepsEligible,
    /// An unclean election is not told to followers: they may not cut what was committed once.
    UncleanUntold,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::SkipBrokerEpoch,
        Self::AcceptStaleReplica,
        Self::SkipPartitionEpoch,
        Self::AcceptStaleAlter,
        Self::AcceptStopping,
        Self::FencedInSync,
        Self::FenceChangesNothing,
        Self::LiveIdTaken,
        Self::SameBrokerEpoch,
        Self::UncleanIsClean,
        Self::NewDiskIsSame,
        Self::LostIsEligible,
        Self::GiveUpLast,
        Self::NoEpochOnElection,
        Self::ElectAnyone,
        Self::EligibleBesideEnough,
        Self::LeaderlessForgets,
        Self::MoveEndsEarly,
        Self::MoveEndsUnled,
        Self::MoveDropsHolders,
        Self::UncleanOverLeader,
        Self::UncleanKeepsEligible,
        Self::UncleanUntold,
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
