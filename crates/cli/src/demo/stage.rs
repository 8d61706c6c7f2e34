//! What the demo runs on: a directory, a node and the members of a group, each a process of its own. All of it goes
//! when the stage is dropped, and also when the program panics: nothing is left behind.
//!
//! The processes get neither the variables `VARVE_...` nor the configuration files of the person who runs the demo.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use super::input::Line;
use super::members::{self, Event, FORMAT};
use super::{GROUP, TOPIC};
use crate::failure::{FAILED, Failure};
use crate::process::{Process, how_it_ended, is_ready, this_program};

/// A node that is not ready by then will not be.
const START: Duration = Duration::from_secs(60);
/// How often a node that starts is asked.
const ASK: Duration = Duration::from_millis(20);
/// Time that a member has to leave its group.
const LEAVE: Duration = Duration::from_secs(3);
/// Lines of a node's log that are kept, to explain a failure.
const LOG_LINES: usize = 50;
/// Room that the node needs beside the records: a journal, segments being filled, its metadata.
const ROOM: u64 = 96 * MIB;

/// Free space below which the node takes no records (`storage.min_free_bytes`).
const RESERVE: u64 = 16 * MIB;
const MIB: u64 = 1024 * 1024;

/// What must be gone in the end, also without the owner's help.
#[derive(Debug, Default)]
struct Remains {
    dir: PathBuf,
    processes: Vec<u32>,
}

type Shared = Arc<Mutex<Remains>>;

