//! ConsumerService.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status, Streaming};
use varve_broker_api::{
    Broker, Error, Fetch, FetchPartition, Fetched, OffsetQuery, Position, Unread,
};
use varve_proto::v1;
use varve_proto::v1::consumer_service_server::ConsumerService;
use varve_types::{ErrorKind, Offset};

use crate::context::CallContext;
use crate::shared::Shared;
use crate::streams::pace::FLOOR_BYTES;
use crate::streams::reader::no_answer;
use crate::streams::{Outbound, consume, fetch_stream, subscribe};
use crate::translate::fetch::{self, Decoder, FetchPlan, Until, to_offsets};
use crate::translate::group::bounded;
use crate::translate::{corrupt_log, to_topic_partition};

/// The service.
#[derive(Debug)]
pub struct Consumer<B>(pub Arc<Shared<B>>);

#[tonic::async_trait]
impl<B: Broker> ConsumerService for Consumer<B> {
    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        use v1::offset_result::Outcome as O;
        let ctx = self.0.context(&request)?;
        let queries = fetch::list_offsets(request.get_ref()).map_err(|e| self.0.fail(&e))?;
        let partitions: Vec<_> = queries
            .iter()
            .map(|q| to_topic_partition(&q.partition))
            .collect();
        let asked = async { Ok(self.0.broker.list_offsets(&ctx.broker, queries).await) };
        let found = self
            .0
            .within(&ctx, asked)
            .await
            .map_err(|e| self.0.fail(&e))?;
        let results = partitions
            .into_iter()
            .zip(found)
            .map(|(tp, found)| v1::OffsetResult {
                topic_partition: Some(tp),
                outcome: Some(match &found {
                    Ok(found) => O::Offsets(to_offsets(found)),
                    Err(error) => O::Error(self.0.partition_error(error)),
                }),
            })
            .collect();
        Ok(ctx.respond(v1::ListOffsetsResponse { results }))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        let mut ctx = self.0.context(&request)?;
        ctx.broker.rack = bounded("rack", &request.get_ref().rack)
            .map_err(|e| self.0.fail(&e))?
            .into();
        let answer = self
            .0
            .within(&ctx, self.read(&ctx, request.get_ref()))
            .await;
        let (answer, held) = answer.map_err(|e| self.0.fail(&e))?;
        let mut response = ctx.respond(answer);
        // Until the transport has taken it.
        response.extensions_mut().insert(Arc::new(held));
        Ok(response)
    }

    type SubscribeStream = Outbound<v1::SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let ctx = self.0.context(&request)?.without_deadline();
        let opened = subscribe::plan(request.get_ref())
            .and_then(|plan| subscribe::open(&self.0, &ctx, plan));
        opened.map(Outbound::respond).map_err(|e| self.0.fail(&e))
    }

    type ConsumeStream = Outbound<v1::ConsumeResponse>;

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let ctx = self.0.context(&request)?.without_deadline();
        Ok(consume::open(&self.0, ctx, request.into_inner()).respond())
    }

    type FetchStreamStream = Outbound<v1::FetchStreamResponse>;

    async fn fetch_stream(
        &self,
        request: Request<Streaming<v1::FetchStreamRequest>>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        let ctx = self.0.context(&request)?.without_deadline();
        Ok(fetch_stream::open(&self.0, ctx, request.into_inner()).respond())
    }
}

/// How much one read of the log may bring, and how long it waits for how much.
struct Bounds {
    max_wait: Duration,
    min_bytes: usize,
    max_bytes: usize,
}

