//! Configs that a topic was given: as they are stored, changed and shown.
//!
//! Invariants: a stored value is canonical; a change that is refused changed nothing; what is deleted need not have
//! been set, as long as somebody knows its name.

use std::collections::BTreeMap;

use varve_broker_api::{ConfigChange, ConfigEntry, ConfigSource, Error, Result};
use varve_types::ErrorKind;
use varve_types::config::{self, ConfigError, Known};
use varve_types::kafka_configs::{self, KafkaConfig, Kind, Scope};

/// What is said of a config that only Kafka gives a meaning.
const KEPT: &str = "Kept and shown for programs that set it; it has no effect here.";

/// The configs of a new topic as they are stored.
pub(crate) fn stored(given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let one = |(name, value): (&String, &String)| {
        let value = config::canonical(name, value).map_err(|e| refused(&e))?;
        Ok((name.clone(), value))
    };
    given.iter().map(one).collect()
}

/// Makes one change.
pub(crate) fn change(
    configs: &mut BTreeMap<String, String>,
    name: &str,
    change: ConfigChange,
) -> Result<()> {
    let known = config::find(name);
    let value = match change {
        // Mirrors delete whatever is at its default, by all the names that their own cluster knows.
        ConfigChange::Delete if known.is_ok() || kafka_configs::is_known(name) => {
            configs.remove(name);
            return Ok(());
        }
        ConfigChange::Set(value) => value,
        other => {
            let (default, is_list) = match known.map_err(|e| refused(&e))? {
                Known::Ours(key) => (key.default, name == "cleanup.policy"),
                Known::Kafkas(config) => (
                    config.default.unwrap_or_default(),
                    config.kind == Kind::List,
                ),
            };
            if !is_list {
                let text = format!("topic config {name:?} is not a list; nothing was changed");
                return Err(Error::new(ErrorKind::InvalidConfig, text).with("key", name));
            }
            listed(configs.get(name).map_or(default, String::as_str), other)
        }
    };
    let value = config::canonical(name, &value).map_err(|e| refused(&e))?;
    configs.insert(name.to_owned(), value);
    Ok(())
}

/// A list with more or fewer parts.
fn listed(present: &str, change: ConfigChange) -> String {
    let list = |text: &str| -> Vec<String> {
        let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
        parts.map(str::to_owned).collect()
    };
    let mut parts = list(present);
    match change {
        ConfigChange::Append(more) => {
            let more = list(&more);
            parts.extend(
                more.into_iter()
                    .filter(|m| !present.split(',').any(|p| p.trim() == m)),
            );
        }
        ConfigChange::Subtract(less) => {
            let less = list(&less);
            parts.retain(|part| !less.contains(part));
        }
        ConfigChange::Set(_) | ConfigChange::Delete => {}
    }
    parts.join(",")
}

/// Every config of ours with its value, and of Kafka's those that were set.
pub(crate) fn entries(
    set: &BTreeMap<String, String>,
    defaults: &BTreeMap<String, String>,
) -> Vec<ConfigEntry> {
    let ours = config::KEYS.iter().map(|key| {
        let default = defaults.get(key.name);
        let inherited = default.map_or(key.default, String::as_str).to_owned();
        let (value, source) = match set.get(key.name) {
            Some(value) => (value.clone(), ConfigSource::Topic),
            None if default.is_some() => (inherited.clone(), ConfigSource::Static),
            None => (inherited.clone(), ConfigSource::Default),
        };
        ConfigEntry {
            name: key.name,
            value,
            source,
            inherited,
            description: key.description,
        }
    });
    let is_ours = |config: &KafkaConfig| config::KEYS.iter().any(|key| key.name == config.name);
    let kept = Scope::Topic.configs().filter(|config| !is_ours(config));
    let kept = kept.filter_map(|config| {
        Some(ConfigEntry {
            name: config.name,
            value: set.get(config.name)?.clone(),
            source: ConfigSource::Topic,
            inherited: config.default.unwrap_or_default().to_owned(),
            description: KEPT,
        })
    });
    ours.chain(kept).collect()
}

/// The error of a config that is refused.
pub(crate) fn refused(error: &ConfigError) -> Error {
    let key = match error {
        ConfigError::UnknownKey { key, .. }
        | ConfigError::Refused { key, .. }
        | ConfigError::BadValue { key, .. } => key.clone(),
    };
    let text = format!("{error}; nothing was changed");
    Error::new(ErrorKind::InvalidConfig, text).with("key", key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn names_that_kafka_knows_are_deleted_without_an_error() {
        let mut configs = set(&[("segment.jitter.ms", "5")]);
        for name in [
            "segment.jitter.ms",
            "segment.jitter.ms",
            "remote.storage.enable",
            "compression.gzip.level",
            "retention.ms",
            "num.io.threads",
        ] {
            change(&mut configs, name, ConfigChange::Delete).unwrap();
        }
        assert!(configs.is_empty());
        let error = change(&mut configs, "retention.mss", ConfigChange::Delete).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidConfig);
    }

    #[test]
    fn lists_grow_and_shrink() {
        let name = "follower.replication.throttled.replicas";
        let mut configs = set(&[]);
        let append = |text: &str| ConfigChange::Append(text.to_owned());
        change(&mut configs, name, append("0:1,1:2")).unwrap();
        change(&mut configs, name, append("1:2,2:3")).unwrap();
        assert_eq!(configs[name], "0:1,1:2,2:3");
        change(
            &mut configs,
            name,
            ConfigChange::Subtract("0:1, 2:3".to_owned()),
        )
        .unwrap();
        assert_eq!(configs[name], "1:2");
        assert!(change(&mut configs, "segment.ms", append("5")).is_err());
    }

    #[test]
    fn what_was_kept_is_shown_and_what_was_not_set_is_left_out() {
        let configs = stored(&set(&[("Preallocate", "true")]));
        assert!(configs.is_err(), "names have one spelling");
        let configs = stored(&set(&[("preallocate", "True"), ("retention.ms", " 5 ")])).unwrap();
        let all = entries(&configs, &set(&[("segment.ms", "7")]));
        let of = |name: &str| all.iter().find(|entry| entry.name == name);
        assert_eq!(of("preallocate").unwrap().value, "true");
        assert_eq!(of("retention.ms").unwrap().value, "5");
        assert_eq!(of("segment.ms").unwrap().source, ConfigSource::Static);
        assert!(of("segment.jitter.ms").is_none());
    }
}
