//! Interrupts and readers that go away: a clean leave first, an abort second, and quiet pipes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use varve_tests::node::Node;
use varve_tests::wait;

use crate::{PATIENCE, command, create, feed, node, run};

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn start(node: &Node, args: &[&str]) -> Child {
    let mut command = command("varve", &node.address());
    command.args(args).stdin(Stdio::piped());
    command.spawn().unwrap()
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    line
}

/// Exit code and standard error.
fn ended(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// More than pipes and buffers hold.
fn large(node: &Node, topic: &str) {
    create(node, topic, 1);
    let line = "a line of some length, so that much comes together quickly ".repeat(4);
    let lines: String = (0..8000).map(|n| format!("{n} {line}\n")).collect();
    feed(node, &["produce", topic], lines).ok();
}

/// Members of a group; a group that nobody is in and that committed nothing is none at all.
fn members(node: &Node, group: &str) -> usize {
    let ran = run(node, &["group", "describe", group, "-o", "json"]);
    if ran.code == Some(3) {
        return 0;
    }
    let json: serde_json::Value = serde_json::from_str(&ran.ok()).unwrap();
    json["group"]["members"].as_array().unwrap().len()
}

#[test]
fn the_first_interrupt_ends_a_read_cleanly() {
    let node = node();
    create(&node, "s-clean", 1);
    feed(&node, &["produce", "s-clean"], "x\n").ok();
    for sent in [Signal::INT, Signal::TERM] {
        let mut child = start(&node, &["consume", "s-clean"]);
        assert_eq!(first_line(&mut child), "x\n");
        signal(&child, sent);
        assert_eq!(ended(child), (Some(0), String::new()));
    }
}

#[test]
fn the_first_interrupt_leaves_the_group_and_commits() {
    let node = node();
    create(&node, "s-group", 1);
    feed(&node, &["produce", "s-group"], "x\ny\n").ok();
    let mut child = start(&node, &["consume", "s-group", "-g", "s-group"]);
    assert_eq!(first_line(&mut child), "x\n");
    signal(&child, Signal::INT);
    assert_eq!(ended(child), (Some(0), String::new()));
    assert_eq!(members(&node, "s-group"), 0, "it said goodbye");
    feed(&node, &["produce", "s-group"], "z\n").ok();
    let rest = run(&node, &["consume", "s-group", "-g", "s-group", "-c", "1"]).ok();
    assert_eq!(rest, "z\n", "what was printed was committed");
}

#[test]
fn the_second_interrupt_aborts() {
    let node = node();
    large(&node, "s-second");
    // Nobody reads further: the command cannot finish writing.
    let mut child = start(&node, &["consume", "s-second"]);
    let mut some = [0; 1000];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut some)
        .unwrap();
    signal(&child, Signal::INT);
    let status = wait::until("the abort", PATIENCE, || {
        signal(&child, Signal::INT);
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(130));
}

#[test]
fn the_first_interrupt_of_a_producer_flushes() {
    let node = node();
    create(&node, "s-produce", 1);
    let mut child = start(&node, &["produce", "s-produce", "-O", r"%o\n"]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a\nb\n").unwrap();
    assert_eq!(first_line(&mut child), "0\n");
    signal(&child, Signal::INT);
    assert_eq!(
        ended(child),
        (Some(0), String::new()),
        "standard input is still open"
    );
    drop(stdin);
    assert_eq!(run(&node, &["consume", "s-produce", "-e"]).ok(), "a\nb\n");
}

#[test]
fn the_second_interrupt_of_a_producer_aborts() {
    let mut node = crate::Host::start();
    create(&node, "s-abort", 1);
    let mut child = start(&node, &["produce", "s-abort", "-O", r"%o\n"]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a\n").unwrap();
    assert_eq!(first_line(&mut child), "0\n");
    // Without a node, what follows can never be acknowledged.
    node.node.kill();
    stdin.write_all(b"b\n").unwrap();
    drop(stdin);
    let status = wait::until("the abort", PATIENCE, || {
        signal(&child, Signal::INT);
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(130));
    let (_, error) = ended(child);
    assert!(error.contains("may or may not be in the log"), "{error}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let node = node();
    large(&node, "s-pipe");
    for args in [
        &["consume", "s-pipe", "-e"][..],
        &["consume", "s-pipe", "-J"],
        &["consume", "s-pipe", "-u"],
        &["consume", "s-pipe", "-g", "s-pipe"],
    ] {
        let mut child = start(&node, args);
        let mut some = [0; 100];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut some).unwrap();
        drop(stdout);
        assert_eq!(ended(child), (Some(0), String::new()), "{args:?}");
    }
    assert_eq!(members(&node, "s-pipe"), 0, "the member said goodbye");
    // Commands that print little, help included.
    for args in [
        &["topic", "list"][..],
        &["--help"],
        &["completion", "bash"],
        &["config", "docs"],
    ] {
        let mut child = start(&node, args);
        drop(child.stdout.take());
        assert_eq!(ended(child), (Some(0), String::new()), "{args:?}");
    }
}

#[test]
fn what_was_not_printed_is_not_committed() {
    let node = node();
    large(&node, "s-atleast");
    let group = ["consume", "s-atleast", "-g", "s-atleast"];
    let mut child = start(&node, &group);
    let mut some = vec![0; 4096];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    assert_eq!(ended(child).0, Some(0));
    let printed: u64 = String::from_utf8_lossy(&some)
        .lines()
        .rev()
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let mut again = group.to_vec();
    again.extend(["-c", "1", "-f", "%o"]);
    let next: u64 = run(&node, &again).ok().parse().unwrap();
    // A pipe holds 64 KiB and a write is one unit: what comes again starts near what was seen.
    assert!(next <= printed + 4000, "{next} after {printed}");
}
