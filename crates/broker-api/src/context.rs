//! Who asks, from where, and until when an answer is of use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

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
