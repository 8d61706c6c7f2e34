//! `varve group`: list, describe, move and delete consumer groups.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use varve_client::{Admin, RpcError, Start, proto as v1};

use crate::args::{Global, GroupCommand, OutputArgs};
use crate::confirm::confirm;
use crate::connection::Settings;
use crate::failure::{FAILED, Failure};
use crate::offset::{self, From};
use crate::output::{Done, Output, print_line, print_message, print_table, print_value, to_json};

/// Runs a command.
///
/// # Errors
/// [`Failure`] of the first group that fails.
pub async fn run(global: &Global, command: GroupCommand) -> Result<u8, Failure> {
    let settings = Settings::resolve(global)?;
    let admin = settings.admin()?;
    match command {
        GroupCommand::List { form } => list(&admin, form.output).await,
        GroupCommand::Describe {
            groups,
            summary,
            topics,
            watch,
            form,
        } => {
            let (admin, groups) = (&admin, &groups);
            let look = || async move {
                for group in groups {
                    describe(admin, group, summary, topics, form.output).await?;
                }
                Ok((!watch).then_some(0))
            };
            match watch {
                true => crate::watch::watch(look).await,
                false => look().await.map(Option::unwrap_or_default),
            }
        }
        GroupCommand::Seek {
            group,
            to,
            shift_by,
            to_group,
            to_file,
            topics,
            dry_run,
            execute,
            form,
        } => {
            if let Some(file) = to_file {
                return seek_to_file(global, &admin, &group, &file, dry_run, execute).await;
            }
            let target = target(to.as_deref(), shift_by, to_group)?;
            seek(
                global, &admin, &group, target, topics, dry_run, execute, form,
            )
            .await
        }
        GroupCommand::Delete { groups, form } => {
            let (noun, their) = match groups.len() {
                1 => ("group", "its"),
                _ => ("groups", "their"),
            };
            let names = groups.join(", ");
            confirm(
                global,
                &format!("this deletes {noun} {names} with all {their} committed offsets"),
            )?;
            let mut done = Done::new(form.output, global.quiet);
            for group in groups {
                admin
                    .delete_group(v1::DeleteGroupRequest {
                        group: group.clone(),
                    })
                    .await?;
                done.add(group, "deleted")?;
            }
            done.end()
        }
        GroupCommand::OffsetDelete { group, topic, form } => {
            offset_delete(&admin, group, &topic, Done::new(form.output, global.quiet)).await
        }
        GroupCommand::RemoveMember {
            group,
            members,
            all,
            form,
        } => {
            if members.is_empty() && !all {
                return Err(Failure::usage(
                    "no member is given: name members, or use --all; nothing was changed",
                ));
            }
            let request = v1::RemoveMembersRequest {
                group,
                member_ids: members,
            };
            let mut done = Done::new(form.output, global.quiet);
            for member in admin.remove_members(request).await?.member_ids {
                done.add(member, "removed")?;
            }
            done.end()
        }
    }
}

fn state_name(state: v1::GroupState) -> String {
    state
        .as_str_name()
        .trim_start_matches("GROUP_STATE_")
        .to_ascii_lowercase()
}

fn protocol_name(protocol: v1::GroupProtocol) -> String {
    match protocol {
        v1::GroupProtocol::Unspecified => "-".to_owned(),
        known => known
            .as_str_name()
            .trim_start_matches("GROUP_PROTOCOL_")
            .to_ascii_lowercase(),
    }
}

async fn list(admin: &Admin, output: Output) -> Result<u8, Failure> {
    let groups = admin.all_groups().await?;
    if !output.is_text() {
        let response = v1::ListGroupsResponse {
            groups,
            ..Default::default()
        };
        print_message(output, "ListGroupsResponse", &response)?;
        return Ok(0);
    }
    let rows = groups.into_iter().map(|group| {
        let (state, protocol) = (state_name(group.state()), protocol_name(group.protocol()));
        let (members, coordinator) = (group.member_count, group.coordinator_node_id);
        vec![
            group.group,
            state,
            members.to_string(),
            coordinator.to_string(),
            protocol,
        ]
    });
    print_table(
        &["GROUP", "STATE", "MEMBERS", "COORDINATOR", "PROTOCOL"],
        rows.collect(),
    )?;
    Ok(0)
}

