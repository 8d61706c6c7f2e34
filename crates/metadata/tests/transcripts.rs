//! Scenarios as commands and what comes of them, in `testdata/*.txt`. `UPDATE_TRANSCRIPTS=1` writes what is
//! printed.
//!
//! `register N dir=D inc=I [clean=E] [rack=R]`, `fence N [epoch=E]`, `unfence N`, `shutdown N`,
//! `unregister N`, `decommission N on|off`, `create T id=I partitions=P rf=R [at=1,2,3] [key=value]`,
//! `delete T`, `config T [key=value]`, `alter I-P leader=N isr=1,2 [le=] [pe=] [epoch:N=E] [be=E]`,
//! `elect I-P preferred|clean|clean=N|unclean=N`, `reassign I-P to=1,2|cancel`, `lost I-P N`,
//! `give-up I-P N`, `level N`, `show I-P`, `nodes`. Epochs that are left out are the present ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::support::{key, name};
use varve_metadata::{
    Command, CreateTopic, Election, Event, FeatureRange, PartitionKey, State, apply, snapshot,
};
use varve_types::{BrokerEpoch, DirectoryId, LeaderEpoch, NodeId, PartitionId, TopicId};

struct Line<'a> {
    words: Vec<&'a str>,
}

impl Line<'_> {
    fn named(&self, key: &str) -> Option<&str> {
        let mut words = self.words.iter();
        words.find_map(|w| w.strip_prefix(key).and_then(|w| w.strip_prefix('=')))
    }

    fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(&self, key: &str) -> Option<T> {
        self.named(key).map(|t| t.parse().unwrap())
    }

    fn node(&self, at: usize) -> NodeId {
        NodeId(self.words[at].parse().unwrap())
    }

    fn at(&self) -> PartitionKey {
        let (topic, partition) = self.words[1].split_once('-').unwrap();
        key(topic.parse().unwrap(), partition.parse().unwrap())
    }

    fn nodes(&self, key: &str) -> Option<Vec<NodeId>> {
        let nodes = self.named(key)?.split(',');
        Some(nodes.map(|n| NodeId(n.parse().unwrap())).collect())
    }

    fn configs(&self) -> BTreeMap<String, String> {
        let pairs = self.words.iter().filter_map(|w| w.split_once('='));
        let configs = pairs.filter(|(k, _)| k.contains('.') || *k == "durability");
        configs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }
}

fn nodes(nodes: &[NodeId]) -> String {
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    format!("[{}]", nodes.join(" "))
}

fn show(state: &State, at: PartitionKey) -> String {
    let p = state.partition_at(at).unwrap();
    let mut text = format!(
        "  {}-{} replicas {}",
        at.topic.0,
        at.partition,
        nodes(&p.replicas)
    );
    if p.is_reassigning() {
        write!(
            text,
            " adding {} removing {}",
            nodes(&p.adding),
            nodes(&p.removing)
        )
        .unwrap();
    }
    let leader = p.leader.map_or("none".to_owned(), |n| n.to_string());
    writeln!(
        text,
        " leader {leader} epoch {} isr {} elr {} partition epoch {}",
        p.leader_epoch,
        nodes(&p.isr),
        nodes(&p.elr),
        p.partition_epoch
    )
    .unwrap();
    text
}

fn command(state: &State, line: &Line<'_>) -> Command {
    let epoch = |node: NodeId| {
        let given = line.number("epoch").and_then(BrokerEpoch::new);
        given.unwrap_or_else(|| state.node(node).map_or(BrokerEpoch::ZERO, |n| n.epoch))
    };
    match line.words[0] {
        "register" => Command::RegisterNode {
            node: line.node(1),
            incarnation: line.number("inc").unwrap(),
            directory: DirectoryId(line.number("dir").unwrap()),
            address: format!("host-{}:1", line.words[1]),
            peer_address: format!("host-{}:2", line.words[1]),
            rack: line.named("rack").unwrap_or_default().to_owned(),
            features: FeatureRange::THIS_PROGRAM,
            version: "0.1.0".to_owned(),
            clean: line.number("clean").and_then(BrokerEpoch::new),
        },
        "fence" => Command::FenceNode {
            node: line.node(1),
            epoch: epoch(line.node(1)),
        },
        "unfence" => Command::UnfenceNode {
            node: line.node(1),
            epoch: epoch(line.node(1)),
        },
        "shutdown" => Command::BeginShutdown {
            node: line.node(1),
            epoch: epoch(line.node(1)),
        },
        "level" => Command::FinalizeFeature {
            level: line.words[1].parse().unwrap(),
        },
        "unregister" => Command::UnregisterNode { node: line.node(1) },
        "decommission" => Command::SetDecommissioning {
            node: line.node(1),
            on: line.words[2] == "on",
        },
        "create" => Command::CreateTopic(CreateTopic {
            name: name(line.words[1]),
            id: TopicId(line.number("id").unwrap()),
            partitions: line.number("partitions").unwrap(),
            replication_factor: line.number("rf").unwrap(),
            configs: line.configs(),
            labels: BTreeMap::new(),
            created_ms: 0,
            placement: line.nodes("at").map(|n| (0, n)).into_iter().collect(),
        }),
        "delete" => Command::DeleteTopic {
            name: name(line.words[1]),
            id: None,
        },
        "config" => Command::SetTopicConfigs {
            name: name(line.words[1]),
            configs: line.configs(),
        },
        _ => of_partition(state, line),
    }
}

