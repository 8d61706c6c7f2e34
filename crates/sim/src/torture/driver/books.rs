//! The books of one log: what was written, what was reported as flushed, and what the log may be now.

use std::sync::{Arc, OnceLock};

use varve_record::Sequenced;
use varve_storage::Log;

use super::super::oracle::{Candidate, Content, Keyed};

/// The books, and the log itself.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) log: Option<Log>,
    /// The batches of the log.
    pub(super) content: Content,
    /// Of a log that is compacted: all that was written and not cut off again.
    pub(super) written: Option<Content>,
    /// What a change that is on its way makes of it.
    pub(super) becomes: Option<Arc<OnceLock<Content>>>,
    pub(super) start: i64,
    pub(super) floor: i64,
    pub(super) epoch: i32,
    pub(super) flushed_epoch: i32,
    /// What is promised of it now.
    pub(super) promised: Vec<Candidate>,
    /// Appended, and in no flush yet.
    pub(super) waiting: Vec<Sequenced>,
    pub(super) failed: bool,
    /// The flushed cursor when the log failed.
    pub(super) frozen: i64,
}

/// What was written, to go back to.
pub(super) struct Contents(Content, Option<Content>);

impl Books {
    pub(super) fn new(keyed: bool) -> Self {
        Self {
            log: None,
            content: Content::default(),
            written: keyed.then(Content::default),
            becomes: None,
            start: 0,
            floor: 0,
            epoch: 1,
            flushed_epoch: 0,
            promised: Vec::new(),
            waiting: Vec::new(),
            failed: false,
            frozen: 0,
        }
    }

    /// Offset after the last record written.
    pub(super) fn end(&self) -> i64 {
        let all = self.written.as_ref().unwrap_or(&self.content);
        all.end().unwrap_or(self.start).max(self.start)
    }

    pub(super) fn push(&mut self, batch: &Sequenced) {
        self.content.push(batch);
        if let Some(written) = &mut self.written {
            written.push(batch);
        }
    }

    /// Forgets batches that are not wholly below `end`.
    pub(super) fn cut(&mut self, end: i64) {
        let start = self.start;
        for content in std::iter::once(&mut self.content).chain(&mut self.written) {
            content.cut(Some(end));
            if content.end().is_none_or(|end| end <= start) {
                content.cut(None);
            }
        }
    }

    pub(super) fn contents(&self) -> Contents {
        Contents(self.content.clone(), self.written.clone())
    }

    pub(super) fn set_contents(&mut self, Contents(content, written): Contents) {
        (self.content, self.written) = (content, written);
    }

    /// The log as it is now, were there no change on its way.
    pub(super) fn candidate(&self) -> Candidate {
        Candidate {
            content: Arc::new(self.content.clone()),
            start: self.start,
            floor: self.floor,
            epoch: self.flushed_epoch,
            keyed: self.written.as_ref().map(|written| Keyed {
                written: Arc::new(written.clone()),
                becomes: None,
            }),
        }
    }

    /// What the log may be now.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let mut all = vec![self.candidate()];
        if let (Some(becomes), Some(keyed)) = (&self.becomes, &all[0].keyed) {
            let keyed = Keyed {
                becomes: Some(becomes.clone()),
                ..keyed.clone()
            };
            let after = Candidate {
                keyed: Some(keyed),
                ..all[0].clone()
            };
            all.push(after);
        }
        all
    }
}
