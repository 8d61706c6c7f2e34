//! Shared pieces of the benches: the floor of this machine, and statistics over runs.
//!
//! Figures are ratios measured in one run, medians of several rounds; absolute numbers of a shared
//! machine mean little. Nothing here is used by the product.

pub mod floor;
pub mod stats;

/// Says on standard error which profile the running program was built with: `dist` is what is measured.
pub fn tell_profile() {
    let program = std::env::current_exe().unwrap_or_default();
    eprintln!("profile: {}", profile(&program));
}

/// The name of the directory of a profile: `target/dist/load`, or `target/dist/deps/floor-1f2e` for a bench.
fn profile(program: &std::path::Path) -> &str {
    let directories = program.parent().into_iter().flat_map(|dir| dir.ancestors());
    let names = directories.filter_map(|dir| dir.file_name()?.to_str());
    names
        .into_iter()
        .find(|name| *name != "deps")
        .unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::profile;
    use std::path::Path;

    #[test]
    fn the_profile_is_the_directory() {
        for (path, name) in [
            ("/a/target/dist/load", "dist"),
            ("/a/target/release/deps/floor-1f2e", "release"),
            ("load", "unknown"),
        ] {
            assert_eq!(profile(Path::new(path)), name);
        }
    }
}
