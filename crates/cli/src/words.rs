//! Counts in sentences: `1 record`, `3 records`. Nouns here form their plural with an `s`.

use std::fmt::Display;

/// A number with its noun.
#[must_use]
pub fn count(number: impl Display, noun: &str) -> String {
    match number.to_string().as_str() {
        "1" => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular() {
        assert_eq!(count(0, "record"), "0 records");
        assert_eq!(count(1_u64, "record"), "1 record");
        assert_eq!(count(3, "in-sync replica"), "3 in-sync replicas");
    }
}
