//! How commands reach the cluster: flags, then the environment, then the configuration file, then
//! defaults. Every setting has one name in all of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use varve_client::{Admin, Client, ClientConfig, ClientError, ClientFiles, ClientTls, Isolation};
use varve_types::ErrorKind;
use varve_types::config::nearest;
use varve_types::size::{parse_bytes, parse_duration};

use crate::args::{Global, IsolationLevel};
use crate::failure::Failure;
use crate::output::print_table;

/// Settings of the client that `-X`, the environment and the file may change.
pub const SETTINGS: &[(&str, &str, &str)] = &[
    (
        "brokers",
        "localhost:8278",
        "Addresses of cluster nodes, host:port, separated by commas",
    ),
    (
        "client.id",
        "varve-cli",
        "Name of this client in groups and logs",
    ),
    (
        "request.timeout",
        "30s",
        "Time to wait for the answer to a request",
    ),
    (
        "linger",
        "5ms",
        "produce: time that a batch waits for more records",
    ),
    (
        "batch.size",
        "256KiB",
        "produce: size of a batch before compression",
    ),
    (
        "buffer.memory",
        "64MiB",
        "produce: memory for records that are not acknowledged",
    ),
    (
        "delivery.timeout",
        "120s",
        "produce: give up on a record after this time without an acknowledgement",
    ),
    (
        "compression",
        "lz4",
        "produce: none, gzip, snappy, lz4 or zstd",
    ),
    (
        "compression.level",
        "",
        "produce: compression level of the codec",
    ),
    (
        "acks",
        "all",
        "produce: acknowledge after all in-sync replicas, the leader, or none",
    ),
    (
        "prefetch.bytes",
        "64MiB",
        "consume: memory for records that were read ahead",
    ),
    (
        "check.crcs",
        "true",
        "consume: verify the checksum of every batch",
    ),
    (
        "rack",
        "",
        "consume: rack of this client, to read from a near replica",
    ),
    (
        "tls.enabled",
        "false",
        "Use TLS; enabled by any of the tls files below",
    ),
    (
        "tls.ca",
        "",
        "CA certificates that sign the cluster's, PEM; default: the system's",
    ),
    ("tls.cert", "", "Client certificate, PEM"),
    ("tls.key", "", "Private key of the client certificate, PEM"),
];

/// Prints every setting with its default.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_settings() -> Result<u8, Failure> {
    let rows = SETTINGS.iter().map(|(name, default, what)| {
        vec![
            (*name).to_owned(),
            (*default).to_owned(),
            (*what).to_owned(),
        ]
    });
    print_table(&["SETTING", "DEFAULT", "MEANING"], rows.collect())?;
    Ok(0)
}

/// Resolved settings.
#[derive(Debug, Clone)]
pub struct Settings {
    values: BTreeMap<String, String>,
    timeout: Duration,
}

fn known(name: &str) -> Result<(), Failure> {
    if SETTINGS.iter().any(|(known, ..)| *known == name) {
        return Ok(());
    }
    let hint = nearest(name, SETTINGS.iter().map(|(name, ..)| *name)).map_or_else(
        || "; -X list prints all".to_owned(),
        |near| format!("; did you mean {near:?}?"),
    );
    Err(Failure::usage(format!("unknown setting {name:?}{hint}")))
}

fn default_file() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(base.join("varve/client.toml"))
}

/// Reads the file: settings at the top level, and `[contexts.NAME]` tables of them; `current` names one.
fn read_file(global: &Global) -> Result<BTreeMap<String, String>, Failure> {
    let (path, required) = match &global.client_config {
        Some(path) => (path.clone(), true),
        None => match default_file() {
            Some(path) => (path, false),
            None => return Ok(BTreeMap::new()),
        },
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if !required && error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::usage(format!("{}: {error}", path.display()))),
    };
    from_toml(&text, global.context.as_deref())
        .map_err(|failure| failure.context(&path.display().to_string()))
}

