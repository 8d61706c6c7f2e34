//! Partitions that lack something: a leader, or replicas that are in sync. For `topic describe --under-replicated` and
//! `--unavailable`, and for `cluster health -o wide`.

use varve_client::{Admin, ClientError, RpcError, proto as v1};

use crate::connection::suggest_topic;
use crate::failure::Failure;
use crate::output::{Output, numbers, print_table, print_value, to_json};

/// What partitions are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Those with fewer in-sync replicas than replicas.
    pub under_replicated: bool,
    /// Those without a leader.
    pub unavailable: bool,
}

impl Wanted {
    /// Both kinds.
    pub const ANY: Self = Self {
        under_replicated: true,
        unavailable: true,
    };

    fn holds(self, partition: &v1::PartitionMetadata) -> bool {
        let under = partition.in_sync_node_ids.len() < partition.replica_node_ids.len();
        self.under_replicated && under || self.unavailable && partition.leader_node_id.is_none()
    }
}

/// Topics with those of their partitions that lack something; internal topics too. `topics` empty: all.
///
/// # Errors
/// [`Failure`] when the cluster does not answer, or a topic does not exist.
pub async fn short(
    admin: &Admin,
    topics: &[String],
    wanted: Wanted,
) -> Result<Vec<v1::TopicMetadata>, Failure> {
    let request = v1::GetMetadataRequest {
        topics: topics.to_vec(),
        all_topics: topics.is_empty(),
    };
    let mut found = admin.get_metadata(request).await?.topics;
    if let Some((topic, error)) = found
        .iter()
        .find_map(|topic| Some((&topic.topic, topic.error.clone()?)))
    {
        let error = ClientError::from(RpcError::from_partition(error));
        return Err(suggest_topic(admin, topic, error).await);
    }
    for topic in &mut found {
        topic.partitions.retain(|partition| wanted.holds(partition));
    }
    found.retain(|topic| !topic.partitions.is_empty());
    Ok(found)
}

/// Prints them, each partition with its topic.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(output: Output, topics: Vec<v1::TopicMetadata>) -> Result<(), Failure> {
    if !output.is_text() {
        let metadata = v1::GetMetadataResponse {
            topics,
            ..Default::default()
        };
        let mut value = to_json("GetMetadataResponse", &metadata)?;
        return print_value(
            output,
            &serde_json::json!({ "topics": value["topics"].take() }),
        );
    }
    let rows = topics.into_iter().flat_map(|topic| {
        let row = move |partition: v1::PartitionMetadata| {
            let leader = partition.leader_node_id;
            let missing = partition.replica_node_ids.iter().copied();
            let missing: Vec<i32> = missing
                .filter(|id| !partition.in_sync_node_ids.contains(id))
                .collect();
            vec![
                topic.topic.clone(),
                partition.partition.to_string(),
                leader.map_or_else(|| "-".to_owned(), |id| id.to_string()),
                numbers(&partition.replica_node_ids),
                numbers(&partition.in_sync_node_ids),
                numbers(&missing),
            ]
        };
        topic.partitions.clone().into_iter().map(row)
    });
    let headings = [
        "TOPIC",
        "PARTITION",
        "LEADER",
        "REPLICAS",
        "IN-SYNC",
        "NOT IN SYNC",
    ];
    print_table(&headings, rows.collect())
}
