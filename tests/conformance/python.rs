//! A client in another language, with what it gets from `proto/` or by reflection alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Bed, loudly, run};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A Python that has gRPC.
fn python() -> Option<PathBuf> {
    let venv = root().join("tests/python/.venv/bin/python");
    let mut candidates: Vec<PathBuf> = Vec::new();
    candidates.extend(std::env::var_os("VARVE_TEST_PYTHON").map(PathBuf::from));
    candidates.extend([venv, PathBuf::from("python3")]);
    candidates.into_iter().find(|python| {
        let mut probe = Command::new(python);
        probe.args(["-c", "import grpc, grpc_tools, grpc_reflection"]);
        probe.output().is_ok_and(|o| o.status.success())
    })
}

fn drive(script: &str, with_schema: bool) {
    let Some(python) = python() else {
        let text = "no Python with the packages of tests/python/requirements.txt was found";
        let required = std::env::var_os("VARVE_TEST_REQUIRE_PYTHON").is_some_and(|v| v == "1");
        assert!(!required, "{text}");
        loudly(&format!("SKIPPED: {text}; set VARVE_TEST_PYTHON to one"));
        return;
    };
    run(async move {
        let mut bed = Bed::start(&[]).await;
        let mut command = Command::new(python);
        command
            .arg(root().join("tests/python").join(script))
            .arg(bed.rpc.address.to_string());
        if with_schema {
            command.arg(root().join("proto"));
        }
        let done = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr),
        );
        assert!(
            done.status.success() && out.contains("ok"),
            "{script}: {out}\n{err}"
        );
        bed.stop().await;
    });
}

#[test]
fn a_python_client_generated_from_the_schema() {
    drive("generated.py", true);
}

#[test]
fn a_python_client_by_reflection_alone() {
    drive("reflected.py", false);
}
