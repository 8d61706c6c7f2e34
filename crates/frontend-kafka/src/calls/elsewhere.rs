//! Changes to configs of brokers, groups and client metrics. Most of them have no place here; tools set and delete some
//! in passing.
//!
//! Invariants: deleting a name that Kafka knows changes nothing and is no error; what is refused names the reason, and
//! where to set it instead.

use std::collections::BTreeMap;

use varve_broker_api::{ConfigChange, Error, THROTTLES};
use varve_types::kafka_configs::{self, Fate, Scope};
use varve_types::{ErrorKind, NodeId};

/// Throttles to set (or to delete: `None`) of all that is to be changed.
pub(super) fn changed(
    scope: Scope,
    resource: &str,
    me: NodeId,
    changes: &BTreeMap<String, ConfigChange>,
) -> Result<Vec<(&'static str, Option<u64>)>, Error> {
    let of_all = scope == Scope::Broker && resource.is_empty();
    if scope == Scope::Broker && !of_all && resource.parse() != Ok(me.0) {
        let text = format!(
            "this is node {me}; nothing was changed; send the change to node {resource:?} itself"
        );
        return Err(Error::invalid("resource_name", text));
    }
    let mut throttles = Vec::new();
    for (name, change) in changes {
        let throttle = THROTTLES
            .iter()
            .find(|t| scope == Scope::Broker && **t == name);
        match (change, throttle) {
            (ConfigChange::Delete, Some(throttle)) if !of_all => throttles.push((*throttle, None)),
            (ConfigChange::Delete, _) if kafka_configs::is_known(name) => {}
            (ConfigChange::Set(value), Some(throttle)) if !of_all => {
                throttles.push((*throttle, Some(rate(name, value)?)));
            }
            (_, Some(_)) if of_all => {
                let text = format!(
                    "broker config {name:?} is set on each node, not for all of them; nothing was changed; name the node"
                );
                return Err(refused(name, text));
            }
            _ => return Err(refusal(scope, name)),
        }
    }
    Ok(throttles)
}

/// Bytes per second.
fn rate(name: &str, value: &str) -> Result<u64, Error> {
    let number: Option<i64> = value.trim().parse().ok();
    let number = number.and_then(|number| u64::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| {
        let value: String = value.chars().take(64).collect();
        let text = format!(
            "broker config {name:?}: {value:?} is not valid; expected bytes per second, >= 1; nothing was changed"
        );
        refused(name, text)
    })
}

/// Why a config cannot be set here.
fn refusal(scope: Scope, name: &str) -> Error {
    let what = match scope {
        Scope::Topic => "topic",
        Scope::Broker => "broker",
        Scope::Group => "group",
        Scope::ClientMetrics => "client metrics",
    };
    let name: String = name.chars().take(100).collect();
    let why = match scope.find(&name).map(|config| config.fate) {
        None => format!("unknown {what} config {name:?}; nothing was changed"),
        Some(Fate::Node(key)) => format!(
            "{what} config {name:?} cannot be changed while the node runs; nothing was changed; set {key} in the \
             node's configuration file"
        ),
        Some(Fate::Refused(reason) | Fate::KeptAt(_, reason)) => {
            format!("{what} config {name:?} cannot be set here: {reason}; nothing was changed")
        }
        Some(Fate::Obeyed(_) | Fate::Kept) => {
            format!("{what} config {name:?} is not a list; nothing was changed")
        }
    };
    refused(&name, why)
}

fn refused(name: &str, text: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, text).with("key", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(3);

    fn one(name: &str, change: ConfigChange) -> BTreeMap<String, ConfigChange> {
        [(name.to_owned(), change)].into()
    }

    fn set(value: &str) -> ConfigChange {
        ConfigChange::Set(value.to_owned())
    }

    #[test]
    fn a_throttle_is_a_number_of_bytes() {
        let name = "leader.replication.throttled.rate";
        let of = |change| changed(Scope::Broker, "3", ME, &one(name, change));
        assert_eq!(of(set(" 1000 ")).unwrap(), [(name, Some(1000))]);
        assert_eq!(of(ConfigChange::Delete).unwrap(), [(name, None)]);
        for bad in ["0", "-1", "", "1k", "9223372036854775808"] {
            let error = of(set(bad)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig, "{bad}");
            assert!(error.message.contains(">= 1"), "{}", error.message);
        }
        let everywhere = changed(Scope::Broker, "", ME, &one(name, set("5"))).unwrap_err();
        assert!(
            everywhere.message.contains("name the node"),
            "{}",
            everywhere.message
        );
        assert!(changed(Scope::Broker, "4", ME, &one(name, set("5"))).is_err());
    }

    #[test]
    fn what_kafka_knows_is_deleted_without_an_error_and_set_with_a_reason() {
        for scope in [Scope::Broker, Scope::Group, Scope::ClientMetrics] {
            for config in scope.configs() {
                let done = changed(scope, "3", ME, &one(config.name, ConfigChange::Delete));
                assert!(done.is_ok(), "{}", config.name);
                if !THROTTLES.contains(&config.name) {
                    let refused = changed(scope, "3", ME, &one(config.name, set("1"))).unwrap_err();
                    assert!(
                        refused.message.contains("nothing was changed"),
                        "{}",
                        config.name
                    );
                }
            }
        }
        let error = changed(Scope::Broker, "3", ME, &one("num.io.thread", set("1"))).unwrap_err();
        assert!(
            error.message.contains("unknown broker config"),
            "{}",
            error.message
        );
        let error =
            changed(Scope::Broker, "3", ME, &one("log.retention.ms", set("1"))).unwrap_err();
        assert!(
            error.message.contains("topic.defaults.retention.ms"),
            "{}",
            error.message
        );
    }
}
