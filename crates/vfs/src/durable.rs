//! Sequences of calls that leave durable results: the order is the point, so it is written once, here.
//! A crash at any step leaves the old content or the new one, never a mix.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use crate::file::{Vfs, VfsError};

/// Suffix of a file that is being written to replace another. Whoever opens a directory may delete these.
pub const TEMP_SUFFIX: &str = ".tmp";

fn temp_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMP_SUFFIX);
    PathBuf::from(name)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Replaces the content of `path`, or creates it, so that after `Ok` the new content survives a power
/// cut, and after a failure or a crash the old content is whole: temporary file, fsync, rename, fsync of
/// the directory.
///
/// # Errors
/// The step that failed. The temporary file is removed if it can be.
pub fn replace(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> Result<(), VfsError> {
    write_temp(vfs, path, bytes, true)?;
    vfs.sync_dir(parent(path))
}

/// As [`replace`], but syncs nothing: a process crash leaves the old or the new content, a power cut may
/// leave neither. Only for files that carry a checksum and can be derived again.
///
/// # Errors
/// The step that failed.
pub fn replace_unsynced(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> Result<(), VfsError> {
    write_temp(vfs, path, bytes, false)
}

fn write_temp(vfs: &dyn Vfs, path: &Path, bytes: &[u8], sync: bool) -> Result<(), VfsError> {
    let temp = temp_path(path);
    if vfs.exists(&temp)? {
        vfs.remove_file(&temp)?;
    }
    let write = || -> Result<(), VfsError> {
        let file = vfs.create_new(&temp)?;
        file.write_all_at(&[IoSlice::new(bytes)], 0)?;
        if sync {
            file.sync_all()?;
        }
        drop(file);
        vfs.rename(&temp, path)
    };
    let result = write();
    if result.is_err() {
        // Space may be the problem, so do not leave the half file lying about. Its own failure changes
        // nothing: the name is reserved for leftovers.
        let _ = vfs.remove_file(&temp);
    }
    result
}

/// Creates a directory and its missing parents, each durable in its parent. So is the deepest one that was
/// there: whoever made it may have died before its name was synced.
///
/// # Errors
/// The step that failed.
pub fn create_dir_all(vfs: &dyn Vfs, dir: &Path) -> Result<(), VfsError> {
    let mut missing = Vec::new();
    let mut at = dir;
    while !at.as_os_str().is_empty() && !vfs.exists(at)? {
        missing.push(at);
        match at.parent() {
            Some(up) => at = up,
            None => break,
        }
    }
    if !at.as_os_str().is_empty() && at.parent().is_some() {
        vfs.sync_dir(parent(at))?;
    }
    for made in missing.into_iter().rev() {
        vfs.create_dir_all(made)?;
        vfs.sync_dir(parent(made))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fault::{FaultVfs, Op};
    use crate::mem::MemVfs;

    #[test]
    fn replaced_content_survives_a_crash_at_every_step() {
        let dir = Path::new("/d");
        let path = dir.join("f");
        for step in 1..20 {
            let mem = Arc::new(MemVfs::new());
            create_dir_all(&*mem, dir).unwrap();
            replace(&*mem, &path, b"old").unwrap();
            let faults = FaultVfs::new(mem.clone());
            faults.fail_after(Op::Any, step, rustix::io::Errno::IO);
            let done = replace(&*faults, &path, b"newer").is_ok();
            mem.crash_losing_unsynced();
            let found = mem.read(&path).unwrap();
            if done {
                assert_eq!(found, b"newer");
                return;
            }
            assert!(
                found == b"old" || found == b"newer",
                "step {step}: {found:?}"
            );
        }
        panic!("replace never succeeded");
    }

    #[test]
    fn a_directory_that_a_dead_process_made_is_made_durable() {
        let mem = MemVfs::new();
        mem.create_dir_all(Path::new("/a")).unwrap();
        mem.kill_process();
        create_dir_all(&mem, Path::new("/a/b")).unwrap();
        mem.crash_losing_unsynced();
        assert!(mem.exists(Path::new("/a/b")).unwrap());
    }

    #[test]
    fn nested_directories_survive_a_crash() {
        let mem = MemVfs::new();
        create_dir_all(&mem, Path::new("/a/b/c")).unwrap();
        replace(&mem, Path::new("/a/b/c/f"), b"x").unwrap();
        mem.crash_losing_unsynced();
        assert_eq!(mem.read(Path::new("/a/b/c/f")).unwrap(), b"x");
    }
}
