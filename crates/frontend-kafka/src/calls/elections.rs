//! Preferred leaders lead again. Each partition is answered for, and no other one is touched: one whose preferred
//! leader leads already needs no election, which clients take for success. An election of replicas that may lack
//! records is not to be had by this protocol; where one is asked for, partitions that are led need none.

use std::collections::{BTreeMap, BTreeSet};

use varve_broker_api::{Broker, Error, Operations, PartitionInfo};
use varve_types::{PartitionId, TopicName, TopicPartition};

use super::Call;
use super::topics::creation_code;
use crate::shared::Shared;
use crate::translate::{sentence, topic_name};
use crate::wire::generated::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
    TopicPartitions,
};
use crate::wire::{ErrorCode, Text};

/// Elections as the protocol numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Preferred,
    Unclean,
}

impl Kind {
    const fn of(number: i8) -> Option<Self> {
        match number {
            0 => Some(Self::Preferred),
            1 => Some(Self::Unclean),
            _ => None,
        }
    }

    /// Whether a partition is led as this kind would have it.
    fn needless(self, partition: &PartitionInfo) -> bool {
        match self {
            Self::Preferred => leads(partition),
            Self::Unclean => partition.leader.is_some(),
        }
    }
}

fn leads(partition: &PartitionInfo) -> bool {
    partition.leader.is_some() && partition.leader == partition.replicas.first().copied()
}

pub(super) async fn elect_leaders<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let mut response = ElectLeadersResponse::default();
    let Some(kind) = Kind::of(request.election_type) else {
        response.error_code = ErrorCode::InvalidRequest.code();
        return response;
    };
    let all = request.topic_partitions.is_none();
    let wanted = request
        .topic_partitions
        .unwrap_or_else(|| in_need(shared, call, kind));
    let judged: Vec<Judged> = wanted
        .into_iter()
        .map(|topic| judge(shared, call, kind, topic))
        .collect();
    let done = elect(shared, call, judged.iter().flat_map(Judged::to_elect)).await;
    if let Some(error) = done.as_ref().err().filter(|_| all) {
        response.error_code = creation_code(error).code();
    }
    response.replica_election_results = judged
        .into_iter()
        .map(|topic| topic.answer(&done))
        .collect();
    response
}

/// What became of each partition.
type Done = Result<BTreeMap<TopicPartition, Result<bool, Error>>, Error>;

/// Elects once for each, however often it was named.
async fn elect<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    partitions: impl Iterator<Item = TopicPartition>,
) -> Done {
    let once: BTreeSet<TopicPartition> = partitions.collect();
    if once.is_empty() {
        return Ok(BTreeMap::new());
    }
    let asked = once.iter().cloned().collect();
    let done = shared
        .broker
        .elect_preferred_leaders_of(&call.ctx, asked)
        .await
        .inspect_err(|error| shared.count(error))?;
    for error in done.iter().filter_map(|result| result.as_ref().err()) {
        shared.count(error);
    }
    Ok(once.into_iter().zip(done).collect())
}

/// Every partition that an election of that kind could be for.
fn in_need<B: Broker>(shared: &Shared<B>, call: &Call, kind: Kind) -> Vec<TopicPartitions> {
    let topics = shared.topics().unwrap_or_default();
    let of = |info: &varve_broker_api::TopicInfo| {
        let found = shared.broker.partitions(&call.ctx, &info.name);
        let found = found.unwrap_or_default().into_iter();
        let off = found.filter(|p| !kind.needless(p));
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

fn judge<B: Broker>(shared: &Shared<B>, call: &Call, kind: Kind, topic: TopicPartitions) -> Judged {
    let name = topic_name(&topic.topic).ok();
    let found = name
        .as_ref()
        .and_then(|name| shared.broker.partitions(&call.ctx, name).ok());
    let found = found.unwrap_or_default();
    let of = |number: i32| match found.iter().find(|p| p.partition.0 == number) {
        None => Err(ErrorCode::UnknownTopicOrPartition),
        Some(p) if kind.needless(p) => Err(ErrorCode::ElectionNotNeeded),
        Some(_) if kind == Kind::Unclean => Err(ErrorCode::EligibleLeadersNotAvailable),
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
    fn place(&self, number: i32) -> Option<TopicPartition> {
        let name = self.name.clone()?;
        Some(TopicPartition::new(name, PartitionId(number)))
    }

    fn to_elect(&self) -> impl Iterator<Item = TopicPartition> {
        let needed = self.partitions.iter().filter(|(_, judged)| judged.is_ok());
        needed.filter_map(|(number, _)| self.place(*number))
    }

    fn answer(&self, done: &Done) -> ReplicaElectionResult {
        let result = |number: i32| match done {
            Err(error) => Some(Err(error)),
            Ok(done) => {
                let found = done.get(&self.place(number)?)?;
                Some(found.as_ref().copied())
            }
        };
        let of = |(partition_id, judged): &(i32, Result<(), ErrorCode>)| {
            let (error, text) = match judged.map(|()| result(*partition_id)) {
                Err(error) => (error, None),
                Ok(Some(Ok(true))) => (ErrorCode::None, None),
                Ok(Some(Err(error))) => (creation_code(error), sentence(error)),
                Ok(Some(Ok(false)) | None) => (ErrorCode::PreferredLeaderNotAvailable, None),
            };
            PartitionResult {
                partition_id: *partition_id,
                error_code: error.code(),
                error_message: text,
            }
        };
        ReplicaElectionResult {
            topic: self.text.clone(),
            partition_result: self.partitions.iter().map(of).collect(),
        }
    }
}
