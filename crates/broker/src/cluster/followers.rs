//! The leader's side of replication connections: what is due to one follower, and its records, read when the
//! connection has room for them.
//!
//! Invariants: lanes never wait here; records that are sent lie at or above the leader's log start and were
//! read while this node led in the epoch that granted them; at most one fetch of a partition waits here.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use varve_metadata::PartitionKey;
use varve_metadata::log::Later;
use varve_partition::{FetchId, FetchRefusal};
use varve_storage::{ReadMode, ReadOutcome, ReadRange};
use varve_types::{LeaderEpoch, NodeId, Offset};

use crate::lane::{Asked, Command};
use crate::partition::Partition;
use crate::peer::{Answer, Answers, Records, Tell, ToLeader};
use crate::registry::Registry;
use crate::work::blocking;

/// Bytes of one partition in one answer; one batch may be more.
const FETCH_BYTES: usize = 1024 * 1024;
/// Bytes of answers that are given out together.
const TOGETHER_BYTES: usize = 1024 * 1024;
/// Answers that are given out together.
const TOGETHER: usize = 1024;

/// An answer that is due.
#[derive(Debug)]
pub(crate) struct Ready {
    key: PartitionKey,
    id: FetchId,
    what: Due,
}

#[derive(Debug)]
enum Due {
    Refused(FetchRefusal),
    Granted {
        partition: Arc<Partition>,
        from: Offset,
        epoch: LeaderEpoch,
    },
}

impl Ready {
    pub(crate) const fn refused(key: PartitionKey, id: FetchId, why: FetchRefusal) -> Self {
        let what = Due::Refused(why);
        Self { key, id, what }
    }

    pub(crate) const fn granted(
        key: PartitionKey,
        id: FetchId,
        partition: Arc<Partition>,
        from: Offset,
        epoch: LeaderEpoch,
    ) -> Self {
        let what = Due::Granted {
            partition,
            from,
            epoch,
        };
        Self { key, id, what }
    }

    async fn answer(self) -> Answer {
        let result = match self.what {
            Due::Refused(why) => Err(why),
            Due::Granted {
                partition,
                from,
                epoch,
            } => read(&partition, from, epoch).await,
        };
        Answer {
            partition: self.key,
            id: self.id,
            result,
        }
    }
}

/// Reads for a follower. What cannot be read now is answered with nothing: it asks again.
async fn read(
    partition: &Arc<Partition>,
    from: Offset,
    epoch: LeaderEpoch,
) -> Result<Records, FetchRefusal> {
    // Before the records, so that it never runs ahead of them.
    let high_watermark = partition.high_watermark();
    let Ok(view) = partition.view() else {
        return Err(FetchRefusal::NotLeader);
    };
    let (log_start, log_end) = (view.log_start(), view.log_end());
    if from < log_start {
        return Err(FetchRefusal::OutOfRange { log_start });
    }
    let mut batches = bytes::Bytes::new();
    if from < log_end {
        let range = ReadRange {
            offset: from,
            max_bytes: FETCH_BYTES,
            upto: log_end,
            min_one: true,
        };
        let buffers = partition.buffers.clone();
        let hot = view.read_into(&buffers, &range, ReadMode::NoWait, None);
        let outcome = match hot {
            Ok(ReadOutcome::WouldBlock) => {
                let cold = blocking(&partition.workers, move || {
                    view.read_into(&buffers, &range, ReadMode::Blocking, None)
                });
                match cold.await {
                    Ok(outcome) => outcome,
                    Err(_) => return Err(FetchRefusal::NotLeader),
                }
            }
            outcome => outcome,
        };
        match outcome {
            Ok(ReadOutcome::Slice(slice)) => batches = slice.bytes,
            Ok(ReadOutcome::WouldBlock) => {}
            Err(error) => {
                tracing::warn!(
                    partition = %partition.id, %from, %error,
                    "could not serve a follower"
                );
                let _ = crate::reader::read_error(partition, from, &error, None);
                return Err(FetchRefusal::NotLeader);
            }
        }
    }
    // Had the leadership ended before the read, what was read might not be this leader's.
    if partition.leading() != Some(epoch) {
        return Err(FetchRefusal::NotLeader);
    }
    Ok(Records {
        batches,
        high_watermark,
        log_start,
    })
}

/// What is due to one follower.
#[derive(Debug, Default)]
pub(crate) struct FollowerQueue {
    due: Mutex<VecDeque<Ready>>,
    more: Notify,
}

impl FollowerQueue {
    pub(crate) fn push(&self, ready: Ready) {
        self.due.lock().push_back(ready);
        self.more.notify_one();
    }

    fn pop(&self) -> Option<Ready> {
        self.due.lock().pop_front()
    }

    async fn next(&self) -> Vec<Answer> {
        loop {
            let (mut answers, mut bytes) = (Vec::new(), 0);
            while bytes < TOGETHER_BYTES
                && answers.len() < TOGETHER
                && let Some(ready) = self.pop()
            {
                let answer = ready.answer().await;
                bytes += answer.result.as_ref().map_or(0, |r| r.batches.len());
                answers.push(answer);
            }
            if !answers.is_empty() {
                return answers;
            }
            self.more.notified().await;
        }
    }
}

/// The answers of one connection.
pub(crate) struct FollowerAnswers {
    queue: Arc<FollowerQueue>,
    stopped: tokio::sync::watch::Receiver<bool>,
}

impl Answers for FollowerAnswers {
    fn next(&mut self) -> Later<'_, Option<Vec<Answer>>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                _ = self.stopped.wait_for(|stopped| *stopped) => None,
                answers = self.queue.next() => Some(answers),
            }
        })
    }
}

/// A follower has connected.
pub(crate) fn connected(
    registry: &Arc<Registry>,
    follower: NodeId,
    stopped: tokio::sync::watch::Receiver<bool>,
) -> (Tell, Box<dyn Answers>) {
    let queue = Arc::new(FollowerQueue::default());
    let answers = Box::new(FollowerAnswers {
        queue: Arc::clone(&queue),
        stopped,
    });
    let registry = Arc::clone(registry);
    let tell: Tell = Box::new(move |messages: Vec<ToLeader>| {
        let view = registry.view();
        for message in messages {
            tell_one(&view, follower, &queue, message);
        }
    });
    (tell, answers)
}

fn tell_one(
    view: &crate::registry::View,
    follower: NodeId,
    queue: &Arc<FollowerQueue>,
    message: ToLeader,
) {
    match message {
        ToLeader::Fetch {
            partition: key,
            id,
            position,
        } => {
            let found = view.by_key.get(&key).filter(|_| position.from == follower);
            let refused = |why| queue.push(Ready::refused(key, id, why));
            let Some(partition) = found else {
                // This node may not have heard of the partition yet.
                return refused(FetchRefusal::NotLeader);
            };
            let asked = Box::new(Asked {
                id,
                position,
                queue: Arc::clone(queue),
            });
            partition.followers.note(follower, position.log_end);
            let slot = partition.slot;
            let fetch = Command::ReplicaFetch { slot, key, asked };
            if partition.lane.push(fetch).is_err() {
                refused(FetchRefusal::NotLeader);
            }
        }
        ToLeader::Progress {
            partition,
            position,
        } => {
            if let Some(partition) = view.by_key.get(&partition)
                && position.from == follower
            {
                partition.followers.note(follower, position.log_end);
                let slot = partition.slot;
                let _ = partition
                    .lane
                    .push(Command::ReplicaProgress { slot, position });
            }
        }
    }
}
