//! `varve topic create`, and whether a topic that exists is the one that was asked for (`--if-not-exists`).
//!
//! Invariant: only what the command line names is compared, and all topics are compared before the first is created.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_client::{Admin, proto as v1};
use varve_types::ErrorKind;

use crate::args::OutputArgs;
use crate::failure::{CONDITION, Failure};
use crate::output::{print_line, print_values, to_json};
use crate::topic::dry;
use crate::words::count;
use crate::{opened, units};

/// Creates topics, and waits for their leaders if `wait` says how long.
///
/// # Errors
/// [`Failure`] of the first topic that fails; a conflict (code 4) before any is created.
pub async fn create(
    admin: &Admin,
    topics: Vec<String>,
    template: v1::CreateTopicRequest,
    if_not_exists: bool,
    wait: Option<Duration>,
    form: OutputArgs,
    quiet: bool,
) -> Result<u8, Failure> {
    for topic in &topics {
        // The name is checked here too, so that the error quotes the name with the mistake.
        varve_types::TopicName::new(topic)
            .map_err(|error| Failure::usage(format!("{topic:?}: {error}")))?;
    }
    let mut existing = Vec::new();
    if if_not_exists {
        // All of them before the first one is created: a conflict leaves everything as it was.
        for topic in &topics {
            if as_requested(admin, topic, &template).await? {
                existing.push(topic.clone());
            }
        }
    }
    let mut values = Vec::new();
    let mut created = Vec::new();
    for topic in topics {
        if existing.contains(&topic) {
            exists(&topic, form, quiet)?;
            continue;
        }
        let request = v1::CreateTopicRequest {
            topic: topic.clone(),
            ..template.clone()
        };
        let answer = admin.create_topic(request).await;
        if answer.is_ok() {
            created.push(topic.clone());
        }
        match answer {
            Ok(response) if !form.output.is_text() => {
                values.push(to_json("CreateTopicResponse", &response)?);
            }
            Ok(response) if !quiet => {
                let created = response.topic.unwrap_or_default();
                print_line(&format!(
                    "{topic}: created, {}, {}{}",
                    count(created.partition_count, "partition"),
                    count(created.replication_factor, "replica"),
                    dry(template.validate_only)
                ))?;
            }
            Ok(_) => {}
            // Somebody else created it since it was looked up.
            Err(error) if if_not_exists && error.kind() == Some(ErrorKind::TopicAlreadyExists) => {
                as_requested(admin, &topic, &template).await?;
                exists(&topic, form, quiet)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if !values.is_empty() {
        print_values(form.output, values)?;
    }
    for topic in created {
        if let Some(within) = wait {
            opened::wait(admin, &topic, within).await?;
        }
    }
    Ok(0)
}

fn exists(topic: &str, form: OutputArgs, quiet: bool) -> Result<(), Failure> {
    if quiet || !form.output.is_text() {
        return Ok(());
    }
    print_line(&format!("{topic}: exists as requested, not changed"))
}

/// Whether the topic exists. `false`: it does not.
///
/// # Errors
/// A conflict (code 4), when it exists with another shape; otherwise what the cluster says.
async fn as_requested(
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
