//! Bytes that lie: about counts, lengths, tags, and about themselves. They are refused with what is wrong, and
//! the memory they cost is bounded by how many of them there are.

use bytes::Bytes;
use varve_frontend_kafka::wire::reader::{MEMORY_FACTOR, MEMORY_FLOOR};
use varve_frontend_kafka::wire::{
    ApiKey, DecodeError, DecodeFault, Request, RequestError, decode_request, decode_response,
};

use crate::chance::Chance;
use crate::memory::taken_by;
use crate::{Case, unframed};

/// What an error and the shared ownership of a frame may cost besides.
const BESIDES: usize = 4096;

/// Decodes and holds the cost against the length.
fn decode_within_bounds(case: &Case, bytes: Vec<u8>) {
    let (length, frame) = (bytes.len(), Bytes::from(bytes));
    let (_, taken) = taken_by(|| {
        if case.is_request {
            decode_request(frame).is_ok()
        } else {
            decode_response(case.key, case.version, frame).is_ok()
        }
    });
    let most = MEMORY_FACTOR * length + MEMORY_FLOOR + BESIDES;
    assert!(
        taken <= most,
        "{}: {taken} bytes for a frame of {length}",
        case.name()
    );
}

#[test]
fn lies_at_every_place_cost_bounded_memory_and_never_panic() {
    const LIES: &[&[u8]] = &[
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0x00, 0x00, 0x00],
        &[0xff, 0xff, 0xff, 0xfe],
        &[0x00, 0x0f, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff; 10],
        &[0x80; 10],
    ];
    for case in Case::all() {
        let body = unframed(case.encode(&case.random(2)));
        // What an API is stays as it is, and what it says does not.
        let first = if case.is_request { 8 } else { 4 };
        let step = body.len() / 120 + 1;
        for at in (first..body.len()).step_by(step) {
            for lie in LIES {
                let mut bytes = body.to_vec();
                let end = (at + lie.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&lie[..end - at]);
                decode_within_bounds(&case, bytes);
            }
        }
    }
}

#[test]
fn random_changes_and_random_bytes_cost_bounded_memory_and_never_panic() {
    for case in Case::all() {
        let mut chance = Chance::new(case.version as u64, case.version);
        let body = unframed(case.encode(&case.random(3)));
        let first = if case.is_request { 8 } else { 0 };
        for _ in 0..60 {
            let mut bytes = body.to_vec();
            for _ in 0..=chance.below(6) {
                let at = first + chance.below((bytes.len() - first) as u64 + 1) as usize;
                match bytes.get_mut(at) {
                    Some(byte) => *byte = chance.next() as u8,
                    None => bytes.push(chance.next() as u8),
                }
            }
            decode_within_bounds(&case, bytes);
            let noise = (0..chance.below(300)).map(|_| chance.next() as u8);
            let bytes = body[..first].iter().copied().chain(noise).collect();
            decode_within_bounds(&case, bytes);
        }
    }
}

