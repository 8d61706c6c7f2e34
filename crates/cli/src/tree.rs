//! The tree of commands as it is parsed and shown: the derived one, with examples and a page of documentation at the
//! end of every `--help`, and with the global options left out of every `-h`.

use clap::{Args as _, Command, CommandFactory as _};

use crate::args::{Cli, Global};
use crate::{examples, sim};

/// The whole tree.
#[must_use]
pub fn tree() -> Command {
    let tree = Cli::command()
        .mut_args(|arg| {
            if arg.is_global_set() {
                arg.hide_short_help(true)
            } else {
                arg
            }
        })
        .mut_subcommand("cluster", |cluster| {
            cluster.mut_subcommand("health", |health| health.visible_alias("status"))
        })
        .mut_subcommand("sim", |command| command.hide(!sim::is_beside()));
    dress(tree, "")
}

/// Puts examples and documentation below the long help of a command and of those below it.
fn dress(mut command: Command, path: &str) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in names {
        let below = format!("{path} {name}");
        command = command.mut_subcommand(name, |sub| dress(sub, below.trim_start()));
    }
    let own = command.get_after_long_help().map(ToString::to_string);
    let shown = own.or_else(|| {
        let lines = examples::of(path)?;
        Some(format!("Examples:\n  {}", lines.join("\n  ")))
    });
    let page = format!("Documentation: {}", examples::document(path));
    command.after_long_help(match shown {
        Some(shown) => format!("{}\n\n{page}", shown.trim_end()),
        None => page,
    })
}

/// Text of the global options alone.
#[must_use]
pub fn options() -> String {
    let command = Global::augment_args(Command::new("varve"))
        .disable_help_flag(true)
        .max_term_width(100)
        .help_template("Every command takes these options.\n\n{all-args}\n");
    command.clone().render_long_help().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches as _;

    /// Every command with its path, the root first.
    fn all(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        found.push((path.to_owned(), command.clone()));
        for sub in command.get_subcommands() {
            let below = format!("{path} {}", sub.get_name());
            all(sub, below.trim_start(), found);
        }
    }

    fn commands() -> Vec<(String, Command)> {
        let mut found = Vec::new();
        all(&tree(), "", &mut found);
        found
    }

    /// The example lines below a command's long help.
    fn lines(command: &Command) -> Vec<String> {
        let help = command.get_after_long_help().unwrap().to_string();
        let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1);
        let lines = lines.take_while(|line| line.starts_with("  "));
        // What follows a hash is a comment of the shell.
        let typed = lines.map(|line| line.split("  #").next().unwrap_or_default());
        typed.map(|line| line.trim().to_owned()).collect()
    }

    /// The words of a shell line from `varve` on, to the end of that command; quotes are single ones.
    fn words(line: &str) -> Vec<Vec<String>> {
        let mut commands = vec![Vec::new()];
        let (mut word, mut quoted, mut open) = (String::new(), false, false);
        for character in line.chars().chain([' ']) {
            match character {
                '\'' => (quoted, open) = (!quoted, true),
                ' ' if !quoted => {
                    if open || !word.is_empty() {
                        commands.last_mut().unwrap().push(std::mem::take(&mut word));
                    }
                    open = false;
                }
                '|' if !quoted => commands.push(Vec::new()),
                character => word.push(character),
            }
        }
        for command in &mut commands {
            let redirect = command.iter().position(|word| word == ">" || word == "#");
            command.truncate(redirect.unwrap_or(command.len()));
        }
        commands.retain(|words| words.first().is_some_and(|word| word == "varve"));
        commands
    }

    #[test]
    fn every_command_has_two_examples_that_parse() {
        for (path, command) in commands() {
            let lines = lines(&command);
            assert!(lines.len() >= 2, "{path:?} has {} examples", lines.len());
            for line in lines {
                assert!(line.len() <= 76, "{line}");
                let typed = words(&line);
                assert!(!typed.is_empty(), "{line} does not call varve");
                let about = typed.iter().any(|words| {
                    let called: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
                    path.is_empty() || called.join(" ").starts_with(&path)
                });
                assert!(about, "{path:?}: {line} is about another command");
                for words in typed {
                    let parsed = tree()
                        .try_get_matches_from(&words)
                        .and_then(|matches| Cli::from_arg_matches(&matches));
                    assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                }
            }
        }
    }

    #[test]
    fn every_example_is_of_a_command() {
        let known: Vec<String> = commands().into_iter().map(|(path, _)| path).collect();
        for (path, _) in examples::EXAMPLES {
            assert!(known.iter().any(|known| known == path), "{path}");
        }
    }

    #[test]
    fn pages_and_sections_exist() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
        for (path, _) in commands() {
            let document = examples::document(&path);
            let (page, section) = document.split_once('#').unwrap_or((document, ""));
            let text = std::fs::read_to_string(format!("{root}{page}")).unwrap();
            let found = text
                .lines()
                .filter(|line| line.starts_with('#'))
                .any(|line| {
                    line.trim_start_matches('#')
                        .trim()
                        .to_lowercase()
                        .replace(' ', "-")
                        == section
                });
            assert!(
                section.is_empty() || found,
                "{document} has no such section"
            );
        }
    }

    #[test]
    fn the_short_help_leaves_global_options_out() {
        for (path, command) in commands() {
            let mut root = tree();
            let typed: Vec<&str> = ["varve"]
                .into_iter()
                .chain(path.split_whitespace())
                .collect();
            let help = |flag: &str, root: &mut Command| {
                let typed = typed.iter().copied().chain([flag]);
                root.try_get_matches_from_mut(typed)
                    .unwrap_err()
                    .to_string()
            };
            let short = help("-h", &mut root);
            assert!(
                !short.contains("--brokers") && !short.contains("Examples:"),
                "{path}: {short}"
            );
            let long = help("--help", &mut root);
            assert!(
                long.contains("--brokers") && long.contains("Examples:"),
                "{path}: {long}"
            );
            assert!(long.contains("Documentation: docs/"), "{path}: {long}");
            drop(command);
        }
    }

    #[test]
    fn the_tree_is_consistent() {
        tree().debug_assert();
    }

    #[test]
    fn the_options_are_shown_alone() {
        let text = options();
        assert!(
            text.contains("--brokers") && text.contains("--yes"),
            "{text}"
        );
        assert!(!text.contains("Commands:"), "{text}");
    }
}
