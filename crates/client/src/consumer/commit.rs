//! Commits: what is sent, when it may be sent, and what is known afterwards.
//!
//! Invariants: a member commits only for partitions that it holds at the moment of sending, and under the
//! grant under which they were processed: what was taken away and granted again does not count; a commit that
//! was refused for that reason is never tried again. Commits of one consumer follow each other.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use varve_proto::v1;
use varve_types::{GroupName, Offset, TopicName, TopicPartition, limits};

use crate::admin::Admin;
use crate::connect::Client;
use crate::error::{ClientError, RpcError};
use crate::membership::{ANSWER, SharedMembership, is_out, lock, wire_partition};
use crate::positions::Processed;

/// Work that goes on whenever the consumer is polled. The lock is never taken: it makes its holder `Sync`.
pub(crate) type Running<T> = Mutex<Pin<Box<dyn Future<Output = T> + Send>>>;

/// Makes work that can be kept.
pub(crate) fn running<T>(work: impl Future<Output = T> + Send + 'static) -> Running<T> {
    Mutex::new(Box::pin(work))
}

/// Goes on with it.
pub(crate) fn poll_running<T>(
    running: &mut Running<T>,
    cx: &mut std::task::Context<'_>,
) -> std::task::Poll<T> {
    let work = running
        .get_mut()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    work.as_mut().poll(cx)
}

/// An offset of a group, with what was said about it.
///
/// ```
/// use varve_client::CommittedOffset;
///
/// let plain: CommittedOffset = 7.into();
/// let told = CommittedOffset { metadata: "file 3".to_owned(), ..plain.clone() };
/// assert_eq!((plain.offset, told.offset), (7, 7));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset the group will read: one past the last one processed.
    pub offset: i64,
    /// Free text, at most 4096 bytes.
    pub metadata: String,
    /// Epoch of the leader that the last processed record came from.
    pub leader_epoch: Option<i64>,
}

impl From<i64> for CommittedOffset {
    fn from(offset: i64) -> Self {
        Self {
            offset,
            ..Self::default()
        }
    }
}

/// One partition of a commit.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub partition: TopicPartition,
    pub grant: u64,
    pub offset: CommittedOffset,
}

impl From<Processed> for Entry {
    fn from(processed: Processed) -> Self {
        Self {
            partition: processed.partition,
            grant: processed.grant,
            offset: processed.offset.into(),
        }
    }
}

impl Entry {
    /// # Errors
    /// What no server would take.
    pub fn check(&self) -> Result<(), ClientError> {
        let CommittedOffset {
            offset, metadata, ..
        } = &self.offset;
        if *offset < 0 {
            return Err(ClientError::InvalidOffset {
                partition: self.partition.clone(),
                offset: *offset,
            });
        }
        if metadata.len() > limits::COMMIT_METADATA_MAX_BYTES {
            return Err(ClientError::Config(format!(
                "the metadata of {} bytes for {} is too long, so nothing was committed; at most {} \
                 bytes are allowed",
                metadata.len(),
                self.partition,
                limits::COMMIT_METADATA_MAX_BYTES
            )));
        }
        Ok(())
    }

    fn to_wire(&self) -> v1::PartitionCommit {
        v1::PartitionCommit {
            topic_partition: Some(wire_partition(&self.partition)),
            offset: self.offset.offset,
            leader_epoch: self.offset.leader_epoch,
            metadata: self.offset.metadata.clone(),
        }
    }
}

/// How far a member of a group is, as part of a transaction: see [`crate::TransactionalProducer::commit_progress`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupProgress {
    /// Group.
    pub group: GroupName,
    /// The member that processed the records; empty for a group without members, and not checked then.
    pub member_id: String,
    /// Its epoch.
    pub member_epoch: i32,
    /// The next offset to read of each partition.
    pub offsets: Vec<(TopicPartition, Offset)>,
}

/// What became of a commit.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What needs no further attempt: it is committed, or refused for good.
    pub settled: Vec<Entry>,
    /// The first thing that went wrong.
    pub result: Result<(), ClientError>,
}

/// Who commits: a member of a group, or somebody on behalf of a group without members.
#[derive(Debug, Clone)]
pub(crate) struct Committer {
    pub client: Client,
    pub group: GroupName,
    pub member: Option<(Arc<str>, SharedMembership)>,
}

