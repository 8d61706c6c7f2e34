//! Whether this node still leads, asked of the quorum: before a coordinator tells what it remembers. A node that was
//! paused, or is cut off, may have been replaced without having heard of it, and what it remembers is out of date then.
//!
//! Invariant: what was remembered before the question, and confirmed by its answer, was the newest at some moment
//! after the question's begin. Callers that come while one question is under way share the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;
use varve_metadata::MetadataLog;

/// One question at a time.
#[derive(Debug, Default)]
pub(crate) struct Confirm {
    asked: AtomicU64,
    /// Everybody up to this number has an answer, and whether it was that the metadata here are the newest.
    answered: Mutex<(u64, bool)>,
}

impl Confirm {
    /// Whether everything that was committed to the metadata before the call is known here. `false`: that could not
    /// be found out, because no quorum answers.
    pub(crate) async fn newest(&self, log: &Arc<dyn MetadataLog>) -> bool {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut answered = self.answered.lock().await;
        if answered.0 >= mine {
            return answered.1;
        }
        let upto = self.asked.load(Ordering::SeqCst);
        let known = log.catch_up().await.is_ok();
        *answered = (upto, known);
        known
    }
}
