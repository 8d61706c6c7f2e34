//! What the settings mean: each value parsed and checked against its range, once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use varve_broker::{BrokerConfig, PerPartition};
use varve_tls::{Callers, ClientFiles, ConnectionLimits, ServerFiles};
use varve_types::size::{parse_bytes, parse_duration};
use varve_types::{ClusterId, NodeId, TopicConfig, limits};

use super::kafka::{self, Kafka};
use super::keys;
use super::settings::{ConfigError, Settings, Source};

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

/// How a node takes part in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Peer listeners of nodes to ask for the cluster.
    pub seeds: Vec<String>,
    /// Nodes that found a cluster together.
    pub bootstrap_expect: usize,
    /// Listener for other nodes.
    pub address: String,
    /// Address other nodes are told to use.
    pub advertised: Option<String>,
    /// Silence after which a node is given up for dead.
    pub session_timeout: Duration,
    /// How often a node says that it is alive.
    pub heartbeat_interval: Duration,
    /// Time after which a replica that is behind is out of sync.
    pub replica_lag: Duration,
    /// Time that leaderships have to move before a stop.
    pub drain_timeout: Duration,
    /// Whether preferred leaders lead again by themselves.
    pub balance_leaders: bool,
    /// Whether replicas move from full nodes to empty ones by themselves.
    pub balance_replicas: bool,
    /// Bytes that moves may copy to this node in a second; 0: no limit.
    pub move_bytes_per_second: u64,
}

/// Resolved configuration of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Number of the node.
    pub node: NodeId,
    /// Cluster the data directory must belong to, if given.
    pub cluster: Option<ClusterId>,
    /// Listener of the gRPC API.
    pub client_address: String,
    /// Listener of metrics and health.
    pub http_address: String,
    /// Address clients are told to use; `None`: the host's name and the listener's port.
    pub advertised_address: Option<String>,
    /// TLS of the gRPC API; `None`: the configuration says that it is to be plaintext.
    pub client_tls: Option<ServerFiles>,
    /// Most open connections of the gRPC API.
    pub connections: ConnectionLimits,
    /// Memory for what is read and not taken by its readers, in bytes.
    pub unread_max_bytes: usize,
    /// Listener of the Kafka protocol; `None`: there is none.
    pub kafka: Option<Kafka>,
    /// How nodes trust each other.
    pub peer_tls: PeerTls,
    /// How the node takes part in a cluster; `None`: it is alone.
    pub members: Option<Members>,
    /// Shape of log lines.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_filter: String,
    /// Time between not ready and refusing connections.
    pub drain_grace: Duration,
    /// Time open streams have to end.
    pub stream_grace: Duration,
    /// Time after which a shutdown is given up.
    pub shutdown_timeout: Duration,
    /// The broker's own part. Identity and clean start are filled in from the data directory.
    pub broker: BrokerConfig,
}

/// How nodes trust each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerTls {
    /// Nothing is said of it: a node that is alone needs none, and a peer listener must not be opened.
    Unset,
    /// The configuration says that it is to be plaintext.
    Insecure,
    /// Both sides show a certificate.
    Mutual {
        /// Certificate of this node with its chain.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
        /// The CA of all nodes.
        ca: PathBuf,
    },
}

impl PeerTls {
    /// The files as a listener and as a caller use them; `None`: no TLS.
    #[must_use]
    pub fn files(&self) -> Option<(ServerFiles, ClientFiles)> {
        let Self::Mutual { cert, key, ca } = self.clone() else {
            return None;
        };
        let server = ServerFiles {
            cert: cert.clone(),
            key: key.clone(),
            callers: Callers::SignedBy(ca.clone()),
        };
        let client = ClientFiles {
            ca: Some(ca),
            identity: Some((cert, key)),
        };
        Some((server, client))
    }
}

pub(super) struct Reader<'a>(&'a Settings);