/// A request without a client's name, with this body.
fn request(key: ApiKey, version: i16, body: &[u8]) -> Bytes {
    let mut frame = Vec::new();
    frame.extend_from_slice(&(key as i16).to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
    if key.is_flexible(version) {
        frame.push(0);
    }
    frame.extend_from_slice(body);
    frame.into()
}

fn refused(key: ApiKey, version: i16, body: &[u8]) -> DecodeError {
    match decode_request(request(key, version, body)) {
        Err(RequestError::Malformed(prefix, error)) => {
            assert_eq!((prefix.api_key, prefix.api_version), (key as i16, version));
            error
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn counts_that_cannot_be_are_refused_before_memory_is_taken() {
    let key = ApiKey::Metadata;
    let many = refused(key, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 1, b'a']);
    let (count, least, left) = (i32::MAX as usize, 2, 3);
    assert_eq!(
        many.fault,
        DecodeFault::CountTooLarge { count, least, left }
    );
    assert_eq!(
        many.to_string(),
        "MetadataRequest v0: field \"topics\" at byte 4: 2147483647 elements of at least 2 bytes \
         are announced, but 3 bytes are left"
    );
    let negative = refused(key, 1, &[0x80, 0, 0, 0]);
    assert_eq!(
        negative.fault,
        DecodeFault::NegativeLength(i64::from(i32::MIN))
    );
    let null = refused(key, 0, &[0xff, 0xff, 0xff, 0xff]);
    assert_eq!(
        (null.field.as_str(), null.fault),
        ("topics", DecodeFault::Null)
    );
    let compact = refused(key, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(
        matches!(compact.fault, DecodeFault::CountTooLarge { .. }),
        "{compact}"
    );
    let one_too_many = refused(key, 0, &[0, 0, 0, 2, 0, 1, b'a']);
    assert!(
        matches!(one_too_many.fault, DecodeFault::CountTooLarge { .. }),
        "{one_too_many}"
    );
}

#[test]
fn varints_have_at_most_five_bytes() {
    for body in [
        &[0xff; 10][..],
        &[0x80; 10],
        &[0xff, 0xff, 0xff, 0xff, 0x1f],
    ] {
        let error = refused(ApiKey::Metadata, 9, body);
        assert_eq!(error.fault, DecodeFault::Varint, "{body:x?}");
    }
    let cut = refused(ApiKey::Metadata, 9, &[0x80]);
    assert_eq!(cut.fault, DecodeFault::CutOff { needed: 1, left: 0 });
}

#[test]
fn strings_are_whole() {
    let key = ApiKey::FindCoordinator;
    let (_, any) = decode_request(request(key, 0, &[0, 2, 0xc3, 0x28])).unwrap();
    assert!(matches!(any, Request::FindCoordinator(r) if r.key.as_str() == "\\xc3("));
    let cut = refused(key, 0, &[0, 3, b'a']);
    assert_eq!(cut.fault, DecodeFault::CutOff { needed: 3, left: 1 });
    assert_eq!((cut.field.as_str(), cut.offset), ("key", 2));
    assert_eq!(refused(key, 0, &[0xff, 0xff]).fault, DecodeFault::Null);
    assert_eq!(
        refused(key, 0, &[0xff, 0xfe]).fault,
        DecodeFault::NegativeLength(-2)
    );
    // Inside an array of structures, the path says where.
    let deep = refused(ApiKey::Produce, 0, &[0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 9]);
    assert_eq!(deep.field, "topic_data");
    let deep = refused(
        ApiKey::Produce,
        0,
        &[
            0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 9, b't', b'o', b'p', b'i', b'c',
        ],
    );
    assert_eq!((deep.field.as_str(), deep.offset), ("topic_data.name", 12));
}

#[test]
fn unknown_tags_are_skipped_and_bad_ones_are_refused() {
    // `topics` null, no auto-creation, no authorized operations: Metadata v11 up to its tags.
    let with_tags = |tags: &[u8]| [&[0, 0, 0][..], tags].concat();
    let key = ApiKey::Metadata;
    let known = decode_request(request(key, 11, &with_tags(&[2, 5, 1, 0xaa, 0xff, 1, 0]))).unwrap();
    assert!(matches!(known.1, Request::Metadata(m) if m.topics.is_none()));
    let faults = [
        (&[2, 5, 0, 5, 0][..], DecodeFault::TagOrder { tag: 5 }),
        (&[2, 5, 0, 4, 0], DecodeFault::TagOrder { tag: 4 }),
        (&[1, 5, 3, 0, 0], DecodeFault::CutOff { needed: 3, left: 2 }),
        (&[2, 5, 0], DecodeFault::CutOff { needed: 1, left: 0 }),
        (
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            DecodeFault::CutOff { needed: 1, left: 0 },
        ),
        (
            &[1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f],
            DecodeFault::CutOff {
                needed: u32::MAX as usize,
                left: 0,
            },
        ),
    ];
    for (tags, fault) in faults {
        assert_eq!(refused(key, 11, &with_tags(tags)).fault, fault, "{tags:x?}");
    }
}

#[test]
fn a_known_tag_has_the_length_it_announced() {
    // Fetch v12 up to its tags: waiting, sizes, isolation, session, no topics, no rack.
    let body = |tags: &[u8]| {
        let mut body = vec![0xff, 0xff, 0xff, 0xff];
        body.extend_from_slice(&[0; 21]);
        body.extend_from_slice(&[1, 1, 1]);
        body.extend_from_slice(tags);
        body
    };
    let key = ApiKey::Fetch;
    let (_, read) = decode_request(request(key, 12, &body(&[1, 0, 3, 3, b'i', b'd']))).unwrap();
    let Request::Fetch(read) = read else {
        panic!("{read:?}")
    };
    assert_eq!(read.cluster_id.unwrap().as_str(), "id");
    // The value ends before the tag does, and the other way round.
    let error = refused(key, 12, &body(&[1, 0, 4, 3, b'i', b'd', 0]));
    let (tag, announced, read) = (0, 4, 3);
    assert_eq!(
        error.fault,
        DecodeFault::TagLength {
            tag,
            announced,
            read
        }
    );
    let error = refused(key, 12, &body(&[1, 0, 2, 3, b'i', b'd']));
    assert_eq!(error.fault, DecodeFault::CutOff { needed: 2, left: 1 });
    assert_eq!(error.field, "cluster_id");
}

#[test]
fn an_array_of_nothing_takes_no_more_than_its_share_of_memory() {
    // A megabyte of empty names: each takes one byte here and 32 in memory.
    let count = 1 << 20;
    let mut body = vec![0x81, 0x80, 0x40];
    body.extend(std::iter::repeat_n(1, count));
    body.extend_from_slice(&[0, 0]);
    let frame = request(ApiKey::DescribeGroups, 5, &body);
    let (error, taken) = taken_by(|| decode_request(frame).expect_err("it is refused"));
    let RequestError::Malformed(_, error) = error else {
        panic!("{error}")
    };
    assert!(matches!(error.fault, DecodeFault::Memory { .. }), "{error}");
    assert!(taken < BESIDES, "{taken} bytes were taken");
    // Names of three letters fit.
    let mut body = vec![0x81, 0x80, 0x40];
    body.extend([4, b'a', b'b', b'c'].repeat(count));
    body.extend_from_slice(&[0, 0]);
    let frame = request(ApiKey::DescribeGroups, 5, &body);
    let length = frame.len();
    let (read, taken) = taken_by(|| decode_request(frame));
    let (_, Request::DescribeGroups(read)) = read.unwrap() else {
        panic!("it is")
    };
    assert_eq!(read.groups.len(), count);
    assert!(
        taken <= MEMORY_FACTOR * length,
        "{taken} bytes for {length}"
    );
}

#[test]
fn a_request_that_is_not_ours_can_be_answered_all_the_same() {
    let frame = |key: i16, version: i16| {
        let mut frame = Vec::new();
        frame.extend_from_slice(&key.to_be_bytes());
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 77]);
        Bytes::from(frame)
    };
    let unknown = decode_request(frame(999, 0)).unwrap_err();
    assert!(matches!(unknown, RequestError::UnknownApi(_)));
    assert_eq!(unknown.prefix().unwrap().correlation_id, 77);
    for version in [-1, 6, i16::MAX, i16::MIN] {
        let error = decode_request(frame(18, version)).unwrap_err();
        assert!(matches!(
            error,
            RequestError::UnsupportedVersion(_, ApiKey::ApiVersions)
        ));
        assert_eq!(error.prefix().unwrap().correlation_id, 77);
    }
    for length in 0..8 {
        let error = decode_request(frame(18, 0).slice(..length)).unwrap_err();
        assert!(
            matches!(error, RequestError::NoPrefix(_)),
            "{length}: {error}"
        );
        assert_eq!(error.prefix(), None);
    }
}
