//! `cargo xtask kafka`: writes the codec of the Kafka protocol from the message tables. What it writes is
//! committed, and a test here fails when tables and code have drifted apart.

mod emit;
mod parse;

use std::path::{Path, PathBuf};

use parse::Api;

fn frontend() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../frontend-kafka")
}

/// Writes every generated file anew and removes those without a table.
///
/// # Errors
/// A table that is not understood, or a file that could not be read or written.
pub fn run() -> Result<usize, String> {
    let folder = frontend().join("src/wire/generated");
    let files = generate()?;
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for stale in present(&folder)? {
        if !files.iter().any(|(name, _)| *name == stale) {
            remove(&folder.join(stale))?;
        }
    }
    for (name, text) in &files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(files.len())
}

fn remove(path: &Path) -> Result<(), String> {
    std::fs::remove_file(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Names of the files in a folder, in order.
fn present(folder: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| format!("{}: {e}", folder.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Every generated file: its name and its text.
fn generate() -> Result<Vec<(String, String)>, String> {
    let apis = tables()?;
    let mut files = vec![("mod.rs".to_owned(), emit::index(&apis))];
    for api in &apis {
        files.push((format!("{}.rs", api.module), emit::module(api)?));
    }
    Ok(files)
}

/// All tables in order of their keys.
fn tables() -> Result<Vec<Api>, String> {
    let folder = frontend().join("messages");
    let mut apis: Vec<Api> = Vec::new();
    for name in present(&folder)? {
        let Some(module) = name.strip_suffix(".txt") else {
            continue;
        };
        let path = folder.join(&name);
        let text =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        apis.push(parse::parse(module, &text)?);
    }
    apis.sort_by_key(|api| api.key);
    match apis.windows(2).find(|pair| pair[0].key == pair[1].key) {
        Some(pair) => Err(format!("{} and {} share a key", pair[0].name, pair[1].name)),
        None => Ok(apis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_code_is_what_the_tables_say() {
        let folder = frontend().join("src/wire/generated");
        let files = generate().unwrap();
        let mut expected: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        expected.sort_unstable();
        let again = "run `cargo xtask kafka` and commit what it writes";
        assert_eq!(present(&folder).unwrap(), expected, "{again}");
        for (name, text) in &files {
            let there = std::fs::read_to_string(folder.join(name)).unwrap();
            assert!(there == *text, "{name} is out of date: {again}");
        }
    }
}
