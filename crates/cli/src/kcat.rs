//! kcat's letters: `varve -P ...`, `varve -C ...` and `varve -L ...` are produce, consume and cluster metadata.

use std::ffi::OsString;

/// Flags of kcat, and global ones of ours, whose value is the next argument.
const WITH_VALUE: &[&str] = &[
    "-b",
    "-X",
    "-F",
    "-t",
    "-p",
    "-o",
    "-c",
    "-f",
    "-s",
    "-K",
    "-D",
    "-H",
    "-k",
    "-z",
    "-G",
    "-g",
    "-a",
    "--brokers",
    "--bootstrap-server",
    "--server",
    "--client-set",
    "--client-config",
    "--context",
    "--timeout",
];

/// Replaces a mode letter by its command, in front. The letter may be anywhere among the flags, as in kcat; after a
/// command it is a flag of that command and stays.
#[must_use]
pub fn translate(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut at = 1;
    while let Some(argument) = arguments.get(at).and_then(|argument| argument.to_str()) {
        let command: &[&str] = match argument {
            "-P" => &["produce"],
            "-C" => &["consume"],
            "-L" => &["cluster", "metadata"],
            flag if WITH_VALUE.contains(&flag) => {
                at += 2;
                continue;
            }
            flag if flag.starts_with('-') && flag != "--" => {
                at += 1;
                continue;
            }
            _ => return arguments,
        };
        arguments.remove(at);
        arguments.splice(1..1, command.iter().map(OsString::from));
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
                "varve consume -b h:1 -t logs -o -5",
            ),
            ("varve -b h:1 -L", "varve cluster metadata -b h:1"),
            ("varve -b h -t logs -e -C", "varve consume -b h -t logs -e"),
            ("varve -v -L", "varve cluster metadata -v"),
            ("varve consume -t logs -C", "varve consume -t logs -C"),
            ("varve topic list", "varve topic list"),
            ("varve -b -C", "varve -b -C"),
            ("varve", "varve"),
        ] {
            assert_eq!(translated(given), expected);
        }
    }
}
