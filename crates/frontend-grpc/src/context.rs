//! What the transport says about a call: who, from where, until when, and with which demands.
//!
//! Invariants: the principal is never read from a message; a deadline is fixed once, when the call
//! arrives; a malformed value is an error with the name of its key and never ignored.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;
use varve_broker_api::{Context, Error, Forward, NodeInfo};
use varve_types::{ErrorKind, NodeId, limits};

use crate::deadline::{self, TIMEOUT_MAX};

/// Name the client gives itself.
pub const CLIENT_ID: &str = "varve-client-id";
/// `never`: answer NOT_LEADER instead of forwarding.
pub const FORWARD: &str = "varve-forward";
/// Comma list of features without which the call must not be served.
pub const REQUIRED_FEATURES: &str = "varve-required-features";
/// Node that forwarded the call.
pub const HOP: &str = "varve-hop";
/// Response metadata: node that answered.
pub const NODE: &str = "varve-node";
/// Response metadata: who leads or coordinates, when the call was passed on there.
pub const LEADER: &str = "varve-leader";
/// Request metadata that travels with a call that is passed on.
const CARRIED: &[&str] = &["authorization", "traceparent", "tracestate"];

/// How much earlier than ours the deadline of a client may end a stream.
const EARLY_MAX: Duration = Duration::from_millis(500);
/// Most of a deadline that is kept back so that an answer still reaches the client.
const MARGIN_MAX: Duration = Duration::from_millis(200);
/// Least time a call without deadline has: the longest long poll, and some.
const HELD_MAX: Duration = Duration::from_millis(limits::WAIT_MAX_MS + 5_000);

/// Now, by the clock of the runtime: timers and deadlines must not part where that clock is simulated.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A call's circumstances.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// For the broker.
    pub broker: Context,
    /// The client asked for NOT_LEADER instead of forwarding.
    pub never_forward: bool,
    /// The node that forwarded this call, if one did.
    pub hop: Option<NodeId>,
    /// When the call arrived.
    pub arrived: Instant,
    /// When the stream of this call ends, whatever happens.
    ends: Option<Instant>,
}

impl CallContext {
    /// Reads the circumstances of a call.
    ///
    /// # Errors
    /// `InvalidRequest` for a malformed key, `UnsupportedFeature` for an unknown required feature.
    pub fn read(
        metadata: &MetadataMap,
        peer: Option<SocketAddr>,
        node: impl FnOnce() -> NodeInfo,
    ) -> Result<Self, Error> {
        let arrived = now();
        let deadline = deadline::timeout(metadata.as_ref())?.map(|time| arrived + time);
        let never_forward = match text(metadata, FORWARD)? {
            None | Some("" | "auto") => false,
            Some("never") => true,
            Some(other) => {
                return Err(Error::invalid(
                    FORWARD,
                    format!("{FORWARD} must be never or absent; found {other:?}"),
                ));
            }
        };
        let hop = match text(metadata, HOP)? {
            None => None,
            Some(value) => Some(NodeId(
                value
                    .parse::<i32>()
                    .ok()
                    .filter(|n| *n >= 0)
                    .ok_or_else(|| {
                        Error::invalid(HOP, format!("{HOP} must be a node id; found {value:?}"))
                    })?,
            )),
        };
        if let Some(wanted) = text(metadata, REQUIRED_FEATURES)? {
            check_features(wanted, &node())?;
        }
        // Passed on once only, and only where the client did not ask to be told instead.
        let forward = (!never_forward && hop.is_none()).then(|| {
            let carried = CARRIED.iter().filter_map(|key| {
                let value = metadata.get(*key)?.to_str().ok()?;
                Some((*key, value.to_owned()))
            });
            Arc::new(Forward::carrying(carried.collect()))
        });
        let broker = Context {
            forward,
            client_id: client_id(metadata, peer)?,
            peer,
            deadline,
            ..Context::anonymous()
        };
        Ok(Self {
            broker,
            never_forward,
            hop,
            arrived,
            ends: None,
        })
    }

