//! The table of `docs/kafka.md`: what is served, in which versions, and what is to be known of it. A test compares the
//! two, so that the document says what the code does.

use std::fmt::Write as _;

use crate::versions::served;
use crate::wire::ApiKey;

/// What is to be known of an API beside its versions; empty: it is as its name says.
const fn remark(key: ApiKey) -> &'static str {
    match key {
        ApiKey::Produce => "records of magic 2; 0–2 also take magic 0 and 1",
        ApiKey::Fetch => {
            "with sessions, the list of aborted transactions, and truncation detection"
        }
        ApiKey::ListOffsets => "earliest, latest, by time, largest time",
        ApiKey::ApiVersions => {
            "a client that expects another node or cluster gets `REBOOTSTRAP_REQUIRED` (KIP-1242)"
        }
        ApiKey::DescribeLogDirs => "the one directory of the node that answers, and its replicas",
        ApiKey::ElectLeaders => "of preferred leaders",
        ApiKey::AlterPartitionReassignments => "null replicas cancel a move",
        ApiKey::DescribeProducers => "answered by a partition's leader",
        ApiKey::DescribeConfigs => {
            "of topics, nodes, groups and client metrics; those of a node are read-only, under Kafka's names"
        }
        ApiKey::DescribeAcls => "`SECURITY_DISABLED`: there are no access rules",
        ApiKey::DescribeClientQuotas => "there are none",
        ApiKey::DescribeUserScramCredentials => "there are none",
        ApiKey::DescribeQuorum => {
            "as the node that answers knows it: only the controller knows how far the others are"
        }
        ApiKey::UpdateFeatures => "says what is possible, and changes nothing",
        ApiKey::ListConfigResources => "topics and nodes",
        ApiKey::AlterConfigs | ApiKey::IncrementalAlterConfigs => {
            "those of topics, and a node's throttles; its other settings are in its file"
        }
        ApiKey::GetTelemetrySubscriptions => "asks clients for no metrics (KIP-714)",
        ApiKey::PushTelemetry => "metrics that clients send anyway are dropped",
        ApiKey::AddPartitionsToTxn => "later versions are for communication between brokers",
        ApiKey::ListTransactions => "filtered by state, producer, age and pattern",
        ApiKey::JoinGroup | ApiKey::SyncGroup | ApiKey::Heartbeat | ApiKey::LeaveGroup => {
            "the classic protocol of groups; a group may have members of both (`group.consumer.migration.policy`)"
        }
        ApiKey::ConsumerGroupHeartbeat | ApiKey::ConsumerGroupDescribe => {
            "`group.protocol=consumer` (KIP-848)"
        }
        _ => "",
    }
}

/// The table, one row for each API that is served, in the order of their keys.
#[must_use]
pub fn table() -> String {
    let mut text = String::from("| API | versions | |\n| --- | --- | --- |\n");
    for key in ApiKey::ALL {
        let (first, last) = served(*key);
        let versions = match first == last {
            true => first.to_string(),
            false => format!("{first}–{last}"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {} | {versions} | {} |", key.name(), remark(*key));
    }
    text
}
