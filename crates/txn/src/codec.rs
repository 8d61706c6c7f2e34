//! Bytes of the records of `__transaction_state`: one key and one value per transactional id. See `FORMAT.md`.
//!
//! Invariants: decoding is total (an error value for anything else, never a panic, never more memory than a
//! multiple of the input), and what is decoded encodes to the same bytes. Never knows where the bytes are kept.

use std::collections::BTreeSet;

use varve_types::{PartitionId, ProducerId, TopicId, TopicName, TransactionalId};

use crate::record::{Cause, LAST_EPOCH, Place, Record, State};

/// Version of the keys we write and read.
pub const KEY_VERSION: i16 = 1;
/// Version of the values of sessions whose transactions have an epoch each.
pub const VALUE_VERSION: i16 = 1;
/// Version of the values of sessions that have kept their epoch: with the number of transactions.
pub const NUMBERED_VERSION: i16 = 2;

/// Why a record of `__transaction_state` was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end early.
    #[error("the {what} of a transaction record ends inside {field}")]
    Short {
        /// `key` or `value`.
        what: &'static str,
        /// Field that was being read.
        field: &'static str,
    },
    /// Bytes are left over.
    #[error("the {what} of a transaction record has {extra} bytes too many")]
    Trailing {
        /// `key` or `value`.
        what: &'static str,
        /// How many.
        extra: usize,
    },
    /// A version this program does not know.
    #[error(
        "the {what} of a transaction record has version {found}, but this program reads versions 1 \
         to {known}; a newer program wrote it, or it is a record of another kind"
    )]
    Version {
        /// `key` or `value`.
        what: &'static str,
        /// Version found.
        found: i16,
        /// Newest version understood.
        known: i16,
    },
    /// A field holds what it cannot.
    #[error("the {field} of a transaction record is not valid: {why}")]
    Field {
        /// Field.
        field: &'static str,
        /// Why.
        why: String,
    },
}

/// Key of a transactional id.
#[must_use]
pub fn encode_key(name: &TransactionalId) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + name.as_str().len());
    out.extend_from_slice(&KEY_VERSION.to_be_bytes());
    put_name(&mut out, name.as_str());
    out
}

/// Transactional id of a key.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_key`] does not write.
pub fn decode_key(bytes: &[u8]) -> Result<TransactionalId, CodecError> {
    let mut reader = Reader {
        what: "key",
        rest: bytes,
    };
    reader.version(KEY_VERSION)?;
    let name = reader.string("name")?;
    reader.end()?;
    TransactionalId::new(name).map_err(|e| bad("name", &e))
}

const STATES: [State; 6] = [
    State::Empty,
    State::Ongoing,
    State::PrepareCommit,
    State::PrepareAbort,
    State::CompleteCommit,
    State::CompleteAbort,
];

const CAUSES: [Cause; 5] = [
    Cause::Producer,
    Cause::Timeout,
    Cause::Operator,
    Cause::Successor,
    Cause::Renewal,
];

/// Place of a value in its list, which is its code.
fn code<T: PartialEq>(list: &[T], value: &T) -> u8 {
    list.iter().position(|v| v == value).unwrap_or_default() as u8
}

/// Value of a transactional id.
#[must_use]
pub fn encode_value(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 16 * record.partitions.len());
    let version = match record.number {
        0 => VALUE_VERSION,
        _ => NUMBERED_VERSION,
    };
    out.extend_from_slice(&version.to_be_bytes());
    put_producer(&mut out, Some(record.producer));
    put_producer(&mut out, record.previous);
    if version >= NUMBERED_VERSION {
        out.extend_from_slice(&record.number.to_be_bytes());
    }
    out.extend_from_slice(&record.timeout_ms.to_be_bytes());
    out.push(code(&STATES, &record.state));
    out.push(code(&CAUSES, &record.cause));
    out.extend_from_slice(&record.started_ms.unwrap_or(-1).to_be_bytes());
    out.extend_from_slice(&record.updated_ms.to_be_bytes());
    let places: Vec<&Place> = record.partitions.iter().collect();
    let topics = || places.chunk_by(|a, b| (a.topic, &a.name) == (b.topic, &b.name));
    out.extend_from_slice(&(topics().count() as u32).to_be_bytes());
    for topic in topics() {
        out.extend_from_slice(&topic[0].topic.0.to_be_bytes());
        put_name(&mut out, topic[0].name.as_str());
        out.extend_from_slice(&(topic.len() as u32).to_be_bytes());
        for place in topic {
            out.extend_from_slice(&place.partition.0.to_be_bytes());
        }
    }
    out
}

