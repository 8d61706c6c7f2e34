//! The transactional producer: records in several partitions, and commits of offsets, that count together or not
//! at all (KIP-98, with the second part of KIP-890).
//!
//! Invariants: nothing is committed of which a delivery failed; each end of a transaction raises the epoch of the
//! session, so what was sent for one transaction never counts for the next; nothing of a transaction is unsettled
//! when the next session is taken over. What a call may be followed by is decided by `Stage`, without I/O.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use varve_proto::v1;
use varve_types::{
    Acks, ErrorKind, GroupName, Offset, Outcome, ProducerId, Retry, TopicName, TopicPartition,
    TransactionalId, limits,
};

use crate::backoff::{Backoff, Random};
use crate::connect::Client;
use crate::consumer::GroupProgress;
use crate::delivery::DeliveryHandle;
use crate::error::{ClientError, RpcError};
use crate::producer::{Producer, ProducerConfig, RecordRef};

/// Settings of a [`TransactionalProducer`].
#[derive(Debug, Clone)]
pub struct TransactionalConfig {
    /// How records are sent. `acks` is all and `idempotent` is on, whatever they say here; `name` must be empty;
    /// `delivery_timeout` bounds every call of the transaction as well.
    pub producer: ProducerConfig,
    /// The cluster aborts a transaction that is open longer: 1 s to 15 min.
    pub transaction_timeout: Duration,
}

impl Default for TransactionalConfig {
    fn default() -> Self {
        Self {
            producer: ProducerConfig::default(),
            transaction_timeout: Duration::from_secs(60),
        }
    }
}

/// Why a call about a transaction failed, by what can be done about it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// Another producer has taken over the transactional id. This one can do nothing more.
    #[error("another producer with this transactional id has fenced this one; close it: {0}")]
    Fenced(ClientError),
    /// The transaction cannot be committed. Call [`TransactionalProducer::abort`], then do it again.
    #[error("the transaction cannot be committed; abort it and repeat it: {0}")]
    MustAbort(ClientError),
    /// There was no answer: how the transaction ended is not known. Make the same call again; a repeat is harmless.
    #[error("the transaction may or may not have ended; repeat the same call: {0}")]
    Unsure(ClientError),
    /// The call did nothing, and the transaction is as it was.
    #[error("{0}")]
    Refused(ClientError),
    /// The call does not fit what went before. Nothing was done.
    #[error("{0}; nothing was done")]
    OutOfTurn(&'static str),
}

impl TransactionError {
    /// What the cluster or the connection said, where it said something.
    #[must_use]
    pub const fn cause(&self) -> Option<&ClientError> {
        match self {
            Self::Fenced(error)
            | Self::MustAbort(error)
            | Self::Unsure(error)
            | Self::Refused(error) => Some(error),
            Self::OutOfTurn(_) => None,
        }
    }
}

/// What may be called next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No transaction.
    Ready,
    /// One is open.
    Open,
    /// One is open that can only be aborted.
    Broken,
    /// One was told to end this way, and no answer came.
    Ending { commit: bool },
    /// The transactional id is somebody else's.
    Fenced,
}

const IS_FENCED: TransactionError =
    TransactionError::OutOfTurn("another producer with this transactional id has fenced this one");

impl Stage {
    fn begin(self) -> Result<Self, TransactionError> {
        match self {
            Self::Ready => Ok(Self::Open),
            Self::Open | Self::Broken => Err(TransactionError::OutOfTurn(
                "a transaction is open: commit or abort it first",
            )),
            Self::Ending { .. } => Err(TransactionError::OutOfTurn(
                "the last transaction may or may not have ended: repeat that call first",
            )),
            Self::Fenced => Err(IS_FENCED),
        }
    }

    /// Whether something may be added to the transaction.
    fn add(self) -> Result<(), TransactionError> {
        match self {
            Self::Open => Ok(()),
            Self::Ready => Err(TransactionError::OutOfTurn(
                "no transaction is open: begin one first",
            )),
            Self::Broken => Err(TransactionError::OutOfTurn(
                "the transaction can no longer be committed: abort it",
            )),
            Self::Ending { .. } => Err(TransactionError::OutOfTurn(
                "the transaction is being ended: repeat that call first",
            )),
            Self::Fenced => Err(IS_FENCED),
        }
    }

    /// Whether it may be told to end this way.
    fn end(self, commit: bool) -> Result<(), TransactionError> {
        match (self, commit) {
            (Self::Broken, false) => Ok(()),
            (Self::Ending { commit: begun }, _) if begun == commit => Ok(()),
            (Self::Ending { commit: true }, _) => Err(TransactionError::OutOfTurn(
                "the transaction may be committed already: call commit again",
            )),
            (Self::Ending { commit: false }, _) => Err(TransactionError::OutOfTurn(
                "the transaction may be aborted already: call abort again",
            )),
            (stage, _) => stage.add(),
        }
    }