fn of_partition(state: &State, line: &Line<'_>) -> Command {
    let at = line.at();
    let (topic_id, partition) = (at.topic, at.partition);
    let p = state.partition_at(at);
    let epoch = |node: NodeId| state.node(node).map_or(BrokerEpoch::ZERO, |n| n.epoch);
    match line.words[0] {
        "alter" => {
            let leader = line.number("leader").map(NodeId).unwrap();
            let isr = line.nodes("isr").unwrap();
            let seen = |n: NodeId| {
                let given = line
                    .number(&format!("epoch:{n}"))
                    .and_then(BrokerEpoch::new);
                (n, given.unwrap_or_else(|| epoch(n)))
            };
            Command::AlterPartition {
                topic_id,
                partition,
                leader,
                leader_epoch: line
                    .number("le")
                    .and_then(LeaderEpoch::new)
                    .unwrap_or_else(|| p.map_or(LeaderEpoch::ZERO, |p| p.leader_epoch)),
                partition_epoch: line
                    .number("pe")
                    .unwrap_or_else(|| p.map_or(0, |p| p.partition_epoch)),
                isr: isr.into_iter().map(seen).collect(),
                broker_epoch: line
                    .number("be")
                    .and_then(BrokerEpoch::new)
                    .unwrap_or_else(|| epoch(leader)),
            }
        }
        "elect" => Command::ElectLeader {
            topic_id,
            partition,
            how: match (line.number("clean"), line.number("unclean"), line.words[2]) {
                (Some(node), ..) => Election::Clean(Some(NodeId(node))),
                (_, Some(node), _) => Election::Unclean(NodeId(node)),
                (.., "clean") => Election::Clean(None),
                _ => Election::Preferred,
            },
        },
        "reassign" => Command::Reassign {
            topic_id,
            partition,
            target: line.nodes("to"),
        },
        "lost" => Command::ReplicaLost {
            node: line.node(2),
            epoch: epoch(line.node(2)),
            topic_id,
            partition,
        },
        "give-up" => Command::GiveUpReplica {
            node: line.node(2),
            epoch: epoch(line.node(2)),
            topic_id,
            partition,
        },
        other => panic!("unknown command {other}"),
    }
}

fn run(state: &mut State, line: &str) -> String {
    let line = Line {
        words: line.split_whitespace().collect(),
    };
    match line.words[0] {
        "show" => return show(state, line.at()),
        "nodes" => {
            let mut text = String::new();
            for (id, n) in state.nodes() {
                let emptied = if n.decommissioning {
                    " decommissioning"
                } else {
                    ""
                };
                writeln!(text, "  node {id} epoch {} {:?}{emptied}", n.epoch, n.state).unwrap();
            }
            return text;
        }
        _ => {}
    }
    let command = command(state, &line);
    let before = state.clone();
    let changed = match apply(state, command) {
        Err(rejection) => {
            assert_eq!(*state, before);
            return format!("  refused: {rejection}\n");
        }
        Ok(Event::NodeRegistered { epoch, changed, .. }) => {
            return std::iter::once(format!("  epoch {epoch}\n"))
                .chain(changed.into_iter().map(|at| show(state, at)))
                .collect();
        }
        Ok(Event::NodeChanged { changed, .. } | Event::TopicConfigsSet { changed, .. }) => changed,
        Ok(Event::PartitionChanged { at, .. }) => vec![at],
        Ok(Event::UncleanLeaderElected { at, .. }) => {
            return format!("  unclean\n{}", show(state, at));
        }
        Ok(Event::TopicCreated { name, id }) => (0..state.topic(&name).unwrap().partition_count())
            .map(|partition| PartitionKey {
                topic: id,
                partition: PartitionId(partition),
            })
            .collect(),
        Ok(_) => Vec::new(),
    };
    assert_eq!(
        snapshot::decode(&snapshot::encode(state)).as_ref(),
        Ok(&*state)
    );
    changed.into_iter().map(|at| show(state, at)).collect()
}

#[test]
fn transcripts() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let expected = std::fs::read_to_string(&file).unwrap();
        let mut state = State::default();
        let mut actual = String::new();
        for line in expected.lines().filter(|l| !l.starts_with("  ")) {
            writeln!(actual, "{line}").unwrap();
            if !line.is_empty() && !line.starts_with('#') {
                actual += &run(&mut state, line);
            }
        }
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            std::fs::write(&file, &actual).unwrap();
        } else {
            assert_eq!(actual, expected, "{}", file.display());
        }
    }
}
