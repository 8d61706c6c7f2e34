//! The seam to the operating system: files, sync, time, and whether there are threads. Everything above this crate
//! names a disk only through [`Vfs`] and [`File`], so the same code runs on a real disk ([`RealVfs`]), on one that is
//! told when to fail ([`fault::FaultVfs`]), and on one that forgets unsynced bytes ([`mem::MemVfs`]).
//!
//! Invariants: an error names the operation and the path; a write that returned `Ok` was complete; nothing
//! is called durable before `sync_data`/`sync_all` of the file *and* `sync_dir` of its directory returned.
//! It never knows what a log is, and never retries a failed sync.

pub mod clock;
pub mod durable;
pub mod fault;
mod file;
pub mod mem;
pub mod paced;
mod real;
pub mod workers;

pub use clock::{Clock, ManualClock, SystemClock, Tick};
pub use file::{DirEntry, File, LockError, LockGuard, Mapped, Space, Vfs, VfsError};
pub use paced::PacedVfs;
pub use real::RealVfs;
pub use workers::{Pace, Workers};
