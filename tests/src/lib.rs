//! Harness shared by the suites of this package: the binary under test, a node as a child process that can
//! be killed at any moment, and waiting for conditions instead of sleeping.

pub mod chaos;
pub mod cluster;
pub mod fuzz;
pub mod machine;
pub mod node;
pub mod proxy;
pub mod python;
pub mod small_disk;
pub mod wait;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Path of the `varve` binary, built once if it is not there: in the profile of the running test, or the one
/// `VARVE_BIN` names.
///
/// # Panics
/// When it cannot be built.
pub fn varve() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build).clone()
}

#[allow(clippy::expect_used, reason = "a test that has no binary cannot go on")]
fn build() -> PathBuf {
    if let Some(path) = std::env::var_os("VARVE_BIN") {
        return PathBuf::from(path);
    }
    let exe = std::env::current_exe().expect("the path of the running test");
    // A test is target/<profile>/deps/<test>; a program of this package lies beside the binary.
    let mut dir = exe.parent().expect("a program is in a directory");
    if dir.ends_with("deps") {
        dir = dir.parent().expect("deps is in the directory of a profile");
    }
    let varve = dir.join("varve");
    // cargo-nextest runs each test in a process of its own: the first one of a run builds, the others wait for it.
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_default();
    let mark = dir.join(".varve-built-by-run");
    let lock = std::fs::File::create(dir.join(".varve-build-lock")).expect("a file to lock");
    lock.lock().expect("the lock of the build");
    let built = std::fs::read_to_string(&mark).unwrap_or_default();
    if !run.is_empty() && built == run && varve.exists() {
        return varve;
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // From cold it takes minutes: a program says what it waits for (the test harness keeps this to itself).
    eprintln!("building varve");
    // Of the whole workspace and with a test among the targets: then the features of dependencies are those that
    // `cargo test --workspace` has built them with, and there is nothing to do.
    cargo.args(["build", "--quiet", "--workspace", "--test", "launchers"]);
    for program in ["varve", "varve-produce", "varve-consume"] {
        cargo.args(["--bin", program]);
    }
    cargo
        .arg("--target-dir")
        .arg(dir.parent().expect("target directory"));
    if dir.ends_with("release") {
        cargo.arg("--release");
    } else if dir.ends_with("dist") {
        cargo.args(["--profile", "dist"]);
    }
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "varve could not be built");
    let _ = std::fs::write(&mark, run);
    varve
}

/// What a program needs to trust a node.
fn trusting(node: &node::Node) -> Option<(&'static str, &std::path::Path)> {
    node.client_ca().map(|ca| ("VARVE_TLS_CA", ca))
}

/// Runs `varve` with arguments against a node and returns its output.
///
/// # Panics
/// When it cannot be started.
#[allow(clippy::expect_used, reason = "test harness")]
pub fn run(node: &node::Node, args: &[&str]) -> std::process::Output {
    Command::new(varve())
        .args(args)
        .env("VARVE_BROKERS", node.address())
        .envs(trusting(node))
        .output()
        .expect("varve runs")
}

/// As [`run`], with bytes on standard input.
///
/// # Panics
/// When it cannot be started.
#[allow(clippy::expect_used, reason = "test harness")]
pub fn run_with_input(node: &node::Node, args: &[&str], input: &[u8]) -> std::process::Output {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = Command::new(varve())
        .args(args)
        .env("VARVE_BROKERS", node.address())
        .envs(trusting(node))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("varve runs");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A child that stops reading early is judged by its exit code.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("varve ends");
    writer.join().expect("writer thread");
    output
}
