//! What to do with what a crash left behind, as tables of observable facts. Each table is data; a test walks
//! every combination of facts and demands that exactly one row matches, so nothing is left to chance and no
//! case is decided twice.
//!
//! The principle: bytes past the last durable checkpoint that are no batch, with no batch behind them, are a
//! torn tail and are cut. Everything else is damage: the log is not opened and nothing is changed. The
//! checkpoint is the last intact entry of the segment's index, because entries are written only after the
//! bytes they cover were flushed.

use crate::planted::{self, Plant};

mod epochs;
mod foreign;
mod leftovers;
pub(crate) mod open;
pub(crate) mod scan;
pub(crate) mod segment;

/// Why a log was refused. Part of the error that people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Segment files without a manifest.
    ManifestMissing,
    /// The manifest is damaged or of a newer version.
    ManifestUnreadable,
    /// The directory belongs to another log.
    ForeignDirectory,
    /// A segment of another log lies in the directory.
    ForeignSegment,
    /// The directory is a symbolic link.
    Link,
    /// A segment that the manifest lists has no file.
    SegmentMissing,
    /// The file ends before bytes that were flushed.
    BytesMissing,
    /// Damage in bytes that were flushed.
    BelowCheckpoint,
    /// Damage in a segment that later ones follow.
    SealedDamaged,
    /// Damage after a clean stop, when everything had been flushed.
    DamageAfterCleanStop,
    /// Damage with a good batch behind it: no torn write leaves that.
    BatchBehindDamage,
    /// A segment does not end where the next one begins.
    Gap,
}

impl Reason {
    /// What the reader of the error should do.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::ForeignDirectory => {
                "Move the directory back to where it belongs; do not let the server write to it"
            }
            Self::ForeignSegment => {
                "Move those files back to where they belong, and put this log's own files in their \
                 place"
            }
            Self::Link => {
                "varve does not follow links: put the directory itself there, or mount the disk \
                 that holds it"
            }
            Self::ManifestMissing | Self::ManifestUnreadable => {
                "If other replicas hold this partition, move the directory away, and the node \
                 copies the partition from its leader; otherwise restore it from a backup, or run \
                 the version that wrote it"
            }
            _ => {
                "If other replicas hold this partition, move the directory away, and the node \
                 copies the partition from its leader; otherwise keep it and decide which records \
                 you can give up (`varve log verify` lists what is intact, `varve log repair` \
                 shows what a cut would cost)"
            }
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ManifestMissing => "there are segments with data but no manifest",
            Self::ManifestUnreadable => "the manifest cannot be read",
            Self::ForeignDirectory => "the directory belongs to another log",
            Self::ForeignSegment => "the directory contains a segment of another log",
            Self::Link => "it is a symbolic link",
            Self::SegmentMissing => "a segment that the manifest lists is missing",
            Self::BytesMissing => "the segment is shorter than its flushed length",
            Self::BelowCheckpoint => "flushed bytes are damaged",
            Self::SealedDamaged => "a segment before the last one is damaged",
            Self::DamageAfterCleanStop => "the log is damaged although it was closed cleanly",
            Self::BatchBehindDamage => "there is a valid batch after the damage",
            Self::Gap => "a segment does not end where the next one begins",
        })
    }
}

/// One column of a row: a value, or any.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Is<T: 'static> {
    Any,
    One(T),
    In(&'static [T]),
}

impl<T: PartialEq> Is<T> {
    fn matches(&self, fact: &T) -> bool {
        match self {
            Self::Any => true,
            Self::One(value) => value == fact,
            Self::In(values) => values.contains(fact),
        }
    }
}

/// The manifest, as found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ManifestFact {
    Absent,
    Unreadable,
    OtherLog,
    Good,
}

/// What to do with a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirDecision {
    Create,
    Open,
    Refuse(Reason),
}

