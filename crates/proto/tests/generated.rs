//! The code in `src/generated` is what the schema in `proto/` says. `VARVE_BLESS=1` writes it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::path::{Path, PathBuf};

use prost::Message as _;

/// The packages, each with the name of its files and of the set of descriptors that is kept for reflection. Apart, so
/// that the set that reflection shows to clients knows nothing of the protocol of the nodes.
const PACKAGES: [(&str, &str, Option<&str>); 2] = [
    ("varve/v1", "varve.v1.rs", Some("varve.binpb")),
    ("varve/peer/v1", "varve.peer.v1.rs", None),
];

fn generate(root: &Path, folder: &str, out: &Path) -> Vec<u8> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "proto"))
        .collect();
    files.sort();
    let descriptors = protox::compile(&files, [root]).unwrap();
    let set = descriptors.encode_to_vec();
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .out_dir(out)
        .compile_fds(descriptors)
        .unwrap();
    set
}

#[test]
fn generated_code_is_that_of_the_schema() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = here.join("src/generated");
    let out = tempfile::tempdir().unwrap();
    for (folder, code, descriptors) in PACKAGES {
        let set = generate(&here.join("../../proto"), folder, out.path());
        let mut made = vec![(code, std::fs::read(out.path().join(code)).unwrap())];
        made.extend(descriptors.map(|name| (name, set)));
        for (name, bytes) in made {
            let path = kept.join(name);
            if std::env::var_os("VARVE_BLESS").is_some() {
                std::fs::write(&path, bytes).unwrap();
            } else {
                assert!(
                    std::fs::read(&path).unwrap() == bytes,
                    "src/generated/{name} is not what proto/{folder} says; write it anew: VARVE_BLESS=1 cargo test -p \
                     varve-proto"
                );
            }
        }
    }
}
