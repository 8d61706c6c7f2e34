//! A node's part in a cluster, put together: the peer listener, the consensus on metadata, and what the broker
//! needs of both.
//!
//! Invariants: peers are served before anything else is, since a cluster whose nodes wait for each other would
//! never start; the directory knows its cluster before the first record of it is written.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use varve_broker::{Cluster, ClusterConfig, Members as Membership, PeerHandle};
use varve_broker_api::{Quorum, QuorumMember};
use varve_forward::{Line, Lines};
use varve_metadata::log::{self, Later};
use varve_metadata_raft::network::Call;
use varve_metadata_raft::{Answered, MetadataRaft, RaftConfig, Transport, TransportError};
use varve_peer_grpc::{
    CallErrorKind, Called, CallsHandle, ClientOptions, Identity, PeerClient, PeerServer,
    RaftHandler, ServeError, ServerOptions,
};
use varve_tls::{ClientTls, Listener, Reload, ServerTls};
use varve_types::NodeId;

use crate::config::{Config, Members, PeerTls, advertised};
use crate::datadir::DataDir;
use crate::machine::Machine;
use crate::node::CERTIFICATES_EVERY;

/// Time between looks whether the node belongs to a cluster by now.
const LOOK: Duration = Duration::from_millis(20);

/// Longest time for a message of the consensus.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The consensus over the peer connections.
struct OverGrpc {
    client: PeerClient,
    process: u128,
}

impl Transport for OverGrpc {
    fn call(&self, node: Option<NodeId>, to: &str, request: Bytes) -> Call {
        let (client, to) = (self.client.clone(), to.to_owned());
        Box::pin(async move {
            match client.raft_call(node, &to, request, CALL_TIMEOUT).await {
                Ok(Called { payload, process }) => Ok(Answered {
                    bytes: payload,
                    process,
                }),
                // A connection that was lost under a call leaves open whether it was heard: a command may be in the
                // log.
                Err(error) => Err(match error.kind {
                    CallErrorKind::Unreachable | CallErrorKind::Refused => {
                        TransportError::Unreachable(error.to_string())
                    }
                    _ => TransportError::Failed(error.to_string()),
                }),
            }
        })
    }

    fn process(&self) -> u128 {
        self.process
    }
}

/// Calls of clients over the peer connections: nodes know each other there, whatever clients have to show.
#[derive(Debug)]
struct OverPeers {
    client: PeerClient,
    raft: MetadataRaft,
}

impl Lines for OverPeers {
    fn line(&self, to: NodeId) -> std::result::Result<Line, String> {
        let address = log::read(&self.raft, |state| {
            state.node(to).map(|node| node.peer_address.clone())
        });
        let address = address.ok_or_else(|| format!("node {to} is not registered"))?;
        Ok(varve_forward::line(self.client.calls(to, &address)?))
    }
}

/// A node that is alone has nobody to pass anything on to.
#[derive(Debug)]
pub(crate) struct Alone;

impl Lines for Alone {
    fn line(&self, to: NodeId) -> std::result::Result<Line, String> {
        Err(format!("this node runs alone and does not know node {to}"))
    }
}

/// The consensus as the peer listener knows it.
struct Served(MetadataRaft);

impl RaftHandler for Served {
    fn call(&self, from: NodeId, request: Bytes) -> Later<'static, Bytes> {
        let raft = self.0.clone();
        raft.serve(from, request)
    }
}

/// The consensus as the broker knows it when it forgets a node.
struct Voters(MetadataRaft);

impl Membership for Voters {
    fn remove(&self, node: NodeId) -> Later<'_, std::result::Result<(), String>> {
        Box::pin(async move { self.0.remove(node).await.map_err(|error| error.to_string()) })
    }

    fn quorum(&self) -> Option<Quorum> {
        let status = self.0.status();
        let end = |last: Option<u64>| last.map(|last| last + 1);
        let mut members: Vec<_> = status
            .members
            .iter()
            .map(|m| QuorumMember {
                node: m.member.node,
                voter: m.voter,
                log_end: match m.id == status.id {
                    true => Some(end(status.last_log).unwrap_or(0)),
                    false => end(m.matched),
                },
            })
            .collect();
        members.sort_by_key(|m| m.node);
        Some(Quorum {
            leader: status.leadership.leader,
            epoch: status.leadership.term,
            committed: end(status.applied).unwrap_or(0),
            members,
        })
    }
}

/// A node that takes part in the consensus.
pub(crate) struct Joined {
    pub(crate) raft: MetadataRaft,
    pub(crate) service: PeerHandle,
    /// Where other nodes find the API of this one.
    pub(crate) calls: CallsHandle,
    /// Where this node finds that of others.
    pub(crate) lines: Arc<dyn Lines>,
    /// What the broker needs.
    pub(crate) cluster: Cluster,
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    pub(crate) serving: JoinHandle<Result<(), ServeError>>,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined").finish_non_exhaustive()
    }
}