async fn describe(
    admin: &Admin,
    name: &str,
    summary: bool,
    per_topic: bool,
    output: Output,
) -> Result<(), Failure> {
    let request = v1::GetGroupRequest {
        group: name.to_owned(),
    };
    let found = admin.get_group(request).await?;
    let request = v1::GetOffsetsRequest {
        group: name.to_owned(),
        include_lag: true,
        ..Default::default()
    };
    let offsets = admin.get_offsets(request).await?;
    if !output.is_text() {
        let mut value = to_json("GetGroupResponse", &found)?;
        value["offsets"] = to_json("GetOffsetsResponse", &offsets)?["offsets"].take();
        return print_value(output, &value);
    }
    let group = found.group.unwrap_or_default();
    let lag: i64 = offsets.offsets.iter().filter_map(|offset| offset.lag).sum();
    let rows = vec![vec![
        group.name.clone(),
        state_name(group.state()),
        group.members.len().to_string(),
        group.assignor.clone(),
        group.group_epoch.to_string(),
        lag.to_string(),
        protocol_name(group.protocol()),
    ]];
    let headings = [
        "GROUP", "STATE", "MEMBERS", "ASSIGNOR", "EPOCH", "LAG", "PROTOCOL",
    ];
    print_table(&headings, rows)?;
    if summary {
        return Ok(());
    }
    print_line("")?;
    if per_topic {
        return lag_per_topic(&offsets);
    }
    partitions(&group, offsets)?;
    if group.members.iter().any(|m| m.protocol != group.protocol) {
        print_line("")?;
        return members(&group);
    }
    Ok(())
}

/// The members of a group that speak different protocols, while it passes from one to the other.
fn members(group: &v1::Group) -> Result<(), Failure> {
    let rows = group.members.iter().map(|member| {
        vec![
            member.member_id.clone(),
            protocol_name(member.protocol()),
            member.member_epoch.to_string(),
            member.owned.len().to_string(),
            member.client_address.clone(),
        ]
    });
    print_table(
        &["MEMBER", "PROTOCOL", "EPOCH", "PARTITIONS", "HOST"],
        rows.collect(),
    )
}

fn lag_per_topic(offsets: &v1::GetOffsetsResponse) -> Result<(), Failure> {
    let mut topics: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for offset in &offsets.offsets {
        let Some(partition) = &offset.topic_partition else {
            continue;
        };
        let entry = topics.entry(partition.topic.as_str()).or_default();
        entry.0 += 1;
        entry.1 += offset.lag.unwrap_or(0);
    }
    let rows = topics.into_iter().map(|(topic, (partitions, lag))| {
        vec![topic.to_owned(), partitions.to_string(), lag.to_string()]
    });
    print_table(&["TOPIC", "PARTITIONS", "LAG"], rows.collect())
}

type Place = (String, i32);

/// Committed and owned partitions in order, each with its owner.
fn partitions(group: &v1::Group, offsets: v1::GetOffsetsResponse) -> Result<(), Failure> {
    let mut owners: BTreeMap<Place, (String, String)> = BTreeMap::new();
    for member in &group.members {
        for partition in &member.owned {
            let host = (member.member_id.clone(), member.client_address.clone());
            owners.insert((partition.topic.clone(), partition.partition), host);
        }
    }
    let mut committed: BTreeMap<Place, v1::CommittedOffset> = BTreeMap::new();
    for offset in offsets.offsets {
        let partition = offset.topic_partition.clone().unwrap_or_default();
        committed.insert((partition.topic, partition.partition), offset);
    }
    let places: BTreeSet<Place> = owners.keys().chain(committed.keys()).cloned().collect();
    let now = jiff::Timestamp::now();
    let dash = || "-".to_owned();
    let number = |number: Option<i64>| number.map_or_else(dash, |number| number.to_string());
    let rows = places.into_iter().map(|place| {
        let offset = committed.get(&place);
        let (member, host) = owners
            .get(&place)
            .cloned()
            .unwrap_or_else(|| (dash(), dash()));
        vec![
            place.0,
            place.1.to_string(),
            number(offset.map(|offset| offset.offset)),
            number(offset.and_then(|offset| offset.high_watermark)),
            number(offset.and_then(|offset| offset.lag)),
            offset
                .and_then(|offset| behind_for(offset, now))
                .map_or_else(dash, age),
            member,
            host,
        ]
    });
    let headings = [
        "TOPIC",
        "PARTITION",
        "COMMITTED",
        "END",
        "LAG",
        "BEHIND",
        "MEMBER",
        "HOST",
    ];
    print_table(&headings, rows.collect())
}

/// How long the first record that the group has not read has been there; zero when it has read all of them, nothing
/// when that is not known.
pub(crate) fn behind_for(
    committed: &v1::CommittedOffset,
    now: jiff::Timestamp,
) -> Option<Duration> {
    if committed.lag == Some(0) {
        return Some(Duration::ZERO);
    }
    let time = committed.next_record_time.as_ref()?;
    let since = jiff::Timestamp::new(time.seconds, time.nanos).ok()?;
    // A clock that is ahead of ours is no negative age.
    Some(Duration::try_from(now.duration_since(since)).unwrap_or_default())
}

