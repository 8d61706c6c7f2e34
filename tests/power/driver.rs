//! `log-driver` as a child: its lines are kept as they come, because they are the oracle.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How the logs of a test are made.
#[derive(Debug, Clone)]
pub struct Shape {
    pub seed: u64,
    pub partitions: u32,
    pub segment_bytes: u64,
    pub batch_bytes: u64,
    /// The logs share a journal.
    pub journal: bool,
}

impl Shape {
    /// A command of `log-driver` on `dir`.
    pub fn arguments(&self, command: &str, dir: &Path) -> Vec<String> {
        let dir = dir.to_str().expect("plain names").to_owned();
        let numbers = [
            ("--seed", self.seed),
            ("--partitions", u64::from(self.partitions)),
            ("--segment-bytes", self.segment_bytes),
            ("--batch-bytes", self.batch_bytes),
        ];
        let mut all = vec![command.to_owned(), "--dir".to_owned(), dir];
        for (name, value) in numbers {
            all.extend([name.to_owned(), value.to_string()]);
        }
        if self.journal {
            all.push("--journal".to_owned());
        }
        all
    }

    /// What a crash left, held against the lines of all runs on `dir`.
    pub fn check(&self, dir: &Path, lines: &str) -> Outcome {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), lines).expect("the lines are written");
        let output = Command::new(program())
            .args(self.arguments("check", dir))
            .arg("--acks")
            .arg(file.path())
            .stderr(Stdio::piped())
            .output()
            .expect("log-driver runs");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        match output.status.code() {
            Some(0) => Outcome::Right(text),
            Some(4) => Outcome::Refused(text),
            _ => Outcome::Wrong(text),
        }
    }
}

/// How a check came out, with what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Right(String),
    /// A log was not opened, though everything acknowledged is intact.
    Refused(String),
    Wrong(String),
}

impl Outcome {
    /// What it printed; fails the test if a log was not right.
    pub fn right(self, what: &str, lines: &str) -> String {
        match self {
            Self::Right(text) => text,
            other => {
                let kept = std::env::temp_dir().join(format!(
                    "varve-lines-{}-{}",
                    std::process::id(),
                    lines.len()
                ));
                let _ = std::fs::write(&kept, lines);
                panic!(
                    "{what}: {other:#?}\nwhat the runs said is in {}",
                    kept.display()
                )
            }
        }
    }
}

/// Path of `log-driver`.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_log-driver")
}

/// A running `log-driver run`.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Everything it has said so far that was taken from it.
    pub said: String,
}

impl Driver {
    /// Starts it on `dir`: `ops` operations as run number `generation`.
    pub fn start(shape: &Shape, dir: &Path, generation: u32, ops: u64, hold: bool) -> Self {
        let mut command = Command::new(program());
        command.args(shape.arguments("run", dir));
        command.args(["--generation", &generation.to_string()]);
        command.args(["--ops", &ops.to_string()]);
        if hold {
            command.arg("--hold");
        }
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("log-driver starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let said = String::new();
        Self { child, lines, said }
    }

    /// Waits for a line; `false` when it ended before.
    pub fn wait_for(&mut self, mut wanted: impl FnMut(&str) -> bool) -> bool {
        loop {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) => {
                    let found = wanted(&line);
                    self.said.push_str(&line);
                    self.said.push('\n');
                    if found {
                        return true;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("log-driver says nothing more"),
            }
        }
    }

    /// Waits until it has said `count` more lines.
    pub fn wait_lines(&mut self, count: u64) -> bool {
        let mut seen = 0;
        self.wait_for(|_| {
            seen += 1;
            seen >= count
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`; returns everything it has said.
    pub fn kill(mut self) -> String {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
        self.wait_for(|_| false);
        std::mem::take(&mut self.said)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers that choose moments; the same for the same seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`, which is not 0 (xorshift).
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}
