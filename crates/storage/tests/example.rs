//! The example is run, not only built.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/log.rs"]
mod log;

#[test]
fn the_example_appends_recovers_and_reads() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    assert_eq!(log::run(&dir).unwrap(), ["first", "second"]);
    // What is there stays, and the log goes on.
    let twice = ["first", "second", "first", "second"];
    assert_eq!(log::run(&dir).unwrap(), twice);
}
