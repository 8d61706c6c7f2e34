//! `varve topic`: create, list, describe, configure, grow and delete topics.

use std::collections::BTreeMap;

use varve_client::{Admin, proto as v1};

use crate::args::{Global, OutputArgs, TopicCommand};
use crate::confirm::confirm;
use crate::connection::{Settings, suggest_topic};
use crate::consume::{bad_pattern, whole_name};
use crate::failure::Failure;
use crate::opened;
use crate::operate;
use crate::operate_args::TargetArgs;
use crate::output::{
    Done, Output, numbers, print_line, print_message, print_remarks, print_table, print_values,
    to_json,
};
use crate::replicas;
use crate::words::count;
use crate::{topic_create, topic_data, units};

/// Runs a command.
///
/// # Errors
/// [`Failure`] of the first topic that fails.
pub async fn run(global: &Global, command: TopicCommand) -> Result<u8, Failure> {
    let settings = Settings::resolve(global)?;
    let admin = settings.admin()?;
    match command {
        TopicCommand::Create {
            topics,
            partitions,
            replicas,
            configs,
            if_not_exists,
            dry_run,
            compact,
            no_wait,
            form,
        } => {
            let mut configs: BTreeMap<String, String> =
                units::numbers(configs)?.into_iter().collect();
            if compact {
                configs.insert("cleanup.policy".to_owned(), "compact".to_owned());
            }
            let template = v1::CreateTopicRequest {
                partition_count: partitions,
                replication_factor: replicas,
                configs: configs.into_iter().collect(),
                validate_only: dry_run,
                ..Default::default()
            };
            let wait = (!no_wait && !dry_run).then_some(global.timeout);
            topic_create::create(
                &admin,
                topics,
                template,
                if_not_exists,
                wait,
                form,
                global.quiet,
            )
            .await
        }
        TopicCommand::List {
            topics,
            detailed,
            internal,
            regex,
            form,
        } => list(&admin, &topics, detailed, internal, regex.as_deref(), form).await,
        TopicCommand::Describe {
            topics,
            summary,
            configs,
            partitions,
            all,
            under_replicated,
            unavailable,
            form,
        } => {
            if under_replicated || unavailable {
                let wanted = replicas::Wanted {
                    under_replicated,
                    unavailable,
                };
                let short = replicas::short(&admin, &topics, wanted).await?;
                replicas::print(form.output, short)?;
                return Ok(0);
            }
            let nothing = !summary && !configs && !partitions && !all;
            let what = Describe {
                summary: summary || all || nothing,
                configs: configs || all,
                partitions: partitions || all || nothing,
            };
            let mut values = Vec::new();
            for (index, topic) in topics.iter().enumerate() {
                if index > 0 && form.output.is_text() {
                    print_line("")?;
                }
                values.extend(describe(&admin, topic, &what, form.output).await?);
            }
            if !values.is_empty() {
                print_values(form.output, values)?;
            }
            Ok(0)
        }
        TopicCommand::Config {
            topic,
            sets,
            delete,
            append,
            dry_run,
            form,
        } => {
            let mut changes = changes(units::numbers(sets)?, v1::ConfigOperation::Set);
            changes.extend(self::changes(append, v1::ConfigOperation::Append));
            let delete = delete
                .into_iter()
                .map(|name| (name, String::new()))
                .collect();
            changes.extend(self::changes(delete, v1::ConfigOperation::Delete));
            config(&admin, &topic, changes, dry_run, form.output).await
        }
        TopicCommand::AddPartitions {
            topic,
            num,
            total,
            dry_run,
            form,
        } => {
            let size = (num, total.unwrap_or_default());
            add_partitions(global, &admin, topic, size, dry_run, form).await
        }
        TopicCommand::Alter {
            topics,
            replicas,
            dry_run,
            wait,
            form,
        } => {
            let partitions = operate::all_of(&admin, &topics).await?;
            let target = TargetArgs {
                to: Vec::new(),
                replicas: Some(replicas),
                cancel: false,
            };
            operate::reassign(global, &admin, partitions, (target, dry_run), wait, form).await
        }
        TopicCommand::Trim {
            topic,
            offset,
            partition,
            dry_run,
            output,
        } => {
            let request = topic_data::Trim {
                topic,
                offset,
                partitions: partition,
                dry_run,
                output,
            };
            topic_data::trim(global, &settings, &admin, request).await
        }
        TopicCommand::Delete {
            topics,
            regex,
            form,
        } => delete(global, &admin, topics, regex, form.output).await,
        TopicCommand::Offsets {
            topics,
            at,
            partition,
            form,
        } => topic_data::offsets(&settings, &admin, &topics, at.as_deref(), &partition, form).await,
    }
}

pub(crate) const fn dry(dry_run: bool) -> &'static str {
    if dry_run { " (dry run)" } else { "" }
}

