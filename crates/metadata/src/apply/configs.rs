//! What programs before feature level [`KEPT_CONFIGS`] take as configs of a topic. Until a cluster has reached that
//! level some of its nodes may be such programs, and a command must do the same on all of them.
//!
//! Invariant: this never changes. It says what those programs do.

use std::collections::BTreeMap;

use varve_types::limits;

use super::check_texts;
use crate::Rejection;
use crate::features::KEPT_CONFIGS;
use crate::state::State;

/// Largest `max.message.bytes` of those programs.
const MESSAGE_MAX_BYTES: i64 = 8 * 1024 * 1024;

/// Checks the configs of a topic against what every node of the cluster can read, whatever they mean.
pub(super) fn check(state: &State, configs: &BTreeMap<String, String>) -> Result<(), Rejection> {
    // A node that is alone has no peers, and no address for any.
    let in_cluster = state
        .nodes
        .values()
        .any(|node| !node.peer_address.is_empty());
    if !in_cluster || state.level >= KEPT_CONFIGS {
        return check_kept(configs);
    }
    check_texts("a topic config", configs)?;
    match configs.iter().all(|(name, value)| was_taken(name, value)) {
        true => Ok(()),
        false => Err(Rejection::LevelNotReached {
            needed: KEPT_CONFIGS,
            level: state.level,
        }),
    }
}

/// A list of replicas may be as long as its type allows.
fn check_kept(configs: &BTreeMap<String, String>) -> Result<(), Rejection> {
    let mut shortened = configs.clone();
    for (name, value) in &mut shortened {
        if name.ends_with(".throttled.replicas") {
            value.clear();
        }
    }
    check_texts("a topic config", &shortened)
}

/// Whether those programs take the config.
fn was_taken(name: &str, value: &str) -> bool {
    let number = |least: i64, most: i64| {
        let number: Option<i64> = value.parse().ok();
        number.is_some_and(|number| (least..=most).contains(&number))
    };
    let word = |words: &[&str]| words.contains(&value);
    match name {
        "cleanup.policy" => {
            let mut parts = value.split(',').map(str::trim);
            parts.all(|part| part == "delete" || part == "compact")
        }
        "compression.type" => word(&["producer", "none", "gzip", "snappy", "lz4", "zstd"]),
        "durability" => word(&["fsync", "replicated"]),
        "message.timestamp.type" => word(&["CreateTime", "LogAppendTime"]),
        "unclean.leader.election.enable" => word(&["true", "false"]),
        "min.cleanable.dirty.ratio" => {
            let ratio: Option<f64> = value.parse().ok();
            ratio.is_some_and(|ratio| (0.0..=1.0).contains(&ratio))
        }
        "delete.retention.ms"
        | "message.timestamp.after.max.ms"
        | "message.timestamp.before.max.ms"
        | "min.compaction.lag.ms" => number(0, i64::MAX),
        "flush.messages" | "flush.ms" | "max.compaction.lag.ms" | "segment.ms" => {
            number(1, i64::MAX)
        }
        "index.interval.bytes" => number(0, i32::MAX.into()),
        "max.message.bytes" => number(1024, MESSAGE_MAX_BYTES),
        "min.insync.replicas" => number(1, limits::REPLICATION_FACTOR_MAX.into()),
        "retention.bytes" | "retention.ms" => number(-1, i64::MAX),
        "segment.bytes" => number(4096, i32::MAX.into()),
        _ => false,
    }
}