    /// Until when the server may work: a little before the client's deadline, so that an answer and not a
    /// bare timeout arrives; `fallback` from arrival when the client names none.
    #[must_use]
    pub fn work_until(&self, fallback: Duration) -> Instant {
        match self.broker.deadline {
            None => self.arrived + fallback.min(TIMEOUT_MAX),
            Some(deadline) => deadline - self.margin(deadline),
        }
    }

    /// Until when an answer may be waited for at all: a little after long polls have ended by themselves.
    #[must_use]
    pub fn answer_until(&self, fallback: Duration) -> Instant {
        match self.broker.deadline {
            None => self.arrived + fallback.clamp(HELD_MAX, TIMEOUT_MAX),
            Some(deadline) => deadline - self.margin(deadline) / 2,
        }
    }

    fn margin(&self, deadline: Instant) -> Duration {
        let whole = deadline.saturating_duration_since(self.arrived);
        (whole / 10).min(MARGIN_MAX)
    }

    /// How long a long poll may be held: at most `wanted`, the server's bound, and what the deadline
    /// leaves.
    #[must_use]
    pub fn hold(&self, wanted: Duration) -> Duration {
        let bound = wanted.min(Duration::from_millis(limits::WAIT_MAX_MS));
        match self.broker.deadline {
            None => bound,
            Some(_) => bound.min(self.work_until(bound).saturating_duration_since(now())),
        }
    }

    /// The context of a stream: its deadline ends the stream and does not bound what the stream asks for.
    #[must_use]
    pub fn without_deadline(mut self) -> Self {
        self.ends = self.broker.deadline.take();
        self
    }

    /// Whether a stream ended because of its deadline. A client's own clock, which began earlier, may end it a
    /// moment before ours does.
    #[must_use]
    pub fn outlived(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= now() + EARLY_MAX)
    }

    /// The context of a stream whose client finds the leaders by itself.
    #[must_use]
    pub fn never_forwarded(mut self) -> Self {
        self.broker.forward = None;
        self
    }

    /// An answer, with who gave it if that was another node.
    #[must_use]
    pub fn respond<T>(&self, message: T) -> tonic::Response<T> {
        let mut response = tonic::Response::new(message);
        let answered = self.broker.forward.as_ref().and_then(|f| f.answered());
        if let Some(leader) = answered
            && let Ok(value) = format!("{};epoch={}", leader.address, leader.epoch).parse()
        {
            response.metadata_mut().insert(LEADER, value);
        }
        response
    }

    /// Whether the client has already stopped waiting.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.broker.deadline.is_some_and(|d| d <= now())
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &'static str) -> Result<Option<&'a str>, Error> {
    match metadata.get(key) {
        None => Ok(None),
        Some(value) => value
            .to_str()
            .map(|v| Some(v.trim()))
            .map_err(|_| Error::invalid(key, format!("metadata {key} must be visible ASCII"))),
    }
}

fn client_id(metadata: &MetadataMap, peer: Option<SocketAddr>) -> Result<Arc<str>, Error> {
    if let Some(id) = text(metadata, CLIENT_ID)? {
        if id.len() > limits::NAME_MAX_BYTES {
            return Err(Error::invalid(
                CLIENT_ID,
                format!(
                    "{CLIENT_ID} may have at most {} characters; found {}",
                    limits::NAME_MAX_BYTES,
                    id.len()
                ),
            ));
        }
        if !id.is_empty() {
            return Ok(Arc::from(id));
        }
    }
    let agent = metadata
        .get("user-agent")
        .and_then(|v| v.to_str().ok())
        .unwrap_or("unknown");
    let agent: String = agent.chars().take(180).collect();
    Ok(match peer {
        Some(peer) => Arc::from(format!("{agent}@{peer}")),
        None => Arc::from(agent),
    })
}

