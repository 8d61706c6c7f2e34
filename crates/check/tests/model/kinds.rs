//! Which kinds are planted where.

use varve_check::Kind;

/// Kinds that take transactions, pipelines or groups: they are planted by the tests in `transactions`.
pub const OF_TRANSACTIONS: &[Kind] = &[
    Kind::PrecommittedRead,
    Kind::TornTransaction,
    Kind::StuckTransaction,
    Kind::TwoOutcomes,
    Kind::G1c,
    Kind::CopiedTwice,
    Kind::NotCopied,
    Kind::DoubleOwnership,
    Kind::ZombieCommit,
];
