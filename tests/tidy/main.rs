//! The rules of the house that a compiler does not know, checked from `cargo metadata` and source text:
//! which crate may use which, and what must be absent where. Each finding says where it is and what to
//! do. Rules are data at the top; a new crate needs a row.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod formats;
mod layers;
mod layers_doc;
mod prose;
mod source;

use std::path::{Path, PathBuf};

use layers::{LAYERS, Row};
use source::Source;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn cargo_metadata() -> serde_json::Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Fails with every finding at once: one run shows all there is to do.
fn report(findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

/// Rust files below `folder`, in order of path.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn all_sources() -> Vec<Source> {
    let root = root();
    ["crates", "tests", "benches"]
        .iter()
        .flat_map(|folder| rust_files(&root.join(folder)))
        .map(|path| Source::read(&root, &path))
        .collect()
}

/// Sources of the product, without tests, each with the row of its crate.
fn product_sources() -> Vec<(&'static Row, Source)> {
    let root = root();
    LAYERS
        .iter()
        .filter(|row| row.layer.is_some())
        .flat_map(|row| {
            let folder = root.join("crates").join(row.name).join("src");
            rust_files(&folder).into_iter().map(move |path| (row, path))
        })
        .map(|(row, path)| (row, Source::read(&root, &path)))
        .filter(|(_, source)| !source.is_test_file)
        .collect()
}

#[test]
fn crates_use_only_what_their_row_names() {
    let metadata = cargo_metadata();
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let full = package["name"].as_str().unwrap();
        let manifest = package["manifest_path"].as_str().unwrap();
        let name = full.strip_prefix("varve-").unwrap_or(full);
        seen.push(name.to_owned());
        let Some(row) = LAYERS.iter().find(|row| row.name == name) else {
            findings.push(format!(
                "{manifest}: crate {name} has no row in tests/tidy/layers.rs: give it a layer and say \
                 what it may use"
            ));
            continue;
        };
        if row.layer.is_some() && Path::new(manifest).parent().unwrap().file_name().unwrap() != name
        {
            findings.push(format!(
                "{manifest}: package {full} lives in a folder of another name"
            ));
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let used = dependency["name"].as_str().unwrap();
            match used.strip_prefix("varve-") {
                Some(ours) if !row.may_use(ours) => findings.push(format!(
                    "{manifest}: {name} ({}) may use {:?} and not {ours}: move the code to the \
                     crate that may, or record the new edge in docs/decisions and in the table",
                    row.sentence, row.uses
                )),
                None if row.must_not.contains(&used) => findings.push(format!(
                    "{manifest}: {name} ({}) must not depend on {used}",
                    row.sentence
                )),
                _ => {}
            }
        }
    }
    for row in LAYERS
        .iter()
        .filter(|row| !seen.iter().any(|name| name == row.name))
    {
        findings.push(format!(
            "tests/tidy/layers.rs: there is no crate {}",
            row.name
        ));
    }
    report(&findings);
}

#[test]
fn edges_point_to_lower_layers() {
    for row in LAYERS {
        for used in row.uses.iter().filter(|used| **used != "*") {
            let other = LAYERS.iter().find(|r| r.name == *used).unwrap();
            assert!(
                other.layer < row.layer || row.layer.is_none(),
                "{} uses {used}",
                row.name
            );
        }
    }
}

/// A text that must not appear in a product's source, where, and what to do instead.
struct Ban {
    text: &'static str,
    applies: fn(&Row) -> bool,
    instead: &'static str,
}

fn up_to_contract(row: &Row) -> bool {
    row.layer <= Some(3)
}

fn up_to_broker(row: &Row) -> bool {
    row.layer <= Some(4)
}

fn is_core(row: &Row) -> bool {
    matches!(row.name, "partition" | "metadata" | "groups" | "txn")
}

fn is_frontend(row: &Row) -> bool {
    row.name.starts_with("frontend-")
}

