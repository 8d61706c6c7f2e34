//! Bytes that every later program must read as this one does, and write again as they are. `VARVE_BLESS=1`
//! writes them anew, which is right only for a format that was never released.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use varve_metadata::{Command, State, command_codec, snapshot};
use varve_metadata_raft::files::{self, Identity};
use varve_metadata_raft::message::{
    Appended, Header, Hello, Refusal, Request, Response, decode_request, decode_response,
    encode_request, encode_response,
};
use varve_metadata_raft::types::{
    CommandBytes, Entry, Member, Membership, Payload, SnapshotMeta, StoredMembership, log_id, vote,
};
use varve_metadata_raft::{entry, snapshot_file};
use varve_types::{ClusterId, DirectoryId, NodeId};

const OWNER: u64 = 0x0102_0304_0506_0708;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name)
}

/// The stored bytes are those that the program writes today.
fn same(name: &str, written: &[u8]) -> Vec<u8> {
    if std::env::var_os("VARVE_BLESS").is_some() {
        std::fs::create_dir_all(path("")).unwrap();
        std::fs::write(path(name), written).unwrap();
    }
    let stored = std::fs::read(path(name)).unwrap();
    assert_eq!(stored, written, "{name}");
    stored
}

/// Several runs of bytes in one file, each with its length before it.
fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    let with_length = |part: &Vec<u8>| {
        let mut out = (part.len() as u32).to_le_bytes().to_vec();
        out.extend(part);
        out
    };
    parts.iter().flat_map(with_length).collect()
}

fn member(n: i32) -> Member {
    Member {
        node: NodeId(n),
        directory: DirectoryId(n as u128 + 40),
        address: format!("node-{n}.example:7001"),
        rack: "r1".to_owned(),
    }
}

fn membership() -> Membership {
    let nodes = BTreeMap::from([(41, member(1)), (42, member(2)), (43, member(3))]);
    let configs = vec![BTreeSet::from([41]), BTreeSet::from([41, 42])];
    Membership::new(configs, nodes).unwrap()
}

fn command() -> Bytes {
    Bytes::from(command_codec::encode(&Command::UnregisterNode {
        node: NodeId(5),
    }))
}

fn entries() -> Vec<Entry> {
    vec![
        Entry {
            log_id: log_id(0, 0),
            payload: Payload::Membership(membership()),
        },
        Entry {
            log_id: log_id(1, 1),
            payload: Payload::Blank,
        },
        Entry {
            log_id: log_id(1, 2),
            payload: Payload::Normal(CommandBytes(command())),
        },
    ]
}

fn meta() -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(log_id(1, 2)),
        last_membership: StoredMembership::new(Some(log_id(0, 0)), membership()),
    }
}

#[test]
fn small_files_are_what_they_were() {
    let of = vote(7, 42, true);
    let stored = same("vote-1.bin", &files::encode_vote(OWNER, &of));
    assert_eq!(files::decode_vote(OWNER, &stored).unwrap(), of);
    let stored = same("purged-1.bin", &files::encode_purged(OWNER, &log_id(7, 99)));
    assert_eq!(files::decode_purged(OWNER, &stored).unwrap(), log_id(7, 99));
    let identity = Identity {
        cluster: ClusterId(0xabcd),
        node: NodeId(3),
    };
    let stored = same("identity-1.bin", &files::encode_identity(OWNER, &identity));
    assert_eq!(files::decode_identity(OWNER, &stored).unwrap(), identity);
    let kept = [b"one".to_vec(), b"two".to_vec()];
    let stored = same("kept-1.bin", &files::encode_kept(OWNER, 40, &kept));
    assert_eq!(
        files::decode_kept(OWNER, &stored).unwrap(),
        (40, kept.to_vec())
    );
    let slot = files::encode_committed(OWNER, 12, Some(&log_id(7, 100)));
    let stored = same("committed-1.bin", &slot);
    assert_eq!(
        files::decode_committed(OWNER, &stored).unwrap(),
        (12, Some(log_id(7, 100)))
    );
    assert!(files::decode_vote(OWNER, &stored).is_err());
    assert!(files::decode_vote(OWNER + 1, &files::encode_vote(OWNER, &of)).is_err());
}

