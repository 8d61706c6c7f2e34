//! Outputs as the transcripts show them.

use std::fmt::Write as _;

use varve_groups::{
    ClassicError, ClassicListing, Failure, Output, Reply,
    codec::{self, ClassicRecord, Key, MemberRecord},
};
use varve_types::{GroupName, MemberId, TopicPartition};

use crate::transcripts::{Record, WALL_START_MS};

fn join(items: &[TopicPartition]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn results(items: &[Result<(), Failure>]) -> String {
    items
        .iter()
        .map(|r| match r {
            Ok(()) => "ok".to_owned(),
            Err(e) => format!("{}({e})", e.kind.reason()),
        })
        .collect::<Vec<_>>()
        .join(", ")
}

pub fn is_of_offsets((key, _): &Record) -> bool {
    matches!(codec::decode_any_key(key), Ok(Key::Offset(..)))
}

pub fn print_append(text: &mut String, label: u64, group: &GroupName, records: &[Record]) {
    let _ = writeln!(text, "append {label} for {group}");
    for (key, value) in records {
        let name = match codec::decode_any_key(key).unwrap() {
            Key::Offset(_, partition) => partition.to_string(),
            Key::Group(_) => "group".to_owned(),
            Key::Classic(_) => "classic".to_owned(),
            Key::Member(_, member) => format!("member {member}"),
        };
        let value = match (value, codec::decode_any_key(key).unwrap()) {
            (None, _) => "removed".to_owned(),
            (Some(value), Key::Offset(..)) => hex(value),
            (Some(value), Key::Group(_)) => {
                format!("epoch={}", codec::decode_group(value).unwrap().epoch)
            }
            (Some(value), Key::Classic(_)) => print_classic(&codec::decode_classic(value).unwrap()),
            (Some(value), Key::Member(..)) => print_member(&codec::decode_member(value).unwrap()),
        };
        let _ = writeln!(text, "  {name} {value}");
    }
}

/// What a member says of itself: text, or a consumer's subscription as `@topics/owned/generation`.
fn text(bytes: &[u8]) -> String {
    if bytes.iter().all(u8::is_ascii_graphic) {
        return String::from_utf8(bytes.to_vec()).unwrap();
    }
    let said = codec::decode_subscription(bytes).unwrap();
    let topics: Vec<_> = said.topics.iter().map(ToString::to_string).collect();
    let (owned, generation) = (places(&said.owned), said.generation);
    format!("@{}/{owned}/{generation}", topics.join("+"))
}

/// What a member was assigned: text, or a consumer's assignment as `@partitions`.
fn assigned(bytes: &[u8]) -> String {
    if bytes.iter().all(u8::is_ascii_graphic) {
        return String::from_utf8(bytes.to_vec()).unwrap();
    }
    let assignment = codec::decode_assignment(bytes).unwrap();
    format!("@{}", places(&assignment.partitions))
}

fn places(all: &codec::ByTopic) -> String {
    let all: Vec<_> = codec::partition_set(all)
        .iter()
        .map(ToString::to_string)
        .collect();
    all.join("+")
}

fn print_classic(r: &ClassicRecord) -> String {
    let leader = r.leader.as_ref().map_or("-", MemberId::as_str);
    let mut line = format!(
        "{} generation={} protocol={} leader={leader}",
        r.protocol_type,
        r.generation,
        r.protocol.as_deref().unwrap_or("-")
    );
    for m in &r.members {
        let instance = m.instance.as_deref().unwrap_or("-");
        let (metadata, assignment) = (text(&m.metadata), assigned(&m.assignment));
        let _ = write!(
            line,
            "\n    {} instance={instance} {metadata:?} {assignment:?}",
            m.member
        );
    }
    line
}

fn print_classic_error(error: &ClassicError) -> String {
    match error {
        ClassicError::Failed(failure) => format!("{}: {failure}", failure.kind.reason()),
        ClassicError::MemberIdRequired(id) => format!("MemberIdRequired {id}"),
        other => format!("{other:?}"),
    }
}

fn print_member(m: &MemberRecord) -> String {
    let granted: Vec<_> = m
        .granted
        .iter()
        .flat_map(|(t, numbers)| numbers.iter().map(move |n| format!("{t}:{n}")))
        .collect();
    let instance = m.instance.as_deref().unwrap_or("-");
    format!(
        "epoch={} before={} granted=[{}] instance={instance}{}{}",
        m.epoch,
        m.previous_epoch,
        granted.join(","),
        if m.departed { " departed" } else { "" },
        m.classic.as_ref().map_or_else(String::new, |protocols| {
            let said: Vec<_> = protocols
                .iter()
                .map(|(name, said)| format!("{name}={}", text(said)))
                .collect();
            format!(" classic={}", said.join(","))
        })
    )
}

pub fn print(text: &mut String, output: &Output) {
    let line = match output {
        Output::LoadSkipped { error } => format!("skipped: {error}"),
        Output::Append { .. } | Output::TxnAppend { .. } => {
            unreachable!("batches are printed with their labels")
        }
        Output::Reply { ticket, reply } => format!("#{} {}", ticket.0, print_reply(reply)),
    };
    let _ = writeln!(text, "{line}");
}

fn print_listing(classic: Option<&ClassicListing>) -> String {
    classic.map_or_else(String::new, |c| {
        format!(" classic={} type={}", c.state.name(), c.protocol_type)
    })
}

fn print_reply(reply: &Reply) -> String {
    match reply {
        Reply::Heartbeat(r) => format!(
            "epoch={} assignment={} interval={} session={}",
            r.member_epoch,
            r.assignment
                .as_ref()
                .map_or_else(|| "same".to_owned(), |a| format!("[{}]", join(a))),
            r.heartbeat_interval_ms,
            r.session_timeout_ms
        ),
        Reply::Committed(r) => format!("committed: {}", results(r)),
        Reply::OffsetsDeleted(r) => format!("deleted: {}", results(r)),
        Reply::Offsets(offsets) | Reply::OffsetsSet(offsets) => {
            let mut line = format!("{} offsets", offsets.len());
            for o in offsets {
                let epoch = o
                    .leader_epoch
                    .map_or_else(|| "-".to_owned(), |e| e.to_string());
                let age = o.commit_time_ms - WALL_START_MS;
                let _ = write!(
                    line,
                    "\n  {} {} epoch={epoch} metadata={:?} at={age}",
                    o.partition, o.offset, o.metadata
                );
            }
            line
        }
        Reply::OffsetsUnstable { offsets, unstable } => format!(
            "unstable [{}], {}",
            join(unstable),
            print_reply(&Reply::Offsets(offsets.clone()))
        ),
        Reply::Groups(groups) => {
            let mut line = format!("{} groups", groups.len());
            for g in groups {
                let _ = write!(line, "\n  {} {:?} members={}", g.group, g.state, g.members);
                line.push_str(&print_listing(g.classic.as_ref()));
            }
            line
        }
        Reply::Survey(survey) => {
            let groups = survey.groups.iter();
            let shown = groups.map(|(group, offsets)| format!("{}:{}", group.group, offsets.len()));
            let shown: Vec<String> = shown.collect();
            format!("survey {:?} [{}]", survey.states, shown.join(" "))
        }
        Reply::Group(g) => {
            let mut line = format!(
                "{} {:?} epoch={} assignor={}",
                g.group, g.state, g.group_epoch, g.assignor
            );
            line.push_str(&print_listing(g.classic.as_ref()));
            for m in &g.members {
                let _ = write!(
                    line,
                    "\n  {} epoch={} owned=[{}] target=[{}] silent={}",
                    m.member,
                    m.member_epoch,
                    join(&m.owned),
                    join(&m.target),
                    m.since_heartbeat_ms
                );
                if let Some((said, told)) = m.classic.as_ref().filter(|_| g.classic.is_none()) {
                    let _ = write!(line, " classic={}>{}", text(said), assigned(told));
                }
            }
            line
        }
        Reply::GroupDeleted => "group deleted".to_owned(),
        Reply::MembersRemoved(ids) => {
            let ids: Vec<_> = ids.iter().map(MemberId::as_str).collect();
            format!("removed [{}]", ids.join(","))
        }
        Reply::ClassicJoined(j) => {
            let members: Vec<_> = j
                .members
                .iter()
                .map(|m| format!("{}={}", m.member, text(&m.metadata)))
                .collect();
            format!(
                "{} joined generation={} {}/{} leader={} members=[{}]{}",
                j.member,
                j.generation,
                j.protocol_type,
                j.protocol,
                j.leader.as_ref().map_or("-", MemberId::as_str),
                members.join(","),
                if j.skip_assignment { " skip" } else { "" }
            )
        }
        Reply::ClassicSynced(s) => format!(
            "synced {}/{} {:?}",
            s.protocol_type,
            s.protocol,
            assigned(&s.assignment)
        ),
        Reply::ClassicAlive => "alive".to_owned(),
        Reply::ClassicLeft(r) => {
            let all: Vec<_> = r
                .iter()
                .map(|r| {
                    r.as_ref()
                        .map_or_else(print_classic_error, |()| "ok".to_owned())
                })
                .collect();
            format!("left: {}", all.join(", "))
        }
        Reply::ClassicFailed(e) => print_classic_error(e),
        Reply::Failed(e) => format!("{}: {e}", e.kind.reason()),
    }
}
