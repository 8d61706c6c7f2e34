//! Formats and their documents: the code that lays bytes out is the code that the document was written for,
//! and no file is written without a document. `docs/formats.md` is the list.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{product_sources, report, root};

/// What a file is written with.
const WRITES: [&str; 3] = [
    "durable::replace(",
    "durable::replace_unsynced(",
    ".create_new(",
];

/// Crates that write files for others, or files of somebody else's choice.
const NOT_WRITERS: [&str; 3] = ["vfs", "cli", "sim"];

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(root().join(path)).ok()
}

/// The code of a file: without comments, blank lines and unit tests, so that only what may change the bytes
/// asks for a look at the document.
fn code(source: &str) -> String {
    source
        .split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Words in back quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Rows of the table in `docs/formats.md`, as their cells.
fn rows(index: &str) -> Vec<Vec<&str>> {
    index
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"))
        .skip(1)
        .map(|line| line.trim_matches('|').split(" | ").collect())
        .collect()
}

fn documents(index: &str) -> BTreeSet<String> {
    rows(index)
        .iter()
        .filter_map(|cells| quoted(cells.get(1)?).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn documents_describe_the_code_as_it_is() {
    let mut findings = Vec::new();
    let documents = documents(&read("docs/formats.md").unwrap());
    assert!(documents.len() >= 7, "{documents:?}");
    for document in documents {
        let Some(text) = read(&document) else {
            findings.push(format!("docs/formats.md: there is no {document}"));
            continue;
        };
        let locks = text.split("Layout sources:").skip(1);
        let mut locked = 0;
        for lock in locks {
            locked += 1;
            let lock = lock.split("\n\n").next().unwrap_or_default();
            let (mut crc, mut stated) = (crc32fast::Hasher::new(), None);
            for word in quoted(lock) {
                if let Some(value) = word.strip_prefix("crc32:") {
                    stated = Some(value);
                    break;
                }
                let path = Path::new(&document).with_file_name(word);
                match read(&path.to_string_lossy()) {
                    Some(source) => crc.update(code(&source).as_bytes()),
                    None => findings.push(format!("{document}: there is no {}", path.display())),
                }
            }
            let found = format!("{:08x}", crc.finalize());
            if stated != Some(&found) {
                findings.push(format!(
                    "{document}: its layout sources have changed; bring the document up to date and write \
                     `crc32:{found}` there"
                ));
            }
        }
        if locked == 0 {
            findings.push(format!(
                "{document}: a paragraph \"Layout sources:\" is missing"
            ));
        }
    }
    report(&findings);
}

#[test]
fn every_format_has_golden_bytes_and_is_fuzzed() {
    let index = read("docs/formats.md").unwrap();
    let mut findings = Vec::new();
    for cells in rows(&index) {
        let [file, _, golden, targets] = cells[..] else {
            findings.push(format!("docs/formats.md: a row has four cells: {cells:?}"));
            continue;
        };
        for path in quoted(golden).filter(|path| !root().join(path).exists()) {
            findings.push(format!("docs/formats.md: {file}: there is no {path}"));
        }
        if quoted(golden).next().is_none() || quoted(targets).next().is_none() {
            findings.push(format!(
                "docs/formats.md: {file}: golden bytes and targets are needed"
            ));
        }
        for target in quoted(targets) {
            let corpus = root().join("tests/fuzz/corpus").join(target);
            let inputs = std::fs::read_dir(&corpus).map_or(0, Iterator::count);
            if inputs == 0 {
                findings.push(format!("docs/formats.md: {file}: {target} has no corpus"));
            }
        }
    }
    report(&findings);
}

#[test]
fn no_crate_writes_a_file_without_a_document() {
    let documents = documents(&read("docs/formats.md").unwrap());
    let mut findings = Vec::new();
    for (row, source) in product_sources() {
        let document = format!("crates/{}/FORMAT.md", row.name);
        if NOT_WRITERS.contains(&row.name) || documents.contains(&document) {
            continue;
        }
        for text in WRITES {
            for line in source.lines_with(text) {
                let path = &source.path;
                findings.push(format!(
                    "{path}:{line}: {text}: a file needs {document} and a row in docs/formats.md"
                ));
            }
        }
    }
    report(&findings);
}
