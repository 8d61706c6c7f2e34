//! The real disk, by `rustix`. Files are 0640 and directories 0750. `EINTR` is retried, a short write is
//! continued, more than `IOV_MAX` buffers are split; a failed sync is reported and never repeated here.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::file::{DirEntry, File, LockError, LockGuard, Mapped, Space, Vfs, VfsError};

/// Most buffers the kernel takes in one call.
const IOV_MAX: usize = 1024;
/// Smaller files are copied into memory of the process instead of being mapped.
const MAPPED_MIN_BYTES: u64 = 256 * 1024;

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealVfs;

#[derive(Debug)]
struct RealFile {
    path: PathBuf,
    file: fs::File,
}

impl RealFile {
    fn err(&self, op: &'static str) -> impl Fn(Errno) -> VfsError + '_ {
        move |errno| VfsError::new(op, &self.path, errno)
    }

    /// One `preadv2` that appends to `buf`.
    fn read_once(
        &self,
        at: u64,
        len: usize,
        buf: &mut Vec<u8>,
        flags: ReadWriteFlags,
    ) -> Result<usize, Errno> {
        buf.reserve(len);
        let filled = buf.len();
        // SAFETY: the reserved memory past `len()` is ours and lives through the call. The kernel only
        // writes to it, and nothing reads it before `set_len` below covers what the kernel has filled.
        let spare = unsafe { std::slice::from_raw_parts_mut(buf.as_mut_ptr().add(filled), len) };
        let n = rustix::io::preadv2(&self.file, &mut [IoSliceMut::new(spare)], at, flags)?;
        assert!(n <= len, "the kernel read {n} bytes into a buffer of {len}");
        // SAFETY: the kernel has initialised `n` bytes after `filled`, within the capacity.
        unsafe { buf.set_len(filled + n) };
        Ok(n)
    }
}

impl File for RealFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_into(&self, at: u64, len: usize, buf: &mut Vec<u8>) -> Result<usize, VfsError> {
        let mut done = 0;
        while done < len {
            match self.read_once(at + done as u64, len - done, buf, ReadWriteFlags::empty()) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.err("read")(errno)),
            }
        }
        Ok(done)
    }

    fn read_into_nowait(
        &self,
        at: u64,
        len: usize,
        buf: &mut Vec<u8>,
    ) -> Result<Option<usize>, VfsError> {
        loop {
            match self.read_once(at, len, buf, ReadWriteFlags::NOWAIT) {
                Ok(n) => return Ok(Some(n)),
                Err(Errno::INTR) => {}
                // Not in memory, or a file system or kernel that does not know the flag.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    return Ok(None);
                }
                Err(errno) => return Err(self.err("read")(errno)),
            }
        }
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], mut at: u64) -> Result<(), VfsError> {
        let mut rest: &[IoSlice<'_>] = bufs;
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(rest.len().min(IOV_MAX));
            self.write_chunk(chunk, &mut at)?;
            rest = later;
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), VfsError> {
        // An interrupted fdatasync has reported nothing yet, so this is not a retry after a failure.
        rustix::io::retry_on_intr(|| rustix::fs::fdatasync(&self.file)).map_err(self.err("sync"))
    }

    fn sync_all(&self) -> Result<(), VfsError> {
        rustix::io::retry_on_intr(|| rustix::fs::fsync(&self.file)).map_err(self.err("sync"))
    }

    fn len(&self) -> Result<u64, VfsError> {
        let meta = self
            .file
            .metadata()
            .map_err(|e| VfsError::new("stat", &self.path, e))?;
        Ok(meta.len())
    }

    fn set_len(&self, len: u64) -> Result<(), VfsError> {
        self.file
            .set_len(len)
            .map_err(|e| VfsError::new("set the length of", &self.path, e))
    }

    fn map_read(&self) -> Result<Mapped, VfsError> {
        let len = self.len()?;
        if len < MAPPED_MIN_BYTES {
            let mut bytes = Vec::new();
            self.read_into(0, usize::try_from(len).unwrap_or(usize::MAX), &mut bytes)?;
            return Ok(Mapped::Owned(bytes));
        }
        self.sealed_copy(len).map(Mapped::Mmap)
    }

    fn drop_cache(&self, at: u64, len: u64) {
        use rustix::fs::{Advice, fadvise};
        // A length of 0 would mean "to the end".
        if let Some(len) = std::num::NonZeroU64::new(len) {
            // Advice: a file system that does not take it reads from memory, which is no failure.
            let _ = fadvise(&self.file, at, Some(len), Advice::DontNeed);
        }
    }

    fn write_back(&self, at: u64, len: u64) {
        // Before the kernel lets go of pages it begins to write the dirty ones, and does not wait for them:
        // those stay. The call that does only this is not portable.
        self.drop_cache(at, len);
    }

    fn readahead(&self, wanted: bool) {
        use rustix::fs::{Advice, fadvise};
        let advice = if wanted {
            Advice::Normal
        } else {
            Advice::Random
        };
        let _ = fadvise(&self.file, 0, None, advice);
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> Result<usize, VfsError> {
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pread(&self.file, &mut buf[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.err("read")(errno)),
            }
        }
        Ok(done)
    }
}

