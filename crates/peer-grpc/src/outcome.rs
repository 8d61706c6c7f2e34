//! What became of a call, in words: the whole chain of causes, because "transport error" helps nobody.

use std::error::Error;

use tonic::{Code, Status};

/// What kind of failure a call met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallErrorKind {
    /// No connection could be made: the node has certainly not heard the call.
    Unreachable,
    /// The connection was lost under the call; the node may have heard it, and done what it says.
    Lost,
    /// No answer came in time; the node may have heard the call.
    TimedOut,
    /// The node refused the call and did nothing: it is another one than was meant, of another cluster, or
    /// the message is not legal.
    Refused,
    /// Anything else.
    Failed,
}

/// Why a call to another node has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node at {address}: {why}")]
pub struct CallError {
    /// Where we called.
    pub address: String,
    /// What kind of failure.
    pub kind: CallErrorKind,
    /// What went wrong.
    pub why: String,
}

/// The kind of failure that a status stands for.
pub(crate) fn kind(status: &Status) -> CallErrorKind {
    if never_left(status) {
        return CallErrorKind::Unreachable;
    }
    match status.code() {
        Code::Unavailable => CallErrorKind::Lost,
        // Either side may be the first to notice, and they say it differently.
        Code::DeadlineExceeded | Code::Cancelled => CallErrorKind::TimedOut,
        Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => CallErrorKind::Refused,
        // A connection that was lost under a call is reported without a code of its own.
        _ if status.source().is_some() => CallErrorKind::Lost,
        _ => CallErrorKind::Failed,
    }
}

/// Whether no connection could be opened for a call.
fn never_left(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A status in words, with what caused it.
pub(crate) fn sentence(status: &Status) -> String {
    let mut text = match status.source() {
        // tonic's own summary says less than its causes do.
        Some(_) => String::new(),
        None => status.message().to_owned(),
    };
    let mut cause = status.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        cause = error.source();
    }
    if text.is_empty() {
        text = status.code().to_string();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_its_causes() {
        let plain = Status::failed_precondition("this is node 2");
        assert_eq!(sentence(&plain), "this is node 2");
        assert_eq!(kind(&plain), CallErrorKind::Refused);
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset");
        let mut lost = Status::unknown("transport error");
        lost.set_source(std::sync::Arc::new(io));
        assert_eq!(sentence(&lost), "reset");
        assert_eq!(kind(&lost), CallErrorKind::Lost);
        assert!(!sentence(&Status::internal("")).is_empty());
        assert_eq!(kind(&Status::internal("x")), CallErrorKind::Failed);
        assert_eq!(
            kind(&Status::deadline_exceeded("x")),
            CallErrorKind::TimedOut
        );
    }
}
