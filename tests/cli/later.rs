//! Reads that go on, and reads that end: partitions and topics that come while a command follows, ranges that end
//! beyond the log, and members with more partitions than one request names.

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::{PATIENCE, command, create, feed, node, run, sorted};

/// A command that follows, and the lines that it prints.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(address: &str, args: &[&str]) -> Self {
        let mut command = command("varve", address);
        command.args(args).args(["-u", "-f", "%t:%p:%v\n"]);
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Self { child, lines }
    }

    /// Waits until it has printed all of those, in any order.
    #[track_caller]
    fn prints(&self, wanted: &[String]) {
        let until = Instant::now() + PATIENCE;
        let mut missing = wanted.to_vec();
        while !missing.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("never printed: {missing:?}"));
            missing.retain(|wanted| *wanted != line);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes to the first partition until that follower, which reads from now on, has begun.
fn begun(node: &crate::Host, topic: &str, follower: &Follower) {
    let until = Instant::now() + PATIENCE;
    loop {
        feed(node, &["produce", "-q", "-p", "0", topic], "begun\n").ok();
        if follower
            .lines
            .recv_timeout(Duration::from_millis(300))
            .is_ok()
        {
            return;
        }
        assert!(Instant::now() < until, "nothing is read of {topic}");
    }
}

#[test]
fn readers_from_now_on_see_what_comes_later_from_its_first_record() {
    let node = node();
    let address = node.address();
    create(&node, "later", 1);
    feed(&node, &["produce", "-q", "later"], "old\n").ok();
    let all = [
        Follower::start(&address, &["consume", "later", "-o", "end"]),
        Follower::start(&address, &["consume", "-r", "later.*", "-o", "end"]),
        Follower::start(&address, &["consume", "later", "-g", "later", "-o", "end"]),
        Follower::start(
            &address,
            &["consume", "-r", "later.*", "-g", "later-r", "-o", "end"],
        ),
    ];
    for follower in &all {
        begun(&node, "later", follower);
    }
    run(
        &node,
        &["topic", "add-partitions", "later", "--total", "3", "-q"],
    )
    .ok();
    let mut wanted = Vec::new();
    // At once, before any reader can have heard of the partitions.
    for partition in ["1", "2"] {
        for n in 1..=3 {
            let value = format!("new{n}");
            feed(
                &node,
                &["produce", "-q", "-p", partition, "later"],
                format!("{value}\n"),
            )
            .ok();
            wanted.push(format!("later:{partition}:{value}"));
        }
    }
    for follower in &all {
        follower.prints(&wanted);
    }
    create(&node, "later-too", 1);
    feed(&node, &["produce", "-q", "later-too"], "first\n").ok();
    let wanted = ["later-too:0:first".to_owned()];
    all[1].prints(&wanted);
    all[3].prints(&wanted);
}

#[test]
fn a_reader_of_given_partitions_is_given_no_others() {
    let node = node();
    let address = node.address();
    create(&node, "later-p", 1);
    let follower = Follower::start(&address, &["consume", "later-p", "-p", "0"]);
    begun(&node, "later-p", &follower);
    let witness = Follower::start(&address, &["consume", "later-p"]);
    run(
        &node,
        &["topic", "add-partitions", "later-p", "--total", "3", "-q"],
    )
    .ok();
    // Twice, so that whoever looks for partitions as the witness does has found the first by then.
    for partition in ["1", "2"] {
        feed(
            &node,
            &["produce", "-q", "-p", partition, "later-p"],
            "other\n",
        )
        .ok();
        witness.prints(&[format!("later-p:{partition}:other")]);
    }
    feed(&node, &["produce", "-q", "-p", "0", "later-p"], "own\n").ok();
    let until = Instant::now() + PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let line = follower.lines.recv_timeout(left).unwrap();
        assert!(!line.contains("other"), "{line}");
        if line == "later-p:0:own" {
            return;
        }
    }
}

#[test]
fn a_range_ends_at_the_present_end_of_each_partition() {
    let node = node();
    create(&node, "range", 3);
    feed(&node, &["produce", "-q", "-p", "0", "range"], "a\nb\nc\n").ok();
    feed(&node, &["produce", "-q", "-p", "1", "range"], "d\n").ok();
    let read = |args: &[&str]| {
        let mut all = vec!["consume", "range", "-q", "-f", "%p%v\n"];
        all.extend(args);
        run(&node, &all).ok()
    };
    for (args, wanted) in [
        (&["-o", "0:2", "-e"][..], &["0a", "0b", "1d"][..]),
        (&["-o", ":2", "-e"], &["0a", "0b", "1d"]),
        (&["-o", "0:100", "-e"], &["0a", "0b", "0c", "1d"]),
        (&["-o", "0:100", "-e", "-c", "9"], &["0a", "0b", "0c", "1d"]),
        (&["-o", "0:100", "-e", "-p", "1", "-p", "2"], &["1d"]),
        (
            &["-o", "@2020-01-01:2090-01-01", "-e"],
            &["0a", "0b", "0c", "1d"],
        ),
        (&["-o", "-2:", "-e"], &["0b", "0c", "1d"]),
    ] {
        let out = read(args);
        assert_eq!(sorted(&out), wanted, "{args:?}");
    }
}

/// One request names at most 1,000 partitions.
#[test]
fn a_member_has_more_partitions_than_one_request_names() {
    let node = node();
    let create = [
        "topic",
        "create",
        "wide",
        "-p",
        "1001",
        "-q",
        "--timeout",
        "1m",
    ];
    run(&node, &create).ok();
    let lines: String = (0..2_000).map(|n| format!("{n}:v\n")).collect();
    feed(&node, &["produce", "-q", "-K", ":", "wide"], lines).ok();
    for args in [
        &["consume", "wide", "-e", "-q", "-f", "."][..],
        &["consume", "wide", "-e", "-q", "-f", ".", "-g", "wide"],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--timeout", "1m"]).collect();
        assert_eq!(run(&node, &args).ok().len(), 2_000, "{args:?}");
    }
    let lag = ["check", "lag", "wide", "--max", "0", "--timeout", "1m"];
    let lag = run(&node, &lag);
    assert_eq!(lag.code, Some(0), "{lag:?}");
    let group = run(&node, &["group", "describe", "wide", "-o", "json"]).ok();
    let group: serde_json::Value = serde_json::from_str(&group).unwrap();
    assert_eq!(group["group"]["members"].as_array().map(Vec::len), Some(0));
}
