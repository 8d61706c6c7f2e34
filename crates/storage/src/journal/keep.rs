//! A journal of the last run that is kept for the next start: a log that it has records of could not be opened.
//!
//! Invariants: what it holds of the logs that are kept is as it was; nothing of the others is read again, whatever
//! becomes of their files from here on; after a crash in between, more of the others is put back than need be, into
//! files that nobody has acknowledged anything from.

use std::collections::BTreeSet;

use varve_vfs::VfsError;

use super::{InUse, Journal, Replay, sign};
use crate::format::{GROUP_HEADER_BYTES, Group, LogIdentity, PAGE_BYTES, ROW_BYTES, RowKind};

/// Rows of a group that is one page long, so that it fits wherever another one was.
const ROWS_OF_A_PAGE: usize = (PAGE_BYTES as usize - GROUP_HEADER_BYTES) / ROW_BYTES;

impl Journal {
    /// Instead of [`Journal::begin`]: makes void what the last run left, except of the logs in `kept`, and ends the
    /// use of this journal. Whoever opens its directory next finds what it has of those, and nothing of others.
    /// `replay` is what opening it found. To be called after every other log was opened with it, and before
    /// anything is acknowledged. Whoever takes the files of a kept log out of their place must not make new ones
    /// there before the next [`Journal::begin`].
    ///
    /// # Errors
    /// What the disk says. The journal still has everything.
    pub fn keep(mut self, replay: &Replay, kept: &BTreeSet<LogIdentity>) -> Result<(), VfsError> {
        let others = replay.logs().filter(|log| !kept.contains(log));
        let others: Vec<LogIdentity> = others.copied().collect();
        if replay.torn_bytes > 0 && !others.is_empty() {
            // Only the newest group may be torn, so what is said now takes its place and its number.
            self.position -= replay.torn_bytes;
            self.next_group -= 1;
        }
        for some in others.chunks(ROWS_OF_A_PAGE) {
            self.keep_room()?;
            let rows = some.iter().map(|log| sign(RowKind::Void, *log));
            let group = Group {
                number: self.next_group,
                live_from: self.live_from,
                rows: rows.collect(),
            };
            self.write_here(&group, &[])?;
        }
        Ok(())
    }

    /// A page in the last file, and another one for the group with which the next start begins. The journal may
    /// become longer than it should be: it is read once more, and begun anew.
    fn keep_room(&mut self) -> Result<(), VfsError> {
        let fits = |last: &InUse| self.position + 2 * PAGE_BYTES <= last.file.bytes;
        if self.used.back().is_some_and(fits) {
            return Ok(());
        }
        if self.free.is_empty() {
            self.config.files = usize::MAX;
            let Some(spec) = self.file_wanted() else {
                let why = std::io::Error::other("every file number is in use");
                return Err(VfsError::new("keep records in", &self.dir, why));
            };
            let file = spec.make()?;
            self.add(file);
        }
        // Free at a start is what has no group that is needed, and the newest group says so.
        self.used.extend(self.free.pop().map(|file| InUse {
            file,
            first_group: self.next_group,
            needs: std::collections::BTreeMap::new(),
        }));
        self.position = PAGE_BYTES;
        Ok(())
    }
}
