//! The side that answers: other members' messages to openraft, forwarded commands, joins.
//!
//! Invariants: nothing is acted on that is for another member or from another cluster; what was begun is
//! finished even if whoever asked is gone; a command is read before it is proposed, because one that cannot be
//! read stops every node.

use std::sync::Arc;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest,
};
use varve_metadata::log::Later;
use varve_metadata::{command_codec, features, snapshot};
use varve_types::NodeId;

use crate::machine::blocking;
use crate::message::{
    Appended, Header, Refusal, Request, Response, decode_request, encode_response,
};
use crate::node::{Inner, MetadataRaft, too_long};
use crate::types::{LogId, RaftId, Snapshot, SnapshotMeta, Vote};

/// Longest snapshot that is taken from another node.
const SNAPSHOT_MAX_BYTES: u64 = 512 * 1024 * 1024;

/// A snapshot on its way.
pub(crate) struct Incoming {
    from: RaftId,
    vote: Vote,
    last: Option<LogId>,
    total: u64,
    bytes: Vec<u8>,
}

impl MetadataRaft {
    /// Answers a request that came from the node `from`, as the transport knows it.
    pub fn serve(&self, from: NodeId, request: Bytes) -> Later<'static, Bytes> {
        let (inner, speaker) = (self.inner.clone(), Arc::clone(&self.inner.speaker));
        Box::pin(async move {
            // A task of its own: the caller may hang up at any moment.
            let served = tokio::spawn(async move {
                let (to, response) = Box::pin(inner.answer(from, &request)).await;
                encode_response(&inner.speaker.header(to), &response)
            });
            match served.await {
                Ok(answer) => answer,
                Err(error) => {
                    let refused = Response::Refused(Refusal::Stopped, error.to_string());
                    encode_response(&speaker.header(0), &refused)
                }
            }
        })
    }
}

impl Inner {
    async fn answer(self: &Arc<Self>, from: NodeId, bytes: &Bytes) -> (RaftId, Response) {
        if too_long(bytes) {
            let why = "the message is too long".to_owned();
            return (0, Response::Refused(Refusal::Unreadable, why));
        }
        let (header, request) = match decode_request(bytes) {
            Ok(read) => read,
            Err(error) => return (0, Response::Refused(Refusal::Unreadable, error.to_string())),
        };
        if header.node != from {
            let why = format!(
                "the message claims to be from node {}, but came from {from}",
                header.node
            );
            return (header.from, Response::Refused(Refusal::OtherMember, why));
        }
        if header.from == self.id && request != Request::Hello {
            let why = format!(
                "the message is from this node itself, or from a copy of the data directory of \
                 node {}",
                self.config.node
            );
            return (header.from, Response::Refused(Refusal::OtherMember, why));
        }
        let response = match self.admit(&header, &request).await {
            Ok(()) => self.act(&header, request).await,
            Err((refusal, why)) => Response::Refused(refusal, why),
        };
        (header.from, response)
    }

    /// Whether a request is for this member of this cluster.
    async fn admit(&self, header: &Header, request: &Request) -> Result<(), (Refusal, String)> {
        if let Some(why) = self.out_of_service() {
            return Err((Refusal::Stopped, why));
        }
        if header.to != 0 && header.to != self.id {
            let why = format!(
                "node {} is known here with another data directory",
                self.config.node
            );
            return Err((Refusal::OtherMember, why));
        }
        let raft = matches!(
            request,
            Request::Append { .. }
                | Request::Vote { .. }
                | Request::Snapshot { .. }
                | Request::Transfer { .. }
        );
        if raft && header.to == 0 {
            return Err((
                Refusal::OtherMember,
                "it does not name a receiver".to_owned(),
            ));
        }
        let ours = self.speaker.cluster();
        match (ours, header.cluster) {
            _ if *request == Request::Hello => Ok(()),
            (Some(ours), Some(theirs)) if ours == theirs => Ok(()),
            (Some(ours), Some(theirs)) => {
                let why =
                    format!("this node belongs to cluster {ours}, but the message to {theirs}");
                Err((Refusal::OtherCluster, why))
            }
            (Some(_), None) if matches!(request, Request::Join(_)) => Ok(()),
            (Some(_), None) => Err((
                Refusal::OtherCluster,
                "the message does not name a cluster".to_owned(),
            )),
            // Only who has had our hello can name this member, so its cluster is the one we asked to join.
            (None, Some(theirs)) if raft => self
                .adopt(theirs)
                .await
                .map_err(|why| (Refusal::OtherCluster, why)),
            (None, _) => Err((
                Refusal::NotNow,
                "this node has not joined a cluster yet".to_owned(),
            )),
        }
    }

