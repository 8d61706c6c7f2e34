//! Topics: requests to broker API, and topics, partitions and configs to messages.

use std::collections::{BTreeMap, BTreeSet};

use varve_broker_api::{
    AddPartitions, Before, ConfigChange, ConfigEntry, ConfigSource, CreateTopic, DeleteBefore,
    Error, PartitionInfo, TopicInfo, UpdateConfigs,
};
use varve_proto::v1;
use varve_types::{ErrorKind, NodeId, Offset, TopicId, limits};

use super::{
    at_most, missing, offset, to_timestamp, topic_name, topic_partition, unknown_enum,
    writable_topic,
};

/// Most labels of a topic.
const LABELS_MAX: usize = limits::TOPIC_LABELS_MAX;
/// Longest label name or value, in bytes.
const LABEL_MAX_BYTES: usize = limits::LABEL_MAX_BYTES;
/// Most configs of a request: more than there are keys.
const CONFIGS_MAX: usize = limits::REQUEST_MAX_CONFIGS;

/// Reads a CreateTopic.
///
/// # Errors
/// `InvalidRequest` naming the field, also for names that only the server may use; `UnsupportedFeature`
/// for a partitioner that this server does not have.
pub fn create(request: &v1::CreateTopicRequest) -> Result<CreateTopic, Error> {
    let topic = topic_name("topic", &request.topic)?;
    if topic.is_internal() {
        return Err(Error::invalid(
            "topic",
            format!(
                "topic {topic} is reserved, as every name that begins with \"__varve\"; nothing \
                 was created"
            ),
        ));
    }
    partitioner(request.partitioner)?;
    at_most("configs", request.configs.len(), CONFIGS_MAX)?;
    labels(&request.labels)?;
    let partitions = count(
        "partition_count",
        request.partition_count,
        limits::PARTITIONS_PER_TOPIC_MAX,
    )?;
    let replication_factor = count("replication_factor", request.replication_factor, i32::MAX)?;
    let placement = placement(&request.placement)?;
    let (partitions, replication_factor) = if placement.is_empty() {
        (partitions, replication_factor)
    } else {
        placed(&placement, partitions, replication_factor)?
    };
    let request_id = if request.request_id.is_empty() {
        None
    } else {
        let id: TopicId = request
            .request_id
            .parse()
            .map_err(|e: String| Error::invalid("request_id", e))?;
        Some(id.0)
    };
    Ok(CreateTopic {
        topic,
        partitions,
        replication_factor,
        configs: request.configs.clone(),
        labels: request.labels.clone(),
        placement,
        validate_only: request.validate_only,
        request_id,
    })
}

fn partitioner(raw: i32) -> Result<(), Error> {
    match v1::Partitioner::try_from(raw) {
        Ok(v1::Partitioner::Unspecified | v1::Partitioner::Murmur2) => Ok(()),
        Ok(v1::Partitioner::Xxh3) => Err(Error::new(
            ErrorKind::UnsupportedFeature,
            "this version does not support PARTITIONER_XXH3; use PARTITIONER_MURMUR2; nothing was \
             created",
        )
        .with("feature", "PARTITIONER_XXH3")),
        Err(_) => Err(unknown_enum("partitioner", raw)),
    }
}

fn labels(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    at_most("labels", labels.len(), LABELS_MAX)?;
    for (name, value) in labels {
        if name.is_empty() || name.len() > LABEL_MAX_BYTES || value.len() > LABEL_MAX_BYTES {
            return Err(Error::invalid(
                "labels",
                format!(
                    "a label needs a name of 1 to {LABEL_MAX_BYTES} bytes and a value of at most \
                     {LABEL_MAX_BYTES}"
                ),
            ));
        }
    }
    Ok(())
}

/// A count for which 0 means "the default".
fn count(field: &'static str, value: i32, max: i32) -> Result<Option<i32>, Error> {
    match value {
        0 => Ok(None),
        n if (1..=max).contains(&n) => Ok(Some(n)),
        n => Err(Error::invalid(
            field,
            format!("{field} must be 1 to {max}, or 0 for the default; found {n}"),
        )),
    }
}

