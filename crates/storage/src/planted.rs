//! Safety lines that can be taken out, one at a time, to prove that the crash suites notice. Without the
//! feature `planted` every question here is the constant `false` and leaves no trace in the program; the
//! feature is for the simulator and never for a shipped binary. The choice is per thread, so that tests
//! that run side by side do not disturb each other.

/// A safety line that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A flush reports success without syncing the active segment.
    AckBeforeSync,
    /// A sync that failed is called again, and the second answer believed.
    RetrySync,
    /// Recovery cuts at the first bytes that are no batch, whatever lies behind or was flushed.
    CutAtFirstDamage,
    /// Recovery counts what it can read as durable without writing it again.
    TrustPageCache,
    /// The running CRC is ignored: only each batch's own checksum counts.
    IgnoreChain,
    /// The manifest declares rolled segments complete before they are synced.
    ManifestBeforeSegments,
    /// Index entries are written as soon as a run is closed, flushed or not.
    IndexBeforeFlush,
    /// Files of dropped segments are unlinked before the manifest without them is durable.
    UnlinkBeforeManifest,
    /// A flush that began before a truncation moves the flushed cursor after it.
    CountOldFlush,
    /// What an append that found no space has written is left in the file.
    LeavePartialAppend,
    /// A group of the journal counts as durable without a sync.
    JournalBeforeSync,
    /// A file of the journal is written over before the segment files behind it are synced.
    ReuseJournalTooEarly,
    /// The manifest lists a compacted segment before its bytes are synced.
    InstallBeforeSync,
    /// Records of an aborted transaction take the place of older ones.
    CountAborted,
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
