//! A server of our own, as its own process, next to this program.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// A server that ends with this value.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: String,
    http: u16,
}

impl Server {
    /// Starts `varve` from the directory of this program on `dir`, and waits until its port is open.
    pub fn start(dir: &Path) -> Result<Self> {
        let mut server = Self::launch(dir, &[])?;
        let address = server.address.clone();
        server.wait(|| std::net::TcpStream::connect(&address).is_ok())?;
        Ok(server)
    }

    /// As [`Server::start`], and waits until it is ready, which takes the time that is returned.
    pub fn start_ready(dir: &Path) -> Result<(Self, Duration)> {
        let started = Instant::now();
        let mut server = Self::launch(dir, &[])?;
        server.wait_ready()?;
        Ok((server, started.elapsed()))
    }

    /// Waits until it takes requests.
    pub fn wait_ready(&mut self) -> Result<()> {
        let http = self.http;
        self.wait(|| is_ready(http))
    }

    /// Starts `varve` from the directory of this program on `dir` with further configuration.
    pub fn launch(dir: &Path, env: &[(&str, String)]) -> Result<Self> {
        let exe = std::env::current_exe()?;
        let varve = exe.with_file_name("varve");
        let (client, http) = (free_port()?, free_port()?);
        let address = format!("127.0.0.1:{client}");
        let mut command = Command::new(&varve);
        command
            .arg("server")
            .env("VARVE_NODE__ID", "1")
            .env("VARVE_STORAGE__DATA_DIR", dir)
            .env("VARVE_STORAGE__MIN_FREE_BYTES", "0")
            .env("VARVE_LISTENERS__CLIENT__ADDRESS", &address)
            .env("VARVE_LISTENERS__CLIENT__TLS__MODE", "insecure")
            .env("VARVE_HTTP__ADDRESS", format!("127.0.0.1:{http}"))
            .envs(env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if std::env::var_os("LOAD_SERVER_LOGS").is_none() {
            command.stderr(Stdio::null());
        }
        let child = command.spawn().with_context(|| {
            format!(
                "start {} (build it with the same profile: cargo build --profile dist -p varve-cli)",
                varve.display()
            )
        })?;
        Ok(Self {
            child,
            address,
            http,
        })
    }

    /// Asks for the metrics; how many bytes they are.
    pub async fn scrape(&self) -> Result<usize> {
        let http = self.http;
        let answer = tokio::task::spawn_blocking(move || get(http, "/metrics")).await??;
        ensure!(
            answer.starts_with("HTTP/1.1 200"),
            "{}",
            &answer[..answer.len().min(200)]
        );
        Ok(answer.len())
    }

    fn wait(&mut self, done: impl Fn() -> bool) -> Result<()> {
        let started = Instant::now();
        while !done() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at start: {status}");
            }
            if started.elapsed() > Duration::from_secs(300) {
                bail!("the server did not come up");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// SIGTERM; how long the server took to end.
    pub fn stop(mut self) -> Result<Duration> {
        let started = Instant::now();
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(started.elapsed())
    }

    /// A field of `/proc/PID/io` in bytes: `rchar` (all reads), `read_bytes` (from the disk).
    pub fn io(&self, field: &str) -> Result<u64> {
        let io = self.proc("io")?;
        let line = io.lines().find(|l| l.starts_with(field));
        let line = line.context("no such field")?;
        Ok(line.split_once(": ").context("no value")?.1.parse()?)
    }

    fn proc(&self, file: &str) -> Result<String> {
        Ok(std::fs::read_to_string(format!(
            "/proc/{}/{file}",
            self.child.id()
        ))?)
    }

    /// A field of `/proc/PID/status` in bytes: `VmRSS`, `VmHWM`.
    pub fn memory(&self, field: &str) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status
            .lines()
            .find(|l| l.starts_with(field))
            .context("no such field")?;
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .context("no value")?
            .parse()?;
        Ok(kib * 1024)
    }

    /// How often a thread of the process has slept so far, and been woken.
    pub fn wakes(&self) -> Result<u64> {
        let mut wakes = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end meanwhile.
            let status = std::fs::read_to_string(thread?.path().join("status"));
            let status = status.unwrap_or_default();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            wakes += line.map_or(Ok(0), |number| number.trim().parse::<u64>())?;
        }
        Ok(wakes)
    }

    /// CPU time used so far.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        // Fields are counted after the name, which may hold blanks.
        let rest = stat.rsplit_once(')').context("stat")?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_secs_f64(
            ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether `/readyz` says so.
fn is_ready(port: u16) -> bool {
    get(port, "/readyz").is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A port that nobody listens at. Below those that the system gives to outgoing connections: between this and
/// the start of a server no connection takes it.
pub fn free_port() -> Result<u16> {
    const FIRST: u16 = 24_000;
    const COUNT: u16 = 1_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        // Programs that run at the same time begin at different places.
        let at = std::process::id().wrapping_mul(97).wrapping_add(step) % u32::from(COUNT);
        let port = FIRST + u16::try_from(at)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port from {FIRST} to {} is free", FIRST + COUNT - 1)
}
