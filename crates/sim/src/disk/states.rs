//! What a power cut may leave of a disk with unsynced changes. A [`CrashState`] says of each change whether it arrived;
//! [`Pending::states`] and [`Pending::wild`] enumerate the interesting ones, [`Pending::random`] draws others.
//!
//! Changes are numbered over the whole disk by when they were made. A state is *in order* when everything up
//! to some change arrived, perhaps with the front of the next one, and nothing else.

use std::fmt::Write as _;

use varve_vfs::mem::{Fate, MemVfs, Unsynced};

use crate::rng::Rng;

/// Unit of tearing, in bytes.
pub const BLOCK: u64 = 512;
/// Pairs are enumerated over this many of the newest changes.
const PAIRS_OVER: usize = 10;

/// What became of the unsynced changes when the power went after `point` steps of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashState {
    /// Steps of the trace that had been made.
    pub point: usize,
    /// Whether changes without a fate of their own arrived.
    pub rest: bool,
    /// Changes up to this number arrived, unless they have a fate of their own.
    pub kept_to: u64,
    /// Fates of single changes, by number.
    pub fates: Vec<(u64, Fate)>,
}

impl CrashState {
    fn fate(&self, when: u64) -> Fate {
        let own = self.fates.iter().find(|(w, _)| *w == when);
        match own {
            Some((_, fate)) => *fate,
            None if self.rest || when <= self.kept_to => Fate::Keep,
            None => Fate::Lose,
        }
    }

    /// A copy of `disk` after this power cut.
    #[must_use]
    pub fn apply(&self, disk: &MemVfs) -> MemVfs {
        let copy = disk.fork();
        copy.crash(&mut |change| self.fate(change.when()));
        copy
    }
}

impl std::fmt::Display for CrashState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rest = if self.rest { "keep" } else { "lose" };
        write!(f, "{}:{rest}:{}:", self.point, self.kept_to)?;
        for (i, (when, fate)) in self.fates.iter().enumerate() {
            let sep = if i > 0 { "," } else { "" };
            match fate {
                Fate::Keep => write!(f, "{sep}{when}K")?,
                Fate::Lose => write!(f, "{sep}{when}L")?,
                Fate::Zeros => write!(f, "{sep}{when}Z")?,
                Fate::Tear(n) => write!(f, "{sep}{when}T{n}")?,
                Fate::Tail(n) => write!(f, "{sep}{when}E{n}")?,
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for CrashState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("{text:?} is not a crash state; expected POINT:keep|lose:NUMBER:FATES");
        let mut parts = text.splitn(4, ':');
        let mut part = || parts.next().ok_or_else(bad);
        let point = part()?.parse().map_err(|_| bad())?;
        let rest = match part()? {
            "keep" => true,
            "lose" => false,
            _ => return Err(bad()),
        };
        let kept_to = part()?.parse().map_err(|_| bad())?;
        let mut fates = Vec::new();
        for one in part()?.split(',').filter(|s| !s.is_empty()) {
            let at = one
                .find(|c: char| c.is_ascii_alphabetic())
                .ok_or_else(bad)?;
            let when = one[..at].parse().map_err(|_| bad())?;
            let number = || one[at + 1..].parse().map_err(|_| bad());
            let fate = match &one[at..=at] {
                "K" => Fate::Keep,
                "L" => Fate::Lose,
                "Z" => Fate::Zeros,
                "T" => Fate::Tear(number()?),
                "E" => Fate::Tail(number()?),
                _ => return Err(bad()),
            };
            fates.push((when, fate));
        }
        Ok(Self {
            point,
            rest,
            kept_to,
            fates,
        })
    }
}

/// One unsynced change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub when: u64,
    /// Position and length of a write; `None` for names and lengths.
    pub write: Option<(u64, usize)>,
    /// It changes a name.
    pub is_name: bool,
    /// It changes the bytes or the length of a `.log` file.
    pub in_log: bool,
}

/// The unsynced changes of a disk, oldest first.
#[derive(Debug)]
pub struct Pending {
    point: usize,
    /// The changes.
    pub changes: Vec<Change>,
}

impl Pending {
    /// Of a disk after `point` steps.
    #[must_use]
    pub fn of(disk: &MemVfs, point: usize) -> Self {
        let mut changes = Vec::new();
        disk.fork().crash(&mut |change| {
            let (write, is_name, path) = match change {
                Unsynced::Name { path, .. } => (None, true, path),
                Unsynced::Write { at, len, path, .. } => (Some((*at, *len)), false, path),
                Unsynced::SetLen { path, .. } => (None, false, path),
            };
            changes.push(Change {
                when: change.when(),
                write,
                is_name,
                in_log: !is_name && path.extension().is_some_and(|e| e == "log"),
            });
            Fate::Keep
        });
        changes.sort_by_key(|c| c.when);
        Self { point, changes }
    }

    fn state(&self, rest: bool, kept_to: u64, fates: Vec<(u64, Fate)>) -> CrashState {
        CrashState {
            point: self.point,
            rest,
            kept_to,
            fates,
        }
    }

