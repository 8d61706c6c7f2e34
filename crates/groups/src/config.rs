//! Times and bounds of the groups core. Plain values; the rim fills them in from its configuration.

use varve_types::{GroupMigration, limits};

/// Times and bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Session timeout of members that name none, milliseconds.
    pub session_timeout_ms: u64,
    /// Least session timeout a member can ask for, milliseconds.
    pub session_timeout_min_ms: u64,
    /// Greatest session timeout a member can ask for, milliseconds.
    pub session_timeout_max_ms: u64,
    /// Heartbeats are due this often, and held no longer than this, milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Time to give up partitions for members that name none, milliseconds.
    pub rebalance_timeout_ms: u64,
    /// Most members of one group (`group.max.size`).
    pub group_max_size: usize,
    /// Most groups of all coordinators of this node together (`groups.max`).
    pub groups_max: usize,
    /// Offsets of a group are removed when it has been empty for this long and they are this old,
    /// milliseconds (`offsets.retention.minutes`).
    pub offsets_retention_ms: i64,
    /// Expired offsets are looked for this often, milliseconds.
    pub expiry_interval_ms: u64,
    /// A classic group that begins waits this long for members that start together, milliseconds
    /// (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay_ms: u64,
    /// Which way a group with members may pass between the two protocols
    /// (`group.consumer.migration.policy`).
    pub migration: GroupMigration,
    /// Most appends of one group under way; further commits are told to come back.
    pub max_pending_appends: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            session_timeout_min_ms: limits::SESSION_TIMEOUT_MIN_MS,
            session_timeout_max_ms: limits::SESSION_TIMEOUT_MAX_MS,
            heartbeat_interval_ms: 5_000,
            rebalance_timeout_ms: 60_000,
            group_max_size: limits::GROUP_MAX_MEMBERS,
            groups_max: limits::GROUPS_DEFAULT_MAX,
            offsets_retention_ms: 7 * 24 * 3_600 * 1_000,
            expiry_interval_ms: 600_000,
            initial_rebalance_delay_ms: 500,
            migration: GroupMigration::default(),
            max_pending_appends: 1_000,
        }
    }
}