fn check_features(wanted: &str, node: &NodeInfo) -> Result<(), Error> {
    for feature in wanted.split(',').map(str::trim).filter(|f| !f.is_empty()) {
        if !node.features.contains(&feature) {
            return Err(Error::new(
                ErrorKind::UnsupportedFeature,
                format!("the call requires feature {feature:?}, which this cluster does not have; nothing was done"),
            )
            .with("feature", feature)
            .with("supported", node.features.join(",")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeInfo {
        NodeInfo {
            version: "0",
            revision: "",
            cluster: varve_types::ClusterId(1),
            node: NodeId(0),
            features: vec!["produce"],
            max_request_bytes: 1,
            max_fetch_bytes: 1,
            request_timeout_ms: 1,
            now_ms: 0,
            listeners: Default::default(),
        }
    }

    fn read(pairs: &[(&'static str, &str)]) -> Result<CallContext, Error> {
        let mut map = MetadataMap::new();
        for (k, v) in pairs {
            map.insert(*k, v.parse().unwrap());
        }
        CallContext::read(&map, None, node)
    }

    #[test]
    fn timeouts_parse_or_are_refused() {
        assert!(read(&[]).unwrap().broker.deadline.is_none());
        assert!(read(&[("grpc-timeout", "0m")]).unwrap().expired());
        assert!(!read(&[("grpc-timeout", "99999999H")]).unwrap().expired());
        for bad in ["", "m", "-1m", "1", "123456789m", "1x", "1 m", "m1"] {
            let error = read(&[("grpc-timeout", bad)]).unwrap_err();
            assert_eq!(error.field, Some("grpc-timeout"), "{bad:?}");
        }
    }

    #[test]
    fn work_ends_a_little_before_the_deadline() {
        let call = read(&[("grpc-timeout", "1000m")]).unwrap();
        let left = call.work_until(Duration::from_secs(30)) - call.arrived;
        assert_eq!(left, Duration::from_millis(900));
        let call = read(&[("grpc-timeout", "60S")]).unwrap();
        let left = call.work_until(Duration::from_secs(30)) - call.arrived;
        assert_eq!(left, Duration::from_millis(59_800));
        let left = call.answer_until(Duration::from_secs(30)) - call.arrived;
        assert_eq!(left, Duration::from_millis(59_900));
        let call = read(&[]).unwrap();
        let left = call.answer_until(Duration::from_secs(30)) - call.arrived;
        assert_eq!(left, Duration::from_secs(35));
        let left = call.work_until(Duration::from_secs(30)) - call.arrived;
        assert_eq!(left, Duration::from_secs(30));
        assert_eq!(call.hold(Duration::from_secs(300)), Duration::from_secs(30));
    }

    #[test]
    fn only_a_call_that_comes_from_a_client_is_passed_on() {
        let forward = |pairs: &[(&'static str, &str)]| read(pairs).unwrap().broker.forward;
        assert!(forward(&[]).is_some());
        assert!(forward(&[("varve-forward", "never")]).is_none());
        assert!(forward(&[("varve-hop", "2")]).is_none());
        let carried = forward(&[("authorization", "Bearer x"), ("other", "y")]).unwrap();
        assert_eq!(carried.carried, [("authorization", "Bearer x".to_owned())]);
    }

    #[test]
    fn keys_are_checked() {
        assert!(read(&[("varve-forward", "never")]).unwrap().never_forward);
        assert_eq!(
            read(&[("varve-forward", "often")]).unwrap_err().kind,
            ErrorKind::InvalidRequest
        );
        assert_eq!(read(&[("varve-hop", "3")]).unwrap().hop, Some(NodeId(3)));
        assert!(read(&[("varve-hop", "-3")]).is_err());
        assert!(read(&[("varve-client-id", &"x".repeat(250))]).is_err());
        assert_eq!(
            &*read(&[("varve-client-id", "billing")])
                .unwrap()
                .broker
                .client_id,
            "billing"
        );
        assert!(read(&[("varve-required-features", "produce")]).is_ok());
        assert_eq!(
            read(&[("varve-required-features", "produce, teleport")])
                .unwrap_err()
                .kind,
            ErrorKind::UnsupportedFeature
        );
    }
}
