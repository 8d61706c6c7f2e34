//! What the kernel of this machine lends to the tests: a file system of their own on a loop device, a power cut
//! for it, a freeze, and a tracer that kills or lies at the N-th system call.
//!
//! Nothing outlives a test: a [`Disk`] unmounts when it goes, a frozen one is thawed by a watchdog whatever
//! happens, and what a killed run left behind is taken away by the next one.

#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "test harness"
)]

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use crate::wait;

const PREFIX: &str = "varve-power-";
/// Programs that the tests use beside the kernel.
const TOOLS: [&str; 7] = [
    "strace",
    "mkfs.ext4",
    "mount",
    "umount",
    "losetup",
    "fsfreeze",
    "perl",
];
/// `EXT4_IOC_SHUTDOWN` with flag 2: as if the power were cut now; not even the journal is written.
const CUT: &str = r#"open(my $d, "<", $ARGV[0]) or die "open: $!"; my $how = pack("I", 2);
$| = 1; print "ready\n"; <STDIN>; ioctl($d, 0x8004587d, $how) or die "shutdown: $!";"#;

/// Whether the full amount was asked for (`cargo xtask long power`).
pub fn full() -> bool {
    std::env::var("VARVE_TEST_POWER").is_ok_and(|v| v == "full")
}

/// How much to do: a sample, or all of it.
pub fn amount(sample: usize, all: usize) -> usize {
    if full() { all } else { sample }
}

/// Runs a program and returns its output.
///
/// # Errors
/// What it printed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{program} {}: {}",
        arguments.join(" "),
        error.trim()
    ))
}

fn str(path: &Path) -> &str {
    path.to_str()
        .expect("temporary directories have plain names")
}

/// Why this machine cannot do it, if it cannot. Looked at once.
fn missing() -> Option<&'static str> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    MISSING.get_or_init(look).as_deref()
}

fn look() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting and tracing need root".to_owned());
    }
    for tool in TOOLS {
        if run("sh", &["-c", &format!("command -v {tool}")]).is_err() {
            return Some(format!("{tool} is not installed"));
        }
    }
    sweep();
    match Disk::try_new(8, "ordered") {
        Ok(disk) => disk.arm().cut_now().err(),
        Err(error) => Some(error),
    }
}

/// Whether a test cannot run here; says so where it is seen. With `VARVE_TEST_REQUIRE_POWER` it fails instead.
pub fn skipped(test: &str) -> bool {
    let Some(why) = missing() else { return false };
    assert!(
        std::env::var_os("VARVE_TEST_REQUIRE_POWER").is_none(),
        "{test} cannot run: {why}"
    );
    // Written past the capture of the test runner: a skip must be seen.
    let text = format!("SKIPPED {test}: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    true
}

/// Takes away what runs that were killed have left.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for path in entries.flatten().map(|e| e.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let pid = name.strip_prefix(PREFIX).and_then(|n| n.split('-').next());
        let alive = |pid: &str| Path::new("/proc").join(pid).exists();
        if pid.is_some_and(|pid| !alive(pid)) {
            clear(&path);
        }
    }
}

/// Unmounts and removes what is in the directory of a [`Disk`].
fn clear(dir: &Path) {
    let (mount, image) = (dir.join("mount"), dir.join("image"));
    let _ = run("fsfreeze", &["-u", str(&mount)]);
    if run("umount", &[str(&mount)]).is_err() {
        let _ = run("umount", &["-l", str(&mount)]);
    }
    for line in run("losetup", &["-j", str(&image)])
        .unwrap_or_default()
        .lines()
    {
        if let Some((device, _)) = line.split_once(':') {
            let _ = run("losetup", &["-d", device]);
        }
    }
    let _ = std::fs::remove_dir_all(dir);
}

/// A file system of its own in an image file.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    data: &'static str,
}

impl Disk {
    /// Makes one of `mib` MiB, mounted with `data=ordered` or `data=writeback`.
    pub fn new(mib: u32, data: &'static str) -> Self {
        Self::try_new(mib, data).expect("a file system of our own")
    }

