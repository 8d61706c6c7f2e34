//! Safety lines of replication and of the metadata that are taken out, one at a time: some seed must notice
//! each, or the simulator proves nothing.

use varve_groups::planted as groups;
use varve_metadata::planted as metadata;
use varve_partition::planted as partition;
use varve_txn::planted as transactions;

/// A line that can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Of a partition's replication.
    Partition(partition::Plant),
    /// Of the metadata.
    Metadata(metadata::Plant),
    /// Of the coordinator of transactions.
    Transactions(transactions::Plant),
    /// Of the coordinator of groups.
    Groups(groups::Plant),
}

impl Plant {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let replication = partition::Plant::ALL.into_iter().map(Self::Partition);
        let metadata = metadata::Plant::ALL.into_iter().map(Self::Metadata);
        let open = partition::Plant::TRANSACTIONS
            .into_iter()
            .map(Self::Partition);
        let coordinator = transactions::Plant::ALL.into_iter().map(Self::Transactions);
        let all = replication.chain(metadata);
        let groups = groups::Plant::ALL.into_iter().map(Self::Groups);
        all.chain(open).chain(coordinator).chain(groups).collect()
    }

    fn set(self) {
        match self {
            Self::Partition(plant) => partition::set(Some(plant)),
            Self::Metadata(plant) => metadata::set(Some(plant)),
            Self::Transactions(plant) => transactions::set(Some(plant)),
            Self::Groups(plant) => groups::set(Some(plant)),
        }
    }
}

/// The first of `seeds` seeds from `from` on that notices, with what it says.
#[must_use]
pub fn hunt(plant: Plant, from: u64, seeds: u64) -> Option<(u64, String)> {
    plant.set();
    let found = (from..from + seeds).find_map(|seed| {
        let ran = std::panic::catch_unwind(|| super::run(seed, false));
        let violation = match ran {
            Ok(report) => report.violation,
            Err(_) => Some("an assertion failed".to_owned()),
        };
        violation.map(|why| (seed, why))
    });
    partition::set(None);
    metadata::set(None);
    transactions::set(None);
    groups::set(None);
    found
}
