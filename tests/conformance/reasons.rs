//! Every reason of `proto/varve/v1/errors.proto` is produced by a test of this suite, or cannot be by one
//! node, and then it is said why.

use crate::support::v1;

/// Reason, file and test that checks its code and details on the wire.
const PRODUCED: [(&str, &str, &str); 37] = [
    ("INVALID_REQUEST", "bad_input.rs", "bad_names"),
    ("INVALID_CONFIG", "bad_input.rs", "unknown_config_key"),
    ("RECORD_TOO_LARGE", "bad_produce.rs", "oversized_record"),
    ("BATCH_TOO_LARGE", "bad_produce.rs", "too_many_records"),
    ("CORRUPT_BATCH", "bad_batches.rs", "bad_crc"),
    (
        "INVALID_RECORD",
        "bad_produce.rs",
        "records_that_break_a_rule",
    ),
    (
        "UNSUPPORTED_FEATURE",
        "bad_produce.rs",
        "features_that_the_node_lacks",
    ),
    ("TOPIC_NOT_FOUND", "bad_produce.rs", "unknown_topic"),
    (
        "PARTITION_NOT_FOUND",
        "bad_produce.rs",
        "partition_out_of_range",
    ),
    (
        "GROUP_NOT_FOUND",
        "bad_groups.rs",
        "groups_that_are_not_there",
    ),
    (
        "TOPIC_ALREADY_EXISTS",
        "bad_input.rs",
        "topics_that_cannot_be_made",
    ),
    ("OFFSET_OUT_OF_RANGE", "bad_reads.rs", "offset_out_of_range"),
    (
        "LEADER_NOT_AVAILABLE",
        "data_dir.rs",
        "a_missing_partition_is_offline_and_others_serve",
    ),
    ("FENCED_LEADER_EPOCH", "bad_reads.rs", "leader_epochs"),
    ("UNKNOWN_LEADER_EPOCH", "bad_reads.rs", "leader_epochs"),
    ("COMMIT_TIMEOUT", "bad_reads.rs", "deadline_zero"),
    ("SHUTTING_DOWN", "shutdown.rs", "shutdown_with_200_streams"),
    (
        "EXPECTED_OFFSET_MISMATCH",
        "bad_produce.rs",
        "compare_and_append",
    ),
    (
        "OUT_OF_ORDER_SEQUENCE",
        "bad_produce.rs",
        "producer_sessions",
    ),
    ("PRODUCER_FENCED", "bad_produce.rs", "producer_sessions"),
    (
        "UNKNOWN_PRODUCER",
        "bad_transactions.rs",
        "ids_that_are_not_there",
    ),
    (
        "UNKNOWN_MEMBER",
        "bad_groups.rs",
        "heartbeats_that_make_no_sense",
    ),
    (
        "FENCED_MEMBER_EPOCH",
        "bad_groups.rs",
        "members_out_of_step",
    ),
    ("STALE_MEMBER_EPOCH", "bad_groups.rs", "members_out_of_step"),
    (
        "INSTANCE_ID_IN_USE",
        "bad_groups.rs",
        "an_instance_has_one_live_member",
    ),
    ("GROUP_NOT_EMPTY", "bad_groups.rs", "members_out_of_step"),
    ("GROUP_FULL", "bad_groups.rs", "a_full_group_takes_no_more"),
    (
        "THROTTLED",
        "bad_transactions.rs",
        "a_coordinator_with_all_its_transactions_begins_no_more",
    ),
    ("STORAGE_FULL", "data_dir.rs", "disk_full"),
    (
        "STORAGE_ERROR",
        "data_dir.rs",
        "metadata_that_cannot_be_stored",
    ),
    (
        "CORRUPT_LOG",
        "data_dir.rs",
        "damaged_records_are_never_served",
    ),
    (
        "POLICY_VIOLATION",
        "bad_input.rs",
        "internal_topics_are_read_only",
    ),
    (
        "FLOW_CONTROL",
        "streams.rs",
        "more_in_flight_than_allowed_ends_the_stream",
    ),
    (
        "TRANSACTION_NOT_FOUND",
        "bad_transactions.rs",
        "ids_that_are_not_there",
    ),
    (
        "INVALID_TRANSACTION_STATE",
        "bad_transactions.rs",
        "ends_that_come_twice_or_late",
    ),
    (
        "TRANSACTION_ABORTED",
        "bad_transactions.rs",
        "an_end_that_comes_after_the_timeout",
    ),
    (
        "CONCURRENT_TRANSACTIONS",
        "bad_transactions.rs",
        "offsets_that_are_not_decided",
    ),
];