/// Manifest; whether any `.log` file has bytes.
pub(crate) const DIR_ROWS: &[(Is<ManifestFact>, Is<bool>, DirDecision)] = &[
    (Is::One(ManifestFact::Good), Is::Any, DirDecision::Open),
    // A crash before the first manifest commit leaves empty files at most.
    (
        Is::One(ManifestFact::Absent),
        Is::One(false),
        DirDecision::Create,
    ),
    (
        Is::One(ManifestFact::Absent),
        Is::One(true),
        DirDecision::Refuse(Reason::ManifestMissing),
    ),
    (
        Is::One(ManifestFact::Unreadable),
        Is::Any,
        DirDecision::Refuse(Reason::ManifestUnreadable),
    ),
    (
        Is::One(ManifestFact::OtherLog),
        Is::Any,
        DirDecision::Refuse(Reason::ForeignDirectory),
    ),
];

pub(crate) fn decide_dir(manifest: ManifestFact, has_bytes: bool) -> DirDecision {
    let row = DIR_ROWS
        .iter()
        .find(|r| r.0.matches(&manifest) && r.1.matches(&has_bytes));
    row.map_or(DirDecision::Refuse(Reason::ManifestUnreadable), |r| r.2)
}

/// The index header of a segment file that the manifest does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnlistedFact {
    /// Its id is below the manifest's next one: it was taken out of the log.
    Older,
    /// It was begun after the manifest was written.
    Newer,
    /// No index, or a damaged one.
    Unreadable,
}

/// What to do with a segment file that the manifest does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnlistedDecision {
    /// See whether it continues the log.
    Consider,
    /// Remove it: a flush lists its segment first, so none of its bytes was ever flushed.
    Sweep,
}

pub(crate) const UNLISTED_ROWS: &[(Is<UnlistedFact>, UnlistedDecision)] = &[
    (Is::One(UnlistedFact::Newer), UnlistedDecision::Consider),
    (Is::One(UnlistedFact::Older), UnlistedDecision::Sweep),
    (Is::One(UnlistedFact::Unreadable), UnlistedDecision::Sweep),
];

pub(crate) fn decide_unlisted(fact: UnlistedFact) -> UnlistedDecision {
    let row = UNLISTED_ROWS.iter().find(|r| r.0.matches(&fact));
    row.map_or(UnlistedDecision::Consider, |r| r.1)
}

/// Place of a segment in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The manifest lists another one after it.
    Sealed,
    /// The last that the manifest lists.
    Last,
    /// Begun after the manifest was written.
    Unlisted,
}

/// A segment's index against its log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IndexFact {
    /// The entries cover the file to its end.
    Reaches,
    /// The entries cover less.
    Short,
    /// An intact entry covers bytes past the end of the file.
    Beyond,
    /// Missing, or its header is not this segment's.
    Unusable,
}

/// How much of a segment to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// None: the entries are enough, and each is checked when it is used.
    Trust,
    /// From shortly before the checkpoint to the end.
    VerifyTail,
    /// All of it; the index is built anew.
    ScanAll,
    Refuse(Reason),
}

type PlanRow = (Is<Role>, Is<bool>, Is<IndexFact>, Plan);

/// Role; whether the `.log` file exists; the index.
pub(crate) const PLAN_ROWS: &[PlanRow] = &[
    (
        Is::Any,
        Is::One(false),
        Is::Any,
        Plan::Refuse(Reason::SegmentMissing),
    ),
    (
        Is::Any,
        Is::One(true),
        Is::One(IndexFact::Beyond),
        Plan::Refuse(Reason::BytesMissing),
    ),
    (
        Is::Any,
        Is::One(true),
        Is::One(IndexFact::Unusable),
        Plan::ScanAll,
    ),
    (
        Is::Any,
        Is::One(true),
        Is::One(IndexFact::Short),
        Plan::VerifyTail,
    ),
    (
        Is::One(Role::Sealed),
        Is::One(true),
        Is::One(IndexFact::Reaches),
        Plan::Trust,
    ),
    (
        Is::In(&[Role::Last, Role::Unlisted]),
        Is::One(true),
        Is::One(IndexFact::Reaches),
        Plan::VerifyTail,
    ),
];

