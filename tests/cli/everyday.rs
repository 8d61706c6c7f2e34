//! What everyday commands say to a person, and what they refuse: hints at a terminal, offsets that a partition does
//! not have, topics that exist in another shape, answers to questions.

use std::io::Write as _;
use std::process::Command;

use serde_json::Value;

use crate::terminal::{all, at_a_terminal, screen, script_exists, wait_for};
use crate::{alone, create, feed, node, program, read, run};

#[test]
fn a_person_who_types_records_is_told_so() {
    if !script_exists() {
        return;
    }
    let node = node();
    create(&node, "e-type", 1);
    let mut child = at_a_terminal(&node, "exec \"$V\" produce e-type", &[]);
    let shown = screen(&mut child);
    let mut seen = String::new();
    wait_for(&shown, &mut seen, "typing records for e-type; Ctrl-D ends");
    let stdin = child.stdin.as_mut().unwrap();
    stdin.write_all(b"a\nb\nc\n\x04").unwrap();
    wait_for(&shown, &mut seen, "3 records written to e-type");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{seen}");
    assert_eq!(read(&node, "e-type", "%v"), "abc");
    // Not with -q; and without a terminal only with -v.
    let quiet = at_a_terminal(&node, "echo x | \"$V\" -q produce e-type", &[]);
    assert_eq!(all(quiet), (Some(0), String::new()));
    let piped = at_a_terminal(&node, "echo x | \"$V\" produce e-type", &[]);
    let (code, text) = all(piped);
    // A bar may have come and gone before.
    let last = text.rsplit("\u{1b}[2K").next().unwrap_or_default();
    assert_eq!((code, last.trim()), (Some(0), "1 record written to e-type"));
    assert_eq!(feed(&node, &["produce", "e-type"], "x\n").ok(), "");
    let verbose = feed(&node, &["-v", "produce", "e-type"], "x\n");
    assert!(
        verbose.err.contains("1 record written to e-type\n"),
        "{verbose:?}"
    );
}

#[test]
fn a_person_who_waits_for_records_is_told_so() {
    if !script_exists() {
        return;
    }
    let node = node();
    create(&node, "e-wait", 3);
    for (line, said) in [
        (
            "consume e-wait -g e-wait -c 1",
            "waiting for records on e-wait (group e-wait, 3 partitions assigned); Ctrl-C ends",
        ),
        (
            "consume e-wait -o end -c 1",
            "waiting for records on e-wait (3 partitions); Ctrl-C ends",
        ),
    ] {
        let mut child = at_a_terminal(&node, &format!("exec \"$V\" {line}"), &[]);
        let shown = screen(&mut child);
        let mut seen = String::new();
        wait_for(&shown, &mut seen, said);
        feed(&node, &["produce", "e-wait"], "x\n").ok();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{seen}");
    }
    let line = "exec \"$V\" -q consume e-wait -o end --idle-timeout 1s";
    assert_eq!(
        all(at_a_terminal(&node, line, &[])),
        (Some(0), String::new())
    );
    let waiting = ["consume", "e-wait", "-o", "end", "--idle-timeout", "1s"];
    assert_eq!(run(&node, &waiting).ok(), "", "nothing without a terminal");
}

#[test]
fn an_offset_that_a_partition_does_not_have_is_refused() {
    let node = node();
    create(&node, "e-range", 2);
    feed(
        &node,
        &["produce", "e-range", "-p", "0"],
        "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n",
    )
    .ok();
    feed(&node, &["produce", "e-range", "-p", "1"], "a\nb\n").ok();
    let consume = |args: &[&str]| {
        let mut all = vec!["consume", "e-range"];
        all.extend(args);
        run(&node, &all)
    };
    for args in [
        &["-o", "1000", "-e"][..],
        &["-o", "1000"],
        &["-o", "1000:end"],
        &["-o", "1000:2000"],
        &["-o", "5", "-e"],
    ] {
        let error = consume(args).fails(3);
        let offset = args[1].split(':').next().unwrap();
        assert!(
            error.contains(&format!("offset {offset} is out of range")),
            "{args:?} {error}"
        );
        assert!(
            error.contains("e-range:1 has offsets 0 to 1"),
            "{args:?} {error}"
        );
        assert!(error.contains("nothing was read"), "{args:?} {error}");
    }
    let both = consume(&["-o", "1000", "-e"]).fails(3);
    assert!(both.contains("e-range:0 has offsets 0 to 9"), "{both}");
    // One partition has it, and an end in the future is the end of today with -e.
    assert_eq!(consume(&["-o", "8", "-e", "-p", "0"]).ok(), "8\n9\n");
    assert_eq!(consume(&["-o", "8:1000", "-e", "-p", "0"]).ok(), "8\n9\n");
    assert_eq!(consume(&["-o", "8:9", "-p", "0"]).ok(), "8\n");
    assert_eq!(
        consume(&["-o", "10", "-e", "-p", "0"]).ok(),
        "",
        "the end is an offset too"
    );
    assert_eq!(consume(&["-o", "+1000", "-e"]).ok(), "");
    assert_eq!(
        consume(&["-o", "+1000", "--idle-timeout", "300ms"]).ok(),
        ""
    );
    // The same for records that are no longer there.
    run(
        &node,
        &["topic", "trim", "e-range", "-o", "4", "-p", "0", "-y"],
    )
    .ok();
    let trimmed = consume(&["-o", "3", "-p", "0", "-e"]).fails(3);
    assert!(
        trimmed.contains("e-range:0 has offsets 4 to 9"),
        "{trimmed}"
    );
    create(&node, "e-empty", 1);
    let empty = run(&node, &["consume", "e-empty", "-o", "5", "-e"]).fails(3);
    assert!(empty.contains("e-empty:0 is empty"), "{empty}");
}

