//! What every consumer is made of: the feed, and the commits of the group it works for.
//!
//! Invariants: everything that is under way is kept here, so that a caller may drop any call and lose nothing;
//! one commit is under way at a time; reading does not wait for automatic commits.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;
use varve_types::TopicPartition;

use super::batch::OpenBatch;
use super::commit::{
    CommittedOffset, Committer, Entry, GroupProgress, Outcome, Running, poll_running, running,
};
use super::feed::Feed;
use super::listener::offset_of;
use super::{ConsumerConfig, ConsumerRecord, FetchedBatch, Start};
use crate::connect::Client;
use crate::error::ClientError;

/// See the module.
pub(crate) struct Core {
    pub client: Client,
    pub feed: Feed,
    pub committer: Option<Committer>,
    pub auto_commit: Option<Duration>,
    /// When the next automatic commit is due.
    due: Option<Pin<Box<Sleep>>>,
    committing: Option<Running<Outcome>>,
    /// Records that are given one by one.
    open: Option<OpenBatch>,
}

impl Core {
    pub fn new(
        client: Client,
        config: ConsumerConfig,
        committer: Option<Committer>,
        auto_commit: Option<Duration>,
    ) -> Self {
        Self {
            feed: Feed::new(client.clone(), config),
            client,
            committer,
            auto_commit,
            due: None,
            committing: None,
            open: None,
        }
    }

    // Records.

    /// The next batch. The caller has come back from the one before.
    pub fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Result<FetchedBatch, ClientError>> {
        self.come_back();
        self.feed.poll_next(cx)
    }

    /// The caller is back, for a batch.
    pub fn come_back(&mut self) {
        self.open = None;
        self.feed.positions.come_back();
    }

    /// What was given last is given again.
    pub fn not_processed(&mut self) {
        self.open = None;
        self.feed.positions.not_processed();
    }

    /// The next record of the batch that is open, or of the next one. The caller has come back from the one
    /// before.
    pub fn poll_record(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ConsumerRecord, ClientError>> {
        loop {
            if let Some(record) = self.record_of_open() {
                return Poll::Ready(record);
            }
            self.come_back();
            let batch = ready!(self.feed.poll_next(cx))?;
            self.feed.positions.begin_records();
            if let Some(serial) = self.feed.positions.given() {
                match OpenBatch::new(serial, &batch) {
                    Ok(open) => self.open = Some(open),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
    }

    fn record_of_open(&mut self) -> Option<Result<ConsumerRecord, ClientError>> {
        let positions = &mut self.feed.positions;
        let open = self.open.as_mut()?;
        if positions.given() != Some(open.serial) {
            return None;
        }
        positions.mark();
        match open.next() {
            Some(Ok(record)) => {
                positions.record_given(record.offset);
                Some(Ok(record))
            }
            // The rest, which begins with the damage, is put back: nobody passes it unknowingly.
            Some(Err(error)) => Some(Err(error)),
            None => {
                positions.records_ended();
                None
            }
        }
    }

    // Positions.

    /// # Errors
    /// [`ClientError::NotAssigned`] of the first that is not.
    fn check<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> Result<Vec<&'a TopicPartition>, ClientError> {
        let check = |partition: &'a TopicPartition| {
            let active = self.feed.positions.is_active(partition);
            let error = || ClientError::NotAssigned(partition.clone());
            active.then_some(partition).ok_or_else(error)
        };
        partitions.into_iter().map(check).collect()
    }

    pub fn pause<'a>(
        &mut self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> Result<(), ClientError> {
        for partition in self.check(partitions)? {
            self.feed.positions.pause(partition);
        }
        Ok(())
    }

    pub fn resume<'a>(
        &mut self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> Result<(), ClientError> {
        for partition in self.check(partitions)? {
            self.feed.positions.resume(partition);
        }
        Ok(())
    }

    pub async fn seek(
        &mut self,
        partition: &TopicPartition,
        to: Start,
    ) -> Result<i64, ClientError> {
        self.check([partition])?;
        let within = self.feed.config().open_timeout;
        let offset = offset_of(&self.client, within, partition, to).await?;
        self.feed.seek(partition, offset)?;
        Ok(offset)
    }

    pub fn position(&self, partition: &TopicPartition) -> Result<i64, ClientError> {
        let position = self.feed.positions.position(partition);
        position.ok_or_else(|| ClientError::NotAssigned(partition.clone()))
    }

    // Commits.

    pub fn committer(&self) -> Result<Committer, ClientError> {
        self.committer.clone().ok_or_else(|| {
            ClientError::Config(
                "this consumer has no group, so nothing was committed; open it in a group"
                    .to_owned(),
            )
        })
    }

    /// Goes on with a commit that is under way, and begins an automatic one when it is due.
    pub fn poll_commits(&mut self, cx: &mut Context<'_>) {
        loop {
            match self.poll_commit(cx) {
                Poll::Pending => return,
                Poll::Ready(Err(error)) => self.warn(&error),
                Poll::Ready(Ok(())) => {}
            }
            let Some(interval) = self.auto_commit else {
                return;
            };
            if !self.feed.positions.is_dirty() {
                self.due = None;
                return;
            }
            let due = self
                .due
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(interval)));
            if due.as_mut().poll(cx).is_pending() {
                return;
            }
            self.due = None;
            self.begin_commit();
        }
    }