pub(crate) fn plan(role: Role, exists: bool, index: IndexFact) -> Plan {
    let row = PLAN_ROWS
        .iter()
        .find(|r| r.0.matches(&role) && r.1.matches(&exists) && r.2.matches(&index));
    row.map_or(Plan::Refuse(Reason::SealedDamaged), |r| r.3)
}

/// The first bytes of a segment that are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DamageFact {
    None,
    /// In bytes that an intact index entry covers.
    BelowCheckpoint,
    /// Behind all intact index entries.
    AboveCheckpoint,
}

/// Everything that is seen of a segment after it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) role: Role,
    pub(crate) damage: DamageFact,
    /// A good batch lies behind the damage, in this file or in one that would follow.
    pub(crate) batch_behind: bool,
    /// The last run stopped cleanly.
    pub(crate) clean: bool,
    /// The good bytes end at the offset where what follows begins; true if nothing follows.
    pub(crate) meets_next: bool,
}

/// What becomes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is whole.
    Use,
    /// The end of it was a torn write and is cut.
    CutTornTail,
    /// It is damaged; the log is not opened.
    Refuse(Reason),
}

type VerdictRow = (
    Is<Role>,
    Is<DamageFact>,
    Is<bool>,
    Is<bool>,
    Is<bool>,
    Decision,
);

const GROWING: &[Role] = &[Role::Last, Role::Unlisted];

/// Role, damage, batch behind, clean stop, meets what follows.
pub(crate) const VERDICT_ROWS: &[VerdictRow] = &[
    (
        Is::Any,
        Is::One(DamageFact::None),
        Is::Any,
        Is::Any,
        Is::One(true),
        Decision::Use,
    ),
    (
        Is::Any,
        Is::One(DamageFact::None),
        Is::Any,
        Is::Any,
        Is::One(false),
        Decision::Refuse(Reason::Gap),
    ),
    (
        Is::Any,
        Is::One(DamageFact::BelowCheckpoint),
        Is::Any,
        Is::Any,
        Is::Any,
        Decision::Refuse(Reason::BelowCheckpoint),
    ),
    (
        Is::One(Role::Sealed),
        Is::One(DamageFact::AboveCheckpoint),
        Is::Any,
        Is::Any,
        Is::Any,
        Decision::Refuse(Reason::SealedDamaged),
    ),
    (
        Is::In(GROWING),
        Is::One(DamageFact::AboveCheckpoint),
        Is::Any,
        Is::One(true),
        Is::Any,
        Decision::Refuse(Reason::DamageAfterCleanStop),
    ),
    (
        Is::In(GROWING),
        Is::One(DamageFact::AboveCheckpoint),
        Is::One(true),
        Is::One(false),
        Is::Any,
        Decision::Refuse(Reason::BatchBehindDamage),
    ),
    (
        Is::In(GROWING),
        Is::One(DamageFact::AboveCheckpoint),
        Is::One(false),
        Is::One(false),
        Is::Any,
        Decision::CutTornTail,
    ),
];

fn row_matches(row: &VerdictRow, f: &Facts) -> bool {
    row.0.matches(&f.role)
        && row.1.matches(&f.damage)
        && row.2.matches(&f.batch_behind)
        && row.3.matches(&f.clean)
        && row.4.matches(&f.meets_next)
}

pub(crate) fn decide(facts: &Facts) -> Decision {
    if planted::is(Plant::CutAtFirstDamage) && facts.damage != DamageFact::None {
        return Decision::CutTornTail;
    }
    let row = VERDICT_ROWS.iter().find(|r| row_matches(r, facts));
    // The table is total, as its test proves; refusing is what errs on the safe side.
    row.map_or(Decision::Refuse(Reason::BelowCheckpoint), |r| r.5)
}

