//! `varve server --dev --nodes 3` as people type it: one cluster that survives a node, stopped with one key, and
//! started again on its directories; refused as a whole when one node could not start.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use varve_tests::node::free_port;
use varve_tests::wait;

use crate::{PATIENCE, Ran, command, finish, program};

/// Ports that nobody uses: gRPC at the first and ten higher for each further node, and so on.
fn ports() -> u16 {
    loop {
        let base = free_port();
        let offsets = [0, 1, 2, 3, 4, 5, 10, 11, 12, 20, 21, 22];
        let free = |offset: &u16| TcpListener::bind(("127.0.0.1", base + offset)).is_ok();
        if offsets.iter().all(free) {
            return base;
        }
    }
}

fn nodes(dir: &Path, base: u16, more: &[&str]) -> Command {
    let at = |offset: u16| format!("127.0.0.1:{}", base + offset);
    let mut command = command("varve", "127.0.0.1:1");
    command
        .args(["server", "--dev", "--nodes", "3", "--data-dir"])
        .arg(dir)
        .args(["--listen", &at(0), "--http", &at(1)])
        .args(["--set-config", &format!("listeners.peer.address={}", at(2))])
        .args([
            "--set-config",
            &format!("listeners.kafka.address={}", at(3)),
        ])
        .args(["--set-config", "storage.min_free_bytes=0"])
        .args(more);
    command
}

