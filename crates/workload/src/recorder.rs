//! Writes the history, and shows every event to the checker as it is written.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use varve_check::history::write_line;
use varve_check::{Checker, Event, Header, Required, Verdict};
use varve_client::ClientError;
use varve_types::Outcome;

/// How far a run is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Sends made.
    pub sends: u64,
    /// Acknowledged.
    pub ok: u64,
    /// Certainly failed.
    pub failed: u64,
    /// Nobody knows.
    pub unknown: u64,
    /// Records read.
    pub read: u64,
    /// Calls for the commit of a transaction.
    pub commits: u64,
    /// Calls for the abort of one.
    pub aborts: u64,
    /// Times that a member of a group came to own a partition.
    pub owned: u64,
}

struct Inner {
    checker: Checker,
    file: Option<Box<dyn Write + Send>>,
    /// The first error of the file.
    broken: Option<std::io::Error>,
    line: u64,
    progress: Progress,
    /// Every note with its time, for reports.
    notes: Vec<(u64, String)>,
}

/// See the module.
pub struct Recorder {
    inner: Mutex<Inner>,
    started: Instant,
    next: AtomicU64,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Begins a history; without a file only the verdict remains.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn new(
        header: &Header,
        mut file: Option<Box<dyn Write + Send>>,
    ) -> Result<Self, std::io::Error> {
        if let Some(file) = &mut file {
            write_line(file, header)?;
        }
        let inner = Inner {
            checker: Checker::new(),
            file,
            broken: None,
            line: 1,
            progress: Progress::default(),
            notes: Vec::new(),
        };
        Ok(Self {
            inner: Mutex::new(inner),
            started: Instant::now(),
            next: AtomicU64::new(1),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the beginning.
    #[must_use]
    pub fn ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number for a call, or for a record.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes an event down.
    pub fn event(&self, event: Event) {
        let mut inner = self.lock();
        inner.line += 1;
        let line = inner.line;
        if let Some(file) = &mut inner.file
            && let Err(error) = write_line(file, &event)
        {
            inner.broken.get_or_insert(error);
        }
        // Whoever watches a run, or kills it, finds the file whole up to here.
        if let (Event::Note { .. } | Event::Healed { .. } | Event::Final { .. }, Some(file)) =
            (&event, &mut inner.file)
            && let Err(error) = file.flush()
        {
            inner.broken.get_or_insert(error);
        }
        match &event {
            Event::Send { .. } => inner.progress.sends += 1,
            Event::Poll { records, .. } => inner.progress.read += records.len() as u64,
            Event::EndTxn { commit: true, .. } => inner.progress.commits += 1,
            Event::EndTxn { commit: false, .. } => inner.progress.aborts += 1,
            Event::Own { .. } => inner.progress.owned += 1,
            Event::Note { ns, what } => {
                let note = (*ns, what.clone());
                inner.notes.push(note);
            }
            _ => {}
        }
        inner.checker.event(line, event);
    }

    /// Writes down that something was broken, repaired, or went wrong in the workload.
    pub fn note(&self, what: impl Into<String>) {
        let ns = self.ns();
        let what = what.into();
        self.event(Event::Note { ns, what });
    }

    /// Writes down the answer to a call.
    pub(crate) fn answer(&self, op: u64, answer: Result<Option<i64>, &ClientError>) {
        let ns = self.ns();
        self.event(match answer {
            Ok(offset) => Event::Ok { op, ns, offset },
            Err(error) => {
                let text = error.to_string();
                if failed_for_good(error) {
                    Event::Fail {
                        op,
                        ns,
                        error: text,
                    }
                } else {
                    Event::Unknown {
                        op,
                        ns,
                        error: text,
                    }
                }
            }
        });
    }

    /// Writes down that a call certainly did nothing.
    pub(crate) fn failed(&self, op: u64, error: impl Into<String>) {
        let (ns, error) = (self.ns(), error.into());
        self.event(Event::Fail { op, ns, error });
    }

    /// Writes down that nobody knows what became of a call.
    pub(crate) fn unknown(&self, op: u64, error: impl Into<String>) {
        let (ns, error) = (self.ns(), error.into());
        self.event(Event::Unknown { op, ns, error });
    }

    /// Writes down the answer to a send, and counts it.
    pub(crate) fn sent(&self, op: u64, answer: Result<Option<i64>, &ClientError>) {
        {
            let progress = &mut self.lock().progress;
            match &answer {
                Ok(_) => progress.ok += 1,
                Err(error) if failed_for_good(error) => progress.failed += 1,
                Err(_) => progress.unknown += 1,
            }
        }
        self.answer(op, answer);
    }

    /// Writes down that a record may be in the log, though the library says that it counts for nothing.
    pub(crate) fn sent_somewhere(&self, op: u64, error: &ClientError) {
        self.lock().progress.unknown += 1;
        self.unknown(op, error.to_string());
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.lock().progress
    }

    /// Every note so far, with nanoseconds since the beginning.
    #[must_use]
    pub fn notes(&self) -> Vec<(u64, String)> {
        self.lock().notes.clone()
    }

    /// Ends the history: nothing more may be written.
    ///
    /// # Errors
    /// When the file could not be written; the verdict is lost with it.
    pub fn verdict(&self, required: &Required) -> Result<Verdict, std::io::Error> {
        let mut inner = self.lock();
        if let Some(error) = inner.broken.take() {
            return Err(error);
        }
        if let Some(mut file) = inner.file.take() {
            file.flush()?;
        }
        Ok(std::mem::take(&mut inner.checker).verdict(required))
    }
}

/// Whether an error says that the call changed nothing and never will. Everything else is unknown.
pub fn failed_for_good(error: &ClientError) -> bool {
    match error {
        ClientError::Rpc(rpc) => rpc.outcome() == Outcome::NotApplied,
        ClientError::DeliveryTimeout { outcome, .. } => *outcome == Outcome::NotApplied,
        ClientError::TopicNotFound(_)
        | ClientError::PartitionNotFound { .. }
        | ClientError::BufferFull(_)
        | ClientError::NotAssigned(_)
        | ClientError::InvalidOffset { .. }
        | ClientError::Record(_)
        | ClientError::Config(_) => true,
        _ => false,
    }
}
