//! What operators type: health, probes, leaders, upgrades, `--watch`, completion. Each test types it and reads the
//! answer.

use std::io::Read as _;
use std::time::Duration;

use serde_json::Value;
use varve_tests::cluster::Cluster;
use varve_tests::wait;

use crate::{Host, PATIENCE, Ran, alone, command, create, feed, finish, node, run};

fn at(cluster: &Cluster, args: &[&str]) -> Ran {
    let mut command = command("varve", &cluster.alive().address());
    command.args(args);
    finish(command, None)
}

/// Three nodes: topics are usable when `create` returns, and health is told in sentences.
#[test]
fn a_cluster_of_three() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path());
    for round in 0..5 {
        let topic = format!("t{round}");
        let created = at(&cluster, &["topic", "create", &topic, "-p", "6", "-r", "3"]).ok();
        assert_eq!(
            created,
            format!("{topic}: created, 6 partitions, 3 replicas\n")
        );
        let described = at(&cluster, &["topic", "describe", &topic]).ok();
        for wrong in ["ERROR", "UNAVAILABLE", "LEADER_NOT_AVAILABLE"] {
            assert!(!described.contains(wrong), "{described}");
        }
        let widest = described.lines().map(str::len).max();
        assert!(widest < Some(120), "{described}");
    }
    at(
        &cluster,
        &["topic", "create", "quick", "-p", "6", "--no-wait"],
    )
    .ok();
    // Every partition can be used at once.
    at(&cluster, &["topic", "create", "used", "-p", "6", "-r", "3"]).ok();
    for partition in 0..6 {
        let number = partition.to_string();
        let mut produce = command("varve", &cluster.alive().address());
        produce.args(["produce", "used", "-p", &number, "--delivery-timeout", "5s"]);
        finish(produce, Some(b"x\n")).ok();
    }
    the_http_port_of_the_node_that_is_named(&cluster);
    let none = at(&cluster, &["topic", "describe", "--under-replicated"]).ok();
    assert!(none.starts_with("TOPIC"), "{none}");
    cluster.node_mut(3).kill();
    let sick = wait::until("node 3 to be offline", PATIENCE, || {
        let ran = at(&cluster, &["cluster", "health", "--exit-code"]);
        (ran.out.contains("node 3 is offline since ") && ran.out.contains("under-replicated"))
            .then_some(ran)
    });
    assert_eq!(sick.code, Some(4), "{sick:?}");
    let lines: Vec<&str> = sick.out.lines().collect();
    assert_eq!(lines[0], "not healthy");
    let since = lines[1].strip_prefix("node 3 is offline since ").unwrap();
    let is_time = |c: char| c.is_ascii_digit() || c == ':' || c == '-' || c == ' ';
    assert!(since.len() >= 8 && since.chars().all(is_time), "{since}");
    assert!(
        lines
            .iter()
            .any(|l| l.ends_with(" partitions are under-replicated")),
        "{lines:?}"
    );
    let wide = at(&cluster, &["cluster", "health", "-o", "wide"]).ok();
    assert!(
        wide.contains("NOT IN SYNC") && wide.contains("used"),
        "{wide}"
    );
    let json = cluster.json(&["cluster", "health"]).unwrap();
    assert!(json["offlineSince"]["3"].is_string(), "{json}");
    let short = at(&cluster, &["topic", "describe", "--under-replicated"]).ok();
    let row = short.lines().find(|line| line.starts_with("used")).unwrap();
    assert!(row.ends_with('3'), "{row}");
    let named = at(
        &cluster,
        &["topic", "describe", "used", "--under-replicated"],
    )
    .ok();
    assert!(
        named.starts_with("TOPIC") && !named.contains("t0"),
        "{named}"
    );
    let replication = at(&cluster, &["check", "replication"]);
    assert_eq!(replication.code, Some(4));
    assert!(
        replication.out.contains("node 3 is offline"),
        "{replication:?}"
    );
    // Refusals name the flag.
    let drain = at(&cluster, &["cluster", "drain", "2"]);
    assert!(drain.error_line().contains("--force"), "{drain:?}");
    let gone = at(&cluster, &["cluster", "decommission", "3", "-y"]);
    assert!(gone.error_line().contains("--dead"), "{gone:?}");
}

/// `check health -b` asks the node that `-b` names, by the HTTP port that this node has.
fn the_http_port_of_the_node_that_is_named(cluster: &Cluster) {
    for id in 1..=3 {
        let address = cluster.node(id).address();
        let json = alone(&["check", "health", "-b", &address, "-o", "json"]).ok();
        let json: Value = serde_json::from_str(&json).unwrap();
        let port = cluster.node(id).http_port();
        assert_eq!(json["http"], format!("127.0.0.1:{port}"));
    }
    let several = alone(&["check", "health", "-b", &cluster.addresses()]).fails(2);
    assert!(several.contains("asks one node"), "{several}");
}

#[test]
fn a_probe_asks_the_node_that_is_named() {
    let mut host = Host::start();
    let address = host.address();
    assert_eq!(alone(&["check", "health", "-b", &address]).ok(), "ok\n");
    let mut by_environment = command("varve", &address);
    by_environment.args(["check", "health"]);
    assert_eq!(finish(by_environment, None).ok(), "ok\n");
    host.node.stop();
    let error = alone(&["check", "health", "-b", &address, "--timeout", "2s"]).fails(1);
    assert!(error.contains(&address), "{error}");
}

