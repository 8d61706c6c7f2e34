//! Who may use a data directory, and how a node leaves it.

use varve_tests::node::Node;

fn refused(node: &Node, env: &[(&str, &str)]) -> String {
    let output = node
        .command()
        .envs(env.iter().copied())
        .env("VARVE_LISTENERS__CLIENT__ADDRESS", "127.0.0.1:0")
        .env("VARVE_HTTP__ADDRESS", "127.0.0.1:0")
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_second_server_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    let error = refused(&node, &[]);
    let expected = format!(
        "error: {} is in use by pid {}",
        dir.path().display(),
        node.pid()
    );
    assert!(error.contains(&expected), "{error}");
    assert_eq!(node.get("/readyz").0, 200, "the first goes on");
}

#[test]
fn a_directory_of_another_cluster_or_node_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    assert_eq!(node.stop().code(), Some(0));
    let meta = dir.path().join("meta.toml");
    let before = std::fs::read(&meta).unwrap();
    let other = "00000000-0000-4000-8000-000000000001";
    let error = refused(&node, &[("VARVE_CLUSTER__ID", other)]);
    assert!(
        error.contains("belongs to cluster") && error.contains("nothing was changed"),
        "{error}"
    );
    let error = refused(&node, &[("VARVE_NODE__ID", "9")]);
    assert!(error.contains("belongs to node 1, not 9"), "{error}");
    assert_eq!(std::fs::read(&meta).unwrap(), before);
    assert!(
        dir.path().join("clean-shutdown").exists(),
        "the mark is still there"
    );
    node.restart();
    assert!(
        !dir.path().join("clean-shutdown").exists(),
        "the mark is used up"
    );
}

#[test]
fn a_clean_stop_and_a_kill_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    assert!(
        varve_tests::run(&node, &["topic", "create", "t"])
            .status
            .success()
    );
    assert!(
        varve_tests::run_with_input(&node, &["produce", "t"], b"a\nb\n")
            .status
            .success()
    );
    node.kill();
    assert!(!dir.path().join("clean-shutdown").exists());
    node.restart();
    assert_eq!(node.stop().code(), Some(0));
    assert!(dir.path().join("clean-shutdown").exists());
    node.restart();
    let output = varve_tests::run(&node, &["consume", "t", "-e"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a\nb\n");
}

#[test]
fn unknown_settings_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Node::start(dir.path()).command();
    let output = command
        .env("VARVE_STORAGE__DATADIR", "/x")
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("did you mean \"VARVE_STORAGE__DATA_DIR\"?"),
        "{error}"
    );
}