impl Reader<'_> {
    /// Value and source.
    pub(super) fn setting(&self, key: &str) -> Option<(&str, Source)> {
        self.0.get(key)
    }

    pub(super) fn text(&self, key: &'static str) -> Option<&str> {
        self.0.get(key).map(|(value, _)| value)
    }

    pub(super) fn parse<T>(
        &self,
        key: &'static str,
        accept: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let (value, source) = self.0.get(key).ok_or(ConfigError::Missing(key))?;
        accept(value.trim()).ok_or_else(|| ConfigError::BadValue {
            key: key.to_owned(),
            value: value.to_owned(),
            from: source.to_string(),
            expected: keys::find(key).map_or("", |k| k.expected).to_owned(),
        })
    }

    /// A boolean, in any case.
    pub(super) fn flag(&self, key: &'static str) -> Result<bool, ConfigError> {
        self.parse(key, |t| t.to_ascii_lowercase().parse().ok())
    }

    pub(super) fn number(&self, key: &'static str, min: u64, max: u64) -> Result<u64, ConfigError> {
        self.parse(key, |t| t.parse().ok().filter(|n| (min..=max).contains(n)))
    }

    pub(super) fn bytes(&self, key: &'static str, min: u64, max: u64) -> Result<u64, ConfigError> {
        self.parse(key, |t| {
            parse_bytes(t).ok().filter(|n| (min..=max).contains(n))
        })
    }

    fn time(&self, key: &'static str) -> Result<Duration, ConfigError> {
        self.parse(key, |t| parse_duration(t).ok())
    }

    pub(super) fn millis(
        &self,
        key: &'static str,
        min: u64,
        max: u64,
    ) -> Result<Duration, ConfigError> {
        self.number(key, min, max).map(Duration::from_millis)
    }

    pub(super) fn address(&self, key: &'static str) -> Result<String, ConfigError> {
        self.parse(key, |t| {
            let (host, port) = t.rsplit_once(':')?;
            (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| t.to_owned())
        })
    }
}

impl Config {
    /// Parses and checks every setting.
    ///
    /// # Errors
    /// The first setting that is missing or not valid.
    pub fn resolve(settings: &Settings) -> Result<Self, ConfigError> {
        let r = Reader(settings);
        let node = node_id(&r)?;
        let members = members(&r)?;
        let cluster = match r.text("cluster.id") {
            Some(_) => Some(r.parse("cluster.id", |t| t.parse::<ClusterId>().ok())?),
            None => None,
        };
        let advertised_address = match r.text("listeners.client.advertised_address") {
            Some(_) => Some(r.address("listeners.client.advertised_address")?),
            None => None,
        };
        Ok(Self {
            node,
            cluster,
            client_address: r.address("listeners.client.address")?,
            http_address: r.address("http.address")?,
            advertised_address,
            client_tls: server_tls(&r, &CLIENT)?,
            connections: connections(
                &r,
                "listeners.client.max_connections",
                "listeners.client.max_connections_per_address",
            )?,
            unread_max_bytes: usize::try_from(r.bytes(
                "memory.unread.max_bytes",
                1 << 20,
                1 << 40,
            )?)
            .unwrap_or(usize::MAX),
            kafka: kafka::resolve(&r)?,
            peer_tls: peer_tls(&r)?,
            members,
            log_format: r.parse("log.format", |t| match t {
                "auto" => Some(LogFormat::Auto),
                "text" | "pretty" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            })?,
            log_filter: r.parse("log.filter", |t| {
                t.parse::<tracing_subscriber::EnvFilter>()
                    .ok()
                    .map(|_| t.to_owned())
            })?,
            drain_grace: r.time("shutdown.drain_grace")?,
            stream_grace: r.time("shutdown.stream_grace")?,
            shutdown_timeout: r.time("shutdown.timeout")?,
            broker: BrokerConfig {
                default_replication_factor: replication_factor(&r)?,
                ..broker(&r, settings, node)?
            },
        })
    }

    /// Address that clients are told, once the listener's real port is known.
    #[must_use]
    pub fn advertised(&self, bound: SocketAddr) -> String {
        advertised(self.advertised_address.as_ref(), bound)
    }
}

