//! The system test of Kafka Streams: a topology of counts, sums, windows and suppressions in two processes, which are
//! killed while records come. Its own driver makes the records and verifies what came out.

use std::time::Duration;

use crate::java::{Java, KAFKA, is_long, node};

const PROGRAM: &str = "org.apache.kafka.streams.tests.StreamsSmokeTest";
const TOPICS: &[&str] = &[
    "data",
    "echo",
    "min",
    "min-suppressed",
    "min-raw",
    "max",
    "sum",
    "dif",
    "cnt",
    "avg",
    "wcnt",
    "tagg",
    "sws-raw",
    "sws-suppressed",
    "fk",
];

fn smoke(guarantee: &str) {
    let what = format!("jvm streams {guarantee}");
    if !is_long() {
        return varve_tests::chaos::say(&format!("SKIPPED {what}: VARVE_TEST_JVM=long runs it"));
    }
    let Some(java) = Java::of(&what, "system", KAFKA) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (node, kafka) = node(&dir.path().join("node"));
    for topic in TOPICS {
        let made = varve_tests::run(&node, &["topic", "create", topic, "-p", "5", "-q"]);
        assert!(made.status.success(), "{made:?}");
    }
    let properties = |name: &str| {
        let path = dir.path().join(format!("{name}.properties"));
        let state = dir.path().join(name);
        let text = format!(
            "bootstrap.servers={kafka}\nprocessing.guarantee={guarantee}\nreplication.factor=1\n\
             session.timeout.ms=10000\nstate.dir={}\n",
            state.display()
        );
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let log = |name: &str| dir.path().join(format!("{name}.log"));
    let start = |name: &str| java.start(PROGRAM, &[&properties(name), "process"], &log(name));
    let driver = java.start(PROGRAM, &[&properties("driver"), "run"], &log("driver"));
    let (mut one, mut other) = (start("one"), start("other"));
    let begun = Duration::from_secs(120);
    for (records, app, name) in [(3_000, &mut one, "one"), (8_000, &mut other, "other")] {
        driver.prints(&format!("{records} records produced"), begun);
        app.kill();
        *app = start(name);
    }
    let printed = driver.ends(Duration::from_secs(420));
    assert!(printed.contains("ALL-RECORDS-DELIVERED"), "{printed}");
    assert!(printed.lines().any(|line| line == "SUCCESS"), "{printed}");
}

#[test]
fn streams_with_kills_exactly_once() {
    smoke("exactly_once_v2");
}

#[test]
fn streams_with_kills_at_least_once() {
    smoke("at_least_once");
}
