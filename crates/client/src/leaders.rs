//! Questions about many partitions, each asked of the node that leads its partition, answers put together
//! in the order of the questions.
//!
//! Invariants: a question has one answer, or one error; what a node could not answer because it does not
//! lead the partition, or could not be reached, is asked again where the partition is led by then, until the
//! time is up; no error of one partition hides the answer of another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use varve_proto::v1;
use varve_types::{ErrorKind, limits};

use crate::admin::Admin;
use crate::backoff::{Backoff, Random};
use crate::connect::Client;
use crate::error::{ClientError, RpcError};

/// Hints that are followed at once; after as many of them the nodes disagree, and a pause helps more.
const HOPS: u32 = 3;
/// Longest time for one attempt: a node that hangs leads nothing any more soon.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Where to ask about a partition.
enum Place {
    At(String),
    /// No leader is known for what does not exist: any node says best what is wrong.
    Anywhere,
    /// An election, or a table that is out of date.
    Nowhere,
}

/// What one node said about the partitions it was asked about.
pub(crate) type Answers<A> = Result<Vec<Result<A, RpcError>>, ClientError>;

/// A question: its partition, and what to send.
pub(crate) type Question<Q> = (v1::TopicPartition, Q);

struct Open<Q, A> {
    question: Question<Q>,
    answer: Option<Result<A, ClientError>>,
    last: ClientError,
    /// An attempt had no answer.
    unanswered: bool,
}

fn no_leader(partition: &v1::TopicPartition) -> ClientError {
    let error = RpcError {
        kind: Some(ErrorKind::LeaderNotAvailable),
        ..RpcError::transport(format!(
            "partition {}:{} has no leader at present",
            partition.topic, partition.partition
        ))
    };
    error.into()
}

fn replaced(partition: &v1::TopicPartition, epoch: i64) -> RpcError {
    RpcError {
        kind: Some(ErrorKind::FencedLeaderEpoch),
        ..RpcError::transport(format!(
            "the leader of partition {}:{} in epoch {epoch} was replaced but does not know it yet",
            partition.topic, partition.partition
        ))
    }
}

