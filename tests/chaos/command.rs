//! `varve check` as users run it.

use varve_tests::{node::Node, run};

#[test]
fn a_run_is_judged_kept_and_judged_again_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("data"));
    let history = dir.path().join("h.jsonl");
    let file = history.to_str().unwrap();
    let first = run(
        &node,
        &[
            "check",
            "run",
            "--duration",
            "2s",
            "--rate",
            "100",
            "-p",
            "2",
            "--history",
            file,
            "-o",
            "json",
        ],
    );
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let json = |bytes: &[u8]| -> serde_json::Value { serde_json::from_slice(bytes).unwrap() };
    let verdict = json(&first.stdout);
    assert_eq!(verdict["verdict"]["outcome"], "valid");
    assert!(
        verdict["verdict"]["coverage"]["sends_ok"].as_u64() > Some(20),
        "{verdict}"
    );
    let again = run(&node, &["check", "history", file, "-o", "json"]);
    assert_eq!(json(&again.stdout), verdict);
    // Its topic is gone.
    let topics = run(&node, &["topic", "list"]);
    assert!(
        !String::from_utf8_lossy(&topics.stdout).contains("varve-check"),
        "{topics:?}"
    );

    // A record that was acknowledged, taken out of the reads: found, named, and told by the exit code.
    let text = std::fs::read_to_string(&history).unwrap();
    let lines = || text.lines().map(|line| json(line.as_bytes()));
    // The last send to partition 0: one of those that must succeed at the end.
    let is_send = |event: &serde_json::Value| event["type"] == "send" && event["partition"] == 0;
    let value = lines().rfind(is_send).unwrap()["value"].clone();
    let without: Vec<String> = lines()
        .map(|mut event| {
            if event["type"] == "poll" {
                let records = event["records"].as_array_mut().unwrap();
                records.retain(|record| record[1] != value);
            }
            event.to_string()
        })
        .collect();
    std::fs::write(&history, without.join("\n")).unwrap();
    let lost = run(&node, &["check", "history", file]);
    assert_eq!(lost.status.code(), Some(4), "{lost:?}");
    let text = String::from_utf8_lossy(&lost.stdout);
    assert!(
        text.contains("FORBIDDEN lost-acked") && text.contains("INVALID"),
        "{text}"
    );
    let none = run(&node, &["check", "history", "/nowhere"]);
    assert_eq!(none.status.code(), Some(1));
}
