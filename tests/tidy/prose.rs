//! Rules for prose: a line of it has at most 120 columns, and no text that a person meets says what is on the list of
//! [`WORDINGS`]. Each finding says where it is and what to write instead.
//!
//! Looked at for wordings: string literals of the product (errors, log lines, configuration keys, HELP of metrics), doc
//! comments of the command line (they become `--help`), the README, the CHANGELOG and `docs/`. Decisions are kept as
//! they were written and are looked at for their width alone.

use std::path::Path;

use crate::source::Source;
use crate::{all_sources, product_sources, report, root};

/// Columns of a line of prose.
const WIDTH: usize = 120;

/// A wording and what to say instead.
struct Wording {
    text: &'static str,
    instead: &'static str,
    /// Allowed directly after one of these words ...
    after: &'static [&'static str],
    /// ... or directly before one of these.
    before: &'static [&'static str],
}

const fn say(text: &'static str, instead: &'static str) -> Wording {
    but(text, instead, &[], &[])
}

const fn but(
    text: &'static str,
    instead: &'static str,
    after: &'static [&'static str],
    before: &'static [&'static str],
) -> Wording {
    Wording {
        text,
        instead,
        after,
        before,
    }
}

/// Old wordings, in lower case. A new row needs no exception for what is already right.
const WORDINGS: &[Wording] = &[
    say(
        "is told",
        "the subject first: \"the client gets\", \"the controller learns\"",
    ),
    say(
        "are told",
        "the subject first: \"clients get\", \"nodes learn\"",
    ),
    say(
        "was told",
        "the subject first: \"the client got\", \"the node learned\"",
    ),
    say(
        "were told",
        "the subject first: \"clients got\", \"nodes learned\"",
    ),
    say(
        "cannot be told",
        "\"cannot be detected\", \"cannot be known\"",
    ),
    say("goes by", "\"uses\", \"follows\", \"depends on\""),
    say("of no use", "\"cannot be used\", \"has no effect\""),
    say(
        "whoever",
        "\"anyone who\", or name who it is: the client, the node, the operator",
    ),
    say("so many", "the number: \"N records\""),
    say("so much", "the amount: \"N bytes\""),
    say("what is of", "name it: \"the records of\""),
    say("for ever", "\"forever\", or the condition that ends it"),
    say("anew", "\"again\", \"from scratch\", \"rebuilds\""),
    say("knows no", "\"does not know\""),
    say("know no", "\"do not know\""),
    say("by itself", "\"automatically\", \"on its own\""),
    say("by themselves", "\"automatically\", \"on their own\""),
    but("is no", "\"is not a\"", &["there"], &["longer", "more"]),
    but("are no", "\"are not\"", &["there"], &["longer", "more"]),
    say("all the same", "\"anyway\", \"nevertheless\""),
    but(
        "are the most",
        "\"the limit is\"",
        &[],
        &["common", "likely", "important"],
    ),
    say("is over", "\"has ended\""),
    say("was over", "\"had ended\""),
    say("given up for dead", "\"considered dead\", \"fenced\""),
    say("answers owed", "\"pending acknowledgements\""),
    say("is owed", "\"is pending\""),
    say("are owed", "\"are pending\""),
    say("replicas in sync", "\"in-sync replicas\""),
    say("needs a word", "\"must be requested explicitly\""),
    say("without a word", "\"silently\""),
    say("look at the disk", "\"check the disk\""),
    say("somebody", "name who it is: a user, an operator, a client"),
    but(
        "nobody",
        "name who it is: \"no node\", \"no client\"",
        &[],
        &["else"],
    ),
    say("trying on", "\"trying again\""),
    say("left aside", "\"ignored\", \"set aside\""),
    say("passed over", "\"skipped\""),
    say("is of another", "\"belongs to another\""),
    say("are of another", "\"belong to another\""),
    say("gives way", "\"is overridden by\""),
    say("about never", "\"rarely\""),
    say("bit by bit", "\"byte for byte\", \"gradually\""),
    say("in vain", "\"without success\""),
    say("and so is", "two sentences"),
];

/// Collapses white space and keeps, for each character, the line that it is on.
struct Flat {
    text: String,
    lines: Vec<usize>,
}

impl Flat {
    fn new<'a>(lines: impl IntoIterator<Item = (usize, &'a str)>) -> Self {
        let mut flat = Self {
            text: String::new(),
            lines: Vec::new(),
        };
        for (number, line) in lines {
            for word in line.split_whitespace() {
                let word = format!("{}{word}", if flat.text.is_empty() { "" } else { " " });
                flat.lines
                    .extend(std::iter::repeat_n(number, word.to_lowercase().len()));
                flat.text += &word.to_lowercase();
            }
        }
        flat
    }

    /// Lines where a wording is, as a whole word and without one of its exceptions.
    fn find(&self, wording: &Wording) -> Vec<usize> {
        let in_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        self.text
            .match_indices(wording.text)
            .filter(|(at, found)| {
                let (before, after) = (&self.text[..*at], &self.text[at + found.len()..]);
                !before.ends_with(in_word)
                    && !before.ends_with('.')
                    && !after.starts_with(in_word)
                    && !wording
                        .after
                        .iter()
                        .any(|word| before.trim_end().ends_with(word))
                    && !wording
                        .before
                        .iter()
                        .any(|word| after.trim_start().starts_with(word))
            })
            .map(|(at, _)| self.lines[at])
            .collect()
    }

    fn findings(&self, path: &str) -> Vec<String> {
        let one = |wording: &Wording| {
            let instead = wording.instead;
            let text = wording.text;
            let what = move |line| format!("{path}:{line}: {text:?}: say {instead}");
            self.find(wording).into_iter().map(what).collect::<Vec<_>>()
        };
        WORDINGS.iter().flat_map(one).collect()
    }
}