/// Kills and removes.
fn clear(remains: &Shared) {
    let mut remains = remains.lock().unwrap_or_else(PoisonError::into_inner);
    for id in std::mem::take(&mut remains.processes) {
        if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    // A process that is being killed may still create a file.
    for _ in 0..50 {
        let _ = std::fs::remove_dir_all(&remains.dir);
        if !remains.dir.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stage {
    remains: Shared,
    dir: PathBuf,
    ports: (u16, u16),
    node: Option<Process>,
    log: Arc<Mutex<VecDeque<String>>>,
    members: Vec<Process>,
}

impl Stage {
    /// Makes the directory, in the system's directory for temporary files.
    ///
    /// # Errors
    /// A sentence, when it cannot be made or has no room for that number of bytes.
    pub fn new(bytes: u64) -> Result<Self, Failure> {
        let parent = std::env::temp_dir();
        has_room(&parent, bytes)?;
        let dir = parent.join(format!("varve-demo-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).map_err(|error| unusable(&parent, &error))?;
        let remains = Shared::default();
        let lock = || remains.lock().unwrap_or_else(PoisonError::into_inner);
        lock().dir.clone_from(&dir);
        let (shared, before) = (Arc::clone(&remains), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            clear(&shared);
        }));
        Ok(Self {
            remains,
            dir,
            ports: two_ports(),
            node: None,
            log: Arc::default(),
            members: Vec::new(),
        })
    }

    /// Where the node serves clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.0)
    }

    fn http(&self) -> String {
        format!("127.0.0.1:{}", self.ports.1)
    }

    /// Takes other ports: another program was quicker.
    pub fn change_ports(&mut self) {
        self.kill_node();
        self.ports = two_ports();
    }

    /// Process id of the node.
    pub fn node_id(&self) -> u32 {
        self.node.as_ref().map_or(0, Process::id)
    }

    /// Starts the node, or starts it again on its directory and ports. It need not be ready yet.
    ///
    /// # Errors
    /// A sentence, when no process can be started.
    pub fn start_node(&mut self) -> Result<(), Failure> {
        let data = self.dir.join("node").to_string_lossy().into_owned();
        let (listen, http) = (self.address(), self.http());
        let reserve = format!("storage.min_free_bytes={RESERVE}");
        let mut arguments = vec![
            "server",
            "--dev",
            "--node-id=1",
            "--data-dir",
            &data,
            "--listen",
            &listen,
            "--http",
            &http,
        ];
        for setting in [
            "listeners.kafka.address=",
            "log.format=text",
            "log.filter=warn",
            &reserve,
            "journal.max.bytes=64MiB",
            "offsets.topic.num.partitions=1",
            // A member that is killed is missed soon, so that the others take over while one watches.
            "group.session.timeout.ms=3000",
            "group.heartbeat.interval.ms=500",
        ] {
            arguments.extend(["--set-config", setting]);
        }
        let mut command = clean(&arguments)?;
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut node = self.start(command)?;
        if let Some(stderr) = node.stderr() {
            let log = Arc::clone(&self.log);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    log.push_back(line);
                    if log.len() > LOG_LINES {
                        log.pop_front();
                    }
                }
            });
        }
        self.node = Some(node);
        Ok(())
    }

    /// Waits until the node takes requests.
    ///
    /// # Errors
    /// A sentence with the node's own words, when it ends or does not get there.
    pub async fn node_ready(&mut self) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + START;
        while !is_ready(&self.http()).await {
            self.check_node()?;
            if tokio::time::Instant::now() > deadline {
                let text = format!("the node was not ready within {} s", START.as_secs());
                return Err(Failure::new(FAILED, text));
            }
            tokio::time::sleep(ASK).await;
        }
        Ok(())
    }

    /// Whether the node takes requests right now.
    pub async fn node_is_ready(&self) -> bool {
        is_ready(&self.http()).await
    }

    /// # Errors
    /// A sentence with the node's own words, when it has ended unasked.
    pub fn check_node(&mut self) -> Result<(), Failure> {
        let Some(status) = self.node.as_mut().and_then(Process::ended) else {
            return Ok(());
        };
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let said = log
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix("error: "));
        let said = said.map_or_else(String::new, |said| format!(": {said}"));
        let how = how_it_ended(status);
        Err(Failure::new(FAILED, format!("the node {how}{said}")))
    }

    /// # Errors
    /// A sentence, when something else has filled the disk: the node would take no more records.
    pub fn check_disk(&self) -> Result<(), Failure> {
        // A disk that does not answer is the node's to complain about.
        let Ok(free) = free_bytes(&self.dir) else {
            return Ok(());
        };
        if free >= RESERVE {
            return Ok(());
        }
        let text = format!(
            "the disk of {} has filled up: {} MiB are free; the node was stopped and its files were removed; make room \
             or name another place with TMPDIR",
            self.dir.parent().unwrap_or(&self.dir).display(),
            free / MIB
        );
        Err(Failure::new(FAILED, text))
    }

    /// `kill -9` of the node.
    pub fn kill_node(&mut self) {
        if let Some(mut node) = self.node.take() {
            node.kill();
            self.forget(node.id());
        }
    }

    /// Starts the members of the group; what they print arrives as events.
    ///
    /// # Errors
    /// A sentence, when no process can be started.
    pub fn start_members(
        &mut self,
        count: usize,
        lines: &Arc<[Line]>,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), Failure> {
        let address = self.address();
        let empty = "/dev/null";
        let arguments = [
            "-q", "-b", &address, "-F", empty, "consume", "-g", GROUP, TOPIC, "-f", FORMAT,
        ];
        for number in 0..count {
            let mut command = clean(&arguments)?;
            command.stdout(Stdio::piped()).stderr(Stdio::null());
            let mut member = self.start(command)?;
            if let Some(stdout) = member.stdout() {
                let (lines, events) = (Arc::clone(lines), events.clone());
                std::thread::spawn(move || members::follow(number, stdout, &lines, &events));
            }
            self.members.push(member);
        }
        Ok(())
    }

    /// `kill -9` of a member; returns its process id.
    pub fn kill_member(&mut self, number: usize) -> u32 {
        let member = &mut self.members[number];
        member.kill();
        let id = member.id();
        self.forget(id);
        id
    }

    /// # Errors
    /// A sentence, when a member has ended that was not killed here.
    pub fn check_members(&mut self, killed: Option<usize>) -> Result<(), Failure> {
        for (number, member) in self.members.iter_mut().enumerate() {
            if let Some(status) = member.ended().filter(|_| killed != Some(number)) {
                let how = how_it_ended(status);
                return Err(Failure::new(
                    FAILED,
                    format!("consumer {} {how}", number + 1),
                ));
            }
        }
        Ok(())
    }

    /// Asks the members that run to leave the group, and waits until they have ended.
    pub async fn end_members(&mut self) {
        self.members.iter_mut().for_each(Process::terminate);
        for member in &mut self.members {
            if member.wait(LEAVE).await.is_none() {
                member.kill();
            }
        }
    }

    fn start(&self, command: Command) -> Result<Process, Failure> {
        let process = Process::start(command)
            .map_err(|error| Failure::new(FAILED, format!("no process can be started: {error}")))?;
        let mut remains = self.remains.lock().unwrap_or_else(PoisonError::into_inner);
        remains.processes.push(process.id());
        Ok(process)
    }

    /// It has ended: its number may belong to another process soon.
    fn forget(&self, id: u32) {
        let mut remains = self.remains.lock().unwrap_or_else(PoisonError::into_inner);
        remains.processes.retain(|other| *other != id);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Each is killed and waited for, so that none writes into the directory any more.
        self.node = None;
        self.members.clear();
        let mut remains = self.remains.lock().unwrap_or_else(PoisonError::into_inner);
        remains.processes.clear();
        drop(remains);
        clear(&self.remains);
    }
}

