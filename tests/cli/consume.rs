//! `varve consume`: where it begins, where it ends, and what a read is told.

use varve_tests::node::Node;
use varve_tests::wait;

use crate::{PATIENCE, alone, command, create, feed, node, read, run, sorted};

/// 2020-09-13T12:26:40Z.
const T0: i64 = 1_600_000_000_000;

/// A partition with the values 0 to 29, one second apart from [`T0`].
fn thirty(node: &Node, topic: &str) {
    create(node, topic, 1);
    let lines: String = (0..30)
        .map(|n| format!("{} {n}\n", T0 + n * 1000))
        .collect();
    feed(node, &["produce", topic, "-f", r"%T %v\n"], lines).ok();
}

fn values(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{n}\n")).collect()
}

#[test]
fn every_row_of_the_offset_grammar() {
    let node = node();
    thirty(&node, "c-grid");
    for (spec, expected) in [
        ("beginning", 0..30),
        ("start", 0..30),
        ("earliest", 0..30),
        ("end", 30..30),
        ("latest", 30..30),
        ("0", 0..30),
        ("12", 12..30),
        ("30", 30..30),
        ("-10", 20..30),
        ("-100", 0..30),
        ("+10", 10..30),
        ("+100", 30..30),
        ("10:20", 10..20),
        ("10:10", 10..10),
        (":20", 0..20),
        ("10:", 10..30),
        (":end", 0..30),
        ("25:end", 25..30),
        ("-5:end", 25..30),
        ("@1600000005000", 5..30),
        ("@1600000005", 5..30),
        ("@1600000005001", 6..30),
        ("@2020-09-13T12:26:45Z", 5..30),
        ("@2020-09-13T14:26:45+02:00", 5..30),
        ("@2020-09-13", 0..30),
        ("@2020-09-14", 30..30),
        ("@1600000005000:1600000010000", 5..10),
        ("@1600000005:1600000010", 5..10),
        ("@2020-09-13T12:26:45Z:2020-09-13T12:26:50Z", 5..10),
        ("@:1600000010", 0..10),
        ("@1600000025:end", 25..30),
        ("@-1h", 30..30),
        ("s@1600000005000", 5..30),
        ("e@1600000005000", 0..5),
    ] {
        let read = run(&node, &["consume", "c-grid", "-e", "-o", spec]).ok();
        assert_eq!(read, values(expected), "{spec}");
    }
    // What names its end stops there without -e.
    for (spec, expected) in [("10:20", 10..20), (":end", 0..30), ("@:1600000003", 0..3)] {
        assert_eq!(
            run(&node, &["consume", "c-grid", "-o", spec]).ok(),
            values(expected),
            "{spec}"
        );
    }
    let twice = [
        "consume",
        "c-grid",
        "-o",
        "s@1600000005000",
        "-o",
        "e@1600000010000",
    ];
    assert_eq!(run(&node, &twice).ok(), values(5..10));
}

#[test]
fn times_before_now() {
    let node = node();
    create(&node, "c-ago", 1);
    for (at, value) in [("-3h", "old\n"), ("-90m", "mid\n"), ("-10m", "new\n")] {
        feed(&node, &["produce", "c-ago", "--at", at], value).ok();
    }
    for (spec, expected) in [
        ("@-2h", "mid\nnew\n"),
        ("@-4h:-1h", "old\nmid\n"),
        ("@-1d:-2h", "old\n"),
        ("@:-2h", "old\n"),
        ("@-1m", ""),
    ] {
        assert_eq!(
            run(&node, &["consume", "c-ago", "-e", "-o", spec]).ok(),
            expected,
            "{spec}"
        );
    }
}

