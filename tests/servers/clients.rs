//! What clients do in a seed: wait for the cluster, make the topic, run the workload until things stop breaking, see
//! the cluster become whole again, read everything. With the client library, over the network like any other.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use varve_check::{Event, Header};
use varve_client::{Admin, proto as v1};
use varve_workload::{Config, Recorder, Workload, create_topic, finish};

use crate::links::CLIENTS;
use crate::machine::Wires;
use crate::plan::{Plan, name};

const TOPIC: &str = "seed";
/// A cluster must be whole this long after the last repair, and after its first start.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
/// Everything must be read within.
const READ_WITHIN: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(250);
/// A look must not wait for a node that is gone.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How far the clients are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing may break yet.
    #[default]
    Starting,
    /// The workload runs.
    Running,
    /// Nothing may break any more.
    Ending,
    /// All is read.
    Over,
}

/// What clients and the rest of the simulation tell each other.
#[derive(Debug, Default)]
pub struct Told {
    /// How far the clients are.
    pub stage: Stage,
    /// Nothing is broken any more.
    pub healed: bool,
    /// The history.
    pub recorder: Option<Arc<Recorder>>,
    /// When it began.
    pub began: Duration,
    /// Who leads some partition.
    pub leader: Option<usize>,
    /// Times that a leader was seen that was another before.
    pub moves: u64,
    /// Looks at which some partition had fewer replicas in sync than it has replicas.
    pub shrunk: u64,
    /// What is wrong.
    pub wrong: Vec<String>,
}

/// Shared by all; nobody holds it over an await.
pub type Board = Arc<Mutex<Told>>;

/// Locks the board.
pub fn board(board: &Board) -> MutexGuard<'_, Told> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(told: &Board, what: String) {
    let recorder = board(told).recorder.clone();
    if let Some(recorder) = recorder {
        recorder.note(what);
    }
}

/// Everything that clients do. What goes wrong is on the board.
pub async fn run(plan: Plan, told: Board, history: Option<Box<dyn Write + Send>>) {
    if let Err(why) = all(&plan, &told, history).await {
        board(&told).wrong.push(why);
    }
    board(&told).stage = Stage::Over;
}

