//! Files in a log's directory that are neither listed nor to be kept: what an interrupted change has left.
//! They get names that no new file will get, so that unlinking them can wait.
//!
//! Invariant: others' files are others' to remove; only names that this log gives to its files are touched.

use std::path::PathBuf;

use varve_vfs::durable;

use crate::format::Manifest;
use crate::segment::{DELETED_SUFFIX, EPOCHS, Home, MANIFEST, SegmentName, parse_name};

/// Names that are neither listed nor ours to keep.
pub(super) fn leftovers_of<'n>(
    names: impl Iterator<Item = &'n str>,
    manifest: &Manifest,
) -> Vec<String> {
    let listed = |name: SegmentName| {
        let mut segments = manifest.segments.iter();
        segments.any(|s| (s.base, s.compacted.map(|_| s.id)) == (name.base, name.compacted))
    };
    let leftover = |name: &&str| match parse_name(name) {
        Some(name) => !listed(name),
        None => is_leftover(name),
    };
    names.filter(leftover).map(str::to_owned).collect()
}

/// Gives leftovers names that no new file will get, so that unlinking them can wait.
pub(super) fn retire(home: &Home, names: Vec<String>) -> Vec<PathBuf> {
    let mut retired = Vec::new();
    for (i, name) in names.into_iter().enumerate() {
        let path = home.dir.join(&name);
        if name.ends_with(DELETED_SUFFIX) {
            retired.push(path);
            continue;
        }
        let to = home.dir.join(format!("{name}.left{i}{DELETED_SUFFIX}"));
        if home.vfs.rename(&path, &to).is_ok() {
            retired.push(to);
        }
    }
    retired
}

/// Whether a file is one that an interrupted change of this log has left: one of its own names with a suffix.
/// Others' files are others' to remove.
fn is_leftover(name: &str) -> bool {
    if let Some(stem) = name.strip_suffix(durable::TEMP_SUFFIX) {
        return matches!(stem, MANIFEST | EPOCHS)
            || parse_name(stem).is_some()
            || stem
                .strip_suffix(".snapshot")
                .is_some_and(|n| n.len() == 20 && n.bytes().all(|b| b.is_ascii_digit()));
    }
    // As `<segment file>.<id>.deleted`, or as a leftover that was renamed and not unlinked.
    let marked = name
        .strip_suffix(DELETED_SUFFIX)
        .and_then(|stem| stem.rsplit_once('.'));
    marked.is_some_and(|(file, mark)| {
        let number = mark.strip_prefix("left");
        let known = parse_name(file).is_some() || (number.is_some() && is_leftover(file));
        known && number.unwrap_or(mark).parse::<u64>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_that_was_renamed_is_still_a_leftover() {
        for ours in [
            "manifest.tmp",
            "00000000000000000007.index.tmp",
            "00000000000000000007.snapshot.tmp",
            "00000000000000000007.log.3.deleted",
            "00000000000000000007.log.left0.deleted",
            "00000000000000000007-12.log.12.deleted",
            "manifest.tmp.left12.deleted",
        ] {
            assert!(is_leftover(ours), "{ours}");
        }
        for others in [
            "notes.tmp",
            "notes.deleted",
            "notes.3.deleted",
            "notes.left0.deleted",
            "00000000000000000007.log.left.deleted",
            "manifest",
        ] {
            assert!(!is_leftover(others), "{others}");
        }
    }
}