#[test]
fn wrong_offsets_are_explained() {
    let node = node();
    thirty(&node, "c-wrong");
    for (spec, word) in [
        ("begining", "beginning"),
        ("20:10", "ends before it starts"),
        (":", "needs a start or an end"),
        ("@x", "is not a time"),
        ("stored", "-g GROUP"),
        ("committed", "-g GROUP"),
    ] {
        let error = run(&node, &["consume", "c-wrong", "-o", spec]).fails(2);
        assert!(error.contains(word), "{spec}: {error}");
    }
    let twice = run(&node, &["consume", "c-wrong", "-o", "1", "-o", "2"]).fails(2);
    assert!(twice.contains("twice"), "{twice}");
    run(
        &node,
        &["consume", "c-wrong", "--from-beginning", "-o", "1"],
    )
    .usage();
    // An offset the log does not have (any more).
    run(&node, &["topic", "trim", "c-wrong", "-o", "10", "-y"]).ok();
    let error = run(&node, &["consume", "c-wrong", "-e", "-o", "3"]).fails(3);
    assert!(error.contains("c-wrong") && error.contains("10"), "{error}");
    assert_eq!(
        run(&node, &["consume", "c-wrong", "-e", "-o", "+0", "-c", "1"]).ok(),
        "10\n"
    );
}

#[test]
fn what_comes_from_now_on() {
    let node = node();
    create(&node, "c-new", 1);
    feed(&node, &["produce", "c-new"], "old\n").ok();
    let mut reader = command("varve", &node.address());
    reader.args(["consume", "c-new", "-o", "end", "-c", "1"]);
    let mut child = reader.spawn().unwrap();
    // It may take a moment until it stands at the end.
    let status = wait::until("the reader to see a record", PATIENCE, || {
        feed(&node, &["produce", "c-new"], "new\n").ok();
        child.try_wait().unwrap()
    });
    assert!(status.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"new\n");
}

#[test]
fn partitions_topics_and_patterns() {
    let node = node();
    create(&node, "c-many-a", 3);
    create(&node, "c-many-b", 1);
    for partition in ["0", "1", "2"] {
        feed(&node, &["produce", "c-many-a", "-p", partition], "a\n").ok();
    }
    feed(&node, &["produce", "c-many-b"], "b\n").ok();
    let consume = |args: &[&str]| {
        let mut all = vec!["consume", "-e", "-f", r"%t %p\n"];
        all.extend(args);
        run(&node, &all)
    };
    let a = ["c-many-a 0", "c-many-a 1", "c-many-a 2"];
    let both = ["c-many-a 0", "c-many-a 1", "c-many-a 2", "c-many-b 0"];
    assert_eq!(sorted(&consume(&["c-many-a"]).ok()), a);
    assert_eq!(
        sorted(&consume(&["c-many-a", "-p", "0,2"]).ok()),
        [a[0], a[2]]
    );
    assert_eq!(
        sorted(&consume(&["c-many-a", "-p", "0", "-p", "1"]).ok()),
        a[..2]
    );
    assert_eq!(sorted(&consume(&["c-many-a", "c-many-b"]).ok()), both);
    assert_eq!(
        sorted(&consume(&["-t", "c-many-a", "-t", "c-many-b"]).ok()),
        both
    );
    assert_eq!(sorted(&consume(&["-r", "c-many-."]).ok()), both);
    assert_eq!(
        sorted(
            &consume(&["-r", "c-many"])
                .code
                .map_or(String::new(), |c| c.to_string())
        ),
        ["3"]
    );
    let error = consume(&["c-many-a", "-p", "3"]).fails(3);
    assert!(
        error.contains("partition 3") && error.contains("c-many-a"),
        "{error}"
    );
    let error = consume(&["-r", "nothing-.*"]).fails(3);
    assert!(error.contains("no topic matches"), "{error}");
    let error = consume(&["-r", "("]).fails(2);
    assert!(error.contains("\"(\""), "{error}");
    let error = consume(&["c-many-aa"]).fails(3);
    assert!(error.ends_with("; did you mean \"c-many-a\"?"), "{error}");
    let error = consume(&[]).fails(2);
    assert!(error.contains("no topic is given"), "{error}");
}

