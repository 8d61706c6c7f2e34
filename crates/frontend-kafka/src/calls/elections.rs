//! Preferred leaders lead again. Each partition is answered for: one whose preferred leader leads already needs no
//! election, which clients take for success. An election of replicas that may lack records is not to be had by this
//! protocol.

use std::collections::BTreeSet;

use varve_broker_api::{Broker, Elections, Error, Operations};
use varve_types::TopicName;

use super::Call;
use super::topics::creation_code;
use crate::shared::Shared;
use crate::translate::{sentence, topic_name};
use crate::wire::generated::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
    TopicPartitions,
};
use crate::wire::{ErrorCode, Text};

pub(super) async fn elect_leaders<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let mut response = ElectLeadersResponse::default();
    if request.election_type != 0 {
        response.error_code = ErrorCode::InvalidRequest.code();
        return response;
    }
    let all = request.topic_partitions.is_none();
    let wanted = request
        .topic_partitions
        .unwrap_or_else(|| off_preferred(shared, call));
    let judged: Vec<Judged> = wanted
        .into_iter()
        .map(|topic| judge(shared, call, topic))
        .collect();
    let names: BTreeSet<TopicName> = judged.iter().filter_map(Judged::to_elect).collect();
    let done = match names.is_empty() {
        true => Ok(Elections::default()),
        false => {
            let names = names.into_iter().collect();
            let elected = shared.broker.elect_preferred_leaders(&call.ctx, names);
            elected.await
        }
    };
    if let Err(error) = &done {
        shared.count(error);
        if all {
            response.error_code = creation_code(error).code();
        }
    }
    response.replica_election_results = judged
        .into_iter()
        .map(|topic| topic.answer(shared, call, &done))
        .collect();
    response
}

/// Every partition that another than its preferred leader leads.
fn off_preferred<B: Broker>(shared: &Shared<B>, call: &Call) -> Vec<TopicPartitions> {
    let topics = shared.topics().unwrap_or_default();
    let of = |info: &varve_broker_api::TopicInfo| {
        let found = shared.broker.partitions(&call.ctx, &info.name);
        let found = found.unwrap_or_default().into_iter();
        let off = found.filter(|p| p.leader != p.replicas.first().copied());
        TopicPartitions {
            topic: Text::from(info.name.as_str()),
            partitions: off.map(|p| p.partition.0).collect(),
        }
    };
    let all = topics.all.iter().map(of);
    all.filter(|t| !t.partitions.is_empty()).collect()
}

/// Partitions of a topic; `Ok`: there is somebody to elect.
struct Judged {
    text: Text,
    name: Option<TopicName>,
    partitions: Vec<(i32, Result<(), ErrorCode>)>,
}

fn judge<B: Broker>(shared: &Shared<B>, call: &Call, topic: TopicPartitions) -> Judged {
    let name = topic_name(&topic.topic).ok();
    let found = name
        .as_ref()
        .and_then(|name| shared.broker.partitions(&call.ctx, name).ok());
    let found = found.unwrap_or_default();
    let of = |number: i32| match found.iter().find(|p| p.partition.0 == number) {
        None => Err(ErrorCode::UnknownTopicOrPartition),
        Some(p) if p.leader.is_some() && p.leader == p.replicas.first().copied() => {
            Err(ErrorCode::ElectionNotNeeded)
        }
        Some(_) => Ok(()),
    };
    let partitions = topic.partitions.into_iter().map(|n| (n, of(n))).collect();
    Judged {
        text: topic.topic,
        name,
        partitions,
    }
}

impl Judged {
    fn to_elect(&self) -> Option<TopicName> {
        let needed = self.partitions.iter().any(|(_, judged)| judged.is_ok());
        self.name.clone().filter(|_| needed)
    }

    fn answer<B: Broker>(
        self,
        shared: &Shared<B>,
        call: &Call,
        done: &Result<Elections, Error>,
    ) -> ReplicaElectionResult {
        let passed_over = matches!(done, Ok(elections) if elections.skipped > 0);
        let now = self.name.as_ref().filter(|_| passed_over);
        let now = now.and_then(|name| shared.broker.partitions(&call.ctx, name).ok());
        let now = now.unwrap_or_default();
        let leads = |number: i32| {
            let mut off = now.iter().filter(|p| p.partition.0 == number);
            !off.any(|p| p.leader != p.replicas.first().copied())
        };
        let of = |(partition_id, judged): (i32, Result<(), ErrorCode>)| {
            let (error, text) = match (judged, done) {
                (Err(error), _) => (error, None),
                (Ok(()), Err(error)) => (creation_code(error), sentence(error)),
                (Ok(()), Ok(_)) if leads(partition_id) => (ErrorCode::None, None),
                (Ok(()), Ok(_)) => (ErrorCode::PreferredLeaderNotAvailable, None),
            };
            PartitionResult {
                partition_id,
                error_code: error.code(),
                error_message: text,
            }
        };
        ReplicaElectionResult {
            topic: self.text,
            partition_result: self.partitions.into_iter().map(of).collect(),
        }
    }
}