fn from_toml(text: &str, context: Option<&str>) -> Result<BTreeMap<String, String>, Failure> {
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| Failure::usage(error.to_string()))?;
    let mut values = BTreeMap::new();
    let contexts = table.get("contexts").and_then(toml::Value::as_table);
    for (name, value) in &table {
        if name != "contexts" && name != "current" {
            flatten(name, value, &mut values)?;
        }
    }
    let current = table.get("current").and_then(toml::Value::as_str);
    if let Some(name) = context.or(current) {
        let found = contexts.and_then(|contexts| contexts.get(name)?.as_table());
        let found =
            found.ok_or_else(|| Failure::usage(format!("the context {name:?} does not exist")))?;
        for (name, value) in found {
            flatten(name, value, &mut values)?;
        }
    }
    Ok(values)
}

/// `client.id = "x"` is a table in a table in TOML: the path is the name.
fn flatten(
    name: &str,
    value: &toml::Value,
    values: &mut BTreeMap<String, String>,
) -> Result<(), Failure> {
    let text = match value {
        toml::Value::Table(table) => {
            for (inner, value) in table {
                flatten(&format!("{name}.{inner}"), value, values)?;
            }
            return Ok(());
        }
        toml::Value::Array(items) => {
            let items = items.iter().map(|item| item.as_str().map(str::to_owned));
            items
                .collect::<Option<Vec<_>>>()
                .map(|items| items.join(","))
                .ok_or_else(|| {
                    Failure::usage(format!("{name}: every item of a list must be text"))
                })?
        }
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    known(name)?;
    values.insert(name.to_owned(), text);
    Ok(())
}

impl Settings {
    /// Resolves all settings.
    ///
    /// # Errors
    /// When the file cannot be read, or a setting is unknown.
    pub fn resolve(global: &Global) -> Result<Self, Failure> {
        let mut values: BTreeMap<String, String> = SETTINGS
            .iter()
            .map(|(name, default, _)| ((*name).to_owned(), (*default).to_owned()))
            .collect();
        values.extend(read_file(global)?);
        for (name, ..) in SETTINGS {
            let variable = format!("VARVE_CLIENT_{}", name.to_uppercase().replace('.', "_"));
            if let Ok(value) = std::env::var(variable) {
                values.insert((*name).to_owned(), value);
            }
        }
        if !global.brokers.is_empty() {
            values.insert("brokers".to_owned(), global.brokers.join(","));
        }
        if global.tls {
            values.insert("tls.enabled".to_owned(), "true".to_owned());
        }
        let files = [
            ("tls.ca", &global.tls_ca),
            ("tls.cert", &global.tls_cert),
            ("tls.key", &global.tls_key),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                values.insert(name.to_owned(), file.display().to_string());
            }
        }
        for pair in &global.set {
            let (name, value) = crate::parse::pair(pair).map_err(Failure::usage)?;
            known(&name)?;
            values.insert(name, value);
        }
        Ok(Self {
            values,
            timeout: global.timeout,
        })
    }

    /// A setting as text.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// A setting through a parser.
    ///
    /// # Errors
    /// Usage, with the setting's name.
    pub fn parse<T>(
        &self,
        name: &str,
        parser: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        parser(self.text(name)).map_err(|error| Failure::usage(format!("{name}: {error}")))
    }

    /// A setting in bytes.
    ///
    /// # Errors
    /// Usage, with the setting's name.
    pub fn bytes(&self, name: &str) -> Result<usize, Failure> {
        self.parse(name, |text| {
            let bytes = parse_bytes(text)?;
            usize::try_from(bytes).map_err(|error| error.to_string())
        })
    }

    /// A span of time.
    ///
    /// # Errors
    /// Usage, with the setting's name.
    pub fn duration(&self, name: &str) -> Result<Duration, Failure> {
        self.parse(name, parse_duration)
    }

    /// How long a command waits for the cluster.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connections for moving data: requests may take as long as the setting says.
    ///
    /// # Errors
    /// Usage, when an address is wrong.
    pub fn data_client(&self) -> Result<Client, Failure> {
        self.client(self.duration("request.timeout")?)
    }

    /// As [`Self::data_client`], for reading.
    ///
    /// # Errors
    /// Usage, when an address is wrong.
    pub fn reading_client(&self, level: IsolationLevel) -> Result<Client, Failure> {
        let config = ClientConfig {
            isolation: match level {
                IsolationLevel::ReadCommitted => Isolation::Committed,
                IsolationLevel::ReadUncommitted => Isolation::Uncommitted,
            },
            ..self.client_config(self.duration("request.timeout")?)?
        };
        Client::new(config).map_err(|error| Failure::usage(error.to_string()))
    }

    /// Calls for management: a request may take as long as `--timeout` says.
    ///
    /// # Errors
    /// Usage, when an address is wrong.
    pub fn admin(&self) -> Result<Admin, Failure> {
        Ok(Admin::new(self.client(self.timeout)?))
    }

    /// TLS, if any of its settings asks for it.
    ///
    /// # Errors
    /// Usage, when a file cannot be read or a setting is wrong.
    pub fn tls(&self) -> Result<Option<Arc<ClientTls>>, Failure> {
        let file = |name| Some(self.text(name)).filter(|text| !text.is_empty());
        let enabled = self.parse("tls.enabled", |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("expected true or false, found {other:?}")),
        })?;
        let ca = file("tls.ca").map(PathBuf::from);
        let identity = match (file("tls.cert"), file("tls.key")) {
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            (Some(_), None) => return Err(Failure::usage("tls.cert needs tls.key as well")),
            (None, Some(_)) => return Err(Failure::usage("tls.key needs tls.cert as well")),
        };
        if !enabled && ca.is_none() && identity.is_none() {
            return Ok(None);
        }
        let tls = ClientTls::load(ClientFiles { ca, identity });
        tls.map(Some)
            .map_err(|error| Failure::usage(error.to_string()))
    }

    fn client(&self, request_timeout: Duration) -> Result<Client, Failure> {
        let config = self.client_config(request_timeout)?;
        Client::new(config).map_err(|error| Failure::usage(error.to_string()))
    }

    fn client_config(&self, request_timeout: Duration) -> Result<ClientConfig, Failure> {
        let brokers = self
            .text("brokers")
            .split(',')
            .map(str::trim)
            .map(str::to_owned);
        Ok(ClientConfig {
            brokers: brokers.filter(|address| !address.is_empty()).collect(),
            client_id: self.text("client.id").to_owned(),
            connect_timeout: self.timeout,
            request_timeout,
            tls: self.tls()?,
            ..ClientConfig::default()
        })
    }
}