impl RealFile {
    /// The first `len` bytes in memory that has no name and is sealed: no process can shorten or change it.
    fn sealed_copy(&self, len: u64) -> Result<memmap2::Mmap, VfsError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("varve", flags).map_err(self.err("copy"))?;
        let mut at = 0;
        while at < len {
            let left = usize::try_from(len - at).unwrap_or(usize::MAX);
            match rustix::fs::sendfile(&memory, &self.file, Some(&mut at), left) {
                // The file was cut since its length was asked for.
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.err("copy")(errno)),
            }
        }
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memory, seals).map_err(self.err("copy"))?;
        // SAFETY: the mapping is read-only, and the seals, which cannot be taken off, keep the memory behind it
        // as long and as it is: no page of it can go away, and no byte of it can change.
        let map = unsafe { memmap2::Mmap::map(&fs::File::from(memory)) };
        map.map_err(|e| VfsError::new("map", &self.path, e))
    }

    /// Writes at most `IOV_MAX` buffers, continuing where a short write stopped.
    fn write_chunk(&self, chunk: &[IoSlice<'_>], at: &mut u64) -> Result<(), VfsError> {
        let total: usize = chunk.iter().map(|b| b.len()).sum();
        let mut done = 0;
        while done < total {
            let result = if done == 0 {
                rustix::io::pwritev(&self.file, chunk, *at)
            } else {
                let mut left: Vec<IoSlice<'_>> = chunk.to_vec();
                let mut view: &mut [IoSlice<'_>] = &mut left;
                IoSlice::advance_slices(&mut view, done);
                rustix::io::pwritev(&self.file, view, *at)
            };
            match result {
                Ok(0) => {
                    let zero = io::Error::from(io::ErrorKind::WriteZero);
                    return Err(VfsError::new("write", &self.path, zero));
                }
                Ok(n) => {
                    done += n;
                    *at += n as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.err("write")(errno)),
            }
        }
        Ok(())
    }
}

/// Options for files that exist: a link in the place of one of ours could lead anywhere, and a pipe in its
/// place would block the open for ever.
fn guarded() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.custom_flags(flags.bits().cast_signed());
    options
}

fn open(op: &'static str, path: &Path, options: &OpenOptions) -> Result<Arc<dyn File>, VfsError> {
    match options.open(path) {
        Ok(file) => Ok(Arc::new(RealFile {
            path: path.to_owned(),
            file,
        })),
        Err(e) if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            let text =
                "it is a symbolic link, and varve does not follow links; put the file itself there";
            Err(VfsError::new(op, path, io::Error::other(text)))
        }
        Err(e) => Err(VfsError::new(op, path, e)),
    }
}

