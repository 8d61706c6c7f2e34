//! Every configuration key of a node, ordered by name: the one place that documentation, environment names
//! and checks are made from.

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Path with dots, as in the TOML file.
    pub name: &'static str,
    /// Built-in default as text; empty: none.
    pub default: &'static str,
    /// What is accepted.
    pub expected: &'static str,
    /// One sentence.
    pub description: &'static str,
}

/// Prefix of node-wide defaults for topic configs: `topic.defaults.retention.ms`.
pub const TOPIC_DEFAULTS: &str = "topic.defaults.";

macro_rules! keys {
    ($($name:literal, $default:literal, $expected:literal, $description:literal;)*) => {
        /// Every key, ordered by name.
        pub const KEYS: &[Key] = &[$(Key {
            name: $name, default: $default, expected: $expected, description: $description,
        },)*];
    };
}

keys! {
    "auto.create.topics.enable", "false", "true or false", "Create a topic when a Kafka client requests metadata for one that does not exist. gRPC clients always create topics explicitly.";
    "auto.leader.rebalance.enable", "true", "true or false", "Give leadership back to preferred replicas automatically once they are in sync. Set it alike on all nodes: the controller's value applies.";
    "auto.replica.balance.enable", "true", "true or false", "Move replicas automatically from the node that holds the most to the one that holds the fewest, while they are clearly apart. It may also move a partition that was reassigned by hand. Set it alike on all nodes: the controller's value applies.";
    "broker.flush_threads", "4", "1 to 64", "Threads that flush files to disk.";
    "broker.in_flight_bytes", "64MiB", "a size from 16MiB", "Limit on the bytes of appends that this node has admitted but not yet stored with their topic's durability; further appends wait. In addition, each partition may hold this many bytes awaiting replication.";
    "broker.lanes", "1", "1 to 64", "Threads that own partitions and write their logs.";
    "cluster.bootstrap_expect", "", "1 to 9", "Number of nodes that found the cluster, each with the same cluster.seeds; default: the number of seeds.";
    "cluster.id", "", "a UUID", "Id of the cluster that this node belongs to; generated with the data directory and checked at every later start.";
    "cluster.seeds", "", "HOST:PORT of peer listeners, separated by commas", "Nodes that this node asks to join the cluster. To found a cluster, list the same nodes on each of them, itself included. Without seeds, the node runs alone.";
    "connections.max.idle.ms", "600000", "1000 to 86400000", "Idle time after which the node closes a Kafka connection.";
    "create.topics.lower.replication", "false", "true or false", "If a Kafka client asks for more replicas than there are nodes, create the topic with one replica per node and log a warning. For development only.";
    "default.replication.factor", "", "1 to 7; 1 without cluster.seeds", "Replicas of a topic that is created without a number of replicas; default: 3, or the number of nodes if smaller.";
    "fetch.max.bytes", "50MiB", "a size from 1KiB to 50MiB", "Maximum size of a fetch response.";
    "group.consumer.migration.policy", "bidirectional", "bidirectional, upgrade, downgrade or disabled", "Which way a group with members may change its protocol: upgrade lets consumer members join a classic group; downgrade turns a group classic when its last consumer member leaves; bidirectional allows both; disabled allows neither. A group without members may always change.";
    "group.heartbeat.interval.ms", "5000", "100 to 60000", "Interval at which group members send heartbeats.";
    "group.initial.rebalance.delay.ms", "500", "0 to 60000", "How long a new classic group waits for further members before its first rebalance; 0: not at all.";
    "group.max.size", "1000", "1 to 1000", "Maximum number of members in a group.";
    "group.session.timeout.ms", "45000", "500 to 1800000", "Time without a heartbeat after which a group member is removed.";
    "groups.max", "1000000", "1 to 100000000", "Maximum number of groups that this node coordinates. A group with one committed offset takes about 2 KiB, and 100 bytes for each further offset. Beyond the limit, a new group is refused with POLICY_VIOLATION, and the groups that exist go on.";
    "http.address", "0.0.0.0:8277", "HOST:PORT", "Listener for metrics and health checks.";
    "journal.max.bytes", "512MiB", "a size; 0 turns it off", "Size of the journal, which makes small appends to many partitions durable with one flush; at most one sixteenth of the disk.";
    "listeners.client.address", "0.0.0.0:8278", "HOST:PORT", "Listener for the gRPC API.";
    "listeners.client.advertised_address", "", "HOST:PORT", "Address that gRPC clients connect to; default: the host name and the listener's port.";
    "listeners.client.max_connections", "50000", "1 to 1000000", "Maximum number of open gRPC connections. Beyond the limit, a new connection is closed with a message that says so.";
    "listeners.client.max_connections_per_address", "25000", "1 to 1000000", "Maximum number of open gRPC connections from one address; for IPv6, from one /64 network.";
    "listeners.client.tls.ca", "", "a file, PEM", "CAs that sign client certificates, in mode mutual.";
    "listeners.client.tls.cert", "", "a file, PEM", "Certificate chain of the gRPC API; reloaded when the file changes.";
    "listeners.client.tls.key", "", "a file, PEM", "Private key of that certificate.";
    "listeners.client.tls.mode", "tls", "tls, mutual or insecure", "tls: encrypted; mutual: clients must also present a certificate; insecure: plaintext, anyone who can reach the port can read and write everything.";
    "listeners.kafka.address", "", "HOST:PORT", "Listener for the Kafka protocol, usually on port 9092; off unless set.";
    "listeners.kafka.advertised_address", "", "HOST:PORT", "Address that Kafka clients connect to; default: the host name and the listener's port.";
    "listeners.kafka.max_connections", "50000", "1 to 1000000", "Maximum number of open Kafka connections; beyond the limit, a new connection is closed.";
    "listeners.kafka.max_connections_per_address", "25000", "1 to 1000000", "Maximum number of open Kafka connections from one address; for IPv6, from one /64 network.";
    "listeners.kafka.tls.ca", "", "a file, PEM", "CAs that sign Kafka client certificates, in mode mutual.";
    "listeners.kafka.tls.cert", "", "a file, PEM", "Certificate chain of the Kafka listener; reloaded when the file changes.";
    "listeners.kafka.tls.key", "", "a file, PEM", "Private key of that certificate.";
    "listeners.kafka.tls.mode", "tls", "tls, mutual or insecure", "tls: encrypted; mutual: clients must also present a certificate; insecure: plaintext, anyone who can reach the port can read and write everything.";
    "listeners.peer.address", "0.0.0.0:8279", "HOST:PORT", "Listener for other nodes: replication and consensus. Used only in a cluster; never expose it to clients.";
    "listeners.peer.advertised_address", "", "HOST:PORT", "Address that other nodes connect to; default: the host name and the listener's port.";
    "listeners.peer.tls.ca", "", "a file, PEM", "CA that signs the certificates of all nodes, and nothing else.";
    "listeners.peer.tls.cert", "", "a file, PEM", "Certificate chain of this node, for the names node-ID.peer.varve and peer.varve; reloaded when the file changes.";
    "listeners.peer.tls.key", "", "a file, PEM", "Private key of that certificate.";
    "listeners.peer.tls.mode", "mutual", "mutual or insecure", "mutual: nodes authenticate each other with certificates; insecure: plaintext, anyone who can reach the port can pose as a node.";
    "log.cleaner.io.max.bytes.per.second", "0", "a size; 0 sets no limit", "Maximum number of bytes that compaction reads and writes per second, over all logs.";
    "log.filter", "info,openraft=error", "a tracing filter", "Which events are logged; the environment variable RUST_LOG overrides it.";
    "log.format", "auto", "auto, text or json", "Format of log lines; auto: text on a terminal, JSON otherwise.";
    "memory.unread.max_bytes", "96MiB", "a size from 1MiB", "Memory for what was read for gRPC and Kafka clients and has not been taken by them, over all streams and connections. A reader always gets a little; when the memory is used up, reads get smaller, and no reader is refused.";
    "metrics.groups.max", "1000", "0 to 1000000", "Number of groups that have metric series of their own on the node that coordinates them: those with members first, and of each kind the first by name. The other groups are only counted.";
    "metrics.per_partition", "user", "all, user or none", "Partitions that have metric series of their own: all, those of topics that users created, or none. Series of topics, and of partitions that are offline or damaged, are always there.";
    "node.heartbeat.interval.ms", "2000", "50 to 60000", "Interval at which a node sends heartbeats to the controller.";
    "node.id", "", "0 to 2147483647", "Id of this node; required unless node.id_from is set.";
    "node.id_from", "", "hostname", "Take node.id from the number at the end of the host name, as in a StatefulSet.";
    "node.rack", "", "text", "Rack or zone of this node.";
    "node.session.timeout.ms", "9000", "500 to 600000", "Time without a heartbeat after which the controller fences a node and other nodes take over its partitions.";
    "num.partitions", "1", "1 to 10000", "Partitions of a topic that is created without a number of partitions.";
    "offsets.retention.minutes", "10080", "minutes, >= 1", "How long a group without members keeps its committed offsets.";
    "offsets.topic.num.partitions", "50", "1 to 1000", "Number of partitions of __consumer_offsets; cannot change once the topic exists.";
    "producer.sessions.max.bytes", "512MiB", "a size from 1MiB", "Memory for the sessions of idempotent and transactional producers, over all partitions of this node; a session takes about 320 bytes. When it is full, the sessions that were used least recently are forgotten, but none with an open transaction. A producer whose session was forgotten goes on; only a repeat of a batch that was sent before is not recognized any more.";
    "replica.lag.time.max.ms", "10000", "500 to 600000", "Time after which a replica that has fallen behind leaves the in-sync replicas.";
    "replica.move.max.bytes.per.second", "0", "a size; 0 sets no limit", "Maximum number of bytes per second that this node copies for replicas being moved to it; in-sync replicas are not throttled.";
    "request.timeout.ms", "30000", "100 to 600000", "Deadline of calls that set none.";
    "scrub.bytes.per.second", "10MiB", "a size; 0 turns it off", "Bytes per second that the background scrub reads to find damage early.";
    "scrub.interval", "24h", "a time", "Minimum time between the starts of two scrub passes.";
    "shutdown.drain_grace", "2s", "a time", "How long a node that shuts down is not ready before it refuses connections, so that load balancers notice.";
    "shutdown.drain_timeout", "30s", "a time", "How long a shutdown waits for leaderships to move to other nodes.";
    "shutdown.stream_grace", "10s", "a time", "How long open streams have to finish during a shutdown.";
    "shutdown.timeout", "60s", "a time", "Time after which a shutdown is abandoned and the process exits; acknowledged data is safe.";
    "socket.request.max.bytes", "100MiB", "a size from 64KiB to 100MiB", "Maximum size of a Kafka request; a larger one closes its connection before memory is allocated for it.";
    "storage.data_dir", "/var/lib/varve", "a directory", "Directory that holds the data.";
    "storage.min_free_bytes", "5GiB", "a size", "Free bytes below which writes are refused; of this and min_free_percent, the smaller limit applies.";
    "storage.min_free_percent", "5", "0 to 50", "Free share of the disk, in percent, below which writes are refused.";
    "transaction.state.log.num.partitions", "50", "1 to 1000", "Number of partitions of __transaction_state; cannot change once the topic exists.";
    "transactional.ids.max", "1000000", "1 to 100000000", "Maximum number of transactional ids that this node coordinates. Beyond the limit, a new id is refused with POLICY_VIOLATION. An id that was not used for 7 days is forgotten.";
}

