//! Settings as their users wrote them, with where each came from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use varve_types::config::nearest;

use super::keys::{self, KEYS, TOPIC_DEFAULTS};

/// Variables with our prefix that are not keys of a node: those of clients, tests and benches.
const OTHER_VARIABLES: &[&str] = &[
    "VARVE_BENCH_DIR",
    "VARVE_BIN",
    "VARVE_BROKERS",
    "VARVE_CONFIG",
    "VARVE_CONTEXT",
    "VARVE_REQUIRE_PYTHON",
    "VARVE_REVISION",
    "VARVE_TIMEOUT",
    "VARVE_TLS",
    "VARVE_TOKEN",
    "VARVE_TOKEN_FILE",
];
/// Prefixes of such variables.
const OTHER_PREFIXES: &[&str] = &["VARVE_CLIENT_", "VARVE_TLS_", "VARVE_TEST_"];

/// Where a value came from, weakest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Built in.
    Default,
    /// What this flag stands for, where nobody said otherwise.
    Preset(&'static str),
    /// The file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(flag) => f.write_str(flag),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// Why configuration was refused. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {what}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        what: String,
    },
    /// No such key.
    #[error("unknown key {key:?} in {from}{}", .near.as_ref().map(|n| format!("; did you mean {n:?}?")).unwrap_or_default())]
    UnknownKey {
        /// The key or variable given.
        key: String,
        /// Where it was given.
        from: String,
        /// The known one that looks most like it.
        near: Option<String>,
    },
    /// A value that is not accepted.
    #[error("{key} = {value:?} (from {from}) is not valid: expected {expected}")]
    BadValue {
        /// Key.
        key: String,
        /// Value.
        value: String,
        /// Where it was given.
        from: String,
        /// What is accepted.
        expected: String,
    },
    /// A required key has no value.
    #[error("{0} is required: set it in the file, as {variable}, or on the command line", variable = keys::variable(.0))]
    Missing(&'static str),
    /// A listener without certificates, and nobody said that it may be without.
    #[error(
        "{listener}.tls.{missing} is not set: set the files ({needed}), or set {listener}.tls.mode \
         = \"insecure\" to serve this port in plaintext to anyone who can reach it"
    )]
    NoTls {
        /// Beginning of the listener's keys.
        listener: &'static str,
        /// The key that is missing.
        missing: &'static str,
        /// All that are needed.
        needed: &'static str,
    },
}

/// Keys with their values and sources.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, (String, Source)>,
}

