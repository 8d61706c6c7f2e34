//! What clients do in a history: a workload of our own client, or Kafka's clients.

use varve_workload::Kind;

/// Whose clients, and what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Our client library.
    Own(Kind),
    /// kafka-python and librdkafka, over the Kafka listeners of all nodes.
    Kafka,
}

impl Work {
    /// Every workload.
    pub fn all() -> impl Iterator<Item = Self> {
        let own = Kind::ALL.iter().map(|kind| Self::Own(*kind));
        own.chain([Self::Kafka])
    }

    /// Its name on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own(kind) => kind.name(),
            Self::Kafka => "kafka",
        }
    }

    /// What its clients do.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Own(kind) => kind.what(),
            Self::Kafka => {
                "kafka-python and librdkafka: producers, transactions, readers and groups (not in `all`: needs Python)"
            }
        }
    }
}

/// Workloads by their names, with commas between them. `all` is every one of our own client: those of others need
/// packages that not every machine has.
///
/// # Errors
/// The name that is none, and all that are.
pub fn parse_works(text: &str) -> Result<Vec<Work>, String> {
    if text == "all" {
        return Ok(Kind::ALL.iter().map(|kind| Work::Own(*kind)).collect());
    }
    let one = |word: &str| {
        Work::all().find(|work| work.name() == word).ok_or_else(|| {
            let names: Vec<&str> = Work::all().map(Work::name).collect();
            let names = names.join(", ");
            format!("workload {word:?} does not exist; there are {names}")
        })
    };
    text.split(',').map(|word| one(word.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_have_names_of_their_own() {
        for work in Work::all() {
            assert_eq!(parse_works(work.name()), Ok(vec![work]));
        }
        let both = vec![Work::Own(Kind::Txn), Work::Kafka];
        assert_eq!(parse_works("txn, kafka"), Ok(both));
        assert!(!parse_works("all").unwrap().contains(&Work::Kafka));
        let error = parse_works("kafa").unwrap_err();
        assert!(error.contains("workload \"kafa\" does not exist") && error.contains("queue, "));
    }
}
