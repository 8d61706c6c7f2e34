//! The commands as people type them, against a node as a child process: flags, offsets, formats, exit
//! codes, what goes to which stream. One node serves the whole suite while tests run; tests that stop a
//! node start their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

#[path = "../../crates/tls/tests/support/ca.rs"]
mod ca;
mod cluster;
mod consume;
mod demo;
mod dev_nodes;
mod everyday;
mod formats;
mod full;
mod groups;
mod habits;
mod json;
mod later;
mod offline;
mod operator;
mod produce;
mod signals;
mod terminal;
mod tls;
mod topics;
mod wrong_port;

use std::io::Write as _;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use varve_tests::node::Node;

/// Far more than anything here takes; only a failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A node with a directory of its own.
pub struct Host {
    node: Node,
    _dir: tempfile::TempDir,
}

impl Host {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(dir.path());
        Self { node, _dir: dir }
    }
}

impl Deref for Host {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

/// The node that tests share. It ends with the last test that holds it.
pub fn node() -> Arc<Host> {
    static SHARED: Mutex<Weak<Host>> = Mutex::new(Weak::new());
    let mut shared = SHARED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    shared.upgrade().unwrap_or_else(|| {
        let host = Arc::new(Host::start());
        *shared = Arc::downgrade(&host);
        host
    })
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    code: Option<i32>,
    bytes: Vec<u8>,
    out: String,
    err: String,
}

/// One of the bundled programs.
pub fn program(name: &str) -> PathBuf {
    varve_tests::varve().with_file_name(name)
}

/// A command for a node at `address`, without the settings of whoever runs the tests.
pub fn command(name: &str, address: &str) -> Command {
    let mut command = Command::new(program(name));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("VARVE_") {
            command.env_remove(variable);
        }
    }
    command
        .env("VARVE_BROKERS", address)
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env_remove("RUST_LOG")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn finish(mut command: Command, input: Option<&[u8]>) -> Ran {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    let writer = input.map(|input| {
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
        // A child that stops reading early is judged by its exit code.
        std::thread::spawn(move || drop(stdin.write_all(&input)))
    });
    let output = child.wait_with_output().unwrap();
    if let Some(writer) = writer {
        writer.join().unwrap();
    }
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        bytes: output.stdout,
    }
}

/// Runs `varve`.
pub fn run(node: &Node, args: &[&str]) -> Ran {
    let mut command = command("varve", &node.address());
    command.args(args);
    finish(command, None)
}

/// Runs `varve` with bytes on standard input.
pub fn feed(node: &Node, args: &[&str], input: impl AsRef<[u8]>) -> Ran {
    let mut command = command("varve", &node.address());
    command.args(args);
    finish(command, Some(input.as_ref()))
}

/// Runs a command that needs no node.
pub fn alone(args: &[&str]) -> Ran {
    let mut command = command("varve", "127.0.0.1:1");
    command.args(args);
    finish(command, None)
}

impl Ran {
    /// Asserts that all went well without a word on standard error; returns standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.err, "", "{self:?}");
        self.out
    }

    /// Something, if it ended well.
    pub fn succeeded(&self) -> Option<()> {
        (self.code == Some(0)).then_some(())
    }

    /// Asserts the exit code, nothing on standard output, and one line of error; returns that line.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.out, "", "data only on standard output: {self:?}");
        self.error_line()
    }

    /// Asserts one line of error and returns it.
    #[track_caller]
    pub fn error_line(&self) -> String {
        assert!(self.err.starts_with("error: "), "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "one line: {self:?}");
        self.err.trim_end().to_owned()
    }

    /// Asserts that the command line was refused by the parser, which explains itself in several lines.
    #[track_caller]
    pub fn usage(self) -> String {
        assert_eq!(self.code, Some(2), "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        assert!(self.err.starts_with("error: "), "{self:?}");
        self.err
    }
}

/// Creates a topic that keeps records of any age.
#[track_caller]
pub fn create(node: &Node, topic: &str, partitions: u32) {
    let count = partitions.to_string();
    run(
        node,
        &[
            "topic",
            "create",
            topic,
            "-p",
            &count,
            "-c",
            "retention.ms=-1",
            "-q",
        ],
    )
    .ok();
}

/// All records of a topic, in a format.
#[track_caller]
pub fn read(node: &Node, topic: &str, format: &str) -> String {
    run(node, &["consume", topic, "-e", "-Z", "NULL", "-f", format]).ok()
}

/// The lines, sorted: partitions come in any order.
pub fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}