/// The key of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.name == name)
}

/// Environment variable of a key.
#[must_use]
pub fn variable(name: &str) -> String {
    format!("VARVE_{}", name.to_uppercase().replace('.', "__"))
}

/// Documentation of every key as Markdown.
#[must_use]
pub fn docs() -> String {
    let mut text =
        String::from("| key | default | accepted | meaning |\n| --- | --- | --- | --- |\n");
    for key in KEYS {
        let default = if key.default.is_empty() {
            "–"
        } else {
            key.default
        };
        text += &format!(
            "| `{}` | `{default}` | {} | {} |\n",
            key.name, key.expected, key.description
        );
    }
    text += "\n`topic.defaults.<config>` sets the default for topics that do not set this config themselves:\n\n";
    text += "| topic config | default | accepted | meaning |\n| --- | --- | --- | --- |\n";
    for key in varve_types::config::KEYS {
        text += &format!(
            "| `{}` | `{}` | {} | {} |\n",
            key.name, key.default, key.expected, key.description
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_and_described() {
        assert!(KEYS.windows(2).all(|w| w[0].name < w[1].name));
        for key in KEYS {
            assert!(
                key.description.ends_with('.') && !key.expected.is_empty(),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn the_page_about_configuration_is_current() {
        let page = include_str!("../../../../docs/configuration.md");
        let docs = docs();
        assert!(
            page.trim_end().ends_with(docs.trim_end()),
            "docs/configuration.md is out of date: append what `varve config docs` prints"
        );
    }

    #[test]
    fn variables() {
        assert_eq!(
            variable("listeners.client.address"),
            "VARVE_LISTENERS__CLIENT__ADDRESS"
        );
        assert_eq!(variable("storage.data_dir"), "VARVE_STORAGE__DATA_DIR");
    }
}
