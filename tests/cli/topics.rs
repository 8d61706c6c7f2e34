//! `varve topic`: what operators type, and the protobuf JSON that scripts read.

use serde_json::Value;
use varve_tests::node::Node;

use crate::{create, feed, node, run};

fn json(node: &Node, args: &[&str]) -> Value {
    let mut all = args.to_vec();
    all.extend(["-o", "json"]);
    serde_json::from_str(&run(node, &all).ok()).unwrap()
}

fn strings<'a>(value: &'a Value, field: &str) -> Vec<&'a str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item[field].as_str().unwrap())
        .collect()
}

#[test]
fn create_says_what_was_created() {
    let node = node();
    let said = run(
        &node,
        &["topic", "create", "o-a", "o-b", "-p", "2", "-r", "1"],
    )
    .ok();
    assert_eq!(
        said,
        "o-a: created, 2 partitions, 1 replica\no-b: created, 2 partitions, 1 replica\n"
    );
    let error = run(&node, &["topic", "create", "o-a"]).fails(1);
    assert!(
        error.contains("o-a") && error.contains("ALREADY_EXISTS"),
        "{error}"
    );
    assert_eq!(
        run(&node, &["topic", "create", "o-a", "--if-not-exists"]).ok(),
        "o-a: exists as requested, not changed\n"
    );
    assert_eq!(
        run(&node, &["-q", "topic", "create", "o-a", "--if-not-exists"]).ok(),
        ""
    );
    let said = run(&node, &["topic", "create", "o-dry", "-d", "-p", "5"]).ok();
    assert_eq!(said, "o-dry: created, 5 partitions, 1 replica (dry run)\n");
    assert_eq!(run(&node, &["topic", "describe", "o-dry"]).code, Some(3));
    let created = json(
        &node,
        &[
            "topic",
            "create",
            "o-json",
            "--compact",
            "-c",
            "retention.ms=1000",
        ],
    );
    assert_eq!(created["topic"]["name"], "o-json");
    assert_eq!(created["topic"]["configs"]["cleanup.policy"], "compact");
    assert_eq!(created["topic"]["configs"]["retention.ms"], "1000");
    for (args, word) in [
        (
            &["topic", "create", "o-x", "--replication-factor", "3"][..],
            "3",
        ),
        (&["topic", "create", "o-x", "-p", "-1"], "-1"),
        (
            &["topic", "create", "o-x", "-c", "retention.sm=1"],
            "retention.ms",
        ),
        (
            &["topic", "create", "o-x", "-c", "retention.ms=soon"],
            "soon",
        ),
        (&["topic", "create", "bad name"], "bad name"),
    ] {
        let ran = run(&node, args);
        assert!(matches!(ran.code, Some(1 | 2)), "{args:?} {ran:?}");
        assert!(
            ran.out.is_empty() && ran.err.contains(word),
            "{args:?} {ran:?}"
        );
    }
}

#[test]
fn list_in_every_form() {
    let node = node();
    for topic in ["o-list-1", "o-list-2"] {
        create(&node, topic, 2);
    }
    let table = run(&node, &["topic", "list", "o-list-1"]).ok();
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines,
        [
            vec!["TOPIC", "PARTITIONS", "REPLICAS"],
            vec!["o-list-1", "2", "1"]
        ]
    );
    let detailed = run(&node, &["topic", "list", "-d", "-r", "^o-list"]).ok();
    assert!(
        detailed.contains("CONFIGS") && detailed.contains("retention.ms=unlimited"),
        "{detailed}"
    );
    assert_eq!(
        detailed,
        run(&node, &["topic", "list", "-o", "wide", "-r", "^o-list"]).ok()
    );
    let listed = json(&node, &["topic", "list", "-r", "^o-list"]);
    assert_eq!(strings(&listed["topics"], "name"), ["o-list-1", "o-list-2"]);
    assert_eq!(listed["topics"][0]["partitionCount"], 2);
    assert_eq!(listed["topics"][0]["replicationFactor"], 1);
    let yaml = run(&node, &["topic", "list", "o-list-1", "-o", "yaml"]).ok();
    assert!(
        yaml.contains("name: o-list-1") && yaml.contains("partitionCount: 2"),
        "{yaml}"
    );
    let all = run(&node, &["topic", "list", "-i"]).ok();
    assert!(all.contains("o-list-1"), "{all}");
    run(&node, &["topic", "list", "-r", "("]).fails_usage();
}

impl crate::Ran {
    #[track_caller]
    fn fails_usage(self) {
        assert_eq!((self.code, self.out.as_str()), (Some(2), ""), "{self:?}");
        assert!(self.err.starts_with("error: "), "{self:?}");
    }
}