    /// Whether some change of a `.log` file arrived while an earlier one of any file did not, or not whole:
    /// only then may recovery find what no order of writes explains.
    #[must_use]
    pub fn reorders_log(&self, state: &CrashState) -> bool {
        let mut hole = false;
        for change in self.changes.iter().filter(|c| !c.is_name) {
            let fate = state.fate(change.when);
            if hole && change.in_log && fate != Fate::Lose {
                return true;
            }
            // The end of a write without its beginning is a hole in itself.
            if let (Fate::Tail(n), Some(_), true) = (fate, change.write, change.in_log)
                && n > 0
            {
                return true;
            }
            hole |= fate != Fate::Keep;
        }
        false
    }

    /// Every prefix of the changes; each single one dropped; each write torn at every block and at two random
    /// bytes, and with its length only; names without data and data without names.
    #[must_use]
    pub fn states(&self, rng: &mut Rng) -> Vec<CrashState> {
        let none = Vec::new;
        let mut all = vec![self.state(true, 0, none()), self.state(false, 0, none())];
        for change in &self.changes {
            let when = change.when;
            all.push(self.state(false, when, none()));
            all.push(self.state(true, 0, vec![(when, Fate::Lose)]));
            let Some((at, len)) = change.write else {
                continue;
            };
            for n in tears(at, len, rng) {
                all.push(self.state(false, when - 1, vec![(when, Fate::Tear(n))]));
            }
            // Nothing after it arrived, all of it did.
            all.push(self.state(false, when - 1, vec![(when, Fate::Zeros)]));
            all.push(self.state(true, 0, vec![(when, Fate::Zeros)]));
        }
        for names in [true, false] {
            let chosen = self.changes.iter().filter(|c| c.is_name == names);
            all.push(self.state(true, 0, chosen.map(|c| (c.when, Fate::Lose)).collect()));
        }
        all
    }

    /// Wilder ones: each change kept alone; each pair of the newest ones with the earlier lost and the later
    /// kept, with and without what lies between; each write torn from either end while all others arrived.
    #[must_use]
    pub fn wild(&self, rng: &mut Rng) -> Vec<CrashState> {
        let mut all = Vec::new();
        let newest = self.changes.len().saturating_sub(PAIRS_OVER);
        for (i, change) in self.changes.iter().enumerate() {
            let when = change.when;
            all.push(self.state(false, 0, vec![(when, Fate::Keep)]));
            let later = self.changes[i + 1..].iter();
            for later in later.skip(newest.saturating_sub(i + 1)) {
                let pair = vec![(when, Fate::Lose), (later.when, Fate::Keep)];
                all.push(self.state(false, when, pair));
                all.push(self.state(false, later.when, vec![(when, Fate::Lose)]));
            }
            let Some((at, len)) = change.write else {
                continue;
            };
            for n in tears(at, len, rng) {
                all.push(self.state(true, 0, vec![(when, Fate::Tear(n))]));
                all.push(self.state(true, 0, vec![(when, Fate::Tail(n))]));
                all.push(self.state(false, when - 1, vec![(when, Fate::Tail(n))]));
            }
        }
        all
    }

    /// A state with a random fate for each change.
    #[must_use]
    pub fn random(&self, rng: &mut Rng) -> CrashState {
        let fates = self.changes.iter().map(|change| {
            let fate = match (rng.below(8), change.write) {
                (0 | 1, _) => Fate::Lose,
                (2, Some((_, len))) => Fate::Tear(rng.below(len as u64 + 1) as usize),
                (3, Some((_, len))) => Fate::Tail(rng.below(len as u64 + 1) as usize),
                (4, Some(_)) => Fate::Zeros,
                _ => Fate::Keep,
            };
            (change.when, fate)
        });
        self.state(true, 0, fates.collect())
    }
}

/// Where to tear a write: at every block of the file, and at two random bytes.
fn tears(at: u64, len: usize, rng: &mut Rng) -> Vec<usize> {
    let end = at + len as u64;
    let first = (at / BLOCK + 1) * BLOCK;
    let mut all: Vec<usize> = (first..end)
        .step_by(BLOCK as usize)
        .map(|block| (block - at) as usize)
        .collect();
    if len > 1 {
        all.extend([0, 1].map(|_| 1 + rng.below(len as u64 - 1) as usize));
    }
    all
}

/// A number that stands for the content of a disk: equal disks have equal ones.
#[must_use]
pub fn fingerprint(disk: &MemVfs) -> u64 {
    fingerprint_of(disk, &|_| true)
}

/// As [`fingerprint`], without index files, which a recovery may build anew before it refuses.
#[must_use]
pub fn fingerprint_of_data(disk: &MemVfs) -> u64 {
    let derived = |path: &std::path::Path| {
        path.extension()
            .is_some_and(|e| e == "index" || e == "timeindex")
    };
    fingerprint_of(disk, &|path| !derived(path))
}

fn fingerprint_of(disk: &MemVfs, counts: &dyn Fn(&std::path::Path) -> bool) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    disk.for_each_file(&mut |path, bytes| {
        if counts(path) {
            path.hash(&mut hasher);
            bytes.hash(&mut hasher);
        }
    });
    hasher.finish()
}

/// The names and lengths of a disk's files, for people.
#[must_use]
pub fn listing(disk: &MemVfs) -> String {
    let mut text = String::new();
    disk.for_each_file(&mut |path, bytes| {
        let _ = writeln!(text, "  {:>8} {}", bytes.len(), path.display());
    });
    text
}
