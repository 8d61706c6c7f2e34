//! `varve consume -g` and `varve group`: members that come back, and operators that move them.

use std::io::BufRead as _;
use std::process::Child;

use serde_json::Value;
use varve_tests::node::Node;
use varve_tests::wait;

use crate::{PATIENCE, command, create, feed, node, run, sorted};

fn ten(node: &Node, topic: &str, partitions: u32) {
    create(node, topic, partitions);
    for partition in 0..partitions {
        let lines: String = (0..10)
            .map(|n| format!("{} {n}\n", 1_600_000_000_000_i64 + n * 1000))
            .collect();
        let partition = partition.to_string();
        feed(
            node,
            &["produce", topic, "-p", &partition, "-f", r"%T %v\n"],
            lines,
        )
        .ok();
    }
}

fn values(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{n}\n")).collect()
}

fn describe(node: &Node, group: &str) -> Value {
    let json = run(node, &["group", "describe", group, "-o", "json"]).ok();
    serde_json::from_str(&json).unwrap()
}

/// Committed offsets in the order of partitions.
fn committed(node: &Node, group: &str) -> Vec<(String, i64, i64)> {
    let found = describe(node, group);
    let mut all: Vec<_> = found["offsets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|offset| {
            let place = &offset["topicPartition"];
            let topic = place["topic"].as_str().unwrap().to_owned();
            let offset = offset["offset"].as_str().unwrap().parse().unwrap();
            (topic, place["partition"].as_i64().unwrap(), offset)
        })
        .collect();
    all.sort();
    all
}

fn at(topic: &str, partition: i64, offset: i64) -> (String, i64, i64) {
    (topic.to_owned(), partition, offset)
}

/// A member that goes on until it is told to end, after its first line of output.
fn member(node: &Node, args: &[&str]) -> Child {
    let mut consume = command("varve", &node.address());
    consume.arg("consume").args(args);
    let mut child = consume.spawn().unwrap();
    let mut line = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    std::io::BufReader::new(stdout)
        .read_line(&mut line)
        .unwrap();
    assert!(!line.is_empty(), "a member gets records");
    child
}

#[test]
fn a_group_goes_on_where_it_was() {
    let node = node();
    ten(&node, "g-resume", 1);
    let consume = |args: &[&str]| {
        let mut all = vec!["consume", "g-resume"];
        all.extend(args);
        run(&node, &all).ok()
    };
    assert_eq!(consume(&["-g", "g-resume", "-c", "3"]), values(0..3));
    assert_eq!(committed(&node, "g-resume"), [at("g-resume", 0, 3)]);
    assert_eq!(
        consume(&["-g", "g-resume", "-c", "2", "--no-commit"]),
        values(3..5)
    );
    assert_eq!(
        consume(&["-G", "g-resume", "-o", "stored", "-c", "2"]),
        values(3..5)
    );
    // A place to begin is for partitions without a committed offset.
    assert_eq!(
        consume(&["-g", "g-resume", "-o", "beginning", "-c", "1"]),
        values(5..6)
    );
    assert_eq!(consume(&["-g", "g-resume", "-e"]), values(6..10));
    assert_eq!(consume(&["-g", "g-resume", "-e"]), "");
    assert_eq!(committed(&node, "g-resume"), [at("g-resume", 0, 10)]);
    assert_eq!(consume(&["-g", "g-other", "-o", "-2", "-e"]), values(8..10));
    assert_eq!(
        consume(&["-g", "g-new", "-o", "end", "--idle-timeout", "1s"]),
        ""
    );
    assert_eq!(consume(&["-g", "g-newer", "-o", "end", "-e"]), "");
    assert_eq!(consume(&["-g", "g-range", "-o", "2:4"]), values(2..4));
    assert_eq!(
        committed(&node, "g-range"),
        [at("g-resume", 0, 4)],
        "not what was left out"
    );
    assert_eq!(consume(&["-g", "g-range", "-e"]), values(4..10));
    run(&node, &["topic", "trim", "g-resume", "-o", "end", "-y"]).ok();
    assert_eq!(consume(&["-g", "g-late", "-e"]), "");
}

