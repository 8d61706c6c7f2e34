//! `varve-produce` and `varve-consume`: launchers of the one program, and what they say when it is not beside them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::path::Path;
use std::process::Command;

const LAUNCHERS: [(&str, &str); 2] = [
    ("produce", env!("CARGO_BIN_EXE_varve-produce")),
    ("consume", env!("CARGO_BIN_EXE_varve-consume")),
];

fn run(program: &Path, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_launcher_is_the_command_of_the_program_beside_it() {
    let varve = Path::new(env!("CARGO_BIN_EXE_varve"));
    for (command, launcher) in LAUNCHERS {
        let expected = run(varve, &[command, "--help"]);
        assert!(expected.0 && !expected.1.is_empty());
        assert_eq!(run(Path::new(launcher), &["--help"]), expected);
    }
}

#[test]
fn a_link_to_the_program_is_the_command_too() {
    let dir = tempfile::tempdir().unwrap();
    for (command, _) in LAUNCHERS {
        let link = dir.path().join(format!("varve-{command}"));
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_varve"), &link).unwrap();
        let (ended_well, out, err) = run(&link, &["--help"]);
        assert!(ended_well, "{err}");
        assert!(out.contains(&format!("varve {command}")), "{out}");
    }
}

#[test]
fn a_launcher_has_no_code_of_the_product_and_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    for (command, launcher) in LAUNCHERS {
        let copy = dir.path().join(format!("varve-{command}"));
        std::fs::copy(launcher, &copy).unwrap();
        let whole = std::fs::metadata(env!("CARGO_BIN_EXE_varve"))
            .unwrap()
            .len();
        let size = std::fs::metadata(&copy).unwrap().len();
        assert!(size * 5 < whole, "{size} bytes beside {whole}");
        let (ended_well, out, err) = run(&copy, &["orders"]);
        assert!(!ended_well && out.is_empty());
        assert!(
            err.contains(&format!(
                "varve-{command} starts the program varve beside it"
            )),
            "{err}"
        );
    }
}
