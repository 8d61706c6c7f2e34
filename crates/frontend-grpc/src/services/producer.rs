//! ProducerService.

use std::sync::Arc;

use futures_util::future::join_all;
use tonic::{Request, Response, Status, Streaming};
use varve_broker_api::{Appended, Broker, Error, InitProducer};
use varve_proto::v1;
use varve_proto::v1::producer_service_server::ProducerService;
use varve_types::PartitionId;

use super::append;
use crate::context::CallContext;
use crate::shared::Shared;
use crate::streams::{Outbound, produce_stream};
use crate::translate::produce::to_appended;
use crate::translate::{to_duration, topic_name};

/// The service.
#[derive(Debug)]
pub struct Producer<B>(pub Arc<Shared<B>>);

/// What became of one partition's share of a request.
struct Share {
    partition: PartitionId,
    indexes: Vec<i32>,
    outcome: Result<Appended, Error>,
}

#[tonic::async_trait]
impl<B: Broker> ProducerService for Producer<B> {
    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let opened = self
            .0
            .within(&ctx, self.init(&ctx, request.into_inner()))
            .await;
        opened.map(Response::new).map_err(|e| self.0.fail(&e))
    }

    async fn produce(
        &self,
        request: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        let ctx = self.0.context(&request)?;
        let answer = self.append(&ctx, request.into_inner()).await;
        answer.map(|a| ctx.respond(a)).map_err(|e| self.0.fail(&e))
    }

    type ProduceStreamStream = Outbound<v1::ProduceStreamResponse>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let ctx = self.0.context(&request)?.without_deadline();
        // Order within a partition is the leader's to keep.
        let ctx = ctx.never_forwarded();
        Ok(Response::new(produce_stream::open(
            &self.0,
            ctx,
            request.into_inner(),
        )))
    }
}

impl<B: Broker> Producer<B> {
    async fn init(
        &self,
        ctx: &CallContext,
        request: v1::InitProducerRequest,
    ) -> Result<v1::InitProducerResponse, Error> {
        let name = match request.producer_name.as_str() {
            "" => None,
            // Producer names keep the rule of topic names.
            name => Some(topic_name("producer_name", name)?.to_string()),
        };
        let session = self
            .0
            .broker
            .init_producer(&ctx.broker, InitProducer { name })
            .await?;
        let idle =
            std::time::Duration::from_millis(u64::try_from(session.idle_expiry_ms).unwrap_or(0));
        Ok(v1::InitProducerResponse {
            producer_id: session.producer.id,
            producer_epoch: session.producer.epoch.into(),
            idle_expiry: Some(to_duration(idle)),
        })
    }

    async fn append(
        &self,
        ctx: &CallContext,
        request: v1::ProduceRequest,
    ) -> Result<v1::ProduceResponse, Error> {
        if ctx.expired() {
            return Err(append::expired());
        }
        let until = ctx.work_until(self.0.request_timeout());
        let parts = append::prepare(&self.0, ctx, request).await?;
        let mut waiting = Vec::with_capacity(parts.len());
        for part in parts {
            let partition = part.produce.partition;
            let receipt = append::admit(&self.0, ctx, part.produce, until).await;
            waiting.push(async move {
                let outcome = match receipt {
                    Ok(receipt) => {
                        append::receipt::<B>(receipt, partition, ctx.arrived, until).await
                    }
                    Err(error) => Err(error),
                };
                Share {
                    partition,
                    indexes: part.indexes,
                    outcome,
                }
            });
        }
        self.answer(join_all(waiting).await)
    }

    /// Errors go into the body only where some partitions fared better or differently than others.
    fn answer(&self, shares: Vec<Share>) -> Result<v1::ProduceResponse, Error> {
        use v1::partition_produce_result::Outcome as O;
        let first = shares
            .first()
            .and_then(|s| s.outcome.as_ref().err())
            .cloned();
        if let Some(first) = first {
            let same = |s: &Share| s.outcome.as_ref().is_err_and(|e| e.kind == first.kind);
            if shares.iter().all(same) {
                return Err(first);
            }
        }
        let results = shares
            .into_iter()
            .map(|share| v1::PartitionProduceResult {
                partition: share.partition.0,
                outcome: Some(match &share.outcome {
                    Ok(appended) => O::Appended(to_appended(appended)),
                    Err(error) => O::Error(self.0.partition_error(error)),
                }),
                record_indexes: share.indexes,
            })
            .collect();
        Ok(v1::ProduceResponse { results })
    }
}
