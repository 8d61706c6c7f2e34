//! What members say to each other, as bytes and back. See `FORMAT.md`.
//!
//! Invariants: decoding is total and makes room for nothing that the bytes do not hold; a message has at most
//! [`MESSAGE_MAX_BYTES`]; each ends with a checksum, so that what a wire damaged is never agreed on; decoding
//! then encoding gives the same bytes.

use bytes::Bytes;
use varve_types::{ClusterId, DirectoryId, NodeId};

use crate::codec::{ADDRESS_MAX_BYTES, CodecError, Reader, Writer, unsealed};
use crate::entry;
use crate::types::{Entry, LogId, Member, RaftId, SnapshotMeta, Vote};

/// Format version that is written; also the only one that is read.
pub const VERSION: u8 = 1;
/// Longest message.
pub const MESSAGE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Longest piece of a snapshot.
pub const CHUNK_MAX_BYTES: usize = 1024 * 1024;
/// Bytes of entries after which an append is cut.
pub const APPEND_MAX_BYTES: usize = 2 * 1024 * 1024;
const TEXT_MAX_BYTES: usize = 4096;

/// Who speaks, to whom, in which cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The sender's cluster; `None`: it belongs to none yet.
    pub cluster: Option<ClusterId>,
    /// The sender's number.
    pub node: NodeId,
    /// The sender.
    pub from: RaftId,
    /// The receiver; 0: whoever is at the address.
    pub to: RaftId,
}

/// What one member asks of another.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Entries of a leader, or its heartbeat.
    Append {
        /// Vote of the leader.
        vote: Vote,
        /// Entry before the first.
        previous: Option<LogId>,
        /// Entries.
        entries: Vec<Entry>,
        /// What the leader has committed.
        committed: Option<LogId>,
    },
    /// A candidate asks for a vote, or whether it would get one.
    Vote {
        /// Only whether.
        pre: bool,
        /// The vote asked for.
        vote: Vote,
        /// Last entry of the candidate.
        last: Option<LogId>,
        /// The leader wants it so.
        transfer: bool,
    },
    /// A piece of a snapshot.
    Snapshot {
        /// Vote of the leader.
        vote: Vote,
        /// What the snapshot covers.
        meta: SnapshotMeta,
        /// Bytes of the whole.
        total: u64,
        /// Position of this piece.
        at: u64,
        /// The piece.
        piece: Bytes,
    },
    /// The leader hands over.
    Transfer {
        /// Vote of the leader.
        vote: Vote,
        /// To whom.
        to: RaftId,
        /// Last entry of the leader.
        last: Option<LogId>,
    },
    /// A command for the leader.
    Propose(Bytes),
    /// What is committed now?
    ReadIndex,
    /// A node wants to be a member, or tells its new address.
    Join(Member),
    /// A node is to be a member no more.
    Remove(NodeId),
    /// Who are you?
    Hello,
}

/// Who answers a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Its cluster, if it belongs to one.
    pub cluster: Option<ClusterId>,
    /// What it is.
    pub member: Member,
    /// Its log holds something.
    pub initialised: bool,
    /// The leader it knows, with its address.
    pub leader: Option<(RaftId, String)>,
}

/// Why a request was not served. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The receiver belongs to another cluster.
    OtherCluster,
    /// The message is for another member than the one at the address.
    OtherMember,
    /// The message cannot be read.
    Unreadable,
    /// The node id belongs to another data directory that is in use.
    NodeIdInUse,
    /// Not now; asking again later helps.
    NotNow,
    /// The member was removed.
    Removed,
    /// The receiver is out of service.
    Stopped,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// To an append.
    Append(Appended),
    /// To a vote.
    Vote {
        /// Vote of the receiver.
        vote: Vote,
        /// Whether it is given.
        granted: bool,
        /// Last entry of the receiver.
        last: Option<LogId>,
    },
    /// To a piece of a snapshot: the vote of the receiver.
    Snapshot(Vote),
    /// The candidate takes over.
    Transferring,
    /// The command is committed there.
    Proposed(LogId),
    /// Whether the command is or will be committed is unknown.
    Unknown(String),
    /// Everything up to here is committed.
    ReadIndex(LogId),
    /// The node is a member, or no more.
    Changed,
    /// Who answers.
    Hello(Box<Hello>),
    /// Nothing was done: somebody else leads, if anybody.
    NotLeader(Option<(RaftId, String)>),
    /// Nothing was done.
    Refused(Refusal, String),
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// All is on the receiver's disk.
    All,
    /// Only up to here.
    UpTo(Option<LogId>),
    /// The entry before the first is not there.
    Conflict,
    /// The receiver knows a newer vote.
    HigherVote(Vote),
}