/// A command of this program that knows nothing of the person's own settings.
fn clean(arguments: &[&str]) -> Result<Command, Failure> {
    let mut command = this_program(arguments)?;
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("VARVE_") {
            command.env_remove(variable);
        }
    }
    command.env_remove("RUST_LOG");
    Ok(command)
}

fn unusable(dir: &Path, error: &std::io::Error) -> Failure {
    let text = format!(
        "no directory can be made in {}: {error}; name another place with TMPDIR; nothing was started",
        dir.display()
    );
    Failure::new(FAILED, text)
}

/// What a program without special rights may still write there.
fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn has_room(dir: &Path, bytes: u64) -> Result<(), Failure> {
    let free = free_bytes(dir).map_err(|error| unusable(dir, &error))?;
    let needed = ROOM + bytes.saturating_mul(3);
    if free < needed {
        return Err(Failure::new(
            FAILED,
            format!(
                "the disk of {} is too full: the demo needs {} MiB and {} MiB are free; name another place with \
                 TMPDIR; nothing was started",
                dir.display(),
                needed.div_ceil(MIB),
                free / MIB
            ),
        ));
    }
    Ok(())
}

fn two_ports() -> (u16, u16) {
    let first = free_port();
    loop {
        let second = free_port();
        if second != first {
            return (first, second);
        }
    }
}

/// A port without a listener. Below those that the system gives to outgoing connections, so that it is still free
/// when the killed node comes back to it.
fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u128 = 22_000;
    loop {
        let step = u16::try_from(uuid::Uuid::new_v4().as_u128() % COUNT).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", FIRST + step)).is_ok() {
            return FIRST + step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_no_process_and_no_directory() {
        let dir = std::env::temp_dir().join(format!("varve-demo-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("file"), "x").unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let remains: Shared = Arc::new(Mutex::new(Remains {
            dir: dir.clone(),
            processes: vec![child.id()],
        }));
        // The hook does no more than this.
        clear(&remains);
        assert!(!dir.exists());
        assert_eq!(
            how_it_ended(child.wait().unwrap()),
            "was killed by signal 9"
        );
    }

    #[test]
    fn a_disk_that_is_too_full_is_refused_with_what_is_needed() {
        let failure = has_room(&std::env::temp_dir(), u64::MAX / 8).unwrap_err();
        assert!(failure.message.contains("is too full"), "{failure:?}");
        assert!(failure.message.contains("TMPDIR"), "{failure:?}");
        assert!(has_room(Path::new("/nonexistent"), 0).is_err());
    }
}