/// A running command with what it has printed on standard error.
struct Running {
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let error = BufReader::new(child.stderr.take().unwrap());
        let shown = Arc::<Mutex<String>>::default();
        let show = Arc::clone(&shown);
        std::thread::spawn(move || {
            for line in error.lines().map_while(Result::ok) {
                let mut show = show.lock().unwrap();
                show.push_str(&line);
                show.push('\n');
            }
        });
        Self { child, shown }
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    fn shows(&mut self, text: &str) -> String {
        let what = format!("{text:?}");
        wait::until(&what, PATIENCE * 3, || {
            let shown = self.shown();
            let ended = self.child.try_wait().unwrap();
            assert!(shown.contains(text) || ended.is_none(), "it ended: {shown}");
            shown.contains(text).then_some(shown)
        })
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ends(&mut self) -> Option<i32> {
        let ended = wait::until("the end", PATIENCE * 2, || self.child.try_wait().unwrap());
        ended.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Process id of a node, from the table.
fn pid(shown: &str, node: usize) -> String {
    let row = shown.lines().find(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(&node.to_string()) && line.contains("http://")
    });
    row.and_then(|row| row.split_whitespace().nth(1))
        .unwrap()
        .to_owned()
}

/// A line as one types it into a shell, with `varve` on the path.
fn shell(brokers: &str, line: &str) -> Ran {
    let bin = program("varve").parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .env("PATH", path)
        .env("VARVE_BROKERS", brokers)
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    finish(command, None)
}

fn active(brokers: &str) -> usize {
    let ran = shell(brokers, "varve cluster metadata -o json");
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_default();
    let nodes = json["nodes"].as_array().cloned().unwrap_or_default();
    let active = nodes
        .iter()
        .filter(|node| node["state"] == "NODE_STATE_ACTIVE");
    active.count()
}

#[test]
fn three_nodes_are_one_cluster_that_survives_one() {
    let dir = tempfile::tempdir().unwrap();
    let base = ports();
    let data = dir.path().join("data");
    let mut all = Running::start(nodes(&data, base, &[]));
    let shown = all.shows("varve consume orders -e | wc -l");
    for part in [
        "varve is ready: 3 nodes, one cluster",
        "\nnode-1 | ",
        "\nnode-3 | ",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    let brokers = [0, 10, 20]
        .map(|n| format!("127.0.0.1:{}", base + n))
        .join(",");
    assert!(
        shown.contains(&format!("export VARVE_BROKERS={brokers}\n")),
        "{shown}"
    );
    let second = pid(&shown, 2);
    assert!(shown.contains(&format!("kill {second}  ")), "{shown}");

    // The lines of the banner and of the README.
    shell(
        &brokers,
        "varve topic create orders -p 6 && seq 1000 | varve produce orders",
    )
    .succeeded()
    .unwrap();
    let line = format!("kill {second} && seq 1001 2000 | varve produce orders");
    let ran = shell(&brokers, &line);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = shell(&brokers, "varve consume orders -e | sort -n | uniq | wc -l");
    assert_eq!(ran.out.trim(), "2000", "{ran:?}");

    let mut second = starts_again(&mut all, &second);
    wait::until("three active nodes", PATIENCE, || {
        (active(&brokers) == 3).then_some(())
    });

    // An interrupt stops those that were started together, and no other.
    all.signal(Signal::INT);
    assert_eq!(all.ends(), Some(0), "{}", all.shown());
    assert!(
        all.shown().contains("stopping all nodes"),
        "{}",
        all.shown()
    );
    assert!(second.child.try_wait().unwrap().is_none());
    second.signal(Signal::KILL);
    second.ends();

    // Again, on the same directories: the same cluster with its records. A parent that is killed takes all with it.
    let mut all = Running::start(nodes(&data, base, &[]));
    let shown = all.shows("varve is ready: 3 nodes");
    let ran = shell(&brokers, "varve consume orders -e | wc -l");
    assert_eq!(ran.out.trim(), "2000", "{ran:?}");
    let pids: Vec<String> = (1..=3).map(|node| pid(&all.shows("wc -l"), node)).collect();
    assert!(pids.iter().all(|pid| is_running(pid)), "{shown}");
    all.signal(Signal::KILL);
    all.ends();
    wait::until("the nodes to end", PATIENCE, || {
        (!pids.iter().any(|pid| is_running(pid))).then_some(())
    });
}

/// What happened to node 2 is said, with the line that starts it again; types that line.
fn starts_again(all: &mut Running, pid: &str) -> Running {
    let shown = all.shows("To start it again");
    assert!(shown.contains(&format!("node 2 (pid {pid}) ")), "{shown}");
    let again = shown
        .lines()
        .find(|line| line.starts_with("  varve server "))
        .unwrap();
    assert!(again.contains(" --nodes 3 --node-id 2 "), "{again}");
    let mut words: Vec<&str> = again.split_whitespace().collect();
    words.remove(0);
    let mut command = command("varve", "127.0.0.1:1");
    command.args(words);
    let mut second = Running::start(command);
    second.shows("ready");
    second
}

/// Whether a process runs; one that nobody has waited for does not.
fn is_running(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = state
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

#[test]
fn a_port_that_is_taken_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = ports();
    let taken = TcpListener::bind(("127.0.0.1", base + 21)).unwrap();
    let data = dir.path().join("data");
    let error = finish(nodes(&data, base, &[]), None).fails(1);
    let address = taken.local_addr().unwrap();
    for part in [
        format!("the HTTP listener of node 3 cannot listen on {address}: "),
        "with --http HOST:PORT; nothing was started".to_owned(),
    ] {
        assert!(error.contains(&part), "{part} in {error}");
    }
    assert!(!data.exists(), "no directory was made");
}

#[test]
fn a_directory_of_another_cluster_starts_nothing() {
    let golden = include_str!("../../crates/server/testdata/meta.toml");
    let identity = |node: usize, cluster: &str| {
        let own = golden.replace("node_id = 1", &format!("node_id = {node}"));
        own.replace("4f9c1c1e-5d0b-4c3c-9d3a-2f8f6f0f7a11", cluster)
    };
    let (one, other) = (
        "4f9c1c1e-5d0b-4c3c-9d3a-2f8f6f0f7a11",
        "5f9c1c1e-5d0b-4c3c-9d3a-2f8f6f0f7a11",
    );
    type Case<'a> = (&'a [(&'a str, usize, &'a str)], &'a str);
    let cases: [Case; 5] = [
        (
            &[("node-1", 1, one), ("node-2", 2, other)],
            "node-2 belongs to cluster 5f9c1c1e",
        ),
        (&[("node-2", 1, one)], "node-2 belongs to node 1, not 2"),
        (&[(".", 1, one)], "is the data directory of a single node"),
        (
            &[("node-3", 3, one)],
            "node-3 is the data directory of a single node",
        ),
        (
            &[("node-4", 4, one)],
            "belongs to a cluster of more than 3 nodes",
        ),
    ];
    for (found, part) in cases {
        let dir = tempfile::tempdir().unwrap();
        for (name, node, cluster) in found {
            let path = dir.path().join(name);
            // A node that is alone takes no part in a consensus.
            let raft = if *name == "node-3" { "topics" } else { "raft" };
            std::fs::create_dir_all(path.join(raft)).unwrap();
            std::fs::write(path.join("meta.toml"), identity(*node, cluster)).unwrap();
        }
        let error = finish(nodes(dir.path(), ports(), &[]), None).fails(1);
        assert!(error.contains(part), "{part} in {error}");
        assert!(
            error.ends_with("--data-dir; nothing was started"),
            "{error}"
        );
        let made = std::fs::read_dir(dir.path()).unwrap().flatten();
        let made =
            made.filter(|entry| entry.file_name() != "meta.toml" && entry.file_name() != "raft");
        let there = found.iter().filter(|(name, ..)| *name != ".").count();
        assert_eq!(made.count(), there, "nothing was made: {part}");
    }
}

#[test]
fn a_node_that_does_not_start_takes_the_others_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    // It is no directory: only the node itself finds out.
    std::fs::write(data.join("node-2"), "").unwrap();
    let ran = finish(nodes(&data, ports(), &[]), None);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let last = ran.err.lines().next_back().unwrap();
    assert!(last.starts_with("error: "), "{ran:?}");
    assert!(last.contains("node 2") || last.contains("node-2"), "{last}");
}

#[test]
fn mistakes_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    for (args, part) in [
        (&["--nodes", "3"][..], "needs --dev"),
        (
            &["--dev", "--nodes", "3", "--node-id", "4"],
            "give --node-id 1 to 3",
        ),
        (
            &["--dev", "--nodes", "3", "--set-config", "cluster.seeds=a:1"],
            "cluster.seeds (from command line) cannot be the same for several nodes",
        ),
        (
            &["--dev", "--nodes", "3", "--listen", "127.0.0.1:65530"],
            "leaves no ports",
        ),
    ] {
        let mut command = command("varve", "127.0.0.1:1");
        command.arg("server").args(args).current_dir(dir.path());
        let error = finish(command, None).fails(2);
        assert!(
            error.contains(part) && error.ends_with("nothing was started"),
            "{error}"
        );
    }
    for count in ["0", "10", "three"] {
        let mut command = command("varve", "127.0.0.1:1");
        command.args(["server", "--dev", "--nodes", count]);
        finish(command, None).usage();
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_first_line_of_the_log_says_what_starts() {
    let dir = tempfile::tempdir().unwrap();
    let base = ports();
    let at = |offset: u16| format!("127.0.0.1:{}", base + offset);
    let mut command = command("varve", "127.0.0.1:1");
    command
        .args(["server", "--dev", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(["--listen", &at(0), "--http", &at(1), "--set-config"])
        .arg(format!("listeners.kafka.address={}", at(3)))
        .args(["--set-config", "storage.min_free_bytes=0"])
        .args(["--set-config", "log.format=text"]);
    let mut node = Running::start(command);
    let shown = node.shows("varve is ready on");
    let first = shown.lines().next().unwrap();
    assert!(first.contains("varve starts"), "{shown}");
    assert!(shown.contains("serving the Kafka protocol"), "{shown}");

    // The first transaction makes fifty partitions: one line for all of their coordinators, or a few where they open
    // one after the other.
    let line = "varve topic create t -q && echo x | varve produce t --transactional-id a";
    let ran = shell(&at(0), line);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let shown = node.shows("transaction coordinators ready");
    assert!(!shown.contains("transactions loaded"), "{shown}");
    let lines = shown.matches("transaction coordinators ready").count();
    assert!(lines <= 5, "{lines} lines: {shown}");
    node.signal(Signal::TERM);
    assert_eq!(node.ends(), Some(0));
}
