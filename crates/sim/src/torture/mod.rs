//! The torture suites. [`driver`] runs a workload and keeps the books, [`oracle`] says what a log may be,
//! [`world`] opens logs and their journal as a start does, the others are the suites.

pub mod damage;
pub mod driver;
pub mod enumerate;
pub mod faults;
pub mod keyed;
pub mod oracle;
pub mod planted;
pub mod workloads;
pub mod world;

/// What a suite found on one workload.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Suite, as on the command line.
    pub suite: String,
    /// Workload, file type or planted bug.
    pub name: String,
    /// States visited.
    pub states: u64,
    /// Logs that were refused though nothing that was acknowledged was lost.
    pub refused: u64,
    /// What must not happen, each with how to see it again.
    pub violations: Vec<String>,
    /// Counts that the suite wants to be seen.
    pub notes: Vec<(String, u64)>,
    /// Time, in milliseconds.
    pub ms: u64,
}

impl Tally {
    /// Nothing found yet.
    #[must_use]
    pub fn new(suite: &str, name: &str) -> Self {
        Self {
            suite: suite.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Adds to a count that is shown.
    pub fn note(&mut self, what: &str, count: u64) {
        match self.notes.iter_mut().find(|(name, _)| name == what) {
            Some((_, sum)) => *sum += count,
            None => self.notes.push((what.to_owned(), count)),
        }
    }
}

/// How much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Everything, or a part that fits into a test.
    pub full: bool,
    /// Where random choices start.
    pub seed: u64,
    /// Stop a suite's workload after this many violations.
    pub stop_after: usize,
}

impl Effort {
    /// What tests run.
    #[must_use]
    pub const fn bounded() -> Self {
        Self {
            full: false,
            seed: 1,
            stop_after: 3,
        }
    }

    /// Everything.
    #[must_use]
    pub const fn full(seed: u64) -> Self {
        Self {
            full: true,
            seed,
            stop_after: 3,
        }
    }
}
