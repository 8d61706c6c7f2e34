//! Safety lines of replication that can be taken out, one at a time, to prove that the simulator notices.
//! Without the feature `planted` every question here is the constant `false`; the feature is for the
//! simulator and never for a shipped binary. The choice is per thread.

/// A safety line that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A follower cuts its log to its high watermark on a new leader, and asks no further (before KIP-101).
    TruncateByHighWatermark,
    /// The high watermark moves with fewer than `min.insync.replicas` in sync.
    IgnoreMinIsr,
    /// What a replica has written counts as what it has flushed.
    WrittenIsFlushed,
    /// The high watermark waits for the committed in-sync replicas, not for proposed ones too.
    CommittedIsrOnly,
    /// A removal from the in-sync replicas counts as soon as it is proposed.
    IsrBeforeCommit,
    /// A follower joins the in-sync replicas below the high watermark.
    JoinBelowHighWatermark,
    /// A follower joins before it has reached the start of the leader's epoch.
    JoinBelowEpochStart,
    /// What a follower said in an earlier leader epoch still counts.
    KeepEvidence,
    /// What an earlier run of a follower said still counts.
    IgnoreBrokerEpoch,
    /// An answer to an earlier fetch is applied.
    AcceptStaleFetch,
    /// A follower says nothing of its last epoch while the leader stays the same node (KAFKA-7164).
    NoReconcileSameLeader,
    /// A leader that does not know an epoch lets the follower cut to its high watermark (KAFKA-7415).
    UndefinedEpoch,
    /// Records above the high watermark are shown.
    ServeAboveHighWatermark,
    /// Producer sessions are not learnt from replicated batches.
    ForgetProducers,
    /// A leader epoch that is out of date is not refused.
    AcceptOldEpoch,
    /// A follower joins that does not know the newest change of the assignment: it may have been removed and
    /// added again since it spoke.
    JoinUnaware,
    /// A follower that parts from its leader cuts everything, committed or not.
    CutToLogStart,
    /// After an unclean election the high watermark stays where it was.
    KeepHighWatermark,
    /// A high watermark that was saved before an unclean election is trusted after a restart.
    KeepSavedHighWatermark,
    /// An append that finds no space undoes the sessions of appends that were written before it.
    RollBackWritten,
    /// Of the sessions, those that were used most recently give way.
    EvictMostRecent,
    /// A replica that was removed and added again uses the names of its predecessor's messages.
    ReuseInstance,
    /// A marker leaves its producer's epoch as it is: what was sent before it may come after it.
    NoEpochBumpByMarker,
    /// A late marker of a producer that keeps its epoch ends what the producer has begun since.
    MarkersUnnumbered,
    /// The first append of a transaction is taken although the coordinator was not asked.
    NoVerification,
    /// Records of transactions that are not decided are shown to readers of committed ones.
    LastStableIsHighWatermark,
    /// A new leader does not know which transactions are open.
    ForgetOpenOnFailover,
}

impl Plant {
    /// All that any history of appends shows.
    pub const ALL: [Self; 22] = [
        Self::TruncateByHighWatermark,
        Self::IgnoreMinIsr,
        Self::WrittenIsFlushed,
        Self::CommittedIsrOnly,
        Self::IsrBeforeCommit,
        Self::JoinBelowHighWatermark,
        Self::JoinBelowEpochStart,
        Self::KeepEvidence,
        Self::IgnoreBrokerEpoch,
        Self::AcceptStaleFetch,
        Self::NoReconcileSameLeader,
        Self::UndefinedEpoch,
        Self::ServeAboveHighWatermark,
        Self::ForgetProducers,
        Self::AcceptOldEpoch,
        Self::JoinUnaware,
        Self::CutToLogStart,
        Self::KeepHighWatermark,
        Self::KeepSavedHighWatermark,
        Self::RollBackWritten,
        Self::EvictMostRecent,
        Self::ReuseInstance,
    ];

    /// All that a history shows only if it has transactions.
    pub const TRANSACTIONS: [Self; 5] = [
        Self::NoEpochBumpByMarker,
        Self::MarkersUnnumbered,
        Self::NoVerification,
        Self::LastStableIsHighWatermark,
        Self::ForgetOpenOnFailover,
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
