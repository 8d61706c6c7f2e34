//! The first write or sync of a log that fails while the log is open. Whoever runs the broker waits for it and ends the
//! process, in good order: what the disk has is found out by the next start, which reads the files and trusts no page
//! that is only in memory (fsyncgate). A broker does not end by itself, and nothing is tried again.
//!
//! Invariant: the first failure stays the one that is told, however many follow.

use std::sync::Arc;

use tokio::sync::watch;

/// Told by partitions, heard by whoever runs the broker. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct FirstFailure(Arc<watch::Sender<Option<String>>>);

impl FirstFailure {
    /// A log has failed; `what` says which and why.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        self.0.send_if_modified(|first| {
            let news = first.is_none();
            if news {
                *first = Some(what());
            }
            news
        });
    }

    /// Resolves once a log has failed, at once if one had before.
    pub(crate) async fn told(&self) -> String {
        let mut first = self.0.subscribe();
        match first.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(what)) => what.clone(),
            // The sender is held here.
            Ok(None) | Err(_) => unreachable!("it is waited for while it can be told"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_is_told_to_everybody_also_to_those_who_come_late() {
        let failure = FirstFailure::default();
        let early = tokio::spawn({
            let failure = failure.clone();
            async move { failure.told().await }
        });
        tokio::task::yield_now().await;
        assert!(!early.is_finished());
        failure.tell(|| "a".to_owned());
        failure.tell(|| "b".to_owned());
        assert_eq!(early.await.unwrap(), "a");
        assert_eq!(failure.told().await, "a");
    }
}
