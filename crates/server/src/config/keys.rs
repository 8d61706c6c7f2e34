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
    "auto.create.topics.enable", "false", "true or false", "Whether a Kafka client that asks about an unknown topic creates it by that. With gRPC topics are always created by a call of their own.";
    "auto.leader.rebalance.enable", "true", "true or false", "Whether preferred leaders that are in sync again lead again by themselves; otherwise when somebody asks for that. The same on all nodes: it counts on the one that is the controller.";
    "broker.flush_threads", "4", "1 to 64", "Threads that flush files.";
    "broker.in_flight_bytes", "64MiB", "a size from 16MiB", "Bytes of appends that are admitted and not yet in this node's log as their topic's durability asks; more waits. Of one partition, as many may wait for other replicas.";
    "broker.lanes", "1", "1 to 64", "Threads that own partitions and write.";
    "cluster.bootstrap_expect", "", "1 to 9", "Nodes that found a cluster together, each with the same cluster.seeds; default: the number of seeds.";
    "cluster.id", "", "a UUID", "Cluster this node belongs to; made when the data directory is, checked afterwards.";
    "cluster.seeds", "", "HOST:PORT of peer listeners, separated by commas", "Nodes to ask for the cluster; to found one, the same list on each, each node in it. Without seeds the node is alone.";
    "connections.max.idle.ms", "600000", "1000 to 86400000", "Silence after which a connection of a Kafka client is closed.";
    "create.topics.lower.replication", "false", "true or false", "Whether a Kafka client that wants more replicas than there are nodes gets a topic with as many as there are, with a warning in the log; for development.";
    "default.replication.factor", "", "1 to 7; 1 without cluster.seeds", "Replicas of topics that name no number; default: 3, or as many as there are nodes.";
    "fetch.max.bytes", "50MiB", "a size from 1KiB to 50MiB", "Largest answer of a fetch.";
    "group.consumer.migration.policy", "bidirectional", "bidirectional, upgrade, downgrade or disabled", "Which way a group with members may pass between the classic and the consumer protocol: upgrade lets members of the consumer protocol into a classic group, downgrade makes a group classic again when the last of them is gone; disabled keeps each protocol's members out of the other's groups. Groups without members pass freely.";
    "group.heartbeat.interval.ms", "5000", "100 to 60000", "Interval of group heartbeats.";
    "group.initial.rebalance.delay.ms", "500", "0 to 60000", "A group of the classic protocol that begins waits this long for members that start together; 0 gives the first one everything at once.";
    "group.max.size", "1000", "1 to 1000", "Most members of a group.";
    "group.session.timeout.ms", "45000", "500 to 1800000", "Silence after which a group member is expelled.";
    "http.address", "0.0.0.0:8277", "HOST:PORT", "Listener of metrics and health.";
    "journal.max.bytes", "512MiB", "a size; 0 turns it off", "Size of the journal, which makes small appends to many partitions durable with one flush; at most a sixteenth of the disk.";
    "listeners.client.address", "0.0.0.0:8278", "HOST:PORT", "Listener of the gRPC API.";
    "listeners.client.advertised_address", "", "HOST:PORT", "Address clients are told to use; default: the host's name and the listener's port.";
    "listeners.client.tls.ca", "", "a file, PEM", "CAs that clients' certificates are signed by, with mode mutual.";
    "listeners.client.tls.cert", "", "a file, PEM", "Certificate of the gRPC API with its chain; read again when it changes.";
    "listeners.client.tls.key", "", "a file, PEM", "Private key of that certificate.";
    "listeners.client.tls.mode", "tls", "tls, mutual or insecure", "tls: encrypted; mutual: clients show a certificate too; insecure: plaintext, whoever can reach the port reads and writes everything.";
    "listeners.kafka.address", "", "HOST:PORT", "Listener of the Kafka protocol, customarily at port 9092; off unless set.";
    "listeners.kafka.advertised_address", "", "HOST:PORT", "Address Kafka clients are told to use; default: the host's name and the listener's port.";
    "listeners.kafka.tls.ca", "", "a file, PEM", "CAs that Kafka clients' certificates are signed by, with mode mutual.";
    "listeners.kafka.tls.cert", "", "a file, PEM", "Certificate of the Kafka listener with its chain; read again when it changes.";
    "listeners.kafka.tls.key", "", "a file, PEM", "Private key of that certificate.";
    "listeners.kafka.tls.mode", "tls", "tls, mutual or insecure", "tls: encrypted; mutual: clients show a certificate too; insecure: plaintext, whoever can reach the port reads and writes everything.";
    "listeners.peer.address", "0.0.0.0:8279", "HOST:PORT", "Listener for other nodes: replication and consensus. Open in a cluster only; never to be exposed.";
    "listeners.peer.advertised_address", "", "HOST:PORT", "Address other nodes are told to use; default: the host's name and the listener's port.";
    "listeners.peer.tls.ca", "", "a file, PEM", "CA that signs the certificates of all nodes, and nothing else.";
    "listeners.peer.tls.cert", "", "a file, PEM", "Certificate of this node with its chain, for the names node-ID.peer.varve and peer.varve; read again when it changes.";
    "listeners.peer.tls.key", "", "a file, PEM", "Private key of that certificate.";
    "listeners.peer.tls.mode", "mutual", "mutual or insecure", "mutual: nodes show each other certificates; insecure: plaintext, whoever can reach the port can pose as a node.";
    "log.cleaner.io.max.bytes.per.second", "0", "a size; 0 sets no limit", "Bytes that compaction reads and writes in a second at most, all logs together.";
    "log.filter", "info,openraft=error", "a tracing filter", "What is logged; RUST_LOG wins.";
    "log.format", "auto", "auto, text or json", "Shape of log lines; auto is text on a terminal and JSON otherwise.";
    "metrics.per_partition", "user", "all, user or none", "Partitions that have metric series of their own: all, those of topics that users created, or none. Series of topics, and of partitions that are offline or damaged, are always there.";
    "node.heartbeat.interval.ms", "2000", "50 to 60000", "How often a node tells the controller that it is alive.";
    "node.id", "", "0 to 2147483647", "Number of this node; required unless node.id_from is set.";
    "node.id_from", "", "hostname", "Takes node.id from the number at the end of the host's name, as StatefulSets give them.";
    "node.rack", "", "text", "Rack or zone of this node.";
    "node.session.timeout.ms", "9000", "500 to 600000", "Silence after which a node is given up for dead and others lead what it led.";
    "num.partitions", "1", "1 to 10000", "Partitions of topics that name no number.";
    "offsets.retention.minutes", "10080", "minutes, >= 1", "Time an empty group keeps its offsets.";
    "offsets.topic.num.partitions", "50", "1 to 1000", "Partitions of __consumer_offsets; fixed once it exists.";
    "replica.lag.time.max.ms", "10000", "500 to 600000", "Time after which a replica that is behind leaves the in-sync replicas.";
    "replica.move.max.bytes.per.second", "0", "a size; 0 sets no limit", "Bytes that replicas being moved to this node copy in a second at most, all together; replicas in sync are not held back.";
    "request.timeout.ms", "30000", "100 to 600000", "Deadline of calls that name none.";
    "scrub.bytes.per.second", "10MiB", "a size; 0 turns it off", "Bytes that the background scrub reads in a second to find damage early.";
    "scrub.interval", "24h", "a time", "Least time from the beginning of one scrub pass to the next.";
    "shutdown.drain_grace", "2s", "a time", "Time between not ready and refusing connections, for load balancers.";
    "shutdown.drain_timeout", "30s", "a time", "Time that leaderships have to move to other nodes before a shutdown goes on without that.";
    "shutdown.stream_grace", "10s", "a time", "Time open streams have to end once they are told to.";
    "shutdown.timeout", "60s", "a time", "Time after which a shutdown is given up; data is safe anyway.";
    "socket.request.max.bytes", "16MiB", "a size from 64KiB to 100MiB", "Largest request of a Kafka client; a longer one ends its connection before memory is taken for it.";
    "storage.data_dir", "/var/lib/varve", "a directory", "Where the data is.";
    "storage.min_free_bytes", "5GiB", "a size", "Free bytes below which writes are refused; the smaller of this and min_free_percent counts.";
    "storage.min_free_percent", "5", "0 to 50", "Free percent of the disk below which writes are refused.";
    "transaction.state.log.num.partitions", "50", "1 to 1000", "Partitions of __transaction_state; fixed once it exists.";
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
    text += "\n`topic.defaults.<config>` sets what holds for topics that set none:\n\n";
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
