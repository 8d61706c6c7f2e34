//! What the clients of a run do, by the names that command lines have for it.

macro_rules! kinds {
    ($($kind:ident, $name:literal, $what:literal;)*) => {
        /// A workload.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $(#[doc = $what] $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name on command lines.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What its clients do.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$kind => $what,)* }
            }
        }
    };
}

kinds! {
    Queue, "queue", "producers, and consumers that seek freely in all partitions";
    QueueSubscribe, "queue-subscribe", "producers, and two groups whose members join, leave and \
        are killed";
    Txn, "txn", "transactions of sends and polls that are committed, aborted or abandoned";
    Abort, "abort", "offsets committed in transactions, half of which are aborted: does an abort \
        rewind the group?";
    Ctp, "ctp", "a pipeline with several members that makes one record from each, exactly once";
}

impl Kind {
    /// Whether its clients have transactions.
    #[must_use]
    pub const fn has_transactions(self) -> bool {
        matches!(self, Self::Txn | Self::Abort | Self::Ctp)
    }
}

/// Kinds by their names, with commas between them, or `all`.
///
/// # Errors
/// The name that is none.
pub fn parse_kinds(text: &str) -> Result<Vec<Kind>, String> {
    if text == "all" {
        return Ok(Kind::ALL.to_vec());
    }
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let one = |word: &str| {
        let found = Kind::ALL.iter().find(|kind| kind.name() == word);
        found.copied().ok_or_else(|| {
            format!(
                "workload {word:?} does not exist; there are {}",
                names.join(", ")
            )
        })
    };
    text.split(',').map(|word| one(word.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names_of_their_own() {
        for kind in Kind::ALL {
            assert_eq!(parse_kinds(kind.name()), Ok(vec![*kind]));
        }
        assert_eq!(parse_kinds("txn, ctp"), Ok(vec![Kind::Txn, Kind::Ctp]));
        assert_eq!(parse_kinds("all"), Ok(Kind::ALL.to_vec()));
        assert!(
            parse_kinds("tx")
                .unwrap_err()
                .contains("workload \"tx\" does not exist")
        );
    }
}
