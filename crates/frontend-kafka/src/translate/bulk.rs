//! How much a request asks for. A frame of some megabytes can name a million partitions, each of which costs more to
//! answer than to ask for.

use varve_types::limits;

use crate::wire::Request;

/// Most partitions that one request may name.
pub const PARTITIONS_MAX: usize = limits::PARTITIONS_PER_NODE_MAX;
/// Most partitions with committed offsets, which are of the whole cluster.
pub const OFFSETS_MAX: usize = limits::KAFKA_REQUEST_MAX_OFFSETS;
/// Most topics, groups or other things by name.
pub const NAMES_MAX: usize = limits::KAFKA_REQUEST_MAX_NAMES;

/// Whether a request names no more than it may.
#[must_use]
pub fn is_bounded(request: &Request) -> bool {
    let most = match request {
        Request::OffsetFetch(_) | Request::OffsetCommit(_) | Request::OffsetDelete(_) => {
            OFFSETS_MAX
        }
        _ => PARTITIONS_MAX,
    };
    partitions(request) <= most && names(request) <= NAMES_MAX
}

fn partitions(request: &Request) -> usize {
    match request {
        Request::Produce(r) => r.topic_data.iter().map(|t| t.partition_data.len()).sum(),
        Request::Fetch(r) => {
            let forgotten = r.forgotten_topics_data.iter();
            let forgotten: usize = forgotten.map(|t| t.partitions.len()).sum();
            let wanted: usize = r.topics.iter().map(|t| t.partitions.len()).sum();
            wanted.saturating_add(forgotten)
        }
        Request::ListOffsets(r) => r.topics.iter().map(|t| t.partitions.len()).sum(),
        Request::OffsetForLeaderEpoch(r) => r.topics.iter().map(|t| t.partitions.len()).sum(),
        Request::OffsetCommit(r) => r.topics.iter().map(|t| t.partitions.len()).sum(),
        Request::TxnOffsetCommit(r) => r.topics.iter().map(|t| t.partitions.len()).sum(),
        Request::AddPartitionsToTxn(r) => {
            let topics = r.v3_and_below_topics.iter();
            topics.map(|t| t.partitions.len()).sum()
        }
        Request::OffsetDelete(r) => r.topics.iter().map(|t| t.partitions.len()).sum(),
        Request::DeleteRecords(r) => r.topics.iter().map(|t| t.partitions.len()).sum(),
        Request::OffsetFetch(r) => {
            let one = r.topics.iter().flatten().map(|t| t.partition_indexes.len());
            let groups = r.groups.iter().flat_map(|g| g.topics.iter().flatten());
            let many = groups.map(|t| t.partition_indexes.len());
            one.chain(many).sum()
        }
        Request::ElectLeaders(r) => {
            let topics = r.topic_partitions.iter().flatten();
            topics.map(|t| t.partitions.len()).sum()
        }
        Request::ConsumerGroupHeartbeat(r) => {
            let topics = r.topic_partitions.iter().flatten();
            topics.map(|t| t.partitions.len()).sum()
        }
        Request::CreateTopics(r) => r.topics.iter().map(|t| t.assignments.len()).sum(),
        // A topic without partitions has its place in the answer too.
        Request::DescribeProducers(r) => {
            let topics = r.topics.iter();
            topics.map(|t| t.partition_indexes.len().max(1)).sum()
        }
        Request::AlterPartitionReassignments(r) => {
            let topics = r.topics.iter();
            topics.map(|t| t.partitions.len().max(1)).sum()
        }
        Request::ListPartitionReassignments(r) => {
            let topics = r.topics.iter().flatten();
            topics.map(|t| t.partition_indexes.len().max(1)).sum()
        }
        Request::DescribeLogDirs(r) => {
            let topics = r.topics.iter().flatten();
            topics.map(|t| t.partitions.len().max(1)).sum()
        }
        _ => 0,
    }
}

fn names(request: &Request) -> usize {
    match request {
        Request::Metadata(r) => r.topics.as_ref().map_or(0, Vec::len),
        Request::DescribeTopicPartitions(r) => r.topics.len(),
        Request::FindCoordinator(r) => r.coordinator_keys.len(),
        Request::LeaveGroup(r) => r.members.len(),
        Request::ListTransactions(r) => r.state_filters.len().max(r.producer_id_filters.len()),
        Request::ListGroups(r) => r.states_filter.len().max(r.types_filter.len()),
        Request::DescribeGroups(r) => r.groups.len(),
        Request::ConsumerGroupDescribe(r) => r.group_ids.len(),
        Request::DeleteGroups(r) => r.groups_names.len(),
        Request::OffsetFetch(r) => r.groups.len(),
        Request::DescribeTransactions(r) => r.transactional_ids.len(),
        Request::CreateTopics(r) => r.topics.len(),
        Request::DeleteTopics(r) => r.topics.len().max(r.topic_names.len()),
        Request::CreatePartitions(r) => r.topics.len(),
        Request::DescribeConfigs(r) => r.resources.len(),
        Request::AlterConfigs(r) => r.resources.len(),
        Request::IncrementalAlterConfigs(r) => r.resources.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::generated::alter_partition_reassignments::{
        AlterPartitionReassignmentsRequest, ReassignableTopic,
    };
    use crate::wire::generated::find_coordinator::FindCoordinatorRequest;
    use crate::wire::generated::offset_fetch::{
        OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
    };
    use crate::wire::{Text, Uuid};

    use super::*;

    #[test]
    fn what_names_too_much_is_found() {
        let keys = |count| {
            Request::FindCoordinator(FindCoordinatorRequest {
                coordinator_keys: vec![Text::EMPTY; count],
                ..FindCoordinatorRequest::default()
            })
        };
        assert!(is_bounded(&keys(NAMES_MAX)) && !is_bounded(&keys(NAMES_MAX + 1)));
        let offsets = |count| {
            let topic = OffsetFetchRequestTopics {
                name: Text::EMPTY,
                topic_id: Uuid::ZERO,
                partition_indexes: vec![0; count],
            };
            Request::OffsetFetch(OffsetFetchRequest {
                groups: vec![OffsetFetchRequestGroup {
                    topics: Some(vec![topic]),
                    ..OffsetFetchRequestGroup::default()
                }],
                ..OffsetFetchRequest::default()
            })
        };
        assert!(is_bounded(&offsets(OFFSETS_MAX)) && !is_bounded(&offsets(OFFSETS_MAX + 1)));
        let empty = |count| {
            Request::AlterPartitionReassignments(AlterPartitionReassignmentsRequest {
                topics: vec![ReassignableTopic::default(); count],
                ..AlterPartitionReassignmentsRequest::default()
            })
        };
        assert!(is_bounded(&empty(PARTITIONS_MAX)) && !is_bounded(&empty(PARTITIONS_MAX + 1)));
    }
}
