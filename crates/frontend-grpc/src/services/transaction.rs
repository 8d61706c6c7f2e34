//! TransactionService.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use varve_broker_api::{Broker, Error};
use varve_proto::v1;
use varve_proto::v1::transaction_service_server::TransactionService;
use varve_types::limits;

use crate::context::CallContext;
use crate::shared::Shared;
use crate::translate::transaction::{self, TransactionFilter, to_info, to_listing, to_session};
use crate::translate::{page, page_size, to_topic_partition, transactional_id};

/// Transactional ids in a page, when the client names no number.
const PAGE_DEFAULT: usize = 1000;
/// Most transactional ids in a page.
const PAGE_MAX: usize = limits::TRANSACTIONS_PAGE_MAX;

/// The service.
#[derive(Debug)]
pub struct Transactions<B>(pub Arc<Shared<B>>);

impl<B: Broker> Transactions<B> {
    async fn init(
        &self,
        ctx: &CallContext,
        request: &v1::InitTransactionsRequest,
    ) -> Result<v1::InitTransactionsResponse, Error> {
        let init = transaction::init(request)?;
        let producer = self.0.broker.init_transactions(&ctx.broker, init).await?;
        Ok(v1::InitTransactionsResponse {
            session: Some(to_session(producer)),
        })
    }

    async fn commit(
        &self,
        ctx: &CallContext,
        request: &v1::CommitTransactionOffsetsRequest,
    ) -> Result<v1::CommitTransactionOffsetsResponse, Error> {
        let commit = transaction::commit_offsets(request)?;
        let partitions: Vec<_> = commit
            .offsets
            .iter()
            .map(|o| to_topic_partition(&o.partition))
            .collect();
        let broker = &self.0.broker;
        let results = broker.commit_transaction_offsets(&ctx.broker, commit);
        let results = partitions
            .into_iter()
            .zip(results.await?)
            .map(|(tp, result)| v1::TransactionOffsetResult {
                topic_partition: Some(tp),
                error: result.err().map(|error| self.0.partition_error(&error)),
            })
            .collect();
        Ok(v1::CommitTransactionOffsetsResponse { results })
    }

    async fn end(
        &self,
        ctx: &CallContext,
        request: &v1::EndTransactionRequest,
    ) -> Result<v1::EndTransactionResponse, Error> {
        let end = transaction::end(request)?;
        let producer = self.0.broker.end_transaction(&ctx.broker, end).await?;
        Ok(v1::EndTransactionResponse {
            session: Some(to_session(producer)),
        })
    }

    async fn list(
        &self,
        ctx: &CallContext,
        request: &v1::ListTransactionsRequest,
    ) -> Result<v1::ListTransactionsResponse, Error> {
        let size = page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)?;
        let filter = TransactionFilter::read(request)?;
        let all = self.0.broker.transactions(&ctx.broker).await?;
        let kept = all.iter().filter(|t| filter.keeps(t));
        let (transactions, next_page_token) =
            page(kept, |t| t.id.to_string(), &request.page_token, size)?;
        Ok(v1::ListTransactionsResponse {
            transactions: transactions.into_iter().map(to_listing).collect(),
            next_page_token,
        })
    }

    async fn describe(
        &self,
        ctx: &CallContext,
        request: &v1::GetTransactionRequest,
    ) -> Result<v1::GetTransactionResponse, Error> {
        let id = transactional_id("transactional_id", &request.transactional_id)?;
        let found = self.0.broker.transaction(&ctx.broker, &id).await?;
        Ok(to_info(&found))
    }

    async fn abort(
        &self,
        ctx: &CallContext,
        request: &v1::AbortTransactionRequest,
    ) -> Result<v1::AbortTransactionResponse, Error> {
        let id = transactional_id("transactional_id", &request.transactional_id)?;
        self.0.broker.abort_transaction(&ctx.broker, &id).await?;
        Ok(v1::AbortTransactionResponse {})
    }
}

#[tonic::async_trait]
impl<B: Broker> TransactionService for Transactions<B> {
    async fn init_transactions(
        &self,
        request: Request<v1::InitTransactionsRequest>,
    ) -> Result<Response<v1::InitTransactionsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.init(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn commit_transaction_offsets(
        &self,
        request: Request<v1::CommitTransactionOffsetsRequest>,
    ) -> Result<Response<v1::CommitTransactionOffsetsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.commit(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn end_transaction(
        &self,
        request: Request<v1::EndTransactionRequest>,
    ) -> Result<Response<v1::EndTransactionResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self.0.within(&ctx, self.end(&ctx, request.get_ref())).await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn list_transactions(
        &self,
        request: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.list(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn get_transaction(
        &self,
        request: Request<v1::GetTransactionRequest>,
    ) -> Result<Response<v1::GetTransactionResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.describe(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    async fn abort_transaction(
        &self,
        request: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self
            .0
            .within(&ctx, self.abort(&ctx, request.get_ref()))
            .await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }
}
