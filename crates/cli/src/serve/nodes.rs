//! `varve server --dev --nodes N`: several nodes on one machine that are one cluster, for seeing what a cluster does.
//! Each is a process of its own, so that it can be killed. They end with this process, however it ends.
//!
//! Invariant: nothing is started before ports and directories of all nodes have been looked at, and when one node does
//! not get ready, none stays. A node that ends later is reported, not started again: one wants to see the others go on.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStderr, Stdio};
use std::time::Duration;

use varve_server::Config;
use varve_server::config::Source;

use super::layout::Layout;
use super::{ServerArgs, SettingsArgs};
use crate::failure::{FAILED, Failure, USAGE};
use crate::interrupt::Stop;
use crate::process::{Process, how_it_ended, is_ready, this_program};

/// How often the nodes are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// A cluster that is not ready by then will not be.
const START: Duration = Duration::from_secs(120);
/// Longer than a node takes that gives up its shutdown.
const STOP: Duration = Duration::from_secs(90);

/// A running node.
struct Node {
    id: usize,
    process: Process,
    /// Its end was reported.
    reported: bool,
}

struct Nodes {
    layout: Layout,
    nodes: Vec<Node>,
    /// What was typed beside the number of nodes.
    flags: Vec<OsString>,
}

/// Runs the nodes until a signal.
///
/// # Errors
/// A sentence about what keeps them from starting; none runs then.
pub(super) async fn run(args: &ServerArgs, count: usize) -> Result<u8, Failure> {
    let layout = Layout::of(&args.settings, count)?;
    let mut text_logs = true;
    for id in 1..=count {
        let settings = layout.settings(&args.settings, id)?;
        text_logs = matches!(settings.get("log.format"), Some((_, Source::Default)));
        Config::resolve(&settings).map_err(|error| Failure::new(USAGE, error.to_string()))?;
    }
    layout.check()?;
    if count == 2 {
        say(
            "warning: a cluster of 2 nodes stops as soon as one of them does; 3 nodes survive the loss of one",
        );
    }
    let mut stop = Stop::listen()?;
    let mut nodes = Nodes {
        layout,
        nodes: Vec::new(),
        flags: flags(&args.settings),
    };
    for id in 1..=count {
        nodes.start(id, text_logs)?;
    }
    tokio::select! {
        ready = nodes.ready() => ready?,
        () = stop.come() => {
            nodes.stop(&mut stop).await;
            return Err(Failure::new(FAILED, "stopped before all nodes were ready"));
        }
    }
    say(&nodes.banner());
    tokio::select! {
        () = nodes.all_ended() => {
            return Err(Failure::new(FAILED, "all nodes have ended"));
        }
        () = stop.come() => {}
    }
    say("stopping all nodes");
    if nodes.stop(&mut stop).await {
        return Ok(0);
    }
    let text = "not every node stopped cleanly; acknowledged records are safe";
    Err(Failure::new(FAILED, text))
}

impl Nodes {
    fn arguments(&self, id: usize) -> Vec<OsString> {
        let count = self.layout.count().to_string();
        let mut all: Vec<OsString> = ["server", "--dev", "--nodes", &count, "--node-id"]
            .map(OsString::from)
            .to_vec();
        all.push(id.to_string().into());
        all.extend(self.flags.iter().cloned());
        all
    }

    fn start(&mut self, id: usize, text_logs: bool) -> Result<(), Failure> {
        let mut command = this_program(self.arguments(id))?;
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        if text_logs {
            // Standard error of the node is a pipe, at the other end of which people read.
            command.env("VARVE_LOG__FORMAT", "text");
        }
        let mut process = Process::start(command).map_err(|error| {
            let text = format!("node {id} cannot be started: {error}");
            Failure::new(FAILED, text)
        })?;
        if let Some(log) = process.stderr() {
            std::thread::spawn(move || forward(id, log));
        }
        self.nodes.push(Node {
            id,
            process,
            reported: false,
        });
        Ok(())
    }