impl Client {
    /// Asks the leaders. `call` asks one node, within the time given; `repeat`: asking again is harmless
    /// even when the first attempt may have arrived.
    pub(crate) async fn ask_leaders<Q: Clone, A, F>(
        &self,
        within: Duration,
        repeat: bool,
        questions: Vec<Question<Q>>,
        call: impl Fn(String, Vec<Q>, Duration) -> F,
    ) -> Vec<Result<A, ClientError>>
    where
        F: Future<Output = Answers<A>>,
    {
        let until = Instant::now() + within;
        let mut random = Random::new(uuid::Uuid::new_v4().as_u64_pair().0);
        let (mut failures, mut stale) = (0, false);
        let mut all: Vec<Open<Q, A>> = questions
            .into_iter()
            .map(|question| Open {
                last: no_leader(&question.0),
                question,
                answer: None,
                unanswered: false,
            })
            .collect();
        loop {
            self.learn_routes(&mut all, stale).await;
            let left = until.saturating_duration_since(Instant::now());
            let attempt = left.clamp(Duration::from_millis(100), ATTEMPT);
            let asked = self.by_place(&all).into_iter().flat_map(|(to, indexes)| {
                let chunks = indexes.chunks(limits::REQUEST_MAX_PARTITIONS);
                let chunks: Vec<Vec<usize>> = chunks.map(<[usize]>::to_vec).collect();
                chunks.into_iter().map(move |chunk| (to.clone(), chunk))
            });
            let calls: Vec<_> = asked
                .map(|(to, indexes)| {
                    let queries: Vec<Q> = indexes
                        .iter()
                        .map(|index| all[*index].question.1.clone())
                        .collect();
                    let call = &call;
                    async move {
                        let answers = match to {
                            Some(address) => call(address, queries, attempt).await,
                            None => {
                                let ask = |address| call(address, queries.clone(), attempt);
                                self.any_node(ask).await
                            }
                        };
                        (indexes, answers)
                    }
                })
                .collect();
            let mut hinted = true;
            for (indexes, answers) in join_all(calls).await {
                hinted &= self.take_answers(&mut all, &indexes, answers, repeat);
            }
            let open = all.iter().filter(|open| open.answer.is_none()).count();
            if open == 0 {
                break;
            }
            failures += 1;
            let hinted = hinted && failures <= HOPS && !self.by_place(&all).is_empty();
            let pause = match hinted {
                true => Duration::ZERO,
                false => Backoff::default().pause(failures, &mut random),
            };
            stale = !hinted;
            if Instant::now() + pause >= until {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        all.into_iter()
            .map(|open| open.answer.unwrap_or(Err(open.last)))
            .collect()
    }

    /// Gets the routes of what is not answered yet: of topics that are not known, or of all.
    async fn learn_routes<Q, A>(&self, all: &mut [Open<Q, A>], stale: bool) {
        let waiting = all.iter().filter(|open| open.answer.is_none());
        let topics: BTreeSet<&String> = waiting.map(|open| &open.question.0.topic).collect();
        let topics: Vec<String> = topics
            .into_iter()
            .filter(|topic| stale || self.routing().topic(topic).is_none())
            .cloned()
            .collect();
        if topics.is_empty() {
            return;
        }
        match self.refresh(&topics).await {
            Ok(()) | Err(ClientError::TopicNotFound(_)) => {}
            Err(error) => {
                for open in all.iter_mut().filter(|open| open.answer.is_none()) {
                    open.last = error.clone();
                }
            }
        }
    }

    fn place(&self, partition: &v1::TopicPartition) -> Place {
        let Some(routes) = self.routing().topic(&partition.topic) else {
            return Place::Anywhere;
        };
        let index = usize::try_from(partition.partition).ok();
        match index.and_then(|index| routes.leaders.get(index)) {
            None => Place::Anywhere,
            Some(leader) => leader
                .and_then(|leader| self.routing().address(leader.node_id))
                .map_or(Place::Nowhere, Place::At),
        }
    }

    /// What is open, by the address to ask; `None`: any.
    fn by_place<Q, A>(&self, all: &[Open<Q, A>]) -> BTreeMap<Option<String>, Vec<usize>> {
        let mut places: BTreeMap<Option<String>, Vec<usize>> = BTreeMap::new();
        let open = all.iter().enumerate().filter(|(_, o)| o.answer.is_none());
        for (index, open) in open {
            let to = match self.place(&open.question.0) {
                Place::At(address) => Some(address),
                Place::Anywhere => None,
                Place::Nowhere => continue,
            };
            places.entry(to).or_default().push(index);
        }
        places
    }

    /// Whether everything that is open now has a better place to go to.
    fn take_answers<Q, A>(
        &self,
        all: &mut [Open<Q, A>],
        indexes: &[usize],
        answers: Answers<A>,
        repeat: bool,
    ) -> bool {
        let answers = match answers {
            Ok(answers) if answers.len() == indexes.len() => answers,
            Ok(answers) => {
                let text = format!(
                    "the server sent {} results for {} partitions",
                    answers.len(),
                    indexes.len()
                );
                return fail(all, indexes, &ClientError::Protocol(text));
            }
            Err(error) if error.is_retryable() && (repeat || error.was_refused()) => {
                for index in indexes {
                    let open = &mut all[*index];
                    open.last = error.clone().after(&mut open.unanswered);
                }
                return false;
            }
            Err(error) => return fail(all, indexes, &error),
        };
        let mut hinted = true;
        for (index, answer) in indexes.iter().zip(answers) {
            let open = &mut all[*index];
            match answer {
                Ok(answer) => open.answer = Some(Ok(answer)),
                Err(error) if error.is_retryable() => {
                    let (topic, partition) = (&open.question.0.topic, open.question.0.partition);
                    let learned = error
                        .leader
                        .as_ref()
                        .is_some_and(|hint| self.routing().learn(topic, partition, hint));
                    hinted &= learned;
                    open.last = ClientError::from(error).after(&mut open.unanswered);
                }
                Err(error) => {
                    let error = ClientError::from(error).after(&mut open.unanswered);
                    open.answer = Some(Err(error));
                }
            }
        }
        hinted
    }
}

fn fail<Q, A>(all: &mut [Open<Q, A>], indexes: &[usize], error: &ClientError) -> bool {
    for index in indexes {
        let open = &mut all[*index];
        open.answer = Some(Err(error.clone().after(&mut open.unanswered)));
    }
    true
}

impl Admin {
    /// Finds offsets: one answer or error for each query, in their order, each from its partition's leader.
    /// Waits for leaders that are missing for as long as the client's request timeout.
    pub async fn list_offsets(
        &self,
        queries: Vec<v1::OffsetQuery>,
    ) -> Vec<Result<v1::PartitionOffsets, ClientError>> {
        let within = self.client().config().request_timeout;
        self.list_offsets_within(within, queries).await
    }

    /// As [`Admin::list_offsets`], with a time of its own. A query without isolation has the client's.
    pub async fn list_offsets_within(
        &self,
        within: Duration,
        queries: Vec<v1::OffsetQuery>,
    ) -> Vec<Result<v1::PartitionOffsets, ClientError>> {
        use v1::offset_result::Outcome;
        let client = self.client();
        let isolation = client.isolation();
        let question = |mut query: v1::OffsetQuery| {
            if query.isolation() == v1::Isolation::Unspecified {
                query.set_isolation(isolation);
            }
            (query.topic_partition.clone().unwrap_or_default(), query)
        };
        let questions = queries.into_iter().map(question).collect();
        let ask = |address: String, queries, time| async move {
            let mut request = tonic::Request::new(v1::ListOffsetsRequest { queries });
            request.set_timeout(time);
            let mut service = client.consumer_service(&address, true)?;
            let response = service.list_offsets(request).await?.into_inner();
            let outcome = |result: v1::OffsetResult| match result.outcome {
                Some(Outcome::Offsets(found)) => {
                    let at = result.topic_partition.unwrap_or_default();
                    let epoch = found.leader_epoch;
                    if client.routing().heard(&at.topic, at.partition, epoch) {
                        Ok(found)
                    } else {
                        Err(replaced(&at, epoch))
                    }
                }
                Some(Outcome::Error(error)) => Err(RpcError::from_partition(error)),
                None => Err(RpcError::transport("an offset without an outcome")),
            };
            Ok(response.results.into_iter().map(outcome).collect())
        };
        client.ask_leaders(within, true, questions, ask).await
    }

    /// Deletes records before given offsets: one new log start or error for each, in their order, each from
    /// its partition's leader.
    pub async fn delete_records(
        &self,
        deletes: Vec<v1::DeleteBefore>,
    ) -> Vec<Result<i64, ClientError>> {
        use v1::delete_before::Before;
        use v1::delete_records_result::Outcome;
        let client = self.client();
        // What the end is moves on: a second attempt could delete more than the first was asked to.
        let repeat = deletes
            .iter()
            .all(|delete| matches!(delete.before, Some(Before::Offset(_))));
        let questions = deletes
            .into_iter()
            .map(|delete| (delete.topic_partition.clone().unwrap_or_default(), delete))
            .collect();
        let ask = |address: String, deletes, time| async move {
            let mut request = tonic::Request::new(v1::DeleteRecordsRequest { deletes });
            request.set_timeout(time);
            let mut service = client.topic_service(&address, true)?;
            let response = service.delete_records(request).await?.into_inner();
            let outcome = |result: v1::DeleteRecordsResult| match result.outcome {
                Some(Outcome::LogStartOffset(offset)) => Ok(offset),
                Some(Outcome::Error(error)) => Err(RpcError::from_partition(error)),
                None => Err(RpcError::transport("a deletion without an outcome")),
            };
            Ok(response.results.into_iter().map(outcome).collect())
        };
        let within = client.config().request_timeout;
        client.ask_leaders(within, repeat, questions, ask).await
    }
}
