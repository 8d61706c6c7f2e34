//! What a member of the group prints, read back. A member is `varve consume -g`, a process of its own, so that
//! killing one is a real kill.
//!
//! A record is a frame of fixed width and then key and value as they are. A frame that is cut off was being printed
//! when the member was killed: it was not delivered.

use std::io::{BufReader, Read};

use tokio::sync::mpsc;

use super::input::Line;
use super::ledger::Returned;

/// Partition, offset, number of the record (the value of its only header), lengths of key and value, key, value.
pub(super) const FORMAT: &str = "%p{big32}%o{big64}%h{%v}%K{big32}%V{big32}%k%v";
/// Bytes before the key.
const FRAME: usize = 28;
/// Records that are reported together at most.
const CHUNK: usize = 1024;
const BUFFER: usize = 256 * 1024;

/// What a member has printed.
#[derive(Debug)]
pub(super) struct Event {
    pub member: usize,
    pub records: Vec<Returned>,
}

/// Reads until the member has ended, or the receiver is gone.
pub(super) fn follow(
    member: usize,
    output: impl Read,
    lines: &[Line],
    events: &mpsc::Sender<Event>,
) {
    let mut output = BufReader::with_capacity(BUFFER, output);
    let mut records = Vec::new();
    let mut rest = Vec::new();
    loop {
        // Before a read that may wait, what there is goes out.
        if !records.is_empty() && (output.buffer().len() < FRAME || records.len() >= CHUNK) {
            let records = std::mem::take(&mut records);
            if events.blocking_send(Event { member, records }).is_err() {
                return;
            }
        }
        let Some(record) = next(&mut output, lines, &mut rest) else {
            break;
        };
        records.push(record);
    }
    if !records.is_empty() {
        let _ = events.blocking_send(Event { member, records });
    }
}

fn next(output: &mut impl Read, lines: &[Line], rest: &mut Vec<u8>) -> Option<Returned> {
    let mut frame = [0; FRAME];
    output.read_exact(&mut frame).ok()?;
    let number = |at: usize| Some(i32::from_be_bytes(frame[at..at + 4].try_into().ok()?));
    let offset = i64::from_be_bytes(frame[4..12].try_into().ok()?);
    let (partition, key, value) = (number(0)?, number(20)?, number(24)?);
    // -1 is a null.
    let length = |length: i32| usize::try_from(length).ok();
    let (key, value) = (length(key), length(value));
    let key_end = key.unwrap_or(0);
    rest.resize(key_end + value.unwrap_or(0), 0);
    output.read_exact(rest).ok()?;
    let (k, v) = rest.split_at(key_end);
    Some(Returned::compare(
        lines,
        (partition, offset),
        Some(&frame[12..20]),
        key.map(|_| k),
        value.map(|_| v),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Fields, Format};

    fn printed(number: u64, key: Option<&[u8]>, value: &[u8]) -> Vec<u8> {
        let mut builder = varve_record::BatchBuilder::new(varve_record::Compression::None, None);
        let number = number.to_be_bytes();
        let headers = [("n", Some(&number[..]))];
        builder.append(0, key, Some(value), &headers).unwrap();
        let batch = builder.build_batch().unwrap();
        let mut records = batch.records().unwrap();
        let record = records.next_ref().unwrap().unwrap();
        let fields = Fields {
            partition: 2,
            offset: 1 << 40,
            key: record.key,
            value: record.value,
            headers: record.headers,
            ..Fields::default()
        };
        let mut out = Vec::new();
        Format::parse(FORMAT, "").unwrap().render(&fields, &mut out);
        out
    }

    #[test]
    fn what_a_member_prints_is_read_back_up_to_the_kill() {
        let line = |key: Option<&[u8]>, value: &[u8]| Line {
            key: key.map(<[u8]>::to_vec),
            value: value.to_vec(),
        };
        let lines = [line(Some(b"k"), b"a\nb\0c"), line(None, b"")];
        let mut output = printed(0, Some(b"k"), b"a\nb\0c");
        output.extend(printed(1, None, b""));
        output.extend(printed(0, Some(b"k"), b"changed"));
        output.extend(&printed(1, None, b"")[..20]);
        let (events, mut seen) = mpsc::channel(10);
        follow(1, &output[..], &lines, &events);
        drop(events);
        let mut records = Vec::new();
        while let Ok(event) = seen.try_recv() {
            assert_eq!(event.member, 1);
            records.extend(event.records);
        }
        let read = |number, intact| Returned {
            number: Some(number),
            partition: 2,
            offset: 1 << 40,
            intact,
        };
        assert_eq!(records, [read(0, true), read(1, true), read(0, false)]);
    }
}