impl Vfs for RealVfs {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        let mut options = OpenOptions::new();
        open(
            "create",
            path,
            options.read(true).write(true).create_new(true).mode(0o640),
        )
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        open("open", path, guarded().read(true).write(true))
    }

    fn open_read(&self, path: &Path) -> Result<Arc<dyn File>, VfsError> {
        open("open", path, guarded().read(true))
    }

    fn exists(&self, path: &Path) -> Result<bool, VfsError> {
        path.try_exists()
            .map_err(|e| VfsError::new("stat", path, e))
    }

    fn is_link(&self, path: &Path) -> Result<bool, VfsError> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(meta.is_symlink()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(VfsError::new("stat", path, e)),
        }
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>, VfsError> {
        let read = || -> io::Result<Vec<DirEntry>> {
            let mut entries = Vec::new();
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                // A file may vanish between the two calls: a background removal, say.
                let Ok(meta) = entry.metadata() else { continue };
                let len = if meta.is_dir() { 0 } else { meta.len() };
                entries.push(DirEntry {
                    name,
                    is_dir: meta.is_dir(),
                    len,
                });
            }
            entries.sort();
            Ok(entries)
        };
        read().map_err(|e| VfsError::new("list", dir, e))
    }

    fn create_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o750)
            .create(dir)
            .map_err(|e| VfsError::new("create", dir, e))
    }

    fn remove_file(&self, path: &Path) -> Result<(), VfsError> {
        fs::remove_file(path).map_err(|e| VfsError::new("remove", path, e))
    }

    fn remove_dir_all(&self, dir: &Path) -> Result<(), VfsError> {
        fs::remove_dir_all(dir).map_err(|e| VfsError::new("remove", dir, e))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), VfsError> {
        fs::rename(from, to).map_err(|e| VfsError::new("rename", from, e))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), VfsError> {
        let sync = || fs::File::open(dir)?.sync_all();
        sync().map_err(|e| VfsError::new("sync", dir, e))
    }

    fn free_space(&self, path: &Path) -> Result<Space, VfsError> {
        let s = rustix::fs::statvfs(path).map_err(|e| VfsError::new("stat", path, e))?;
        Ok(Space {
            total: s.f_blocks.saturating_mul(s.f_frsize),
            available: s.f_bavail.saturating_mul(s.f_frsize),
        })
    }

    fn is_of_this_machine(&self) -> bool {
        true
    }

    fn lock(&self, path: &Path) -> Result<LockGuard, LockError> {
        use rustix::fs::FlockOperation;
        let mut options = guarded();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640);
        let file = options
            .open(path)
            .map_err(|e| VfsError::new("open", path, e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN) => {
                let pid = fs::read_to_string(path)
                    .ok()
                    .and_then(|t| t.trim().parse().ok());
                let dir = path.parent().unwrap_or(path).to_owned();
                return Err(LockError::Held { dir, pid });
            }
            Err(errno) => return Err(VfsError::new("lock", path, errno).into()),
        }
        let write = || -> io::Result<()> {
            use std::os::unix::fs::FileExt;
            file.set_len(0)?;
            file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
        };
        write().map_err(|e| VfsError::new("write", path, e))?;
        Ok(LockGuard::new(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_outlives_what_others_do_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 100, MAPPED_MIN_BYTES as usize, 3 << 20] {
            let path = dir.path().join(format!("{len}"));
            let content: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let file = RealVfs.create_new(&path).unwrap();
            file.write_all_at(&[IoSlice::new(&content)], 0).unwrap();
            let map = file.map_read().unwrap();
            let is_mapped = matches!(map, Mapped::Mmap(_));
            assert_eq!(is_mapped, len as u64 >= MAPPED_MIN_BYTES);
            // As another process would: overwritten, then cut to nothing. Pages of a mapped file would be
            // other bytes now, and then a SIGBUS.
            let other = RealVfs.open_write(&path).unwrap();
            other
                .write_all_at(&[IoSlice::new(&vec![0xff; len])], 0)
                .unwrap();
            other.set_len(0).unwrap();
            assert!(map[..] == content[..], "{len} bytes");
        }
    }

    fn vfs() -> (tempfile::TempDir, RealVfs) {
        (tempfile::tempdir().unwrap(), RealVfs)
    }

    #[test]
    fn many_buffers_arrive_in_order() {
        let (dir, vfs) = vfs();
        let file = vfs.create_new(&dir.path().join("f")).unwrap();
        let parts: Vec<Vec<u8>> = (0..3000u32).map(|i| i.to_le_bytes().to_vec()).collect();
        let bufs: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        file.write_all_at(&bufs, 10).unwrap();
        assert_eq!(file.len().unwrap(), 10 + 12_000);
        let mut back = Vec::new();
        assert_eq!(file.read_into(10, 20_000, &mut back).unwrap(), 12_000);
        assert_eq!(back, parts.concat());
        let mut four = [0; 4];
        assert_eq!(file.read_at(10 + 4 * 7, &mut four).unwrap(), 4);
        assert_eq!(u32::from_le_bytes(four), 7);
        assert_eq!(file.map_read().unwrap()[10..], parts.concat()[..]);
    }

    #[test]
    fn nowait_gives_cached_bytes_or_says_it_would_block() {
        let (dir, vfs) = vfs();
        let file = vfs.create_new(&dir.path().join("f")).unwrap();
        file.write_all_at(&[IoSlice::new(b"hello")], 0).unwrap();
        let mut buf = b"> ".to_vec();
        match file.read_into_nowait(0, 100, &mut buf).unwrap() {
            Some(n) => assert_eq!((n, buf.as_slice()), (5, b"> hello".as_slice())),
            None => assert_eq!(buf, b"> "),
        }
    }

    #[test]
    fn links_are_refused_and_pipes_do_not_block() {
        let (dir, vfs) = vfs();
        let (path, link) = (dir.path().join("f"), dir.path().join("link"));
        vfs.create_new(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for error in [
            vfs.open_read(&link).unwrap_err(),
            vfs.open_write(&link).unwrap_err(),
        ] {
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
        assert!(
            vfs.lock(&link).is_err(),
            "a lock behind a link locks another directory"
        );
        assert!(vfs.is_link(&link).unwrap() && !vfs.is_link(&path).unwrap());
        assert!(!vfs.is_link(&dir.path().join("absent")).unwrap());
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(vfs.read(&pipe).is_ok_and(|b| b.is_empty()) || vfs.read(&pipe).is_err());
    }

    #[test]
    fn bytes_dropped_from_memory_are_read_from_the_disk() {
        let (dir, vfs) = vfs();
        let file = vfs.create_new(&dir.path().join("f")).unwrap();
        file.write_all_at(&[IoSlice::new(&[7; 10_000])], 0).unwrap();
        file.drop_cache(0, 10_000);
        file.sync_data().unwrap();
        file.drop_cache(0, 10_000);
        file.drop_cache(0, 0);
        let mut back = Vec::new();
        assert_eq!(file.read_into(0, 20_000, &mut back).unwrap(), 10_000);
        assert!(back.iter().all(|b| *b == 7));
    }

    #[test]
    fn second_lock_names_the_holder() {
        let (dir, vfs) = vfs();
        let path = dir.path().join("LOCK");
        let guard = vfs.lock(&path).unwrap();
        let error = vfs.lock(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("in use by pid {}", std::process::id())),
            "{error}"
        );
        drop(guard);
        vfs.lock(&path).unwrap();
    }

    #[test]
    fn errors_name_operation_and_path() {
        let (dir, vfs) = vfs();
        let path = dir.path().join("absent");
        let error = vfs.open_read(&path).unwrap_err();
        assert!(error.is_not_found());
        assert!(
            error
                .to_string()
                .starts_with(&format!("cannot open {}", path.display()))
        );
        vfs.create_new(&path).unwrap();
        assert!(
            vfs.create_new(&path).is_err(),
            "create_new must not open what exists"
        );
        assert!(vfs.free_space(dir.path()).unwrap().total > 0);
        assert_eq!(vfs.list(dir.path()).unwrap()[0].name, "absent");
    }
}
