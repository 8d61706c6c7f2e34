//! What one file of the disk in memory holds: what is readable, what is durable, and the changes in
//! between. A change is durable by a sync, and given up by a sync that fails: then it is readable until the
//! power goes, and no later sync covers it.

use std::path::Path;

use bytes::Bytes;

use super::{Fate, Unsynced};

#[derive(Debug, Clone)]
pub(super) enum DataOp {
    Write(u64, Bytes),
    SetLen(u64),
}

/// Puts `bytes` at `at`; what lies between the end and `at` reads as zeros.
fn put(data: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = at as usize;
    if bytes.is_empty() {
        return;
    }
    grow(data, at + bytes.len());
    data[at..at + bytes.len()].copy_from_slice(bytes);
}

fn grow(data: &mut Vec<u8>, len: usize) {
    if data.len() < len {
        data.resize(len, 0);
    }
}

impl DataOp {
    fn apply(&self, data: &mut Vec<u8>, fate: Fate) {
        match (self, fate) {
            (_, Fate::Lose) => {}
            (Self::SetLen(len), _) => data.resize(*len as usize, 0),
            (Self::Write(at, bytes), Fate::Keep) => put(data, *at, bytes),
            (Self::Write(at, bytes), Fate::Tear(part)) => {
                put(data, *at, &bytes[..part.min(bytes.len())]);
            }
            (Self::Write(at, bytes), Fate::Tail(part)) => {
                let part = part.min(bytes.len());
                put(data, *at + part as u64, &bytes[part..]);
            }
            (Self::Write(at, bytes), Fate::Zeros) => grow(data, *at as usize + bytes.len()),
        }
    }
}

#[derive(Debug, Clone)]
struct Pending {
    when: u64,
    op: DataOp,
    /// A sync that should have covered it has failed.
    given_up: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// What is readable.
    pub(super) data: Vec<u8>,
    /// What is on the disk for certain.
    pub(super) durable: Vec<u8>,
    pending: Vec<Pending>,
}

impl Content {
    /// A file of which everything is durable.
    pub(super) fn durable(data: Vec<u8>) -> Self {
        Self {
            durable: data.clone(),
            data,
            pending: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, when: u64, op: DataOp) {
        op.apply(&mut self.data, Fate::Keep);
        self.pending.push(Pending {
            when,
            op,
            given_up: false,
        });
    }

    /// Makes all changes durable but those that were given up. What is written again over these replaces
    /// them; the length on the disk is then the readable one.
    pub(super) fn sync(&mut self) {
        let mut limbo: Vec<Pending> = Vec::new();
        let mut wrote = false;
        for change in std::mem::take(&mut self.pending) {
            if change.given_up {
                limbo.push(change);
                continue;
            }
            wrote = true;
            change.op.apply(&mut self.durable, Fate::Keep);
            limbo = limbo
                .into_iter()
                .flat_map(|old| without(old, &change.op))
                .collect();
        }
        if wrote {
            self.durable.resize(self.data.len(), 0);
            limbo.retain(|old| matches!(old.op, DataOp::Write(..)));
        }
        self.pending = limbo;
    }

    /// A sync has failed: the system thinks these changes are written, and they are not.
    pub(super) fn give_up(&mut self) {
        for change in &mut self.pending {
            change.given_up = true;
        }
    }

    /// The file after a power cut.
    pub(super) fn after_crash(
        &self,
        path: &Path,
        fate: &mut dyn FnMut(&Unsynced<'_>) -> Fate,
    ) -> Self {
        let mut data = self.durable.clone();
        for change in &self.pending {
            let when = change.when;
            let seen = match &change.op {
                DataOp::Write(at, bytes) => Unsynced::Write {
                    path,
                    at: *at,
                    len: bytes.len(),
                    when,
                },
                DataOp::SetLen(len) => Unsynced::SetLen {
                    path,
                    len: *len,
                    when,
                },
            };
            change.op.apply(&mut data, fate(&seen));
        }
        Self::durable(data)
    }
}

/// What is left of an earlier write that was given up after a later change replaced a part of it.
fn without(old: Pending, later: &DataOp) -> Vec<Pending> {
    let (DataOp::Write(at, bytes), when) = (&old.op, old.when) else {
        return vec![old];
    };
    let (from, to) = match later {
        DataOp::Write(at, bytes) => (*at, *at + bytes.len() as u64),
        DataOp::SetLen(len) => (*len, u64::MAX),
    };
    let end = at + bytes.len() as u64;
    let piece = |a: u64, b: u64| {
        let part = bytes.slice((a - at) as usize..(b - at) as usize);
        Pending {
            when,
            op: DataOp::Write(a, part),
            given_up: true,
        }
    };
    let mut left = Vec::new();
    if *at < from.min(end) {
        left.push(piece(*at, from.min(end)));
    }
    if to.max(*at) < end {
        left.push(piece(to.max(*at), end));
    }
    left
}
