//! How long the coordinators of groups take to read their offsets again after a failover: three nodes, of which the one
//! that coordinates most ends by `kill -9`. Counted from the moment in which the metadata have a new leader for every
//! partition of `__consumer_offsets` that it led, to the one in which a group of each was told its offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use varve_client::proto::GetMetadataResponse;
use varve_client::{Client, ClientConfig};
use varve_types::partitioner::coordinator_partition;

use crate::cluster::Cluster;
use crate::groups::{self, TOPIC};
use crate::report::{Asked, Output, Row, print};

/// Topic of the committed offsets.
const OFFSETS: &str = "__consumer_offsets";

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Groups.
    #[arg(long, default_value_t = 10_000)]
    groups: usize,
    /// Offsets of each group. A third of all is taken over where the partitions are spread evenly.
    #[arg(long, default_value_t = 300)]
    offsets: usize,
    /// Silence after which a node counts as dead, in milliseconds; as `node.session.timeout.ms`.
    #[arg(long, default_value_t = 3_000)]
    session_timeout_ms: u64,
    /// Kills; figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Measures and prints.
pub async fn run(dir: &Path, args: &Args, output: Output) -> Result<()> {
    let session = args.session_timeout_ms;
    let beat = (session * 2 / 9).max(50);
    let env = [
        ("VARVE_NODE__SESSION__TIMEOUT__MS", session.to_string()),
        ("VARVE_NODE__HEARTBEAT__INTERVAL__MS", beat.to_string()),
    ];
    let mut cluster = Cluster::start(dir, 3, &env).await?;
    cluster.topic(TOPIC, i32::try_from(args.offsets)?).await?;
    let client = Client::new(ClientConfig {
        brokers: cluster.all_brokers(),
        request_timeout: Duration::from_secs(60),
        ..ClientConfig::default()
    })?;
    let began = Instant::now();
    groups::commit_everything(&client, args.groups, args.offsets).await?;
    drop(client);
    eprintln!(
        "{} offsets committed in {:.1} s",
        args.groups * args.offsets,
        began.elapsed().as_secs_f64()
    );
    let what = format!("{} groups with {} offsets each", args.groups, args.offsets);
    let mut taken = Row::new(format!("{what}: offsets taken over"), "", Asked::Nothing);
    let mut elected = Row::new(
        format!("{what}: kill to the last election"),
        "s",
        Asked::Nothing,
    );
    let mut read = Row::new(
        format!("{what}: from there until all of them are told"),
        "s",
        Asked::AtMost(5.0),
    );
    for round in 0..args.rounds {
        let found = one_kill(&mut cluster, args).await?;
        eprintln!("round {} of {}: {found:?}", round + 1, args.rounds);
        taken.push((found.groups * args.offsets) as f64);
        elected.push(found.elected.as_secs_f64());
        read.push(found.read.as_secs_f64());
    }
    print(&[taken, elected, read], output);
    Ok(())
}

/// What a kill did.
#[derive(Debug)]
struct Found {
    /// Groups that have another coordinator.
    groups: usize,
    elected: Duration,
    read: Duration,
}

/// The partitions of the offsets topic by their leaders, if all have one and every replica is in sync.
fn led(metadata: &GetMetadataResponse) -> Option<BTreeMap<i32, BTreeSet<i32>>> {
    let mut led: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
    for partition in &metadata.topics.first()?.partitions {
        if partition.in_sync_node_ids.len() < 3 {
            return None;
        }
        let leader = partition.leader_node_id?;
        led.entry(leader).or_default().insert(partition.partition);
    }
    Some(led)
}

async fn one_kill(cluster: &mut Cluster, args: &Args) -> Result<Found> {
    let led = cluster.until(
        "every replica of the offsets to be in sync",
        &[OFFSETS],
        led,
    );
    let led = led.await?;
    let most = led.iter().max_by_key(|(_, partitions)| partitions.len());
    let (victim, moving) = most.context("nobody leads anything")?;
    let count = led.values().map(BTreeSet::len).sum::<usize>();
    let number_of = |group: &usize| {
        coordinator_partition(&groups::group(*group), i32::try_from(count).unwrap_or(1)).0
    };
    let moved: Vec<usize> = (0..args.groups)
        .filter(|group| moving.contains(&number_of(group)))
        .collect();
    // One of each partition: a coordinator answers when it has read all of its partition.
    let by_partition: BTreeMap<i32, usize> = moved.iter().map(|g| (number_of(g), *g)).collect();
    let some: Vec<usize> = by_partition.into_values().collect();
    ensure!(
        !some.is_empty(),
        "node {victim} coordinates none of the groups"
    );

    drop(cluster.take(*victim)?);
    let killed = Instant::now();
    let others = |metadata: &GetMetadataResponse| {
        let all = &metadata.topics.first()?.partitions;
        let moved = |p: i32| {
            let found = all.iter().find(|found| found.partition == p);
            found
                .and_then(|p| p.leader_node_id)
                .is_some_and(|l| l != *victim)
        };
        moving.iter().all(|p| moved(*p)).then(Instant::now)
    };
    let elected = cluster.until("other leaders", &[OFFSETS], others).await?;
    let alive = cluster
        .nodes()
        .values()
        .map(|s| s.address.clone())
        .collect();
    groups::all_told(alive, &some, args.offsets).await?;
    let read = elected.elapsed();
    cluster.restart(*victim)?;
    Ok(Found {
        groups: moved.len(),
        elected: elected - killed,
        read,
    })
}