fn begin(header: &Header, kind: u8) -> Writer {
    let mut w = Writer::default();
    w.u8(VERSION);
    w.u8(kind);
    w.u16(0);
    w.option(header.cluster.as_ref(), |w, id| w.u128(id.0));
    w.i32(header.node.0);
    w.u64(header.from);
    w.u64(header.to);
    w
}

fn opened(bytes: &[u8]) -> Result<(Header, u8, Reader<'_>), CodecError> {
    let mut r = Reader::new(bytes);
    if bytes.len() > MESSAGE_MAX_BYTES {
        let why = format!(
            "it has {} bytes; the limit is {MESSAGE_MAX_BYTES}",
            bytes.len()
        );
        return Err(r.bad("message", why));
    }
    let version = r.u8("version")?;
    if version != VERSION {
        let why = format!("it is {version}, but this program knows {VERSION}");
        return Err(r.bad("version", why));
    }
    let mut r = Reader::new(unsealed(bytes)?);
    r.u8("version")?;
    let kind = r.u8("kind")?;
    if r.u16("reserved")? != 0 {
        return Err(r.bad("reserved", "it is not 0"));
    }
    let header = Header {
        cluster: r.option("cluster", |r| r.u128("cluster").map(ClusterId))?,
        node: NodeId(r.i32("node")?),
        from: r.u64("sender")?,
        to: r.u64("receiver")?,
    };
    Ok((header, kind, r))
}

fn put_leader(w: &mut Writer, leader: Option<&(RaftId, String)>) {
    w.option(leader, |w, (id, address)| {
        w.u64(*id);
        w.bytes(address.as_bytes());
    });
}

fn leader(r: &mut Reader<'_>) -> Result<Option<(RaftId, String)>, CodecError> {
    r.option("leader", |r| {
        Ok((
            r.u64("leader")?,
            r.text("address of the leader", ADDRESS_MAX_BYTES)?,
        ))
    })
}

/// A text of any length, cut to what a message takes.
fn put_text(w: &mut Writer, text: &str) {
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    w.bytes(&text.as_bytes()[..end]);
}

/// The bytes of a request.
#[must_use]
pub fn encode_request(header: &Header, request: &Request) -> Bytes {
    let kind = match request {
        Request::Append { .. } => 1,
        Request::Vote { .. } => 2,
        Request::Snapshot { .. } => 3,
        Request::Transfer { .. } => 4,
        Request::Propose(_) => 5,
        Request::ReadIndex => 6,
        Request::Join(_) => 7,
        Request::Remove(_) => 8,
        Request::Hello => 9,
    };
    let mut w = begin(header, kind);
    match request {
        Request::Append {
            vote,
            previous,
            entries,
            committed,
        } => {
            w.vote(vote);
            w.option(previous.as_ref(), Writer::log_id);
            w.option(committed.as_ref(), Writer::log_id);
            w.count(entries.len());
            for entry in entries {
                w.bytes(&entry::encode(entry));
            }
        }
        Request::Vote {
            pre,
            vote,
            last,
            transfer,
        } => {
            w.flag(*pre);
            w.vote(vote);
            w.option(last.as_ref(), Writer::log_id);
            w.flag(*transfer);
        }
        Request::Snapshot {
            vote,
            meta,
            total,
            at,
            piece,
        } => {
            w.vote(vote);
            w.option(meta.last_log_id.as_ref(), Writer::log_id);
            w.stored_membership(&meta.last_membership);
            w.u64(*total);
            w.u64(*at);
            w.bytes(piece);
        }
        Request::Transfer { vote, to, last } => {
            w.vote(vote);
            w.u64(*to);
            w.option(last.as_ref(), Writer::log_id);
        }
        Request::Propose(command) => w.bytes(command),
        Request::ReadIndex | Request::Hello => {}
        Request::Join(member) => w.member(member),
        Request::Remove(node) => w.i32(node.0),
    }
    Bytes::from(w.sealed())
}

