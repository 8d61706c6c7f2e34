//! The Kafka listener's settings.

use std::net::SocketAddr;
use std::time::Duration;

use varve_tls::ServerFiles;

use super::resolve::{Reader, TlsKeys, advertised, num_partitions, replication_factor, server_tls};
use super::settings::ConfigError;

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
        idle_max,
        auto_create,
        num_partitions: num_partitions(r)?,
        default_replication_factor: replication_factor(r)?,
        lower_replication,
    }))
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