#[test]
fn describe_shows_what_is_asked_for() {
    let node = node();
    create(&node, "o-desc", 2);
    feed(&node, &["produce", "o-desc", "-p", "1"], "a\nb\n").ok();
    let describe = |flags: &[&str]| {
        let mut args = vec!["topic", "describe", "o-desc"];
        args.extend(flags);
        run(&node, &args).ok()
    };
    let (summary, configs, partitions) = ("SUMMARY", "CONFIG ", "PARTITION  ");
    for (flags, shown) in [
        (&[][..], [true, false, true]),
        (&["-s"], [true, false, false]),
        (&["-c"], [false, true, false]),
        (&["-p"], [false, false, true]),
        (&["-a"], [true, true, true]),
        (&["-s", "-c"], [true, true, false]),
    ] {
        let text = describe(flags);
        let found = [summary, configs, partitions].map(|heading| text.contains(heading));
        assert_eq!(found, shown, "{flags:?}\n{text}");
    }
    for flag in ["--under-replicated", "--unavailable"] {
        assert_eq!(describe(&[flag]).lines().count(), 1, "only the headings");
    }
    let all = json(&node, &["topic", "describe", "o-desc", "-a"]);
    assert_eq!(all["topic"]["name"], "o-desc");
    assert_eq!(
        all["partitions"][1]["highWatermark"], "2",
        "64 bits are strings in protobuf JSON"
    );
    assert_eq!(all["partitions"][1]["leaderNodeId"], 1);
    assert_eq!(
        all["partitions"][1]["inSyncNodeIds"],
        serde_json::json!([1])
    );
    assert!(strings(&all["configs"], "name").contains(&"retention.ms"));
    let error = run(&node, &["topic", "describe", "o-dsec"]).fails(3);
    assert_eq!(error.matches("did you mean").count(), 1, "{error}");
    assert!(error.contains("did you mean \"o-desc\"?"), "{error}");
}

#[test]
fn config_sets_deletes_and_appends() {
    let node = node();
    create(&node, "o-conf", 1);
    let value = |name: &str| {
        let all = json(&node, &["topic", "config", "o-conf"]);
        let configs = all["configs"].as_array().unwrap().clone();
        let found = configs
            .iter()
            .find(|config| config["name"] == name)
            .unwrap();
        let text = |field: &str| found[field].as_str().unwrap().to_owned();
        (text("value"), text("source"))
    };
    let shown = run(
        &node,
        &["topic", "config", "o-conf", "--set", "retention.ms=60000"],
    )
    .ok();
    assert!(shown.contains("retention.ms"), "{shown}");
    assert_eq!(value("retention.ms").0, "60000");
    let dry = [
        "topic",
        "config",
        "o-conf",
        "--set",
        "retention.ms=1",
        "--dry-run",
    ];
    assert_eq!(
        run(&node, &dry).ok(),
        "o-conf: the changes are valid (dry run)\n"
    );
    assert_eq!(value("retention.ms").0, "60000");
    run(
        &node,
        &["topic", "config", "o-conf", "--delete", "retention.ms"],
    )
    .ok();
    assert_eq!(
        value("retention.ms"),
        ("604800000".to_owned(), "CONFIG_SOURCE_DEFAULT".to_owned())
    );
    run(
        &node,
        &[
            "topic",
            "config",
            "o-conf",
            "--append",
            "cleanup.policy=compact",
        ],
    )
    .ok();
    assert_eq!(value("cleanup.policy").0, "delete,compact");
    for (args, word) in [
        (
            &["--set", "retention.sm=1"][..],
            "did you mean \"retention.ms\"?",
        ),
        (&["--set", "retention.ms=soon"], "soon"),
        (&["--set", "retention.ms=soon", "--dry-run"], "soon"),
    ] {
        let mut all = vec!["topic", "config", "o-conf"];
        all.extend(args);
        let error = run(&node, &all).fails(2);
        assert!(error.contains(word), "{error}");
    }
    run(&node, &["topic", "config", "o-conf", "--set", "novalue"]).usage();
    run(&node, &["topic", "config", "o-cnof"]).fails(3);
}

#[test]
fn partitions_are_added_and_never_taken_away() {
    let node = node();
    create(&node, "o-add", 1);
    let add = |args: &[&str]| {
        let mut all = vec!["topic", "add-partitions", "o-add"];
        all.extend(args);
        run(&node, &all)
    };
    assert_eq!(
        add(&["-t", "3", "-d"]).ok(),
        "o-add: 3 partitions (dry run)\n"
    );
    assert_eq!(
        json(&node, &["topic", "list", "o-add"])["topics"][0]["partitionCount"],
        1
    );
    assert_eq!(add(&["--total", "3"]).ok(), "o-add: 3 partitions\n");
    assert_eq!(
        json(&node, &["topic", "list", "o-add"])["topics"][0]["partitionCount"],
        3
    );
    feed(&node, &["produce", "o-add", "-p", "2"], "x\n").ok();
    let error = add(&["-t", "2"]).fails(2);
    assert!(error.contains('3'), "{error}");
}

