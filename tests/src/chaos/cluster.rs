//! The nodes: real processes, each with a disk of its own if the machine lends one.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{Disk, Frozen, Tracer, skipped};
use crate::node::http_get_at;
use crate::wait;

use super::{Ground, Random, say};

/// Size of a node's file system, in MiB.
const DISK_MIB: u32 = 512;

/// One node.
#[derive(Debug)]
pub struct Member {
    child: Option<Child>,
    disk: Option<Disk>,
    dir: PathBuf,
    log: PathBuf,
    paused: bool,
    tracer: Option<Tracer>,
    frozen: Option<Frozen>,
    /// Environment of its next start beside the configuration.
    extra: Vec<(String, String)>,
    /// Its end is no surprise.
    may_end: bool,
}

/// All nodes.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    /// Where they stand.
    pub ground: Ground,
    // Goes last, after the disks in it.
    home: tempfile::TempDir,
}

fn signal(child: &Child, signal: Signal) {
    let _ = kill_process(Pid::from_child(child), signal);
}

#[allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "test harness"
)]
impl Cluster {
    /// Makes room for the nodes on a ground; none runs yet.
    #[must_use]
    pub fn new(ground: Ground, nodes: usize) -> Self {
        // Building it takes longer than any node may take to start: no clock runs here.
        crate::varve();
        let home = tempfile::Builder::new()
            .prefix("varve-chaos-")
            .tempdir()
            .expect("a temporary directory");
        let with_disks = !skipped("faults of disks and power");
        let members = (0..nodes).map(|node| {
            let disk = with_disks.then(|| Disk::new(DISK_MIB, "ordered"));
            let own = home.path().join(format!("node-{}", node + 1));
            let dir = disk.as_ref().map_or(own, |disk| disk.path().join("data"));
            Member {
                child: None,
                disk,
                dir,
                log: home.path().join(format!("node-{}.log", node + 1)),
                paused: false,
                tracer: None,
                frozen: None,
                extra: Vec::new(),
                may_end: false,
            }
        });
        let members = members.collect();
        Self {
            members,
            ground,
            home,
        }
    }

    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Addresses for clients.
    #[must_use]
    pub fn brokers(&self) -> Vec<String> {
        (0..self.len())
            .map(|n| self.ground.advertised_client(n))
            .collect()
    }

    /// Addresses for Kafka's clients.
    #[must_use]
    pub fn kafka(&self) -> Vec<String> {
        (0..self.len())
            .map(|n| self.ground.advertised_kafka(n))
            .collect()
    }

    /// Whether nodes have disks that can be broken.
    #[must_use]
    pub fn has_disks(&self) -> bool {
        self.members.iter().all(|member| member.disk.is_some())
    }

    /// The configuration of a node: the one place that knows its keys.
    fn config(&self, node: usize) -> Vec<(String, String)> {
        let ground = &self.ground;
        let mut keys = vec![
            ("node.id", (node + 1).to_string()),
            (
                "storage.data_dir",
                self.members[node].dir.display().to_string(),
            ),
            ("storage.min_free_bytes", "0".to_owned()),
            ("storage.min_free_percent", "0".to_owned()),
            ("journal.max.bytes", "16MiB".to_owned()),
            ("offsets.topic.num.partitions", "3".to_owned()),
            ("transaction.state.log.num.partitions", "3".to_owned()),
            ("group.session.timeout.ms", "3000".to_owned()),
            ("group.heartbeat.interval.ms", "500".to_owned()),
            ("listeners.client.address", ground.client(node)),
            (
                "listeners.client.advertised_address",
                ground.advertised_client(node),
            ),
            ("listeners.client.tls.mode", "insecure".to_owned()),
            ("listeners.kafka.address", ground.kafka(node)),
            (
                "listeners.kafka.advertised_address",
                ground.advertised_kafka(node),
            ),
            ("listeners.kafka.tls.mode", "insecure".to_owned()),
            ("http.address", ground.http(node)),
            ("shutdown.drain_grace", "0s".to_owned()),
        ];
        if self.len() > 1 {
            let all = (0..self.len()).map(|n| ground.advertised_peer(n));
            let seeds = all.collect::<Vec<_>>().join(",");
            keys.extend([
                ("cluster.seeds", seeds),
                ("cluster.bootstrap_expect", self.len().to_string()),
                ("listeners.peer.address", ground.peer(node)),
                ("listeners.peer.tls.mode", "insecure".to_owned()),
                (
                    "listeners.peer.advertised_address",
                    ground.advertised_peer(node),
                ),
            ]);
        }
        let variable = |name: &str| varve_server::config::keys::variable(name);
        keys.into_iter()
            .map(|(name, value)| (variable(name), value))
            .collect()
    }

