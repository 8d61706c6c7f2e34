//! The committed corpus of every fuzz target, and seeded mutations of it, on the stable compiler: what
//! fuzzing has found once stays found. Bounded by counts, not by time; `VARVE_FUZZ_MUTATIONS` multiplies them.
//! `VARVE_BLESS=1` writes the seeds of the corpus anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use varve_tests::fuzz::mutate::{Random, mutate};
use varve_tests::fuzz::{TARGETS, Target, seeds};

/// All of the corpus, in bytes.
const CORPUS_MAX_BYTES: u64 = 1 << 20;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// The inputs of a target, by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, Vec<u8>)> = std::fs::read_dir(corpus().join(target))
        .unwrap_or_else(|e| panic!("corpus of {target}: {e}"))
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .collect();
    found.sort();
    found
}

fn replay(name: &str) {
    bless();
    let target = TARGETS.iter().find(|t| t.name == name).unwrap();
    let factor = std::env::var("VARVE_FUZZ_MUTATIONS")
        .map_or(1, |n| n.parse().expect("VARVE_FUZZ_MUTATIONS is a number"));
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "{name} has a corpus");
    for (seed, (file, bytes)) in inputs.iter().enumerate() {
        check(target, file, bytes);
        let mut random = Random::new(seed as u64);
        for _ in 0..target.mutations * factor {
            check(target, file, &mutate(bytes, &mut random));
        }
    }
}

/// Runs one input and keeps it when it fails.
fn check(target: &Target, file: &str, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("broken-{}", target.name));
        std::fs::write(&kept, bytes).unwrap();
        let kept = kept.display();
        panic!(
            "{} broke on a mutation of {file}; the input is in {kept}",
            target.name
        );
    }
}

/// Writes the seeds when asked to. A race of tests writes the same bytes.
fn bless() {
    if std::env::var_os("VARVE_BLESS").is_none() {
        return;
    }
    for (target, name, bytes) in seeds::all() {
        let folder = corpus().join(target);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn every_target_is_replayed_and_has_a_fuzz_target() {
            let replayed = [$(stringify!($name)),*];
            let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml");
            let manifest = std::fs::read_to_string(manifest).unwrap();
            for target in TARGETS {
                assert!(replayed.contains(&target.name), "{} is not replayed", target.name);
                let bin = format!("name = \"{}\"", target.name);
                assert!(manifest.contains(&bin), "tests/fuzz/Cargo.toml lacks {bin}");
            }
            assert_eq!(replayed.len(), TARGETS.len());
        }
    };
}

replays! {
    batch message_set recovery inspect index timeindex manifest epochs snapshot producers metadata metadata_command metadata_file
    offsets transactions identity scrub_file journal peer raft_message raft_file kafka_wire kafka_requests
}

#[test]
fn the_corpus_has_every_seed_and_stays_small() {
    bless();
    let mut total = 0;
    for target in TARGETS {
        let files = inputs(target.name);
        total += files.iter().map(|(_, b)| b.len() as u64).sum::<u64>();
        for (_, name, bytes) in seeds::all().iter().filter(|s| s.0 == target.name) {
            let name = format!("seed-{name}");
            let kept = files.iter().find(|(file, _)| *file == name);
            let kept = kept.unwrap_or_else(|| panic!("{}/{name} is missing", target.name));
            assert!(kept.1 == *bytes, "{}/{name} is not the seed", target.name);
        }
    }
    assert!(total < CORPUS_MAX_BYTES, "{total} bytes of corpus");
}