/// How many connections a listener holds, by the keys that say it.
pub(super) fn connections(
    r: &Reader<'_>,
    all: &'static str,
    per_address: &'static str,
) -> Result<ConnectionLimits, ConfigError> {
    let number = |key| r.number(key, 1, 1_000_000);
    let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(ConnectionLimits {
        all: count(number(all)?),
        per_address: count(number(per_address)?),
    })
}

/// The keys of a listener's TLS.
pub(super) struct TlsKeys {
    pub(super) listener: &'static str,
    pub(super) mode: &'static str,
    pub(super) cert: &'static str,
    pub(super) key: &'static str,
    pub(super) ca: &'static str,
}

const CLIENT: TlsKeys = TlsKeys {
    listener: "listeners.client",
    mode: "listeners.client.tls.mode",
    cert: "listeners.client.tls.cert",
    key: "listeners.client.tls.key",
    ca: "listeners.client.tls.ca",
};
const PEER: &str = "listeners.peer";

pub(super) fn server_tls(
    r: &Reader<'_>,
    keys: &TlsKeys,
) -> Result<Option<ServerFiles>, ConfigError> {
    let mode = r.parse(keys.mode, |t| {
        matches!(t, "tls" | "mutual" | "insecure").then(|| t.to_owned())
    })?;
    let mutual = mode == "mutual";
    let needed = if mutual {
        "cert, key and ca"
    } else {
        "cert and key"
    };
    let file = |key: &'static str, missing| {
        r.text(key).map(PathBuf::from).ok_or(ConfigError::NoTls {
            listener: keys.listener,
            missing,
            needed,
        })
    };
    if mode == "insecure" {
        return Ok(None);
    }
    Ok(Some(ServerFiles {
        cert: file(keys.cert, "cert")?,
        key: file(keys.key, "key")?,
        callers: if mutual {
            Callers::SignedBy(file(keys.ca, "ca")?)
        } else {
            Callers::Anyone
        },
    }))
}

fn peer_tls(r: &Reader<'_>) -> Result<PeerTls, ConfigError> {
    let mode = r.parse("listeners.peer.tls.mode", |t| {
        matches!(t, "mutual" | "insecure").then(|| t.to_owned())
    })?;
    let keys = [
        ("listeners.peer.tls.cert", "cert"),
        ("listeners.peer.tls.key", "key"),
        ("listeners.peer.tls.ca", "ca"),
    ];
    if mode == "insecure" {
        return Ok(PeerTls::Insecure);
    }
    if keys.iter().all(|(key, _)| r.text(key).is_none()) {
        return Ok(PeerTls::Unset);
    }
    let file = |(key, missing): (&'static str, &'static str)| {
        r.text(key).map(PathBuf::from).ok_or(ConfigError::NoTls {
            listener: PEER,
            missing,
            needed: "cert, key and ca",
        })
    };
    let [cert, key, ca] = keys.map(file);
    Ok(PeerTls::Mutual {
        cert: cert?,
        key: key?,
        ca: ca?,
    })
}

