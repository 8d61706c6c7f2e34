//! Reads, offsets and trims: questions about partitions, each answered where its partition is led.
//!
//! Invariants: answers stand in the order of the questions; a partition that cannot be asked holds nobody
//! up but itself; what is read here is never read again elsewhere in the same call.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use varve_broker_api as api;
use varve_broker_api::{Broker, Context, Error, LeaderHint};
use varve_client::{RpcError, proto as v1};
use varve_types::Offset;

use crate::nodes::{Failure, Nodes, Retry};
use crate::{Forwarding, Result, convert, missing};

/// How long a fetch is held while some of its partitions have no leader.
const LEADERLESS_WAIT: Duration = Duration::from_millis(250);
/// Most records of an answer: bytes are what bounds it.
const RECORDS: i32 = 10_000;

/// What one node said about the items it was sent.
type Said<A> = Result<Vec<Result<A>>, Failure>;

impl<B: Broker> Forwarding<B> {
    pub(crate) async fn find_offsets(
        &self,
        ctx: &Context,
        queries: Vec<api::OffsetQuery>,
    ) -> Vec<Result<api::OffsetFound>> {
        use v1::offset_result::Outcome;
        let local = |queries| self.broker.list_offsets(ctx, queries);
        let remote = |to: LeaderHint, queries: Vec<api::OffsetQuery>, left| async move {
            let queries = queries.iter().map(convert::query).collect();
            let request = v1::ListOffsetsRequest { queries };
            let answer = async {
                let mut service = self.nodes.consumer(&to)?;
                let request = self.nodes.request(ctx, request, left);
                let response = service.list_offsets(request).await;
                response.map_err(|status| RpcError::from_status(&status))
            };
            let answer = answer.await;
            let answer = self.nodes.outcome(ctx, "ListOffsets", &to, answer)?;
            let results = answer.into_inner().results.into_iter();
            let result = results.map(|result| match result.outcome {
                Some(Outcome::Offsets(found)) => Ok(convert::offsets(&found)),
                Some(Outcome::Error(error)) => Err(convert::partition_error(&to, error)),
                None => Err(missing("an outcome")),
            });
            Ok(result.collect())
        };
        self.spread(ctx, queries, true, local, remote).await
    }

    pub(crate) async fn trim(
        &self,
        ctx: &Context,
        items: Vec<api::DeleteBefore>,
    ) -> Vec<Result<Offset>> {
        use v1::delete_records_result::Outcome;
        // Where the end is, or a time, may be another place when the request is made again.
        let fixed = |item: &api::DeleteBefore| matches!(item.before, api::Before::Offset(_));
        let repeat = items.iter().all(fixed);
        let local = |items| self.broker.delete_records(ctx, items);
        let remote = |to: LeaderHint, items: Vec<api::DeleteBefore>, left| async move {
            let deletes = items.iter().map(convert::delete).collect();
            let request = v1::DeleteRecordsRequest { deletes };
            let answer = async {
                let mut service = self.nodes.topics(&to)?;
                let request = self.nodes.request(ctx, request, left);
                let response = service.delete_records(request).await;
                response.map_err(|status| RpcError::from_status(&status))
            };
            let answer = answer.await;
            let answer = self.nodes.outcome(ctx, "DeleteRecords", &to, answer)?;
            let results = answer.into_inner().results.into_iter();
            let result = results.map(|result| match result.outcome {
                Some(Outcome::LogStartOffset(offset)) => Ok(convert::offset(offset)),
                Some(Outcome::Error(error)) => Err(convert::partition_error(&to, error)),
                None => Err(missing("an outcome")),
            });
            Ok(result.collect())
        };
        self.spread(ctx, items, repeat, local, remote).await
    }

