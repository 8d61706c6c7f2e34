//! Why a config that Kafka knows is refused, in the words of the error and of the table.

pub(super) const NO_COUNTERPART: &str = "nothing here works like what it sets";
pub(super) const NO_PLUGINS: &str = "this server loads no classes";
pub(super) const NO_QUOTAS: &str = "there are no client quotas";
pub(super) const NO_SASL: &str =
    "there is no SASL, no ACL and no delegation token; use TLS with client certificates";
pub(super) const NO_SHARE_GROUPS: &str = "share groups are not served";
pub(super) const NO_STREAMS_GROUPS: &str = "streams groups are not served";
pub(super) const NO_TELEMETRY: &str =
    "clients are asked for no metrics, so the subscription would collect none";
pub(super) const NO_TIERS: &str = "there is no tiered storage";
pub(super) const NODE_TIMES: &str = "all groups have the times that their node's configuration file sets \
    (group.session.timeout.ms, group.heartbeat.interval.ms)";
pub(super) const PEM_FILES: &str =
    "TLS reads PEM files that the keys under listeners.kafka.tls name";