/// Adds partitions: `more` of them, or up to a total.
async fn add_partitions(
    global: &Global,
    admin: &Admin,
    topic: String,
    (more, total): (Option<i32>, i32),
    dry_run: bool,
    form: OutputArgs,
) -> Result<u8, Failure> {
    let total = match more {
        None => total,
        Some(more) => {
            let request = v1::GetTopicRequest {
                topic: topic.clone(),
            };
            let found = match admin.get_topic(request).await {
                Ok(found) => found.topic.unwrap_or_default(),
                Err(error) => return Err(suggest_topic(admin, &topic, error).await),
            };
            found.partition_count.saturating_add(more)
        }
    };
    let request = v1::AddPartitionsRequest {
        topic: topic.clone(),
        partition_count: total,
        validate_only: dry_run,
        ..Default::default()
    };
    let response = match admin.add_partitions(request).await {
        Ok(response) => response,
        Err(error) => return Err(suggest_topic(admin, &topic, error).await),
    };
    if !form.output.is_text() {
        print_message(form.output, "AddPartitionsResponse", &response)?;
    } else if !global.quiet {
        print_line(&format!(
            "{topic}: {}{}",
            count(total, "partition"),
            dry(dry_run)
        ))?;
    }
    Ok(0)
}

async fn list(
    admin: &Admin,
    only: &[String],
    detailed: bool,
    internal: bool,
    regex: Option<&str>,
    form: OutputArgs,
) -> Result<u8, Failure> {
    let pattern = match regex {
        None => None,
        Some(pattern) => {
            Some(regex::Regex::new(pattern).map_err(|error| bad_pattern(pattern, &error))?)
        }
    };
    let mut topics = admin.all_topics("", internal).await?;
    topics.retain(|topic| {
        (only.is_empty() || only.contains(&topic.name))
            && pattern
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(&topic.name))
    });
    if !form.output.is_text() {
        let response = v1::ListTopicsResponse {
            topics,
            ..Default::default()
        };
        print_message(form.output, "ListTopicsResponse", &response)?;
        return Ok(0);
    }
    let wide = form.output == Output::Wide || detailed;
    let mut headings = vec!["TOPIC", "PARTITIONS", "REPLICAS"];
    if wide {
        headings.extend(["ID", "CONFIGS"]);
    }
    let rows = topics.into_iter().map(|topic| {
        let mut row = vec![
            topic.name,
            topic.partition_count.to_string(),
            topic.replication_factor.to_string(),
        ];
        if wide {
            let configs: BTreeMap<_, _> = topic.configs.into_iter().collect();
            let configs = configs
                .iter()
                .map(|(name, value)| format!("{name}={}", units::human(name, value)));
            row.extend([topic.topic_id, configs.collect::<Vec<_>>().join(" ")]);
        }
        row
    });
    print_table(&headings, rows.collect())?;
    Ok(0)
}

struct Describe {
    summary: bool,
    configs: bool,
    partitions: bool,
}

/// Prints a topic as tables, or gives it back for programs.
async fn describe(
    admin: &Admin,
    topic: &str,
    what: &Describe,
    output: Output,
) -> Result<Option<serde_json::Value>, Failure> {
    let request = v1::GetTopicRequest {
        topic: topic.to_owned(),
    };
    let found = match admin.get_topic(request).await {
        Ok(found) => found,
        Err(error) => return Err(suggest_topic(admin, topic, error).await),
    };
    let mut partitions = Vec::new();
    if what.partitions {
        partitions = opened::settled(admin, topic).await?;
    }
    let mut configs = Vec::new();
    if what.configs {
        let request = v1::GetTopicConfigsRequest {
            topic: topic.to_owned(),
            ..Default::default()
        };
        configs = admin.get_topic_configs(request).await?.configs;
    }
    if !output.is_text() {
        let mut value = to_json("GetTopicResponse", &found)?;
        let listed = v1::ListPartitionsResponse {
            partitions,
            ..Default::default()
        };
        value["partitions"] = to_json("ListPartitionsResponse", &listed)?["partitions"].take();
        let listed = v1::GetTopicConfigsResponse { configs };
        value["configs"] = to_json("GetTopicConfigsResponse", &listed)?["configs"].take();
        return Ok(Some(value));
    }
    if what.summary {
        summary(&found.topic.unwrap_or_default())?;
    }
    if what.summary && (what.configs || what.partitions) {
        print_line("")?;
    }
    if what.configs {
        config_table(configs)?;
    }
    if what.configs && what.partitions {
        print_line("")?;
    }
    if what.partitions {
        partition_table(topic, partitions, output)?;
    }
    Ok(None)
}

fn summary(topic: &v1::Topic) -> Result<(), Failure> {
    let rows = vec![
        vec!["NAME".to_owned(), topic.name.clone()],
        vec!["ID".to_owned(), topic.topic_id.clone()],
        vec!["PARTITIONS".to_owned(), topic.partition_count.to_string()],
        vec!["REPLICAS".to_owned(), topic.replication_factor.to_string()],
        vec!["INTERNAL".to_owned(), topic.internal.to_string()],
    ];
    print_table(&["SUMMARY", ""], rows)
}

