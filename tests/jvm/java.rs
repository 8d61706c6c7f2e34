//! Java programs: their class path from Maven, running them, and saying that a test is skipped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use varve_tests::node::{Node, free_port};
use varve_tests::{chaos, wait};

/// The version of everything but the clients. It is the newest of which Maven serves all parts.
pub const KAFKA: &str = "4.3.1";
/// Longest time for Maven: where there is no network it may try for very long.
const MAVEN: &str = "90";
const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:build-classpath";

/// Whether all of it is asked for.
pub fn is_long() -> bool {
    std::env::var("VARVE_TEST_JVM").is_ok_and(|form| form == "long")
}

/// The directory of the Java sources.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("jvm")
}

/// A class path.
#[derive(Debug, Clone)]
pub struct Java(String);

impl Java {
    /// What `tests/jvm/PROJECT/pom.xml` names, with that version of Kafka. `None`: it cannot be had, and that was said.
    pub fn of(test: &str, project: &str, version: &str) -> Option<Self> {
        match class_path(project, version) {
            Ok(path) => Some(Self(path)),
            Err(why) => {
                let required = std::env::var_os("VARVE_TEST_REQUIRE_JVM").is_some_and(|v| v == "1");
                assert!(!required, "{test} cannot run: {why}");
                chaos::say(&format!("SKIPPED {test}: {why}"));
                None
            }
        }
    }

    /// The command that runs a class, or a source file, with these arguments.
    pub fn command(&self, what: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("java");
        command
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .args(["-Xmx512m", "-cp", &self.0, what])
            .args(arguments);
        command
    }

    /// Runs a program to its end: what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, what: &str, arguments: &[&str]) -> String {
        let out = self.command(what, arguments).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success(),
            "{what} {arguments:?}: {}\n{text}\n{errors}",
            out.status
        );
        text
    }

    /// Starts a program that writes to a file.
    pub fn start(&self, what: &str, arguments: &[&str], log: &Path) -> Running {
        let out = File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.command(what, arguments);
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        Running {
            child: command.spawn().unwrap(),
            log: log.to_owned(),
        }
    }
}

fn class_path(project: &str, version: &str) -> Result<String, String> {
    for (program, argument) in [("javac", "-version"), ("mvn", "-v")] {
        let found = Command::new(program).arg(argument).output();
        if !found.is_ok_and(|out| out.status.success()) {
            return Err(format!("{program} was not found"));
        }
    }
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("jvm-{project}-{version}"));
    let known = || {
        let path = std::fs::read_to_string(&kept).ok()?;
        path.split(':')
            .all(|jar| Path::new(jar).is_file())
            .then_some(path)
    };
    if let Some(path) = known() {
        return Ok(path);
    }
    let out = Command::new("timeout")
        .args([MAVEN, "mvn", "-q", "-B", "-f"])
        .arg(sources().join(project).join("pom.xml"))
        .arg(format!("-Dkafka={version}"))
        .arg(PLUGIN)
        .arg(format!("-Dmdep.outputFile={}", kept.display()))
        .output()
        .map_err(|e| e.to_string())?;
    known().ok_or_else(|| {
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let first = text.lines().find(|line| line.contains("ERROR"));
        format!(
            "Maven cannot get Kafka {version}: {}",
            first.unwrap_or("it took too long")
        )
    })
}

/// A program that runs. Killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// What it has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has printed a text.
    pub fn prints(&self, text: &str, within: Duration) {
        let what = format!("{text} in {}", self.log.display());
        wait::until(&what, within, || self.log().contains(text).then_some(()));
    }

    /// Waits until it has ended: what it printed.
    pub fn ends(mut self, within: Duration) -> String {
        wait::until("the end of a program", within, || {
            self.child.try_wait().unwrap()
        });
        self.log()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A node with a listener for Kafka's clients, and its address.
pub fn node(dir: &Path) -> (Node, String) {
    let kafka = format!("127.0.0.1:{}", free_port());
    let env = [
        ("VARVE_LISTENERS__KAFKA__ADDRESS", kafka.as_str()),
        ("VARVE_LISTENERS__KAFKA__ADVERTISED_ADDRESS", &kafka),
        ("VARVE_LISTENERS__KAFKA__TLS__MODE", "insecure"),
    ];
    (Node::start_with(dir, &env), kafka)
}
