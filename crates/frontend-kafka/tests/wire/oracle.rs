//! Another implementation says the same: random messages of ours are read by `kafka-protocol`, have there the
//! values they have here, and come back from it as the same bytes. Only well-formed messages go in: it takes
//! memory as it is told.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey as TheirKey, RequestKind, ResponseKind};
use varve_frontend_kafka::wire::ApiKey;

use crate::printed::Printed;
use crate::{Case, Message, header_length, unframed};

/// Random messages of each kind and version.
const SEEDS: u64 = 15;

/// Versions that we have and the other implementation does not: before Kafka 4.0, and after 4.1.
const OURS_ALONE: &[(ApiKey, &[i16])] = &[
    (ApiKey::Produce, &[0, 1, 2]),
    (ApiKey::Fetch, &[0, 1, 2, 3]),
    (ApiKey::ListOffsets, &[0, 11]),
    (ApiKey::OffsetCommit, &[0, 1]),
    (ApiKey::OffsetFetch, &[0]),
    (ApiKey::CreateTopics, &[0, 1]),
    (ApiKey::DeleteTopics, &[0]),
    (ApiKey::OffsetForLeaderEpoch, &[0, 1]),
    (ApiKey::DescribeConfigs, &[0]),
    (ApiKey::DescribeLogDirs, &[0, 5]),
    (ApiKey::ApiVersions, &[5]),
    (ApiKey::DeleteGroups, &[3]),
    (ApiKey::TxnOffsetCommit, &[6]),
];

fn is_ours_alone(case: &Case) -> bool {
    // The numbers of quotas have fractions there; here they are bits, since there are none to be told.
    if case.key == ApiKey::DescribeClientQuotas {
        return true;
    }
    // Their requests end one version before their responses.
    let asks_by_id = matches!(case.key, ApiKey::OffsetCommit | ApiKey::OffsetFetch);
    if case.is_request && asks_by_id && case.version == 10 {
        return true;
    }
    let alone = OURS_ALONE.iter().filter(|(key, _)| *key == case.key);
    alone
        .flat_map(|(_, versions)| *versions)
        .any(|version| *version == case.version)
}

#[test]
fn another_implementation_reads_and_writes_the_same() {
    let mut fields = 0;
    for case in Case::all() {
        let their_key = TheirKey::try_from(case.key as i16).unwrap();
        let theirs = their_key.valid_versions();
        let covered = (theirs.min..=theirs.max).contains(&case.version);
        if is_ours_alone(&case) {
            continue;
        }
        assert!(covered, "{}", case.name());
        for seed in 0..SEEDS {
            let message = case.random(seed);
            let frame = unframed(case.encode(&message));
            let body = frame.slice(header_length(&case)..);
            let (printed, again) = through_theirs(&case, their_key, &body);
            assert_eq!(again, body, "{} seed {seed}", case.name());
            let (ours, theirs) = (printed_ours(&message), Printed::parse(&printed));
            fields += theirs.count();
            if let Some(difference) = ours.difference(&theirs) {
                panic!(
                    "{} seed {seed}: {difference}\n{ours:?}\n{theirs:?}",
                    case.name()
                );
            }
        }
    }
    assert!(fields > 20_000, "{fields} fields were compared");
}

fn printed_ours(message: &Message) -> Printed {
    // The outer names differ; `Printed` drops them.
    match message {
        Message::Request(request) => Printed::parse(&format!("{request:?}")),
        Message::Response(response) => Printed::parse(&format!("{response:?}")),
    }
}

/// What the other implementation reads, printed, and what it writes for it.
fn through_theirs(case: &Case, key: TheirKey, body: &Bytes) -> (String, Bytes) {
    let mut input = body.clone();
    let mut output = BytesMut::new();
    let printed = if case.is_request {
        let read = RequestKind::decode(key, &mut input, case.version);
        let read = read.unwrap_or_else(|e| panic!("{}: {e}", case.name()));
        read.encode(&mut output, case.version).unwrap();
        format!("{read:?}")
    } else {
        let read = ResponseKind::decode(key, &mut input, case.version);
        let read = read.unwrap_or_else(|e| panic!("{}: {e}", case.name()));
        read.encode(&mut output, case.version).unwrap();
        format!("{read:?}")
    };
    assert!(input.is_empty(), "{}: it reads all of it", case.name());
    (printed, output.freeze())
}

#[test]
fn fields_of_theirs_are_fields_of_ours() {
    // By name, so that none is compared with nothing.
    for case in Case::all().filter(|case| !is_ours_alone(case)) {
        let key = TheirKey::try_from(case.key as i16).unwrap();
        for seed in 0..10 {
            let message = case.random(seed);
            let body = unframed(case.encode(&message)).slice(header_length(&case)..);
            let (theirs, _) = through_theirs(&case, key, &body);
            missing(&case, &Printed::parse(&theirs), &printed_ours(&message));
        }
    }
}

fn missing(case: &Case, theirs: &Printed, ours: &Printed) {
    match (theirs, ours) {
        (Printed::Fields(theirs), Printed::Fields(ours)) => {
            for (name, value) in theirs {
                // Of a version that is not stable.
                if matches!(
                    name.as_str(),
                    "enable_2_pc"
                        | "keep_prepared_txn"
                        | "ongoing_txn_producer_id"
                        | "ongoing_txn_producer_epoch"
                ) {
                    continue;
                }
                let ours = ours.get(name);
                let ours = ours.unwrap_or_else(|| panic!("{}: we have no {name}", case.name()));
                missing(case, value, ours);
            }
        }
        (Printed::List(theirs), Printed::List(ours)) => {
            theirs
                .iter()
                .zip(ours)
                .for_each(|(theirs, ours)| missing(case, theirs, ours));
        }
        _ => {}
    }
}

#[test]
fn error_codes_are_theirs() {
    use kafka_protocol::error::ResponseError;
    use varve_frontend_kafka::wire::ErrorCode;
    for error in ErrorCode::ALL.iter().filter(|e| **e != ErrorCode::None) {
        let theirs = ResponseError::try_from_code(error.code()).expect("it is an error there too");
        assert_eq!(format!("{theirs:?}"), format!("{error:?}"));
        // Kafka's own client repeats a request that meets an open transaction; their table does not say so.
        let repeats = theirs.is_retriable() || *error == ErrorCode::ConcurrentTransactions;
        assert_eq!(repeats, error.is_retriable(), "{error:?}");
    }
}
