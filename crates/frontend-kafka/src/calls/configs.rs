//! Configs of topics, described and changed, and the throttles of a node. Nodes have their other settings in a file: of
//! them clients are shown what they ask for.
//!
//! Invariants: clients see Kafka's names and words; every name that Kafka knows can be deleted; a config that only this
//! server has is marked read-only, so that mirrors to Kafka leave it out, and can be changed all the same.

use std::collections::{BTreeMap, BTreeSet};

use varve_broker_api::{
    Broker, ConfigChange, ConfigEntry, ConfigSource, Error, Operations, UpdateConfigs,
};
use varve_types::config::UNCOMPRESSED;
use varve_types::kafka_configs::{KafkaConfig, Kind, Scope};
use varve_types::{ErrorKind, TopicName};

use super::topics::creation_code;
use super::{Call, elsewhere};
use crate::shared::Shared;
use crate::translate::{sentence, topic_name, unknown_topic};
use crate::wire::generated::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::wire::generated::{alter_configs as whole, incremental_alter_configs as incremental};
use crate::wire::{ErrorCode, Text};

/// The resource is a topic.
pub(super) const TOPIC: i8 = 2;
/// The resource is a node.
pub(super) const BROKER: i8 = 4;
/// The resource is the loggers of a node.
pub(super) const BROKER_LOGGER: i8 = 8;
/// The resource is a subscription to metrics of clients.
pub(super) const CLIENT_METRICS: i8 = 16;
/// The resource is a group.
pub(super) const GROUP: i8 = 32;
/// Where a value comes from, on the wire.
const SET_ON_TOPIC: i8 = 1;
const SET_ON_NODE: i8 = 2;
const SET_IN_FILE: i8 = 4;
const BUILT_IN: i8 = 5;

/// What is said of everything that comes from a node's file.
const OF_THE_FILE: &str = "Set in the node's configuration file or environment; cannot be changed \
    while the node runs.";

/// A config of a node, under Kafka's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Name.
    pub name: &'static str,
    /// Value in effect; `None`: there is none, or it is a secret.
    pub value: Option<String>,
    /// It was set; otherwise it is the default.
    pub is_set: bool,
    /// It is a secret.
    pub is_secret: bool,
}

pub(super) const fn source(source: ConfigSource) -> i8 {
    match source {
        ConfigSource::Topic => SET_ON_TOPIC,
        ConfigSource::Static => SET_IN_FILE,
        ConfigSource::Default => BUILT_IN,
    }
}

/// The type of a value, as clients see it since version 3.
fn kind(scope: Scope, name: &str) -> i8 {
    match scope.find(name).map_or(Kind::Text, |config| config.kind) {
        Kind::Boolean => 1,
        Kind::Text => 2,
        Kind::Int => 3,
        Kind::Short => 4,
        Kind::Long => 5,
        Kind::Double => 6,
        Kind::List => 7,
        Kind::Class => 8,
        Kind::Password => 9,
    }
}

/// Whether Kafka has no topic config of that name.
pub(super) fn is_only_ours(name: &str) -> bool {
    Scope::Topic.find(name).is_none()
}

/// Configs as Kafka's clients see them: in Kafka's words, and with those that only Kafka has.
pub(super) fn with_kafkas(mut all: Vec<ConfigEntry>) -> Vec<ConfigEntry> {
    for entry in all.iter_mut().filter(|e| e.name == "compression.type") {
        for value in [&mut entry.value, &mut entry.inherited] {
            if value == "none" {
                UNCOMPRESSED.clone_into(value);
            }
        }
    }
    for config in Scope::Topic.configs().filter(KafkaConfig::is_listed) {
        if let Some(default) = config.default
            && !all.iter().any(|entry| entry.name == config.name)
        {
            all.push(ConfigEntry {
                name: config.name,
                value: default.to_owned(),
                source: ConfigSource::Default,
                inherited: default.to_owned(),
                description: "Has no effect here; kept and shown when it is set.",
            });
        }
    }
    all.sort_by_key(|entry| entry.name);
    all
}