#[test]
fn a_topic_of_another_shape_is_a_conflict() {
    let node = node();
    run(
        &node,
        &[
            "topic",
            "create",
            "e-shape",
            "-p",
            "3",
            "-c",
            "retention.ms=1h",
        ],
    )
    .ok();
    let again = |args: &[&str]| {
        let mut all = vec!["topic", "create", "e-shape", "--if-not-exists"];
        all.extend(args);
        run(&node, &all)
    };
    let exists = "e-shape: exists as requested, not changed\n";
    for args in [
        &[][..],
        &["-p", "3"],
        &["-r", "1", "-c", "retention.ms=3600000"],
        &["-c", "retention.ms=60m"],
        &["-c", "cleanup.policy=delete"],
        &["-d"],
    ] {
        assert_eq!(again(args).ok(), exists, "{args:?}");
    }
    for (args, text) in [
        (&["-p", "5"][..], "exists with 3 partitions, not 5;"),
        (&["-r", "3"], "exists with 1 replica, not 3;"),
        (
            &["-c", "retention.ms=2h"],
            "exists with retention.ms=1h, not 2h;",
        ),
        (
            &["--compact"],
            "exists with cleanup.policy=delete, not compact;",
        ),
        (
            &["-p", "5", "-r", "2"],
            "exists with 3 partitions, not 5, and 1 replica, not 2;",
        ),
    ] {
        let error = again(args).fails(4);
        assert!(
            error.contains(text) && error.ends_with("nothing was changed"),
            "{args:?} {error}"
        );
    }
    // Nothing is created before all of them were looked at.
    let args = [
        "topic",
        "create",
        "e-shape-new",
        "e-shape",
        "-p",
        "5",
        "--if-not-exists",
    ];
    run(&node, &args).fails(4);
    run(&node, &["topic", "describe", "e-shape-new"]).fails(3);
    let described: Value =
        serde_json::from_str(&run(&node, &["topic", "list", "e-shape", "-o", "json"]).ok())
            .unwrap();
    assert_eq!(described["topics"][0]["partitionCount"], 3);
}

#[test]
fn partitions_are_added_by_number_or_total() {
    let node = node();
    create(&node, "e-grow", 1);
    let grow = |args: &[&str]| {
        let mut all = vec!["topic", "add-partitions", "e-grow"];
        all.extend(args);
        run(&node, &all)
    };
    assert_eq!(
        grow(&["-n", "2", "-d"]).ok(),
        "e-grow: 3 partitions (dry run)\n"
    );
    assert_eq!(grow(&["-n", "1"]).ok(), "e-grow: 2 partitions\n");
    assert_eq!(grow(&["--total", "5"]).ok(), "e-grow: 5 partitions\n");
    assert_eq!(grow(&["-t", "6"]).ok(), "e-grow: 6 partitions\n");
    let help = alone(&["topic", "add-partitions", "-h"]).ok();
    assert!(help.contains("--total") && !help.contains("-t,"), "{help}");
    grow(&[]).usage();
    grow(&["-n", "1", "--total", "9"]).usage();
}

#[test]
fn an_answer_of_no_is_no_error() {
    if !script_exists() {
        return;
    }
    let node = node();
    create(&node, "e-no", 1);
    let mut child = at_a_terminal(&node, "exec \"$V\" topic delete e-no", &[]);
    let shown = screen(&mut child);
    let mut seen = String::new();
    let question = "This deletes topic e-no with all its records. Continue? [y/N]";
    wait_for(&shown, &mut seen, question);
    child.stdin.as_mut().unwrap().write_all(b"n\n").unwrap();
    wait_for(&shown, &mut seen, "cancelled; nothing was changed");
    assert_eq!(child.wait().unwrap().code(), Some(1), "{seen}");
    assert!(!seen.contains("error:"), "{seen}");
    let refused = run(&node, &["topic", "delete", "e-no"]).fails(2);
    assert_eq!(
        refused,
        "error: this deletes topic e-no with all its records; nothing was changed; repeat with --yes to do it"
    );
}

#[test]
fn texts_of_the_command_line_are_records() {
    let node = node();
    create(&node, "e-value", 1);
    run(
        &node,
        &[
            "produce", "e-value", "--value", "one", "--value", "-2", "-k", "k",
        ],
    )
    .ok();
    assert_eq!(read(&node, "e-value", "%k=%v;"), "k=one;k=-2;");
    run(&node, &["produce", "e-value", "--value", "x", "/dev/null"]).fails(2);
    run(&node, &["produce", "e-value", "--value", "x", "-J"]).usage();
}

#[test]
fn the_simulator_is_offered_only_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let varve = dir.path().join("varve");
    std::fs::copy(program("varve"), &varve).unwrap();
    let ran = |args: &[&str]| {
        let output = Command::new(&varve)
            .args(args)
            .env("PATH", "")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, help, _) = ran(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(
        help.contains("  consume") && !help.contains("  sim"),
        "{help}"
    );
    let (code, _, error) = ran(&["sim", "--seed", "1"]);
    assert_eq!(code, Some(3), "{error}");
    assert!(
        error.contains("cargo build --release -p varve-sim"),
        "{error}"
    );
    std::fs::write(dir.path().join("varve-sim"), "").unwrap();
    let (_, help, _) = ran(&["--help"]);
    assert!(help.contains("  sim"), "{help}");
}
