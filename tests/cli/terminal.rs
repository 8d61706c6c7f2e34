//! What only happens at a terminal: the bar, questions, colours. `script` of util-linux makes one; where
//! it is missing, these tests have nothing to check.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use varve_tests::node::Node;
use varve_tests::wait;

use crate::{PATIENCE, create, feed, node, program, run};

/// Whether there is a terminal to be had; says loudly when a test is skipped for the lack of it.
pub(crate) fn script_exists() -> bool {
    let there = Command::new("script")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("SKIPPED: no `script` of util-linux here, so nothing at a terminal was tested");
    }
    there
}

/// Runs a shell line with a terminal on all three streams it does not redirect.
pub(crate) fn at_a_terminal(node: &Node, line: &str, env: &[(&str, &str)]) -> Child {
    Command::new("script")
        .args(["-qefc", line, "/dev/null"])
        .env("V", program("varve"))
        .env("VARVE_BROKERS", node.address())
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .env_remove("NO_COLOR")
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What the terminal shows, as it comes.
pub(crate) fn screen(child: &mut Child) -> mpsc::Receiver<Vec<u8>> {
    let mut stdout = child.stdout.take().unwrap();
    let (show, shown) = mpsc::channel();
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(len @ 1..) = stdout.read(&mut part) {
            if show.send(part[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    shown
}

pub(crate) fn wait_for(shown: &mpsc::Receiver<Vec<u8>>, seen: &mut String, text: &str) {
    wait::until(text, PATIENCE, || {
        while let Ok(part) = shown.try_recv() {
            seen.push_str(&String::from_utf8_lossy(&part));
        }
        seen.contains(text).then_some(())
    });
}

pub(crate) fn all(mut child: Child) -> (Option<i32>, String) {
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn the_bar_is_for_terminals_and_on_standard_error() {
    if !script_exists() {
        return;
    }
    let node = node();
    create(&node, "t-bar", 1);
    let dir = tempfile::tempdir().unwrap();
    let (fifo, out) = (dir.path().join("fifo"), dir.path().join("out"));
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let line = format!(
        "exec \"$V\" produce t-bar -T <{} >{}",
        fifo.display(),
        out.display()
    );
    let mut child = at_a_terminal(&node, &line, &[]);
    let shown = screen(&mut child);
    let mut input = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    input.write_all(b"some input\n").unwrap();
    let mut seen = String::new();
    wait_for(&shown, &mut seen, "11 B");
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(0), "{seen}");
    assert_eq!(
        std::fs::read_to_string(&out).unwrap(),
        "some input\n",
        "only data"
    );

    // The same without a terminal: not a byte. And with -q not even at a terminal.
    assert_eq!(feed(&node, &["produce", "t-bar"], "x\n").ok(), "");
    let line = format!("exec \"$V\" -q consume t-bar -e >{}", out.display());
    assert_eq!(
        all(at_a_terminal(&node, &line, &[])),
        (Some(0), String::new())
    );
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "some input\nx\n");
}

#[test]
fn records_at_a_terminal_come_plain() {
    if !script_exists() {
        return;
    }
    let node = node();
    create(&node, "t-plain", 1);
    feed(&node, &["produce", "t-plain"], "x\ny\n").ok();
    let (code, text) = all(at_a_terminal(&node, "exec \"$V\" consume t-plain -e", &[]));
    assert_eq!((code, text.as_str()), (Some(0), "x\r\ny\r\n"));
}

#[test]
fn a_person_is_asked_before_something_is_destroyed() {
    if !script_exists() {
        return;
    }
    let node = node();
    create(&node, "t-ask", 1);
    for (answer, code) in [("n\n", 1), ("\n", 1), ("y\n", 0)] {
        let mut child = at_a_terminal(&node, "exec \"$V\" topic delete t-ask", &[]);
        let shown = screen(&mut child);
        let mut seen = String::new();
        wait_for(
            &shown,
            &mut seen,
            "This deletes topic t-ask with all its records. Continue? [y/N]",
        );
        child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(answer.as_bytes())
            .unwrap();
        assert_eq!(
            child.wait().unwrap().code(),
            Some(code),
            "{answer:?} {seen}"
        );
        let exists = run(&node, &["topic", "describe", "t-ask"]).code == Some(0);
        assert_eq!(exists, code != 0, "{answer:?}");
    }
}

#[test]
fn colours_can_be_refused() {
    if !script_exists() {
        return;
    }
    let node = node();
    let (_, coloured) = all(at_a_terminal(&node, "exec \"$V\" --help", &[]));
    assert!(
        coloured.contains("\u{1b}["),
        "a terminal gets colours: {coloured}"
    );
    for (line, env) in [
        ("exec \"$V\" --help", &[("NO_COLOR", "1")][..]),
        ("exec \"$V\" --nonsense", &[("NO_COLOR", "1")]),
        ("exec \"$V\" --no-color -vvv topic list", &[]),
        ("exec \"$V\" -vvv topic list", &[("NO_COLOR", "1")]),
    ] {
        let (_, plain) = all(at_a_terminal(&node, line, env));
        assert!(
            !plain.is_empty() && !plain.contains("\u{1b}["),
            "{line}: {plain:?}"
        );
    }
}

#[test]
fn a_watch_is_redrawn_with_the_time() {
    if !script_exists() {
        return;
    }
    let node = node();
    let mut child = at_a_terminal(&node, "exec \"$V\" cluster health -w", &[]);
    let shown = screen(&mut child);
    let mut seen = String::new();
    wait_for(&shown, &mut seen, "every 2 s; Ctrl-C ends");
    wait_for(&shown, &mut seen, "healthy");
    // The second look begins with an empty screen, although nothing has changed.
    seen.clear();
    wait_for(&shown, &mut seen, "\u{1b}[H\u{1b}[2J");
    wait_for(&shown, &mut seen, "healthy");
    child.kill().unwrap();
    child.wait().unwrap();
}
