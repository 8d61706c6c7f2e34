//! Partitions that come later: of topics that a consumer reads whole, and of topics that a pattern matches.
//!
//! Invariants: a partition is found once; one that cannot be placed yet, because it has no leader, is found again by a
//! later look. What is new here is read from its first record, however late it is found.

use std::collections::BTreeMap;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use varve_proto::v1;
use varve_types::{PartitionId, TopicName, TopicPartition};

use super::place::{Assignment, End, Resolved, Start, resolve};
use crate::admin::Admin;
use crate::connect::Client;
use crate::error::ClientError;

/// Time between two looks at topics that are named.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two looks at all topics.
const LOOK_AT_ALL: Duration = Duration::from_secs(3);

/// Topics that are read whole.
#[derive(Debug, Clone)]
pub enum Topics {
    /// These.
    Named(Vec<TopicName>),
    /// All whose names match; internal topics never do.
    Matching(regex::Regex),
}

/// Partitions as they are found.
pub(crate) struct Additions {
    found: mpsc::UnboundedReceiver<(TopicPartition, Resolved)>,
    _watch: AbortOnDropHandle<()>,
}

impl Additions {
    /// Looks for partitions other than `known`.
    pub fn watch(client: Client, topics: Topics, known: &[TopicPartition]) -> Self {
        let (tell, found) = mpsc::unbounded_channel();
        let mut counts: Counts = BTreeMap::new();
        for partition in known {
            let count = counts.entry(partition.topic.clone()).or_default();
            *count = (*count).max(partition.partition.0 + 1);
        }
        let watch = tokio::spawn(async move {
            let pause = match topics {
                Topics::Named(_) => LOOK,
                Topics::Matching(_) => LOOK_AT_ALL,
            };
            while !tell.is_closed() {
                match look(&client, &topics, &mut counts).await {
                    Ok(added) => added.into_iter().for_each(|one| {
                        let _ = tell.send(one);
                    }),
                    Err(error) => tracing::debug!(%error, "could not look for new partitions"),
                }
                tokio::time::sleep(pause).await;
            }
        });
        Self {
            found,
            _watch: AbortOnDropHandle::new(watch),
        }
    }

    /// The next one that was found. Pending, with a waker, while there is none.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(TopicPartition, Resolved)> {
        match self.found.poll_recv(cx) {
            Poll::Ready(Some(found)) => Poll::Ready(found),
            // The task lives as long as this.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Partitions of topics, by what was found of them.
pub(crate) type Counts = BTreeMap<TopicName, i32>;

/// How many partitions topics have at present. Those that do not exist are left out.
async fn counts(client: &Client, topics: &Topics) -> Result<Counts, ClientError> {
    match topics {
        Topics::Named(names) => counts_of(client, names).await,
        Topics::Matching(pattern) => counts_of_all(client, |name| pattern.is_match(name)).await,
    }
}

/// As [`counts`], of topics by name.
pub(crate) async fn counts_of(client: &Client, names: &[TopicName]) -> Result<Counts, ClientError> {
    let request = v1::GetMetadataRequest {
        topics: names.iter().map(ToString::to_string).collect(),
        all_topics: false,
    };
    let metadata = Admin::new(client.clone()).get_metadata(request).await?;
    let exist = metadata.topics.into_iter().filter(|t| t.error.is_none());
    let count = |topic: v1::TopicMetadata| {
        let count = i32::try_from(topic.partitions.len()).ok()?;
        Some((TopicName::new(&topic.topic).ok()?, count))
    };
    Ok(exist.filter_map(count).collect())
}

/// As [`counts`], of all topics but internal ones whose names are wanted.
pub(crate) async fn counts_of_all(
    client: &Client,
    wanted: impl Fn(&str) -> bool,
) -> Result<Counts, ClientError> {
    let topics = Admin::new(client.clone()).all_topics("", false).await?;
    let wanted = topics.into_iter().filter(|topic| wanted(&topic.name));
    let count = |topic: v1::Topic| Some((TopicName::new(&topic.name).ok()?, topic.partition_count));
    Ok(wanted.filter_map(count).collect())
}

/// What there is beyond `known`, which becomes known by that.
async fn look(
    client: &Client,
    topics: &Topics,
    known: &mut Counts,
) -> Result<Vec<(TopicPartition, Resolved)>, ClientError> {
    let mut added = Vec::new();
    for (topic, count) in counts(client, topics).await? {
        let before = known.get(&topic).copied().unwrap_or(0);
        if count <= before {
            continue;
        }
        let new: Vec<Assignment> = (before..count)
            .map(|partition| Assignment {
                topic: topic.clone(),
                partition,
                start: Start::Earliest,
                end: End::Never,
            })
            .collect();
        let within = client.config().request_timeout;
        let resolved = match resolve(client, within, &new).await {
            Ok(resolved) => resolved,
            Err(error) => {
                tracing::debug!(%topic, %error, "new partitions cannot be read yet");
                continue;
            }
        };
        let place = |at: Assignment| TopicPartition::new(at.topic, PartitionId(at.partition));
        added.extend(new.into_iter().map(place).zip(resolved));
        known.insert(topic, count);
    }
    let mut named: Vec<String> = added.iter().map(|(at, _)| at.topic.to_string()).collect();
    named.dedup();
    // What was found is known from here on and must be told: who reads it looks for its leader again.
    if !named.is_empty()
        && let Err(error) = client.refresh(&named).await
    {
        tracing::debug!(%error, "the leaders of new partitions are not known yet");
    }
    Ok(added)
}