fn placement(entries: &[v1::ReplicaPlacement]) -> Result<BTreeMap<i32, Vec<NodeId>>, Error> {
    let bad = |text: String| Error::invalid("placement", text);
    at_most(
        "placement",
        entries.len(),
        usize::try_from(limits::PARTITIONS_PER_TOPIC_MAX).unwrap_or(0),
    )?;
    let mut all = BTreeMap::new();
    for entry in entries {
        let partition = entry.partition;
        if partition < 0 {
            return Err(bad(format!(
                "placement names partition {partition}; partitions are counted from 0"
            )));
        }
        let nodes: Vec<NodeId> = entry.node_ids.iter().copied().map(NodeId).collect();
        let distinct: BTreeSet<_> = nodes.iter().collect();
        if nodes.is_empty() || nodes.iter().any(|n| n.0 < 0) || distinct.len() != nodes.len() {
            return Err(bad(format!(
                "placement of partition {partition} needs node ids of 0 or more, each once"
            )));
        }
        if all.insert(partition, nodes).is_some() {
            return Err(bad(format!("placement names partition {partition} twice")));
        }
    }
    Ok(all)
}

/// Placement of a whole topic: one entry per partition, all of one length.
fn placed(
    placement: &BTreeMap<i32, Vec<NodeId>>,
    partitions: Option<i32>,
    replicas: Option<i32>,
) -> Result<(Option<i32>, Option<i32>), Error> {
    let bad = |text: &str| Err(Error::invalid("placement", text));
    let found = i32::try_from(placement.len()).unwrap_or(i32::MAX);
    if !placement.keys().copied().eq(0..found) {
        return bad("placement needs one entry for each partition, counted from 0");
    }
    let width = placement.values().next().map_or(0, Vec::len);
    if placement.values().any(|nodes| nodes.len() != width) {
        return bad("placement needs the same number of nodes for every partition");
    }
    let width = i32::try_from(width).unwrap_or(i32::MAX);
    if partitions.is_some_and(|n| n != found) || replicas.is_some_and(|n| n != width) {
        return bad("partition_count and replication_factor must be 0 or match placement");
    }
    Ok((Some(found), Some(width)))
}

/// Reads an UpdateTopicConfigs.
///
/// # Errors
/// `InvalidRequest` naming the field; `PolicyViolation` for internal topics.
pub fn update(request: &v1::UpdateTopicConfigsRequest) -> Result<UpdateConfigs, Error> {
    let topic = writable_topic("topic", &request.topic)?;
    if request.changes.is_empty() {
        return Err(missing("changes"));
    }
    at_most("changes", request.changes.len(), CONFIGS_MAX)?;
    let mut changes = BTreeMap::new();
    for change in &request.changes {
        if change.name.is_empty() {
            return Err(missing("changes.name"));
        }
        let value = change.value.clone();
        let what = match v1::ConfigOperation::try_from(change.operation) {
            Ok(v1::ConfigOperation::Unspecified | v1::ConfigOperation::Set) => {
                ConfigChange::Set(value)
            }
            Ok(v1::ConfigOperation::Delete) => ConfigChange::Delete,
            Ok(v1::ConfigOperation::Append) => ConfigChange::Append(value),
            Ok(v1::ConfigOperation::Subtract) => ConfigChange::Subtract(value),
            Err(_) => return Err(unknown_enum("changes.operation", change.operation)),
        };
        if changes.insert(change.name.clone(), what).is_some() {
            return Err(Error::invalid(
                "changes",
                format!(
                    "config {:?} is changed twice in one request; nothing was changed",
                    change.name
                ),
            ));
        }
    }
    Ok(UpdateConfigs {
        topic,
        changes,
        validate_only: request.validate_only,
    })
}

/// Reads an AddPartitions.
///
/// # Errors
/// `InvalidRequest` naming the field; `PolicyViolation` for internal topics.
pub fn add_partitions(request: &v1::AddPartitionsRequest) -> Result<AddPartitions, Error> {
    let topic = writable_topic("topic", &request.topic)?;
    let max = limits::PARTITIONS_PER_TOPIC_MAX;
    let total = count("partition_count", request.partition_count, max)?
        .ok_or_else(|| missing("partition_count"))?;
    let placement = placement(&request.placement)?;
    Ok(AddPartitions {
        topic,
        total,
        placement,
        validate_only: request.validate_only,
    })
}