/// What was found when a log was opened, and what was done about it.
#[derive(Debug)]
pub struct Recovery {
    /// The log is new.
    pub created: bool,
    /// The last run had stopped cleanly.
    pub clean: bool,
    /// Segments and what became of each, by base offset. Those that were trusted are not among them.
    pub decisions: Vec<(varve_types::Offset, Decision)>,
    /// Bytes cut from a torn tail, or swept with a segment that no flush had covered.
    pub bytes_cut: u64,
    /// Bytes written again and synced, because a crash leaves no proof that they are on stable storage.
    pub bytes_persisted_again: u64,
    /// Batches whose checksum was computed.
    pub batches_scanned: u64,
    /// Index and time index files that were built anew.
    pub indexes_rebuilt: u32,
    /// The epoch file was built anew from the batches.
    pub epochs_rebuilt: bool,
    /// Leftover files, to be unlinked when convenient.
    pub leftovers: crate::flush::Removal,
    /// What the journal had for this log.
    pub replayed: crate::journal::Replayed,
}

impl Recovery {
    /// Records were lost that this replica may have reported as written: it must not count as in sync
    /// until it has caught up again.
    #[must_use]
    pub const fn lost_bytes(&self) -> bool {
        self.bytes_cut > 0
    }

    /// After an orderly stop, nothing had to be written to open the log.
    pub(crate) const fn found_whole(&self) -> bool {
        self.clean
            && self.bytes_cut == 0
            && self.bytes_persisted_again == 0
            && self.indexes_rebuilt == 0
            && !self.epochs_rebuilt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [bool; 2] = [false, true];
    const ROLES: [Role; 3] = [Role::Sealed, Role::Last, Role::Unlisted];

    fn exactly_one(matches: usize, case: &dyn std::fmt::Debug) {
        assert_eq!(matches, 1, "{matches} rows match {case:?}");
    }

    #[test]
    fn directory_table_is_total() {
        use ManifestFact::{Absent, Good, OtherLog, Unreadable};
        for manifest in [Absent, Unreadable, OtherLog, Good] {
            for bytes in BOTH {
                let rows = DIR_ROWS
                    .iter()
                    .filter(|r| r.0.matches(&manifest) && r.1.matches(&bytes));
                exactly_one(rows.count(), &(manifest, bytes));
            }
        }
        use UnlistedFact as U;
        for fact in [U::Older, U::Newer, U::Unreadable] {
            exactly_one(
                UNLISTED_ROWS.iter().filter(|r| r.0.matches(&fact)).count(),
                &fact,
            );
        }
    }

    #[test]
    fn plan_table_is_total() {
        use IndexFact::{Beyond, Reaches, Short, Unusable};
        for role in ROLES {
            for exists in BOTH {
                for index in [Reaches, Short, Beyond, Unusable] {
                    let rows = PLAN_ROWS.iter().filter(|r| {
                        r.0.matches(&role) && r.1.matches(&exists) && r.2.matches(&index)
                    });
                    exactly_one(rows.count(), &(role, exists, index));
                }
            }
        }
    }

    fn every_fact() -> Vec<Facts> {
        use DamageFact::{AboveCheckpoint, BelowCheckpoint, None};
        let mut all = Vec::new();
        for role in ROLES {
            for damage in [None, BelowCheckpoint, AboveCheckpoint] {
                for bits in 0..8u8 {
                    let [batch_behind, clean, meets_next] = [1, 2, 4].map(|b| bits & b != 0);
                    all.push(Facts {
                        role,
                        damage,
                        batch_behind,
                        clean,
                        meets_next,
                    });
                }
            }
        }
        all
    }

    #[test]
    fn verdict_table_is_total() {
        for facts in every_fact() {
            let rows = VERDICT_ROWS
                .iter()
                .filter(|r| row_matches(r, &facts))
                .count();
            exactly_one(rows, &facts);
        }
    }

    #[test]
    fn only_a_torn_tail_is_cut() {
        for facts in every_fact() {
            let torn = facts.role != Role::Sealed
                && facts.damage == DamageFact::AboveCheckpoint
                && !facts.batch_behind
                && !facts.clean;
            assert_eq!(decide(&facts) == Decision::CutTornTail, torn, "{facts:?}");
            if facts.damage != DamageFact::None {
                assert_ne!(decide(&facts), Decision::Use, "{facts:?}");
            }
        }
    }
}
