//! The metadata core alone at the size of a large cluster: how fast commands are applied, how much memory the
//! state takes, how long the decision about a dead node takes.
//!
//! `cargo bench -p varve-benches --bench metadata [-- PARTITIONS NODES]`, by default 1,000,000 partitions
//! over 1,000 nodes in 10 racks, in topics of 100 partitions with three replicas.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use varve_metadata::{
    Command, Controller, ControllerConfig, CreateTopic, FeatureRange, Heartbeat, Input, State,
    apply, command_codec, snapshot,
};
use varve_types::{BrokerEpoch, DirectoryId, NodeId, PartitionId, TopicId, TopicName};

const PER_TOPIC: i32 = 100;

fn memory_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/statm")?;
    let pages = status
        .split_whitespace()
        .nth(1)
        .context("statm has a second word")?;
    Ok(pages.parse::<u64>()? * 4096)
}

fn row(what: &str, took: Duration, each: u64) {
    let rate = each as f64 / took.as_secs_f64();
    println!(
        "| {what} | {:.3} ms | {each} | {rate:.0} |",
        took.as_secs_f64() * 1e3
    );
}

fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}

fn epoch(state: &State, node: NodeId) -> BrokerEpoch {
    state.node(node).map_or(BrokerEpoch::ZERO, |n| n.epoch)
}

fn nodes(state: &mut State, count: i32) -> Result<()> {
    for id in 0..count {
        let node = NodeId(id);
        let register = Command::RegisterNode {
            node,
            incarnation: 1,
            directory: DirectoryId(1 + u128::from(id.unsigned_abs())),
            address: format!("node-{id}.example:8278"),
            peer_address: format!("node-{id}.example:8279"),
            rack: format!("rack-{}", id % 10),
            features: FeatureRange::THIS_PROGRAM,
            version: "0.1.0".to_owned(),
            clean: None,
        };
        apply(state, register)?;
        let epoch = epoch(state, node);
        apply(state, Command::UnfenceNode { node, epoch })?;
    }
    Ok(())
}