    async fn act(self: &Arc<Self>, header: &Header, request: Request) -> Response {
        match request {
            Request::Hello => Response::Hello(Box::new(self.hello())),
            Request::Append {
                vote,
                previous,
                entries,
                committed,
            } => {
                let rpc = AppendEntriesRequest {
                    vote,
                    prev_log_id: previous,
                    entries,
                    leader_commit: committed,
                };
                let came = tokio::time::Instant::now();
                let answer = self.raft.append_entries(rpc).await;
                if matches!(&answer, Ok(response) if !matches!(response, AppendEntriesResponse::HigherVote(_)))
                {
                    *self.heard_leader.lock() = Some((header.node, came));
                }
                match answer {
                    Ok(response) => Response::Append(match response {
                        AppendEntriesResponse::Success => Appended::All,
                        AppendEntriesResponse::PartialSuccess(id) => Appended::UpTo(id),
                        AppendEntriesResponse::Conflict => Appended::Conflict,
                        AppendEntriesResponse::HigherVote(vote) => Appended::HigherVote(vote),
                    }),
                    Err(error) => stopped(&error),
                }
            }
            Request::Vote {
                pre,
                vote,
                last,
                transfer,
            } => self.vote(pre, vote, last, transfer).await,
            Request::Snapshot {
                vote,
                meta,
                total,
                at,
                piece,
            } => {
                self.take_piece(header.from, vote, meta, total, at, &piece)
                    .await
            }
            Request::Transfer { vote, to, last } => {
                let rpc = TransferLeaderRequest::new(vote, to, last);
                match self.raft.handle_transfer_leader(rpc).await {
                    Ok(Ok(())) => Response::Transferring,
                    Ok(Err(error)) => Response::Refused(Refusal::NotNow, error.to_string()),
                    Err(error) => stopped(&error),
                }
            }
            Request::Propose(command) => match check_command(&command) {
                Ok(()) => self.commit_here(command).await,
                Err(why) => Response::Refused(Refusal::Unreadable, why),
            },
            Request::ReadIndex => self.read_index_here().await,
            Request::Join(member) => self.join(header.from, member).await,
            Request::Remove(node) => self.remove_here(node).await,
        }
    }

    async fn vote(&self, pre: bool, vote: Vote, last: Option<LogId>, transfer: bool) -> Response {
        let mut rpc = VoteRequest::new(vote, last);
        rpc.leadership_transfer = transfer;
        let answer = match pre {
            true => self.raft.pre_vote(rpc).await,
            false => self.raft.vote(rpc).await,
        };
        match answer {
            Ok(answer) => Response::Vote {
                vote: answer.vote,
                granted: answer.vote_granted,
                last: answer.last_log_id,
            },
            Err(error) => stopped(&error),
        }
    }

    /// Collects the pieces of one snapshot, in order, and installs it once it is whole and can be read.
    async fn take_piece(
        &self,
        from: RaftId,
        vote: Vote,
        meta: SnapshotMeta,
        total: u64,
        at: u64,
        piece: &Bytes,
    ) -> Response {
        if total > SNAPSHOT_MAX_BYTES {
            let why = format!("the snapshot has {total} bytes; the limit is {SNAPSHOT_MAX_BYTES}");
            return Response::Refused(Refusal::NotNow, why);
        }
        let mut slot = self.incoming.lock().await;
        if at == 0 {
            *slot = Some(Incoming {
                from,
                vote,
                last: meta.last_log_id,
                total,
                bytes: Vec::new(),
            });
        }
        let expected = slot.as_mut().filter(|incoming| {
            (incoming.from, incoming.vote, incoming.last, incoming.total)
                == (from, vote, meta.last_log_id, total)
                && incoming.bytes.len() as u64 == at
        });
        let Some(incoming) = expected else {
            let why = "the piece does not follow the one before; start again".to_owned();
            return Response::Refused(Refusal::NotNow, why);
        };
        incoming.bytes.extend_from_slice(piece);
        if (incoming.bytes.len() as u64) < total {
            return Response::Snapshot(self.metrics().vote);
        }
        let Some(whole) = slot.take() else {
            unreachable!("it was just looked at")
        };
        let state = Bytes::from(whole.bytes);
        let read = state.clone();
        let workers = &self.config.workers;
        let readable = blocking(workers, move || snapshot::decode(&read).map(drop)).await;
        match readable {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Response::Refused(Refusal::Unreadable, error.to_string()),
            Err(error) => return Response::Refused(Refusal::NotNow, error),
        }
        let snapshot = Snapshot {
            meta,
            snapshot: state,
        };
        match self.raft.install_full_snapshot(vote, snapshot).await {
            Ok(answer) => Response::Snapshot(answer.vote),
            Err(error) => stopped(&error),
        }
    }
}

fn stopped(error: &impl std::fmt::Display) -> Response {
    Response::Refused(Refusal::Stopped, error.to_string())
}

/// Whether every node of this version can apply a command.
fn check_command(bytes: &Bytes) -> Result<(), String> {
    let command = command_codec::decode(bytes).map_err(|e| e.to_string())?;
    match command.level() {
        level if level > features::KNOWN_LEVEL => Err(format!(
            "the command needs feature level {level}, which this leader does not support"
        )),
        _ => Ok(()),
    }
}
