//! A server of our own, as its own process, next to this program.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A server that ends with this value.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    /// Starts `varve` from the directory of this program on `dir`.
    pub fn start(dir: &Path) -> Result<Self> {
        let exe = std::env::current_exe()?;
        let varve = exe.with_file_name("varve");
        let (client, http) = (free_port()?, free_port()?);
        let address = format!("127.0.0.1:{client}");
        let child = Command::new(&varve)
            .arg("server")
            .env("VARVE_NODE__ID", "1")
            .env("VARVE_STORAGE__DATA_DIR", dir)
            .env("VARVE_STORAGE__MIN_FREE_BYTES", "0")
            .env("VARVE_LISTENERS__CLIENT__ADDRESS", &address)
            .env("VARVE_HTTP__ADDRESS", format!("127.0.0.1:{http}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| {
                format!(
                    "start {} (build it with cargo build --release)",
                    varve.display()
                )
            })?;
        let mut server = Self { child, address };
        let started = Instant::now();
        while std::net::TcpStream::connect(&server.address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended at start: {status}");
            }
            if started.elapsed() > Duration::from_secs(30) {
                bail!("the server did not open its port");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
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

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