/// Files of the repository whose names end so, below the folders where text is written by hand.
fn files(ends: &str) -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let hidden = name.starts_with('.') && name != ".ci";
            if path.is_dir() {
                let made = matches!(name.as_str(), "target" | "varve-data" | "node_modules");
                if !hidden && !made && !path.is_symlink() {
                    open.push(path);
                }
            } else if name.ends_with(ends) {
                let relative = path.strip_prefix(&root).unwrap();
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Lines of prose of a Markdown text: without code blocks, tables and HTML comments.
fn markdown_prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_code = false;
    let mut prose = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let start = line.trim_start();
        if start.starts_with("```") {
            in_code = !in_code;
        } else if !in_code && !start.starts_with('|') && !start.starts_with("<!--") {
            prose.push((at + 1, line));
        }
    }
    prose
}

/// Lines of comments, by the mark that begins them, without the code blocks in them.
fn comments<'a>(text: &'a str, mark: &str) -> Vec<(usize, &'a str)> {
    let mut in_code = false;
    let mut prose = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some(rest) = line.trim_start().strip_prefix(mark) else {
            in_code = false;
            continue;
        };
        if rest.trim_start_matches(['/', '!', ' ']).starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            prose.push((at + 1, line));
        }
    }
    prose
}

fn too_wide(path: &str, prose: &[(usize, &str)]) -> Vec<String> {
    prose
        .iter()
        .filter(|(_, line)| line.chars().count() > WIDTH && !line.contains("://"))
        .map(|(at, line)| {
            let width = line.chars().count();
            format!("{path}:{at}: {width} columns; wrap prose at {WIDTH}")
        })
        .collect()
}

#[test]
fn prose_keeps_to_its_width() {
    let mut findings = Vec::new();
    for path in files(".md") {
        findings.extend(too_wide(&path, &markdown_prose(&read(&path))));
    }
    for (ends, mark) in [(".proto", "//"), (".toml", "#")] {
        for path in files(ends) {
            findings.extend(too_wide(&path, &comments(&read(&path), mark)));
        }
    }
    for source in all_sources() {
        if !source.is_generated() {
            findings.extend(too_wide(&source.path, &comments(&source.text, "//")));
        }
    }
    report(&findings);
}

/// Doc comments of the command line, which clap shows as help.
fn help(source: &Source) -> Vec<(usize, &str)> {
    comments(&source.text, "///")
}

#[test]
fn texts_use_the_words_of_the_field() {
    let mut findings = Vec::new();
    for (row, source) in product_sources() {
        for (line, literal) in source.product_literals() {
            let flat = Flat::new([(line, literal.as_str())]);
            findings.extend(flat.findings(&source.path));
        }
        if row.name == "cli" {
            for line in help(&source) {
                findings.extend(Flat::new([line]).findings(&source.path));
            }
        }
    }
    let pages = ["README.md", "CHANGELOG.md"].map(str::to_owned);
    let docs = files(".md")
        .into_iter()
        .filter(|path| Path::new(path).parent() == Some(Path::new("docs")));
    for path in docs.chain(pages) {
        let text = read(&path);
        findings.extend(Flat::new(markdown_prose(&text)).findings(&path));
    }
    report(&findings);
}

#[test]
fn wordings_are_found_across_lines_and_as_whole_words() {
    let flat = Flat::new([
        (3, "The client is"),
        (4, "told, and there is no way; it is no node."),
    ]);
    let found = flat.findings("x.md");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("x.md:3: \"is told\"") && found[1].starts_with("x.md:4: \"is no\"")
    );
    let clean = Flat::new([(1, "this is not overdone, no longer; renewed")]);
    assert_eq!(clean.findings("x.md"), Vec::<String>::new());
}

#[test]
fn wordings_are_many_and_each_says_what_to_write() {
    assert!(WORDINGS.len() >= 30);
    for wording in WORDINGS {
        assert_eq!(wording.text, wording.text.to_lowercase());
        assert!(wording.instead.len() > 3, "{}", wording.text);
    }
}

#[test]
fn code_tables_and_addresses_are_no_prose() {
    let wide = "x".repeat(200);
    let text = format!("| {wide} |\n```\n{wide}\n```\nhttps://{wide}\n{wide}\n");
    let found = too_wide("x.md", &markdown_prose(&text));
    assert_eq!(found, ["x.md:6: 200 columns; wrap prose at 120"]);
    let code = format!("/// ```\n/// {wide}\n/// ```\nlet {wide};\n    // {wide}\n");
    let found = too_wide("x.rs", &comments(&code, "//"));
    assert_eq!(found, ["x.rs:5: 207 columns; wrap prose at 120"]);
}
