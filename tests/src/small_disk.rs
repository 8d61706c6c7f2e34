//! A disk so small that a test can fill it: a file system in memory. Needs root; a test that cannot have it says so
//! where it is seen and is left out.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// A small file system, unmounted at the end.
#[derive(Debug)]
pub struct SmallDisk(tempfile::TempDir);

#[allow(clippy::expect_used, reason = "test harness")]
impl SmallDisk {
    /// With these options of tmpfs. `None`, loudly, where mounting is not allowed.
    pub fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path());
        let done = command.output();
        if done.as_ref().is_ok_and(|o| o.status.success()) {
            return Some(Self(dir));
        }
        let text = "SKIPPED: a small tmpfs cannot be mounted here (root is needed)";
        // A closed terminal is no reason to fail.
        let _ = writeln!(std::io::stderr(), "\n{text}: {done:?}");
        None
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Whether it could be given other options.
    pub fn options(&self, options: &str) -> bool {
        let mut command = Command::new("mount");
        command
            .args(["-o", &format!("remount,{options}")])
            .arg(self.path());
        command.status().is_ok_and(|s| s.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        let _ = command.arg("-l").arg(self.0.path()).status();
    }
}