/// Reasons that one node cannot produce, and why.
const IMPOSSIBLE: [(&str, &str); 6] = [
    (
        "UNSPECIFIED",
        "stands for what a client does not know; a node never sends it",
    ),
    ("NODE_NOT_FOUND", "no call of this version names a node"),
    ("NOT_LEADER", "a single node leads every partition it has"),
    ("NOT_COORDINATOR", "a single node coordinates every group"),
    (
        "COORDINATOR_LOADING",
        "a single node opens its listener once its coordinator is loaded",
    ),
    (
        "NOT_ENOUGH_REPLICAS",
        "min.insync.replicas above the one replica is refused when it is set",
    ),
];

/// Not sent by any code of this version.
const FUTURE: [(&str, &str); 2] = [
    (
        "OPERATION_IN_PROGRESS",
        "reassignment and drain of partitions need a second node",
    ),
    (
        "GROUP_PROTOCOL_MISMATCH",
        "no front end speaks the classic protocol yet",
    ),
];

const SOURCES: [(&str, &str); 9] = [
    ("bad_batches.rs", include_str!("bad_batches.rs")),
    ("bad_reads.rs", include_str!("bad_reads.rs")),
    ("bad_groups.rs", include_str!("bad_groups.rs")),
    ("bad_input.rs", include_str!("bad_input.rs")),
    ("bad_produce.rs", include_str!("bad_produce.rs")),
    ("bad_transactions.rs", include_str!("bad_transactions.rs")),
    ("data_dir.rs", include_str!("data_dir.rs")),
    ("shutdown.rs", include_str!("shutdown.rs")),
    ("streams.rs", include_str!("streams.rs")),
];

/// The text of a test, from its name to the next one.
fn body<'a>(source: &'a str, test: &str) -> Option<&'a str> {
    let (_, rest) = source.split_once(&format!("#[test]\nfn {test}()"))?;
    Some(rest.split_once("#[test]").map_or(rest, |(body, _)| body))
}

#[test]
fn every_reason_has_a_test() {
    for (reason, file, test) in PRODUCED {
        let source = SOURCES.iter().find(|(name, _)| *name == file).unwrap().1;
        let body = body(source, test).unwrap_or_else(|| panic!("{file} has no test {test}"));
        let literal = format!("\"{reason}\"");
        assert!(
            body.contains(&literal),
            "{test} in {file} does not check {reason}"
        );
    }
    let known = |name: &str| {
        let produced = PRODUCED
            .iter()
            .filter(|(reason, _, _)| *reason == name)
            .count();
        let not = IMPOSSIBLE
            .iter()
            .chain(&FUTURE)
            .filter(|(reason, _)| *reason == name)
            .count();
        produced + not
    };
    let mut reasons = 0;
    for number in 0..1000 {
        if let Ok(reason) = v1::ErrorReason::try_from(number) {
            let name = reason.as_str_name().trim_start_matches("ERROR_REASON_");
            assert_eq!(known(name), 1, "{name} is in the tables once");
            reasons += 1;
        }
    }
    assert_eq!(reasons, PRODUCED.len() + IMPOSSIBLE.len() + FUTURE.len());
}
