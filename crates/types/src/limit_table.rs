//! Every limit that a client or an operator may meet, with what happens at it. `docs/limits.md` is made from this
//! table.
//!
//! Invariant: numbers are those of [`crate::limits`], never written a second time.

use crate::limits;
use crate::size::{format_bytes, format_ms};

/// What a limit counts.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// Things.
    Count(u64),
    /// Bytes.
    Bytes(u64),
    /// Milliseconds.
    Ms(u64),
}

/// A limit.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// What is limited.
    pub what: &'static str,
    /// The limit, or its default where a key sets it.
    pub value: Value,
    /// The configuration key or topic config that sets it; empty: none.
    pub key: &'static str,
    /// What happens at it.
    pub at: &'static str,
    /// The metric that tells of it; empty: none.
    pub metric: &'static str,
}

/// Limits of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Heading.
    pub title: &'static str,
    /// What they have in common.
    pub about: &'static str,
    /// The limits.
    pub limits: &'static [Limit],
}

const fn count(n: usize) -> Value {
    Value::Count(n as u64)
}

const fn bytes(n: usize) -> Value {
    Value::Bytes(n as u64)
}

macro_rules! limit {
    ($what:literal, $value:expr, $key:literal, $at:literal, $metric:literal) => {
        Limit {
            what: $what,
            value: $value,
            key: $key,
            at: $at,
            metric: $metric,
        }
    };
}

