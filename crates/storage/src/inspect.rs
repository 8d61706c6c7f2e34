//! Offline looks at a log's files: what is in them ([`dump`]) and whether it is right ([`verify`]). For a
//! stopped server's directory. Opens files for reading only and changes nothing.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_record::{BatchHeader, HEADER_BYTES as BATCH_HEADER_BYTES};
use varve_types::Offset;
use varve_vfs::{File, Vfs, VfsError};

use crate::check::check_written;
use crate::format::LogIdentity;
use crate::segment::{Kind, parse_name};
pub use crate::verify::{verify, verify_with};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} at byte {position}: {what}", file.display())]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Byte position in it.
    pub position: u64,
    /// What is wrong.
    pub what: String,
}

/// A batch as it lies in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSeen {
    /// The `.log` file.
    pub file: PathBuf,
    /// Byte position in it.
    pub position: u64,
    /// The header.
    pub header: BatchHeader,
    /// What is wrong with the checksum or the length, if anything.
    pub fault: Option<String>,
}

/// Result of [`verify`].
#[derive(Debug, Default)]
pub struct Report {
    /// Whose log it is, if any file says so.
    pub identity: Option<LogIdentity>,
    /// First offset that readers may see, as the manifest says.
    pub log_start: Option<Offset>,
    /// Offset after the last good batch.
    pub log_end: Option<Offset>,
    /// Segments looked at.
    pub segments: usize,
    /// Good batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that are not what the log wrote, in files that can be derived too, and files that are missing.
    pub problems: Vec<Problem>,
    /// What is as a stop or a crash may leave it, and files that are not the log's.
    pub notes: Vec<Problem>,
}

impl Report {
    /// Whether every batch and every index entry is right.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Iterator over the batches of a `.log` file or of all `.log` files of a directory. See [`dump`].
pub struct Dump {
    vfs: Arc<dyn Vfs>,
    files: VecDeque<PathBuf>,
    at: Option<(Arc<dyn File>, u64, u64)>,
}

/// Batches of a `.log` file, or of all of a directory in order of their base offsets. After bytes that are
/// not a batch header, which are reported, the iterator goes on with the next file.
///
/// # Errors
/// When the directory cannot be listed.
pub fn dump(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<Dump, VfsError> {
    let is_log = |name: &str| parse_name(name).is_some_and(|n| n.kind == Kind::Log);
    let files = if path.extension().is_some_and(|e| e == "log") {
        VecDeque::from([path.to_owned()])
    } else {
        let entries = vfs.list(path)?;
        entries
            .iter()
            .filter(|e| is_log(&e.name))
            .map(|e| path.join(&e.name))
            .collect()
    };
    Ok(Dump {
        vfs: vfs.clone(),
        files,
        at: None,
    })
}

impl Dump {
    fn step(&mut self) -> Result<Option<BatchSeen>, Problem> {
        loop {
            if self
                .at
                .as_ref()
                .is_none_or(|(_, position, len)| position >= len)
            {
                self.at = None;
                let Some(path) = self.files.pop_front() else {
                    return Ok(None);
                };
                let opened = self.vfs.open_read(&path).and_then(|f| Ok((f.len()?, f)));
                let (len, file) = opened.map_err(|e| problem(&path, 0, e.to_string()))?;
                self.at = Some((file, 0, len));
                continue;
            }
            let Some((file, position, _)) = &mut self.at else {
                return Ok(None);
            };
            let path = file.path().to_owned();
            let (at, mut bytes) = (*position, Vec::new());
            let seen = (|| {
                file.read_into(at, BATCH_HEADER_BYTES, &mut bytes)
                    .map_err(|e| e.to_string())?;
                let header = BatchHeader::parse(&bytes).map_err(|e| e.to_string())?;
                let rest = header.size().saturating_sub(BATCH_HEADER_BYTES);
                let from = at + BATCH_HEADER_BYTES as u64;
                file.read_into(from, rest, &mut bytes)
                    .map_err(|e| e.to_string())?;
                let fault = check_written(&bytes).err();
                Ok(BatchSeen {
                    file: path.clone(),
                    position: at,
                    header,
                    fault,
                })
            })();
            return match seen {
                Ok(seen) => {
                    *position += seen.header.size() as u64;
                    Ok(Some(seen))
                }
                Err(what) => {
                    self.at = None;
                    let what: String = what;
                    Err(problem(&path, at, what))
                }
            };
        }
    }
}

impl Iterator for Dump {
    type Item = Result<BatchSeen, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

pub(crate) fn problem(file: &Path, position: u64, what: impl Into<String>) -> Problem {
    Problem {
        file: file.to_owned(),
        position,
        what: what.into(),
    }
}
