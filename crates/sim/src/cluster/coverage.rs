//! What has to happen now and then, or the runs prove little: if any of these has not happened once in
//! 20,000 seeds, the run has failed.

use std::collections::BTreeMap;

/// Runs of fewer seeds are not asked for all of it.
pub const SEEDS: u64 = 20_000;

/// Each of these, at least once.
pub const SOMETIMES: [&str; 76] = [
    "acknowledged records given up",
    "clean stop",
    "clock on the wall jumps",
    "command of a controller that was replaced",
    "commit of an old member epoch refused",
    "controller changed during an ISR change",
    "controller died",
    "controller fences a node",
    "controller moves a leader",
    "controller moves a replica",
    "controller replaced",
    "coordinator failover in PREPARE",
    "coordinator struck before the first marker",
    "coordinator struck before the transaction is complete",
    "coordinator struck between markers",
    "coordinator struck with a decision under way",
    "coordinator struck with a registration under way",
    "damaged replica given up",
    "damaged replica kept: it is the last",
    "disk full",
    "disk replaced by an empty one",
    "disk stalls",
    "eligible replica elected",
    "every node killed at once",
    "fetch refused: log begins later",
    "fetch refused: logs part",
    "fetch refused: newer leader epoch",
    "fetch refused: old leader epoch",
    "fetch refused: overtaken",
    "fewer than min.insync.replicas in sync",
    "first batch of a transaction waits for the coordinator",
    "flush failed",
    "follower shows records",
    "group coordinator changed during a rebalance",
    "group rebalance during commit",
    "id of a live node refused to another",
    "ISR change refused: not eligible",
    "ISR change refused: old broker epoch",
    "ISR change refused: out of date",
    "last replica standing falls",
    "late batch of a transaction refused",
    "late EndTxn refused",
    "leader elected with records committed",
    "leader killed twice in a row",
    "leader moved on purpose",
    "log begun anew",
    "log cut",
    "log cut over several epochs",
    "log start moved",
    "marker of an old coordinator refused",
    "member dies",
    "member leaves",
    "member silent for too long",
    "metadata command lost",
    "metadata command proposed twice",
    "move cancelled",
    "move ended",
    "moved to a node that wants to stop",
    "node cut off",
    "node emptied",
    "one-way cut",
    "only eligible replicas are left",
    "power cut that lost batches",
    "repeat answered with the first offset",
    "replica begins a new run while it is let in sync",
    "replica flickers",
    "replica removed and added again",
    "rolling crash",
    "transaction aborted by timeout",
    "transaction committed and shown",
    "transaction left open for good",
    "transactional producer replaced",
    "transactional producer sleeps too long",
    "unclean election",
    "unclean start",
    "write found no space",
];

/// What of it has not happened.
#[must_use]
pub fn missing(seen: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    let never = |what: &&str| seen.get(what).copied().unwrap_or(0) == 0;
    SOMETIMES.into_iter().filter(never).collect()
}
