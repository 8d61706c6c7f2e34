//! The data directory: who may use it (lock), whose it is (`meta.toml`), and how it was left
//! (`clean-shutdown`).
//!
//! Invariants: one process at a time; a directory of another cluster or node is refused; the clean mark is
//! removed before anything is opened and written after everything is closed, so that its presence always
//! means that no recovery is needed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use varve_types::{ClusterId, DirectoryId, NodeId};
use varve_vfs::{LockError, LockGuard, Vfs, VfsError, durable};

use crate::identity::{FORMAT_VERSION, Meta};

/// Why a directory was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The disk failed.
    #[error(transparent)]
    Vfs(#[from] VfsError),
    /// A system call failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Everybody may write to it.
    #[error("{} is writable by everyone (mode {mode:o}); run: chmod o-w {}", path.display(), path.display())]
    WorldWritable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// `meta.toml` cannot be understood.
    #[error("{} cannot be read ({what}); the node does not start on data that may belong to \
        another node", path.display())]
    BadIdentity {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The directory belongs to another cluster or node.
    #[error("{} belongs to {what} {found}, not {given}; nothing was changed; use another storage.data_dir", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// `cluster` or `node`.
        what: &'static str,
        /// Who it belongs to.
        found: String,
        /// Who asked.
        given: String,
    },
    /// Written by a newer program.
    #[error("{} has layout version {found}, but this program supports up to {FORMAT_VERSION}; use \
        a newer program", path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Whose a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Node.
    pub node: NodeId,
    /// Cluster; `None`: the node has not joined one yet.
    pub cluster: Option<ClusterId>,
}

/// Whose a data directory of this machine is; `None`: it does not exist, or has never been used. It is not taken.
///
/// # Errors
/// [`DataDirError`] when another process uses it, or it cannot be understood.
pub fn owner(path: &Path) -> Result<Option<Owner>, DataDirError> {
    let (vfs, file) = (varve_vfs::RealVfs, path.join("meta.toml"));
    if !vfs.exists(&file)? {
        return Ok(None);
    }
    let lock = path.join("LOCK");
    if vfs.exists(&lock)? {
        drop(vfs.lock(&lock)?);
    }
    let bad = |what: String| DataDirError::BadIdentity {
        path: file.clone(),
        what,
    };
    let meta = Meta::parse(&vfs.read(&file)?).map_err(bad)?;
    let cluster = match meta.cluster_id.as_str() {
        "" => None,
        id => Some(id.parse().map_err(bad)?),
    };
    Ok(Some(Owner {
        node: NodeId(meta.node_id),
        cluster,
    }))
}

/// A data directory in use. The lock goes with the value.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    vfs: Arc<dyn Vfs>,
    cluster: Option<ClusterId>,
    directory: DirectoryId,
    clean: bool,
    _lock: LockGuard,
}

impl DataDir {
    /// Takes the directory, making it if it is not there, checks or makes its identity, and removes the
    /// clean mark. A node that `joins` a cluster learns from others which it is: see [`Self::adopt`].
    ///
    /// # Errors
    /// [`DataDirError`]; nothing of the data was changed.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        path: &Path,
        node: NodeId,
        cluster: Option<ClusterId>,
        joins: bool,
    ) -> Result<Self, DataDirError> {
        let made = !vfs.exists(path)?;
        durable::create_dir_all(&*vfs, path)?;
        if vfs.is_of_this_machine() {
            check_mode(path, made)?;
        }
        let lock = vfs.lock(&path.join("LOCK"))?;
        let (cluster, directory) = identify(&*vfs, path, node, cluster, joins)?;
        let mark = path.join("clean-shutdown");
        let clean = vfs.exists(&mark)?;
        if clean {
            vfs.remove_file(&mark)?;
            vfs.sync_dir(path)?;
        }
        Ok(Self {
            path: path.to_owned(),
            vfs,
            cluster,
            directory,
            clean,
            _lock: lock,
        })
    }

    /// Cluster the directory belongs to; `None`: that is not known yet.
    #[must_use]
    pub const fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// The directory belongs to this cluster from now on, durably.
    ///
    /// # Errors
    /// [`DataDirError::Foreign`] when it belongs to another one; or the disk's.
    pub fn adopt(&mut self, cluster: ClusterId) -> Result<(), DataDirError> {
        let file = self.path.join("meta.toml");
        let bad = |what: String| DataDirError::BadIdentity {
            path: file.clone(),
            what,
        };
        match self.cluster {
            Some(own) if own == cluster => return Ok(()),
            Some(own) => {
                return Err(DataDirError::Foreign {
                    path: self.path.clone(),
                    what: "cluster",
                    found: own.to_string(),
                    given: cluster.to_string(),
                });
            }
            None => {}
        }
        let mut meta = Meta::parse(&self.vfs.read(&file)?).map_err(bad)?;
        meta.cluster_id = cluster.to_string();
        let text = meta.text().map_err(bad)?;
        durable::replace(&*self.vfs, &file, text.as_bytes())?;
        self.cluster = Some(cluster);
        Ok(())
    }

    /// Identity of the directory, made with it.
    #[must_use]
    pub const fn directory(&self) -> DirectoryId {
        self.directory
    }

    /// Whether the last run ended cleanly.
    #[must_use]
    pub const fn clean(&self) -> bool {
        self.clean
    }

    /// Leaves the mark of a clean shutdown. Call it last.
    ///
    /// # Errors
    /// The disk's; the next start then recovers, which is slower and as safe.
    pub fn mark_clean(&self) -> Result<(), DataDirError> {
        Ok(durable::replace(
            &*self.vfs,
            &self.path.join("clean-shutdown"),
            b"clean\n",
        )?)
    }
}