/// An age as people say it: two units at most, no more precision than anybody needs.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0 => format!("{}ms", age.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn target(
    to: Option<&str>,
    shift_by: Option<i64>,
    to_group: Option<String>,
) -> Result<v1::reset_offsets_request::Target, Failure> {
    use v1::reset_offsets_request::Target;
    use v1::start_position::Position;
    if let Some(shift) = shift_by {
        return Ok(Target::ShiftBy(shift));
    }
    if let Some(group) = to_group {
        return Ok(Target::FromGroup(group));
    }
    let text = to.ok_or_else(|| {
        Failure::usage(
            "no target is given: use --to start|end|@TIME|OFFSET, --shift-by N, --to-group GROUP or --to-file FILE",
        )
    })?;
    let now = jiff::Timestamp::now().as_millisecond();
    let spec = offset::parse(text, now).map_err(Failure::usage)?;
    let anchor = |anchor: v1::StartAnchor| Position::Anchor(anchor.into());
    let position = match (spec.start, spec.end) {
        (Some(From::Stored), None) => anchor(v1::StartAnchor::Committed),
        (Some(From::Place(start)), None) => match start {
            Start::Earliest => anchor(v1::StartAnchor::Earliest),
            Start::Latest => anchor(v1::StartAnchor::Latest),
            Start::Offset(offset) => Position::Offset(offset),
            Start::Timestamp(ms) => Position::TimestampMs(ms),
            Start::Last(count) => Position::Last(count),
            Start::AfterEarliest(_) => {
                return Err(Failure::usage(
                    "--to takes no +N; use --shift-by N to move forward",
                ));
            }
        },
        _ => {
            return Err(Failure::usage(format!(
                "{text:?} is a range; --to takes a single position, such as start, end, 42 or @-1h"
            )));
        }
    };
    Ok(Target::Position(v1::StartPosition {
        position: Some(position),
    }))
}

fn offset_table(offsets: Vec<v1::CommittedOffset>) -> Result<(), Failure> {
    let rows = offsets.into_iter().map(|offset| {
        let partition = offset.topic_partition.unwrap_or_default();
        vec![
            partition.topic,
            partition.partition.to_string(),
            offset.offset.to_string(),
        ]
    });
    print_table(&["TOPIC", "PARTITION", "NEW OFFSET"], rows.collect())
}

#[allow(clippy::too_many_arguments, reason = "each is a flag of the command")]
async fn seek(
    global: &Global,
    admin: &Admin,
    group: &str,
    target: v1::reset_offsets_request::Target,
    topics: Vec<String>,
    dry_run: bool,
    execute: bool,
    form: OutputArgs,
) -> Result<u8, Failure> {
    let request = |validate_only| v1::ResetOffsetsRequest {
        group: group.to_owned(),
        topics: topics.clone(),
        target: Some(target.clone()),
        validate_only,
        ..Default::default()
    };
    let print = |response: v1::ResetOffsetsResponse| {
        if form.output.is_text() {
            offset_table(response.offsets)
        } else {
            print_message(form.output, "ResetOffsetsResponse", &response)
        }
    };
    if !execute && !global.yes || dry_run {
        let planned = admin.reset_offsets(request(true)).await?;
        print(planned)?;
        if dry_run {
            return Ok(0);
        }
        confirm(
            global,
            &format!("this sets the offsets above for group {group}"),
        )?;
        admin.reset_offsets(request(false)).await?;
        return Ok(0);
    }
    print(admin.reset_offsets(request(false)).await?)?;
    Ok(0)
}

/// Lines of `TOPIC PARTITION OFFSET`; empty lines and `#` comments are skipped.
fn parse_offsets(text: &str) -> Result<Vec<v1::PartitionCommit>, String> {
    let mut commits = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        let parsed = match fields[..] {
            [topic, partition, offset] => {
                let (partition, offset) = (partition.parse(), offset.parse::<i64>());
                partition
                    .ok()
                    .zip(offset.ok())
                    .map(|(p, o)| (topic.to_owned(), p, o))
            }
            _ => None,
        };
        let Some((topic, partition, offset)) = parsed.filter(|(.., offset)| *offset >= 0) else {
            return Err(format!(
                "line {}: expected TOPIC PARTITION OFFSET, such as orders 0 42",
                number + 1
            ));
        };
        let topic_partition = Some(v1::TopicPartition { topic, partition });
        commits.push(v1::PartitionCommit {
            topic_partition,
            offset,
            ..Default::default()
        });
    }
    Ok(commits)
}