/// The table.
#[rustfmt::skip]
pub const KINDS: &[Kind] = &[
    Kind {
        title: "What is forgotten",
        about: "Nothing is refused. What was used least recently is forgotten, or reads get smaller.",
        limits: &[
            limit!("producer sessions of a node", Value::Bytes(limits::PRODUCER_SESSIONS_DEFAULT_BYTES), "producer.sessions.max.bytes", "the sessions that were used least recently are forgotten, but none with an open transaction", "varve_producer_sessions_evicted_total"),
            limit!("idle time of a producer session", Value::Ms(limits::PRODUCER_IDLE_EXPIRY_MS as u64), "", "the session is forgotten", "varve_producer_sessions"),
            limit!("read for clients and not taken by them", bytes(limits::UNREAD_DEFAULT_MAX_BYTES), "memory.unread.max_bytes", "reads get smaller, down to a floor for each reader", "varve_limit_used"),
            limit!("incremental fetch sessions of Kafka clients", count(limits::FETCH_SESSIONS_MAX), "", "sessions that were not used for two minutes give way; other clients name all of their partitions with each fetch", "varve_kafka_fetch_sessions"),
            limit!("partitions of all fetch sessions", count(limits::FETCH_SESSION_PARTITIONS_MAX), "", "as above", ""),
            limit!("a group without members and offsets", count(0), "", "it is forgotten at once", ""),
        ],
    },
    Kind {
        title: "What is refused",
        about: "The refusal is final, says what was not done, and names the key where there is one. From 80 % on,\n`varve cluster health` of the node warns of those in `varve_limit_used`.",
        limits: &[
            limit!("open gRPC connections", count(limits::CONNECTIONS_DEFAULT_MAX), "listeners.client.max_connections", "a new connection is closed with a message that says so (GOAWAY)", "varve_limit_used"),
            limit!("open gRPC connections from one address", count(limits::CONNECTIONS_PER_ADDRESS_DEFAULT_MAX), "listeners.client.max_connections_per_address", "as above", "varve_connections_refused_total"),
            limit!("open Kafka connections", count(limits::CONNECTIONS_DEFAULT_MAX), "listeners.kafka.max_connections", "a new connection is closed", "varve_limit_used"),
            limit!("open Kafka connections from one address", count(limits::CONNECTIONS_PER_ADDRESS_DEFAULT_MAX), "listeners.kafka.max_connections_per_address", "as above", "varve_kafka_connections_refused_total"),
            limit!("groups that a node coordinates", count(limits::GROUPS_DEFAULT_MAX), "groups.max", "a new group is refused (POLICY_VIOLATION)", "varve_limit_used"),
            limit!("members of one group", count(limits::GROUP_MAX_MEMBERS), "group.max.size", "a new member is refused (GROUP_FULL)", ""),
            limit!("partitions of one node", count(limits::PARTITIONS_PER_NODE_MAX), "", "a topic that would exceed it is not created (POLICY_VIOLATION)", "varve_limit_used"),
            limit!("partitions of one topic", Value::Count(limits::PARTITIONS_PER_TOPIC_MAX as u64), "", "the topic is not created (INVALID_REQUEST)", ""),
            limit!("replicas of one partition", Value::Count(limits::REPLICATION_FACTOR_MAX as u64), "", "the topic is not created (INVALID_REQUEST)", ""),
            limit!("transactional ids that a node coordinates", count(limits::TRANSACTIONAL_IDS_DEFAULT_MAX), "transactional.ids.max", "a new id is refused (POLICY_VIOLATION); unused ids are forgotten", "varve_limit_used"),
            limit!("partitions of one transaction", count(limits::TRANSACTION_MAX_PARTITIONS), "", "a further one is refused (INVALID_REQUEST)", ""),
            limit!("open and aborted transactions that one partition tracks", count(limits::TRANSACTIONS_PER_PARTITION_MAX), "", "a further transaction is refused there (POLICY_VIOLATION); those of deleted records are forgotten", ""),
            limit!("timeout of a transaction", Value::Ms(limits::TRANSACTION_TIMEOUT_MAX_MS), "", "a longer one is refused (INVALID_REQUEST)", ""),
        ],
    },
    Kind {
        title: "What waits",
        about: "These pass on their own: clients wait, or try again and succeed.",
        limits: &[
            limit!("requests in flight on one produce stream", count(limits::STREAM_MAX_IN_FLIGHT_REQUESTS), "", "the stream ends with FLOW_CONTROL; the first event of a stream tells the limit", ""),
            limit!("bytes in flight on one produce stream", bytes(limits::STREAM_MAX_IN_FLIGHT_BYTES), "", "as above", ""),
            limit!("open transactions of one partition of __transaction_state", count(limits::TRANSACTIONS_OPEN_MAX), "", "a new one is refused for now (THROTTLED)", ""),
            limit!("commits that wait on one Consume stream", count(limits::STREAM_MAX_COMMITS), "", "the stream ends with FLOW_CONTROL", ""),
            limit!("requests of one Kafka connection at a time", count(limits::KAFKA_PIPELINE), "", "no further request is read until one is answered", ""),
            limit!("time of a long poll", Value::Ms(limits::WAIT_MAX_MS), "", "the answer comes without more", ""),
            limit!("streams of one HTTP/2 connection", Value::Count(limits::HTTP2_MAX_STREAMS as u64), "", "clients wait for a stream to end", ""),
        ],
    },
    Kind {
        title: "What one message may have",
        about: "A larger one is refused as a whole (INVALID_REQUEST, RECORD_TOO_LARGE or BATCH_TOO_LARGE), and nothing of it is\ndone.",
        limits: &[
            limit!("a batch", bytes(limits::MESSAGE_DEFAULT_MAX_BYTES), "max.message.bytes", "refused; at most 100 MiB may be set", ""),
            limit!("a request of a Kafka client", bytes(limits::BATCH_MAX_BYTES), "socket.request.max.bytes", "the connection is closed before memory is taken for it", ""),
            limit!("what a batch decompresses to", bytes(limits::DECOMPRESSED_MAX_BYTES), "", "refused", ""),
            limit!("a gRPC request that produces", bytes(limits::REQUEST_MAX_BYTES), "", "refused", ""),
            limit!("a gRPC request about groups", bytes(limits::GROUP_REQUEST_MAX_BYTES), "", "refused", ""),
            limit!("any other gRPC request", bytes(limits::CONTROL_REQUEST_MAX_BYTES), "", "refused", ""),
            limit!("records in simple form in one request", count(limits::REQUEST_MAX_RECORDS), "", "refused", ""),
            limit!("partitions, queries or offsets in one gRPC request", count(limits::REQUEST_MAX_PARTITIONS), "", "refused; our client splits its calls", ""),
            limit!("any other request of a Kafka client", bytes(limits::KAFKA_CONTROL_MAX_BYTES), "", "the connection is closed", ""),
            limit!("topics, groups or partitions in one request of a Kafka client", count(limits::KAFKA_REQUEST_MAX_NAMES), "", "refused", ""),
            limit!("committed offsets in one request of a Kafka client", count(limits::KAFKA_REQUEST_MAX_OFFSETS), "", "refused", ""),
            limit!("metrics in one push of a Kafka client", bytes(limits::TELEMETRY_PUSH_MAX_BYTES), "", "refused", ""),
            limit!("labels of a topic", count(limits::TOPIC_LABELS_MAX), "", "refused", ""),
            limit!("name or value of a label", bytes(limits::LABEL_MAX_BYTES), "", "refused", ""),
            limit!("configs in one request", count(limits::REQUEST_MAX_CONFIGS), "", "refused", ""),
            limit!("subscriptions of one FetchStream", count(limits::STREAM_MAX_SUBSCRIPTIONS), "", "refused", ""),
            limit!("message of a FetchStream", bytes(limits::STREAM_MESSAGE_MAX_BYTES), "", "messages are smaller", ""),
            limit!("records in the answer to one Fetch call", Value::Count(limits::FETCH_MAX_RECORDS), "", "the answer has no more", ""),
            limit!("transactional ids in one page", count(limits::TRANSACTIONS_PAGE_MAX), "", "the rest is in the next page", ""),
            limit!("assignors that a classic member names", count(limits::GROUP_PROTOCOLS_MAX), "", "the join is refused", ""),
            limit!("answer to one fetch", bytes(limits::FETCH_MAX_BYTES), "fetch.max.bytes", "the answer is smaller, but has one batch at least", ""),
            limit!("what a member of the classic protocol says", bytes(limits::GROUP_PROTOCOLS_MAX_BYTES), "", "the join is refused", ""),
            limit!("what all members of a classic group say", bytes(limits::GROUP_MEMBERS_MAX_BYTES), "", "the join is refused", ""),
            limit!("name of a topic, group, member or producer", bytes(limits::NAME_MAX_BYTES), "", "refused", ""),
            limit!("topics of a subscription", count(limits::PARTITIONS_PER_NODE_MAX), "", "the join is refused", ""),
            limit!("topic pattern of a subscription", bytes(limits::TOPIC_PATTERN_MAX_BYTES), "", "refused", ""),
            limit!("metadata of a committed offset", bytes(limits::COMMIT_METADATA_MAX_BYTES), "", "refused", ""),
        ],
    },
];

