//! `varve topic create --if-not-exists`: whether a topic that exists is the one that was asked for. Only what the
//! command line names is compared; nothing is ever changed here.

use std::collections::BTreeMap;

use varve_client::{Admin, proto as v1};
use varve_types::ErrorKind;

use crate::failure::{CONDITION, Failure};
use crate::units;
use crate::words::count;

/// Whether the topic exists. `false`: it does not.
///
/// # Errors
/// A conflict (code 4), when it exists with another shape; otherwise what the cluster says.
pub async fn as_requested(
    admin: &Admin,
    topic: &str,
    wanted: &v1::CreateTopicRequest,
) -> Result<bool, Failure> {
    let request = v1::GetTopicRequest {
        topic: topic.to_owned(),
    };
    let found = match admin.get_topic(request).await {
        Ok(found) => found.topic.unwrap_or_default(),
        Err(error) if error.kind() == Some(ErrorKind::TopicNotFound) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut configs = BTreeMap::new();
    if !wanted.configs.is_empty() {
        let request = v1::GetTopicConfigsRequest {
            topic: topic.to_owned(),
            ..Default::default()
        };
        let found = admin.get_topic_configs(request).await?.configs;
        configs.extend(found.into_iter().map(|config| (config.name, config.value)));
    }
    let differences = differences(&found, &configs, wanted);
    if differences.is_empty() {
        return Ok(true);
    }
    Err(Failure::new(
        CONDITION,
        format!(
            "topic {topic} exists with {}; nothing was changed",
            differences.join(", and ")
        ),
    ))
}

/// What is not as the request wants it: what there is, and what was asked for.
fn differences(
    found: &v1::Topic,
    configs: &BTreeMap<String, String>,
    wanted: &v1::CreateTopicRequest,
) -> Vec<String> {
    let mut all = Vec::new();
    let numbers = [
        (found.partition_count, wanted.partition_count, "partition"),
        (
            found.replication_factor,
            wanted.replication_factor,
            "replica",
        ),
    ];
    for (found, wanted, noun) in numbers {
        if wanted != 0 && found != wanted {
            all.push(format!("{}, not {wanted}", count(found, noun)));
        }
    }
    let wanted: BTreeMap<_, _> = wanted.configs.iter().collect();
    for (name, wanted) in wanted {
        let found = configs.get(name).map_or("", String::as_str);
        if !same(found, wanted) {
            let (found, wanted) = (units::human(name, found), units::human(name, wanted));
            all.push(format!("{name}={found}, not {wanted}"));
        }
    }
    all
}

/// Whether two values mean the same: numbers by value, lists in any order.
fn same(a: &str, b: &str) -> bool {
    if let (Ok(a), Ok(b)) = (a.parse::<i64>(), b.parse::<i64>()) {
        return a == b;
    }
    if let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) {
        return (a - b).abs() < f64::EPSILON;
    }
    let list = |text: &str| {
        let mut items: Vec<String> = text.split(',').map(|item| item.trim().to_owned()).collect();
        items.sort_unstable();
        items
    };
    list(a) == list(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_mean_the_same() {
        for (a, b, expected) in [
            ("1000", "1000", true),
            ("0.5", "0.50", true),
            ("1000", "1001", false),
            ("compact,delete", "delete, compact", true),
            ("compact", "delete", false),
            ("", "delete", false),
        ] {
            assert_eq!(same(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_compared() {
        let found = v1::Topic {
            partition_count: 3,
            replication_factor: 1,
            ..Default::default()
        };
        let configs = BTreeMap::from([("retention.ms".to_owned(), "604800000".to_owned())]);
        let wanted = |partitions, replicas, retention: Option<&str>| {
            let config = |value: &str| ("retention.ms".to_owned(), value.to_owned());
            let request = v1::CreateTopicRequest {
                partition_count: partitions,
                replication_factor: replicas,
                configs: retention.map(config).into_iter().collect(),
                ..Default::default()
            };
            differences(&found, &configs, &request).join("|")
        };
        assert_eq!(wanted(0, 0, None), "");
        assert_eq!(wanted(3, 1, Some("604800000")), "");
        assert_eq!(
            wanted(5, 3, Some("3600000")),
            "3 partitions, not 5|1 replica, not 3|retention.ms=7d, not 1h"
        );
    }
}