impl Committer {
    /// Commits, in as many calls as that takes.
    pub async fn commit(self, mut entries: Vec<Entry>) -> Outcome {
        let mut outcome = Outcome {
            settled: Vec::new(),
            result: Ok(()),
        };
        // Those that are lost already are left out; their loss is told.
        let lost = self.lost(&entries);
        if !lost.is_empty() {
            outcome.result = Err(self.fenced(None));
            let (lost, held) = entries
                .into_iter()
                .partition(|entry| lost.contains(&entry.partition));
            outcome.settled = lost;
            entries = held;
        }
        for chunk in entries.chunks(limits::REQUEST_MAX_PARTITIONS) {
            let failures = match self.send(chunk).await {
                Ok(failures) => failures,
                Err(error) => {
                    if matches!(error, ClientError::Fenced { .. }) {
                        outcome.settled.extend_from_slice(chunk);
                    }
                    outcome.result = outcome.result.and(Err(error));
                    continue;
                }
            };
            for entry in chunk {
                let failure = failures.get(&entry.partition);
                if failure.is_none_or(|error| !error.is_retryable()) {
                    outcome.settled.push(entry.clone());
                }
            }
            if let Some(error) = failures.into_values().next() {
                outcome.result = outcome.result.and(Err(error.into()));
            }
        }
        outcome
    }

    /// Partitions that this member does not hold any more, or holds under another grant.
    fn lost(&self, entries: &[Entry]) -> Vec<TopicPartition> {
        let Some((_, membership)) = &self.member else {
            return Vec::new();
        };
        let membership = lock(membership);
        let lost = entries
            .iter()
            .filter(|e| membership.grants.get(&e.partition) != Some(&e.grant));
        lost.map(|entry| entry.partition.clone()).collect()
    }

    /// Whether a partition is held under that grant for all this member knows.
    pub fn holds(&self, partition: &TopicPartition, grant: u64) -> bool {
        let member = self.member.as_ref();
        member.is_none_or(|(_, membership)| lock(membership).holds(partition, grant))
    }

    fn fenced(&self, last: Option<Arc<RpcError>>) -> ClientError {
        ClientError::Fenced {
            group: self.group.clone(),
            last,
        }
    }

    /// Who commits, at the moment of sending.
    fn standing(&self, entries: &[Entry]) -> Result<(String, i32), ClientError> {
        let Some((id, membership)) = &self.member else {
            return Ok((String::new(), 0));
        };
        if !self.lost(entries).is_empty() {
            return Err(self.fenced(None));
        }
        // A heartbeat may have raised it since the last attempt.
        let epoch = lock(membership).epoch;
        Ok((id.to_string(), epoch))
    }

    /// What was processed, and by whom.
    ///
    /// # Errors
    /// [`ClientError::Fenced`] when a partition of it is not this member's any more.
    pub fn progress(&self, processed: Vec<Processed>) -> Result<GroupProgress, ClientError> {
        let entries: Vec<Entry> = processed.into_iter().map(Entry::from).collect();
        let (member_id, member_epoch) = self.standing(&entries)?;
        let offsets = entries.into_iter().filter_map(|entry| {
            let offset = Offset::new(entry.offset.offset)?;
            Some((entry.partition, offset))
        });
        Ok(GroupProgress {
            group: self.group.clone(),
            member_id,
            member_epoch,
            offsets: offsets.collect(),
        })
    }

    /// One call, repeated where that helps. What failed, by partition.
    async fn send(
        &self,
        entries: &[Entry],
    ) -> Result<BTreeMap<TopicPartition, RpcError>, ClientError> {
        let (client, group) = (&self.client, self.group.as_str());
        let offsets: Vec<_> = entries.iter().map(Entry::to_wire).collect();
        let response = client
            .retrying(client.config().request_timeout, || async {
                let committed = client.at_coordinator(group, ANSWER, true, |address| {
                    let standing = self.standing(entries);
                    let offsets = offsets.clone();
                    async move {
                        let (member_id, member_epoch) = standing?;
                        let mut request = tonic::Request::new(v1::CommitOffsetsRequest {
                            group: group.to_owned(),
                            member_id,
                            member_epoch,
                            offsets,
                        });
                        request.set_timeout(client.config().request_timeout.min(ANSWER));
                        let mut service = client.group_service(&address, true)?;
                        Ok(service.commit_offsets(request).await?.into_inner())
                    }
                });
                match committed.await {
                    // Only joining again helps, which drops these partitions anyway.
                    Err(ClientError::Rpc(error)) if self.member.is_some() && is_out(error.kind) => {
                        Err(self.fenced(Some(error)))
                    }
                    other => other,
                }
            })
            .await?;
        let failures = response.failures.into_iter().filter_map(|failure| {
            let partition = named(failure.topic_partition?)?;
            Some((partition, RpcError::from_partition(failure.error?)))
        });
        Ok(failures.collect())
    }

