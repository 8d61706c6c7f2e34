//! Safety lines of replication that are taken out, one at a time: some seed must notice each, or the
//! simulator proves nothing.

use varve_partition::planted::{self, Plant};

/// Every line that can be taken out.
pub const ALL: [Plant; 15] = [
    Plant::TruncateByHighWatermark,
    Plant::IgnoreMinIsr,
    Plant::WrittenIsFlushed,
    Plant::CommittedIsrOnly,
    Plant::IsrBeforeCommit,
    Plant::JoinBelowHighWatermark,
    Plant::JoinBelowEpochStart,
    Plant::KeepEvidence,
    Plant::IgnoreBrokerEpoch,
    Plant::AcceptStaleFetch,
    Plant::NoReconcileSameLeader,
    Plant::UndefinedEpoch,
    Plant::ServeAboveHighWatermark,
    Plant::ForgetProducers,
    Plant::AcceptOldEpoch,
];

/// The first of `seeds` seeds from `from` on that notices, with what it says.
#[must_use]
pub fn hunt(plant: Plant, from: u64, seeds: u64) -> Option<(u64, String)> {
    planted::set(Some(plant));
    let found = (from..from + seeds).find_map(|seed| {
        let ran = std::panic::catch_unwind(|| super::run(seed, false));
        let violation = match ran {
            Ok(report) => report.violation,
            Err(_) => Some("an assertion failed".to_owned()),
        };
        violation.map(|why| (seed, why))
    });
    planted::set(None);
    found
}
