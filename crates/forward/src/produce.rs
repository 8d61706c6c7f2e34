//! Appends. What this node cannot append is sent to the leader when its receipt is awaited.
//!
//! Invariant: a batch without a producer session is sent again only when it is certain that it was not
//! appended; one with a session may be sent again, since its leader knows what it has.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use varve_broker_api::{Appended, Broker, Context, Error, LeaderHint, Produce, TransactionVersion};
use varve_client::{RpcError, proto as v1};
use varve_types::{Acks, ErrorKind};

use crate::nodes::{Failure, Nodes, Retry};
use crate::{Forwarding, Result, convert};

type Later = Pin<Box<dyn Future<Output = Result<Appended>> + Send>>;

/// The outcome of an append, here or elsewhere.
pub enum Receipt<R> {
    /// Of the broker itself.
    Here(R),
    /// Of whoever leads the partition. Works only while it is awaited.
    Anywhere(Later),
}

impl<R> std::fmt::Debug for Receipt<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Here(_) => "Here",
            Self::Anywhere(_) => "Anywhere",
        })
    }
}

impl<R: Future<Output = Result<Appended>> + Unpin> Future for Receipt<R> {
    type Output = Result<Appended>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Here(receipt) => Pin::new(receipt).poll(cx),
            Self::Anywhere(later) => later.as_mut().poll(cx),
        }
    }
}

/// An append that may be made more than once.
#[derive(Debug)]
struct Append(Produce);

impl Append {
    fn again(&self) -> Produce {
        Produce {
            transactional_id: self.0.transactional_id.clone(),
            transaction_version: self.0.transaction_version,
            topic: self.0.topic.clone(),
            partition: self.0.partition,
            acks: self.0.acks,
            batch: self.0.batch.clone(),
            expected_offset: self.0.expected_offset,
        }
    }

    fn has_session(&self) -> bool {
        self.0.batch.header().producer_id >= 0
    }

    fn wire(&self) -> v1::ProduceRequest {
        v1::ProduceRequest {
            topic: self.0.topic.to_string(),
            partition: Some(self.0.partition.0),
            batch: Some(v1::EncodedBatch {
                format: 2,
                data: self.0.batch.bytes(),
            }),
            acks: match self.0.acks {
                Acks::None => v1::Acks::None,
                Acks::Leader => v1::Acks::Leader,
                Acks::All => v1::Acks::All,
            }
            .into(),
            expected_offset: self.0.expected_offset.map(varve_types::Offset::get),
            transactional_id: self
                .0
                .transactional_id
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            ..Default::default()
        }
    }
}

impl<B: Broker> Forwarding<B> {
    pub(crate) async fn append(
        &self,
        ctx: &Context,
        request: Produce,
    ) -> Result<Receipt<B::Receipt>> {
        // Calls of the public API know of one kind of transactions only.
        if ctx.forward.is_none() || request.transaction_version == TransactionVersion::V1 {
            return self.broker.produce(ctx, request).await.map(Receipt::Here);
        }
        let append = Append(request);
        let first = match self.broker.produce(ctx, append.again()).await {
            Err(error) if !Nodes::again(&error) => return Err(error),
            first => first,
        };
        let (broker, nodes) = (Arc::clone(&self.broker), self.nodes.clone());
        let ctx = ctx.clone();
        let later = async move {
            let error = match first {
                Ok(receipt) => match receipt.await {
                    Err(error) if Nodes::again(&error) => error,
                    outcome => return outcome,
                },
                Err(error) => error,
            };
            anywhere(&*broker, &nodes, &ctx, &append, error).await
        };
        Ok(Receipt::Anywhere(Box::pin(later)))
    }
}

/// Appends where the partition is led, for as long as the caller waits.
async fn anywhere<B: Broker>(
    broker: &B,
    nodes: &Nodes,
    ctx: &Context,
    append: &Append,
    mut error: Error,
) -> Result<Appended> {
    let mut retry = Retry::new(nodes.until(ctx));
    let mut uncertain = None;
    loop {
        if let Some(leader) = nodes.target(&error) {
            match send(nodes, ctx, append, &leader, &retry).await {
                Ok(appended) => return Ok(appended),
                Err(failure) if failure.unknown && !append.has_session() => {
                    return Err(failure.error);
                }
                Err(failure) => {
                    if failure.unknown {
                        uncertain = Some(failure.error.clone());
                    }
                    error = failure.harmless();
                }
            }
        }
        if !Nodes::again(&error) || !retry.pause().await {
            // An earlier attempt may have been the one that counts.
            return Err(match (error.kind, uncertain) {
                (ErrorKind::CommitTimeout, _) | (_, None) => error,
                (_, Some(unknown)) => unknown,
            });
        }
        error = match broker.produce(ctx, append.again()).await {
            Ok(receipt) => match receipt.await {
                Err(error) => error,
                appended => return appended,
            },
            Err(error) => error,
        };
    }
}

async fn send(
    nodes: &Nodes,
    ctx: &Context,
    append: &Append,
    leader: &LeaderHint,
    retry: &Retry,
) -> Result<Appended, Failure> {
    use v1::partition_produce_result::Outcome;
    let answer = async {
        let mut service = nodes.producer(leader)?;
        let request = nodes.request(ctx, append.wire(), retry.left());
        let response = service.produce(request).await;
        let response = response.map_err(|status| RpcError::from_status(&status))?;
        let result = response.into_inner().results.into_iter().next();
        match result.and_then(|result| result.outcome) {
            Some(Outcome::Appended(appended)) => Ok(appended),
            Some(Outcome::Error(error)) => Err(RpcError::from_partition(error)),
            None => Err(RpcError::transport("an append without an outcome")),
        }
    };
    let answer = nodes.outcome(ctx, "Produce", leader, answer.await)?;
    Ok(convert::appended(&answer))
}