pub(super) fn describe<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let mut seen = BTreeSet::new();
    let each = request.resources.iter();
    let each = each.filter(|r| seen.insert((r.resource_type, r.resource_name.clone())));
    let results = each.map(|resource| {
        let described = match resource.resource_type {
            TOPIC => topic(shared, call, resource).map(|all| all_told(all, call, request)),
            BROKER => node(shared, resource).map(|all| {
                let mut all = fixed(all, Scope::Broker, call, request);
                all.extend(throttles(shared, call, resource));
                all
            }),
            BROKER_LOGGER => named_node(shared, resource).map(|()| Vec::new()),
            GROUP => Ok(fixed(
                of_groups(shared, resource),
                Scope::Group,
                call,
                request,
            )),
            CLIENT_METRICS => {
                let all = of_metrics(resource);
                Ok(fixed(all, Scope::ClientMetrics, call, request))
            }
            other => Err(unsupported(other)),
        };
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..DescribeConfigsResult::default()
        };
        match described {
            Ok(configs) => {
                result.configs = configs;
            }
            Err(error) => {
                shared.count(&error);
                result.error_code = creation_code(&error).code();
                result.error_message = sentence(&error);
            }
        }
        result
    });
    DescribeConfigsResponse {
        throttle_time_ms: 0,
        results: results.collect(),
    }
}

fn unsupported(kind: i8) -> Error {
    let text = format!(
        "resources of type {kind} are not known; topics, brokers, groups and client metrics have configs"
    );
    Error::invalid("resource_type", text)
}

fn wanted(resource: &DescribeConfigsResource, name: &str) -> bool {
    let keys = resource.configuration_keys.as_ref();
    keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
}

fn topic<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    resource: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntry>, Error> {
    let text = resource.resource_name.as_str();
    let name = TopicName::new(text).map_err(|_| unknown_topic(text))?;
    let mut all = with_kafkas(shared.broker.topic_configs(&call.ctx, &name)?);
    all.retain(|entry| wanted(resource, entry.name));
    Ok(all)
}

/// Whether the resource is this node. The empty name stands for what holds for all nodes, which is nothing here.
fn named_node<B: Broker>(
    shared: &Shared<B>,
    resource: &DescribeConfigsResource,
) -> Result<(), Error> {
    let name = resource.resource_name.as_str();
    if name.is_empty() || name.parse() == Ok(shared.node.0) {
        return Ok(());
    }
    let text = format!("this is node {}; ask node {name:?} itself", shared.node);
    Err(Error::invalid("resource_name", text))
}

