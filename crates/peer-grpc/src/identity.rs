//! Who speaks to whom, in the metadata of every call.
//!
//! Addresses and names go stale: a node that moved leaves its address to another one, a test cluster gets a port of the
//! real one. So each call names the cluster and the two nodes, and a node that is not meant, or is not of that cluster,
//! refuses before it looks at the message; messages of the consensus are the exception, which says who it is to other
//! clusters too and refuses the rest by itself. Over TLS the caller is who its certificate says, and what it says of
//! itself must agree.

use std::sync::{Arc, OnceLock};

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use varve_tls::Caller;
use varve_types::{ClusterId, NodeId};

/// Metadata key: number of the node that calls.
pub const NODE: &str = "varve-node";
/// Metadata key: id of the cluster that the caller belongs to.
pub const CLUSTER: &str = "varve-cluster";
/// Metadata key: number of the node that is meant.
pub const TO: &str = "varve-to";
/// Metadata key of answers: random number of the process that gave it, in hexadecimal digits.
pub const PROCESS: &str = "varve-process";

/// The cluster of a node, empty until it is known: a node that joins learns it from others.
pub type KnownCluster = Arc<OnceLock<ClusterId>>;

/// Who this node is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its number.
    pub node: NodeId,
    /// Its cluster, shared with whoever learns it.
    pub cluster: KnownCluster,
    /// Random number of this run of the process: tells an address of its own from a second process.
    pub process: u128,
}

/// Whether a call makes sense from a node that has not joined a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Membership {
    /// Both are members of one cluster.
    Required,
    /// One of them may still be joining, or looks who is there with the directory of another cluster: the
    /// consensus says who it is to anybody, and refuses the rest by itself.
    Joining,
}

impl Identity {
    /// A node of a cluster that is known.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId) -> Self {
        Self {
            node,
            cluster: Arc::new(OnceLock::from(cluster)),
            process: uuid::Uuid::new_v4().as_u128(),
        }
    }

    /// A node that does not know its cluster yet.
    #[must_use]
    pub fn joining(node: NodeId) -> Self {
        Self {
            node,
            cluster: KnownCluster::default(),
            process: uuid::Uuid::new_v4().as_u128(),
        }
    }

    /// Says in `metadata` who speaks, and to whom.
    pub(crate) fn stamp(&self, metadata: &mut MetadataMap, to: Option<NodeId>) {
        metadata.insert(NODE, MetadataValue::from(self.node.0));
        if let Some(to) = to {
            metadata.insert(TO, MetadataValue::from(to.0));
        }
        let cluster = self.cluster.get().map(ToString::to_string);
        if let Some(value) = cluster.and_then(|c| MetadataValue::try_from(c).ok()) {
            metadata.insert(CLUSTER, value);
        }
    }

    /// Says in the metadata of an answer which process gives it.
    pub(crate) fn sign(&self, metadata: &mut MetadataMap) {
        if let Ok(value) = MetadataValue::try_from(format!("{:032x}", self.process)) {
            metadata.insert(PROCESS, value);
        }
    }

    /// Reads who speaks, and refuses who must not, or means another node.
    pub(crate) fn check(
        &self,
        metadata: &MetadataMap,
        caller: Option<&Caller>,
        membership: Membership,
    ) -> Result<NodeId, Status> {
        let own = self.node;
        let from = number(metadata, NODE)?.ok_or_else(|| {
            Status::invalid_argument(format!(
                "{NODE} is missing: a call between nodes must name its caller"
            ))
        })?;
        if let Some(caller) = caller.filter(|caller| caller.is_tls() && caller.node() != Some(from))
        {
            let shown = caller.node().map_or_else(
                || "names no node, or several".to_owned(),
                |shown| format!("is node {shown}'s"),
            );
            return Err(Status::permission_denied(format!(
                "the caller says that it is node {from}, but its certificate {shown}; nothing was \
                 done"
            )));
        }
        if let Some(to) = number(metadata, TO)?.filter(|to| *to != own) {
            return Err(Status::failed_precondition(format!(
                "this is node {own}, not node {to}: the caller has an outdated address; nothing \
                 was done"
            )));
        }
        // A node that looks for its cluster meets itself under another name, or a second process under its own.
        if from == own && membership == Membership::Required {
            return Err(Status::failed_precondition(format!(
                "this is node {own} itself: either the caller used its own address, or two nodes \
                 have this id; nothing was done"
            )));
        }
        match (self.cluster.get(), cluster(metadata)?) {
            (Some(own), Some(theirs)) if *own != theirs && membership == Membership::Required => {
                Err(Status::failed_precondition(format!(
                    "this node belongs to cluster {own}, but node {from} to cluster {theirs}; \
                     nothing was done"
                )))
            }
            (Some(own), Some(theirs)) if *own == theirs => Ok(from),
            (_, None) if membership == Membership::Required => Err(Status::failed_precondition(
                format!("node {from} did not send its cluster id ({CLUSTER}); nothing was done"),
            )),
            (None, _) if membership == Membership::Required => Err(Status::failed_precondition(
                format!("node {own} has not joined a cluster yet; nothing was done; try again"),
            )),
            _ => Ok(from),
        }
    }
}

