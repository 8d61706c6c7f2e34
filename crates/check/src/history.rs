//! A history as a file: JSON lines, the first of which is the header. FORMAT: `docs/testing.md`.
//!
//! The order of the lines is the order of the events: a call's line stands before anything it may have caused, its
//! answer's line after everything that caused it. Readers refuse versions and fields they do not know.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

/// Version of the format that is written, and the newest that is read. Version 2 added transactions, copies and the
/// ownership of groups; all of version 1 is in it and means what it meant.
pub const VERSION: u32 = 2;

/// Oldest version that is read.
pub const VERSION_OLDEST: u32 = 1;

/// When a send counted as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acks {
    /// Every replica in sync has it: it must never be lost.
    All,
    /// The leader has it: it may be lost with the leader.
    Leader,
    /// Nobody says anything.
    None,
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// `varve`.
    pub history: String,
    /// Version of the format.
    pub version: u32,
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// What the workload drew its choices from.
    pub seed: u64,
}

impl Header {
    /// A header of the version that is written.
    #[must_use]
    pub fn new(topic: &str, partitions: i32, seed: u64) -> Self {
        Self {
            history: "varve".to_owned(),
            version: VERSION,
            topic: topic.to_owned(),
            partitions,
            seed,
        }
    }
}

/// One line. `op` joins a call to its answer; `ns` is the time since the beginning, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// Call: append one record. Answered with its offset.
    Send {
        /// Number of the call.
        op: u64,
        /// Time.
        ns: u64,
        /// One life of one producer: its sends are ordered.
        session: u32,
        /// Partition.
        partition: i32,
        /// Key.
        key: u64,
        /// Number in the record, used once in a history.
        value: u64,
        /// When it counts as done.
        acks: Acks,
        /// The producer's repeats are recognised.
        idempotent: bool,
        /// Number of the transaction that it is part of, used for one transaction in a history.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        txn: Option<u64>,
        /// Value of the record that it was made from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<u64>,
    },
    /// Call: end a transaction. Answered ok: it is decided so. Failed: it is certainly not so; a commit that failed is
    /// an abort, and an abort that failed says nothing.
    EndTxn {
        /// Number of the call.
        op: u64,
        /// Time.
        ns: u64,
        /// Number of the transaction.
        txn: u64,
        /// Commit it, or abort it.
        commit: bool,
    },
    /// Call: where does the log end. Answered with the offset.
    End {
        /// Number of the call.
        op: u64,
        /// Time.
        ns: u64,
        /// Who asks.
        process: u32,
        /// Partition.
        partition: i32,
    },
    /// Call: commit an offset, not smaller than any before for this group and partition.
    Commit {
        /// Number of the call.
        op: u64,
        /// Time.
        ns: u64,
        /// Group.
        group: String,
        /// Partition.
        partition: i32,
        /// Offset.
        offset: i64,
        /// The member of the group that commits; none: nobody in particular.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        member: Option<u32>,
    },
    /// Call: read a committed offset. Answered with it, or with none.
    Committed {
        /// Number of the call.
        op: u64,
        /// Time.
        ns: u64,
        /// Group.
        group: String,
        /// Partition.
        partition: i32,
    },
    /// Call: read a whole partition from its beginning, by polls of this process. Answered with the offset that
    /// was reached, which was the end of the log when the read began or later: the end of the log itself, also for
    /// readers that see committed records only. One that stays before a transaction without end is answered unknown.
    Final {
        /// Number of the call.
        op: u64,
        /// Time.
        ns: u64,
        /// Who reads.
        process: u32,
        /// Partition.
        partition: i32,
    },
    /// Answer: done.
    Ok {
        /// Number of the call.
        op: u64,
        /// Time.
        ns: u64,
        /// What was answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<i64>,
    },
    /// Answer: it did not happen and never will.
    Fail {
        /// Number of the call.
        op: u64,
        /// Time.
        ns: u64,
        /// Why.
        error: String,
    },
    /// Answer: it may or may not have happened, or may happen yet.
    Unknown {
        /// Number of the call.
        op: u64,
        /// Time.
        ns: u64,
        /// Why.
        error: String,
    },
    /// Records came, in this order.
    Poll {
        /// Who reads.
        process: u32,
        /// Time.
        ns: u64,
        /// Partition.
        partition: i32,
        /// Leader epoch of the records.
        epoch: i64,
        /// One past the last committed record, as the answer said; negative: it did not.
        high_watermark: i64,
        /// Offset and value of each.
        records: Vec<(i64, u64)>,
        /// Records of transactions come before these are committed, and whether they are or not.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        uncommitted: bool,
        /// Number of the transaction that it is part of. The poll was made before its end was called.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        txn: Option<u64>,
    },
    /// A process goes elsewhere: its next poll may begin anywhere, or at `offset`.
    Seek {
        /// Who reads.
        process: u32,
        /// Time.
        ns: u64,
        /// Partition.
        partition: i32,
        /// Where the next poll begins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<i64>,
    },
    /// A record came that nobody can have sent like this.
    Corrupt {
        /// Who reads.
        process: u32,
        /// Time.
        ns: u64,
        /// Partition.
        partition: i32,
        /// Offset.
        offset: i64,
        /// What is wrong with it.
        what: String,
    },
    /// A pipeline that makes one record from each that it reads has come to its end: it read these partitions from
    /// their beginnings up to these offsets, what it made is decided, and nothing more comes of it.
    Drained {
        /// Time.
        ns: u64,
        /// Partition, and one past the last offset that was read.
        ends: Vec<(i32, i64)>,
    },
    /// A member learned that a partition is its own. Written before its first record is worked on.
    Own {
        /// Group.
        group: String,
        /// One life of one member.
        member: u32,
        /// Partition.
        partition: i32,
        /// Time.
        ns: u64,
    },
    /// A member works on a partition no more. Written before it says so to anybody, or when it knows that it was
    /// fenced.
    Disown {
        /// Group.
        group: String,
        /// One life of one member.
        member: u32,
        /// Partition.
        partition: i32,
        /// Time.
        ns: u64,
    },
    /// A member was killed: it owns nothing, and nothing more comes from it.
    Gone {
        /// One life of one member.
        member: u32,
        /// Time.
        ns: u64,
    },
    /// Something was broken or repaired on purpose, or went wrong in the workload. Changes no verdict.
    Note {
        /// Time.
        ns: u64,
        /// What.
        what: String,
    },
    /// Everything was repaired, and the cluster had its time: from here on every send must succeed.
    Healed {
        /// Time.
        ns: u64,
    },
}