    /// Waits until every node takes requests.
    async fn ready(&mut self) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + START;
        let mut waiting: Vec<usize> = (1..=self.layout.count()).collect();
        while let Some(id) = waiting.last().copied() {
            if is_ready(self.layout.http(id)).await {
                waiting.pop();
                continue;
            }
            for node in &mut self.nodes {
                if let Some(status) = node.process.ended() {
                    let text = format!(
                        "node {} {} before it was ready; its last lines above say why; the other nodes were stopped",
                        node.id,
                        how_it_ended(status)
                    );
                    return Err(Failure::new(FAILED, text));
                }
            }
            if tokio::time::Instant::now() > deadline {
                let seconds = START.as_secs();
                let text =
                    format!("node {id} was not ready within {seconds} s; all nodes were stopped");
                return Err(Failure::new(FAILED, text));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Reports nodes that end; resolves when none is left.
    async fn all_ended(&mut self) {
        loop {
            let mut reports = Vec::new();
            for node in self.nodes.iter_mut().filter(|node| !node.reported) {
                if let Some(status) = node.process.ended() {
                    node.reported = true;
                    reports.push((node.id, node.process.id(), how_it_ended(status)));
                }
            }
            for (id, pid, how) in reports {
                say(&format!(
                    "\nnode {id} (pid {pid}) {how}; the others go on. To start it again, in another terminal:\n  {}\n",
                    self.command_line(id)
                ));
            }
            if self.nodes.iter().all(|node| node.reported) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops all nodes; a second signal kills those that still run. Returns whether all of it was clean.
    async fn stop(&mut self, stop: &mut Stop) -> bool {
        let mut running: Vec<&mut Node> = self.nodes.iter_mut().collect();
        running.retain_mut(|node| node.process.ended().is_none());
        running.iter_mut().for_each(|node| node.process.terminate());
        let mut clean = true;
        let wait = async {
            for node in &mut running {
                let ended = node.process.wait(STOP).await;
                clean &= ended.is_some_and(|status| status.success());
            }
        };
        tokio::select! {
            () = wait => clean,
            // The processes are killed when they are dropped.
            () = stop.come() => false,
        }
    }

    /// What starts a node again, as one types it.
    fn command_line(&self, id: usize) -> String {
        let mut line = String::from("varve");
        for argument in self.arguments(id) {
            line.push(' ');
            line.push_str(&quoted(&argument.to_string_lossy()));
        }
        line
    }

    fn banner(&self) -> String {
        let layout = &self.layout;
        let mut text = format!(
            "\nvarve is ready: {} nodes, one cluster, data in {}\n\n  NODE  PID      GRPC             KAFKA            \
             HTTP\n",
            layout.count(),
            layout.base().display()
        );
        for node in &self.nodes {
            let (id, pid) = (node.id, node.process.id());
            let (client, kafka) = (layout.client(id), layout.kafka(id));
            let kafka = if kafka.is_empty() { "-" } else { kafka };
            let http = layout.http(id);
            text += &format!("  {id:<4}  {pid:<7}  {client:<15}  {kafka:<15}  http://{http}\n");
        }
        let second = self.nodes.get(1).map_or(0, |node| node.process.id());
        text += &format!(
            "\nStop node 2:     kill {second}      (kill -9 {second} for a crash)\nStart it again:  {}\n\
             Stop all nodes:  Ctrl-C\n\nTry, in another terminal:\n  export VARVE_BROKERS={}\n  \
             varve topic create orders -p 6 && seq 1000 | varve produce orders\n  \
             kill {second} && seq 1001 2000 | varve produce orders\n  \
             varve consume orders -e | wc -l\n",
            self.command_line(2),
            layout.brokers()
        );
        text
    }
}

/// The flags that every node gets as they were given.
fn flags(args: &SettingsArgs) -> Vec<OsString> {
    let mut flags: Vec<OsString> = Vec::new();
    if let Some(file) = &args.file {
        flags.extend(["--config-file".into(), file.clone().into()]);
    }
    let given = [
        ("--data-dir", &args.data_dir),
        ("--listen", &args.listen),
        ("--http", &args.http),
    ];
    for (flag, value) in given {
        if let Some(value) = value {
            flags.extend([flag.into(), value.into()]);
        }
    }
    for pair in &args.set_config {
        flags.extend(["--set-config".into(), pair.into()]);
    }
    flags
}

/// As a shell takes it.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

/// Prints what a node logs, line by line with its name in front.
fn forward(id: usize, log: ChildStderr) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let mut whole = format!("node-{id} | ").into_bytes();
        whole.append(&mut line);
        whole.push(b'\n');
        // One write: lines of several nodes do not mix. A terminal that is gone is no reason to stop.
        let _ = std::io::stderr().write_all(&whole);
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_typed() {
        assert_eq!(quoted("127.0.0.1:8278"), "127.0.0.1:8278");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        let args = SettingsArgs {
            data_dir: Some("my data".to_owned()),
            set_config: vec!["log.filter=warn".to_owned()],
            ..SettingsArgs::default()
        };
        let nodes = Nodes {
            layout: Layout::of(&args, 3).unwrap(),
            nodes: Vec::new(),
            flags: flags(&args),
        };
        assert_eq!(
            nodes.command_line(2),
            "varve server --dev --nodes 3 --node-id 2 --data-dir 'my data' --set-config log.filter=warn"
        );
    }
}