/// The request of those bytes.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_request`] does not write.
pub fn decode_request(bytes: &[u8]) -> Result<(Header, Request), CodecError> {
    let (header, kind, mut r) = opened(bytes)?;
    let request = match kind {
        1 => append(&mut r)?,
        2 => Request::Vote {
            pre: r.flag("whether it is a question only")?,
            vote: r.vote()?,
            last: r.option("last entry", Reader::log_id)?,
            transfer: r.flag("whether the leader wants it")?,
        },
        3 => snapshot(&mut r)?,
        4 => Request::Transfer {
            vote: r.vote()?,
            to: r.u64("new leader")?,
            last: r.option("last entry", Reader::log_id)?,
        },
        5 => {
            let command = r.bytes("command")?;
            if command.len() > entry::COMMAND_MAX_BYTES {
                return Err(r.bad("command", "it is too long"));
            }
            Request::Propose(Bytes::copy_from_slice(command))
        }
        6 => Request::ReadIndex,
        7 => Request::Join(r.member()?),
        8 => Request::Remove(NodeId(r.i32("node")?)),
        9 => Request::Hello,
        other => return Err(r.bad("kind", format!("it is {other}: a newer program sent it"))),
    };
    r.end()?;
    Ok((header, request))
}

fn append(r: &mut Reader<'_>) -> Result<Request, CodecError> {
    let vote = r.vote()?;
    let previous = r.option("entry before", Reader::log_id)?;
    let committed = r.option("committed", Reader::log_id)?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut next = previous.map_or(0, |id| id.index.saturating_add(1));
    for _ in 0..r.count("entries", 4 + entry::HEADER_BYTES)? {
        let entry = entry::decode(r.bytes("entry")?)?;
        if entry.log_id.index != next {
            return Err(r.bad("entries", "they are not consecutive"));
        }
        next = next.saturating_add(1);
        entries.push(entry);
    }
    Ok(Request::Append {
        vote,
        previous,
        entries,
        committed,
    })
}

fn snapshot(r: &mut Reader<'_>) -> Result<Request, CodecError> {
    let vote = r.vote()?;
    let meta = SnapshotMeta {
        last_log_id: r.option("last entry", Reader::log_id)?,
        last_membership: r.stored_membership()?,
    };
    let (total, at) = (r.u64("total")?, r.u64("position")?);
    let piece = r.bytes("piece")?;
    let end = at.checked_add(piece.len() as u64);
    if piece.len() > CHUNK_MAX_BYTES || end.is_none_or(|end| end > total) {
        return Err(r.bad("piece", "it is too long"));
    }
    Ok(Request::Snapshot {
        vote,
        meta,
        total,
        at,
        piece: Bytes::copy_from_slice(piece),
    })
}

const REFUSALS: [Refusal; 7] = [
    Refusal::OtherCluster,
    Refusal::OtherMember,
    Refusal::Unreadable,
    Refusal::NodeIdInUse,
    Refusal::NotNow,
    Refusal::Removed,
    Refusal::Stopped,
];

