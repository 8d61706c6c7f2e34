//! kcat's letters: `varve -P ...`, `varve -C ...` and `varve -L ...` are produce, consume and cluster
//! metadata, so that fingers do not have to learn.

use std::ffi::OsString;

/// Replaces a mode letter among the arguments before a subcommand by the subcommand.
#[must_use]
pub fn translate(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut at = 1;
    while let Some(argument) = arguments.get(at).and_then(|argument| argument.to_str()) {
        let command: &[&str] = match argument {
            "-P" => &["produce"],
            "-C" => &["consume"],
            "-L" => &["cluster", "metadata"],
            // A global flag with its value may stand in front.
            "-b" | "-X" | "-F" | "--brokers" | "--client-set" | "--client-config" | "--context"
            | "--timeout" => {
                at += 2;
                continue;
            }
            argument if argument.starts_with('-') && argument != "--" => {
                at += 1;
                continue;
            }
            _ => return arguments,
        };
        arguments.splice(at..=at, command.iter().map(OsString::from));
        return arguments;
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> String {
        let arguments = line.split(' ').map(OsString::from).collect();
        let translated: Vec<_> = translate(arguments)
            .into_iter()
            .map(|a| a.into_string().unwrap())
            .collect();
        translated.join(" ")
    }

    #[test]
    fn letters_become_commands() {
        for (given, expected) in [
            ("varve -P -t logs", "varve produce -t logs"),
            (
                "varve -b h:1 -C -t logs -o -5",
                "varve -b h:1 consume -t logs -o -5",
            ),
            ("varve -b h:1 -L", "varve -b h:1 cluster metadata"),
            ("varve -v -L", "varve -v cluster metadata"),
            ("varve consume -t logs -C", "varve consume -t logs -C"),
            ("varve topic list", "varve topic list"),
            ("varve -b -C", "varve -b -C"),
            ("varve", "varve"),
        ] {
            assert_eq!(translated(given), expected);
        }
    }
}
