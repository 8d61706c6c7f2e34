//! Targets of the consensus on metadata: its messages, and the files of its store.

use varve_metadata_raft::types::RaftId;
use varve_metadata_raft::{entry, files, message, snapshot_file};

/// The bytes with the checksum at their end made right.
fn sealed(data: &[u8]) -> Vec<u8> {
    let body = &data[..data.len().saturating_sub(4)];
    let mut sealed = body.to_vec();
    sealed.extend(crc32fast::hash(body).to_le_bytes());
    sealed
}

/// Messages between members: what decodes encodes to the same bytes.
///
/// # Panics
/// When a property is broken.
pub fn message(data: &[u8]) {
    for bytes in [data.to_vec(), sealed(data)] {
        if let Ok((header, request)) = message::decode_request(&bytes) {
            assert_eq!(message::encode_request(&header, &request), bytes);
        }
        if let Ok((header, response)) = message::decode_response(&bytes) {
            assert_eq!(message::encode_response(&header, &response), bytes);
        }
    }
}

/// Files of the raft store, and entries of its log.
///
/// # Panics
/// When a property is broken.
pub fn file(data: &[u8]) {
    if let Ok(entry) = entry::decode(data) {
        assert_eq!(entry::encode(&entry), data);
    }
    for bytes in [data.to_vec(), sealed(data)] {
        let owner = bytes.get(8..16).and_then(|b| b.try_into().ok());
        let owner = owner.map_or(0, RaftId::from_le_bytes);
        if let Ok(vote) = files::decode_vote(owner, &bytes) {
            assert_eq!(files::encode_vote(owner, &vote), bytes);
        }
        if let Ok(purged) = files::decode_purged(owner, &bytes) {
            assert_eq!(files::encode_purged(owner, &purged), bytes);
        }
        if let Ok(identity) = files::decode_identity(owner, &bytes) {
            assert_eq!(files::encode_identity(owner, &identity), bytes);
        }
        if let Ok((first, kept)) = files::decode_kept(owner, &bytes) {
            assert_eq!(files::encode_kept(owner, first, &kept), bytes);
        }
        if let Ok((number, committed)) = files::decode_committed(owner, &bytes) {
            assert_eq!(
                files::encode_committed(owner, number, committed.as_ref()),
                bytes
            );
        }
        if let Ok((meta, state)) = snapshot_file::decode(&bytes) {
            assert_eq!(snapshot_file::encode(&meta, state), bytes);
        }
    }
}

/// The runs of bytes in a golden file, each with its length before it.
#[must_use]
pub fn parts(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let Some((part, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else {
            break;
        };
        parts.push(part.to_vec());
        data = rest;
    }
    parts
}