impl<B: Broker> Consumer<B> {
    async fn read(
        &self,
        ctx: &CallContext,
        request: &v1::FetchRequest,
    ) -> Result<(v1::FetchResponse, Unread), Error> {
        let plan = fetch::fetch(request, self.0.max_fetch_bytes())?;
        let mut moved = false;
        let mut from = match plan.start {
            Position::Offset(offset) => offset,
            position => self.locate(ctx, &plan, position).await?,
        };
        loop {
            let fallback = plan.out_of_range.fallback().filter(|_| !moved);
            match (self.fetch_held(ctx, &plan, from).await, fallback) {
                (Ok((fetched, held)), _) => return Ok((answer(&plan, from, fetched)?, held)),
                (Err(error), Some(position)) if error.kind == ErrorKind::OffsetOutOfRange => {
                    from = self.locate(ctx, &plan, position).await?;
                    moved = true;
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    async fn locate(
        &self,
        ctx: &CallContext,
        plan: &FetchPlan,
        position: Position,
    ) -> Result<Offset, Error> {
        let query = OffsetQuery {
            isolation: plan.isolation,
            partition: plan.partition.clone(),
            position: Some(position),
            with_time: false,
        };
        let found = self.0.broker.list_offsets(&ctx.broker, vec![query]).await;
        let found = found
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(no_answer(&plan.partition)))?;
        Ok(found.offset.unwrap_or(found.log_start))
    }

    /// Reads with the wait that was asked for. A drain ends the wait, not the call. While it waits, it keeps nothing of
    /// what is there, which may be much, and holds only as much of the budget as it waits for.
    async fn fetch_held(
        &self,
        ctx: &CallContext,
        plan: &FetchPlan,
        from: Offset,
    ) -> Result<(Fetched, Unread), Error> {
        let (fetched, held) = self.fetch_now(ctx, plan, from).await?;
        let max_wait = ctx.hold(plan.max_wait);
        if max_wait.is_zero() || fetched.batches.len() >= plan.min_bytes {
            return Ok((fetched, held));
        }
        drop((fetched, held));
        let (mut held, max_bytes) =
            self.reserve(plan.max_bytes.min(FLOOR_BYTES.max(plan.min_bytes)));
        let bounds = Bounds {
            max_wait,
            min_bytes: plan.min_bytes.min(max_bytes),
            max_bytes,
        };
        tokio::select! {
            biased;
            () = self.0.drain.cancelled() => {}
            fetched = self.fetch_once(ctx, plan, from, bounds) => {
                let fetched = fetched?;
                // Else there may be more of it.
                if fetched.batches.len() <= max_bytes / 2 {
                    held.resize(fetched.batches.len().min(held.bytes()));
                    return Ok((fetched, held));
                }
            }
        }
        drop(held);
        self.fetch_now(ctx, plan, from).await
    }

    /// Reads what is there, as much as the budget leaves.
    async fn fetch_now(
        &self,
        ctx: &CallContext,
        plan: &FetchPlan,
        from: Offset,
    ) -> Result<(Fetched, Unread), Error> {
        let (mut held, max_bytes) = self.reserve(plan.max_bytes);
        let bounds = Bounds {
            max_wait: Duration::ZERO,
            min_bytes: plan.min_bytes,
            max_bytes,
        };
        let fetched = self.fetch_once(ctx, plan, from, bounds).await?;
        held.resize(fetched.batches.len().min(held.bytes()));
        Ok((fetched, held))
    }

    /// How much of `wanted` may be read, and what is held of the budget for that: before it is read, because of many
    /// that come at once each would find the whole budget free.
    fn reserve(&self, wanted: usize) -> (Unread, usize) {
        let floor = wanted.min(FLOOR_BYTES);
        let mut held = self.0.unread.hold(0);
        let granted = held.resize(wanted - floor);
        (held, floor + granted)
    }

    async fn fetch_once(
        &self,
        ctx: &CallContext,
        plan: &FetchPlan,
        from: Offset,
        bounds: Bounds,
    ) -> Result<Fetched, Error> {
        let Bounds {
            max_wait,
            min_bytes,
            max_bytes,
        } = bounds;
        let request = Fetch {
            raw: false,
            isolation: plan.isolation,
            partitions: vec![FetchPartition {
                topic: plan.partition.topic.clone(),
                partition: plan.partition.partition,
                offset: from,
                max_bytes,
                leader_epoch: plan.leader_epoch,
            }],
            max_wait,
            min_bytes,
            max_bytes,
        };
        let results = self.0.broker.fetch(&ctx.broker, request).await?;
        match results.into_iter().next() {
            Some(first) => first.result,
            None => Err(no_answer(&plan.partition)),
        }
    }
}

fn answer(plan: &FetchPlan, from: Offset, fetched: Fetched) -> Result<v1::FetchResponse, Error> {
    let mut decoder = Decoder::new(
        plan.encoding,
        fetched.batches,
        from,
        fetched.next_offset,
        Until::default(),
    );
    let tp = &plan.partition;
    let chunk = decoder
        .next_chunk(plan.max_bytes, plan.max_records)
        .map_err(|why| corrupt_log(&tp.topic, tp.partition, why))?
        .unwrap_or_default();
    Ok(v1::FetchResponse {
        last_stable_offset: Some(fetched.last_stable.get()),
        records: chunk.records,
        batches: chunk.batches,
        next_offset: decoder.position().get(),
        high_watermark: fetched.high_watermark.get(),
        log_start_offset: fetched.log_start.get(),
        leader_epoch: fetched.leader_epoch.get().into(),
    })
}