fn starts(node: &Node, topic: &str) -> Vec<String> {
    let found = json(node, &["topic", "offsets", topic]);
    let results = found["results"].as_array().unwrap();
    results
        .iter()
        .map(|r| r["offsets"]["logStartOffset"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn trim_deletes_the_oldest() {
    let node = node();
    create(&node, "o-trim", 2);
    for partition in ["0", "1"] {
        let lines: String = (0..10).map(|n| format!("{n}\n")).collect();
        feed(&node, &["produce", "o-trim", "-p", partition], lines).ok();
    }
    let error = run(&node, &["topic", "trim", "o-trim", "-o", "4"]).fails(2);
    assert!(error.contains("--yes"), "nobody can be asked: {error}");
    let dry = run(&node, &["topic", "trim", "o-trim", "-o", "-3", "--dry-run"]).ok();
    let rows: Vec<Vec<&str>> = dry
        .lines()
        .skip(1)
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows, [["o-trim", "0", "7"], ["o-trim", "1", "7"]]);
    assert_eq!(starts(&node, "o-trim"), ["0", "0"], "nothing was changed");
    run(
        &node,
        &["topic", "trim", "o-trim", "-o", "4", "-p", "1", "-y"],
    )
    .ok();
    assert_eq!(starts(&node, "o-trim"), ["0", "4"]);
    let trimmed = run(
        &node,
        &[
            "topic", "trim", "o-trim", "-o", "end", "-y", "--output", "json",
        ],
    )
    .ok();
    let trimmed: Value = serde_json::from_str(&trimmed).unwrap();
    assert_eq!(trimmed["results"][0]["logStartOffset"], "10");
    assert_eq!(starts(&node, "o-trim"), ["10", "10"]);
    assert_eq!(run(&node, &["consume", "o-trim", "-e"]).ok(), "");
    let error = run(&node, &["topic", "trim", "o-trim", "-o", "1:2", "-y"]).fails(2);
    assert!(error.contains("is not a single position"), "{error}");
}

#[test]
fn delete_asks_and_deletes() {
    let node = node();
    for topic in ["o-del-1", "o-del-2", "o-del-3"] {
        create(&node, topic, 1);
    }
    let error = run(&node, &["topic", "delete", "o-del-1"]).fails(2);
    assert!(
        error.contains("deletes topic o-del-1") && error.contains("--yes"),
        "{error}"
    );
    assert_eq!(
        run(&node, &["topic", "delete", "o-del-1", "-y"]).ok(),
        "o-del-1: deleted\n"
    );
    let error = run(&node, &["topic", "delete", "o-del-9", "-y"]).fails(3);
    assert!(error.contains("did you mean"), "{error}");
    let said = run(&node, &["topic", "delete", "-r", "o-del-.", "--yes"]).ok();
    assert_eq!(said, "o-del-2: deleted\no-del-3: deleted\n");
    run(&node, &["topic", "delete", "-r", "o-del-.", "-y"]).fails(3);
}

#[test]
fn offsets_by_place_and_time() {
    let node = node();
    create(&node, "o-off", 1);
    let lines: String = (0..10)
        .map(|n| format!("{} {n}\n", 1_600_000_000_000_i64 + n * 1000))
        .collect();
    feed(&node, &["produce", "o-off", "-f", r"%T %v\n"], lines).ok();
    let table = run(&node, &["topic", "offsets", "o-off"]).ok();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows,
        [
            ["TOPIC", "PARTITION", "START", "END"],
            ["o-off", "0", "0", "10"]
        ]
    );
    for (at, expected) in [
        ("beginning", "0"),
        ("end", "10"),
        ("-3", "7"),
        ("+3", "3"),
        ("4", "4"),
        ("@1600000005000", "5"),
        ("@1600000005", "5"),
        ("@2020-09-13T12:26:45Z", "5"),
        ("@2020-09-14", "10"),
        ("@-1h", "10"),
    ] {
        let found = json(&node, &["topic", "offsets", "o-off", "-a", at]);
        assert_eq!(found["results"][0]["offsets"]["offset"], expected, "{at}");
        assert_eq!(found["results"][0]["topicPartition"]["topic"], "o-off");
        let text = run(&node, &["topic", "offsets", "o-off", "--at", at]).ok();
        assert!(text.trim_end().ends_with(expected), "{at}\n{text}");
    }
    run(&node, &["topic", "offsets", "o-fof"]).fails(3);
    run(&node, &["topic", "offsets", "o-off", "-p", "1"]).fails(3);
}
