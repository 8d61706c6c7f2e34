//! Numbers in sentences. Nothing here decides what a text says.

use std::fmt::Display;

/// A count with its noun: `1 partition`, `3 partitions`.
#[must_use]
pub fn counted(count: impl Display, noun: &str) -> String {
    let count = count.to_string();
    let end = if count == "1" { "" } else { "s" };
    format!("{count} {noun}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        let texts = [0, 1, 2, 21].map(|count| counted(count, "node"));
        assert_eq!(texts, ["0 nodes", "1 node", "2 nodes", "21 nodes"]);
    }
}
