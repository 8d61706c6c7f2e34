//! What the image of `deploy/docker` has, made of the binary under test: the program, the libraries that it loads,
//! and the directory of the data. Nothing is pulled.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who the node is in a container.
pub const UID: u32 = 65532;

/// Makes the root of a container in `into`.
pub fn assemble(into: &Path) {
    let make = |path: &str| {
        let path = into.join(path);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    for mount in [
        "proc",
        "dev",
        "etc/varve/config",
        "etc/varve/tls/client",
        "etc/varve/tls/peer",
    ] {
        make(mount);
    }
    let program = make("usr/bin").join("varve");
    let varve = varve_tests::varve();
    // Debug information is most of a debug build.
    let stripped = Command::new("strip")
        .arg("-o")
        .arg(&program)
        .arg(&varve)
        .status();
    if !stripped.is_ok_and(|s| s.success()) {
        std::fs::copy(&varve, &program).unwrap();
    }
    for library in libraries(&varve) {
        let copy = into.join(library.strip_prefix("/").unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(&library, &copy).unwrap();
    }
    std::fs::write(into.join("etc/hosts"), "").unwrap();
    std::fs::write(into.join("etc/hostname"), "").unwrap();
    std::fs::write(into.join("etc/resolv.conf"), "").unwrap();
    std::fs::write(into.join("etc/nsswitch.conf"), "hosts: files dns\n").unwrap();
    let data = make("var/lib/varve");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o750)).unwrap();
    // Without root it is the tester's, who then is the node as well.
    let _ = chown(&data, Some(UID), Some(UID));
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().filter(|w| w.starts_with('/'));
    words.map(PathBuf::from).collect()
}