/// What others are told of a listener.
pub(crate) fn advertised(given: Option<&String>, bound: SocketAddr) -> String {
    if let Some(address) = given {
        return address.clone();
    }
    let host = if bound.ip().is_unspecified() {
        hostname()
    } else {
        bound.ip().to_string()
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    format!("{host}:{}", bound.port())
}

fn members(r: &Reader<'_>) -> Result<Option<Members>, ConfigError> {
    let address = r.address("listeners.peer.address")?;
    let advertised = match r.text("listeners.peer.advertised_address") {
        Some(_) => Some(r.address("listeners.peer.advertised_address")?),
        None => None,
    };
    let session_timeout = r.millis("node.session.timeout.ms", 500, 600_000)?;
    let heartbeat_interval = r.parse("node.heartbeat.interval.ms", |t| {
        let interval = t.parse().ok().filter(|n| (50..=60_000).contains(n));
        let interval = interval.map(Duration::from_millis)?;
        // A lost heartbeat or two must not cost a node its session.
        (interval * 3 <= session_timeout).then_some(interval)
    })?;
    let replica_lag = r.millis("replica.lag.time.max.ms", 500, 600_000)?;
    let drain_timeout = r.time("shutdown.drain_timeout")?;
    let balance_leaders = r.flag("auto.leader.rebalance.enable")?;
    let balance_replicas = r.flag("auto.replica.balance.enable")?;
    let move_bytes_per_second = r.bytes("replica.move.max.bytes.per.second", 0, 1 << 40)?;
    let seeds = match r.text("cluster.seeds") {
        None | Some("") => return Ok(None),
        Some(_) => r.parse("cluster.seeds", |t| {
            let seeds = t.split(',').map(str::trim).filter(|s| !s.is_empty());
            let seed = |s: &str| {
                let (host, port) = s.rsplit_once(':')?;
                (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| s.to_owned())
            };
            seeds.map(seed).collect::<Option<Vec<String>>>()
        })?,
    };
    let bootstrap_expect = match r.text("cluster.bootstrap_expect") {
        Some(_) => r.number("cluster.bootstrap_expect", 0, 9)? as usize,
        None => seeds.len(),
    };
    Ok(Some(Members {
        seeds,
        bootstrap_expect,
        address,
        advertised,
        session_timeout,
        heartbeat_interval,
        replica_lag,
        drain_timeout,
        balance_leaders,
        balance_replicas,
        move_bytes_per_second,
    }))
}

/// Partitions of topics that name no number.
pub(super) fn num_partitions(r: &Reader<'_>) -> Result<i32, ConfigError> {
    let count = r.number("num.partitions", 1, limits::PARTITIONS_PER_TOPIC_MAX as u64)?;
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

pub(super) fn replication_factor(r: &Reader<'_>) -> Result<Option<i32>, ConfigError> {
    if r.text("default.replication.factor").is_none() {
        return Ok(None);
    }
    let alone = r.text("cluster.seeds").is_none_or(str::is_empty);
    let max = if alone { 1 } else { 7 };
    let factor = r.number("default.replication.factor", 1, max)?;
    Ok(i32::try_from(factor).ok())
}

fn node_id(r: &Reader<'_>) -> Result<NodeId, ConfigError> {
    if r.text("node.id").is_some() {
        return r.parse("node.id", |t| {
            t.parse().ok().filter(|n| *n >= 0).map(NodeId)
        });
    }
    if r.text("node.id_from").is_none() {
        return Err(ConfigError::Missing("node.id"));
    }
    let name = hostname();
    r.parse("node.id_from", |t| {
        let digits = name.rsplit_once('-').map_or("", |(_, d)| d);
        (t == "hostname")
            .then(|| digits.parse().ok().map(NodeId))
            .flatten()
    })
}

fn broker(r: &Reader<'_>, settings: &Settings, node: NodeId) -> Result<BrokerConfig, ConfigError> {
    let topic_defaults = settings.topic_defaults();
    TopicConfig::resolve(&Default::default(), &topic_defaults).map_err(|error| {
        let key = topic_defaults.keys().next().cloned().unwrap_or_default();
        ConfigError::BadValue {
            value: topic_defaults.get(&key).cloned().unwrap_or_default(),
            key: format!("{}{key}", keys::TOPIC_DEFAULTS),
            from: "topic defaults".to_owned(),
            expected: error.to_string(),
        }
    })?;
    let data_dir = r.parse("storage.data_dir", |t| {
        (!t.is_empty()).then(|| PathBuf::from(t))
    })?;
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(BrokerConfig {
        rack: r.text("node.rack").unwrap_or_default().to_owned(),
        version: crate::VERSION,
        revision: crate::REVISION,
        num_partitions: num_partitions(r)?,
        topic_defaults,
        lanes: size(r.number("broker.lanes", 1, 64)?),
        flush_threads: size(r.number("broker.flush_threads", 1, 64)?),
        producer_sessions_bytes: r.bytes("producer.sessions.max.bytes", 1 << 20, 1 << 40)?,
        in_flight_bytes: size(r.bytes("broker.in_flight_bytes", 16 << 20, 1 << 40)?),
        min_free_bytes: r.bytes("storage.min_free_bytes", 0, u64::MAX)?,
        min_free_percent: r.number("storage.min_free_percent", 0, 50)?,
        journal_max_bytes: r.bytes("journal.max.bytes", 0, 1 << 40)?,
        scrub_bytes_per_second: r.bytes("scrub.bytes.per.second", 0, 1 << 40)?,
        cleaner_bytes_per_second: r.bytes("log.cleaner.io.max.bytes.per.second", 0, 1 << 40)?,
        scrub_interval: r.time("scrub.interval")?,
        request_timeout: r.millis("request.timeout.ms", 100, 600_000)?,
        fetch_max_bytes: size(r.bytes("fetch.max.bytes", 1024, limits::FETCH_MAX_BYTES as u64)?),
        offsets_partitions: r.number("offsets.topic.num.partitions", 1, 1_000)? as i32,
        transactions_partitions: r.number("transaction.state.log.num.partitions", 1, 1_000)? as i32,
        per_partition_metrics: r.parse("metrics.per_partition", |t| match t {
            "all" => Some(PerPartition::All),
            "user" => Some(PerPartition::User),
            "none" => Some(PerPartition::None),
            _ => None,
        })?,
        groups_metrics: size(r.number("metrics.groups.max", 0, 1_000_000)?),
        offsets_retention: Duration::from_secs(
            60 * r.number("offsets.retention.minutes", 1, 1 << 32)?,
        ),
        group_session_timeout: r.millis("group.session.timeout.ms", 500, 1_800_000)?,
        group_heartbeat_interval: r.millis("group.heartbeat.interval.ms", 100, 60_000)?,
        group_initial_rebalance_delay: r.millis("group.initial.rebalance.delay.ms", 0, 60_000)?,
        group_migration: r.parse("group.consumer.migration.policy", |t| t.parse().ok())?,
        transactional_ids_max: size(r.number("transactional.ids.max", 1, 100_000_000)?),
        groups_max: size(r.number("groups.max", 1, 100_000_000)?),
        group_max_size: size(r.number("group.max.size", 1, limits::GROUP_MAX_MEMBERS as u64)?),
        ..BrokerConfig::new(data_dir, ClusterId::default(), node)
    })
}

fn hostname() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let insecure = [("listeners.client.tls.mode", "insecure")];
        let flags: Vec<_> = insecure
            .iter()
            .chain(flags)
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Config::resolve(&Settings::load(None, std::iter::empty(), &flags).unwrap())
    }

    #[test]
    fn defaults_are_complete_but_for_the_node() {
        assert!(matches!(resolve(&[]), Err(ConfigError::Missing("node.id"))));
        let config = resolve(&[("node.id", "7")]).unwrap();
        assert_eq!(config.node, NodeId(7));
        assert_eq!(config.broker.num_partitions, 1);
        assert_eq!(config.broker.min_free_bytes, 5 << 30);
        assert_eq!(config.client_address, "0.0.0.0:8278");
    }

    #[test]
    fn values_are_taken_as_people_write_them() {
        let config = resolve(&[
            ("node.id", " 7 "),
            ("auto.leader.rebalance.enable", "False"),
            ("log.cleaner.io.max.bytes.per.second", " 5MiB"),
            ("topic.defaults.compression.type", " Uncompressed "),
            ("topic.defaults.unclean.leader.election.enable", "TRUE"),
        ]);
        let config = config.unwrap();
        assert_eq!(config.node, NodeId(7));
        assert_eq!(config.broker.cleaner_bytes_per_second, 5 << 20);
        let defaults = &config.broker.topic_defaults;
        assert_eq!(defaults["compression.type"], "none");
        assert_eq!(defaults["unclean.leader.election.enable"], "true");
    }

    #[test]
    fn every_key_is_checked() {
        for (key, value) in [
            ("node.id", "-1"),
            ("num.partitions", "0"),
            ("http.address", "8277"),
            ("request.timeout.ms", "soon"),
            ("storage.min_free_bytes", "much"),
            ("log.format", "xml"),
            ("cluster.id", "mine"),
            ("auto.create.topics.enable", "maybe"),
            ("auto.leader.rebalance.enable", "sometimes"),
            ("auto.replica.balance.enable", "seldom"),
            ("socket.request.max.bytes", "1"),
            ("connections.max.idle.ms", "0"),
            ("default.replication.factor", "3"),
            ("topic.defaults.retention.ms", "-5"),
        ] {
            let error = resolve(&[("node.id", "1"), (key, value)])
                .unwrap_err()
                .to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn plaintext_needs_a_word() {
        let settings = [("node.id".to_owned(), "1".to_owned())];
        let settings = Settings::load(None, std::iter::empty(), &settings).unwrap();
        let error = Config::resolve(&settings).unwrap_err().to_string();
        assert!(
            error.contains("listeners.client.tls.cert is not set"),
            "{error}"
        );
        assert!(error.contains("tls.mode = \"insecure\""), "{error}");
        let node = ("node.id", "1");
        assert_eq!(resolve(&[node]).unwrap().client_tls, None);
        let (mode, cert, key, ca) = (
            "listeners.client.tls.mode",
            ("listeners.client.tls.cert", "c"),
            ("listeners.client.tls.key", "k"),
            ("listeners.client.tls.ca", "a"),
        );
        let files = |flags: &[(&str, &str)]| resolve(flags).unwrap().client_tls.unwrap();
        let tls = files(&[node, (mode, "tls"), cert, key]);
        assert_eq!((tls.cert, tls.callers), ("c".into(), Callers::Anyone));
        let error = resolve(&[node, (mode, "mutual"), cert, key]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("listeners.client.tls.ca is not set")
        );
        let tls = files(&[node, (mode, "mutual"), cert, key, ca]);
        assert_eq!(tls.callers, Callers::SignedBy("a".into()));
        let error = resolve(&[node, (mode, "none")]).unwrap_err().to_string();
        assert!(error.contains("tls, mutual or insecure"), "{error}");
    }

    #[test]
    fn nodes_trust_each_other_by_certificates_or_by_a_word() {
        let node = ("node.id", "1");
        let peer = |flags: &[(&str, &str)]| {
            let all: Vec<_> = std::iter::once(node).chain(flags.iter().copied()).collect();
            resolve(&all).map(|config| config.peer_tls)
        };
        assert_eq!(peer(&[]).unwrap(), PeerTls::Unset);
        let insecure = ("listeners.peer.tls.mode", "insecure");
        assert_eq!(peer(&[insecure]).unwrap(), PeerTls::Insecure);
        let cert = ("listeners.peer.tls.cert", "c");
        let error = peer(&[cert]).unwrap_err().to_string();
        assert!(
            error.contains("listeners.peer.tls.key is not set"),
            "{error}"
        );
        let rest = [
            ("listeners.peer.tls.key", "k"),
            ("listeners.peer.tls.ca", "a"),
        ];
        let mutual = peer(&[cert, rest[0], rest[1]]).unwrap();
        let (server, client) = mutual.files().unwrap();
        assert_eq!(server.callers, Callers::SignedBy("a".into()));
        assert_eq!(client.identity, Some(("c".into(), "k".into())));
        assert!(peer(&[("listeners.peer.tls.mode", "tls")]).is_err());
    }

    #[test]
    fn advertised_addresses() {
        let config = resolve(&[("node.id", "1")]).unwrap();
        assert_eq!(
            config.advertised("127.0.0.1:9".parse().unwrap()),
            "127.0.0.1:9"
        );
        assert_eq!(config.advertised("[::1]:9".parse().unwrap()), "[::1]:9");
        assert!(
            config
                .advertised("0.0.0.0:9".parse().unwrap())
                .ends_with(":9")
        );
        let given = ("listeners.client.advertised_address", "broker.example:1");
        let config = resolve(&[("node.id", "1"), given]).unwrap();
        assert_eq!(
            config.advertised("0.0.0.0:9".parse().unwrap()),
            "broker.example:1"
        );
    }
}