/// Why a history cannot be read.
#[derive(Debug)]
pub enum HistoryError {
    /// The file could not be read.
    Io(std::io::Error),
    /// A line is not what it should be. Line, and what is wrong.
    Line(u64, String),
}

impl std::fmt::Display for HistoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the history could not be read: {error}"),
            Self::Line(line, what) => write!(f, "line {line} of the history: {what}"),
        }
    }
}

impl std::error::Error for HistoryError {}

/// Writes one line.
///
/// # Errors
/// Of the writer.
pub fn write_line(out: &mut impl Write, line: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from)?;
    out.write_all(b"\n")
}

/// Reads a history line by line and hands on every event. A last line that was cut off, as a killed writer leaves
/// it, is an event that was not written.
///
/// # Errors
/// [`HistoryError`]; what came before was handed on.
pub fn read_history(
    mut input: impl BufRead,
    mut event: impl FnMut(u64, Event),
) -> Result<Header, HistoryError> {
    let mut line = String::new();
    let mut number = 1;
    input.read_line(&mut line).map_err(HistoryError::Io)?;
    let wrong = |number, error: serde_json::Error| HistoryError::Line(number, error.to_string());
    // The version first: a newer header may have fields that this one does not know.
    let loose: serde_json::Value = serde_json::from_str(&line).map_err(|e| wrong(1, e))?;
    let version = loose.get("version").and_then(serde_json::Value::as_u64);
    if loose.get("history").and_then(|h| h.as_str()) != Some("varve") {
        return Err(HistoryError::Line(1, "not a history of varve".to_owned()));
    }
    let read = u64::from(VERSION_OLDEST)..=u64::from(VERSION);
    if !version.is_some_and(|version| read.contains(&version)) {
        let found = version.map_or_else(|| "none".to_owned(), |v| v.to_string());
        let what = format!(
            "version {found} of the format; this program reads versions {VERSION_OLDEST} to {VERSION}"
        );
        return Err(HistoryError::Line(1, what));
    }
    let header: Header = serde_json::from_value(loose).map_err(|e| wrong(1, e))?;
    loop {
        line.clear();
        number += 1;
        if input.read_line(&mut line).map_err(HistoryError::Io)? == 0 {
            return Ok(header);
        }
        match serde_json::from_str(&line) {
            Ok(found) => event(number, found),
            Err(_) if !line.ends_with('\n') => return Ok(header),
            Err(error) => return Err(wrong(number, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_the_document_says() {
        let event = Event::Send {
            op: 3,
            ns: 5,
            session: 1,
            partition: 2,
            key: 9,
            value: 77,
            acks: Acks::All,
            idempotent: true,
            txn: None,
            source: None,
        };
        let text = r#"{"type":"send","op":3,"ns":5,"session":1,"partition":2,"key":9,"value":77,"acks":"all","idempotent":true}"#;
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
        let text = r#"{"type":"poll","process":1,"ns":2,"partition":0,"epoch":4,"high_watermark":9,"records":[[7,70],[8,80]]}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
        assert!(serde_json::from_str::<Event>(r#"{"type":"ok","op":1,"ns":2,"what":3}"#).is_err());
    }

    #[test]
    fn lines_of_version_2_are_what_the_document_says() {
        let lines = [
            r#"{"type":"send","op":3,"ns":5,"session":1,"partition":2,"key":9,"value":77,"acks":"all","idempotent":true,"txn":4,"source":70}"#,
            r#"{"type":"end_txn","op":4,"ns":6,"txn":4,"commit":true}"#,
            r#"{"type":"commit","op":5,"ns":6,"group":"g","partition":0,"offset":8,"member":2}"#,
            r#"{"type":"poll","process":1,"ns":2,"partition":0,"epoch":4,"high_watermark":9,"records":[[7,70]],"uncommitted":true,"txn":6}"#,
            r#"{"type":"drained","ns":7,"ends":[[0,12],[1,9]]}"#,
            r#"{"type":"own","group":"g","member":2,"partition":0,"ns":8}"#,
            r#"{"type":"disown","group":"g","member":2,"partition":0,"ns":9}"#,
            r#"{"type":"gone","member":2,"ns":10}"#,
        ];
        for line in lines {
            let event: Event = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&event).unwrap(), line);
        }
    }

    #[test]
    fn a_history_of_version_1_is_read() {
        let text = concat!(
            r#"{"history":"varve","version":1,"topic":"t","partitions":3,"seed":7}"#,
            "\n",
            r#"{"type":"commit","op":1,"ns":2,"group":"g","partition":0,"offset":8}"#,
            "\n"
        );
        let mut found = Vec::new();
        let header = read_history(text.as_bytes(), |_, event| found.push(event)).unwrap();
        assert_eq!(header.version, 1);
        assert!(matches!(found[..], [Event::Commit { member: None, .. }]));
    }

    #[test]
    fn a_history_is_read_back_and_others_are_refused_by_name() {
        let header = Header::new("t", 3, 7);
        let mut file = Vec::new();
        write_line(&mut file, &header).unwrap();
        let events = [
            Event::Healed { ns: 4 },
            Event::Ok {
                op: 1,
                ns: 5,
                offset: None,
            },
        ];
        for event in &events {
            write_line(&mut file, event).unwrap();
        }
        file.extend(br#"{"type":"healed","n"#);
        let mut found = Vec::new();
        let read = read_history(file.as_slice(), |line, event| found.push((line, event))).unwrap();
        assert_eq!(read, header);
        assert_eq!(found, [(2, events[0].clone()), (3, events[1].clone())]);

        let refused = |text: &str| {
            read_history(text.as_bytes(), |_, _| ())
                .unwrap_err()
                .to_string()
        };
        assert!(refused(r#"{"history":"varve","version":3,"new":1}"#).contains("version 3"));
        assert!(refused(r#"{"history":"other"}"#).contains("not a history"));
        let mut middle = Vec::new();
        write_line(&mut middle, &header).unwrap();
        middle.extend(b"{}\n{}\n");
        let error = read_history(middle.as_slice(), |_, _| ()).unwrap_err();
        assert!(error.to_string().starts_with("line 2 of the history"));
    }
}
