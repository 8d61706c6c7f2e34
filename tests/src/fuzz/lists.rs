//! Files that are read as a whole, and the payloads in them. Decoding then encoding gives the same bytes.

use varve_groups::codec;
use varve_partition::ProducerTable;
use varve_storage::format::{
    Manifest, decode_epochs, decode_snapshot, encode_epochs, encode_snapshot,
};

use super::image::{identity, sealed};

/// A partition's manifest.
///
/// # Panics
/// When a property is broken.
pub fn manifest(data: &[u8]) {
    for bytes in [data.to_vec(), sealed(*b"VARVEMAN", data)] {
        if let Ok(manifest) = Manifest::decode(&identity(), &bytes) {
            assert_eq!(manifest.encode(&identity()), bytes);
            assert!(!manifest.segments.is_empty());
        }
    }
}

/// A partition's leader epochs.
///
/// # Panics
/// When a property is broken.
pub fn epochs(data: &[u8]) {
    for bytes in [data.to_vec(), sealed(*b"VARVEEPO", data)] {
        if let Ok(epochs) = decode_epochs(&identity(), &bytes) {
            assert_eq!(encode_epochs(&identity(), &epochs), bytes);
        }
    }
}

/// A partition's snapshot file.
///
/// # Panics
/// When a property is broken.
pub fn snapshot(data: &[u8]) {
    for bytes in [data.to_vec(), sealed(*b"VARVESNP", data)] {
        if let Ok((offset, payload)) = decode_snapshot(&identity(), &bytes) {
            assert_eq!(encode_snapshot(&identity(), offset, &payload), bytes);
        }
    }
}

/// The payload of a snapshot: the table of producers.
///
/// # Panics
/// When a property is broken.
pub fn producers(data: &[u8]) {
    if let Ok(mut table) = ProducerTable::decode(data) {
        let again = table.encode();
        if data[..2] == again[..2] {
            assert_eq!(again, data);
        } else {
            assert_eq!(ProducerTable::decode(&again), Ok(table.clone()));
        }
        table.expire(i64::MAX);
        table.expire(i64::MIN);
    }
}

/// The cluster's state.
///
/// # Panics
/// When a property is broken.
pub fn metadata(data: &[u8]) {
    use varve_metadata::snapshot;
    if let Ok(state) = snapshot::decode(data) {
        let again = snapshot::encode(&state);
        if data[4..6] == snapshot::VERSION.to_le_bytes() {
            assert_eq!(again, data);
        }
        assert_eq!(snapshot::decode(&again).as_ref(), Ok(&state));
        state.check().expect("what decodes keeps the rules");
    }
}

/// Entries of the metadata log: one as it is, and a run of them, each with its length before it, applied.
///
/// # Panics
/// When a property is broken.
pub fn metadata_command(data: &[u8]) {
    use varve_metadata::{State, apply, command_codec};
    if let Ok(command) = command_codec::decode(data) {
        assert_eq!(command_codec::encode(&command), data);
    }
    let (mut state, mut rest) = (State::default(), data);
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((bytes, tail)) = tail.split_at_checked(length) else {
            return;
        };
        rest = tail;
        let Ok(command) = command_codec::decode(bytes) else {
            continue;
        };
        assert_eq!(command_codec::encode(&command), bytes);
        let before = state.clone();
        match apply(&mut state, command) {
            Ok(_) => state.check().expect("every command keeps the rules"),
            Err(_) => assert_eq!(state, before),
        }
    }
}

/// The file that holds the cluster's state on a node.
///
/// # Panics
/// When a property is broken.
pub fn metadata_file(data: &[u8]) {
    const CRC_AT: usize = 12;
    const BODY_AT: usize = 16;
    let mut right = data.to_vec();
    if right.len() >= BODY_AT {
        right[..8].copy_from_slice(b"VRVMETA\0");
        right[8..10].copy_from_slice(&1_u16.to_le_bytes());
        let crc = crc32fast::hash(&right[BODY_AT..]);
        right[CRC_AT..BODY_AT].copy_from_slice(&crc.to_le_bytes());
    }
    for bytes in [data.to_vec(), right] {
        if let Ok(again) = varve_broker::metadata_file::recode(&bytes) {
            // A state of an older version is written in the present one.
            let newest = |b: &[u8]| b.get(28..30) == Some(&2_u16.to_le_bytes());
            assert!(again == bytes || !newest(&bytes));
            assert_eq!(varve_broker::metadata_file::recode(&again), Ok(again));
        }
    }
}

/// The file that remembers how far the scrub has come.
///
/// # Panics
/// When a property is broken.
pub fn scrub_file(data: &[u8]) {
    const CRC_AT: usize = 12;
    const BODY_AT: usize = 16;
    let mut right = data.to_vec();
    if right.len() >= BODY_AT {
        right[..8].copy_from_slice(b"VRVSCRB\0");
        right[8..12].copy_from_slice(&1_u32.to_le_bytes());
        let crc = crc32fast::hash(&right[BODY_AT..]);
        right[CRC_AT..BODY_AT].copy_from_slice(&crc.to_le_bytes());
    }
    for bytes in [data.to_vec(), right] {
        if let Some(again) = varve_broker::scrub_file::recode(&bytes) {
            assert_eq!(again, bytes);
        }
    }
}

/// Keys and values of committed offsets, of groups and of members, and what consumers say and are told in those.
///
/// # Panics
/// When a property is broken.
pub fn offsets(data: &[u8]) {
    if let Ok((group, partition)) = codec::decode_key(data) {
        assert_eq!(codec::encode_key(&group, &partition), data);
        let place = codec::partition_of(&group, 50);
        assert!((0..50).contains(&place.0));
    }
    if let Ok(committed) = codec::decode_value(data) {
        assert_eq!(codec::encode_value(&committed), data);
    }
    let _ = codec::decode_any_key(data);
    if let Ok(group) = codec::decode_group(data) {
        assert_eq!(codec::decode_group(&codec::encode_group(&group)), Ok(group));
    }
    if let Ok(member) = codec::decode_member(data) {
        let again = codec::decode_member(&codec::encode_member(&member));
        assert_eq!(again, Ok(member));
    }
    if let Ok(said) = codec::decode_subscription(data)
        && said.version <= codec::EMBEDDED_VERSION
    {
        assert_eq!(codec::encode_subscription(&said), data);
    }
    if let Ok(told) = codec::decode_assignment(data)
        && told.version <= codec::EMBEDDED_VERSION
    {
        assert_eq!(codec::encode_assignment(&told), data);
    }
    if let Ok(group) = codec::decode_classic(data) {
        let again = codec::decode_classic(&codec::encode_classic(&group));
        assert_eq!(again, Ok(group));
    }
}

/// Keys and values of transactional ids.
///
/// # Panics
/// When a property is broken.
pub fn transactions(data: &[u8]) {
    if let Ok(id) = varve_txn::codec::decode_key(data) {
        assert_eq!(varve_txn::codec::encode_key(&id), data);
    }
    if let Ok(record) = varve_txn::codec::decode_value(data) {
        let again = varve_txn::codec::decode_value(&varve_txn::codec::encode_value(&record));
        assert_eq!(again, Ok(record));
    }
}

/// A data directory's `meta.toml`. Text may be laid out in many ways, so what is compared is its meaning.
///
/// # Panics
/// When a property is broken.
pub fn identity_file(data: &[u8]) {
    if let Ok(text) = varve_server::identity::normal_form(data) {
        let again = varve_server::identity::normal_form(text.as_bytes());
        assert_eq!(again, Ok(text));
    }
}