/// How nodes trust each other, as a listener and as a caller; `None`: the configuration says that they do so
/// without certificates.
fn trust(
    configured: &PeerTls,
    bound: SocketAddr,
) -> Result<Option<(Arc<ServerTls>, Arc<ClientTls>)>> {
    anyhow::ensure!(
        *configured != PeerTls::Unset,
        "nodes of a cluster authenticate each other with certificates: set \
         listeners.peer.tls.cert, key and ca, or set listeners.peer.tls.mode = \"insecure\" if \
         no one else can reach the peer ports; nothing was started"
    );
    let Some((server, client)) = configured.files() else {
        if !bound.ip().is_loopback() {
            tracing::warn!(
                peer = %bound,
                "the peer port is served in plaintext: anyone who can reach it can pose as a node"
            );
        }
        return Ok(None);
    };
    let server = ServerTls::load(server).context("listeners.peer.tls")?;
    let client = ClientTls::load(client).context("listeners.peer.tls")?;
    Ok(Some((server, client)))
}

/// Serves peers, takes part in the consensus, and ends once the node belongs to a cluster.
pub(crate) async fn join(
    config: &Config,
    members: &Members,
    listener: Listener,
    directory: &mut DataDir,
    machine: &Machine,
) -> Result<Joined> {
    let address = listener.local_addr()?;
    let told = advertised(members.advertised.as_ref(), address);
    let identity = match directory.cluster() {
        Some(cluster) => Identity::new(cluster, config.node),
        None => Identity::joining(config.node),
    };
    let trust = trust(&config.peer_tls, address)?;
    let client = PeerClient::over(
        identity.clone(),
        ClientOptions::default(),
        trust.as_ref().map(|(_, tls)| Arc::clone(tls)),
        Arc::clone(&machine.network),
    );
    let raft_config = RaftConfig {
        cluster: directory.cluster(),
        rack: config.broker.rack.clone(),
        seeds: members.seeds.clone(),
        bootstrap_expect: members.bootstrap_expect,
        workers: machine.workers.clone(),
        ..RaftConfig::new(
            config.node,
            directory.directory(),
            told.clone(),
            config.broker.data_dir.join("raft"),
        )
    };
    let vfs = Arc::clone(&machine.vfs);
    let transport = OverGrpc {
        client: client.clone(),
        process: identity.process,
    };
    let raft = MetadataRaft::start(raft_config, vfs, Arc::new(transport))
        .await
        .context("the metadata consensus cannot start")?;
    let (service, stop) = (PeerHandle::default(), CancellationToken::new());
    let calls = CallsHandle::default();
    let mut server = PeerServer::new(
        identity.clone(),
        Arc::new(service.clone()),
        Arc::new(Served(raft.clone())),
        ServerOptions::default(),
    )
    .with_calls(calls.clone());
    if let Some((by, from)) = trust {
        server = server.with_tls(Arc::clone(&by));
        let watching = varve_tls::watch(vec![by, from as Arc<dyn Reload>], CERTIFICATES_EVERY);
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(watching).await });
    }
    let serving = tokio::spawn(server.run(listener, stop.clone()));
    tracing::info!(
        peer = %address, advertised = told, seeds = members.seeds.join(","),
        "looking for the cluster"
    );
    let cluster = loop {
        if let Some(cluster) = raft.cluster() {
            break cluster;
        }
        if let Some(why) = raft.status().failure {
            anyhow::bail!("the metadata consensus is out of service: {why}");
        }
        tokio::time::sleep(LOOK).await;
    };
    // Set already when the directory knew it.
    let _ = identity.cluster.set(cluster);
    directory.adopt(cluster)?;
    tracing::debug!(cluster_id = %cluster, "this node is a member of a cluster");
    let how = ClusterConfig {
        session_timeout: members.session_timeout,
        heartbeat_interval: members.heartbeat_interval,
        replica_lag: members.replica_lag,
        drain_timeout: members.drain_timeout,
        balance_leaders: members.balance_leaders,
        balance_replicas: members.balance_replicas,
        move_bytes_per_second: members.move_bytes_per_second,
        ..ClusterConfig::new(told)
    };
    let cluster = Cluster {
        config: how,
        log: raft.log(),
        peers: client.peers(),
        members: Some(Arc::new(Voters(raft.clone()))),
    };
    let lines = OverPeers {
        client,
        raft: raft.clone(),
    };
    Ok(Joined {
        raft,
        service,
        calls,
        lines: Arc::new(lines),
        cluster,
        address,
        stop,
        serving,
    })
}

impl Joined {
    /// The last act of a shutdown: the consensus goes on elsewhere.
    pub(crate) async fn leave(self) {
        self.raft.shutdown().await;
        self.stop.cancel();
        if let Ok(Err(error)) = self.serving.await {
            tracing::warn!(%error, "the peer listener did not stop cleanly");
        }
    }
}
