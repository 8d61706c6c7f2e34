//! Commands from every node, and reads that have seen everything: `varve_metadata::MetadataLog`.
//!
//! Invariants: a command is sent again only if it is certain that it was not proposed; whatever is not certain
//! is `Unknown`; a result is taken from the state of this node, after it has applied the command; a read waits
//! for what a quorum had committed when it was asked (ReadIndex), never for a lease.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, RaftError};
use tokio::time::Instant;
use varve_metadata::log::Later;
use varve_metadata::{
    Command, Event, Leadership, MetadataLog, ProposeError, Rejection, State, command_codec,
};
use varve_types::NodeId;

use crate::entry::COMMAND_MAX_BYTES;
use crate::message::{Refusal, Request, Response};
use crate::network::{TransportError, Whom};
use crate::node::{Inner, MetadataRaft};
use crate::types::{CommandBytes, LogId};

/// How long to wait before asking again for a leader: first, and at most.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(300));

/// Pauses between tries, longer and longer, since many may be waiting for a leader that is away; who leads is news
/// that ends a pause.
struct Retry {
    pause: Duration,
    /// Who led when the last try began.
    seen: Leadership,
}

impl Retry {
    fn new(inner: &Inner) -> Self {
        Self {
            pause: RETRY_AFTER.0,
            seen: *inner.leadership.borrow(),
        }
    }

    async fn pause(&mut self, inner: &Inner) {
        let mut leadership = inner.leadership.subscribe();
        let seen = self.seen;
        // What cannot end is no news: the sender lives as long as the node.
        let news = leadership.wait_for(|now| *now != seen);
        let changed = tokio::time::timeout(self.pause, news).await.is_ok();
        self.seen = *inner.leadership.borrow();
        self.pause = match changed {
            true => RETRY_AFTER.0,
            false => (2 * self.pause).min(RETRY_AFTER.1),
        };
    }
}

/// What came of one try.
enum Tried<T> {
    Done(T),
    /// Nothing was proposed.
    Again,
    Failed(ProposeError),
}

impl Inner {
    /// Commits a command if this node leads.
    pub(crate) async fn commit_here(&self, command: Bytes) -> Response {
        let write = self.raft.client_write(CommandBytes(command));
        match tokio::time::timeout(self.config.propose_timeout, write).await {
            Ok(Ok(written)) => Response::Proposed(written.log_id),
            Ok(Err(RaftError::APIError(error))) => match error {
                ClientWriteError::ForwardToLeader(_) => Response::NotLeader(self.other_leader()),
                other => Response::Unknown(other.to_string()),
            },
            Ok(Err(RaftError::Fatal(error))) => Response::Unknown(error.to_string()),
            Err(_) => Response::Unknown("it was not committed in time".to_owned()),
        }
    }

    /// What is committed, if this node leads and a quorum says so.
    pub(crate) async fn read_index_here(&self) -> Response {
        let read = self.raft.get_read_log_id(ReadPolicy::ReadIndex);
        match tokio::time::timeout(self.config.call_timeout, read).await {
            Ok(Ok((read, _))) => Response::ReadIndex(*read.log_id()),
            Ok(Err(RaftError::Fatal(error))) => {
                Response::Refused(Refusal::Stopped, error.to_string())
            }
            Ok(Err(RaftError::APIError(_))) | Err(_) => Response::NotLeader(self.other_leader()),
        }
    }

    fn other_leader(&self) -> Option<(u64, String)> {
        self.leader_address().filter(|(id, _)| *id != self.id)
    }

    async fn try_propose(&self, command: &Bytes, deadline: Instant) -> Tried<LogId> {
        let Some((id, leader)) = self.leader() else {
            return Tried::Again;
        };
        let answer = if id == self.id {
            Ok(self.commit_here(command.clone()).await)
        } else {
            let within = deadline.saturating_duration_since(Instant::now());
            let request = Request::Propose(command.clone());
            self.speaker
                .ask(Whom::member(id, &leader), &request, within)
                .await
        };
        match answer {
            Ok(Response::Proposed(id)) => Tried::Done(id),
            Ok(Response::Unknown(why)) | Err(TransportError::Failed(why)) => {
                Tried::Failed(ProposeError::Unknown(why))
            }
            Ok(Response::Refused(Refusal::Unreadable, why)) => {
                Tried::Failed(ProposeError::Stopped(format!(
                    "the leader, node {}, cannot read the command: {why}",
                    leader.node
                )))
            }
            // Refusals and a peer that was not reached leave everything as it was.
            Ok(Response::NotLeader(_) | Response::Refused(..))
            | Err(TransportError::Unreachable(_)) => Tried::Again,
            Ok(_) => Tried::Failed(ProposeError::Unknown(
                "internal error: the leader answered another question".to_owned(),
            )),
        }
    }

