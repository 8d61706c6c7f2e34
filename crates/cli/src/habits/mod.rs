//! Command lines of other tools: a word or a flag that varve does not have and another tool has becomes what was
//! meant, or one sentence that names the right command. A slip of the finger becomes a tip.
//!
//! Invariants: what varve itself understands is never changed, and neither is an argument of a command (the name of
//! a topic may be any of these words). A tip is a command for a command and a flag for a flag, and it is never a
//! command that destroys something.

mod table;
mod tips;

use std::ffi::OsString;

use clap::{Arg, Command};

pub use tips::explain;

use table::{FAMILIES, FLAGS, Means, WORDS};

/// Most habits in one line; more is not typed by anybody, and it bounds the work.
const HABITS_MAX: usize = 64;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// A command, in varve's own words.
    Run(Vec<OsString>),
    /// The list of client settings: `varve -X list`.
    Settings,
    /// The options that every command has: `varve help options`.
    Options,
    /// Something that varve does in another way: this sentence says how.
    Says(String),
}

/// Puts a command line into varve's own words.
#[must_use]
pub fn translate(tree: &Command, mut arguments: Vec<OsString>) -> Asked {
    for _ in 0..HABITS_MAX {
        match step(tree, &arguments) {
            Step::Done => return Asked::Run(arguments),
            Step::Ends(asked) => return asked,
            Step::Becomes(changed) => arguments = changed,
        }
    }
    Asked::Run(arguments)
}

/// What one look at a command line found.
enum Step {
    Done,
    Ends(Asked),
    Becomes(Vec<OsString>),
}

/// A walk over a command line, as far as it is understood.
struct Walk<'a> {
    root: &'a Command,
    at: &'a Command,
    /// The commands so far, and where they stand.
    path: Vec<&'a str>,
    places: Vec<usize>,
}

fn step(tree: &Command, arguments: &[OsString]) -> Step {
    let mut walk = Walk {
        root: tree,
        at: tree,
        path: Vec::new(),
        places: Vec::new(),
    };
    let mut index = 1;
    let mut settings = false;
    while let Some(argument) = arguments.get(index) {
        // What is not text is no habit.
        let Some(text) = argument.to_str() else {
            index += 1;
            continue;
        };
        if text == "--" || text == "--help" && walk.is_leaf() {
            break;
        }
        if text.len() > 1 && text.starts_with('-') {
            let next = arguments.get(index + 1).and_then(|next| next.to_str());
            settings |= matches!(text, "-Xlist" | "--client-set=list")
                || matches!(text, "-X" | "--client-set") && next == Some("list");
            match walk.flag(text) {
                Flag::Alone => index += 1,
                Flag::TakesNext => index += 2,
                Flag::Unknown => match walk.foreign_flag(arguments, index) {
                    Some(step) => return step,
                    None => index += walk.width(text),
                },
            }
        } else if walk.is_leaf() {
            index += 1;
        } else if let Some(step) = walk.word(arguments, index, text) {
            return step;
        } else if walk.places.last() == Some(&index) {
            index += 1;
        } else {
            // Nobody knows this word; the parser refuses it.
            return Step::Done;
        }
    }
    if settings && walk.path.is_empty() {
        return Step::Ends(Asked::Settings);
    }
    Step::Done
}

/// How many arguments a flag is.
#[derive(Debug, PartialEq, Eq)]
enum Flag {
    Alone,
    TakesNext,
    Unknown,
}

impl<'a> Walk<'a> {
    fn is_leaf(&self) -> bool {
        self.at.get_subcommands().next().is_none()
    }