fn partition_table(
    topic: &str,
    partitions: Vec<v1::Partition>,
    output: Output,
) -> Result<(), Failure> {
    let wide = output == Output::Wide;
    let errors = opened::errors(topic, &partitions);
    let rows = partitions.into_iter().map(|partition| {
        let leader = partition
            .leader_node_id
            .map_or_else(|| "-".to_owned(), |id| id.to_string());
        // With an error the leader could not be asked, unless it told the cursors beside it.
        let asked =
            partition.error.is_none() || partition.log_end_offset > 0 || partition.size_bytes > 0;
        let cursor = |value: i64| match asked {
            true => value.to_string(),
            false => "-".to_owned(),
        };
        let mut row = vec![
            partition.partition.to_string(),
            leader,
            partition.leader_epoch.to_string(),
            numbers(&partition.replica_node_ids),
            numbers(&partition.in_sync_node_ids),
            cursor(partition.log_start_offset),
            cursor(partition.high_watermark),
            cursor(partition.size_bytes),
        ];
        if wide {
            let records = partition.high_watermark - partition.log_start_offset;
            row.extend([cursor(partition.log_end_offset), cursor(records)]);
        }
        row
    });
    let mut headings = vec![
        "PARTITION",
        "LEADER",
        "EPOCH",
        "REPLICAS",
        "IN-SYNC",
        "START",
        "END",
        "BYTES",
    ];
    if wide {
        headings.extend(["LOG END", "OFFSETS"]);
    }
    print_table(&headings, rows.collect())?;
    print_remarks(&errors)
}

fn config_table(configs: Vec<v1::ConfigEntry>) -> Result<(), Failure> {
    let rows = configs.into_iter().map(|config| {
        let source = config
            .source()
            .as_str_name()
            .trim_start_matches("CONFIG_SOURCE_");
        let source = source.to_ascii_lowercase();
        let value = units::both(&config.name, &config.value);
        vec![config.name, value, source]
    });
    print_table(&["CONFIG", "VALUE", "SOURCE"], rows.collect())
}

fn changes(pairs: Vec<(String, String)>, operation: v1::ConfigOperation) -> Vec<v1::ConfigChange> {
    let change = |(name, value)| v1::ConfigChange {
        name,
        operation: operation.into(),
        value,
    };
    pairs.into_iter().map(change).collect()
}

async fn config(
    admin: &Admin,
    topic: &str,
    changes: Vec<v1::ConfigChange>,
    dry_run: bool,
    output: Output,
) -> Result<u8, Failure> {
    if !changes.is_empty() {
        let request = v1::UpdateTopicConfigsRequest {
            topic: topic.to_owned(),
            changes,
            validate_only: dry_run,
        };
        match admin.update_topic_configs(request).await {
            Ok(response) if !output.is_text() => {
                print_message(output, "UpdateTopicConfigsResponse", &response)?;
                return Ok(0);
            }
            Ok(_) if dry_run => {
                print_line(&format!("{topic}: the changes are valid (dry run)"))?;
                return Ok(0);
            }
            Ok(_) => {}
            Err(error) => return Err(suggest_topic(admin, topic, error).await),
        }
    }
    let request = v1::GetTopicConfigsRequest {
        topic: topic.to_owned(),
        ..Default::default()
    };
    let response = match admin.get_topic_configs(request).await {
        Ok(response) => response,
        Err(error) => return Err(suggest_topic(admin, topic, error).await),
    };
    if output.is_text() {
        config_table(response.configs)?;
    } else {
        print_message(output, "GetTopicConfigsResponse", &response)?;
    }
    Ok(0)
}

async fn delete(
    global: &Global,
    admin: &Admin,
    topics: Vec<String>,
    regex: bool,
    output: Output,
) -> Result<u8, Failure> {
    let patterns = topics.clone();
    let names = if regex {
        let patterns = topics.iter().map(|pattern| whole_name(pattern));
        let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
        let all = admin
            .all_topics("", false)
            .await?
            .into_iter()
            .map(|topic| topic.name);
        all.filter(|name| patterns.iter().any(|pattern| pattern.is_match(name)))
            .collect()
    } else {
        topics
    };
    if names.is_empty() {
        return Err(Failure::new(
            crate::failure::NOT_FOUND,
            format!(
                "no topic matches {}; nothing was deleted",
                patterns.join(", ")
            ),
        ));
    }
    let (noun, their) = match names.len() {
        1 => ("topic", "its"),
        _ => ("topics", "their"),
    };
    confirm(
        global,
        &format!(
            "this deletes {noun} {} with all {their} records",
            names.join(", ")
        ),
    )?;
    let mut done = Done::new(output, global.quiet);
    for topic in names {
        let request = v1::DeleteTopicRequest {
            topic: topic.clone(),
            ..Default::default()
        };
        if let Err(error) = admin.delete_topic(request).await {
            done.end()?;
            return Err(suggest_topic(admin, &topic, error).await);
        }
        done.add(topic, "deleted")?;
    }
    done.end()
}
