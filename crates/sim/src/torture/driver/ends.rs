//! How a process ends, and the next one begins: a clean stop, a kill, a power cut.

use varve_storage::LogError;

use super::{Disk, Driver, Expect, Violation};

impl Driver {
    /// Closes the log cleanly and opens it as after a clean stop.
    ///
    /// # Errors
    /// A violation.
    pub fn close_and_reopen(&mut self) -> Result<(), Violation> {
        let epoch = self.known_epoch();
        let log = self
            .log
            .take()
            .ok_or("the workload closes a log that is not open")?;
        let result = log.close(true);
        let closed = match result {
            Ok(()) if self.failed => return Err("a clean close after a failure: S4".to_owned()),
            Ok(()) => true,
            Err(LogError::Io(_) | LogError::Failed { .. }) if self.kind == Disk::Failing => false,
            Err(LogError::NoSpace(_)) if self.kind != Disk::Good => false,
            Err(e) => return Err(format!("close failed: {e}")),
        };
        if closed {
            self.floor = self.end();
            self.flushed_epoch = epoch;
            let expect = Expect {
                clean: true,
                ..(*self.expect).clone()
            };
            let expect = Expect {
                log: vec![self.candidate()],
                ..expect
            };
            self.set_expect(expect);
        }
        self.open(closed)
    }

    /// Kills the process and starts another one.
    ///
    /// # Errors
    /// A violation.
    pub fn kill(&mut self) -> Result<(), Violation> {
        self.log = None;
        match &self.recorder {
            Some(recorder) => recorder.kill(),
            None => self.disk.kill_process(),
        }
        self.open_as(false, true)
    }

    /// Cuts the power, on a disk that writes in order, so that the last `lost` changes are gone and of the
    /// first of these only `torn` bytes arrived; then starts again.
    ///
    /// # Errors
    /// A violation.
    pub fn power_cut(&mut self, lost: u64, torn: usize) -> Result<(), Violation> {
        self.log = None;
        match &self.recorder {
            Some(recorder) => recorder.power_cut(lost, torn),
            None => self
                .disk
                .crash_in_order(self.disk.changes().saturating_sub(lost), torn),
        }
        self.open_as(false, false)
    }

    /// Lets go of the log without a word, as a crash does.
    pub fn abandon(&mut self) {
        self.log = None;
    }
}