#[test]
fn counts_under_every_name() {
    let node = node();
    thirty(&node, "c-count");
    for flag in ["-c", "-n", "--count", "--num", "--max-messages"] {
        assert_eq!(
            run(&node, &["consume", "c-count", flag, "3"]).ok(),
            values(0..3),
            "{flag}"
        );
    }
    assert_eq!(run(&node, &["consume", "c-count", "-c", "0"]).ok(), "");
    assert_eq!(
        run(&node, &["consume", "c-count", "-o", "28", "-c", "9", "-e"]).ok(),
        values(28..30)
    );
}

#[test]
fn silence_and_what_was_required() {
    let node = node();
    thirty(&node, "c-idle");
    let from = |args: &[&str]| {
        let mut all = vec!["consume", "c-idle", "-o", "27"];
        all.extend(args);
        run(&node, &all)
    };
    assert_eq!(from(&["--idle-timeout", "300ms"]).ok(), values(27..30));
    assert_eq!(from(&["--timeout-ms", "300"]).ok(), values(27..30));
    let begin = [
        "consume",
        "c-idle",
        "--from-beginning",
        "--timeout-ms",
        "300",
    ];
    assert_eq!(run(&node, &begin).ok(), values(0..30));
    assert_eq!(
        from(&["--idle-timeout", "300ms", "--require", "3"]).ok(),
        values(27..30)
    );
    for args in [
        &["--idle-timeout", "300ms", "--require", "4"][..],
        &["-e", "--require", "4"],
    ] {
        let ran = from(args);
        assert_eq!(ran.code, Some(4), "{ran:?}");
        assert_eq!(ran.out, values(27..30), "what came is printed");
        assert_eq!(
            ran.error_line(),
            "error: 3 records read, but --require is 4"
        );
    }
}

#[test]
fn the_simple_flags_of_printing() {
    let node = node();
    create(&node, "c-print", 1);
    let time = [
        "produce",
        "c-print",
        "-K",
        ":",
        "-Z",
        "-H",
        "h=1",
        "--timestamp",
        "1600000000000",
    ];
    feed(&node, &time, "k:v\nnull:\nplain\n").ok();
    for (flags, expected) in [
        (&[][..], "v\n\nplain\n"),
        (&["-Z", "NULL"], "v\nNULL\nplain\n"),
        (&["-K", ":"], "k:v\nnull:\n:plain\n"),
        (&["-K", r"\t", "-Z", "~"], "k\tv\nnull\t~\n~\tplain\n"),
        (&["-O"], "0\tv\n1\t\n2\tplain\n"),
        (&["-D", r"\0"], "v\0\0plain\0"),
        (
            &["-D", "; ", "-O", "-K", "="],
            "0\tk=v; 1\tnull=; 2\t=plain; ",
        ),
        (&["-u"], "v\n\nplain\n"),
        (
            &["--meta-only", "-c", "1"],
            "c-print 0 0 1600000000000 k h=1\n",
        ),
        (
            &["--headers-only", "-f", r"%o %v|%h\n", "-c", "1"],
            "0 |h=1\n",
        ),
    ] {
        let mut args = vec!["consume", "c-print", "-e"];
        args.extend(flags);
        assert_eq!(run(&node, &args).ok(), expected, "{flags:?}");
    }
}

#[test]
fn a_topic_that_is_deleted_while_it_is_read() {
    let node = node();
    create(&node, "c-gone", 1);
    feed(&node, &["produce", "c-gone"], "x\n").ok();
    let mut reader = command("varve", &node.address());
    reader.args(["consume", "c-gone"]);
    let mut child = reader.spawn().unwrap();
    let mut first = [0; 2];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    run(&node, &["topic", "delete", "c-gone", "-y", "-q"]).ok();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(
        error.starts_with("error: ") && error.contains("c-gone"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
    assert_eq!(alone(&["consume", "-g", "g", "-p", "1", "t"]).code, Some(2));
}

#[test]
fn an_empty_topic_ends_at_once() {
    let node = node();
    create(&node, "c-empty", 3);
    assert_eq!(read(&node, "c-empty", "%v"), "");
    for spec in ["beginning", "end", "-5", "+5", ":end", "@-1h"] {
        assert_eq!(
            run(&node, &["consume", "c-empty", "-e", "-o", spec]).ok(),
            "",
            "{spec}"
        );
    }
}
