//! The Kafka listener's settings.

use std::net::SocketAddr;
use std::time::Duration;

use varve_frontend_kafka::NodeConfig;
use varve_tls::{ConnectionLimits, ServerFiles};
use varve_types::config::KEYS;
use varve_types::kafka_configs::{Fate, KafkaConfig, Kind, Scope};
use varve_types::size::parse_bytes;

use super::keys::TOPIC_DEFAULTS;
use super::resolve::{
    Reader, TlsKeys, advertised, connections, num_partitions, replication_factor, server_tls,
};
use super::settings::{ConfigError, Source};

const TLS: TlsKeys = TlsKeys {
    listener: "listeners.kafka",
    mode: "listeners.kafka.tls.mode",
    cert: "listeners.kafka.tls.cert",
    key: "listeners.kafka.tls.key",
    ca: "listeners.kafka.tls.ca",
};

/// The listener of the Kafka protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kafka {
    /// Where it listens.
    pub address: String,
    /// Address clients are told to use; `None`: the host's name and the listener's port.
    pub advertised: Option<String>,
    /// Its TLS; `None`: the configuration says that it is to be plaintext.
    pub tls: Option<ServerFiles>,
    /// Longest request in bytes.
    pub request_max_bytes: usize,
    /// Most open connections.
    pub connections: ConnectionLimits,
    /// Silence after which a connection is closed.
    pub idle_max: Duration,
    /// Whether asking about a topic creates it.
    pub auto_create: bool,
    /// Partitions of topics that name no number.
    pub num_partitions: i32,
    /// Replicas of topics that name no number; `None`: 3, or as many as there are nodes.
    pub default_replication_factor: Option<i32>,
    /// Whether more replicas than there are nodes become as many as there are nodes.
    pub lower_replication: bool,
    /// Configs of the node as clients are told them, by Kafka's names.
    pub node_configs: Vec<NodeConfig>,
}

impl Kafka {
    /// Address that clients are told, once the listener's real port is known.
    #[must_use]
    pub fn advertised(&self, bound: SocketAddr) -> String {
        advertised(self.advertised.as_ref(), bound)
    }
}

/// What the settings say; `None`: no such listener. Values are checked in any case.
pub(super) fn resolve(r: &Reader<'_>) -> Result<Option<Kafka>, ConfigError> {
    let request_max_bytes = r.bytes("socket.request.max.bytes", 64 << 10, 100 << 20)?;
    let connections = connections(
        r,
        "listeners.kafka.max_connections",
        "listeners.kafka.max_connections_per_address",
    )?;
    let idle_max = r.millis("connections.max.idle.ms", 1_000, 86_400_000)?;
    let flag = |key| r.flag(key);
    let auto_create = flag("auto.create.topics.enable")?;
    let lower_replication = flag("create.topics.lower.replication")?;
    if r.text("listeners.kafka.address").is_none_or(str::is_empty) {
        return Ok(None);
    }
    Ok(Some(Kafka {
        address: r.address("listeners.kafka.address")?,
        advertised: match r.text("listeners.kafka.advertised_address") {
            Some(_) => Some(r.address("listeners.kafka.advertised_address")?),
            None => None,
        },
        tls: server_tls(r, &TLS)?,
        request_max_bytes: usize::try_from(request_max_bytes).unwrap_or(usize::MAX),
        connections,
        idle_max,
        auto_create,
        num_partitions: num_partitions(r)?,
        default_replication_factor: replication_factor(r)?,
        lower_replication,
        node_configs: node_configs(r),
    }))
}

/// Settings of the node under the names that Kafka has for them.
fn node_configs(r: &Reader<'_>) -> Vec<NodeConfig> {
    let configs = Scope::Broker.configs();
    let shown = configs.filter_map(|config| {
        let Fate::Node(key) = config.fate else {
            return None;
        };
        let (value, source) = match r.setting(key) {
            Some((value, source)) => (value.to_owned(), source),
            None => (topic_default(key)?, Source::Default),
        };
        let is_secret = config.kind == Kind::Password;
        Some(NodeConfig {
            name: config.name,
            value: (!is_secret && !value.is_empty()).then(|| in_kafkas_words(&config, key, &value)),
            is_set: source != Source::Default,
            is_secret,
        })
    });
    shown.collect()
}

