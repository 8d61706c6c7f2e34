//! What a history comes to: anomalies by name with a few examples of each, and how much the history covers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// Examples kept of one anomaly.
const EXAMPLES: usize = 10;

macro_rules! kinds {
    ($($kind:ident, $name:literal, $allowed:literal, $meaning:literal;)*) => {
        /// A kind of anomaly.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $(#[doc = $meaning] $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name in verdicts.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// Whether the service may do this: it is counted and not held against it.
            #[must_use]
            pub const fn is_allowed(self) -> bool {
                match self { $(Self::$kind => $allowed,)* }
            }

            /// One sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$kind => $meaning,)* }
            }
        }
    };
}

kinds! {
    LostAcked, "lost-acked", false, "A record that every in-sync replica acknowledged is not in \
        the log at the end.";
    VanishedRead, "vanished-read", false, "A record that a consumer read is not in the log at the \
        end.";
    Unseen, "unseen", false, "Records were acknowledged, but the read of everything at the end did \
        not reach its end.";
    InconsistentOffset, "inconsistent-offset", false, "One offset held two values.";
    AckedOffsetMismatch, "acked-offset-mismatch", false, "A record was acknowledged at an offset that holds another value.";
    Duplicate, "duplicate", false, "One value of an idempotent producer is at two offsets.";
    AbortedRead, "aborted-read", false, "A read returned a record whose send had definitely \
        failed, or a read of committed records returned one of an aborted transaction.";
    PrecommittedRead, "precommitted-read", false, "A read of committed records returned one of a \
        transaction for which no client had called commit.";
    TornTransaction, "torn-transaction", false, "Reads of committed records see some records of a \
        transaction but not others.";
    StuckTransaction, "stuck-transaction", false, "The reads of everything at the end stopped \
        before a record of a transaction.";
    TwoOutcomes, "two-outcomes", false, "A transaction was reported both as committed and as \
        aborted.";
    G1c, "g1c", false, "Transactions have read from one another in a circle.";
    CopiedTwice, "copied-twice", false, "A pipeline that makes one record from each input made two \
        from one.";
    NotCopied, "not-copied", false, "A pipeline that read everything made no record from one \
        input.";
    DoubleOwnership, "double-ownership", false, "Two members of a group owned one partition at once.";
    ZombieCommit, "zombie-commit", false, "A member's commit was accepted although another member \
        owned the partition.";
    Phantom, "phantom", false, "A read returned a record that no client sent.";
    Misplaced, "misplaced", false, "A read returned a record from a partition that it was not sent \
        to.";
    Corrupt, "corrupt", false, "A record was changed.";
    PollSkip, "poll-skip", false, "A consumer did not get a record between two that it got.";
    NonmonotonicPoll, "nonmonotonic-poll", false, "A poll went back without a seek.";
    IntPollSkip, "int-poll-skip", false, "A poll left out a record.";
    IntNonmonotonicPoll, "int-nonmonotonic-poll", false, "The records of one poll are out of \
        order.";
    NonmonotonicSend, "nonmonotonic-send", false, "Records of one idempotent producer are not in the order of its sends.";
    RealTimeOrder, "real-time-order", false, "A record is before one that was already acknowledged \
        or read when it was sent.";
    AboveHighWatermark, "above-high-watermark", false, "A response held a record at or above its \
        own high watermark.";
    LatestRegress, "latest-regress", false, "The end of a log went back for one client.";
    EpochRegress, "epoch-regress", false, "A record has an older leader epoch than one before it in the log.";
    InconsistentEpoch, "inconsistent-epoch", false, "One record had two leader epochs.";
    CommitRegress, "commit-regress", false, "A read returned a committed offset older than one \
        whose commit had already been acknowledged.";
    PhantomCommit, "phantom-commit", false, "A read returned a committed offset that no client \
        committed, or whose commit had definitely failed.";
    UnavailableAfterHeal, "unavailable-after-heal", false, "A send failed although every fault was \
        repaired.";
    DuplicateAllowed, "duplicate-allowed", true, "One value of a producer without idempotence is at two offsets.";
    CommitLate, "commit-late", true, "A commit that got no answer took effect after a newer one \
        was acknowledged.";
    LostWeak, "lost-weak", true, "A record that only its leader acknowledged is not in the log at the end.";
}

/// One kind of anomaly in a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the kind.
    pub name: &'static str,
    /// The service may do this.
    pub allowed: bool,
    /// One sentence about the kind.
    pub meaning: &'static str,
    /// How often.
    pub count: u64,
    /// The first ones.
    pub examples: Vec<String>,
}

/// Findings while they are collected.
#[derive(Debug, Default)]
pub struct Findings(BTreeMap<Kind, (u64, Vec<String>)>);

impl Findings {
    /// Counts one; the text is made only for the first few.
    pub fn add(&mut self, kind: Kind, example: impl FnOnce() -> String) {
        let (count, examples) = self.0.entry(kind).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example());
        }
    }

    /// As a list, in the order of [`Kind`].
    pub fn list(self) -> Vec<Finding> {
        let one = |(kind, (count, examples)): (Kind, (u64, Vec<String>))| Finding {
            name: kind.name(),
            allowed: kind.is_allowed(),
            meaning: kind.meaning(),
            count,
            examples,
        };
        self.0.into_iter().map(one).collect()
    }
}