/// What this node has set, by Kafka's names.
fn node<B: Broker>(
    shared: &Shared<B>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<NodeConfig>, Error> {
    named_node(shared, resource)?;
    if resource.resource_name.is_empty() {
        return Ok(Vec::new());
    }
    let options = &shared.options;
    let nodes = shared.broker.nodes().len().clamp(1, 3);
    let replicas = options.default_replication_factor;
    let replicas = replicas.unwrap_or(i32::try_from(nodes).unwrap_or(1));
    // What is in effect, whether or not somebody set it.
    let own = [
        ("advertised.listeners", options.advertised.clone()),
        ("auto.create.topics.enable", options.auto_create.to_string()),
        ("broker.id", shared.node.to_string()),
        ("default.replication.factor", replicas.to_string()),
        ("node.id", shared.node.to_string()),
        ("num.partitions", options.num_partitions.to_string()),
    ];
    let own = own.map(|(name, value)| NodeConfig {
        name,
        value: Some(value),
        is_set: true,
        is_secret: false,
    });
    let others = options.node_configs.iter();
    let others = others.filter(|config| !own.iter().any(|o| o.name == config.name));
    let mut all: Vec<_> = others.cloned().chain(own.iter().cloned()).collect();
    all.retain(|config| wanted(resource, config.name));
    all.sort_by_key(|config| config.name);
    Ok(all)
}

/// What holds for every group of consumers: times of the node.
fn of_groups<B: Broker>(shared: &Shared<B>, resource: &DescribeConfigsResource) -> Vec<NodeConfig> {
    let value = |name: &str| {
        let nodes = &shared.options.node_configs;
        let of_node = nodes
            .iter()
            .find(|c| c.name.strip_prefix("group.") == Some(name));
        of_node.and_then(|c| c.value.clone())
    };
    defaults(Scope::Group, resource, value)
        .into_iter()
        .filter(|config| config.name.starts_with("consumer."))
        .collect()
}

/// No subscription has metrics of its own: what Kafka says of one that does not exist.
fn of_metrics(resource: &DescribeConfigsResource) -> Vec<NodeConfig> {
    defaults(Scope::ClientMetrics, resource, |_| None)
}

fn defaults(
    scope: Scope,
    resource: &DescribeConfigsResource,
    value: impl Fn(&str) -> Option<String>,
) -> Vec<NodeConfig> {
    let configs = scope
        .configs()
        .filter(|config| wanted(resource, config.name));
    let shown = |config: KafkaConfig| NodeConfig {
        name: config.name,
        value: value(config.name).or_else(|| config.default.map(str::to_owned)),
        is_set: false,
        is_secret: false,
    };
    configs.map(shown).collect()
}

/// Configs that no client can change.
fn fixed(
    all: Vec<NodeConfig>,
    scope: Scope,
    call: &Call,
    request: &DescribeConfigsRequest,
) -> Vec<DescribeConfigsResourceResult> {
    let version = call.version();
    let told = |config: NodeConfig| {
        let source = if config.is_set { SET_IN_FILE } else { BUILT_IN };
        let value = config.value.map(Text::from);
        let synonym = |value: &Option<Text>| DescribeConfigsSynonym {
            name: Text::from_static(config.name),
            value: value.clone(),
            source,
        };
        let with_synonyms = request.include_synonyms && version >= 1;
        let documented = request.include_documentation && version >= 3;
        DescribeConfigsResourceResult {
            name: Text::from_static(config.name),
            read_only: true,
            config_source: source,
            is_default: version == 0 && !config.is_set,
            is_sensitive: config.is_secret,
            synonyms: match with_synonyms {
                true => vec![synonym(&value)],
                false => Vec::new(),
            },
            config_type: kind(scope, config.name),
            documentation: documented.then(|| Text::from_static(OF_THE_FILE)),
            value,
        }
    };
    all.into_iter().map(told).collect()
}

/// Throttles that are set on this node.
fn throttles<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    resource: &DescribeConfigsResource,
) -> Vec<DescribeConfigsResourceResult> {
    let set = shared.broker.throttles(&call.ctx).into_iter();
    let set = set.filter(|t| wanted(resource, t.name) && !resource.resource_name.is_empty());
    set.map(|throttle| DescribeConfigsResourceResult {
        name: Text::from_static(throttle.name),
        value: Some(Text::from(throttle.bytes_per_second.to_string())),
        config_source: SET_ON_NODE,
        config_type: kind(Scope::Broker, throttle.name),
        ..DescribeConfigsResourceResult::default()
    })
    .collect()
}

fn all_told(
    all: Vec<ConfigEntry>,
    call: &Call,
    request: &DescribeConfigsRequest,
) -> Vec<DescribeConfigsResourceResult> {
    let told = |entry| told(call, request, entry);
    all.into_iter().map(told).collect()
}

fn told(
    call: &Call,
    request: &DescribeConfigsRequest,
    entry: ConfigEntry,
) -> DescribeConfigsResourceResult {
    // A mirror leaves out what is read-only, and Kafka would refuse ours.
    let read_only = is_only_ours(entry.name);
    let mut synonyms = Vec::new();
    if request.include_synonyms && call.version() >= 1 {
        let synonym = |value: &str, source: i8| DescribeConfigsSynonym {
            name: Text::from_static(entry.name),
            value: Some(Text::from(value)),
            source,
        };
        synonyms.push(synonym(&entry.value, source(entry.source)));
        if entry.source == ConfigSource::Topic {
            synonyms.push(synonym(&entry.inherited, BUILT_IN));
        }
    }
    let documented = request.include_documentation && call.version() >= 3;
    DescribeConfigsResourceResult {
        name: Text::from_static(entry.name),
        read_only,
        config_source: source(entry.source),
        is_default: call.version() == 0 && entry.source == ConfigSource::Default,
        synonyms,
        config_type: kind(Scope::Topic, entry.name),
        documentation: documented.then(|| Text::from_static(entry.description)),
        value: Some(Text::from(entry.value)),
        ..DescribeConfigsResourceResult::default()
    }
}

/// What became of a change: the protocol's code and a sentence.
type Changed = (i16, Option<Text>);