/// What a value says.
///
/// # Errors
/// [`CodecError`] for anything that [`encode_value`] does not write.
pub fn decode_value(bytes: &[u8]) -> Result<Record, CodecError> {
    let mut reader = Reader {
        what: "value",
        rest: bytes,
    };
    let version = reader.version(NUMBERED_VERSION)?;
    let producer = reader.producer("producer")?;
    let producer = producer.ok_or_else(|| bad("producer", &"it is missing"))?;
    let previous = reader.producer("previous producer")?;
    let number = match version {
        NUMBERED_VERSION => i64::from_be_bytes(reader.take("number")?),
        _ => 0,
    };
    if (version == NUMBERED_VERSION) != (number >= 1) {
        return Err(bad("number", &number));
    }
    let timeout_ms = u32::from_be_bytes(reader.take("timeout")?);
    let state = reader.one_of("state", &STATES)?;
    let cause = reader.one_of("cause", &CAUSES)?;
    let started_ms = match i64::from_be_bytes(reader.take("start")?) {
        -1 => None,
        ms if ms >= 0 => Some(ms),
        ms => return Err(bad("start", &ms)),
    };
    let updated_ms = i64::from_be_bytes(reader.take("update")?);
    let partitions = reader.places()?;
    reader.end()?;
    let record = Record {
        producer,
        previous,
        number,
        timeout_ms,
        state,
        cause,
        partitions,
        started_ms,
        updated_ms,
    };
    check(&record)?;
    Ok(record)
}

/// What no coordinator writes must not be acted on.
fn check(record: &Record) -> Result<(), CodecError> {
    let open = record.state.is_open();
    if open != record.started_ms.is_some() {
        return Err(bad("start", &"it does not match the state"));
    }
    if !open && !record.partitions.is_empty() {
        return Err(bad("partitions", &"nothing is open"));
    }
    if record.state == State::Ongoing && record.producer.epoch > LAST_EPOCH {
        return Err(bad("producer", &"its epochs are exhausted"));
    }
    let ended = record.previous.is_some_and(|p| p.epoch <= LAST_EPOCH);
    if record.state.is_deciding() && !ended {
        return Err(bad("previous producer", &"its transaction is being ended"));
    }
    Ok(())
}

fn bad(field: &'static str, why: &dyn std::fmt::Display) -> CodecError {
    CodecError::Field {
        field,
        why: why.to_string(),
    }
}

fn put_producer(out: &mut Vec<u8>, producer: Option<ProducerId>) {
    let (id, epoch) = producer.map_or((-1, -1), |p| (p.id, p.epoch));
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&epoch.to_be_bytes());
}

/// Names are at most `limits::NAME_MAX_BYTES` long.
fn put_name(out: &mut Vec<u8>, name: &str) {
    let Ok(len) = i16::try_from(name.len()) else {
        unreachable!("a name of a transaction record is bounded by its rule")
    };
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(name.as_bytes());
}

struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(CodecError::Short {
                what: self.what,
                field,
            });
        };
        self.rest = rest;
        Ok(*head)
    }

    /// A version from 1 to `known`.
    fn version(&mut self, known: i16) -> Result<i16, CodecError> {
        let found = i16::from_be_bytes(self.take("version")?);
        if (1..=known).contains(&found) {
            return Ok(found);
        }
        Err(CodecError::Version {
            what: self.what,
            found,
            known,
        })
    }

    fn producer(&mut self, field: &'static str) -> Result<Option<ProducerId>, CodecError> {
        let id = i64::from_be_bytes(self.take(field)?);
        let epoch = i16::from_be_bytes(self.take(field)?);
        match (id, epoch) {
            (-1, -1) => Ok(None),
            _ if id >= 0 && epoch >= 0 => Ok(Some(ProducerId { id, epoch })),
            _ => Err(bad(field, &format!("id {id} with epoch {epoch}"))),
        }
    }

    fn one_of<T: Copy>(&mut self, field: &'static str, list: &[T]) -> Result<T, CodecError> {
        let [code] = self.take(field)?;
        let known = list.get(usize::from(code)).copied();
        known.ok_or_else(|| bad(field, &format!("its code is {code}")))
    }

    fn string(&mut self, field: &'static str) -> Result<&'a str, CodecError> {
        let len = i16::from_be_bytes(self.take(field)?);
        let len = usize::try_from(len).map_err(|_| bad(field, &format!("its length is {len}")))?;
        let Some((text, rest)) = self.rest.split_at_checked(len) else {
            return Err(CodecError::Short {
                what: self.what,
                field,
            });
        };
        self.rest = rest;
        std::str::from_utf8(text).map_err(|e| bad(field, &e))
    }

    fn places(&mut self) -> Result<BTreeSet<Place>, CodecError> {
        let mut places = BTreeSet::new();
        let mut last_topic: Option<(TopicId, TopicName)> = None;
        for _ in 0..u32::from_be_bytes(self.take("topics")?) {
            let topic = TopicId(u128::from_be_bytes(self.take("topic id")?));
            let name = self.string("topic")?;
            let name = TopicName::new(name).map_err(|e| bad("topic", &e))?;
            let count = u32::from_be_bytes(self.take("partitions")?);
            let key = (topic, name);
            // Ascending, each once, none empty: a record has exactly one encoding.
            if count == 0 || last_topic.as_ref().is_some_and(|last| *last >= key) {
                return Err(bad("topics", &"they are not ascending, or one is empty"));
            }
            let mut last = -1;
            for _ in 0..count {
                let partition = i32::from_be_bytes(self.take("partition")?);
                if partition <= last {
                    return Err(bad("partitions", &"they are not ascending"));
                }
                last = partition;
                places.insert(Place {
                    topic,
                    name: key.1.clone(),
                    partition: PartitionId(partition),
                });
            }
            last_topic = Some(key);
        }
        Ok(places)
    }

    fn end(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(CodecError::Trailing {
                what: self.what,
                extra,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        let all: Vec<_> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        all.join(" ")
    }

    fn place(topic: u128, name: &str, partition: i32) -> Place {
        Place {
            topic: TopicId(topic),
            name: TopicName::new(name).unwrap(),
            partition: PartitionId(partition),
        }
    }

    fn name() -> TransactionalId {
        TransactionalId::new("copy-7").unwrap()
    }

    /// A transaction of two topics that is being committed.
    fn sample() -> Record {
        Record {
            producer: ProducerId { id: 4242, epoch: 6 },
            previous: Some(ProducerId { id: 4242, epoch: 5 }),
            number: 0,
            timeout_ms: 60_000,
            state: State::PrepareCommit,
            cause: Cause::Producer,
            partitions: BTreeSet::from([place(1, "in", 7), place(2, "out", 0), place(2, "out", 3)]),
            started_ms: Some(1_700_000_000_000),
            updated_ms: 1_700_000_000_005,
        }
    }

    /// The third transaction of its epoch, being aborted.
    fn numbered() -> Record {
        let session = ProducerId { id: 4242, epoch: 5 };
        Record {
            producer: session,
            previous: Some(session),
            number: 3,
            state: State::PrepareAbort,
            partitions: BTreeSet::from([place(1, "in", 7)]),
            ..sample()
        }
    }

    fn fresh() -> Record {
        Record::session(ProducerId { id: 7, epoch: 0 }, 60_000, 1_700_000_000_000)
    }

    /// The documented examples are what the code writes; a change of either alone fails here.
    #[test]
    fn format_document_shows_the_bytes() {
        let document = include_str!("../FORMAT.md");
        let flat = document.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = |bytes: &[u8]| assert!(flat.contains(&hex(bytes)), "{}", hex(bytes));
        shown(&encode_key(&name()));
        shown(&encode_value(&sample()));
        shown(&encode_value(&fresh()));
        shown(&encode_value(&numbered()));
    }

    #[test]
    fn round_trip() {
        assert_eq!(decode_key(&encode_key(&name())), Ok(name()));
        for record in [sample(), fresh(), numbered()] {
            assert_eq!(decode_value(&encode_value(&record)), Ok(record));
        }
    }

    #[test]
    fn other_versions_are_an_error_that_says_so() {
        let mut key = encode_key(&name());
        key[1] = 2;
        let error = decode_key(&key).unwrap_err();
        assert!(error.to_string().contains("newer program"), "{error}");
        let mut value = encode_value(&sample());
        value[1] = 9;
        let error = decode_value(&value).unwrap_err();
        assert!(error.to_string().contains("version 9"), "{error}");
    }

    #[test]
    fn what_no_coordinator_writes_is_refused() {
        let refused = |change: &dyn Fn(&mut Record)| {
            let mut record = sample();
            change(&mut record);
            let decoded = decode_value(&encode_value(&record));
            assert!(
                matches!(decoded, Err(CodecError::Field { .. })),
                "{decoded:?}"
            );
        };
        refused(&|r| r.started_ms = None);
        refused(&|r| r.previous = None);
        refused(&|r| r.state = State::Empty);
        refused(&|r| (r.state, r.started_ms) = (State::CompleteAbort, None));
        refused(&|r| {
            r.previous = Some(ProducerId {
                id: 1,
                epoch: i16::MAX,
            })
        });
        refused(&|r| (r.state, r.producer.epoch) = (State::Ongoing, i16::MAX));
        refused(&|r| r.producer.epoch = -1);
        refused(&|r| r.number = -1);
        let mut numberless = encode_value(&numbered());
        // Version, then two producers of ten bytes each.
        numberless[22..30].fill(0);
        let decoded = decode_value(&numberless);
        assert!(
            matches!(decoded, Err(CodecError::Field { .. })),
            "{decoded:?}"
        );
    }

    proptest! {
        #[test]
        fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            if let Ok(name) = decode_key(&bytes) {
                prop_assert_eq!(encode_key(&name), bytes.clone());
            }
            if let Ok(record) = decode_value(&bytes) {
                prop_assert_eq!(encode_value(&record), bytes);
            }
        }

        #[test]
        fn damage_is_found_or_reads_as_another_record(at in 0_usize..160, bit in 0_u8..8) {
            let mut value = encode_value(&sample());
            if let Some(byte) = value.get_mut(at) {
                *byte ^= 1 << bit;
                let decoded = decode_value(&value);
                prop_assert!(decoded.as_ref().ok() != Some(&sample()));
                if let Ok(record) = decoded {
                    prop_assert_eq!(encode_value(&record), value);
                }
            }
        }

        #[test]
        fn what_is_cut_off_is_refused(cut in 1_usize..160) {
            let value = encode_value(&sample());
            let end = value.len().saturating_sub(cut);
            prop_assert!(decode_value(&value[..end]).is_err());
        }
    }
}