    /// What became of the commit that is under way, if one is.
    fn poll_commit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let Some(committing) = &mut self.committing else {
            return Poll::Ready(Ok(()));
        };
        let outcome = ready!(poll_running(committing, cx));
        self.committing = None;
        for entry in outcome.settled {
            let offset = entry.offset.offset;
            let positions = &mut self.feed.positions;
            positions.settled(&entry.partition, entry.grant, offset);
        }
        Poll::Ready(outcome.result)
    }

    fn warn(&self, error: &ClientError) {
        let group = self.committer.as_ref().map(|c| c.group.as_str());
        tracing::warn!(group, %error, "could not commit offsets");
    }

    /// As [`Core::poll_commit`], for a commit that nobody asked for.
    pub fn poll_quiet_commit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Err(error) = ready!(self.poll_commit(cx)) {
            self.warn(&error);
        }
        Poll::Ready(())
    }

    /// Begins to commit what was processed, if there is anything. None may be under way.
    pub fn begin_commit(&mut self) {
        let processed = self.feed.positions.processed();
        if !processed.is_empty() {
            self.begin(processed.into_iter().map(Entry::from).collect());
        }
    }

    fn begin(&mut self, entries: Vec<Entry>) {
        assert!(self.committing.is_none(), "one commit at a time");
        if let Some(committer) = self.committer.clone() {
            self.committing = Some(running(committer.commit(entries)));
        }
    }

    pub async fn commit(&mut self) -> Result<(), ClientError> {
        self.committer()?;
        self.feed.positions.mark();
        std::future::poll_fn(|cx| self.poll_quiet_commit(cx)).await;
        self.begin_commit();
        std::future::poll_fn(|cx| self.poll_commit(cx)).await
    }

    /// What was processed and is not committed. What was given last counts as processed.
    pub fn progress(&mut self) -> Result<GroupProgress, ClientError> {
        self.committer()?;
        self.feed.positions.mark();
        let processed = self.feed.positions.processed();
        self.committer()?.progress(processed)
    }

    pub async fn commit_offsets<O: Into<CommittedOffset>>(
        &mut self,
        offsets: impl IntoIterator<Item = (TopicPartition, O)>,
    ) -> Result<(), ClientError> {
        self.committer()?;
        let mut entries = BTreeMap::new();
        for (partition, offset) in offsets {
            let grant = self.feed.positions.grant(&partition);
            let entry = Entry {
                grant: grant.ok_or_else(|| ClientError::NotAssigned(partition.clone()))?,
                partition: partition.clone(),
                offset: offset.into(),
            };
            entry.check()?;
            entries.insert(partition, entry);
        }
        if entries.is_empty() {
            return Ok(());
        }
        std::future::poll_fn(|cx| self.poll_quiet_commit(cx)).await;
        self.begin(entries.into_values().collect());
        std::future::poll_fn(|cx| self.poll_commit(cx)).await
    }

    /// The last commit: the caller is done with everything.
    pub async fn close(&mut self) -> Result<(), ClientError> {
        self.come_back();
        match self.auto_commit {
            Some(_) if self.committer.is_some() => self.commit().await,
            _ => std::future::poll_fn(|cx| self.poll_commit(cx)).await,
        }
    }
}
