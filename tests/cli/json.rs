//! Every command that prints or changes anything speaks JSON and YAML, and prints one document.

use serde_json::Value;

use crate::{alone, create, feed, node, run};

/// Commands whose output has no such form, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("produce", "its output is records in a format of their own"),
    ("consume", "prints records; -J is their JSON form"),
    ("server", "logs; log.format has a JSON form"),
    ("config docs", "a page in Markdown"),
    ("completion", "a script for a shell"),
    ("sim", "another program with its own flags"),
    ("help", "text"),
];

/// The subcommands that a help page lists.
fn subcommands(path: &[String]) -> Vec<String> {
    let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
    args.push("--help");
    let help = alone(&args).ok();
    let listed = help.lines().skip_while(|line| line.trim() != "Commands:");
    let listed = listed.skip(1).take_while(|line| !line.trim().is_empty());
    // Continued descriptions are indented further.
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// Every command that runs something, below a path.
pub fn leaves(path: &[String], found: &mut Vec<String>) {
    let below = if path.first().is_some_and(|first| first == "sim") {
        Vec::new()
    } else {
        subcommands(path)
    };
    if below.is_empty() {
        found.push(path.join(" "));
    }
    for name in below {
        let mut path = path.to_vec();
        path.push(name);
        leaves(&path, found);
    }
}

#[test]
fn every_command_has_an_output_format() {
    let mut found = Vec::new();
    leaves(&[], &mut found);
    assert!(found.len() > 40, "{found:?}");
    let mut without = Vec::new();
    for leaf in &found {
        let mut args: Vec<&str> = leaf.split(' ').collect();
        args.push("--help");
        let help = alone(&args).ok();
        let has = help.contains("--output <FOR") && help.contains("yaml");
        let excepted = EXCEPTIONS.iter().any(|(name, _)| name == leaf);
        if has == excepted {
            without.push(leaf);
        }
    }
    assert!(
        without.is_empty(),
        "no --output, or needlessly excepted: {without:?}"
    );
}

#[test]
fn changes_are_told_as_one_document() {
    let node = node();
    let parse = |args: &[&str]| -> Value {
        let out = run(&node, args).ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}\n{out}"))
    };
    let created = parse(&["topic", "create", "j-a", "j-b", "-o", "json"]);
    assert_eq!(created[0]["topic"]["name"], "j-a");
    assert_eq!(created[1]["topic"]["name"], "j-b");
    let described = parse(&["topic", "describe", "j-a", "j-b", "-o", "json"]);
    assert_eq!(described[1]["topic"]["name"], "j-b");
    let one = parse(&["topic", "describe", "j-a", "-o", "json"]);
    assert_eq!(one["topic"]["name"], "j-a", "one thing is no list");
    feed(&node, &["produce", "j-a"], "1\n2\n").ok();
    run(&node, &["consume", "j-a", "-g", "j-g", "-e", "-q"]).ok();
    let lag = parse(&["check", "lag", "j-g", "-o", "json"]);
    assert_eq!(lag["offsets"][0]["topicPartition"]["topic"], "j-a");
    let offsets = parse(&["group", "offset-delete", "j-g", "-t", "j-a", "-o", "json"]);
    assert_eq!(offsets[0]["name"], "j-a:0");
    assert_eq!(offsets[0]["outcome"], "offset deleted");
    run(&node, &["consume", "j-a", "-g", "j-g", "-e", "-q"]).ok();
    let removed = parse(&["group", "remove-member", "j-g", "--all", "-o", "json"]);
    assert_eq!(removed, Value::Array(Vec::new()));
    let group = parse(&["group", "delete", "j-g", "-y", "-o", "json"]);
    assert_eq!(group[0]["name"], "j-g");
    let deleted = parse(&["topic", "delete", "j-a", "j-b", "-y", "-o", "json"]);
    assert_eq!(
        deleted,
        serde_json::json!([
            {"name": "j-a", "outcome": "deleted"}, {"name": "j-b", "outcome": "deleted"},
        ])
    );
    assert!(parse(&["cluster", "upgrade", "-o", "json"])["level"].is_number());
    assert!(parse(&["version", "-o", "json"])["version"].is_string());
    let http = format!("127.0.0.1:{}", node.http_port());
    let health = parse(&["check", "health", "--http", &http, "-o", "json"]);
    assert_eq!(
        (&health["ok"], &health["probe"]),
        (&true.into(), &"ready".into())
    );
}

#[test]
fn yaml_is_ordinary() {
    let node = node();
    create(&node, "y-topic", 2);
    let text = run(&node, &["topic", "describe", "y-topic", "-o", "yaml"]).ok();
    assert!(text.starts_with("configs: []\npartitions:\n  - "), "{text}");
    assert!(text.contains("\ntopic:\n"), "{text}");
    assert!(text.contains("  name: y-topic\n"), "{text}");
    for line in text.lines() {
        assert_ne!(line.trim(), "-", "a dash on a line of its own\n{text}");
    }
    let list = run(
        &node,
        &["topic", "describe", "y-topic", "y-topic", "-o", "yaml"],
    )
    .ok();
    assert_eq!(
        list.lines().filter(|l| l.starts_with("- ")).count(),
        2,
        "{list}"
    );
}

#[test]
fn wide_has_more_columns() {
    let node = node();
    create(&node, "w-topic", 1);
    for args in [
        &["topic", "describe", "w-topic", "-p"][..],
        &["topic", "list", "w-topic"],
        &["cluster", "metadata", "w-topic"],
        &["cluster", "info"],
    ] {
        let text = run(&node, args).ok();
        let wide = run(&node, &[args, &["-o", "wide"]].concat()).ok();
        let words = |text: &str| text.split_whitespace().count();
        assert!(words(&wide) > words(&text), "{args:?}\n{wide}");
    }
}
