//! What `produce` and `consume` say to a person at a terminal: that they wait for the keyboard or for records, and
//! how many records were written. Always on standard error, never with `-q`, and nothing where no terminal is.

use std::io::{IsTerminal as _, Write as _};

use varve_types::TopicName;

use crate::failure::stderr_is_terminal;
use crate::words::count;

/// Prints one line for a person. Standard error may be gone; the command does not fail then.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether a person types the input and sees what is said.
#[must_use]
pub fn types_input() -> bool {
    std::io::stdin().is_terminal() && stderr_is_terminal()
}

/// Whether a person sees the records on the screen as they come.
#[must_use]
pub fn sees_output() -> bool {
    std::io::stdout().is_terminal() && stderr_is_terminal()
}

/// Where records go, for a sentence: ` for orders`; nothing when the records name their topics.
fn with(word: &str, topic: Option<&TopicName>) -> String {
    topic.map_or_else(String::new, |topic| format!(" {word} {topic}"))
}

/// That the keyboard is read.
#[must_use]
pub fn typing(topic: Option<&TopicName>) -> String {
    format!("typing records{}; Ctrl-D ends", with("for", topic))
}

/// How many records were written.
#[must_use]
pub fn written(records: u64, topic: Option<&TopicName>) -> String {
    format!("{} written{}", count(records, "record"), with("to", topic))
}

/// That a reader waits: for which topics, and with how many partitions of them.
#[must_use]
pub fn waiting(topics: &[TopicName], partitions: usize, group: Option<&str>) -> String {
    let names = match topics {
        [] => "topics".to_owned(),
        [one] => one.to_string(),
        [one, two] => format!("{one} and {two}"),
        [one, rest @ ..] => format!("{one} and {}", count(rest.len(), "more topic")),
    };
    let partitions = count(partitions, "partition");
    let details = match group {
        None => partitions,
        Some(group) => format!("group {group}, {partitions} assigned"),
    };
    format!("waiting for records on {names} ({details}); Ctrl-C ends")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        let topics: Vec<TopicName> = ["orders", "payments", "refunds"]
            .iter()
            .map(|name| TopicName::new(name).unwrap())
            .collect();
        let orders = Some(&topics[0]);
        assert_eq!(typing(orders), "typing records for orders; Ctrl-D ends");
        assert_eq!(written(3, orders), "3 records written to orders");
        assert_eq!(written(1, None), "1 record written");
        for (topics, partitions, group, said) in [
            (&topics[..1], 3, None, "orders (3 partitions)"),
            (&topics[..2], 4, None, "orders and payments (4 partitions)"),
            (
                &topics[..],
                1,
                None,
                "orders and 2 more topics (1 partition)",
            ),
            (
                &topics[..1],
                2,
                Some("g"),
                "orders (group g, 2 partitions assigned)",
            ),
            (&[], 0, Some("g"), "topics (group g, 0 partitions assigned)"),
        ] {
            let expected = format!("waiting for records on {said}; Ctrl-C ends");
            assert_eq!(waiting(topics, partitions, group), expected);
        }
    }
}