    /// Where a call that failed leaves the transaction, and what its caller is told. `ending`: it was to end it.
    fn failed(self, error: ClientError, ending: Option<bool>) -> (Self, TransactionError) {
        match (error.kind(), ending) {
            (Some(ErrorKind::ProducerFenced), _) => (Self::Fenced, TransactionError::Fenced(error)),
            (_, Some(commit)) if again(&error) => {
                (Self::Ending { commit }, TransactionError::Unsure(error))
            }
            _ => (Self::Broken, TransactionError::MustAbort(error)),
        }
    }
}

/// Whether the same call may succeed, when it is harmless to repeat.
fn again(error: &ClientError) -> bool {
    match error.kind() {
        None => error.is_retryable(),
        Some(ErrorKind::NotCoordinator | ErrorKind::NotLeader) => true,
        // Where it is not known whether it was done, it may be: the next coordinator finds what the last has written.
        Some(kind) => kind.retry() == Retry::Later || kind.outcome() == Outcome::Unknown,
    }
}

/// Whether the coordinator has ended the transaction by itself, or forgotten the session: a new one is to begin.
fn over(error: &ClientError) -> bool {
    matches!(
        error.kind(),
        Some(ErrorKind::TransactionAborted | ErrorKind::UnknownProducer)
    )
}

/// Calls of the coordinator, which any node passes on.
#[derive(Debug, Clone)]
struct Coordinator {
    client: Client,
    id: TransactionalId,
    timeout: Duration,
    patience: Duration,
}