async fn all(
    plan: &Plan,
    told: &Board,
    history: Option<Box<dyn Write + Send>>,
) -> Result<(), String> {
    let brokers = (0..plan.nodes).map(|node| format!("{}:8278", name(node)));
    let topic = TOPIC.parse().map_err(|_| "the name of the topic")?;
    let config = Config {
        network: Arc::new(Wires(CLIENTS.to_owned())),
        rate: plan.rate,
        life: (plan.faulty / 3).clamp(Duration::from_secs(2), Duration::from_secs(30)),
        delivery_timeout: Duration::from_secs(15),
        ..Config::new(brokers.collect(), topic, plan.partitions, plan.seed)
    };
    let config = config
        .with_kind(plan.kind)
        .map_err(|error| error.to_string())?;
    whole(plan, &config)
        .await
        .map_err(|why| format!("not whole {WHOLE_WITHIN:?} after the first start: {why}"))?;
    let durability = if plan.fsync { "fsync" } else { "replicated" };
    let configs: BTreeMap<String, String> = [
        ("min.insync.replicas", plan.min_isr.to_string()),
        ("segment.bytes", plan.segment_bytes.to_string()),
        ("durability", durability.to_owned()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    create_topic(&config, plan.replicas, &configs)
        .await
        .map_err(|error| format!("the topic could not be created: {error}"))?;
    let header = Header::new(TOPIC, config.places(), plan.seed);
    let recorder = Recorder::new(&header, history).map_err(|error| error.to_string())?;
    let recorder = Arc::new(recorder);
    {
        let mut told = board(told);
        told.recorder = Some(recorder.clone());
        told.began = turmoil::sim_elapsed().unwrap_or_default();
        told.stage = Stage::Running;
    }
    let workload = Workload::start(config.clone(), recorder.clone());
    let workload = workload.map_err(|error| error.to_string())?;
    let watch = tokio::spawn(watch(config.clone(), told.clone()));
    while !board(told).healed {
        sleep(LOOK).await;
    }
    let began = Instant::now();
    match whole(plan, &config).await {
        Ok(()) => note(
            told,
            format!("whole again after {:.1} s", began.elapsed().as_secs_f64()),
        ),
        Err(why) => {
            let why = format!("not whole {WHOLE_WITHIN:?} after the last repair: {why}");
            board(told).wrong.push(why);
        }
    }
    watch.abort();
    let behind = workload.stop().await;
    board(told).wrong.extend(behind);
    board(told).stage = Stage::Ending;
    finish(&config, &recorder, READ_WITHIN)
        .await
        .map_err(|error| format!("the end could not be read: {error}"))
}

/// Waits until every node is there, every partition led, and every replica in sync.
async fn whole(plan: &Plan, config: &Config) -> Result<(), String> {
    let began = Instant::now();
    let mut last = "nobody answered".to_owned();
    for turn in 0_u32.. {
        if began.elapsed() >= WHOLE_WITHIN {
            break;
        }
        let client = config.client(turn).map_err(|error| error.to_string())?;
        let admin = Admin::new(client);
        let asked = timeout(
            ANSWER_WITHIN,
            admin.get_cluster_health(v1::GetClusterHealthRequest {}),
        );
        match asked.await {
            Ok(Ok(health)) if health.healthy && nodes(&admin).await == plan.nodes => return Ok(()),
            Ok(Ok(health)) => last = format!("{health:?}"),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => {
                last = format!(
                    "no answer from {} in time",
                    name(turn as usize % plan.nodes)
                )
            }
        }
        sleep(LOOK).await;
    }
    Err(last)
}

/// Nodes that are active.
async fn nodes(admin: &Admin) -> usize {
    let asked = admin.get_metadata(v1::GetMetadataRequest::default());
    let Ok(Ok(metadata)) = timeout(ANSWER_WITHIN, asked).await else {
        return 0;
    };
    let active = |node: &&v1::Node| node.state() == v1::NodeState::Active;
    metadata.nodes.iter().filter(active).count()
}

/// Looks who leads, for the faults that look for leaders and for the counts.
async fn watch(config: Config, told: Board) {
    let mut led: BTreeMap<i32, i32> = BTreeMap::new();
    for turn in 0_u32.. {
        sleep(2 * LOOK).await;
        let Ok(client) = config.client(turn) else {
            return;
        };
        let admin = Admin::new(client);
        let Ok(Ok(partitions)) = timeout(ANSWER_WITHIN, admin.all_partitions(TOPIC)).await else {
            continue;
        };
        let mut told = board(&told);
        for partition in &partitions {
            let Some(leader) = partition.leader_node_id else {
                continue;
            };
            let before = led.insert(partition.partition, leader);
            told.moves += u64::from(before.is_some_and(|before| before != leader));
        }
        let fewer = |p: &v1::Partition| p.in_sync_node_ids.len() < p.replica_node_ids.len();
        told.shrunk += u64::from(partitions.iter().any(fewer));
        let leader = partitions.first().and_then(|p| p.leader_node_id);
        told.leader = leader.and_then(|id| usize::try_from(id - 1).ok());
    }
}

/// Writes down what the rest of the simulation did, at that moment of simulated time.
pub fn note_at(told: &Board, at: Duration, what: String) {
    tracing::info!(at = at.as_secs_f64(), "{what}");
    let (recorder, began) = {
        let told = board(told);
        (told.recorder.clone(), told.began)
    };
    if let Some(recorder) = recorder {
        let ns = at.saturating_sub(began).as_nanos();
        let ns = u64::try_from(ns).unwrap_or(u64::MAX);
        recorder.event(Event::Note { ns, what });
    }
}
