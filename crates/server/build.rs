//! Finds out which commit is built: from `VARVE_REVISION`, from git, or from `revision.txt`, which `git archive` fills
//! in. A debug build does not ask git, so that a commit does not cause it to be built again.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=VARVE_REVISION");
    println!("cargo:rerun-if-changed=revision.txt");
    let revision = given().or_else(from_git).or_else(from_archive);
    let short: String = revision.unwrap_or_default().chars().take(12).collect();
    println!("cargo:rustc-env=VARVE_BUILD_REVISION={short}");
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = if short.is_empty() {
        short
    } else {
        format!(" ({short})")
    };
    println!("cargo:rustc-env=VARVE_BUILD_VERSION={version}{commit}");
}

fn given() -> Option<String> {
    std::env::var("VARVE_REVISION")
        .ok()
        .filter(|text| !text.is_empty())
}

fn from_git() -> Option<String> {
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return None;
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // A checkout of something else that this source was copied into does not count.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

fn from_archive() -> Option<String> {
    let text = std::fs::read_to_string("revision.txt").ok()?;
    // Outside an archive the line still is the placeholder.
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && line.chars().all(|c| c.is_ascii_hexdigit()))
        .map(str::to_owned)
}