/// The built-in value of a default for topics; empty for any other key that has none.
fn topic_default(key: &str) -> Option<String> {
    let Some(name) = key.strip_prefix(TOPIC_DEFAULTS) else {
        return Some(String::new());
    };
    let known = KEYS.iter().find(|key| key.name == name)?;
    Some(known.default.to_owned())
}

/// A value in the units of Kafka's name for it.
fn in_kafkas_words(config: &KafkaConfig, key: &str, value: &str) -> String {
    let of_ms = match config.name.rsplit_once('.') {
        Some((_, "hours")) if key.ends_with(".ms") => 3_600_000,
        Some((_, "minutes")) if key.ends_with(".ms") => 60_000,
        _ => 1,
    };
    match config.kind {
        Kind::Int | Kind::Long => match (value.parse::<i64>(), parse_bytes(value)) {
            (Ok(number), _) if number > 0 => (number / of_ms).to_string(),
            (Err(_), Ok(bytes)) => bytes.to_string(),
            _ => value.to_owned(),
        },
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Settings};
    use super::*;

    fn kafka(flags: &[(&str, &str)]) -> Result<Option<Kafka>, ConfigError> {
        let base = [("node.id", "1"), ("listeners.client.tls.mode", "insecure")];
        let all = base.iter().chain(flags);
        let all: Vec<_> = all
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let settings = Settings::load(None, std::iter::empty(), &all)?;
        Config::resolve(&settings).map(|config| config.kafka)
    }

    #[test]
    fn settings_have_kafkas_names_and_units() {
        let all = [
            ("listeners.kafka.address", "127.0.0.1:9092"),
            ("listeners.kafka.tls.mode", "insecure"),
            ("listeners.kafka.tls.key", "secret.pem"),
            ("topic.defaults.retention.ms", "7200000"),
            ("socket.request.max.bytes", "1MiB"),
        ];
        let configs = kafka(&all).unwrap().unwrap().node_configs;
        assert!(configs.windows(2).all(|pair| pair[0].name < pair[1].name));
        let config = |name: &str| {
            let found = configs.iter().find(|config| config.name == name).unwrap();
            (found.value.as_deref(), found.is_set)
        };
        assert_eq!(config("log.retention.hours"), (Some("2"), true));
        assert_eq!(config("log.retention.minutes"), (Some("120"), true));
        assert_eq!(config("log.retention.ms"), (Some("7200000"), true));
        assert_eq!(config("socket.request.max.bytes"), (Some("1048576"), true));
        assert_eq!(config("fetch.max.bytes"), (Some("52428800"), false));
        assert_eq!(config("node.id"), (Some("1"), true));
        assert_eq!(config("broker.rack"), (None, false));
        assert_eq!(config("ssl.keystore.key"), (None, true));
        assert_eq!(config("log.cleanup.policy"), (Some("delete"), false));
    }

    #[test]
    fn it_is_off_unless_it_has_an_address_and_plaintext_needs_a_word() {
        assert_eq!(kafka(&[]).unwrap(), None);
        let address = ("listeners.kafka.address", "127.0.0.1:9092");
        let error = kafka(&[address]).unwrap_err().to_string();
        assert!(
            error.contains("listeners.kafka.tls.cert is not set"),
            "{error}"
        );
        let mode = ("listeners.kafka.tls.mode", "insecure");
        let listener = kafka(&[address, mode]).unwrap().unwrap();
        assert_eq!(listener.tls, None);
        assert_eq!(listener.request_max_bytes, 100 << 20);
        assert!(!listener.auto_create && !listener.lower_replication);
        let bound = "127.0.0.1:9".parse().unwrap();
        assert_eq!(listener.advertised(bound), "127.0.0.1:9");
    }
}
