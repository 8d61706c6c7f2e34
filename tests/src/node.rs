//! A node as a child process on ports of its own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::wait;

/// A running (or killed) node.
#[derive(Debug)]
pub struct Node {
    child: Option<Child>,
    dir: PathBuf,
    client_port: u16,
    http_port: u16,
    env: Vec<(String, String)>,
    /// CA that clients trust, where the node speaks TLS.
    client_ca: Option<PathBuf>,
    /// Where it logs to, if that is kept.
    log: Option<PathBuf>,
    /// The program, if it is not the one under test.
    program: Option<PathBuf>,
}

/// A port that nobody listens at. Below those that the system gives to outgoing connections, so that it is
/// still free when a killed node comes back to it.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        // Suites that run at the same time begin at different places.
        let at = std::process::id().wrapping_mul(97).wrapping_add(step) % u32::from(COUNT);
        let port = FIRST + u16::try_from(at).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[allow(clippy::expect_used, reason = "test harness")]
impl Node {
    /// Starts a node on `dir` and waits until it is ready.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// Starts a node with further environment and waits until it is ready.
    pub fn start_with(dir: &Path, env: &[(&str, &str)]) -> Self {
        let mut node = Self::prepare(dir, env);
        node.restart();
        node
    }

    /// A node that does not run yet.
    pub fn prepare(dir: &Path, env: &[(&str, &str)]) -> Self {
        Self {
            child: None,
            dir: dir.to_owned(),
            client_port: free_port(),
            http_port: free_port(),
            client_ca: None,
            log: None,
            program: None,
            env: env
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        }
    }

    /// The command that starts this node.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.program.clone().unwrap_or_else(crate::varve));
        command
            .arg("server")
            .env("VARVE_NODE__ID", "1")
            .env("VARVE_STORAGE__DATA_DIR", &self.dir)
            .env("VARVE_STORAGE__MIN_FREE_BYTES", "0")
            .env("VARVE_LISTENERS__CLIENT__ADDRESS", self.address())
            .env("VARVE_LISTENERS__CLIENT__TLS__MODE", "insecure")
            .env("VARVE_LISTENERS__PEER__TLS__MODE", "insecure")
            .env(
                "VARVE_HTTP__ADDRESS",
                format!("127.0.0.1:{}", self.http_port),
            )
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(path) = &self.log {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path);
            command.stderr(file.expect("a file for the log"));
        } else if std::env::var_os("VARVE_TEST_LOGS").is_none() {
            command.stderr(Stdio::null());
        }
        command
    }

    /// Starts the node again on the same directory and ports, and waits until it is ready.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    /// Starts the process.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the node runs");
        self.child = Some(self.command().spawn().expect("varve server starts"));
    }

    /// Waits until the node takes requests.
    pub fn wait_ready(&mut self) {
        wait::until("the node to be ready", Duration::from_secs(60), || {
            if let Some(child) = &mut self.child {
                let ended = child.try_wait().expect("the state of the node");
                assert!(ended.is_none(), "the node ended at start: {ended:?}");
            }
            (http_get(self.http_port, "/readyz")?.0 == 200).then_some(())
        });
    }

    /// Whether the process runs.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Port of metrics and health.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// Keeps what the node logs, from the next start on, in a file.
    pub fn keep_log(&mut self, path: &Path) {
        self.log = Some(path.to_owned());
    }

    /// What the node has logged since it is kept.
    pub fn log(&self) -> String {
        let path = self.log.as_ref().expect("the log is kept");
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Waits until the log has a line that contains a text.
    pub fn logs(&self, text: &str) {
        let what = format!("the node to log {text:?}");
        wait::until(&what, Duration::from_secs(60), || {
            self.log().contains(text).then_some(())
        });
    }

    /// Runs another program from the next start on; `None`: the one under test.
    pub fn run_program(&mut self, program: Option<&Path>) {
        self.program = program.map(Path::to_owned);
    }

    /// Whether the node says that it takes requests.
    pub fn is_ready(&self) -> bool {
        http_get(self.http_port, "/readyz").is_some_and(|(status, _)| status == 200)
    }

    /// Waits until the process ends by itself.
    pub fn ends(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("the node runs");
        let ended = wait::until("the node to end", Duration::from_secs(120), || {
            child.try_wait().expect("the state of the node")
        });
        // Not before: one that does not end must go with the test.
        self.child = None;
        ended
    }

    /// Clients that are run against this node trust that CA from now on.
    pub fn trust(&mut self, ca: &Path) {
        self.client_ca = Some(ca.to_owned());
    }

    /// CA that clients trust, where the node speaks TLS.
    pub fn client_ca(&self) -> Option<&Path> {
        self.client_ca.as_deref()
    }

    /// The variable has this value from the next start on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.env.retain(|(known, _)| known != key);
        self.env.push((key.to_owned(), value.to_owned()));
    }

    /// Data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// SIGTERM; waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the node runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
        child.wait().expect("wait")
    }

    /// Status and body of a page of the HTTP port.
    pub fn get(&self, path: &str) -> (u16, String) {
        http_get(self.http_port, path).expect("the HTTP port answers")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A GET over a plain socket; `None` when nobody answers.
pub fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    http_get_at(SocketAddr::from(([127, 0, 0, 1], port)), path)
}

/// As [`http_get`], at any address.
pub fn http_get_at(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split_whitespace().nth(1)?.parse().ok()?;
    let body = answer
        .split_once("\r\n\r\n")
        .map_or(String::new(), |(_, body)| body.to_owned());
    Some((status, body))
}
