//! What every consumer can do, written once, and its streams.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;

use super::{ConsumerRecord, FetchedBatch};
use crate::error::ClientError;

/// A consumer as its streams see it. `None`: there will be nothing more.
pub trait Polled {
    /// The next batch.
    fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<FetchedBatch, ClientError>>>;
    /// The next record.
    fn poll_record(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ConsumerRecord, ClientError>>>;
}

/// Batches of a consumer as a stream. It has no state: dropping it loses nothing, and a new one goes on.
#[derive(Debug)]
pub struct Batches<'a, C> {
    pub(crate) consumer: &'a mut C,
}

/// Records of a consumer as a stream. It has no state: dropping it loses nothing, and a new one goes on.
#[derive(Debug)]
pub struct RecordStream<'a, C> {
    pub(crate) consumer: &'a mut C,
}

impl<C> Batches<'_, C> {
    /// The consumer, to commit, pause or seek between two batches.
    pub const fn consumer(&mut self) -> &mut C {
        self.consumer
    }
}

impl<C> RecordStream<'_, C> {
    /// The consumer, to commit, pause or seek between two records.
    pub const fn consumer(&mut self) -> &mut C {
        self.consumer
    }
}

impl<C: Polled> Stream for Batches<'_, C> {
    type Item = Result<FetchedBatch, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.consumer.poll_batch(cx)
    }
}

impl<C: Polled> Stream for RecordStream<'_, C> {
    type Item = Result<ConsumerRecord, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.consumer.poll_record(cx)
    }
}