impl Coordinator {
    /// Repeats a call that is harmless to repeat, until it is answered for good or patience ends.
    async fn repeat<T, F>(&self, call: impl Fn(String) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let until = Instant::now() + self.patience;
        let mut random = Random::new(uuid::Uuid::new_v4().as_u64_pair().0);
        let (mut failures, mut unanswered) = (0, false);
        loop {
            let error = match self.client.any_node(&call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error.after(&mut unanswered),
            };
            failures += 1;
            let pause = Backoff::default().pause(failures, &mut random);
            let pause = error.to_rpc().retry_delay.unwrap_or(pause);
            if !again(&error) || Instant::now() + pause >= until {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn init(&self, current: Option<ProducerId>) -> Result<ProducerId, ClientError> {
        let request = v1::InitTransactionsRequest {
            transactional_id: self.id.to_string(),
            transaction_timeout: prost_types::Duration::try_from(self.timeout).ok(),
            current: current.map(wire),
        };
        let answer = self.repeat(|address| {
            let request = self.client.with_deadline(request.clone());
            async move {
                let mut service = self.client.transaction_service(&address, false)?;
                Ok(service.init_transactions(request).await?.into_inner())
            }
        });
        session("InitTransactions", answer.await?.session)
    }

    fn end_request(&self, producer: ProducerId, commit: bool) -> v1::EndTransactionRequest {
        let outcome = match commit {
            true => v1::TransactionOutcome::Commit,
            false => v1::TransactionOutcome::Abort,
        };
        v1::EndTransactionRequest {
            transactional_id: self.id.to_string(),
            session: Some(wire(producer)),
            outcome: outcome.into(),
        }
    }

    async fn end(&self, producer: ProducerId, commit: bool) -> Result<ProducerId, ClientError> {
        let request = self.end_request(producer, commit);
        let answer = self.repeat(|address| {
            let request = self.client.with_deadline(request.clone());
            async move {
                let mut service = self.client.transaction_service(&address, false)?;
                Ok(service.end_transaction(request).await?.into_inner())
            }
        });
        session("EndTransaction", answer.await?.session)
    }

    async fn commit_offsets(
        &self,
        request: v1::CommitTransactionOffsetsRequest,
    ) -> Result<(), ClientError> {
        let answer = self.repeat(|address| {
            let request = self.client.with_deadline(request.clone());
            async move {
                let mut service = self.client.transaction_service(&address, false)?;
                let answer = service.commit_transaction_offsets(request).await?;
                let mut errors = answer.into_inner().results.into_iter();
                match errors.find_map(|result| result.error) {
                    Some(error) => Err(RpcError::from_partition(error).into()),
                    None => Ok(()),
                }
            }
        });
        answer.await
    }
}

fn wire(producer: ProducerId) -> v1::TransactionSession {
    v1::TransactionSession {
        producer_id: producer.id,
        producer_epoch: producer.epoch.into(),
    }
}

fn session(method: &str, raw: Option<v1::TransactionSession>) -> Result<ProducerId, ClientError> {
    let epoch = |raw: &v1::TransactionSession| i16::try_from(raw.producer_epoch).ok();
    match raw.and_then(|raw| Some((raw.producer_id, epoch(&raw)?))) {
        Some((id, epoch)) if id >= 0 && epoch >= 0 => Ok(ProducerId { id, epoch }),
        _ => Err(ClientError::Protocol(format!(
            "{method} returned a session that is not valid"
        ))),
    }
}

/// See the module. Dropping it with an open transaction aborts that, if the cluster can be reached; otherwise the
/// transaction's timeout does.
#[derive(Debug)]
pub struct TransactionalProducer {
    coordinator: Coordinator,
    producer: Producer,
    session: ProducerId,
    stage: Stage,
    /// Something of the transaction may have reached the cluster.
    touched: AtomicBool,
}

impl TransactionalProducer {
    /// Opens the session of a transactional id: fences whoever had it, and ends the transaction that it left
    /// behind.
    ///
    /// # Errors
    /// [`TransactionError::Refused`] when a setting is out of range, or the cluster refuses or cannot be reached.
    pub async fn open(
        client: Client,
        id: TransactionalId,
        config: TransactionalConfig,
    ) -> Result<Self, TransactionError> {
        if !config.producer.name.is_empty() {
            let text = "a transactional producer uses its transactional id as its name";
            let error = ClientError::Config(text.to_owned());
            return Err(TransactionError::Refused(error));
        }
        let producer = ProducerConfig {
            acks: Acks::All,
            idempotent: true,
            ..config.producer
        };
        let coordinator = Coordinator {
            client: client.clone(),
            id: id.clone(),
            timeout: config.transaction_timeout,
            patience: producer.delivery_timeout,
        };
        let producer =
            Producer::start(client, producer, Some(id)).map_err(TransactionError::Refused)?;
        let session = coordinator.init(None).await;
        let session = session.map_err(TransactionError::Refused)?;
        producer.set_session(session);
        Ok(Self {
            coordinator,
            producer,
            session,
            stage: Stage::Ready,
            touched: AtomicBool::new(false),
        })
    }

    /// The transactional id.
    #[must_use]
    pub const fn id(&self) -> &TransactionalId {
        &self.coordinator.id
    }

    /// The session in use.
    #[must_use]
    pub const fn session(&self) -> ProducerId {
        self.session
    }

    /// Begins a transaction. Nobody is asked: it begins with what is first sent.
    ///
    /// # Errors
    /// [`TransactionError::OutOfTurn`] when one is open.
    pub fn begin(&mut self) -> Result<(), TransactionError> {
        self.stage = self.stage.begin()?;
        *self.touched.get_mut() = false;
        Ok(())
    }

    /// Sends a record as part of the transaction, as [`Producer::send`]: the handle resolves when it is
    /// acknowledged, which says nothing of the transaction yet.
    ///
    /// # Errors
    /// [`TransactionError::MustAbort`] when an earlier record failed, [`TransactionError::Refused`] when this one
    /// was not taken, [`TransactionError::OutOfTurn`] without a transaction.
    pub async fn send(
        &self,
        topic: &TopicName,
        record: RecordRef<'_>,
    ) -> Result<DeliveryHandle, TransactionError> {
        self.check_whole()?;
        self.touched.store(true, Ordering::Relaxed);
        let sent = self.producer.send(topic, record).await;
        sent.map_err(TransactionError::Refused)
    }

    /// As [`Self::send`], without a handle: [`Self::commit`] fails when the delivery did.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn enqueue(
        &self,
        topic: &TopicName,
        record: RecordRef<'_>,
    ) -> Result<(), TransactionError> {
        self.check_whole()?;
        self.touched.store(true, Ordering::Relaxed);
        let taken = self.producer.enqueue(topic, record).await;
        taken.map_err(TransactionError::Refused)
    }

    fn check_whole(&self) -> Result<(), TransactionError> {
        self.stage.add()?;
        match self.producer.failure() {
            Some(error) => Err(TransactionError::MustAbort(error)),
            None => Ok(()),
        }
    }

    /// Commits offsets of a consumer group as part of the transaction: the next offset to read of each partition.
    /// `member_id` and `member_epoch`: who read the records; an empty id is not checked.
    ///
    /// # Errors
    /// [`TransactionError::MustAbort`], [`TransactionError::Fenced`], or [`TransactionError::OutOfTurn`] without a
    /// transaction.
    pub async fn commit_offsets(
        &mut self,
        group: &GroupName,
        member_id: &str,
        member_epoch: i32,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), TransactionError> {
        self.check_whole()?;
        let commit = |(partition, offset): &(TopicPartition, Offset)| v1::PartitionCommit {
            topic_partition: Some(v1::TopicPartition {
                topic: partition.topic.to_string(),
                partition: partition.partition.0,
            }),
            offset: offset.get(),
            ..Default::default()
        };
        for some in offsets.chunks(limits::REQUEST_MAX_PARTITIONS) {
            *self.touched.get_mut() = true;
            let request = v1::CommitTransactionOffsetsRequest {
                transactional_id: self.coordinator.id.to_string(),
                session: Some(wire(self.session)),
                group: group.to_string(),
                member_id: member_id.to_owned(),
                member_epoch,
                offsets: some.iter().map(commit).collect(),
            };
            if let Err(error) = self.coordinator.commit_offsets(request).await {
                return Err(self.fail(error, None));
            }
        }
        Ok(())
    }

    /// Commits what a consumer has processed as part of the transaction
    /// ([`GroupConsumer::progress`](crate::GroupConsumer::progress)): with it, records that were read count as read
    /// exactly when those that were made of them count.
    ///
    /// # Errors
    /// As [`Self::commit_offsets`].
    pub async fn commit_progress(
        &mut self,
        progress: &GroupProgress,
    ) -> Result<(), TransactionError> {
        let GroupProgress {
            group,
            member_id,
            member_epoch,
            offsets,
        } = progress;
        self.commit_offsets(group, member_id, *member_epoch, offsets)
            .await
    }

    fn fail(&mut self, error: ClientError, ending: Option<bool>) -> TransactionError {
        let (stage, error) = self.stage.failed(error, ending);
        self.stage = stage;
        error
    }

    /// Waits for everything that was sent, and commits the transaction.
    ///
    /// # Errors
    /// [`TransactionError::MustAbort`] when a delivery failed or the cluster has aborted the transaction,
    /// [`TransactionError::Unsure`] when there was no answer, [`TransactionError::Fenced`], or
    /// [`TransactionError::OutOfTurn`] without a transaction.
    pub async fn commit(&mut self) -> Result<(), TransactionError> {
        self.stage.end(true)?;
        if let Err(error) = self.producer.flush().await {
            // Which session a leader does not take, it cannot know: the coordinator does, when asked to abort.
            self.stage = Stage::Broken;
            return Err(TransactionError::MustAbort(error));
        }
        self.finish(true).await
    }

    /// Gives up what was sent, and aborts the transaction: none of it will ever be visible.
    ///
    /// # Errors
    /// [`TransactionError::Unsure`] when there was no answer, [`TransactionError::Fenced`], or
    /// [`TransactionError::OutOfTurn`] without a transaction.
    pub async fn abort(&mut self) -> Result<(), TransactionError> {
        self.stage.end(false)?;
        let given_up = RpcError {
            kind: Some(ErrorKind::TransactionAborted),
            code: tonic::Code::Aborted,
            ..RpcError::transport(
                "the transaction was aborted before these records were acknowledged",
            )
        };
        self.producer.discard(given_up.into()).await;
        self.finish(false).await
    }

    /// Tells the coordinator how it ends, and takes over the next session.
    async fn finish(&mut self, commit: bool) -> Result<(), TransactionError> {
        if !*self.touched.get_mut() {
            self.stage = Stage::Ready;
            return Ok(());
        }
        let mut ended = self.coordinator.end(self.session, commit).await;
        if let Err(error) = &ended
            && over(error)
            && !commit
        {
            // It is aborted already.
            ended = self.coordinator.init(Some(self.session)).await;
        }
        match ended {
            Ok(session) => {
                self.session = session;
                self.producer.set_session(session);
                self.stage = Stage::Ready;
                Ok(())
            }
            Err(error) => Err(self.fail(error, Some(commit))),
        }
    }

    /// Ends the producer. A transaction that is open is aborted.
    ///
    /// # Errors
    /// As [`Self::abort`].
    pub async fn close(mut self) -> Result<(), TransactionError> {
        match self.stage {
            Stage::Open | Stage::Broken | Stage::Ending { commit: false } => self.abort().await,
            Stage::Ready | Stage::Ending { commit: true } | Stage::Fenced => Ok(()),
        }
    }
}

impl Drop for TransactionalProducer {
    fn drop(&mut self) {
        let open = matches!(self.stage, Stage::Open | Stage::Broken);
        if !open || !*self.touched.get_mut() {
            return;
        }
        // Outside a runtime nobody could carry it out.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (coordinator, session) = (self.coordinator.clone(), self.session);
        runtime.spawn(async move {
            if let Err(error) = coordinator.end(session, false).await {
                let id = coordinator.id;
                tracing::debug!(%id, %error, "an open transaction is left to time out");
            }
        });
    }
}

#[cfg(test)]
#[path = "transactional_tests.rs"]
mod tests;