#[test]
fn a_member_by_pattern_stops_at_the_end_of_what_it_was_given() {
    let node = node();
    ten(&node, "g-pat-a", 2);
    ten(&node, "g-pat-b", 1);
    create(&node, "g-pat-empty", 1);
    let args = [
        "consume",
        "-r",
        "g-pat-.*",
        "-g",
        "g-pat",
        "-e",
        "-f",
        r"%t %p %v\n",
    ];
    let read = run(&node, &args).ok();
    assert_eq!(sorted(&read).len(), 30, "{read}");
    let expected = [
        at("g-pat-a", 0, 10),
        at("g-pat-a", 1, 10),
        at("g-pat-b", 0, 10),
    ];
    assert_eq!(committed(&node, "g-pat"), expected);
    assert_eq!(run(&node, &args).ok(), "");
}

#[test]
fn a_member_of_an_unknown_topic_is_told() {
    let node = node();
    create(&node, "g-known", 1);
    let error = run(&node, &["consume", "g-konwn", "-g", "g"]).fails(3);
    assert!(error.contains("did you mean \"g-known\"?"), "{error}");
    let error = run(&node, &["consume", "g-known", "-g", "bad group name"]).fails(2);
    assert!(error.contains("group"), "{error}");
}

#[test]
fn list_and_describe() {
    let node = node();
    ten(&node, "g-desc", 2);
    let mut child = member(
        &node,
        &["g-desc", "-g", "g-desc", "--commit-interval", "100ms"],
    );
    wait::until("the commit of everything", PATIENCE, || {
        (committed(&node, "g-desc") == [at("g-desc", 0, 10), at("g-desc", 1, 10)]).then_some(())
    });
    feed(&node, &["produce", "g-desc", "-p", "0"], "x\n").ok();
    let table = run(&node, &["group", "list"]).ok();
    let row = table
        .lines()
        .find(|line| line.starts_with("g-desc "))
        .unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>()[1..3],
        ["stable", "1"],
        "{table}"
    );
    assert!(row.trim_end().ends_with("consumer"), "{table}");
    let listed: Value =
        serde_json::from_str(&run(&node, &["group", "list", "-o", "json"]).ok()).unwrap();
    let group = listed["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["group"] == "g-desc")
        .unwrap();
    assert_eq!(
        (&group["state"], &group["memberCount"]),
        (&"GROUP_STATE_STABLE".into(), &1.into())
    );
    let text = run(&node, &["group", "describe", "g-desc"]).ok();
    for word in [
        "ASSIGNOR",
        "PROTOCOL",
        "COMMITTED",
        "END",
        "LAG",
        "MEMBER",
        "HOST",
        "127.0.0.1",
    ] {
        assert!(text.contains(word), "{word}\n{text}");
    }
    assert_eq!(
        run(&node, &["group", "describe", "g-desc", "-s"])
            .ok()
            .lines()
            .count(),
        2
    );
    let per_topic = run(&node, &["group", "describe", "g-desc", "-t"]).ok();
    assert!(
        per_topic.contains("PARTITIONS") && per_topic.contains("g-desc"),
        "{per_topic}"
    );
    let all = describe(&node, "g-desc");
    assert_eq!(all["group"]["protocol"], "GROUP_PROTOCOL_CONSUMER");
    assert_eq!(
        all["group"]["members"][0]["protocol"],
        "GROUP_PROTOCOL_CONSUMER"
    );
    let owned = all["group"]["members"][0]["owned"].as_array().unwrap();
    assert_eq!(owned.len(), 2, "{all}");
    child.kill().unwrap();
    child.wait().unwrap();
    let error = run(&node, &["group", "describe", "g-nobody"]).fails(3);
    assert!(error.contains("GROUP_NOT_FOUND"), "{error}");
}

fn seek(node: &Node, group: &str, args: &[&str]) -> crate::Ran {
    let mut all = vec!["group", "seek", group];
    all.extend(args);
    run(node, &all)
}