/// Reads the id of a DeleteTopic.
///
/// # Errors
/// `InvalidRequest`.
pub fn topic_id(text: &str) -> Result<Option<TopicId>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|e: String| Error::invalid("topic_id", e))
}

/// Reads a DeleteRecords.
///
/// # Errors
/// `InvalidRequest` naming the field; `PolicyViolation` for internal topics.
pub fn delete_records(request: &v1::DeleteRecordsRequest) -> Result<Vec<DeleteBefore>, Error> {
    use v1::delete_before::Before as B;
    if request.deletes.is_empty() {
        return Err(missing("deletes"));
    }
    at_most(
        "deletes",
        request.deletes.len(),
        limits::REQUEST_MAX_PARTITIONS,
    )?;
    request
        .deletes
        .iter()
        .map(|delete| {
            let partition =
                topic_partition("deletes.topic_partition", delete.topic_partition.as_ref())?;
            writable_topic("deletes.topic_partition", partition.topic.as_str())?;
            let before = match delete.before {
                Some(B::Offset(raw)) => Before::Offset(offset("deletes.offset", raw)?),
                Some(B::TimestampMs(ms)) => Before::Timestamp(ms),
                Some(B::CurrentEnd(true)) => Before::End,
                Some(B::CurrentEnd(false)) => {
                    return Err(Error::invalid(
                        "deletes.current_end",
                        "if current_end is set, it must be true",
                    ));
                }
                None => return Err(missing("deletes.before")),
            };
            Ok(DeleteBefore { partition, before })
        })
        .collect()
}

/// A topic in the words of the API.
#[must_use]
pub fn to_topic(info: &TopicInfo) -> v1::Topic {
    v1::Topic {
        name: info.name.to_string(),
        topic_id: info.id.to_string(),
        partition_count: info.partitions,
        replication_factor: info.replication_factor,
        configs: info.configs.clone(),
        partitioner: v1::Partitioner::Murmur2 as i32,
        internal: info.name.is_internal(),
        create_time: Some(to_timestamp(info.created_ms)),
        labels: info.labels.clone(),
    }
}

/// A partition in the words of the API. `error` is the partition's own, already translated.
#[must_use]
pub fn to_partition(info: &PartitionInfo, error: Option<v1::PartitionError>) -> v1::Partition {
    // A partition that nobody leads, or that another node leads, tells nothing; one with damaged records
    // does.
    let elsewhere = |error: &Error| error.kind == ErrorKind::NotLeader;
    let unknown =
        error.is_some() && info.leader.is_none() || info.error.as_ref().is_some_and(elsewhere);
    let known = |offset: Offset| if unknown { 0 } else { offset.get() };
    v1::Partition {
        partition: info.partition.0,
        leader_node_id: info.leader.map(|n| n.0),
        leader_epoch: info.leader_epoch.get().into(),
        replica_node_ids: info.replicas.iter().map(|n| n.0).collect(),
        in_sync_node_ids: info.in_sync.iter().map(|n| n.0).collect(),
        log_start_offset: known(info.log_start),
        high_watermark: known(info.high_watermark),
        log_end_offset: known(info.log_end),
        size_bytes: if unknown {
            0
        } else {
            i64::try_from(info.size_bytes).unwrap_or(i64::MAX)
        },
        error,
    }
}

