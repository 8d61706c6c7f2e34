//! What cannot be printed is an error: standard output that is full ends a command with exit code 1 and a sentence.

use std::fs::OpenOptions;
use std::process::Stdio;

use crate::json::leaves;
use crate::{Ran, command, create, feed, finish, node};

/// Runs a command whose standard output takes nothing.
fn full(address: &str, args: &[&str], input: Option<&str>) -> Ran {
    let mut command = command("varve", address);
    command.args(args);
    let nothing = OpenOptions::new().write(true).open("/dev/full").unwrap();
    command.stdout(Stdio::from(nothing));
    finish(command, input.map(str::as_bytes))
}

#[track_caller]
fn told(ran: &Ran, args: &[&str]) {
    assert_eq!(ran.code, Some(1), "{args:?}: {ran:?}");
    let error = ran.error_line();
    let why = "standard output cannot be written: No space left on device";
    assert!(error.contains(why), "{args:?}: {error}");
}

#[test]
fn help_that_cannot_be_printed() {
    let mut found = Vec::new();
    leaves(&[], &mut found);
    assert!(found.len() > 40, "{found:?}");
    // Another program with its own flags.
    let own = found.iter().filter(|leaf| *leaf != "sim");
    for leaf in own {
        let mut args: Vec<&str> = leaf.split(' ').collect();
        args.push("--help");
        told(&full("127.0.0.1:1", &args, None), &args);
    }
    for args in [
        &["--help"][..],
        &["--version"],
        &["version"],
        &["version", "-o", "json"],
        &["help", "topic"],
        &["completion", "bash"],
        &["config", "docs"],
        &["-X", "list"],
    ] {
        told(&full("127.0.0.1:1", args, None), args);
    }
}

#[test]
fn answers_that_cannot_be_printed() {
    let node = node();
    let address = node.address();
    create(&node, "full", 2);
    feed(&node, &["produce", "-q", "full"], "a\nb\nc\n").ok();
    for args in [
        &["topic", "list"][..],
        &["topic", "describe", "full", "-o", "json"],
        &["topic", "offsets", "full"],
        &["cluster", "info"],
        &["cluster", "health"],
        &["group", "list", "-o", "yaml"],
        &["consume", "full", "-e"],
        &["consume", "full", "-e", "-J"],
        &["consume", "full", "-e", "-g", "full"],
        &["topic", "create", "full-2"],
    ] {
        told(&full(&address, args, None), args);
    }
    let args = ["produce", "full", "-O", "%o\\n"];
    let ran = full(&address, &args, Some("d\ne\n"));
    told(&ran, &args);
    assert!(ran.err.contains("all records were written, but"), "{ran:?}");
    let args = ["produce", "full", "-T"];
    told(&full(&address, &args, Some("f\n")), &args);
    // The group committed nothing of what was not printed.
    let again = crate::run(
        &node,
        &["consume", "full", "-e", "-g", "full", "-f", "%v\n"],
    );
    let again = again.ok();
    assert!(again.lines().count() >= 5, "{again:?}");
}
