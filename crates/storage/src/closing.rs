//! What a log leaves for its next opening: snapshots of derived state, and a clean end.

use std::sync::Arc;

use varve_types::Offset;
use varve_vfs::VfsError;

use crate::error::LogError;
use crate::log::Log;
use crate::segment::{Kind, Segment};
use crate::snapshot;

impl Log {
    /// Writes a snapshot of a state that was derived from the log up to `offset` (exclusive). Replaces one
    /// at the same offset; older ones but the newest are removed. Not durable, and need not be: a damaged
    /// snapshot is ignored.
    ///
    /// # Errors
    /// [`LogError::NoSpace`] or what the disk says. The log stays usable: a snapshot can be derived.
    pub fn write_snapshot(&mut self, offset: Offset, payload: &[u8]) -> Result<(), LogError> {
        self.check_usable()?;
        assert!(
            offset <= self.log_end(),
            "a snapshot describes records of this log"
        );
        snapshot::write(&self.home, offset, payload).map_err(|e| {
            if e.is_no_space() {
                LogError::NoSpace(e)
            } else {
                LogError::Io(e)
            }
        })
    }

    /// The newest intact snapshot at or below `upto`: its offset and payload.
    #[must_use]
    pub fn latest_snapshot(&self, upto: Offset) -> Option<(Offset, Vec<u8>)> {
        snapshot::latest(&self.home, upto)
    }

    /// Lets go of file handles of sealed segments. The next read of one opens it again.
    pub fn release_idle(&self) {
        for sealed in self.sealed.iter() {
            if !self
                .sealing
                .iter()
                .any(|t| t.segment.id == sealed.segment.id)
            {
                sealed.segment.release();
            }
        }
    }

    /// Ends the log. With `clean` everything is flushed and indexed first, and the next open may be told
    /// that the stop was clean if, and only if, this returned `Ok`.
    ///
    /// # Errors
    /// As [`Log::flush_now`]; the log must then be opened as after an unclean stop.
    pub fn close(mut self, clean: bool) -> Result<(), LogError> {
        if !clean || self.is_as_found() {
            return Ok(());
        }
        self.flush_now()?;
        self.change_now()?;
        self.flush_index()?;
        let waiting = std::mem::take(&mut self.unsynced_indexes);
        let mut sync: Vec<Arc<Segment>> = waiting.into_iter().map(|(_, s)| s).collect();
        sync.push(self.tail.segment.clone());
        for segment in sync {
            for kind in [Kind::Index, Kind::TimeIndex] {
                match self.home.vfs.open_write(&segment.path(kind)) {
                    Ok(file) => file.sync_data()?,
                    Err(e) if e.is_not_found() => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        self.home.vfs.sync_dir(&self.home.dir)?;
        let indexed = self.tail.indexed == self.tail.end && self.sealing.is_empty();
        if indexed {
            Ok(())
        } else {
            Err(self.index_incomplete())
        }
    }

    /// Whether the log is as an orderly stop had left it, so that there is nothing to write or sync. A leader
    /// epoch that was begun and has no records is forgotten with it, as it would be by a crash.
    fn is_as_found(&self) -> bool {
        self.failure().is_none()
            && self.found_whole == Some(self.tail.next)
            && (self.generation, self.manifest_version) == (0, 0)
            && self.flushed() == self.tail.next
            && self.tail.indexed == self.tail.end
            && self.unsynced_indexes.is_empty()
    }

    fn index_incomplete(&self) -> LogError {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        LogError::NoSpace(VfsError::new("complete the index in", &self.home.dir, full))
    }
}
