//! Feature levels as operators and the controller see them: what the cluster works at, when it may go on, and
//! that its nodes have the same state.
//!
//! Invariants: a level is raised by a command that is checked where it is applied, on every node alike; of its
//! own accord only a cluster goes on that has never had a topic: there is no older program to go back to.

use varve_broker_api::{Error, Features, NodeFeatures, Result};
use varve_metadata::{Command, Event, State, features, snapshot};
use varve_types::ErrorKind;

use super::InCluster;

fn features_of(state: &State) -> Features {
    let nodes = state.nodes().iter().map(|(id, node)| NodeFeatures {
        node: *id,
        version: node.version.clone(),
        min: node.features.min,
        max: node.features.max,
    });
    Features {
        level: state.level(),
        possible: features::highest(state).unwrap_or(state.level()),
        nodes: nodes.collect(),
    }
}

fn refused(text: String) -> Error {
    Error::new(
        ErrorKind::UnsupportedFeature,
        format!("{text}; nothing was changed"),
    )
}

/// Whether the cluster can go to a level.
fn check(now: &Features, wanted: u16) -> Result<()> {
    if wanted < now.level {
        return Err(refused(format!(
            "the cluster is at feature level {}, and levels can only be raised",
            now.level
        )));
    }
    let unable = |n: &&NodeFeatures| !(n.min..=n.max).contains(&wanted);
    match now.nodes.iter().find(unable) {
        None => Ok(()),
        Some(NodeFeatures {
            node,
            version,
            min,
            max,
        }) => Err(refused(format!(
            "node {node} (version {version}) supports feature levels {min} to {max}, but not \
             {wanted}; first upgrade its program, or decommission it"
        ))),
    }
}

impl InCluster {
    pub(crate) fn features(&self) -> Features {
        self.look(features_of)
    }

    pub(crate) async fn finalize_features(
        &self,
        level: Option<u16>,
        validate_only: bool,
    ) -> Result<Features> {
        let now = self.features();
        let level = level.unwrap_or(now.possible);
        check(&now, level)?;
        if !validate_only && level != now.level {
            let raised = self.propose(Command::FinalizeFeature { level }).await?;
            tracing::info!(
                event = ?raised, from = now.level,
                "the cluster's feature level was raised"
            );
        }
        Ok(self.features())
    }
}

/// The level that a cluster goes to of its own accord.
pub(super) fn first_level(state: &State) -> Option<u16> {
    let new = state.topics().is_empty();
    let level = features::highest(state)?.min(features::KNOWN_LEVEL);
    (new && level > state.level()).then_some(level)
}

/// A comparison of states; `None`: it needs a higher level, or nothing has changed since `seen`.
pub(super) fn comparison(state: &State, seen: u64) -> Option<Command> {
    let version = state.version();
    let due = state.level() >= features::STATE_CHECKS && version != seen;
    due.then(|| Command::CheckState {
        version,
        checksum: snapshot::checksum(state),
    })
}

/// Version of the state after a comparison, if it was one.
pub(super) fn compared(command: &Command, event: &Event) -> Option<u64> {
    match (command, event) {
        (Command::CheckState { version, .. }, Event::StateChecked { compared: true }) => {
            Some(version.saturating_add(1))
        }
        _ => None,
    }
}