#[test]
fn an_upgrade_without_a_command_only_shows_levels() {
    let node = node();
    let shown = run(&node, &["cluster", "upgrade"]).ok();
    assert!(shown.contains("LEVELS"), "{shown}");
    assert!(
        shown.contains("the highest that every node supports"),
        "{shown}"
    );
}

#[test]
fn lag_needs_no_bound() {
    let node = node();
    create(&node, "lag-topic", 1);
    feed(&node, &["produce", "lag-topic"], "1\n2\n3\n").ok();
    run(
        &node,
        &["consume", "lag-topic", "-g", "lag-g", "-c", "1", "-q"],
    )
    .ok();
    let shown = run(&node, &["check", "lag", "lag-g"]).ok();
    assert!(shown.starts_with("TOPIC"), "{shown}");
    let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..3], ["lag-topic", "0", "2"]);
    let over = run(&node, &["check", "lag", "lag-g", "--max", "1"]);
    assert_eq!(over.code, Some(4), "{over:?}");
    assert_eq!(over.out, "lag-topic:0: 2 records behind\n");
    let within = run(&node, &["check", "lag", "lag-g", "--max", "2"]).ok();
    assert_eq!(
        within,
        "lag-g: 1 partition, none more than 2 records behind\n"
    );
}

#[test]
fn internal_topics_are_shown_when_asked_for() {
    let node = node();
    create(&node, "seen-topic", 1);
    feed(&node, &["produce", "seen-topic"], "1\n").ok();
    run(
        &node,
        &["consume", "seen-topic", "-g", "seen-g", "-e", "-q"],
    )
    .ok();
    for args in [&["cluster", "metadata"][..], &["-L"]] {
        let shown = run(&node, args).ok();
        assert!(shown.contains("seen-topic"), "{shown}");
        assert!(!shown.contains("__"), "{shown}");
        let all = run(&node, &[args, &["-i"]].concat()).ok();
        assert!(all.contains("__consumer_offsets"), "{all}");
    }
    let named = run(&node, &["cluster", "metadata", "__consumer_offsets"]).ok();
    assert!(named.contains("__consumer_offsets"), "{named}");
}

#[test]
fn what_the_server_finds_invalid_is_usage() {
    let node = node();
    create(&node, "args-topic", 1);
    for args in [
        &["topic", "create", "many", "-p", "1000000"][..],
        &[
            "topic",
            "config",
            "args-topic",
            "--set",
            "min.insync.replicas=x",
        ],
        &["cluster", "transfer-leader", "args-topic"],
        &["cluster", "transfer-leader", "args-topic-0"],
    ] {
        let refused = run(&node, args);
        assert_eq!(refused.code, Some(2), "{args:?}: {refused:?}");
        refused.error_line();
    }
    let error = run(&node, &["cluster", "transfer-leader", "args-topic"]).fails(2);
    assert!(error.contains("args-topic:0"), "{error}");
}

#[test]
fn watching_prints_changes_only() {
    let mut host = Host::start();
    let mut watching = command("varve", &host.address());
    let mut child = watching.args(["cluster", "health", "-w"]).spawn().unwrap();
    // Three looks.
    std::thread::sleep(Duration::from_secs(5));
    child.kill().unwrap();
    let mut out = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    child.wait().unwrap();
    assert_eq!(out, "healthy\n");
    host.node.stop();
}

#[test]
fn shells_complete_the_names_of_the_cluster() {
    let node = node();
    create(&node, "comp-orders", 1);
    create(&node, "comp-payments", 1);
    feed(&node, &["produce", "comp-orders"], "1\n").ok();
    run(
        &node,
        &["consume", "comp-orders", "-g", "comp-g", "-e", "-q"],
    )
    .ok();
    let complete = |address: &str, words: &[&str]| {
        let mut shell = command("varve", address);
        let last = (words.len() - 1).to_string();
        shell
            .env("VARVE_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", last)
            .env("_CLAP_COMPLETE_COMP_TYPE", "9")
            .env("_CLAP_COMPLETE_SPACE", "true")
            .env("_CLAP_IFS", "\n")
            .arg("--")
            .args(words);
        finish(shell, None).ok()
    };
    let address = node.address();
    let topics = complete(&address, &["varve", "topic", "describe", "comp-"]);
    assert_eq!(crate::sorted(&topics), ["comp-orders", "comp-payments"]);
    let topics = complete("", &["varve", "-b", &address, "consume", "comp-o"]);
    assert_eq!(topics.trim(), "comp-orders");
    let groups = complete(&address, &["varve", "group", "describe", "comp"]);
    assert_eq!(groups.trim(), "comp-g");
    let nodes = complete(&address, &["varve", "cluster", "drain", ""]);
    assert!(nodes.lines().any(|line| line == "1"), "{nodes}");
    let commands = complete(&address, &["varve", "clu"]);
    assert_eq!(commands.trim(), "cluster");
    // A cluster that does not answer costs its names, and little time.
    let begun = std::time::Instant::now();
    complete("10.255.255.1:9", &["varve", "topic", "describe", "x"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = alone(&["completion", shell]).ok();
        assert!(script.contains("VARVE_COMPLETE"), "{script}");
        assert!(script.lines().count() < 200, "{shell}");
    }
}

#[test]
fn one_is_singular() {
    let node = node();
    let created = run(&node, &["topic", "create", "one-topic"]).ok();
    assert!(
        created.starts_with("one-topic: created, 1 partition, 1 replica"),
        "{created}"
    );
    let configs = run(&node, &["topic", "config", "one-topic"]).ok();
    assert!(
        !configs.contains("\n\n") && !configs.ends_with("\n\n"),
        "{configs}"
    );
}