    /// Answers items here where that is possible, elsewhere where it is not, and waits for leaders that are
    /// missing.
    async fn spread<Q: Clone, A, L, R>(
        &self,
        ctx: &Context,
        items: Vec<Q>,
        repeat: bool,
        local: impl Fn(Vec<Q>) -> L,
        remote: impl Fn(LeaderHint, Vec<Q>, Duration) -> R,
    ) -> Vec<Result<A>>
    where
        L: Future<Output = Vec<Result<A>>>,
        R: Future<Output = Said<A>>,
    {
        let mut results = local(items.clone()).await;
        if ctx.forward.is_none() || results.len() != items.len() {
            return results;
        }
        let mut retry = Retry::new(self.nodes.until(ctx));
        loop {
            let targets = self.targets(&results);
            let calls = targets.into_values().map(|(to, indexes)| {
                let some = indexes.iter().map(|index| items[*index].clone()).collect();
                let said = remote(to, some, retry.left());
                async move { (indexes, said.await) }
            });
            for (indexes, said) in join_all(calls).await {
                place(&mut results, &indexes, said, repeat);
            }
            let open = open(&results);
            if open.is_empty() || !retry.pause().await {
                return results;
            }
            // The leader may be this node by now, or this node may know of another one.
            let some = open.iter().map(|index| items[*index].clone()).collect();
            place(&mut results, &open, Ok(local(some).await), repeat);
            if self::open(&results).is_empty() {
                return results;
            }
        }
    }

    /// Who leads what could not be answered here, by address.
    fn targets<A>(&self, results: &[Result<A>]) -> BTreeMap<String, (LeaderHint, Vec<usize>)> {
        let mut targets: BTreeMap<String, (LeaderHint, Vec<usize>)> = BTreeMap::new();
        for (index, result) in results.iter().enumerate() {
            let error = result.as_ref().err();
            if let Some(to) = error.and_then(|error| self.nodes.target(error)) {
                let entry = targets.entry(to.address.clone());
                entry.or_insert_with(|| (to, Vec::new())).1.push(index);
            }
        }
        targets
    }

    pub(crate) async fn read(
        &self,
        ctx: &Context,
        request: api::Fetch,
    ) -> Result<Vec<api::PartitionFetched>> {
        if ctx.forward.is_none() || request.partitions.is_empty() {
            return self.broker.fetch(ctx, request).await;
        }
        let held = Instant::now() + request.max_wait;
        let mut retry = Retry::new(self.nodes.until(ctx));
        loop {
            // As long as everything is here this is all, and its wait is the broker's.
            let left = held.saturating_duration_since(Instant::now());
            let request = api::Fetch {
                max_wait: left,
                ..request.clone()
            };
            let mut results = self.broker.fetch(ctx, request.clone()).await?;
            let elsewhere: Vec<(usize, LeaderHint)> = results
                .iter()
                .enumerate()
                .filter_map(|(i, r)| Some((i, self.nodes.target(r.result.as_ref().err()?)?)))
                .collect();
            let failed = results.iter().any(|r| r.result.is_err());
            if !failed || results.len() != request.partitions.len() {
                return Ok(results);
            }
            let share = request.max_bytes / results.len().max(1);
            let isolation = request.isolation;
            let ask = |(index, to): (usize, LeaderHint), wait: Duration| {
                let wanted = &request.partitions[index];
                async move {
                    let found = self.fetch_at(ctx, &to, wanted, isolation, (share, wait));
                    (index, found.await)
                }
            };
            let now = elsewhere.iter().cloned().map(|at| ask(at, Duration::ZERO));
            for (index, result) in join_all(now).await {
                results[index].result = result;
            }
            let all_wait = results
                .iter()
                .all(|r| r.result.as_ref().is_err_and(Nodes::again));
            if all_wait {
                // Nobody leads any of it: the caller waits, and gets the reason in the end.
                if !retry.pause().await {
                    return Ok(results);
                }
                continue;
            }
            let left = held.saturating_duration_since(Instant::now());
            if left.is_zero() || worth(&request, &results) {
                return Ok(results);
            }
            self.wait(ctx, &request, &mut results, elsewhere, left, ask)
                .await?;
            if worth(&request, &results) || Instant::now() >= held {
                return Ok(results);
            }
        }
    }

