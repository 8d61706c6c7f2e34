//! What a workload does beside its log: files that are replaced as a whole, topics that go.

use std::path::Path;

use varve_vfs::durable;

use super::{Disk, Driver, Violation, dir};

impl Driver {
    /// Replaces a file outside the log.
    ///
    /// # Errors
    /// A violation.
    pub fn replace(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Violation> {
        let at = match self.files.iter().position(|(p, _)| p == path) {
            Some(at) => at,
            None => {
                self.files.push((path.to_owned(), vec![None]));
                self.files.len() - 1
            }
        };
        self.files[at].1.push(Some(bytes.to_vec()));
        let log = self.books.promised.clone();
        self.promise(log.clone());
        match durable::replace(&*self.vfs, path, bytes) {
            Ok(()) => {
                self.files[at].1 = vec![Some(bytes.to_vec())];
                self.promise(log);
                Ok(())
            }
            Err(_) if self.kind != Disk::Good => Ok(()),
            Err(e) => Err(format!("a file was not replaced: {e}")),
        }
    }

    /// Makes a directory, durably.
    ///
    /// # Errors
    /// A violation.
    pub fn make_dir(&mut self, path: &Path) -> Result<(), Violation> {
        match durable::create_dir_all(&*self.vfs, path) {
            Err(e) if self.kind == Disk::Good => Err(format!("no directory: {e}")),
            _ => Ok(()),
        }
    }

    /// Deletes the topic: the log's directory, and then nothing is promised about it.
    ///
    /// # Errors
    /// A violation.
    pub fn delete_topic(&mut self) -> Result<(), Violation> {
        self.books.log = None;
        self.promise(Vec::new());
        let parent = dir().parent().map(Path::to_owned).unwrap_or_default();
        let remove = || {
            self.vfs
                .remove_dir_all(&dir())
                .and_then(|()| self.vfs.sync_dir(&parent))
        };
        let removed = match remove() {
            // A failed deletion is tried again.
            Err(_) if self.kind != Disk::Good => remove(),
            removed => removed,
        };
        if self.kind == Disk::Good {
            removed.map_err(|e| format!("the directory was not removed: {e}"))?;
        }
        Ok(())
    }

    /// The log of a topic of the same name that is made anew after its deletion.
    pub fn forget(&mut self) {
        self.books.cut(0);
        (self.books.start, self.books.floor, self.books.flushed_epoch) = (0, 0, 0);
    }
}
