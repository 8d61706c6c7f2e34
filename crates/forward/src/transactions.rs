//! Calls about transactional ids, each answered by the id's coordinator.
//!
//! Invariant: what may have arrived is sent again where the coordinator knows a repeat, or where a repeat changes
//! nothing that counts: an end and a beginning with the same session are answered as the first, a beginning without one
//! raises the epoch once more, the last word about an offset counts. An operator's abort is not sent again: the next
//! transaction may have begun. Nothing is passed on for a producer that keeps its epoch: the public API has no words
//! for it.

use std::time::Duration;

use varve_broker_api as api;
use varve_broker_api::{Broker, Context, LeaderHint, TransactionVersion};
use varve_client::proto::transaction_service_client::TransactionServiceClient;
use varve_client::{RpcError, proto as v1};
use varve_types::{NodeId, ProducerId, TransactionalId};

use crate::groups::known;
use crate::nodes::{Failure, Line};
use crate::{Forwarding, Result, convert, missing};

/// Transactional ids in one page of a list.
const PAGE: i32 = 10_000;

impl<B: Broker> Forwarding<B> {
    /// One call at one node.
    async fn ask_coordinator<Q, A, F>(
        &self,
        ctx: &Context,
        method: &'static str,
        to: (&LeaderHint, Duration),
        message: Q,
        call: impl FnOnce(TransactionServiceClient<Line>, tonic::Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<tonic::Response<A>, tonic::Status>>,
    {
        let (to, within) = to;
        let answer = async {
            let service = self.nodes.transactions(to)?;
            let request = self.nodes.request(ctx, message, within);
            let response = call(service, request).await;
            let response = response.map_err(|status| RpcError::from_status(&status))?;
            Ok(response.into_inner())
        };
        self.nodes.outcome(ctx, method, to, answer.await)
    }

    pub(crate) async fn begin_session(
        &self,
        ctx: &Context,
        request: api::InitTransactions,
    ) -> Result<ProducerId> {
        let request = &request;
        let local = || self.broker.init_transactions(ctx, request.clone());
        let remote = |to: LeaderHint, left| async move {
            let message = v1::InitTransactionsRequest {
                transactional_id: request.id.to_string(),
                transaction_timeout: convert::wire_span(request.timeout),
                current: request.keep.map(wire_session),
            };
            let call = |mut service: TransactionServiceClient<Line>, request| async move {
                service.init_transactions(request).await
            };
            let method = "InitTransactions";
            let answer = self.ask_coordinator(ctx, method, (&to, left), message, call);
            known(session(answer.await?.session))
        };
        self.coordinated(ctx, true, local, remote).await
    }

    pub(crate) async fn commit_in_transaction(
        &self,
        ctx: &Context,
        request: api::CommitTransactionOffsets,
    ) -> Result<Vec<Result<()>>> {
        if request.version == TransactionVersion::V1 {
            return self.broker.commit_transaction_offsets(ctx, request).await;
        }
        let request = &request;
        let local = || self.broker.commit_transaction_offsets(ctx, request.clone());
        let remote = |to: LeaderHint, left| async move {
            let member = request.member.as_ref();
            let message = v1::CommitTransactionOffsetsRequest {
                transactional_id: request.id.to_string(),
                session: Some(wire_session(request.producer)),
                group: request.group.to_string(),
                member_id: member.map(ToString::to_string).unwrap_or_default(),
                member_epoch: request.member_epoch,
                offsets: request.offsets.iter().map(convert::offset_commit).collect(),
            };
            let call = |mut service: TransactionServiceClient<Line>, request| async move {
                service.commit_transaction_offsets(request).await
            };
            let method = "CommitTransactionOffsets";
            let answer = self.ask_coordinator(ctx, method, (&to, left), message, call);
            let results = answer.await?.results;
            if results.len() != request.offsets.len() {
                return known(Err(missing("a result for each offset")));
            }
            let result = |result: v1::TransactionOffsetResult| match result.error {
                None => Ok(()),
                Some(error) => Err(convert::partition_error(&to, error)),
            };
            Ok(results.into_iter().map(result).collect())
        };
        self.coordinated(ctx, true, local, remote).await
    }

    pub(crate) async fn end(
        &self,
        ctx: &Context,
        request: api::EndTransaction,
    ) -> Result<ProducerId> {
        if request.version == TransactionVersion::V1 {
            return self.broker.end_transaction(ctx, request).await;
        }
        let request = &request;
        let local = || self.broker.end_transaction(ctx, request.clone());
        let remote = |to: LeaderHint, left| async move {
            let outcome = match request.commit {
                true => v1::TransactionOutcome::Commit,
                false => v1::TransactionOutcome::Abort,
            };
            let message = v1::EndTransactionRequest {
                transactional_id: request.id.to_string(),
                session: Some(wire_session(request.producer)),
                outcome: outcome.into(),
            };
            let call = |mut service: TransactionServiceClient<Line>, request| async move {
                service.end_transaction(request).await
            };
            let method = "EndTransaction";
            let answer = self.ask_coordinator(ctx, method, (&to, left), message, call);
            known(session(answer.await?.session))
        };
        self.coordinated(ctx, true, local, remote).await
    }

    pub(crate) async fn describe_transaction(
        &self,
        ctx: &Context,
        id: &TransactionalId,
    ) -> Result<api::TransactionInfo> {
        let local = || self.broker.transaction(ctx, id);
        let remote = |to: LeaderHint, left| async move {
            let message = v1::GetTransactionRequest {
                transactional_id: id.to_string(),
            };
            let call = |mut service: TransactionServiceClient<Line>, request| async move {
                service.get_transaction(request).await
            };
            let method = "GetTransaction";
            let answer = self.ask_coordinator(ctx, method, (&to, left), message, call);
            known(info(answer.await?))
        };
        self.coordinated(ctx, true, local, remote).await
    }

    pub(crate) async fn abort(&self, ctx: &Context, id: &TransactionalId) -> Result<()> {
        let local = || self.broker.abort_transaction(ctx, id);
        let remote = |to: LeaderHint, left| async move {
            let message = v1::AbortTransactionRequest {
                transactional_id: id.to_string(),
            };
            let call = |mut service: TransactionServiceClient<Line>, request| async move {
                service.abort_transaction(request).await
            };
            let method = "AbortTransaction";
            self.ask_coordinator(ctx, method, (&to, left), message, call)
                .await?;
            Ok(())
        };
        self.coordinated(ctx, false, local, remote).await
    }

    /// The transactional ids of every node that takes part.
    pub(crate) async fn all_transactions(
        &self,
        ctx: &Context,
    ) -> Result<Vec<api::TransactionListing>> {
        let local = || self.broker.transactions(ctx);
        let remote = |to, left| async move { self.transactions_of(ctx, &to, left).await };
        let mut all = self.of_everyone(ctx, local, remote).await?;
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all.dedup_by(|a, b| a.id == b.id);
        Ok(all)
    }

    async fn transactions_of(
        &self,
        ctx: &Context,
        to: &LeaderHint,
        left: Duration,
    ) -> Result<Vec<api::TransactionListing>, Failure> {
        let mut request = v1::ListTransactionsRequest {
            page_size: PAGE,
            ..Default::default()
        };
        let mut transactions = Vec::new();
        loop {
            let call = |mut service: TransactionServiceClient<Line>, request| async move {
                service.list_transactions(request).await
            };
            let within = left.min(self.nodes.read_timeout());
            let (method, to) = ("ListTransactions", (to, within));
            let page = self.ask_coordinator(ctx, method, to, request.clone(), call);
            let page = page.await?;
            for raw in &page.transactions {
                transactions.push(known(listing(raw))?);
            }
            if page.next_page_token.is_empty() {
                return Ok(transactions);
            }
            request.page_token = page.next_page_token;
        }
    }
}

fn wire_session(producer: ProducerId) -> v1::TransactionSession {
    v1::TransactionSession {
        producer_id: producer.id,
        producer_epoch: producer.epoch.into(),
    }
}

fn session(raw: Option<v1::TransactionSession>) -> Result<ProducerId> {
    let raw = raw.filter(|raw| raw.producer_id >= 0);
    let epoch = |raw: &v1::TransactionSession| {
        let epoch = i16::try_from(raw.producer_epoch).ok();
        epoch.filter(|epoch| *epoch >= 0)
    };
    let session = raw.and_then(|raw| {
        Some(ProducerId {
            id: raw.producer_id,
            epoch: epoch(&raw)?,
        })
    });
    session.ok_or_else(|| missing("a session"))
}

fn transactional_id(text: &str) -> Result<TransactionalId> {
    TransactionalId::new(text).map_err(|_| missing("a transactional id"))
}

fn state(raw: i32) -> Result<api::TransactionState> {
    use v1::TransactionState as Wire;
    match Wire::try_from(raw) {
        Ok(Wire::Empty) => Ok(api::TransactionState::Empty),
        Ok(Wire::Ongoing) => Ok(api::TransactionState::Ongoing),
        Ok(Wire::PrepareCommit) => Ok(api::TransactionState::PrepareCommit),
        Ok(Wire::PrepareAbort) => Ok(api::TransactionState::PrepareAbort),
        Ok(Wire::CompleteCommit) => Ok(api::TransactionState::CompleteCommit),
        Ok(Wire::CompleteAbort) => Ok(api::TransactionState::CompleteAbort),
        Ok(Wire::Unspecified) | Err(_) => Err(missing("a state that is known here")),
    }
}

/// One that is not known here is the producer's own, which is nearly always right and changes nothing.
fn cause(raw: i32) -> api::TransactionCause {
    use v1::TransactionCause as Wire;
    match Wire::try_from(raw) {
        Ok(Wire::Timeout) => api::TransactionCause::Timeout,
        Ok(Wire::Operator) => api::TransactionCause::Operator,
        Ok(Wire::Successor) => api::TransactionCause::Successor,
        Ok(Wire::Renewal) => api::TransactionCause::Renewal,
        Ok(Wire::Producer | Wire::Unspecified) | Err(_) => api::TransactionCause::Producer,
    }
}

fn listing(raw: &v1::TransactionListing) -> Result<api::TransactionListing> {
    Ok(api::TransactionListing {
        id: transactional_id(&raw.transactional_id)?,
        producer: session(raw.session)?,
        state: state(raw.state)?,
        coordinator: NodeId(raw.coordinator_id),
        started_ms: raw.started.map(convert::millis),
    })
}

fn info(raw: v1::GetTransactionResponse) -> Result<api::TransactionInfo> {
    let partitions = |all: Vec<v1::TopicPartition>| {
        all.into_iter()
            .map(|tp| convert::from_partition(Some(tp)))
            .collect::<Result<Vec<_>>>()
    };
    Ok(api::TransactionInfo {
        id: transactional_id(&raw.transactional_id)?,
        producer: session(raw.session)?,
        state: state(raw.state)?,
        cause: cause(raw.cause),
        coordinator: NodeId(raw.coordinator_id),
        timeout: convert::span(raw.transaction_timeout),
        started_ms: raw.started.map(convert::millis),
        updated_ms: raw.updated.map_or(0, convert::millis),
        partitions: partitions(raw.partitions)?,
        untold: partitions(raw.untold)?,
    })
}
