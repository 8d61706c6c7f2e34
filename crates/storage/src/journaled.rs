//! A log whose appends are made durable by the journal of its disk: what to write there, and what that means
//! for the log. A log has two durable ends: [`Log::flushed`], which acknowledgements follow, and the end of what
//! is synced in its own files, which index entries and the next start rely on. The first is never behind
//! the second.

use varve_record::Sequenced;

use crate::flush::{FlushTarget, Reach};
use crate::format::{Row, RowKind, chain_start, chain_step};
use crate::journal::JournalEntry;
use crate::log::Log;

impl Log {
    /// Whether something that was appended, or a change of the log itself, is not durable yet.
    #[must_use]
    pub fn needs_flush(&self) -> bool {
        self.failure().is_none() && (self.flushed() < self.log_end() || self.small_files_are_due())
    }

    /// Whether all records are synced in the segment files, whatever a journal holds.
    #[must_use]
    pub fn files_are_flushed(&self) -> bool {
        self.tail.flushed == self.tail.end && self.sealing.iter().all(|t| t.flushed == t.end)
    }

    /// What to write to the journal so that the log is durable up to its end. `batches` are all that were
    /// appended and are not durable yet. `None` where the files must be synced instead
    /// ([`Log::flush_target`]): after a roll, with a new leader epoch, after a failure, or when
    /// `batches` are not exactly that.
    #[must_use]
    pub fn journal_entry(&mut self, batches: Vec<Sequenced>) -> Option<JournalEntry> {
        let first = batches.first()?.header().base_offset;
        let last = batches.last()?.header().next_offset();
        let follow =
            |two: &[Sequenced]| two[0].header().next_offset() == two[1].header().base_offset;
        let exact = first == self.flushed() && last == self.log_end();
        let exact = exact && batches.windows(2).all(follow);
        if !exact || self.failure().is_some() || self.small_files_are_due() {
            return None;
        }
        let bytes: u64 = batches.iter().map(|b| b.size() as u64).sum();
        // Batches of an earlier segment would have made the manifest due.
        let position = self.tail.end.checked_sub(bytes)?;
        let segment = &self.tail.segment;
        let mut chain = chain_start(self.identity(), segment.id, segment.base);
        let mut at = position;
        for batch in &batches {
            chain = chain_step(chain, batch.header(), at);
            at += batch.size() as u64;
        }
        let row = Row {
            kind: RowKind::Batches,
            identity: *self.identity(),
            segment_id: segment.id,
            segment_base: segment.base,
            position,
            first,
            bytes: u32::try_from(bytes).ok()?,
            batches: u32::try_from(batches.len()).ok()?,
            chain,
        };
        self.in_journal = true;
        Some(JournalEntry {
            row,
            batches,
            done: self.done_at_end(Reach::Journal),
        })
    }

    /// What must be synced so that the journal need not hold records of this log any more. Unlike with
    /// [`Log::flush_target`], no acknowledgement follows from it. `None` when there is nothing to sync, or when
    /// the log has failed.
    #[must_use]
    pub fn journal_relief(&self) -> Option<FlushTarget> {
        let mut target = self.flush_target()?;
        target.done.reach = Reach::FilesOnly;
        Some(target)
    }

    /// What a flush that found nothing to do would have said: all files are synced. `None` if they are not.
    #[must_use]
    pub fn files_synced(&self) -> Option<crate::flush::FlushDone> {
        let relieved = self.failure().is_none() && self.files_are_flushed();
        relieved.then(|| self.done_at_end(Reach::FilesOnly))
    }

    /// Whether the journal may hold records of this log.
    #[must_use]
    pub const fn in_journal(&self) -> bool {
        self.in_journal
    }

    /// The journal holds nothing of this log any more ([`crate::Journal::void`] has succeeded), so it may be
    /// truncated.
    pub fn journal_voided(&mut self) {
        self.in_journal = false;
    }
}