/// The bytes of a response.
#[must_use]
pub fn encode_response(header: &Header, response: &Response) -> Bytes {
    let kind = match response {
        Response::Append(_) => 1,
        Response::Vote { .. } => 2,
        Response::Snapshot(_) => 3,
        Response::Transferring => 4,
        Response::Proposed(_) => 5,
        Response::ReadIndex(_) => 6,
        Response::Changed => 7,
        Response::Hello(_) => 9,
        Response::Unknown(_) => 10,
        Response::NotLeader(_) => 11,
        Response::Refused(..) => 12,
    };
    let mut w = begin(header, 128 + kind);
    match response {
        Response::Append(appended) => match appended {
            Appended::All => w.u8(0),
            Appended::UpTo(id) => {
                w.u8(1);
                w.option(id.as_ref(), Writer::log_id);
            }
            Appended::Conflict => w.u8(2),
            Appended::HigherVote(vote) => {
                w.u8(3);
                w.vote(vote);
            }
        },
        Response::Vote {
            vote,
            granted,
            last,
        } => {
            w.vote(vote);
            w.flag(*granted);
            w.option(last.as_ref(), Writer::log_id);
        }
        Response::Snapshot(vote) => w.vote(vote),
        Response::Transferring | Response::Changed => {}
        Response::Proposed(id) | Response::ReadIndex(id) => w.log_id(id),
        Response::Unknown(text) => put_text(&mut w, text),
        Response::Hello(hello) => {
            w.option(hello.cluster.as_ref(), |w, id| w.u128(id.0));
            w.member(&hello.member);
            w.flag(hello.initialised);
            put_leader(&mut w, hello.leader.as_ref());
        }
        Response::NotLeader(leader) => put_leader(&mut w, leader.as_ref()),
        Response::Refused(refusal, text) => {
            let at = REFUSALS
                .iter()
                .position(|r| r == refusal)
                .unwrap_or_default();
            w.u8(at as u8);
            put_text(&mut w, text);
        }
    }
    Bytes::from(w.sealed())
}

/// The response of those bytes.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_response`] does not write.
pub fn decode_response(bytes: &[u8]) -> Result<(Header, Response), CodecError> {
    let (header, kind, mut r) = opened(bytes)?;
    let response = match kind.wrapping_sub(128) {
        1 => Response::Append(match r.u8("outcome")? {
            0 => Appended::All,
            1 => Appended::UpTo(r.option("last entry", Reader::log_id)?),
            2 => Appended::Conflict,
            3 => Appended::HigherVote(r.vote()?),
            other => return Err(r.bad("outcome", format!("it is {other}"))),
        }),
        2 => Response::Vote {
            vote: r.vote()?,
            granted: r.flag("whether the vote is given")?,
            last: r.option("last entry", Reader::log_id)?,
        },
        3 => Response::Snapshot(r.vote()?),
        4 => Response::Transferring,
        5 => Response::Proposed(r.log_id()?),
        6 => Response::ReadIndex(r.log_id()?),
        7 => Response::Changed,
        9 => Response::Hello(Box::new(Hello {
            cluster: r.option("cluster", |r| r.u128("cluster").map(ClusterId))?,
            member: r.member()?,
            initialised: r.flag("whether it holds something")?,
            leader: leader(&mut r)?,
        })),
        10 => Response::Unknown(r.text("reason", TEXT_MAX_BYTES)?),
        11 => Response::NotLeader(leader(&mut r)?),
        12 => {
            let at = usize::from(r.u8("refusal")?);
            let Some(refusal) = REFUSALS.get(at) else {
                return Err(r.bad("refusal", format!("it is {at}")));
            };
            Response::Refused(*refusal, r.text("reason", TEXT_MAX_BYTES)?)
        }
        other => {
            return Err(r.bad(
                "kind",
                format!("it is 128 + {other}: a newer program sent it"),
            ));
        }
    };
    r.end()?;
    Ok((header, response))
}

/// The raft id that a member says it has is that of its directory.
#[must_use]
pub fn is_of(member: &Member, id: RaftId) -> bool {
    member.directory != DirectoryId::UNKNOWN && crate::types::raft_id(member.directory) == id
}