    /// Holds a fetch at everybody who has a part of it, until the first has something.
    async fn wait<F>(
        &self,
        ctx: &Context,
        request: &api::Fetch,
        results: &mut [api::PartitionFetched],
        elsewhere: Vec<(usize, LeaderHint)>,
        left: Duration,
        ask: impl Fn((usize, LeaderHint), Duration) -> F,
    ) -> Result<()>
    where
        F: Future<Output = (usize, Result<api::Fetched>)>,
    {
        let mut held = left;
        if results.iter().any(|r| r.result.is_err()) {
            held = held.min(LEADERLESS_WAIT);
        }
        let remote: Vec<usize> = elsewhere.iter().map(|(index, _)| *index).collect();
        let here: Vec<usize> = (0..results.len())
            .filter(|index| !remote.contains(index) && results[*index].result.is_ok())
            .collect();
        let local = api::Fetch {
            partitions: here
                .iter()
                .map(|i| request.partitions[*i].clone())
                .collect(),
            max_wait: held,
            ..request.clone()
        };
        let asked = elsewhere
            .into_iter()
            .filter(|(index, _)| results[*index].result.is_ok());
        let mut polls: FuturesUnordered<_> = asked.map(|at| ask(at, held)).collect();
        let local = async {
            if local.partitions.is_empty() {
                std::future::pending::<()>().await;
            }
            self.broker.fetch(ctx, local).await
        };
        tokio::select! {
            found = local => {
                for (index, found) in here.into_iter().zip(found?) {
                    results[index] = found;
                }
            }
            Some((index, found)) = polls.next() => results[index].result = found,
            () = tokio::time::sleep(held) => {}
        }
        Ok(())
    }

    /// One partition at the node that leads it.
    async fn fetch_at(
        &self,
        ctx: &Context,
        to: &LeaderHint,
        wanted: &api::FetchPartition,
        isolation: api::Isolation,
        (share, wait): (usize, Duration),
    ) -> Result<api::Fetched> {
        let bytes = wanted.max_bytes.min(share).max(1);
        let request = v1::FetchRequest {
            topic: wanted.topic.to_string(),
            partition: wanted.partition.0,
            start: Some(convert::at(wanted.offset.get())),
            max_records: RECORDS,
            max_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            max_wait: prost_types::Duration::try_from(wait).ok(),
            encoding: v1::ReadEncoding::Batches.into(),
            leader_epoch: wanted.leader_epoch.map(|epoch| epoch.get().into()),
            isolation: convert::isolation(isolation),
            ..Default::default()
        };
        let within = wait + self.nodes.read_timeout();
        let answer = async {
            let mut service = self.nodes.consumer(to)?;
            let response = service
                .fetch(self.nodes.request(ctx, request, within))
                .await;
            response.map_err(|status| RpcError::from_status(&status))
        };
        let answer = self.nodes.outcome(ctx, "Fetch", to, answer.await);
        let answer = answer.map_err(Failure::harmless)?.into_inner();
        Ok(api::Fetched {
            last_stable: convert::last_stable(answer.last_stable_offset, answer.high_watermark),
            batches: joined(answer.batches),
            next_offset: convert::offset(answer.next_offset),
            high_watermark: convert::offset(answer.high_watermark),
            log_start: convert::offset(answer.log_start_offset),
            leader_epoch: convert::epoch(answer.leader_epoch),
            aborted: Vec::new(),
        })
    }
}

/// Batches back to back. One alone is not copied.
fn joined(mut batches: Vec<v1::EncodedBatch>) -> Bytes {
    if batches.len() == 1 {
        return batches.remove(0).data;
    }
    let bytes = batches.iter().map(|batch| batch.data.len()).sum();
    let mut all = BytesMut::with_capacity(bytes);
    for batch in batches {
        all.extend_from_slice(&batch.data);
    }
    all.freeze()
}

/// Whether a read has anything to tell: records, or that it has passed offsets which hold none for its reader.
fn worth(request: &api::Fetch, results: &[api::PartitionFetched]) -> bool {
    let mut pairs = request.partitions.iter().zip(results);
    pairs.any(|(wanted, found)| match &found.result {
        Ok(found) => !found.batches.is_empty() || found.next_offset > wanted.offset,
        Err(error) => !Nodes::again(error),
    })
}

/// What may be asked again.
fn open<A>(results: &[Result<A>]) -> Vec<usize> {
    let again = |result: &Result<A>| result.as_ref().is_err_and(Nodes::again);
    let open = results.iter().enumerate();
    open.filter(|(_, result)| again(result))
        .map(|(index, _)| index)
        .collect()
}

fn place<A>(results: &mut [Result<A>], indexes: &[usize], said: Said<A>, repeat: bool) {
    match said {
        Ok(said) => {
            let mut said = said.into_iter();
            for index in indexes {
                results[*index] = said.next().unwrap_or_else(|| Err(missing("an item")));
            }
        }
        Err(failure) => {
            let error: Error = match repeat {
                true => failure.harmless(),
                false => failure.error,
            };
            for index in indexes {
                results[*index] = Err(error.clone());
            }
        }
    }
}
