//! Files that are checked as they are: manifests and chart, alerts and dashboard, the unit.

use std::collections::BTreeSet;
use std::process::Command;

use varve_tests::node::Node;

use crate::{loudly, manifests, root, said};

#[test]
fn manifests_chart_and_compose_files_are_valid() {
    let varve = varve_tests::varve();
    let Some(output) = manifests(&["check", varve.to_str().unwrap()]) else {
        return;
    };
    let said = said(&output);
    assert!(said.trim_end().ends_with("ok"), "{said}");
    if !said.contains("the same by kubectl") {
        loudly("NOT COMPARED with the real kustomize: there is no kubectl. Ours was used.");
    }
    loudly("The chart was rendered by tests/python/chart.py, not by Helm itself.");
}

/// Names of metrics in an expression: words with an underscore that are neither functions nor labels.
fn names(expression: &str) -> BTreeSet<String> {
    // What is quoted is a label's value, what is in brackets a time or a variable.
    let mut bare = String::new();
    let mut quoted = false;
    for c in expression.chars() {
        quoted ^= c == '"';
        bare.push(if quoted { ' ' } else { c });
    }
    let words = bare.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$'));
    let ours = |w: &&str| {
        ["varve_", "process_", "tokio_"]
            .iter()
            .any(|p| w.starts_with(p))
    };
    words.filter(ours).map(str::to_owned).collect()
}

#[test]
fn what_is_no_metric_is_told_from_one() {
    let found = names(r#"sum by (job) (rate(varve_a_total{x="varve_b"}[5m])) / process_c > 1"#);
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        ["process_c", "varve_a_total"]
    );
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let Some(output) = manifests(&["expressions"]) else {
        return;
    };
    let expressions: Vec<(String, String)> = serde_json::from_str(&said(&output)).unwrap();
    assert!(expressions.len() > 40, "{}", expressions.len());
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path());
    // A metric with labels is there once something of its kind has happened.
    let run = |args: &[&str]| varve_tests::run(&node, args);
    said_ok(&run(&["topic", "create", "t"]));
    let produced = varve_tests::run_with_input(&node, &["produce", "t"], b"x\n");
    said_ok(&produced);
    said_ok(&run(&["consume", "-g", "g", "t", "-c", "1"]));
    assert!(!run(&["topic", "describe", "nonexistent"]).status.success());
    let scraped = node.get("/metrics").1;
    let exist: BTreeSet<&str> = scraped
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    for (place, expression) in &expressions {
        let names = names(expression);
        assert!(
            !names.is_empty() || expression.contains("up{"),
            "{place}: {expression}"
        );
        for name in names {
            assert!(
                exist.contains(name.as_str()),
                "{place}: no node has {name}\n{expression}\n{scraped}"
            );
        }
    }
}

fn said_ok(output: &std::process::Output) {
    said(output);
}

#[test]
fn the_unit_is_one_that_systemd_accepts() {
    let folder = root().join("deploy/systemd");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let unit = read("varve.service");
    for line in [
        "Type=notify",
        "ExecStart=/usr/bin/varve server -c /etc/varve/varve.toml",
        "User=varve",
        "StateDirectory=varve",
        "ProtectSystem=strict",
        "TimeoutStopSec=90",
    ] {
        assert!(unit.lines().any(|l| l == line), "{line} is not in the unit");
    }
    assert!(read("varve.sysusers").contains("u varve "));
    assert!(read("varve.tmpfiles").contains("d /var/lib/varve 0750 varve varve"));
    let varve = varve_tests::varve();
    let checked = crate::clean(&varve)
        .args(["config", "check", "-c"])
        .arg(folder.join("varve.toml"))
        .output()
        .unwrap();
    assert_eq!(said(&checked), "ok\n");
    // systemd looks whether the program is there, and a checkout is not installed.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("varve.service");
    std::fs::write(
        &copy,
        unit.replace("/usr/bin/varve", varve.to_str().unwrap()),
    )
    .unwrap();
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&copy)
        .output();
    match verified {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let about_us: Vec<_> = said
                .lines()
                .filter(|l| l.contains("varve.service"))
                .collect();
            assert!(output.status.success() && about_us.is_empty(), "{said}");
        }
        Err(error) => loudly(&format!(
            "NOT VERIFIED by systemd: systemd-analyze cannot be run ({error}). Its lines were looked at."
        )),
    }
}

#[test]
fn the_image_starts_as_it_is() {
    let file = std::fs::read_to_string(root().join("deploy/docker/Dockerfile")).unwrap();
    // What is set here would win over the file of whoever uses the image.
    assert!(!file.contains("ENV VARVE_"), "{file}");
    for line in [
        "USER 65532:65532",
        "STOPSIGNAL SIGTERM",
        r#"ENTRYPOINT ["/usr/bin/varve"]"#,
    ] {
        assert!(
            file.lines().any(|l| l == line),
            "{line} is not in the Dockerfile"
        );
    }
    let command = file.lines().find_map(|l| l.strip_prefix("CMD ")).unwrap();
    let args: Vec<String> = serde_json::from_str(command).unwrap();
    assert_eq!(args[0], "server");
    let checked = crate::clean(varve_tests::varve())
        .args(["config", "check"])
        .args(&args[1..])
        .output()
        .unwrap();
    assert_eq!(said(&checked), "ok\n");
}