/// The page about limits, in Markdown.
#[must_use]
pub fn docs() -> String {
    let mut page = String::from(
        "# Limits\n\nMade from `crates/types/src/limit_table.rs`. What is only remembered is bounded by memory and forgotten; what is\n\
         durable is refused by a generous limit. `varve_limit_used` and `varve_limit_max` tell how far a limit is used.\n",
    );
    for kind in KINDS {
        page += &format!("\n## {}\n\n{}\n\n", kind.title, kind.about);
        page +=
            "| limit | default | key | at the limit | metric |\n| --- | --- | --- | --- | --- |\n";
        for limit in kind.limits {
            let code = |text: &str| match text {
                "" => "–".to_owned(),
                text => format!("`{text}`"),
            };
            let (key, metric) = (code(limit.key), code(limit.metric));
            page += &format!(
                "| {} | {} | {key} | {} | {metric} |\n",
                limit.what,
                shown(limit.value),
                limit.at
            );
        }
    }
    page
}

fn shown(value: Value) -> String {
    match value {
        Value::Bytes(n) if n < 1024 => format!("{n} bytes"),
        Value::Bytes(n) => format_bytes(n),
        Value::Ms(n) => format_ms(n),
        Value::Count(n) => grouped(n),
    }
}

/// 1234567 as 1,234,567.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_about_limits_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/limits.md");
        if std::env::var_os("VARVE_BLESS").is_some() {
            std::fs::write(path, docs()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap();
        assert_eq!(page, docs(), "run this test with VARVE_BLESS=1");
    }
}