#[test]
fn entries_are_what_they_were() {
    let parts: Vec<Vec<u8>> = entries().iter().map(entry::encode).collect();
    same("entries-1.bin", &joined(&parts));
    for (part, entry) in parts.iter().zip(entries()) {
        assert_eq!(entry::decode(part).unwrap(), entry);
    }
}

#[test]
fn a_snapshot_is_what_it_was() {
    let state = snapshot::encode(&State::default());
    let stored = same("snapshot-1.bin", &snapshot_file::encode(&meta(), &state));
    let (found, found_state) = snapshot_file::decode(&stored).unwrap();
    assert_eq!((found, found_state), (meta(), &state[..]));
}

fn requests() -> Vec<Request> {
    vec![
        Request::Append {
            vote: vote(1, 41, true),
            previous: None,
            entries: entries(),
            committed: Some(log_id(0, 0)),
        },
        Request::Vote {
            pre: true,
            vote: vote(2, 42, false),
            last: Some(log_id(1, 2)),
            transfer: false,
        },
        Request::Snapshot {
            vote: vote(1, 41, true),
            meta: meta(),
            total: 10,
            at: 4,
            piece: Bytes::from_static(b"piece"),
        },
        Request::Transfer {
            vote: vote(1, 41, true),
            to: 42,
            last: Some(log_id(1, 2)),
        },
        Request::Propose(command()),
        Request::ReadIndex,
        Request::Join(member(4)),
        Request::Remove(NodeId(4)),
        Request::Hello,
    ]
}

fn responses() -> Vec<Response> {
    vec![
        Response::Append(Appended::All),
        Response::Append(Appended::UpTo(Some(log_id(1, 1)))),
        Response::Append(Appended::Conflict),
        Response::Append(Appended::HigherVote(vote(9, 43, false))),
        Response::Vote {
            vote: vote(2, 42, false),
            granted: true,
            last: None,
        },
        Response::Snapshot(vote(1, 41, true)),
        Response::Transferring,
        Response::Proposed(log_id(1, 3)),
        Response::ReadIndex(log_id(1, 3)),
        Response::Changed,
        Response::Hello(Box::new(Hello {
            cluster: Some(ClusterId(0xabcd)),
            member: member(1),
            initialised: true,
            leader: Some((41, "node-1.example:7001".to_owned())),
        })),
        Response::Unknown("it was not committed in time".to_owned()),
        Response::NotLeader(None),
        Response::Refused(Refusal::NodeIdInUse, "node id 4 is in use".to_owned()),
    ]
}

#[test]
fn messages_are_what_they_were() {
    let header = Header {
        cluster: Some(ClusterId(0xabcd)),
        node: NodeId(1),
        from: 41,
        to: 42,
    };
    let encoded: Vec<Vec<u8>> = requests()
        .iter()
        .map(|r| encode_request(&header, r).to_vec())
        .collect();
    same("requests-1.bin", &joined(&encoded));
    for (bytes, request) in encoded.iter().zip(requests()) {
        assert_eq!(decode_request(bytes).unwrap(), (header, request));
        assert!(decode_response(bytes).is_err());
        for at in 0..bytes.len() {
            assert!(decode_request(&bytes[..at]).is_err());
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(decode_request(&wrong).is_err());
        }
    }
    let encoded: Vec<Vec<u8>> = responses()
        .iter()
        .map(|r| encode_response(&header, r).to_vec())
        .collect();
    same("responses-1.bin", &joined(&encoded));
    for (bytes, response) in encoded.iter().zip(responses()) {
        assert_eq!(decode_response(bytes).unwrap(), (header, response));
        assert!(decode_request(bytes).is_err());
    }
}