fn check_mode(path: &Path, made: bool) -> Result<(), DataDirError> {
    let io = |source| DataDirError::Io {
        path: path.to_owned(),
        source,
    };
    if made {
        let mode = std::fs::Permissions::from_mode(0o750);
        return std::fs::set_permissions(path, mode).map_err(io);
    }
    let mode = std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o7777;
    // The sticky bit does not help: others could still add files here.
    if mode & 0o002 != 0 {
        return Err(DataDirError::WorldWritable {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn identify(
    vfs: &dyn Vfs,
    path: &Path,
    node: NodeId,
    cluster: Option<ClusterId>,
    joins: bool,
) -> Result<(Option<ClusterId>, DirectoryId), DataDirError> {
    let file = path.join("meta.toml");
    if !vfs.exists(&file)? {
        let founds = || (!joins).then(|| ClusterId(uuid::Uuid::new_v4().as_u128()));
        let cluster = cluster.or_else(founds);
        let directory = DirectoryId(uuid::Uuid::new_v4().as_u128());
        let meta = Meta {
            format_version: FORMAT_VERSION,
            cluster_id: cluster.map_or(String::new(), |c| c.to_string()),
            node_id: node.0,
            directory_id: directory.to_string(),
            created_by: format!("varve {}", crate::VERSION),
        };
        let text = meta.text().map_err(|what| DataDirError::BadIdentity {
            path: file.clone(),
            what,
        })?;
        durable::replace(vfs, &file, text.as_bytes())?;
        return Ok((cluster, directory));
    }
    let bad = |what: String| DataDirError::BadIdentity {
        path: file.clone(),
        what,
    };
    let meta = Meta::parse(&vfs.read(&file)?).map_err(bad)?;
    if meta.format_version > FORMAT_VERSION {
        return Err(DataDirError::Newer {
            path: path.to_owned(),
            found: meta.format_version,
        });
    }
    if meta.format_version == 0 {
        return Err(bad("layout version 0 does not exist".to_owned()));
    }
    let found: Option<ClusterId> = match meta.cluster_id.as_str() {
        // Made by a node that has not joined a cluster yet.
        "" => None,
        id => Some(id.parse().map_err(bad)?),
    };
    let directory: DirectoryId = meta.directory_id.parse().map_err(bad)?;
    let foreign = |what, found: String, given: String| DataDirError::Foreign {
        path: path.to_owned(),
        what,
        found,
        given,
    };
    if let (Some(given), Some(found)) = (cluster, found)
        && given != found
    {
        return Err(foreign("cluster", found.to_string(), given.to_string()));
    }
    if meta.node_id != node.0 {
        return Err(foreign("node", meta.node_id.to_string(), node.to_string()));
    }
    if found.is_none() && !joins {
        let what = "a node that was about to join a cluster created it, and it has no cluster_id; \
            set cluster.seeds, or remove the directory";
        return Err(bad(what.to_owned()));
    }
    Ok((found.or(cluster), directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use varve_vfs::RealVfs;

    fn open(path: &Path, node: i32, cluster: Option<u128>) -> Result<DataDir, DataDirError> {
        DataDir::open(
            Arc::new(RealVfs),
            path,
            NodeId(node),
            cluster.map(ClusterId),
            false,
        )
    }

    #[test]
    fn a_node_that_joins_learns_its_cluster_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let join = |given| DataDir::open(Arc::new(RealVfs), &path, NodeId(1), given, true);
        let fresh = join(None).unwrap();
        assert_eq!(fresh.cluster(), None);
        drop(fresh);
        // It waits for its cluster; to go on alone would make another one of it.
        let alone = open(&path, 1, None).map(drop).unwrap_err().to_string();
        assert!(alone.contains("cluster.seeds"), "{alone}");
        let mut joined = join(None).unwrap();
        joined.adopt(ClusterId(7)).unwrap();
        joined.adopt(ClusterId(7)).unwrap();
        let other = joined.adopt(ClusterId(8)).unwrap_err().to_string();
        assert!(other.contains("belongs to cluster"), "{other}");
        drop(joined);
        assert_eq!(join(None).unwrap().cluster(), Some(ClusterId(7)));
        let other = join(Some(ClusterId(8))).map(drop).unwrap_err().to_string();
        assert!(other.contains("nothing was changed"), "{other}");
    }

    /// Every later program must read this file as it reads it today.
    #[test]
    fn the_golden_identity_is_read_and_written_as_it_is() {
        let golden = include_str!("../testdata/meta.toml");
        let meta = Meta::parse(golden.as_bytes()).unwrap();
        assert_eq!(meta.text().as_deref(), Ok(golden));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
        std::fs::write(path.join("meta.toml"), golden).unwrap();
        let cluster = "4f9c1c1e-5d0b-4c3c-9d3a-2f8f6f0f7a11".parse().ok();
        assert!(cluster.is_some());
        assert_eq!(open(&path, 1, None).unwrap().cluster(), cluster);
    }

    #[test]
    fn identity_is_made_once_and_checked_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let made = open(&path, 1, Some(5)).unwrap();
        assert_eq!(made.cluster(), Some(ClusterId(5)));
        assert!(!made.clean());
        drop(made);
        assert_eq!(open(&path, 1, None).unwrap().cluster(), Some(ClusterId(5)));
        let error = open(&path, 1, Some(6)).unwrap_err().to_string();
        assert!(error.contains("belongs to cluster") && error.contains("nothing was changed"));
        let error = open(&path, 2, None).unwrap_err().to_string();
        assert!(error.contains("belongs to node 1, not 2"), "{error}");
    }

    #[test]
    fn a_second_process_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let _first = open(&path, 1, None).unwrap();
        let error = open(&path, 1, None).unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(error, format!("{} is in use by pid {pid}", path.display()));
    }

    #[test]
    fn whose_a_directory_is_can_be_asked_without_taking_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        assert_eq!(owner(&path).unwrap(), None);
        assert!(!path.exists(), "looking makes nothing");
        let held = open(&path, 3, Some(5)).unwrap();
        let error = owner(&path).unwrap_err().to_string();
        assert!(error.contains("is in use by pid"), "{error}");
        drop(held);
        let expected = Owner {
            node: NodeId(3),
            cluster: Some(ClusterId(5)),
        };
        assert_eq!(owner(&path).unwrap(), Some(expected));
        std::fs::write(path.join("meta.toml"), "garbage").unwrap();
        assert!(matches!(
            owner(&path),
            Err(DataDirError::BadIdentity { .. })
        ));
    }

    #[test]
    fn the_clean_mark_is_used_up_by_the_start_that_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        open(&path, 1, None).unwrap().mark_clean().unwrap();
        assert!(open(&path, 1, None).unwrap().clean());
        assert!(!open(&path, 1, None).unwrap().clean());
    }

    #[test]
    fn open_doors_and_unreadable_identities_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        drop(open(&path, 1, None).unwrap());
        std::fs::write(path.join("meta.toml"), "garbage").unwrap();
        assert!(matches!(
            open(&path, 1, None),
            Err(DataDirError::BadIdentity { .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            open(&path, 1, None),
            Err(DataDirError::WorldWritable { .. })
        ));
    }
}