#[test]
fn seek_moves_a_group() {
    let node = node();
    ten(&node, "g-seek", 1);
    ten(&node, "g-seek-2", 1);
    run(
        &node,
        &["consume", "g-seek", "g-seek-2", "-g", "g-seek", "-e", "-q"],
    )
    .ok();
    let both = |a, b| vec![at("g-seek", 0, a), at("g-seek-2", 0, b)];
    assert_eq!(committed(&node, "g-seek"), both(10, 10));

    // Without an answer from a person, and without --yes, it only shows what would be.
    let shown = seek(&node, "g-seek", &["--to", "start"]);
    assert_eq!(shown.code, Some(2), "{shown:?}");
    assert!(
        shown.out.contains("NEW OFFSET") && shown.error_line().contains("--yes"),
        "{shown:?}"
    );
    assert_eq!(committed(&node, "g-seek"), both(10, 10));
    let dry = seek(&node, "g-seek", &["--to", "start", "--dry-run", "-y"]).ok();
    assert!(dry.contains("NEW OFFSET"), "{dry}");
    assert_eq!(committed(&node, "g-seek"), both(10, 10));

    for (args, expected) in [
        (&["--to", "start", "-y"][..], both(0, 0)),
        (&["--to", "end", "--execute"], both(10, 10)),
        (&["--shift-by", "-4", "-y"], both(6, 6)),
        (&["--shift-by", "1", "-y", "--topics", "g-seek"], both(7, 6)),
        (&["--to", "3", "-y", "--topics", "g-seek-2"], both(7, 3)),
        (&["--to", "@1600000005000", "-y"], both(5, 5)),
        (&["--to", "@2020-09-13T12:26:42Z", "-y"], both(2, 2)),
        (&["--to", "-1", "-y"], both(9, 9)),
        (&["--shift-by", "100", "-y"], both(10, 10)),
        (&["--shift-by", "-100", "-y"], both(0, 0)),
    ] {
        seek(&node, "g-seek", args).ok();
        assert_eq!(committed(&node, "g-seek"), expected, "{args:?}");
    }
    seek(&node, "g-seek", &["--to", "4", "-y"]).ok();
    seek(&node, "g-copy", &["--to-group", "g-seek", "-y"]).ok();
    assert_eq!(committed(&node, "g-copy"), both(4, 4));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("offsets");
    std::fs::write(&file, "# topic partition offset\ng-seek 0 8\n").unwrap();
    let file = file.display().to_string();
    seek(&node, "g-seek", &["--to-file", &file, "-y"]).ok();
    assert_eq!(committed(&node, "g-seek"), both(8, 4));

    let error = seek(&node, "g-seek", &["-y"]).fails(2);
    assert!(error.contains("--shift-by"), "{error}");
    seek(&node, "g-seek", &["--to", "start", "--shift-by", "1"]).usage();
    let json = seek(&node, "g-seek", &["--to", "start", "-y", "-o", "json"]).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["offsets"][0]["offset"], "0");
    assert_eq!(
        run(&node, &["consume", "g-seek", "-g", "g-seek", "-c", "1"]).ok(),
        "0\n"
    );
}

#[test]
fn how_long_a_group_is_behind() {
    let node = node();
    create(&node, "g-age", 1);
    // Written now: those of other tests are as old as they like.
    feed(
        &node,
        &["produce", "g-age"],
        "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n",
    )
    .ok();
    let read = ["consume", "g-age", "-g", "g-age", "-n", "10"];
    run(&node, &read).ok();
    let age = |most: &str| run(&node, &["check", "lag", "g-age", "--max-age", most]);
    let text = age("0s").ok();
    assert!(text.contains("none more than 0ms behind"), "{text}");
    seek(&node, "g-age", &["--to", "4", "--execute"]).ok();
    age("1h").ok();
    let late = age("0s");
    assert_eq!(late.code, Some(4), "{late:?}");
    assert!(
        late.out.starts_with("g-age:0: ") && late.out.contains(" behind"),
        "{late:?}"
    );
    let both = ["check", "lag", "g-age", "--max", "6", "--max-age", "1h"];
    let text = run(&node, &both).ok();
    assert!(
        text.contains("none more than 6 records and 1h00m behind"),
        "{text}"
    );
    let shown = run(&node, &["check", "lag", "g-age"]).ok();
    assert!(shown.contains("LAG"), "{shown}");
    let table = run(&node, &["group", "describe", "g-age"]).ok();
    assert!(table.contains("BEHIND"), "{table}");
    let found = describe(&node, "g-age");
    assert!(found["offsets"][0]["nextRecordTime"].is_string(), "{found}");
}