async fn seek_to_file(
    global: &Global,
    admin: &Admin,
    group: &str,
    file: &Path,
    dry_run: bool,
    execute: bool,
) -> Result<u8, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|e| Failure::from(e).context(&name))?;
    let offsets = parse_offsets(&text).map_err(|error| Failure::usage(error).context(&name))?;
    let planned = offsets.iter().map(|commit| v1::CommittedOffset {
        topic_partition: commit.topic_partition.clone(),
        offset: commit.offset,
        ..Default::default()
    });
    offset_table(planned.collect())?;
    if dry_run {
        return Ok(0);
    }
    if !execute {
        confirm(
            global,
            &format!("this sets the offsets above for group {group}"),
        )?;
    }
    for offsets in offsets.chunks(varve_types::limits::REQUEST_MAX_PARTITIONS) {
        let request = v1::CommitOffsetsRequest {
            group: group.to_owned(),
            offsets: offsets.to_vec(),
            ..Default::default()
        };
        failures(admin.commit_offsets(request).await?.failures)?;
    }
    Ok(0)
}

fn failures(failures: Vec<v1::CommitFailure>) -> Result<(), Failure> {
    let Some(failure) = failures.into_iter().next() else {
        return Ok(());
    };
    let partition = failure.topic_partition.unwrap_or_default();
    let error = RpcError::from_partition(failure.error.unwrap_or_default());
    let what = format!("{}:{}: {error}", partition.topic, partition.partition);
    Err(Failure::new(FAILED, what))
}

async fn offset_delete(
    admin: &Admin,
    group: String,
    topics: &[String],
    mut done: Done,
) -> Result<u8, Failure> {
    let request = v1::GetOffsetsRequest {
        group: group.clone(),
        ..Default::default()
    };
    let committed = admin.get_offsets(request).await?.offsets;
    let mut partitions = Vec::new();
    for text in topics {
        let (topic, partition) = match text.rsplit_once(':') {
            None => (text.as_str(), None),
            Some((topic, partition)) => {
                let partition = partition.parse::<i32>().map_err(|_| {
                    Failure::usage(format!("{text:?}: expected TOPIC or TOPIC:PARTITION"))
                })?;
                (topic, Some(partition))
            }
        };
        let found = committed
            .iter()
            .filter_map(|offset| offset.topic_partition.clone());
        partitions.extend(found.filter(|found| {
            found.topic == topic && partition.is_none_or(|wanted| wanted == found.partition)
        }));
    }
    if partitions.is_empty() {
        return Err(Failure::new(
            crate::failure::NOT_FOUND,
            format!(
                "group {group} has no committed offset for {}; nothing was changed",
                topics.join(", ")
            ),
        ));
    }
    let named = partitions.clone();
    let request = v1::DeleteOffsetsRequest { group, partitions };
    failures(admin.delete_offsets(request).await?.failures)?;
    for at in named {
        done.add(format!("{}:{}", at.topic, at.partition), "offset deleted")?;
    }
    done.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let of = |seconds| age(Duration::from_secs(seconds));
        assert_eq!(age(Duration::from_millis(250)), "250ms");
        assert_eq!(
            [of(59), of(61), of(3_600), of(86_400 + 7_200)],
            ["59s", "1m01s", "1h00m", "1d02h"]
        );
        let now = jiff::Timestamp::from_second(100).unwrap();
        let at = |seconds| v1::CommittedOffset {
            lag: Some(1),
            next_record_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..Default::default()
        };
        assert_eq!(behind_for(&at(40), now), Some(Duration::from_secs(60)));
        assert_eq!(
            behind_for(&at(140), now),
            Some(Duration::ZERO),
            "clocks differ"
        );
        assert_eq!(behind_for(&v1::CommittedOffset::default(), now), None);
    }

    #[test]
    fn files_of_offsets() {
        let text = "# topic partition offset\norders 0 12\n\norders 1 0 # from the start\n";
        let offsets = parse_offsets(text).unwrap();
        assert_eq!(offsets.len(), 2);
        assert_eq!(offsets[0].offset, 12);
        for bad in ["orders 0", "orders x 1", "orders 0 -1", "a 0 1 2"] {
            assert!(
                parse_offsets(bad).unwrap_err().starts_with("line 1"),
                "{bad}"
            );
        }
    }

    #[test]
    fn targets() {
        use v1::reset_offsets_request::Target;
        assert_eq!(target(None, Some(-3), None).unwrap(), Target::ShiftBy(-3));
        let Target::Position(at) = target(Some("42"), None, None).unwrap() else {
            panic!()
        };
        assert_eq!(at.position, Some(v1::start_position::Position::Offset(42)));
        for bad in [None, Some("+4"), Some("1:2"), Some("x")] {
            assert!(target(bad, None, None).is_err());
        }
    }
}
