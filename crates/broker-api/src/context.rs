//! Who asks, from where, and until when an answer is of use.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::LeaderHint;

/// Leave to pass a call on to the node that can answer it. One for each call.
#[derive(Debug, Default)]
pub struct Forward {
    /// What goes with the call as its caller sent it (credentials, tracing), under stable names.
    pub carried: Vec<(&'static str, String)>,
    answered: OnceLock<LeaderHint>,
}

impl Forward {
    /// Leave for one call, with what travels beside it.
    #[must_use]
    pub const fn carrying(carried: Vec<(&'static str, String)>) -> Self {
        Self {
            carried,
            answered: OnceLock::new(),
        }
    }

    /// Notes which other node answered. The first one stays.
    pub fn note(&self, node: LeaderHint) {
        let _ = self.answered.set(node);
    }

    /// The other node that answered, if one did.
    #[must_use]
    pub fn answered(&self) -> Option<&LeaderHint> {
        self.answered.get()
    }
}

/// Circumstances of a request, made by the front end from what the transport proves.
#[derive(Debug, Clone)]
pub struct Context {
    /// Authenticated principal. Taken from TLS or a verified token only, never from a body.
    pub principal: Arc<str>,
    /// Name the client gives itself: for people, quotas and logs; at most 249 characters.
    pub client_id: Arc<str>,
    /// Address of the peer, where there is one.
    pub peer: Option<SocketAddr>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// Made by the server itself: may write internal topics.
    pub internal: bool,
    /// May commit positions that the log has not reached, as the Kafka protocol lets its clients do.
    pub commits_ahead: bool,
    /// Rack of a reader: a copy that is in sync there may answer. Empty: only the leader.
    pub rack: Arc<str>,
    /// Leave to pass the call on; `None`: what this node cannot answer is an error that says who can.
    pub forward: Option<Arc<Forward>>,
}

impl Context {
    /// Context of an unauthenticated local caller without deadline.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            principal: Arc::from("anonymous"),
            client_id: Arc::from(""),
            peer: None,
            deadline: None,
            internal: false,
            commits_ahead: false,
            rack: Arc::from(""),
            forward: None,
        }
    }

    /// Context of the server's own writes.
    #[must_use]
    pub fn internal() -> Self {
        Self {
            principal: Arc::from("varve"),
            internal: true,
            ..Self::anonymous()
        }
    }
}