    fn flags(&self) -> impl Iterator<Item = &'a Arg> {
        let global = self.root.get_arguments().filter(|arg| arg.is_global_set());
        self.at.get_arguments().chain(global)
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.flags().find(|arg| {
            arg.get_long() == Some(name)
                || arg.get_all_aliases().is_some_and(|all| all.contains(&name))
        })
    }

    fn short(&self, letter: char) -> Option<&'a Arg> {
        self.flags().find(|arg| {
            arg.get_short() == Some(letter)
                || arg
                    .get_all_short_aliases()
                    .is_some_and(|all| all.contains(&letter))
        })
    }

    /// What the command makes of a flag.
    fn flag(&self, text: &str) -> Flag {
        // Arguments that begin with a hyphen, of a command that passes all of them on.
        if self
            .at
            .get_positionals()
            .any(Arg::is_allow_hyphen_values_set)
        {
            return Flag::Alone;
        }
        let takes_value = |arg: &Arg| arg.get_action().takes_values();
        if let Some(name) = text.strip_prefix("--") {
            let (name, value) = name
                .split_once('=')
                .map_or((name, None), |(n, v)| (n, Some(v)));
            return match self.long(name) {
                _ if matches!(name, "help" | "version") => Flag::Alone,
                None => Flag::Unknown,
                Some(arg) if takes_value(arg) && value.is_none() => Flag::TakesNext,
                Some(_) => Flag::Alone,
            };
        }
        let letters: Vec<char> = text.chars().skip(1).collect();
        for (place, letter) in letters.iter().enumerate() {
            match self.short(*letter) {
                None if matches!(letter, 'h' | 'V') => {}
                // The first letter decides whose flag it is; a later one is the parser's to refuse.
                None if place == 0 => return Flag::Unknown,
                None => return Flag::Alone,
                Some(arg) if takes_value(arg) && place + 1 == letters.len() => {
                    return Flag::TakesNext;
                }
                Some(arg) if takes_value(arg) => return Flag::Alone,
                Some(_) => {}
            }
        }
        Flag::Alone
    }

    /// A word where a command is expected. `None`: it is a command, and the walk went on to it, or it is unknown.
    fn word(&mut self, arguments: &[OsString], index: usize, text: &str) -> Option<Step> {
        if let Some(sub) = self.at.find_subcommand(text) {
            self.at = sub;
            self.path.push(sub.get_name());
            self.places.push(index);
            return None;
        }
        let path = self.path.join(" ");
        if text == "help" {
            return Some(help(arguments, index, &path));
        }
        if path.is_empty()
            && let Some((_, family)) = FAMILIES.iter().find(|(word, _)| *word == text)
        {
            let next = arguments.get(index + 1).and_then(|next| next.to_str());
            let known = next.is_some_and(|next| self.knows(family, next));
            let command: &[&str] = if known { &[family] } else { &[family, "list"] };
            return Some(self.becomes(arguments, index, 1, command));
        }
        let (_, _, means) = WORDS
            .iter()
            .find(|(at, words, _)| *at == path && words.contains(&text))?;
        Some(match means {
            Means::Says(sentence) => Step::Ends(Asked::Says((*sentence).to_owned())),
            Means::Command(command) => self.becomes(arguments, index, 1, command),
            _ => return None,
        })
    }

    /// Whether a word is a command of a family, or another tool's word or flag for one.
    fn knows(&self, family: &str, word: &str) -> bool {
        let own = self.root.find_subcommand(family);
        own.is_some_and(|command| command.find_subcommand(word).is_some())
            || word == "help"
            || WORDS
                .iter()
                .any(|(at, words, _)| *at == family && words.contains(&word))
            || FLAGS
                .iter()
                .any(|(at, flags, _)| *at == family && flags.contains(&word))
    }

    /// What a flag of another tool means, if it is one.
    fn foreign_flag(&self, arguments: &[OsString], index: usize) -> Option<Step> {
        let text = arguments.get(index)?.to_str()?;
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ => (text, None),
        };
        let path = self.path.join(" ");
        let (_, _, means) = FLAGS.iter().find(|(at, flags, means)| {
            let beneath = path
                .strip_prefix(at)
                .is_some_and(|rest| at.is_empty() || rest.is_empty() || rest.starts_with(' '));
            // A flag that names a command does so only where a command is missing, and a flag of a command waits
            // until that command is known.
            let fits = match means {
                Means::Command(_) => !self.is_leaf(),
                Means::Says(_) | Means::Property => true,
                _ => self.is_leaf() || at.is_empty(),
            };
            beneath && fits && flags.contains(&name)
        })?;
        let next = arguments.get(index + 1).and_then(|next| next.to_str());
        let value = inline.or(next);
        let taken = if inline.is_some() { 1 } else { 2 };
        let has_output = self.long("output").is_some();
        match means {
            Means::Says(sentence) => Some(Step::Ends(Asked::Says((*sentence).to_owned()))),
            Means::Nothing => Some(replace(arguments, index, 1, Vec::new())),
            Means::Flags(["--output", ..]) | Means::Output if !has_output => None,
            Means::Flags(flags) => Some(replace(arguments, index, 1, owned(flags))),
            Means::Command(command) => Some(self.becomes(arguments, index, 1, command)),
            Means::Property => {
                let command = self.path.first().copied().unwrap_or_default();
                let sentence = table::property(command, value.unwrap_or_default());
                Some(Step::Ends(Asked::Says(sentence)))
            }
            Means::Output => {
                let form = if value? == "table" { "text" } else { value? };
                Some(replace(arguments, index, taken, owned(&["--output", form])))
            }
            Means::Value(flags) => {
                let value = value?;
                let flags = flags.iter().map(|flag| flag.replace("{}", value).into());
                Some(replace(arguments, index, taken, flags.collect()))
            }
        }
    }

    /// How many arguments a flag is that is not understood yet: two when another tool has it with a value.
    fn width(&self, text: &str) -> usize {
        let first = self.path.first().copied().unwrap_or_default();
        let takes_value = FLAGS.iter().any(|(at, flags, means)| {
            let family = at.split(' ').next() == Some(first);
            family && flags.contains(&text) && matches!(means, Means::Value(_))
        });
        if takes_value { 2 } else { 1 }
    }

    /// The line with another command in place of the one so far and of `count` arguments at `index`.
    fn becomes(
        &self,
        arguments: &[OsString],
        index: usize,
        count: usize,
        command: &[&str],
    ) -> Step {
        let first = self.places.first().copied().unwrap_or(index);
        let mut changed: Vec<OsString> = arguments[..first].to_vec();
        changed.extend(owned(command));
        let gone =
            |place: &usize| self.places.contains(place) || (index..index + count).contains(place);
        let rest = (first..arguments.len()).filter(|place| !gone(place));
        changed.extend(rest.map(|place| arguments[place].clone()));
        Step::Becomes(changed)
    }
}