/// A config in the words of the API.
#[must_use]
pub fn to_config(entry: &ConfigEntry) -> v1::ConfigEntry {
    let source = match entry.source {
        ConfigSource::Default => v1::ConfigSource::Default,
        ConfigSource::Static => v1::ConfigSource::Static,
        ConfigSource::Topic => v1::ConfigSource::Topic,
    };
    v1::ConfigEntry {
        name: entry.name.to_owned(),
        value: entry.value.clone(),
        source: source as i32,
        inherited_value: entry.inherited.clone(),
        read_only: false,
        sensitive: false,
        description: entry.description.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> v1::CreateTopicRequest {
        v1::CreateTopicRequest {
            topic: "t".to_owned(),
            ..Default::default()
        }
    }

    fn place(partition: i32, nodes: &[i32]) -> v1::ReplicaPlacement {
        v1::ReplicaPlacement {
            partition,
            node_ids: nodes.to_vec(),
        }
    }

    #[test]
    fn counts_are_bounded_and_zero_is_the_default() {
        let created = create(&request()).unwrap();
        assert_eq!(
            (created.partitions, created.replication_factor),
            (None, None)
        );
        for bad in [-1, i32::MIN, 10_001, i32::MAX] {
            let error = create(&v1::CreateTopicRequest {
                partition_count: bad,
                ..request()
            })
            .unwrap_err();
            assert_eq!(error.field, Some("partition_count"));
        }
        assert!(
            create(&v1::CreateTopicRequest {
                replication_factor: -3,
                ..request()
            })
            .is_err()
        );
    }

    #[test]
    fn reserved_names_are_bad_requests() {
        let error = create(&v1::CreateTopicRequest {
            topic: "__varve_x".to_owned(),
            ..request()
        })
        .unwrap_err();
        assert_eq!(
            (error.kind, error.field),
            (ErrorKind::InvalidRequest, Some("topic"))
        );
    }

    #[test]
    fn placement_covers_every_partition_once() {
        let with = |p: Vec<v1::ReplicaPlacement>| {
            create(&v1::CreateTopicRequest {
                placement: p,
                ..request()
            })
        };
        let good = with(vec![place(1, &[2, 1]), place(0, &[1, 2])]).unwrap();
        assert_eq!(
            (good.partitions, good.replication_factor),
            (Some(2), Some(2))
        );
        for bad in [
            vec![place(1, &[1])],
            vec![place(0, &[])],
            vec![place(0, &[1, 1])],
            vec![place(0, &[-1])],
            vec![place(-1, &[1])],
            vec![place(0, &[1]), place(0, &[1])],
            vec![place(0, &[1]), place(1, &[1, 2])],
        ] {
            assert_eq!(with(bad).unwrap_err().field, Some("placement"));
        }
    }

    #[test]
    fn unsupported_and_unknown_partitioners_differ() {
        let with = |p| {
            create(&v1::CreateTopicRequest {
                partitioner: p,
                ..request()
            })
            .map(|_| ())
        };
        assert_eq!(with(2).unwrap_err().kind, ErrorKind::UnsupportedFeature);
        assert_eq!(with(7).unwrap_err().kind, ErrorKind::InvalidRequest);
        assert!(with(1).is_ok());
    }

    #[test]
    fn a_config_changes_once_per_request() {
        let change = |name: &str, operation| v1::ConfigChange {
            name: name.to_owned(),
            operation,
            value: "1".to_owned(),
        };
        let with = |changes| {
            update(&v1::UpdateTopicConfigsRequest {
                topic: "t".to_owned(),
                changes,
                validate_only: false,
            })
        };
        assert!(with(vec![change("a", 0), change("b", 2)]).is_ok());
        assert!(with(vec![change("a", 0), change("a", 2)]).is_err());
        assert!(with(vec![change("a", 9)]).is_err());
        assert!(with(vec![change("", 1)]).is_err());
        assert!(with(vec![]).is_err());
    }

    #[test]
    fn deletes_name_a_place() {
        use v1::delete_before::Before as B;
        let with = |topic: &str, before| {
            let tp = v1::TopicPartition {
                topic: topic.to_owned(),
                partition: 0,
            };
            delete_records(&v1::DeleteRecordsRequest {
                deletes: vec![v1::DeleteBefore {
                    topic_partition: Some(tp),
                    before,
                }],
            })
        };
        assert_eq!(
            with("t", Some(B::CurrentEnd(true))).unwrap()[0].before,
            Before::End
        );
        assert!(with("t", Some(B::CurrentEnd(false))).is_err());
        assert!(with("t", Some(B::Offset(-1))).is_err());
        assert!(with("t", None).is_err());
        assert_eq!(
            with("__varve_x", Some(B::Offset(0))).unwrap_err().kind,
            ErrorKind::PolicyViolation
        );
    }
}