const BANS: &[Ban] = &[
    Ban {
        text: "tokio",
        applies: up_to_contract,
        instead: "layers 0 to 3 are synchronous",
    },
    Ban {
        text: "std::thread",
        applies: up_to_contract,
        instead: "threads belong to layer 4",
    },
    Ban {
        text: "thread::spawn",
        applies: up_to_contract,
        instead: "threads belong to layer 4",
    },
    Ban {
        text: "rand::",
        applies: up_to_contract,
        instead: "pass the random value as an argument",
    },
    Ban {
        text: "new_v4",
        applies: up_to_contract,
        instead: "pass the id as an argument",
    },
    Ban {
        text: "new_v7",
        applies: up_to_contract,
        instead: "pass the id as an argument",
    },
    Ban {
        text: "SystemTime::now",
        applies: |row| up_to_broker(row) && row.name != "vfs",
        instead: "use varve_vfs::Clock, or take the time as an argument",
    },
    Ban {
        text: "std::fs",
        applies: |row| up_to_broker(row) && row.name != "vfs",
        instead: "use the traits of varve_vfs, so that faults can be injected",
    },
    Ban {
        text: "HashMap",
        applies: is_core,
        instead: "use a BTreeMap: cores iterate in order",
    },
    Ban {
        text: "HashSet",
        applies: is_core,
        instead: "use a BTreeSet: cores iterate in order",
    },
    Ban {
        text: "Serialize",
        applies: |row| row.name == "broker-api" || row.name == "types",
        instead: "each adapter has its own twins of these types",
    },
    Ban {
        text: "prost::",
        applies: |row| row.name == "broker-api",
        instead: "it knows no wire",
    },
    Ban {
        text: "unsafe ",
        applies: |row| !matches!(row.name, "vfs" | "record"),
        instead: "unsafe lives in vfs and record only",
    },
    Ban {
        text: "varve_broker::",
        applies: is_frontend,
        instead: "a front end knows varve_broker_api",
    },
    Ban {
        text: "varve_storage",
        applies: is_frontend,
        instead: "a front end knows no file",
    },
    Ban {
        text: "varve_partition",
        applies: is_frontend,
        instead: "a front end knows no core",
    },
    Ban {
        text: "varve_metadata",
        applies: is_frontend,
        instead: "a front end knows no core",
    },
    Ban {
        text: "varve_groups",
        applies: is_frontend,
        instead: "a front end knows no core",
    },
    Ban {
        text: ".unwrap()",
        applies: |_| true,
        instead: "return the error, or assert with a reason",
    },
    Ban {
        text: ".expect(",
        applies: |_| true,
        instead: "return the error, or assert with a reason",
    },
    Ban {
        text: "usize::to_le_bytes",
        applies: |_| true,
        instead: "write a number of fixed size",
    },
    Ban {
        text: "usize::to_be_bytes",
        applies: |_| true,
        instead: "write a number of fixed size",
    },
    Ban {
        text: "usize::from_le_bytes",
        applies: |_| true,
        instead: "read a number of fixed size",
    },
    Ban {
        text: "usize::from_be_bytes",
        applies: |_| true,
        instead: "read a number of fixed size",
    },
    Ban {
        text: ".len().to_le_bytes",
        applies: |_| true,
        instead: "write a number of fixed size",
    },
    Ban {
        text: ".len().to_be_bytes",
        applies: |_| true,
        instead: "write a number of fixed size",
    },
    Ban {
        text: "as usize).to_le_bytes",
        applies: |_| true,
        instead: "write a number of fixed size",
    },
    Ban {
        text: "as usize).to_be_bytes",
        applies: |_| true,
        instead: "write a number of fixed size",
    },
];

#[test]
fn what_must_be_absent_is() {
    let mut findings = Vec::new();
    for (row, source) in product_sources() {
        for ban in BANS.iter().filter(|ban| (ban.applies)(row)) {
            for line in source.lines_with(ban.text) {
                findings.push(format!(
                    "{}:{line}: {:?}: {}",
                    source.path, ban.text, ban.instead
                ));
            }
        }
        // The broker's timers are tokio's, which tests and simulation can stop; the machine's clock
        // is read in vfs alone.
        let timers = row.layer == Some(4) && !source.lines_with("tokio::time::Instant").is_empty();
        if up_to_broker(row) && row.name != "vfs" && !timers {
            for line in source.lines_with("Instant::now") {
                let what = "use varve_vfs::Clock, or tokio::time::Instant for timers of layer 4";
                findings.push(format!("{}:{line}: Instant::now: {what}", source.path));
            }
        }
    }
    report(&findings);
}

#[test]
fn every_file_keeps_the_form() {
    let mut findings = Vec::new();
    for source in all_sources() {
        let path = &source.path;
        if !source.text.starts_with("//!") && !source.is_generated() {
            findings.push(format!(
                "{path}:1: begin with //! (what the file is, its invariants, what it never does)"
            ));
        }
        let lines = source.text.lines().count();
        if lines > 800 && !source.is_generated() {
            findings.push(format!(
                "{path}:800: {lines} lines; split it by subject, 800 is the most"
            ));
        }
        for (text, instead) in [
            ("todo!", "write it, or leave the feature out"),
            ("unimplemented!", "write it, or leave the feature out"),
            ("dbg!(", "remove it"),
        ] {
            for line in source.all_lines_with(text) {
                findings.push(format!("{path}:{line}: {text:?}: {instead}"));
            }
        }
    }
    report(&findings);
}

const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "crates",
    "deploy",
    "docs",
    "proto",
    "tests",
];

#[test]
fn the_top_level_stays_small() {
    let listing = std::process::Command::new("git")
        .args(["ls-files"])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8(output.stdout).unwrap());
    // A source archive has no repository: what lies there is looked at, except what builds leave.
    let names: Vec<String> = match listing {
        Some(text) if !text.is_empty() => text
            .lines()
            .map(|path| path.split('/').next().unwrap().to_owned())
            .collect(),
        _ => std::fs::read_dir(root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !matches!(name.as_str(), "target" | "varve-data"))
            .collect(),
    };
    let findings: Vec<String> = names
        .iter()
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()))
        .map(|name| format!("{name}: the top level holds only {TOP_LEVEL:?} and dotfiles"))
        .collect();
    report(&findings);
}
