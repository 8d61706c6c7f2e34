//! A node with certificates, and the commands that reach it or say why they do not.

use varve_tests::node::Node;

use crate::ca::Ca;
use crate::{PATIENCE, run};

fn path(path: &std::path::Path) -> String {
    path.display().to_string()
}

#[test]
fn commands_speak_tls_to_a_node_that_does() {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ca, other) = (Ca::new(files.path(), "ca"), Ca::new(files.path(), "other"));
    let (cert, key) = ca.issue("node", &["localhost", "127.0.0.1"]);
    let (cert, key) = (path(&cert), path(&key));
    let mut env = vec![
        ("VARVE_LISTENERS__CLIENT__TLS__MODE", "tls"),
        ("VARVE_LISTENERS__CLIENT__TLS__CERT", cert.as_str()),
        ("VARVE_LISTENERS__CLIENT__TLS__KEY", key.as_str()),
    ];
    let trusted = path(&ca.file);
    {
        let node = Node::start_with(dir.path(), &env);
        let by = |flags: &[&str]| run(&node, &[&["topic", "list"], flags].concat());
        by(&["--tls-ca", &trusted]).ok();
        run(&node, &["topic", "create", "t", "--tls-ca", &trusted]).ok();
        let error = by(&["--timeout", "2s"]).fails(1);
        assert!(error.contains("the server speaks TLS here"), "{error}");
        let error = by(&["--timeout", "2s", "--tls-ca", &path(&other.file)]).fails(1);
        assert!(error.contains("is not signed by a CA"), "{error}");
        let error = by(&["--tls-ca", "/nonexistent.pem"]).fails(2);
        assert!(error.contains("cannot read /nonexistent.pem"), "{error}");
        let error = by(&["--tls-cert", &cert]).fails(2);
        assert!(error.contains("tls.cert needs tls.key"), "{error}");
    }
    env[0].1 = "mutual";
    env.push(("VARVE_LISTENERS__CLIENT__TLS__CA", trusted.as_str()));
    let node = Node::start_with(dir.path(), &env);
    let (cert, key) = ca.issue("person", &["someone.example"]);
    let (cert, key) = (path(&cert), path(&key));
    let flags = ["--tls-ca", &trusted, "--tls-cert", &cert, "--tls-key", &key];
    let listed = run(&node, &[&["topic", "list"], &flags[..]].concat()).ok();
    assert!(listed.contains('t'), "{listed}");
    let error = run(
        &node,
        &["topic", "list", "--timeout", "2s", "--tls-ca", &trusted],
    )
    .fails(1);
    assert!(error.contains("requires a certificate"), "{error}");
}

/// Certificates are renewed by replacing their files: the node that runs uses the new ones, and clients that trust only
/// the old are told so.
#[test]
fn a_node_that_runs_takes_new_certificates() {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (Ca::new(files.path(), "old"), Ca::new(files.path(), "new"));
    let (cert, key) = old.issue("node", &["localhost", "127.0.0.1"]);
    let (in_use, in_use_key) = (path(&cert), path(&key));
    let env = [
        ("VARVE_LISTENERS__CLIENT__TLS__MODE", "tls"),
        ("VARVE_LISTENERS__CLIENT__TLS__CERT", in_use.as_str()),
        ("VARVE_LISTENERS__CLIENT__TLS__KEY", in_use_key.as_str()),
    ];
    let node = Node::start_with(dir.path(), &env);
    let list = |ca: &Ca| {
        let trusted = path(&ca.file);
        run(
            &node,
            &["topic", "list", "--timeout", "2s", "--tls-ca", &trusted],
        )
    };
    list(&old).ok();
    list(&new).fails(1);
    let (cert, key) = new.issue("renewed", &["localhost", "127.0.0.1"]);
    // As tools do it: beside, and renamed over.
    for (from, to) in [(key, in_use_key.as_str()), (cert, in_use.as_str())] {
        std::fs::rename(from, to).unwrap();
    }
    varve_tests::wait::until("the new certificate", PATIENCE, || list(&new).succeeded());
    let error = list(&old).fails(1);
    assert!(error.contains("is not signed by a CA"), "{error}");
}

#[test]
fn a_node_without_certificates_needs_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(varve_tests::varve());
    let output = command
        .args(["server", "--node-id", "1", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("listeners.client.tls.mode = \"insecure\""),
        "{error}"
    );
}