#[test]
fn a_group_with_members_cannot_be_moved_or_deleted() {
    let node = node();
    ten(&node, "g-busy", 1);
    let mut child = member(
        &node,
        &["g-busy", "-g", "g-busy", "--commit-interval", "50ms"],
    );
    wait::until("a commit", PATIENCE, || {
        (!committed(&node, "g-busy").is_empty()).then_some(())
    });
    for args in [
        &["group", "seek", "g-busy", "--to", "start", "-y"][..],
        &["group", "delete", "g-busy", "-y"],
    ] {
        let error = run(&node, args).fails(1);
        assert!(
            error.contains("g-busy") && error.contains("member"),
            "{error}"
        );
    }
    // Whoever is expelled comes back as a new member, so the child ends first.
    child.kill().unwrap();
    child.wait().unwrap();
    let id = describe(&node, "g-busy")["group"]["members"][0]["memberId"]
        .as_str()
        .unwrap()
        .to_owned();
    let error = run(&node, &["group", "remove-member", "g-busy"]).fails(2);
    assert!(error.contains("--all"), "{error}");
    assert_eq!(
        run(&node, &["group", "remove-member", "g-busy", &id]).ok(),
        format!("{id}: removed\n")
    );
    run(&node, &["group", "seek", "g-busy", "--to", "start", "-y"]).ok();
    assert_eq!(committed(&node, "g-busy"), [at("g-busy", 0, 0)]);
}

#[test]
fn offsets_and_groups_are_deleted() {
    let node = node();
    ten(&node, "g-del", 2);
    ten(&node, "g-del-2", 1);
    run(
        &node,
        &["consume", "g-del", "g-del-2", "-g", "g-del", "-e", "-q"],
    )
    .ok();
    let delete = |topics: &[&str]| {
        let mut args = vec!["group", "offset-delete", "g-del", "-t"];
        args.extend(topics);
        run(&node, &args)
    };
    assert_eq!(delete(&["g-del:1"]).ok(), "g-del:1: offset deleted\n");
    assert_eq!(
        committed(&node, "g-del"),
        [at("g-del", 0, 10), at("g-del-2", 0, 10)]
    );
    assert_eq!(delete(&["g-del-2"]).ok(), "g-del-2:0: offset deleted\n");
    delete(&["g-del-2"]).fails(3);
    let error = run(&node, &["group", "delete", "g-del"]).fails(2);
    assert!(error.contains("--yes"), "{error}");
    assert_eq!(
        run(&node, &["group", "delete", "g-del", "-y"]).ok(),
        "g-del: deleted\n"
    );
    run(&node, &["group", "describe", "g-del"]).fails(3);
    run(&node, &["group", "delete", "g-del", "-y"]).fails(3);
}

#[test]
fn two_members_share_and_one_takes_over() {
    let node = node();
    ten(&node, "g-share", 4);
    let args = ["g-share", "-g", "g-share", "-f", r"%p\n"];
    let mut first = member(&node, &args);
    let mut second = command("varve", &node.address());
    second.arg("consume").args(args);
    let mut second = second.spawn().unwrap();
    let shares = |wanted: &[usize]| {
        wait::until("the shares", PATIENCE, || {
            let found = describe(&node, "g-share");
            let members = found["group"]["members"].as_array()?.clone();
            let mut sizes: Vec<_> = members
                .iter()
                .map(|m| m["owned"].as_array().map_or(0, Vec::len))
                .collect();
            sizes.sort_unstable();
            (sizes == wanted).then_some(())
        });
    };
    shares(&[2, 2]);
    let pid = rustix::process::Pid::from_child(&first);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0));
    shares(&[4]);
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn a_group_is_watched() {
    let node = node();
    ten(&node, "g-watch", 1);
    let commit = |to: &str| seek(&node, "g-watch", &["--to", to, "-y"]).ok();
    run(&node, &["consume", "g-watch", "-g", "g-watch", "-e", "-q"]).ok();
    commit("3");
    let mut watcher = command("varve", &node.address());
    watcher.args(["group", "describe", "g-watch", "--watch", "-o", "json"]);
    let mut watcher = watcher.spawn().unwrap();
    let lines = std::io::BufReader::new(watcher.stdout.take().unwrap()).lines();
    // Looks follow each other without being asked for, and show what has changed in between.
    let (mut seen, mut moved) = (Vec::new(), false);
    for line in lines {
        let line = line.unwrap();
        for offset in [3, 7] {
            let told = format!("\"offset\":\"{offset}\"");
            let plain = format!("\"offset\":{offset}");
            let line = line.replace(' ', "");
            if line.contains(&told) || line.contains(&plain) {
                seen.push(offset);
            }
        }
        if seen.contains(&3) && !moved {
            moved = true;
            commit("7");
        }
        if seen.contains(&7) {
            break;
        }
    }
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    assert_eq!(
        (seen.first(), seen.last()),
        (Some(&3), Some(&7)),
        "{seen:?}"
    );
}