/// How much a history covers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Events.
    pub events: u64,
    /// Sends.
    pub sends: u64,
    /// Sends that were acknowledged.
    pub sends_ok: u64,
    /// Of these, how many were not told where: an answer to a repeat may leave that out.
    pub sends_ok_somewhere: u64,
    /// Sends that certainly failed.
    pub sends_failed: u64,
    /// Sends of which nobody knows, with those that were never answered.
    pub sends_unknown: u64,
    /// Of these, how many were read.
    pub sends_unknown_seen: u64,
    /// Producer sessions.
    pub sessions: u64,
    /// Polls.
    pub polls: u64,
    /// Records in polls.
    pub records_polled: u64,
    /// Offsets at which something was seen.
    pub offsets: u64,
    /// Times that a consumer went elsewhere.
    pub seeks: u64,
    /// Changes of the leader epoch inside logs.
    pub leader_changes: u64,
    /// Ends of logs that were asked for and answered.
    pub ends: u64,
    /// Commits that were acknowledged.
    pub commits_ok: u64,
    /// Committed offsets that were read.
    pub commits_read: u64,
    /// Partitions read from beginning to end at the end.
    pub final_reads: u64,
    /// Such reads that never came to their end.
    pub final_reads_incomplete: u64,
    /// Sends that succeeded after everything was repaired.
    pub sends_ok_after_heal: u64,
    /// Transactions, those that consist of an end alone with them.
    pub txns: u64,
    /// Transactions that were answered as committed.
    pub txns_committed: u64,
    /// Transactions that were answered as aborted.
    pub txns_aborted: u64,
    /// Transactions whose commit was called and never answered, or with unknown.
    pub txns_unknown: u64,
    /// Of these, how many had a record that was read as committed.
    pub txns_unknown_seen: u64,
    /// Records that were made from others, and may be read.
    pub copies: u64,
    /// Times that a member came to own a partition.
    pub owned: u64,
    /// Notes: what was broken and repaired.
    pub notes: u64,
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing forbidden happened, and enough happened.
    Valid,
    /// Something forbidden happened.
    Invalid,
    /// Nothing forbidden was seen, but too little was.
    Unknown,
}

/// The verdict on a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What it comes to.
    pub outcome: Outcome,
    /// Why it is unknown: what the history lacks, or what is wrong with it.
    pub lacks: Vec<String>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// What was covered.
    pub coverage: Coverage,
}

impl Verdict {
    /// Whether a kind was found.
    #[must_use]
    pub fn found(&self, kind: Kind) -> bool {
        self.count(kind) > 0
    }

    /// How often a kind was found.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        let of_kind = self.findings.iter().find(|found| found.name == kind.name());
        of_kind.map_or(0, |found| found.count)
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for found in &self.findings {
            let judged = if found.allowed {
                "allowed"
            } else {
                "FORBIDDEN"
            };
            let _ = writeln!(
                text,
                "{judged} {}: {}. {}",
                found.name, found.count, found.meaning
            );
            for example in &found.examples {
                let _ = writeln!(text, "    {example}");
            }
            if found.count > found.examples.len() as u64 {
                let more = found.count - found.examples.len() as u64;
                let _ = writeln!(text, "    and {more} more");
            }
        }
        for lack in &self.lacks {
            let _ = writeln!(text, "lacking: {lack}");
        }
        let c = &self.coverage;
        let rows = [
            ("sends", c.sends),
            ("acknowledged", c.sends_ok),
            ("... without offset", c.sends_ok_somewhere),
            ("certainly failed", c.sends_failed),
            ("unknown", c.sends_unknown),
            ("unknown and read", c.sends_unknown_seen),
            ("producer sessions", c.sessions),
            ("polls", c.polls),
            ("records polled", c.records_polled),
            ("offsets", c.offsets),
            ("seeks", c.seeks),
            ("leader changes", c.leader_changes),
            ("ends asked for", c.ends),
            ("commits", c.commits_ok),
            ("commits read", c.commits_read),
            ("final reads", c.final_reads),
            ("sends after healing", c.sends_ok_after_heal),
            ("transactions", c.txns),
            ("committed", c.txns_committed),
            ("aborted", c.txns_aborted),
            ("commit unknown", c.txns_unknown),
            ("... and read", c.txns_unknown_seen),
            ("copies", c.copies),
            ("partitions taken", c.owned),
            ("notes", c.notes),
        ];
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<22}{value:>12}");
        }
        let outcome = match self.outcome {
            Outcome::Valid => "valid: no rule was broken",
            Outcome::Invalid => "INVALID: a rule was broken",
            Outcome::Unknown => {
                "UNKNOWN: no rule was seen broken, but the history shows too little"
            }
        };
        let _ = writeln!(text, "{outcome}");
        text
    }
}