    /// What the group has committed. Partitions without a commit are left out.
    pub async fn committed(
        self,
        partitions: Vec<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        let admin = Admin::new(self.client.clone());
        let mut found = BTreeMap::new();
        for chunk in partitions.chunks(limits::REQUEST_MAX_PARTITIONS) {
            let request = v1::GetOffsetsRequest {
                group: self.group.to_string(),
                partitions: chunk.iter().map(wire_partition).collect(),
                ..Default::default()
            };
            let offsets = match admin.stable_offsets(request).await {
                Ok(response) => response.offsets,
                // A group that nobody has committed for does not exist.
                Err(error) if error.kind() == Some(varve_types::ErrorKind::GroupNotFound) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            found.extend(offsets.into_iter().filter_map(|offset| {
                let partition = named(offset.topic_partition?)?;
                let committed = CommittedOffset {
                    offset: offset.offset,
                    metadata: offset.metadata,
                    leader_epoch: offset.leader_epoch,
                };
                Some((partition, committed))
            }));
        }
        Ok(found)
    }
}

fn named(partition: v1::TopicPartition) -> Option<TopicPartition> {
    let topic = TopicName::new(&partition.topic).ok()?;
    let number = varve_types::PartitionId(partition.partition);
    Some(TopicPartition::new(topic, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::ClientConfig;

    fn entry(partition: i32, grant: u64, offset: i64) -> Entry {
        let number = varve_types::PartitionId(partition);
        Entry {
            partition: TopicPartition::new("t".parse().unwrap(), number),
            grant,
            offset: offset.into(),
        }
    }

    /// A member at nobody's coordinator: whatever is sent cannot be answered.
    fn committer(grants: &[(i32, u64)]) -> Committer {
        let client = Client::new(ClientConfig {
            brokers: vec!["127.0.0.1:1".to_owned()],
            request_timeout: std::time::Duration::from_millis(50),
            ..ClientConfig::default()
        });
        let membership = SharedMembership::default();
        lock(&membership).epoch = 4;
        for (partition, grant) in grants {
            let name = entry(*partition, 0, 0).partition;
            lock(&membership).grants.insert(name, *grant);
        }
        Committer {
            client: client.unwrap(),
            group: "g".parse().unwrap(),
            member: Some(("m".into(), membership)),
        }
    }

    /// The partition was taken away and granted again meanwhile, maybe with another owner in between who has
    /// committed more.
    #[tokio::test]
    async fn work_of_an_older_grant_is_never_sent() {
        let outcome = committer(&[(0, 2)]).commit(vec![entry(0, 1, 70)]).await;
        let error = outcome.result.unwrap_err();
        assert!(matches!(error, ClientError::Fenced { last: None, .. }));
        assert!(!error.is_retryable());
        assert_eq!(
            error.kind(),
            Some(varve_types::ErrorKind::FencedMemberEpoch)
        );
        assert_eq!(outcome.settled.len(), 1, "it is not tried again");
    }

    #[tokio::test]
    async fn what_is_lost_does_not_keep_the_rest_from_being_sent() {
        let entries = vec![entry(0, 1, 70), entry(1, 1, 5)];
        let outcome = committer(&[(1, 1)]).commit(entries).await;
        assert!(matches!(outcome.result, Err(ClientError::Fenced { .. })));
        let settled: Vec<i32> = outcome
            .settled
            .iter()
            .map(|entry| entry.partition.partition.0)
            .collect();
        assert_eq!(
            settled,
            [0],
            "the other one had no answer and is tried again"
        );
    }

    #[test]
    fn what_no_server_would_take_is_refused_here() {
        let negative = entry(0, 1, -1).check().unwrap_err();
        assert!(matches!(
            negative,
            ClientError::InvalidOffset { offset: -1, .. }
        ));
        let mut long = entry(0, 1, 0);
        long.offset.metadata = "x".repeat(limits::COMMIT_METADATA_MAX_BYTES);
        assert_eq!(long.check(), Ok(()));
        long.offset.metadata.push('x');
        assert!(matches!(long.check(), Err(ClientError::Config(_))));
    }
}