    /// Starts a node that does not run.
    pub fn start(&mut self, node: usize) {
        if self.members[node].child.is_some() {
            return;
        }
        let mut command = self.ground.command(node, &crate::varve());
        // Nothing of whoever runs the test may configure it.
        for (name, _) in
            std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("VARVE_"))
        {
            command.env_remove(name);
        }
        let config = self.config(node);
        let member = &mut self.members[node];
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&member.log);
        let log: File = log.expect("the log of a node");
        let child = command
            .arg("server")
            .envs(config)
            .envs(member.extra.iter().map(|(k, v)| (k, v)))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        member.child = Some(child.expect("varve server starts"));
        member.may_end = false;
    }

    /// Whether a node says that it is ready.
    #[must_use]
    pub fn is_ready(&self, node: usize) -> bool {
        let address: Option<SocketAddr> = self.ground.http(node).parse().ok();
        let answer = address.and_then(|address| http_get_at(address, "/readyz"));
        answer.is_some_and(|(status, _)| status == 200)
    }

    /// Starts what does not run and waits until all are ready.
    ///
    /// # Errors
    /// Who was not, within the time.
    pub fn start_all(&mut self, within: Duration) -> Result<(), String> {
        let end = std::time::Instant::now() + within;
        loop {
            // A node whose disk has failed may have been about to end.
            (0..self.len()).for_each(|node| self.start(node));
            let late: Vec<usize> = (0..self.len()).filter(|n| !self.is_ready(*n)).collect();
            if late.is_empty() {
                return Ok(());
            }
            if let Some(node) = self.ended_by_itself() {
                let log = self.log_tail(node);
                return Err(format!("node {} ended by itself:\n{log}", node + 1));
            }
            if std::time::Instant::now() > end {
                let log = self.log_tail(late[0]);
                let late: Vec<usize> = late.iter().map(|n| n + 1).collect();
                return Err(format!(
                    "nodes {late:?} are not ready after {within:?}; the first says:\n{log}"
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A node that nobody ended and that runs no more; told once.
    pub fn ended_by_itself(&mut self) -> Option<usize> {
        for (node, member) in self.members.iter_mut().enumerate() {
            let ended = match &mut member.child {
                Some(child) => child.try_wait().ok().flatten().is_some(),
                None => false,
            };
            if ended {
                member.child = None;
                if !member.may_end {
                    return Some(node);
                }
            }
        }
        None
    }

    /// `kill -9`.
    pub fn kill(&mut self, node: usize) {
        let member = &mut self.members[node];
        member.paused = false;
        member.tracer = None;
        if let Some(mut child) = member.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; killed when it does not end within 30 seconds, which is `false`.
    pub fn stop(&mut self, node: usize) -> bool {
        let member = &mut self.members[node];
        let Some(child) = &mut member.child else {
            return true;
        };
        // Whoever is paused hears nothing: it goes on first.
        if std::mem::take(&mut member.paused) {
            signal(child, Signal::CONT);
        }
        signal(child, Signal::TERM);
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while std::time::Instant::now() < end {
            if child.try_wait().ok().flatten().is_some() {
                member.child = None;
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill(node);
        false
    }

    /// SIGSTOP, until [`Cluster::heal`].
    pub fn pause(&mut self, node: usize) {
        let member = &mut self.members[node];
        if let Some(child) = &member.child {
            signal(child, Signal::STOP);
            member.paused = true;
        }
    }

    /// Cuts the power of some nodes at one moment.
    pub fn cut_power(&mut self, nodes: &[usize]) {
        let mut switches = Vec::new();
        for node in nodes {
            let member = &self.members[*node];
            if let (Some(disk), Some(child)) = (&member.disk, &member.child) {
                switches.push((disk.arm(), child.id()));
            }
        }
        for (switch, pid) in switches {
            switch.cut(pid);
        }
        for node in nodes {
            self.kill(*node);
            if let Some(disk) = &self.members[*node].disk {
                disk.power_on();
            }
        }
    }

    /// Every write to the disk of a node hangs, until healed.
    pub fn hang_disk(&mut self, node: usize, most: Duration) {
        let member = &mut self.members[node];
        // A frozen one cannot be frozen again: it thaws first.
        member.frozen = None;
        if let Some(disk) = &member.disk {
            member.frozen = Some(disk.freeze_for(most));
        }
    }

    /// Leaves a node no space, until healed.
    pub fn fill_disk(&mut self, node: usize) {
        // One that is just starting says that it cannot, and ends.
        self.members[node].may_end |= !self.is_ready(node);
        let Some(disk) = &self.members[node].disk else {
            return;
        };
        let Ok(mut file) = File::create(disk.path().join("filler")) else {
            return;
        };
        // Large pieces first, then what is left.
        for bytes in [1 << 20, 4 << 10, 64] {
            let zeros = vec![0x5a; bytes];
            while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
        }
    }

    /// Some system calls of a node are answered by a tracer, until healed. `inject` is strace's. `false`: it does
    /// not run.
    pub fn trace(&mut self, node: usize, calls: &str, inject: &str, may_end: bool) -> bool {
        let member = &mut self.members[node];
        if let Some(child) = &member.child {
            // One that is hit twice may still be about to end by the first.
            member.may_end |= may_end;
            member.tracer = Tracer::try_attach(child.id(), calls, &[], inject);
        }
        member.tracer.is_some()
    }

    /// The next starts of a node have this in their environment, until healed.
    pub fn set_extra(&mut self, node: usize, extra: Vec<(String, String)>) {
        self.members[node].extra = extra;
    }

    /// Flips one bit of a segment that is not written any more, of a node that is down. What and where.
    pub fn flip_bit(&mut self, node: usize, topic: &str, random: &mut Random) -> Option<String> {
        let mut closed = Vec::new();
        for partition in topic_partitions(&self.members[node].dir, topic) {
            let mut segments = files(&partition, "log");
            segments.sort();
            segments.pop();
            closed.append(&mut segments);
        }
        closed.sort();
        let file = closed.get(random.index(closed.len()))?;
        let mut bytes = std::fs::read(file).ok()?;
        let at = random.index(bytes.len());
        let bit = random.below(8);
        *bytes.get_mut(at)? ^= 1 << bit;
        std::fs::write(file, bytes).ok()?;
        let name = file.strip_prefix(&self.members[node].dir).unwrap_or(file);
        Some(format!("bit {bit} of byte {at} of {}", name.display()))
    }

    /// Repairs nodes and disks: what is paused goes on, what is traced is let go, what hangs thaws, what is full
    /// has space. Nodes that are down stay down.
    pub fn heal(&mut self) {
        for member in &mut self.members {
            member.frozen = None;
            member.tracer = None;
            member.extra.clear();
            if let Some(disk) = &member.disk {
                let _ = std::fs::remove_file(disk.path().join("filler"));
            }
            if let (true, Some(child)) = (member.paused, &member.child) {
                signal(child, Signal::CONT);
            }
            member.paused = false;
        }
        if let Err(error) = self.ground.heal() {
            say(&format!("the network could not be repaired: {error}"));
        }
    }

    /// Lines of logs that no node may ever write.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (node, member) in self.members.iter().enumerate() {
            let text = std::fs::read_to_string(&member.log).unwrap_or_default();
            let bad = text.lines().filter(|line| line.contains("panicked at"));
            found.extend(bad.map(|line| format!("node {}: {line}", node + 1)));
        }
        found
    }

    /// The end of a node's log.
    #[must_use]
    pub fn log_tail(&self, node: usize) -> String {
        let text = std::fs::read_to_string(&self.members[node].log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Copies the logs of all nodes to a directory.
    pub fn keep_logs(&self, to: &Path) {
        for member in &self.members {
            if let Some(name) = member.log.file_name() {
                let _ = std::fs::copy(&member.log, to.join(name));
            }
        }
    }

    /// Ends all nodes.
    pub fn end(&mut self) {
        self.heal();
        (0..self.len()).for_each(|node| self.kill(node));
        wait::until("nodes to be gone", Duration::from_secs(10), || {
            self.members
                .iter()
                .all(|member| member.child.is_none())
                .then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.heal();
        (0..self.len()).for_each(|node| self.kill(node));
        let _ = &self.home;
    }
}

/// Directories of a topic's partitions.
fn topic_partitions(dir: &Path, topic: &str) -> Vec<PathBuf> {
    let entries = |dir: &Path| -> Vec<PathBuf> {
        let read = std::fs::read_dir(dir).into_iter().flatten().flatten();
        read.map(|entry| entry.path()).collect()
    };
    let of_topic = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("{topic}-"))
    };
    let topics = entries(&dir.join("topics"));
    topics
        .iter()
        .filter(|path| of_topic(path))
        .flat_map(|path| entries(path))
        .collect()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let read = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = read.map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect()
}