fn create(number: i32) -> Result<Command> {
    let min = ("min.insync.replicas".to_owned(), "2".to_owned());
    Ok(Command::CreateTopic(CreateTopic {
        name: TopicName::new(&format!("topic-{number}"))?,
        // Ids are random in life: spread over the whole range.
        id: TopicId(
            u128::from(number.unsigned_abs() + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        ),
        partitions: PER_TOPIC,
        replication_factor: 3,
        configs: BTreeMap::from([min]),
        labels: BTreeMap::new(),
        created_ms: 1_700_000_000_000,
        placement: BTreeMap::new(),
    }))
}

/// Every partition loses its last follower once, and gets it back.
fn alter(state: &mut State, topics: i32) -> Result<u64> {
    let mut done = 0;
    for number in 0..topics {
        let name = TopicName::new(&format!("topic-{number}"))?;
        for partition in 0..PER_TOPIC {
            for full in [false, true] {
                let topic = state.topic(&name).context("the topic is there")?;
                let p = topic
                    .partition(PartitionId(partition))
                    .context("so is the partition")?;
                let leader = p.leader.context("it is led")?;
                let keep = |n: &&NodeId| full || **n == leader || p.replicas.last() != Some(n);
                let isr = p.replicas.iter().filter(keep);
                let command = Command::AlterPartition {
                    topic_id: topic.id,
                    partition: PartitionId(partition),
                    leader,
                    leader_epoch: p.leader_epoch,
                    partition_epoch: p.partition_epoch,
                    isr: isr.map(|n| (*n, epoch(state, *n))).collect(),
                    broker_epoch: epoch(state, leader),
                };
                apply(state, command)?;
                done += 1;
            }
        }
    }
    Ok(done)
}

fn beat(state: &State, node: NodeId) -> Input {
    Input::Heartbeat(Heartbeat {
        node,
        epoch: epoch(state, node),
        metadata_version_applied: state.version(),
        wants_shutdown: false,
    })
}

/// A node falls silent: one round of heartbeats of all others, the plan, and its commands applied.
fn failover(state: &mut State, dead: NodeId) -> Result<()> {
    let config = ControllerConfig::default();
    let mut controller = Controller::new(config);
    let mut out = Vec::new();
    controller.step(0, state, Input::BecameController { before: None }, &mut out);
    let now = config.session_timeout_ms;
    let alive: Vec<NodeId> = state
        .nodes()
        .keys()
        .copied()
        .filter(|n| *n != dead)
        .collect();
    let ((), took) = timed(|| {
        for node in &alive {
            controller.step(now - 1, state, beat(state, *node), &mut out);
        }
    });
    row("heartbeats of all other nodes", took, alive.len() as u64);
    let led = state.led_by(dead) as u64;
    let (plan, took) = timed(|| controller.plan(state, now));
    row("plan that fences the dead node", took, 1);
    let fence = plan.first().context("the dead node is fenced")?.clone();
    if fence
        != (Command::FenceNode {
            node: dead,
            epoch: epoch(state, dead),
        })
    {
        bail!("the first command is {fence:?}");
    }
    let held = state.held_by(dead) as u64;
    let (event, took) = timed(|| apply(state, fence));
    event?;
    row(
        "fence applied: partitions of the node looked at",
        took,
        held,
    );
    println!("|  of these led by it, and led by another now | | {led} | |");
    if state.led_by(dead) != 0 || !state.leaderless().is_empty() {
        bail!("some partitions have no leader");
    }
    let (plan, took) = timed(|| controller.plan(state, now + 2_000));
    row("plan with balance, nothing urgent", took, plan.len() as u64);
    let epoch = epoch(state, dead);
    let (event, took) = timed(|| apply(state, Command::UnfenceNode { node: dead, epoch }));
    event?;
    row("unfence applied", took, held);
    Ok(())
}

fn main() -> Result<()> {
    varve_benches::tell_profile();
    // `cargo bench` adds `--bench`.
    let numbers: Vec<i32> = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse().ok())
        .collect();
    let partitions = numbers.first().copied().unwrap_or(1_000_000);
    let count = numbers.get(1).copied().unwrap_or(1_000);
    let topics = partitions / PER_TOPIC;
    println!("| step | time | number | per second |\n| --- | --- | --- | --- |");
    let before = memory_bytes()?;
    let mut state = State::default();
    let (result, took) = timed(|| nodes(&mut state, count));
    result?;
    row(
        "register and unfence nodes",
        took,
        u64::from(count.unsigned_abs()) * 2,
    );
    let commands = (0..topics).map(create).collect::<Result<Vec<_>>>()?;
    let encoded: Vec<Vec<u8>> = commands.iter().map(command_codec::encode).collect();
    drop(commands);
    let start = Instant::now();
    for bytes in &encoded {
        apply(&mut state, command_codec::decode(bytes)?)?;
    }
    row(
        "create: partitions",
        start.elapsed(),
        state.partition_count() as u64,
    );
    drop(encoded);
    let bytes = memory_bytes()? - before;
    let each = bytes / state.partition_count().max(1) as u64;
    println!(
        "| memory of the state, MiB (bytes a partition) | | {} | ({each}) |",
        bytes >> 20
    );
    let (done, took) = timed(|| alter(&mut state, topics));
    row("AlterPartition applied", took, done?);
    failover(&mut state, NodeId(count / 2))?;
    let (id, took) = timed(|| {
        (0..100_000)
            .filter(|_| state.topic_by_id(TopicId(7)).is_none())
            .count()
    });
    row("topic by id", took, id as u64);
    let (bytes, took) = timed(|| snapshot::encode(&state));
    row("snapshot written: bytes", took, bytes.len() as u64);
    let (back, took) = timed(|| snapshot::decode(&bytes));
    row("snapshot read and checked: bytes", took, bytes.len() as u64);
    if back? != state {
        bail!("the snapshot holds another state");
    }
    Ok(())
}
