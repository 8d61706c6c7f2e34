//! A client in another language, with what it gets from `proto/` or by reflection alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use varve_tests::python::{self, python, scripts};

use crate::support::{Bed, run};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn drive(script: &str, with_schema: bool) {
    let Some(python) = python("grpc, grpc_tools, grpc_reflection") else {
        return python::skip(script);
    };
    run(async move {
        let mut bed = Bed::start(&[]).await;
        let mut command = Command::new(python);
        command
            .arg(scripts().join(script))
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