fn owned(texts: &[&str]) -> Vec<OsString> {
    texts.iter().map(OsString::from).collect()
}

fn replace(arguments: &[OsString], index: usize, count: usize, with: Vec<OsString>) -> Step {
    let mut changed = arguments.to_vec();
    changed.splice(index..(index + count).min(arguments.len()), with);
    Step::Becomes(changed)
}

/// `varve help topic create` is `varve topic create --help`.
fn help(arguments: &[OsString], index: usize, path: &str) -> Step {
    let next = arguments.get(index + 1).and_then(|next| next.to_str());
    if path.is_empty() && next == Some("options") {
        return Step::Ends(Asked::Options);
    }
    let mut changed = arguments.to_vec();
    changed.remove(index);
    // Only commands can follow; what is asked for is the help of the last one.
    changed.push("--help".into());
    Step::Becomes(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tree;

    fn asked(line: &str) -> Asked {
        translate(&tree(), line.split(' ').map(OsString::from).collect())
    }

    fn run(line: &str) -> String {
        match asked(line) {
            Asked::Run(arguments) => {
                let texts = arguments.into_iter().map(|a| a.into_string().unwrap());
                texts.collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn lines_of_other_tools_become_ours() {
        for (typed, expected) in [
            ("varve ls", "varve topic list"),
            ("varve -b h:1 rm orders", "varve -b h:1 topic delete orders"),
            ("varve topics", "varve topic list"),
            ("varve topics create a -p 3", "varve topic create a -p 3"),
            (
                "varve topics --describe --topic a",
                "varve topic describe a",
            ),
            ("varve topic --topic a --describe", "varve topic describe a"),
            ("varve group --group g --describe", "varve group describe g"),
            ("varve groups -o json", "varve group list -o json"),
            ("varve lag billing", "varve group describe billing"),
            ("varve help", "varve --help"),
            ("varve help topic create", "varve topic create --help"),
            ("varve topic help", "varve topic --help"),
            ("varve topic -b h:1 --list", "varve topic list -b h:1"),
            (
                "varve topic --create --topic a --partitions 3 --replication-factor 1",
                "varve topic create a --partitions 3 --replication-factor 1",
            ),
            (
                "varve topic --alter --topic=a --partitions 6",
                "varve topic add-partitions a --partitions 6",
            ),
            (
                "varve topic consume orders -n 5",
                "varve consume orders -n 5",
            ),
            ("varve topic list --json", "varve topic list --output json"),
            (
                "varve topic list --format=json",
                "varve topic list --output json",
            ),
            (
                "varve topic list --format table",
                "varve topic list --output text",
            ),
            (
                "varve group --reset-offsets --group g --to-earliest --topic a --execute",
                "varve group seek g --to start --topics a --execute",
            ),
            ("varve group --describe --group g", "varve group describe g"),
            ("varve consume a --whitelist b", "varve consume a --regex b"),
            (
                "varve produce a --broker-list h:1",
                "varve produce a --brokers h:1",
            ),
            ("varve cluster ls", "varve cluster nodes"),
            ("varve topic create -t a", "varve topic create a"),
        ] {
            assert_eq!(run(typed), expected, "{typed}");
        }
        assert_eq!(asked("varve -X list"), Asked::Settings);
        assert_eq!(asked("varve -v -Xlist"), Asked::Settings);
        assert_eq!(asked("varve help options"), Asked::Options);
    }

    #[test]
    fn our_own_lines_are_left_alone() {
        for line in [
            "varve",
            "varve produce ls",
            "varve consume rm -e",
            "varve topic describe help",
            "varve topic create topics groups info",
            "varve consume help --json",
            "varve group describe reset",
            "varve topic delete ls",
            "varve produce orders -k --json",
            "varve produce orders --value --list",
            "varve consume orders -f --property",
            "varve topic add-partitions orders -t 4",
            "varve cluster metadata --json",
            "varve topic list -X list",
            "varve sim --list --json",
            "varve produce orders -- --json",
            "varve nonsense --json",
            "varve topic create --help --topic",
        ] {
            assert_eq!(run(line), line);
        }
    }

    #[test]
    fn what_is_done_in_another_way_is_said() {
        for (line, words) in [
            ("varve consume a --property print.key=true", "-K TEXT"),
            ("varve consume a --property=print.offset=true", "-O prints"),
            ("varve produce a --property parse.key=true", "-K :"),
            ("varve produce a --property key.separator=:", "-K ':'"),
            ("varve stream ls", "varve topic list"),
            ("varve cluster maintenance enable 1", "varve cluster drain"),
            ("varve topic list --zookeeper z:1", "-b HOST:PORT"),
            ("varve login", "docs/security.md"),
            ("varve -Q -t a:0:-1", "varve topic offsets"),
        ] {
            match asked(line) {
                Asked::Says(sentence) => assert!(sentence.contains(words), "{line}: {sentence}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_tables_name_commands_that_exist() {
        let tree = tree();
        for (at, words, means) in WORDS.iter().chain(FLAGS) {
            let mut command = &tree;
            for name in at.split_whitespace() {
                command = command.find_subcommand(name).unwrap();
            }
            for word in *words {
                assert!(
                    command.find_subcommand(word).is_none(),
                    "{at} has {word} itself"
                );
            }
            if let Means::Command(path) = means {
                let mut command = &tree;
                for name in *path {
                    command = command.find_subcommand(name).unwrap();
                }
                assert!(
                    command.get_subcommands().next().is_none(),
                    "{path:?} is no command"
                );
            }
        }
    }
}
