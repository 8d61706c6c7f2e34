//! Child processes of this program that never outlive it.
//!
//! Every child gets a pipe as its standard input and reads it: the pipe closes when the parent ends, however it ends,
//! and the child then kills itself. A child leads a process group of its own, so that a Ctrl-C at the terminal
//! reaches the parent alone, which decides what becomes of the child.
//!
//! A child that is killed this way has had a crash, no clean shutdown: what a node has acknowledged is on its disk.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Set for children that watch their standard input. Not one of the variables `VARVE_...`, which configure a node.
const WATCHED: &str = "_VARVE_ENDS_WITH_PARENT";
/// How often a child that ends is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// The answer of `/readyz` is a few lines.
const ANSWER_MAX: u64 = 4096;

/// Makes this process end with its parent, if the parent asked for that. Called once, before anything else.
pub fn watch_parent() {
    if std::env::var_os(WATCHED).is_none() {
        return;
    }
    std::thread::spawn(|| {
        let mut part = [0; 64];
        loop {
            match std::io::stdin().read(&mut part) {
                Ok(1..) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        let _ = kill_process(getpid(), Signal::KILL);
    });
}

/// A child process. It is killed when the value is dropped.
#[derive(Debug)]
pub struct Process {
    child: std::process::Child,
    _lifeline: Option<ChildStdin>,
    ended: Option<ExitStatus>,
}

/// A command that runs this program.
///
/// # Errors
/// When the system cannot tell where this program is.
pub fn this_program<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

impl Process {
    /// Starts a command that runs this program.
    ///
    /// # Errors
    /// The system's.
    pub fn start(mut command: Command) -> std::io::Result<Self> {
        let mut child = command
            .env(WATCHED, "1")
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let lifeline = child.stdin.take();
        Ok(Self {
            child,
            _lifeline: lifeline,
            ended: None,
        })
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, if that is a pipe and was not taken yet.
    pub const fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard error, if that is a pipe and was not taken yet.
    pub const fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// SIGTERM, if it runs.
    pub fn terminate(&mut self) {
        if self.ended().is_none() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }

    /// SIGKILL, if it runs; returns when it has ended.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// Waits for its end; `None` when it still runs after `within`.
    pub async fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            let ended = self.ended();
            if ended.is_some() || Instant::now() >= deadline {
                return ended;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the node whose HTTP port is at `address` takes requests.
pub async fn is_ready(address: &str) -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let asked = tokio::time::timeout(Duration::from_secs(1), ask).await;
    matches!(asked, Ok(Ok(answer)) if answer.starts_with(b"HTTP/1") && answer.get(9..12) == Some(b"200"))
}

/// How a process ended, as a person says it.
#[must_use]
pub fn how_it_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(0), _) => "has stopped".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