fn of_topic(
    name: &Text,
    changes: Result<BTreeMap<String, ConfigChange>, Error>,
    validate_only: bool,
) -> Result<UpdateConfigs, Error> {
    Ok(UpdateConfigs {
        topic: topic_name(name).map_err(|_| unknown_topic(name.as_str()))?,
        changes: changes?,
        validate_only,
    })
}

async fn change<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    (kind, name): (i8, &Text),
    changes: Result<BTreeMap<String, ConfigChange>, Error>,
    validate_only: bool,
) -> Changed {
    let scope = match kind {
        TOPIC => Some(Scope::Topic),
        BROKER => Some(Scope::Broker),
        GROUP => Some(Scope::Group),
        CLIENT_METRICS => Some(Scope::ClientMetrics),
        _ => None,
    };
    let done = match scope {
        Some(Scope::Topic) => match of_topic(name, changes, validate_only) {
            Ok(request) => {
                let done = shared.broker.update_topic_configs(&call.ctx, request);
                done.await.map(drop)
            }
            Err(error) => Err(error),
        },
        Some(scope) => changes
            .and_then(|changes| elsewhere::changed(scope, name.as_str(), shared.node, &changes))
            .and_then(|throttles| match validate_only || throttles.is_empty() {
                true => Ok(()),
                false => shared.broker.set_throttles(&call.ctx, throttles),
            }),
        None => Err(unsupported(kind)),
    };
    match done {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(error) => {
            shared.count(&error);
            (creation_code(&error).code(), sentence(&error))
        }
    }
}

/// Replaces all that was set: what is not named is removed.
pub(super) async fn alter<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    request: whole::AlterConfigsRequest,
) -> whole::AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let mut changes = BTreeMap::new();
        if resource.resource_type == BROKER {
            for throttle in shared.broker.throttles(&call.ctx) {
                changes.insert(throttle.name.to_owned(), ConfigChange::Delete);
            }
        }
        let all = (resource.resource_type == TOPIC)
            .then(|| shared.topics().ok())
            .flatten();
        let set = all
            .as_ref()
            .and_then(|all| all.get(resource.resource_name.as_str()));
        for name in set.iter().flat_map(|info| info.configs.keys()) {
            changes.insert(name.clone(), ConfigChange::Delete);
        }
        for config in &resource.configs {
            if let Some(value) = &config.value {
                let value = ConfigChange::Set(value.as_str().to_owned());
                changes.insert(config.name.as_str().to_owned(), value);
            }
        }
        let of = (resource.resource_type, &resource.resource_name);
        let (error_code, error_message) =
            change(shared, call, of, Ok(changes), request.validate_only).await;
        responses.push(whole::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        });
    }
    whole::AlterConfigsResponse {
        throttle_time_ms: 0,
        responses,
    }
}

pub(super) async fn alter_incrementally<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    request: incremental::IncrementalAlterConfigsRequest,
) -> incremental::IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let mut seen = BTreeSet::new();
        let changes = resource.configs.iter().map(|config| {
            let value = config.value.as_ref().map(|v| v.as_str().to_owned());
            if !seen.insert(config.name.as_str()) {
                let text = format!(
                    "config {:.100}: it is named twice; nothing was changed",
                    config.name.as_str()
                );
                return Err(Error::invalid("configs", text));
            }
            let change = match (config.config_operation, value) {
                (0, Some(value)) => ConfigChange::Set(value),
                (1, _) => ConfigChange::Delete,
                (2, Some(value)) => ConfigChange::Append(value),
                (3, Some(value)) => ConfigChange::Subtract(value),
                (0 | 2 | 3, None) => return Err(invalid(config, "it has no value")),
                _ => return Err(invalid(config, "its operation is not known")),
            };
            Ok((config.name.as_str().to_owned(), change))
        });
        let changes: Result<BTreeMap<_, _>, Error> = changes.collect();
        let of = (resource.resource_type, &resource.resource_name);
        let (error_code, error_message) =
            change(shared, call, of, changes, request.validate_only).await;
        responses.push(incremental::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        });
    }
    incremental::IncrementalAlterConfigsResponse {
        throttle_time_ms: 0,
        responses,
    }
}

fn invalid(config: &incremental::AlterableConfig, why: &str) -> Error {
    let name: String = config.name.as_str().chars().take(100).collect();
    let text = format!("config {name:?}: {why}; nothing was changed");
    Error::new(ErrorKind::InvalidConfig, text).with("key", name)
}