impl Settings {
    /// Reads file, environment and flags, each over the one before.
    ///
    /// # Errors
    /// [`ConfigError`], for the first thing that is not understood.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        if let Some(path) = file {
            settings.add_file(path)?;
        }
        for (name, value) in environment {
            settings.add_variable(name, value)?;
        }
        for (key, value) in flags {
            settings.add(key, value.clone(), Source::Flag)?;
        }
        Ok(settings)
    }

    /// Gives keys that nobody has set the values that `flag` stands for.
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`] for a key that there is not.
    pub fn fill(
        &mut self,
        flag: &'static str,
        presets: &[(&str, &str)],
    ) -> Result<(), ConfigError> {
        for (key, value) in presets {
            if !self.values.contains_key(*key) {
                self.add(key, (*value).to_owned(), Source::Preset(flag))?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let not_toml = |what: String| ConfigError::NotToml {
            path: path.to_owned(),
            what,
        };
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| not_toml(e.to_string()))?;
        let mut flat = Vec::new();
        flatten("", &table, &mut flat).map_err(not_toml)?;
        for (key, value) in flat {
            self.add(&key, value, Source::File(path.to_owned()))?;
        }
        Ok(())
    }

    fn add_variable(&mut self, name: String, value: String) -> Result<(), ConfigError> {
        let ours = name.strip_prefix("VARVE_");
        let other = OTHER_VARIABLES.contains(&name.as_str())
            || OTHER_PREFIXES.iter().any(|p| name.starts_with(p))
            || is_service_link(&name);
        let Some(path) = ours.filter(|_| !other) else {
            return Ok(());
        };
        let key = path.to_lowercase().replace("__", ".");
        if keys::find(&key).is_none() && !key.starts_with(TOPIC_DEFAULTS) {
            let variables: Vec<String> = KEYS.iter().map(|k| keys::variable(k.name)).collect();
            let near = nearest(&name, variables.iter().map(String::as_str)).map(str::to_owned);
            let from = "the environment".to_owned();
            return Err(ConfigError::UnknownKey {
                key: name,
                from,
                near,
            });
        }
        self.add(&key, value, Source::Environment(name))
    }

    fn add(&mut self, key: &str, value: String, source: Source) -> Result<(), ConfigError> {
        let topic_config = key.strip_prefix(TOPIC_DEFAULTS);
        let known = match topic_config {
            Some(name) => varve_types::config::KEYS.iter().any(|k| k.name == name),
            None => keys::find(key).is_some(),
        };
        if !known {
            let near = match topic_config {
                Some(name) => nearest(name, varve_types::config::KEYS.iter().map(|k| k.name))
                    .map(|n| format!("{TOPIC_DEFAULTS}{n}")),
                None => nearest(key, KEYS.iter().map(|k| k.name)).map(str::to_owned),
            };
            let from = source.to_string();
            return Err(ConfigError::UnknownKey {
                key: key.to_owned(),
                from,
                near,
            });
        }
        self.values.insert(key.to_owned(), (value, source));
        Ok(())
    }

    /// The value of a key with its source; the built-in default if nobody set it; `None` if that is empty.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<(&str, Source)> {
        match self.values.get(key) {
            Some((value, source)) => Some((value, source.clone())),
            None => {
                let default = keys::find(key)?.default;
                (!default.is_empty()).then_some((default, Source::Default))
            }
        }
    }

    /// Node-wide defaults of topic configs.
    #[must_use]
    pub fn topic_defaults(&self) -> BTreeMap<String, String> {
        let given = self.values.iter();
        given
            .filter_map(|(key, (value, _))| {
                let name = key.strip_prefix(TOPIC_DEFAULTS)?;
                // What is wrong with a value is found when it is resolved.
                let stored = varve_types::config::canonical(name, value);
                Some((name.to_owned(), stored.unwrap_or_else(|_| value.clone())))
            })
            .collect()
    }

    /// Every key with its effective value and source, ordered by name.
    #[must_use]
    pub fn effective(&self) -> Vec<(String, String, Source)> {
        let mut all: BTreeMap<String, (String, Source)> = KEYS
            .iter()
            .map(|k| (k.name.to_owned(), (k.default.to_owned(), Source::Default)))
            .collect();
        all.extend(self.values.clone());
        all.into_iter().map(|(k, (v, s))| (k, v, s)).collect()
    }
}

/// Whether Kubernetes made this variable: it describes a service named `varve...` to every pod, as
/// `VARVE_SERVICE_HOST` or `VARVE_PORT_8278_TCP_ADDR`. A node must start beside its own service.
fn is_service_link(name: &str) -> bool {
    let numbered = name
        .split_once("_PORT_")
        .is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    let service = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
    !name.contains("__") && (numbered || service || name.ends_with("_PORT"))
}

fn flatten(
    prefix: &str,
    table: &toml::Table,
    out: &mut Vec<(String, String)>,
) -> Result<(), String> {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            toml::Value::Table(table) => flatten(&key, table, out)?,
            toml::Value::String(text) => out.push((key, text.clone())),
            toml::Value::Integer(n) => out.push((key, n.to_string())),
            toml::Value::Float(n) => out.push((key, n.to_string())),
            toml::Value::Boolean(b) => out.push((key, b.to_string())),
            toml::Value::Array(values) => {
                let text = |v: &toml::Value| v.as_str().map(str::to_owned);
                let values: Option<Vec<String>> = values.iter().map(text).collect();
                let values = values.ok_or_else(|| format!("{key} may only list texts"))?;
                out.push((key, values.join(",")));
            }
            toml::Value::Datetime(_) => {
                return Err(format!("{key} must be a text, a number, true or false"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        file: &str,
        env: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Settings, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("varve.toml");
        std::fs::write(&path, file).unwrap();
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        Settings::load(Some(&path), own(env).into_iter(), &own(flags))
    }

    #[test]
    fn flags_beat_environment_beats_file_beats_default() {
        let file = "num.partitions = 3\nrequest.timeout.ms = 1000\n[node]\nid = 1\n";
        let env = [
            ("VARVE_NUM__PARTITIONS", "4"),
            ("VARVE_NODE__ID", "2"),
            ("HOME", "/"),
        ];
        let settings = load(file, &env, &[("node.id", "3")]).unwrap();
        assert_eq!(settings.get("node.id"), Some(("3", Source::Flag)));
        assert_eq!(settings.get("num.partitions").unwrap().0, "4");
        assert_eq!(settings.get("request.timeout.ms").unwrap().0, "1000");
        assert_eq!(
            settings.get("fetch.max.bytes"),
            Some(("50MiB", Source::Default))
        );
        assert_eq!(settings.get("node.rack"), None);
    }

    #[test]
    fn what_somebody_set_beats_what_a_flag_stands_for() {
        let env = [("VARVE_HTTP__ADDRESS", "127.0.0.1:1")];
        let mut settings = load("[node]\nid = 3\n", &env, &[("num.partitions", "5")]).unwrap();
        let dev = [
            ("node.id", "1"),
            ("http.address", "127.0.0.1:2"),
            ("num.partitions", "6"),
            ("storage.data_dir", "./here"),
        ];
        settings.fill("--dev", &dev).unwrap();
        let value = |key: &str| settings.get(key).unwrap().0.to_owned();
        assert_eq!(value("node.id"), "3");
        assert_eq!(value("http.address"), "127.0.0.1:1");
        assert_eq!(value("num.partitions"), "5");
        assert_eq!(
            settings.get("storage.data_dir"),
            Some(("./here", Source::Preset("--dev")))
        );
        assert!(
            settings
                .clone()
                .fill("--dev", &[("node.idd", "1")])
                .is_err()
        );
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest() {
        let error = load("[storage]\ndata_dri = \"/x\"\n", &[], &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("did you mean \"storage.data_dir\"?"),
            "{error}"
        );
        let error = load("", &[("VARVE_STORAGE__DATADIR", "/x")], &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("did you mean \"VARVE_STORAGE__DATA_DIR\"?"),
            "{error}"
        );
        let error = load("topic.defaults.retention.mss = 1", &[], &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("topic.defaults.retention.ms"), "{error}");
        assert!(load("", &[("VARVE_BROKERS", "x"), ("VARVE_TLS_CA", "y")], &[]).is_ok());
    }

    #[test]
    fn variables_of_kubernetes_services_are_not_ours() {
        for name in [
            "VARVE_PORT",
            "VARVE_SERVICE_HOST",
            "VARVE_SERVICE_PORT",
            "VARVE_SERVICE_PORT_GRPC",
            "VARVE_PORT_8278_TCP_ADDR",
            "VARVE_HEADLESS_PORT_8278_TCP",
        ] {
            assert!(
                load("", &[(name, "tcp://10.0.0.1:8278")], &[]).is_ok(),
                "{name}"
            );
        }
        for name in [
            "VARVE_STORAGE_DATA_DIR",
            "VARVE_HTTP__PORT",
            "VARVE_NODE__PORT_1",
        ] {
            assert!(load("", &[(name, "1")], &[]).is_err(), "{name}");
        }
    }

    #[test]
    fn topic_defaults_are_collected() {
        let env = [("VARVE_TOPIC__DEFAULTS__SEGMENT__BYTES", "8192")];
        let settings = load("topic.defaults.retention.ms = 60000", &env, &[]).unwrap();
        let defaults = settings.topic_defaults();
        assert_eq!(
            defaults.get("retention.ms").map(String::as_str),
            Some("60000")
        );
        assert_eq!(
            defaults.get("segment.bytes").map(String::as_str),
            Some("8192")
        );
    }

    #[test]
    fn files_that_are_no_toml_say_where() {
        let error = load("num.partitions = = 3", &[], &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 1"), "{error}");
        assert!(load("num.partitions = [1]", &[], &[]).is_err());
    }
}