    async fn try_read_index(&self) -> Tried<LogId> {
        let Some((id, leader)) = self.leader() else {
            return Tried::Again;
        };
        let answer = if id == self.id {
            Ok(self.read_index_here().await)
        } else {
            let within = self.config.call_timeout;
            self.speaker
                .ask(Whom::member(id, &leader), &Request::ReadIndex, within)
                .await
        };
        match answer {
            Ok(Response::ReadIndex(id)) => Tried::Done(id),
            _ => Tried::Again,
        }
    }

    /// Waits until an entry is applied here; `false`: not in time.
    async fn applied(&self, id: &LogId, deadline: Instant) -> bool {
        let mut applied = self.machine.applied_next();
        let reached = applied.wait_for(|next| *next > id.index);
        matches!(tokio::time::timeout_at(deadline, reached).await, Ok(Ok(_)))
    }

    fn check_in_service(&self) -> Result<(), ProposeError> {
        match self.out_of_service() {
            Some(why) => Err(ProposeError::Stopped(why)),
            None => Ok(()),
        }
    }

    async fn propose(&self, command: Bytes) -> Result<Event, ProposeError> {
        let deadline = Instant::now() + self.config.propose_timeout;
        let mut retry = Retry::new(self);
        let id = loop {
            self.check_in_service()?;
            match self.try_propose(&command, deadline).await {
                Tried::Done(id) => break id,
                Tried::Failed(error) => return Err(error),
                Tried::Again if Instant::now() >= deadline => return Err(ProposeError::NoLeader),
                Tried::Again => retry.pause(self).await,
            }
        };
        // It is committed: everything that goes wrong from here on leaves the outcome unknown.
        if !self.applied(&id, deadline + self.config.call_timeout).await {
            let why =
                format!("it is committed as entry {id}, but this node has not applied it yet");
            return Err(ProposeError::Unknown(why));
        }
        match self.machine.result(&id) {
            Some(outcome) => Ok(outcome?),
            None => Err(ProposeError::Unknown(format!(
                "it is committed as entry {id}; this node received it in a snapshot"
            ))),
        }
    }

    async fn catch_up(&self) -> Result<(), ProposeError> {
        let deadline = Instant::now() + self.config.propose_timeout;
        let mut retry = Retry::new(self);
        loop {
            self.check_in_service()?;
            if let Tried::Done(id) = self.try_read_index().await {
                return match self.applied(&id, deadline).await {
                    true => Ok(()),
                    false => Err(ProposeError::Unknown(format!(
                        "this node has not applied entry {id} in time"
                    ))),
                };
            }
            if Instant::now() >= deadline {
                return Err(ProposeError::NoLeader);
            }
            retry.pause(self).await;
        }
    }
}

impl MetadataLog for MetadataRaft {
    fn look(&self, look: &mut dyn FnMut(&State)) {
        self.inner.machine.look(look);
    }

    fn newer_than(&self, version: u64) -> Later<'_, u64> {
        let mut versions = self.inner.machine.versions();
        Box::pin(async move {
            let newer = versions
                .wait_for(|now| *now > version)
                .await
                .map(|now| *now);
            match newer {
                Ok(now) => now,
                // The state lives as long as this node.
                Err(_) => std::future::pending().await,
            }
        })
    }

    fn propose(&self, command: Command) -> Later<'_, Result<Event, ProposeError>> {
        let bytes = command_codec::encode(&command);
        let inner: Arc<Inner> = self.inner.clone();
        Box::pin(async move {
            if bytes.len() > COMMAND_MAX_BYTES {
                return Err(ProposeError::Rejected(Rejection::OutOfRange {
                    what: "the size of the command in bytes",
                    found: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
                    min: 1,
                    max: COMMAND_MAX_BYTES as i64,
                }));
            }
            inner.propose(Bytes::from(bytes)).await
        })
    }

    fn catch_up(&self) -> Later<'_, Result<(), ProposeError>> {
        Box::pin(self.inner.catch_up())
    }

    fn leadership(&self) -> Leadership {
        *self.inner.leadership.borrow()
    }

    fn heard_leader(&self) -> Option<(NodeId, Duration)> {
        let heard = *self.inner.heard_leader.lock();
        heard.map(|(node, at)| (node, at.elapsed()))
    }

    fn leadership_after(&self, seen: Leadership) -> Later<'_, Leadership> {
        let mut leadership = self.inner.leadership.subscribe();
        Box::pin(async move {
            let other = leadership
                .wait_for(|now| *now != seen)
                .await
                .map(|now| *now);
            match other {
                Ok(now) => now,
                Err(_) => std::future::pending().await,
            }
        })
    }
}
