//! How a request is refused as a whole: the response of its API with one error.

use crate::wire::generated::add_offsets_to_txn::AddOffsetsToTxnResponse;
use crate::wire::generated::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopicResult,
};
use crate::wire::generated::alter_partition_reassignments::AlterPartitionReassignmentsResponse;
use crate::wire::generated::describe_log_dirs::DescribeLogDirsResponse;
use crate::wire::generated::end_txn::EndTxnResponse;
use crate::wire::generated::fetch::{
    FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use crate::wire::generated::heartbeat::HeartbeatResponse;
use crate::wire::generated::join_group::JoinGroupResponse;
use crate::wire::generated::leave_group::LeaveGroupResponse;
use crate::wire::generated::list_partition_reassignments::ListPartitionReassignmentsResponse;
use crate::wire::generated::list_transactions::ListTransactionsResponse;
use crate::wire::generated::sync_group::SyncGroupResponse;
use crate::wire::{ErrorCode, Request, Response};

/// The response with that error; `None`: the API has none for a request as a whole.
#[must_use]
pub fn refuse(request: &Request, error: ErrorCode) -> Option<Response> {
    let error_code = error.code();
    Some(match request {
        Request::JoinGroup(_) => Response::JoinGroup(JoinGroupResponse {
            error_code,
            ..Default::default()
        }),
        Request::SyncGroup(_) => Response::SyncGroup(SyncGroupResponse {
            error_code,
            ..Default::default()
        }),
        Request::Heartbeat(_) => Response::Heartbeat(HeartbeatResponse {
            error_code,
            ..Default::default()
        }),
        Request::LeaveGroup(_) => Response::LeaveGroup(LeaveGroupResponse {
            error_code,
            ..Default::default()
        }),
        Request::DescribeLogDirs(_) => Response::DescribeLogDirs(DescribeLogDirsResponse {
            error_code,
            ..Default::default()
        }),
        Request::AlterPartitionReassignments(_) => {
            Response::AlterPartitionReassignments(AlterPartitionReassignmentsResponse {
                error_code,
                ..Default::default()
            })
        }
        Request::ListPartitionReassignments(_) => {
            Response::ListPartitionReassignments(ListPartitionReassignmentsResponse {
                error_code,
                ..Default::default()
            })
        }
        Request::ListTransactions(_) => Response::ListTransactions(ListTransactionsResponse {
            error_code,
            ..Default::default()
        }),
        Request::Fetch(request) => Response::Fetch(reads(request, error_code)),
        Request::AddPartitionsToTxn(request) => {
            Response::AddPartitionsToTxn(partitions(request, error_code))
        }
        Request::AddOffsetsToTxn(_) => Response::AddOffsetsToTxn(AddOffsetsToTxnResponse {
            error_code,
            ..Default::default()
        }),
        Request::EndTxn(_) => Response::EndTxn(EndTxnResponse {
            error_code,
            ..Default::default()
        }),
        _ => return None,
    })
}

/// Older versions have no error for the whole.
fn partitions(request: &AddPartitionsToTxnRequest, error_code: i16) -> AddPartitionsToTxnResponse {
    let topics = request.v3_and_below_topics.iter();
    let refused = topics.map(|topic| AddPartitionsToTxnTopicResult {
        name: topic.name.clone(),
        results_by_partition: topic
            .partitions
            .iter()
            .map(|number| AddPartitionsToTxnPartitionResult {
                partition_index: *number,
                partition_error_code: error_code,
            })
            .collect(),
    });
    AddPartitionsToTxnResponse {
        error_code,
        results_by_topic_v3_and_below: refused.collect(),
        ..Default::default()
    }
}

/// Older versions have no error for the whole.
fn reads(request: &FetchRequest, error_code: i16) -> FetchResponse {
    let topics = request.topics.iter();
    let refused = topics.map(|topic| FetchableTopicResponse {
        topic: topic.topic.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|p| PartitionData {
                partition_index: p.partition,
                error_code,
                high_watermark: -1,
                last_stable_offset: -1,
                log_start_offset: -1,
                records: Some(bytes::Bytes::new()),
                ..PartitionData::default()
            })
            .collect(),
    });
    FetchResponse {
        error_code,
        responses: refused.collect(),
        ..FetchResponse::default()
    }
}
