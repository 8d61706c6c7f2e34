//! The compose file of three nodes, run by a real engine with an image of the binary under test: one container is
//! killed, and production goes on.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use varve_tests::wait;

use crate::load::{Load, assert_whole, in_sync};
use crate::{PATIENCE, clean, image, root, said, skip};

/// Ports of the compose file on this machine.
const PORTS: [u16; 6] = [18277, 18278, 28277, 28278, 38277, 38278];
const BROKERS: &str = "localhost:18278,localhost:28278,localhost:38278";
const NODES: [&str; 3] = ["varve-0", "varve-1", "varve-2"];
const TOPIC: &str = "orders";
/// Open files that the compose file asks for.
const OPEN_FILES: u64 = 65_536;

fn works(program: &str, args: &[&str]) -> bool {
    let output = Command::new(program).args(args).output();
    output.is_ok_and(|o| o.status.success())
}

/// The compose program: a command of its own, or one of docker.
fn tool() -> Option<Vec<&'static str>> {
    if works("docker", &["compose", "version"]) {
        return Some(vec!["docker", "compose"]);
    }
    works("docker-compose", &["version"]).then(|| vec!["docker-compose"])
}

/// The running project. It goes, with its volumes and its image, when this does.
struct Project {
    tool: Vec<&'static str>,
    name: String,
    /// What this machine cannot give, taken back.
    changes: Option<PathBuf>,
}

/// Where containers may not have the open files that the compose file asks for, they get what there is.
fn fewer_files(folder: &Path) -> Option<PathBuf> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let limit = limit.filter(|limit| *limit < OPEN_FILES)?;
    crate::loudly(&format!(
        "CHANGED for this machine: containers may open {limit} files here, and not {OPEN_FILES}"
    ));
    let service = |n: &&str| format!("  {n}:\n    ulimits:\n      nofile: {limit}\n");
    let services: String = NODES.iter().map(service).collect();
    let path = folder.join("changes.yml");
    std::fs::write(&path, format!("services:\n{services}")).unwrap();
    Some(path)
}

impl Project {
    fn compose(&self, args: &[&str]) -> Command {
        let mut command = clean(self.tool[0]);
        command
            .args(&self.tool[1..])
            .args(["-p", &self.name, "-f"])
            .arg(root().join("deploy/compose/docker-compose.yml"));
        if let Some(changes) = &self.changes {
            command.arg("-f").arg(changes);
        }
        command.args(args).env("IMAGE", &self.name);
        command
    }

    fn container(&self, service: &str) -> String {
        let id = said(&self.compose(&["ps", "-a", "-q", service]).output().unwrap());
        if !id.trim().is_empty() {
            return id.trim().to_owned();
        }
        panic!("no container of {service}")
    }

    fn inspect(&self, service: &str, what: &str) -> String {
        let id = self.container(service);
        let format = format!("--format={{{{{what}}}}}");
        let output = Command::new("docker")
            .args(["inspect", &format, &id])
            .output();
        said(&output.unwrap()).trim().to_owned()
    }

    fn healthy(&self, service: &str) {
        wait::until(&format!("{service} to be healthy"), PATIENCE, || {
            (self.inspect(service, ".State.Health.Status") == "healthy").then_some(())
        });
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.compose(&["logs", "--tail=15"]).output();
            if let Ok(output) = logs {
                crate::loudly(&String::from_utf8_lossy(&output.stdout));
            }
        }
        let _ = self.compose(&["down", "-v", "-t", "1"]).output();
        let _ = Command::new("docker")
            .args(["rmi", "-f", &self.name])
            .output();
    }
}

/// The image of `deploy/docker` cannot be built without pulling its base; this one has the same content.
fn import(name: &str, folder: &Path) {
    image::assemble(folder);
    let mut tar = Command::new("tar")
        .arg("-C")
        .arg(folder)
        .args([
            "-c",
            "--exclude=./etc/hosts",
            "--exclude=./etc/resolv.conf",
            ".",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let import = Command::new("docker")
        .args(["import", "--change", "USER 65532:65532", "--change"])
        .args([r#"ENTRYPOINT ["/usr/bin/varve"]"#, "-", name])
        .stdin(tar.stdout.take().unwrap())
        .output();
    said(&import.unwrap());
    assert!(tar.wait().unwrap().success());
}

fn client(args: &[&str]) -> Command {
    let mut command = clean(varve_tests::varve());
    command
        .args(args)
        .env("VARVE_BROKERS", BROKERS)
        .env("VARVE_TIMEOUT", "30s");
    command
}

#[test]
fn the_compose_cluster_survives_the_loss_of_a_container() {
    let variable = "VARVE_TEST_REQUIRE_DOCKER";
    if !works("docker", &["info"]) {
        return skip(
            variable,
            "no Docker engine answers here: compose was not run",
        );
    }
    let Some(tool) = tool() else {
        return skip(
            variable,
            "there is no docker compose: the compose file was not run",
        );
    };
    let busy = PORTS
        .iter()
        .find(|p| TcpListener::bind(("0.0.0.0", **p)).is_err());
    if let Some(port) = busy {
        let why = format!("port {port} of the compose file is in use: the file was not run");
        return skip(variable, &why);
    }
    let name = format!("varve-test-{}", std::process::id());
    let folder = tempfile::tempdir().unwrap();
    let changes = fewer_files(folder.path());
    let project = Project {
        tool,
        name,
        changes,
    };
    import(&project.name, &folder.path().join("image"));
    let up = project.compose(&["up", "-d", "--no-build", NODES[0], NODES[1], NODES[2]]);
    said(&{ up }.output().unwrap());
    for node in NODES {
        project.healthy(node);
    }
    said(
        &client(&["topic", "create", TOPIC, "-p", "1", "-r", "3"])
            .output()
            .unwrap(),
    );
    in_sync(client, TOPIC, 3);
    let load = Load::start(client(&["produce", TOPIC, "-O", "%o\n"]));
    load.goes_on();
    for victim in ["varve-1", "varve-0"] {
        said(&project.compose(&["kill", victim]).output().unwrap());
        load.goes_on();
        said(&project.compose(&["start", victim]).output().unwrap());
        project.healthy(victim);
        in_sync(client, TOPIC, 3);
    }
    load.goes_on();
    let count = load.finish();
    let read = client(&["consume", TOPIC, "--from-beginning", "-e"]).output();
    assert_whole(&said(&read.unwrap()), count);
    // A stop is a clean one: nothing is killed by the engine.
    said(&project.compose(&["stop", "varve-2"]).output().unwrap());
    assert_eq!(project.inspect("varve-2", ".State.ExitCode"), "0");
}