/// The verbs of a type that is [`Polled`] and has a `core`.
macro_rules! verbs {
    ($consumer:ident) => {
        impl $consumer {
            /// The next batch, waiting for one no longer than `timeout`; zero: only what is there. `None`: nothing
            /// came. What was given before counts as processed with this call. May be dropped and called again
            /// without loss.
            ///
            /// # Errors
            /// [`ClientError`] of one partition, which is then not read any further until it is sought, while
            /// others go on with the next call; or what ends the consumer.
            pub async fn poll(
                &mut self,
                timeout: std::time::Duration,
            ) -> Result<Option<$crate::FetchedBatch>, ClientError> {
                let batch =
                    std::future::poll_fn(|cx| $crate::consumer::Polled::poll_batch(self, cx));
                match tokio::time::timeout(timeout, batch).await {
                    Ok(Some(batch)) => batch.map(Some),
                    Ok(None) | Err(_) => Ok(None),
                }
            }

            /// Batches as a stream. A batch counts as processed when the next one is asked for. After an error
            /// the stream goes on, as far as there is anything.
            pub const fn stream(&mut self) -> $crate::Batches<'_, Self> {
                $crate::Batches { consumer: self }
            }

            /// Single records as a stream, without a copy. A record counts as processed when the next one is
            /// asked for. After an error the stream goes on, as far as there is anything; a damaged record is
            /// an error again and again, until somebody seeks past it.
            pub const fn records(&mut self) -> $crate::RecordStream<'_, Self> {
                $crate::RecordStream { consumer: self }
            }

            /// Gives no records of these partitions until they are resumed. Others go on, the membership stays
            /// alive, and what was fetched already waits. A partition that goes and comes back is not paused.
            ///
            /// # Errors
            /// [`ClientError::NotAssigned`]; nothing was changed.
            pub fn pause<'a>(
                &mut self,
                partitions: impl IntoIterator<Item = &'a TopicPartition>,
            ) -> Result<(), ClientError> {
                self.core.pause(partitions)
            }

            /// Goes on with partitions that are paused, from where they were. Those that are not are let be.
            ///
            /// # Errors
            /// [`ClientError::NotAssigned`]; nothing was changed.
            pub fn resume<'a>(
                &mut self,
                partitions: impl IntoIterator<Item = &'a TopicPartition>,
            ) -> Result<(), ClientError> {
                self.core.resume(partitions)
            }

            /// Partitions that are paused.
            #[must_use]
            pub fn paused(&self) -> std::collections::BTreeSet<TopicPartition> {
                self.core.feed.positions.paused()
            }

            /// Goes on elsewhere in a partition, from the next record given on: nothing fetched from the old place
            /// is given any more. The new position. What was processed at the old place and not committed yet is
            /// not committed automatically any more, and a seek alone commits nothing. Also the way to go on
            /// with a partition that failed. Dropping the call before its end changes nothing.
            ///
            /// # Errors
            /// [`ClientError::NotAssigned`]; [`ClientError::InvalidOffset`] for a negative number; or why the
            /// offset of a place cannot be found. Nothing was changed. An offset that is not in the log is
            /// dealt with later, as [`ConsumerConfig::out_of_range`]($crate::ConsumerConfig) says.
            pub async fn seek(
                &mut self,
                partition: &TopicPartition,
                to: $crate::Start,
            ) -> Result<i64, ClientError> {
                self.core.seek(partition, to).await
            }

            /// The offset of the next record to be given.
            ///
            /// # Errors
            /// [`ClientError::NotAssigned`].
            pub fn position(&self, partition: &TopicPartition) -> Result<i64, ClientError> {
                self.core.position(partition)
            }

            /// Partitions that are read now.
            #[must_use]
            pub const fn assignment(&self) -> &std::collections::BTreeSet<TopicPartition> {
                self.core.feed.positions.assigned()
            }

            /// What the group has committed for these partitions, whoever did. Those without a commit are left
            /// out.
            ///
            /// # Errors
            /// [`ClientError::Config`] without a group; otherwise as every call.
            pub async fn committed<'a>(
                &self,
                partitions: impl IntoIterator<Item = &'a TopicPartition>,
            ) -> Result<
                std::collections::BTreeMap<TopicPartition, $crate::CommittedOffset>,
                ClientError,
            > {
                let partitions = partitions.into_iter().cloned().collect();
                self.core.committer()?.committed(partitions).await
            }

            /// Commits what was processed, and waits until that is durable. The caller is back with this call:
            /// what was given last counts as processed, unless something else was said.
            ///
            /// # Errors
            /// [`ClientError::Config`] without a group; [`ClientError::Fenced`] when the partitions may belong to
            /// others already; otherwise as every call, and what was not committed is tried again with the next
            /// commit. May be dropped: what was begun goes on with the next call.
            pub async fn commit(&mut self) -> Result<(), ClientError> {
                self.core.commit().await
            }

            /// What was processed and is not committed by this consumer, to be committed in a transaction instead
            /// ([`TransactionalProducer::commit_progress`]($crate::TransactionalProducer::commit_progress)); what was
            /// given last counts as processed. Turn automatic commits off. After an abort, go back with
            /// [`seek`](Self::seek), or begin anew.
            ///
            /// # Errors
            /// [`ClientError::Config`] without a group; [`ClientError::Fenced`] when some partition may belong to
            /// others already: abort then.
            pub fn progress(&mut self) -> Result<$crate::GroupProgress, ClientError> {
                self.core.progress()
            }

            /// Commits these offsets, each one past the last record that was processed, and waits until that is
            /// durable. The last batch is not touched.
            ///
            /// ```no_run
            /// # async fn example(mut consumer: varve_client::Consumer) -> Result<(), varve_client::ClientError> {
            /// use varve_client::CommittedOffset;
            /// use varve_types::{PartitionId, TopicPartition};
            ///
            /// let partition = TopicPartition::new("orders".parse().unwrap(), PartitionId(0));
            /// consumer.commit_offsets([(partition.clone(), 42)]).await?;
            /// let told = CommittedOffset { metadata: "file 3".to_owned(), ..42.into() };
            /// consumer.commit_offsets([(partition, told)]).await?;
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            /// [`ClientError::NotAssigned`] and [`ClientError::InvalidOffset`], when nothing was committed; otherwise
            /// as [`Self::commit`].
            pub async fn commit_offsets<O: Into<$crate::CommittedOffset>>(
                &mut self,
                offsets: impl IntoIterator<Item = (TopicPartition, O)>,
            ) -> Result<(), ClientError> {
                self.core.commit_offsets(offsets).await
            }

            /// Says that the last batch was processed only up to `next_offset`: the rest is given again.
            pub fn processed_up_to(&mut self, next_offset: i64) {
                self.core.feed.positions.processed_up_to(next_offset);
            }

            /// Says that what was given last, a batch or a record, was not processed: it is given again.
            pub fn not_processed(&mut self) {
                self.core.not_processed();
            }
        }
    };
}

pub(crate) use verbs;