/// The process that gave an answer, if it says so.
pub(crate) fn signed(metadata: &MetadataMap) -> Option<u128> {
    let text = metadata.get(PROCESS)?.to_str().ok()?;
    u128::from_str_radix(text, 16).ok()
}

fn number(metadata: &MetadataMap, key: &str) -> Result<Option<NodeId>, Status> {
    let Some(value) = metadata.get(key) else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    match number {
        Some(number) if number >= 0 => Ok(Some(NodeId(number))),
        _ => Err(not_legal(key, value.as_bytes(), "node id")),
    }
}

fn cluster(metadata: &MetadataMap) -> Result<Option<ClusterId>, Status> {
    let Some(value) = metadata.get(CLUSTER) else {
        return Ok(None);
    };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some)
        .ok_or_else(|| not_legal(CLUSTER, value.as_bytes(), "cluster id"))
}

fn not_legal(key: &str, value: &[u8], what: &str) -> Status {
    const SHOWN: usize = 64;
    let shown = String::from_utf8_lossy(&value[..value.len().min(SHOWN)]);
    Status::new(
        Code::InvalidArgument,
        format!("{key} is {shown:?}, which is not a valid {what}; nothing was done"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ClusterId = ClusterId(7);

    fn call(pairs: &[(&'static str, &str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (key, value) in pairs {
            metadata.insert(*key, value.parse().unwrap());
        }
        metadata
    }

    fn refusal(identity: &Identity, pairs: &[(&'static str, &str)]) -> String {
        let refused = identity.check(&call(pairs), None, Membership::Required);
        refused.unwrap_err().message().to_owned()
    }

    #[test]
    fn what_a_node_says_of_itself_is_accepted() {
        let (one, two) = (
            Identity::new(OURS, NodeId(1)),
            Identity::new(OURS, NodeId(2)),
        );
        let mut metadata = MetadataMap::new();
        one.stamp(&mut metadata, Some(NodeId(2)));
        let from = two.check(&metadata, None, Membership::Required).unwrap();
        assert_eq!(from, NodeId(1));
    }

    #[test]
    fn who_must_not_speak_is_refused() {
        let two = Identity::new(OURS, NodeId(2));
        let (ours, other) = (OURS.to_string(), ClusterId(8).to_string());
        assert!(refusal(&two, &[(CLUSTER, &ours)]).contains("varve-node is missing"));
        let why = refusal(&two, &[(NODE, "1"), (CLUSTER, &ours), (TO, "3")]);
        assert!(why.contains("this is node 2, not node 3"), "{why}");
        let why = refusal(&two, &[(NODE, "1"), (CLUSTER, &other)]);
        assert!(why.contains("belongs to cluster") && why.contains(&other));
        let why = refusal(&two, &[(NODE, "1")]);
        assert!(why.contains("did not send its cluster id"), "{why}");
        let why = refusal(&two, &[(NODE, "2"), (CLUSTER, &ours)]);
        assert!(why.contains("node 2 itself"), "{why}");
        for bad in ["-1", "x", "", "2147483648", "1.5"] {
            let why = refusal(&two, &[(NODE, bad), (CLUSTER, &ours)]);
            assert!(why.contains("not a valid node id"), "{why}");
        }
        let why = refusal(&two, &[(NODE, "1"), (CLUSTER, "nonsense")]);
        assert!(why.contains("not a valid cluster id"), "{why}");
    }

    #[test]
    fn a_node_that_joins_may_speak_of_consensus_alone() {
        let (joining, ours) = (Identity::joining(NodeId(3)), OURS.to_string());
        let mut metadata = MetadataMap::new();
        joining.stamp(&mut metadata, None);
        let two = Identity::new(OURS, NodeId(2));
        assert!(two.check(&metadata, None, Membership::Joining).is_ok());
        assert!(two.check(&metadata, None, Membership::Required).is_err());
        let from_two = call(&[(NODE, "2"), (CLUSTER, &ours)]);
        assert!(joining.check(&from_two, None, Membership::Joining).is_ok());
        let why = joining
            .check(&from_two, None, Membership::Required)
            .unwrap_err();
        assert!(why.message().contains("has not joined a cluster yet"));
        let of_another = call(&[(NODE, "4"), (CLUSTER, &ClusterId(8).to_string())]);
        assert!(two.check(&of_another, None, Membership::Joining).is_ok());
        joining.cluster.set(OURS).unwrap();
        assert!(joining.check(&from_two, None, Membership::Required).is_ok());
    }
}
