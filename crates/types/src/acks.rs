//! When an append is reported as done. Never decides what "done" costs: that is the partition core.

/// Durability an append waits for before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Acks {
    /// Do not wait for anything: no offset is reported and an error may never be seen.
    None,
    /// Wait until the leader's own log holds the records (written, not necessarily flushed).
    Leader,
    /// Wait until the records are committed: held, and flushed where the topic's durability is
    /// `fsync`, by every in-sync replica, of which there are at least `min.insync.replicas`.
    #[default]
    All,
}

impl std::str::FromStr for Acks {
    type Err = String;

    /// Accepts `all|leader|none` and Kafka's `-1|1|0`.
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "all" | "-1" => Ok(Self::All),
            "leader" | "1" => Ok(Self::Leader),
            "none" | "0" => Ok(Self::None),
            _ => Err(format!(
                "acks must be all, leader or none (or -1, 1, 0); found {s:?}"
            )),
        }
    }
}

impl std::fmt::Display for Acks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Leader => "leader",
            Self::All => "all",
        })
    }
}