    /// As [`Disk::new`].
    ///
    /// # Errors
    /// Why this machine cannot.
    pub fn try_new(mib: u32, data: &'static str) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(dir.join("mount")).map_err(|e| e.to_string())?;
        let disk = Self { dir, data };
        let image = disk.dir.join("image");
        run("truncate", &["-s", &format!("{mib}M"), str(&image)])?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", str(&image)])?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        let options = format!("loop,data={}", self.data);
        let (image, path) = (self.dir.join("image"), self.path());
        run("mount", &["-o", &options, str(&image), str(&path)]).map(drop)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.join("mount")
    }

    /// Makes a power cut ready to happen at once.
    pub fn arm(&self) -> Switch {
        let mut child = Command::new("perl")
            .args(["-e", CUT, str(&self.path())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("perl starts");
        let mut ready = [0; 6];
        let stdout = child.stdout.as_mut().expect("stdout is piped");
        let _ = stdout.read_exact(&mut ready);
        Switch(child)
    }

    /// The power is back: unmounts, mounts again, which replays the file system's journal. Whoever had files
    /// open must be gone.
    pub fn power_on(&self) {
        let path = self.path();
        wait::until("the disk to be unmounted", Duration::from_secs(30), || {
            run("umount", &[str(&path)]).ok()
        });
        self.mount().expect("the disk can be mounted again");
    }

    /// Stops every write until what is returned goes, or ten seconds have passed.
    pub fn freeze(&self) -> Frozen {
        self.freeze_for(Duration::from_secs(10))
    }

    /// As [`Disk::freeze`], for another time at most.
    pub fn freeze_for(&self, most: Duration) -> Frozen {
        let path = self.path();
        run("fsfreeze", &["-f", str(&path)]).expect("the disk freezes");
        let (thaw, told) = mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            // Whether the test says so, panics or hangs: writers of a frozen disk cannot even be killed.
            let _ = told.recv_timeout(most);
            run("fsfreeze", &["-u", str(&path)]).expect("the disk thaws");
        });
        Frozen {
            thaw: Some(thaw),
            watchdog: Some(watchdog),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        clear(&self.dir);
    }
}

/// A power cut that is ready.
#[derive(Debug)]
pub struct Switch(std::process::Child);

impl Switch {
    /// Cuts the power under process `pid`, which gets no further, whatever its system calls say: one that is
    /// under way in that moment may come back with success and have done nothing, which without power
    /// nobody would ever learn.
    pub fn cut(self, pid: u32) {
        let pid = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stop");
        self.cut_now().expect("the power cut");
    }

    /// Cuts the power under whoever is there.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn cut_now(mut self) -> Result<(), String> {
        self.0.stdin = None;
        let output = self.0.wait_with_output().map_err(|e| e.to_string())?;
        let error = String::from_utf8_lossy(&output.stderr);
        let done = output.status.success();
        done.then_some(())
            .ok_or_else(|| format!("power cut: {error}"))
    }
}

/// A frozen disk; thaws when it goes.
#[derive(Debug)]
pub struct Frozen {
    thaw: Option<mpsc::Sender<()>>,
    watchdog: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw = None;
        if let Some(watchdog) = self.watchdog.take() {
            let _ = watchdog.join();
        }
    }
}

/// A tracer on a running process that answers some system calls itself.
#[derive(Debug)]
pub struct Tracer(std::process::Child);

impl Tracer {
    /// Attaches to `pid`, to all its threads. `files` are the only ones meant; `inject` is strace's.
    pub fn attach(pid: u32, calls: &str, files: &[&Path], inject: &str) -> Self {
        let attached = Self::try_attach(pid, calls, files, inject);
        attached.unwrap_or_else(|| panic!("strace did not attach to {pid}"))
    }

    /// As [`Tracer::attach`]; `None` when the process has just ended.
    pub fn try_attach(pid: u32, calls: &str, files: &[&Path], inject: &str) -> Option<Self> {
        use std::io::{BufRead as _, BufReader};
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string(), "-o", "/dev/null"]);
        command.args(["-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={inject}")]);
        for file in files {
            command.arg("-P").arg(file);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let attached = lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("attached"));
        if !attached {
            let _ = child.wait();
            return None;
        }
        // Kept open and empty: each new thread is a line.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self(child))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Asked to end, it lets go of the process; killed, it might not.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}
