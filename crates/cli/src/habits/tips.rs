//! A word or a flag that nobody knows: one line that says so, with the nearest name if it is near enough to be a
//! slip of the finger, and with the command that lists what there is.

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use super::table::DESTRUCTIVE;

/// Longest word that is compared.
const WORD_MAX: usize = 64;

/// The parser's refusal in one line, where ours says more: unknown commands, flags and arguments.
#[must_use]
pub fn explain(tree: &Command, arguments: &[std::ffi::OsString], error: &Error) -> Option<String> {
    let (command, path) = reached(tree, arguments);
    let name = match path.as_str() {
        "" => "varve".to_owned(),
        path => format!("varve {path}"),
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = context(error, ContextKind::InvalidSubcommand)?;
            let known = command
                .get_subcommands()
                .filter(|sub| !sub.is_hide_set())
                .flat_map(Command::get_name_and_visible_aliases);
            let known = known.filter(|name| !DESTRUCTIVE.contains(name));
            let tip = tip(nearest(&word, known).map(|near| format!("{name} {near}")));
            Some(format!(
                "{name} has no command {word:?}{tip}; {name} --help lists the commands"
            ))
        }
        ErrorKind::UnknownArgument => {
            let word = context(error, ContextKind::InvalidArg)?;
            let Some(flag) = word.strip_prefix("--") else {
                let what = if word.starts_with('-') {
                    "flag"
                } else {
                    "argument"
                };
                return Some(format!(
                    "{name} takes no {what} {word:?}; {name} -h lists the flags"
                ));
            };
            let global = tree.get_arguments().filter(|arg| arg.is_global_set());
            let known = command.get_arguments().chain(global);
            let known = known
                .filter(|arg| !arg.is_hide_set())
                .filter_map(clap::Arg::get_long);
            let tip = tip(nearest(flag, known).map(|near| format!("--{near}")));
            Some(format!(
                "{name} has no flag --{flag}{tip}; {name} -h lists the flags"
            ))
        }
        _ => None,
    }
}

fn tip(near: Option<String>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
}

fn context(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// The command that a line names, as far as there is one, and its path.
fn reached<'a>(tree: &'a Command, arguments: &[std::ffi::OsString]) -> (&'a Command, String) {
    let (mut command, mut path) = (tree, Vec::new());
    for argument in arguments.iter().skip(1) {
        if let Some(sub) = argument
            .to_str()
            .and_then(|word| command.find_subcommand(word))
        {
            command = sub;
            path.push(sub.get_name());
        }
    }
    (command, path.join(" "))
}

/// The name nearest to a word: one slip in a short word, two in one of six letters and more.
fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = if word.chars().count() < 6 { 1 } else { 2 };
    let near = names.map(|name| (slips(word, name), name));
    near.filter(|(slips, _)| *slips <= most)
        .min()
        .map(|(_, name)| name)
}

/// Letters that are missing, too many, wrong, or in the wrong order: how many slips lie between two words.
fn slips(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(WORD_MAX).collect();
    let b: Vec<char> = b.chars().take(WORD_MAX).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, first) in rows[0].iter_mut().enumerate() {
        *first = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let wrong = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = wrong.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tree;

    #[test]
    fn slips_are_counted() {
        for (a, b, expected) in [
            ("topci", "topic", 1),
            ("topic", "topic", 0),
            ("lsit", "list", 1),
            ("", "abc", 3),
            ("descrbie", "describe", 1),
            ("login", "log", 2),
        ] {
            assert_eq!(slips(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn tips_are_near_and_of_the_same_kind_and_never_destroy() {
        let tree = tree();
        let said = |line: &str| {
            let words: Vec<std::ffi::OsString> = line.split(' ').map(Into::into).collect();
            let error = tree.clone().try_get_matches_from(&words).unwrap_err();
            explain(&tree, &words, &error).unwrap_or_default()
        };
        for (line, tip) in [
            ("varve topci list", Some("varve topic")),
            ("varve topic lsit", Some("varve topic list")),
            ("varve prodcue", Some("varve produce")),
            ("varve top", None),
            ("varve usr", None),
            ("varve topic delet a", None),
            ("varve group delte a", None),
            ("varve topic tirm a", None),
            ("varve consume a --cuont 1", Some("--count")),
            ("varve topic list --regx a", Some("--regex")),
            ("varve topic list --consume", None),
            ("varve topic list --brokrs h", Some("--brokers")),
        ] {
            let text = said(line);
            assert!(text.contains("has no"), "{line}: {text}");
            match tip {
                Some(tip) => assert!(
                    text.contains(&format!("did you mean {tip:?}?")),
                    "{line}: {text}"
                ),
                None => assert!(!text.contains("did you mean"), "{line}: {text}"),
            }
        }
        assert!(said("varve topic list -Z").contains("-Z"));
        assert!(said("varve group list x").contains("takes no argument \"x\""));
    }
}