/// Adds the nearest topic's name to a failure about a topic that does not exist.
pub async fn suggest_topic(admin: &Admin, topic: &str, error: ClientError) -> Failure {
    let missing = error.kind() == Some(ErrorKind::TopicNotFound);
    let mut failure = Failure::from(error);
    // Some calls carry the server's own hint.
    let hinted = failure.message.contains("did you mean");
    if missing
        && !hinted
        && let Ok(topics) = admin.all_topics("", false).await
    {
        let names = topics.iter().map(|topic| topic.name.as_str());
        if let Some(near) = nearest(topic, names) {
            failure
                .message
                .push_str(&format!("; did you mean {near:?}?"));
        }
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_settings_and_contexts() {
        let text = r#"
            current = "dev"
            client.id = "me"
            [contexts.dev]
            brokers = ["a:1", "b:2"]
            [contexts.prod]
            brokers = "c:3"
            compression = "zstd"
        "#;
        let dev = from_toml(text, None).unwrap();
        assert_eq!(dev["brokers"], "a:1,b:2");
        assert_eq!(dev["client.id"], "me");
        let prod = from_toml(text, Some("prod")).unwrap();
        assert_eq!(
            (prod["brokers"].as_str(), prod["compression"].as_str()),
            ("c:3", "zstd")
        );
        assert!(
            from_toml(text, Some("test"))
                .unwrap_err()
                .message
                .contains("test")
        );
        let typo = from_toml("broker = \"x:1\"", None).unwrap_err();
        assert!(
            typo.message.contains("did you mean \"brokers\"?"),
            "{}",
            typo.message
        );
    }
}
