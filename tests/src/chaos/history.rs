//! One history: start, break and repair, heal, read everything, judge.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use varve_check::{Event, Header, Outcome, Required, Verdict};
use varve_client::{Admin, proto as v1};
use varve_workload::{Config, Kind, Recorder, Workload, create_topic, finish};

use super::kafka::KafkaClients;
use super::nemesis::Scene;
use super::{Cluster, Fault, Ground, Random, Work, say};

const TOPIC: &str = "chaos";
const PARTITIONS: i32 = 4;
/// A cluster must be whole again this long after the last repair.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes.
    pub nodes: usize,
    /// What everything is drawn from.
    pub seed: u64,
    /// How long things break.
    pub duration: Duration,
    /// What may break.
    pub faults: Vec<Fault>,
    /// Each of these once, one after the other, instead of any by chance.
    pub in_turn: bool,
    /// What clients do.
    pub work: Work,
    /// Sends in a second.
    pub rate: u32,
    /// Nodes stand on loopback addresses even where namespaces can be had.
    pub loopback: bool,
    /// Where history and logs are kept; `None`: nowhere, unless something is wrong.
    pub keep: Option<PathBuf>,
}

/// What came out.
#[derive(Debug)]
pub struct Report {
    /// Of the checker.
    pub verdict: Verdict,
    /// What the harness itself found wrong.
    pub wrong: Vec<String>,
    /// How often each fault happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// What happened when, in nanoseconds since the beginning.
    pub notes: Vec<(u64, String)>,
    /// Where history and logs are.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// 0 valid, 4 something forbidden happened, 1 too little was seen.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.verdict.outcome {
            _ if !self.wrong.is_empty() => 4,
            Outcome::Valid => 0,
            Outcome::Invalid => 4,
            Outcome::Unknown => 1,
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (ns, what) in &self.notes {
            text += &format!("{:>8.1} s  {what}\n", *ns as f64 / 1e9);
        }
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        text += &format!("faults: {}\n", faults.join(", "));
        text += &self.verdict.text();
        for wrong in &self.wrong {
            text += &format!("WRONG: {wrong}\n");
        }
        if let Some(kept) = &self.kept {
            text += &format!("history and logs are in {}\n", kept.display());
        }
        text
    }
}

/// What a history must hold to show anything: a cluster that is struck for minutes has lost leaders and gone on.
fn required(options: &Options) -> Required {
    if options.nodes < 3 || options.duration < Duration::from_secs(120) {
        return Required::default();
    }
    Required {
        sends_ok: 1_000,
        ok_percent: 25,
        leader_changes: 1,
        notes: 3,
    }
}

struct Run<'a> {
    options: &'a Options,
    cluster: Cluster,
    random: Random,
    config: Config,
    recorder: Arc<Recorder>,
    runtime: Runtime,
    /// Where history and logs are.
    dir: PathBuf,
    /// Faults so far, where they come in turn.
    turn: usize,
    faults: BTreeMap<&'static str, u64>,
    wrong: Vec<String>,
}

/// Runs a history.
///
/// # Errors
/// When it could not be set up: nothing was tested.
pub fn run(options: &Options) -> Result<Report, String> {
    let text = |error: std::io::Error| error.to_string();
    let runtime = Runtime::new().map_err(text)?;
    let ground = if options.loopback {
        Ground::on_loopback(options.nodes)
    } else {
        Ground::new(options.nodes)
    };
    let mut cluster = Cluster::new(ground, options.nodes);
    cluster.start_all(HEALTHY_WITHIN)?;
    let topic = TOPIC.parse().map_err(|_| "the name of the topic")?;
    let config = Config {
        rate: options.rate,
        life: (options.duration / 3).clamp(Duration::from_secs(2), Duration::from_secs(30)),
        delivery_timeout: Duration::from_secs(15),
        ..Config::new(cluster.brokers(), topic, PARTITIONS, options.seed)
    };
    let kind = match options.work {
        Work::Own(kind) => kind,
        // What is done to the topic at the end is the same.
        Work::Kafka => Kind::Queue,
    };
    let config = config.with_kind(kind).map_err(|error| error.to_string())?;
    let replicas = i32::try_from(options.nodes.min(3)).unwrap_or(1);
    let least = if options.nodes >= 3 { "2" } else { "1" };
    let configs = [("min.insync.replicas", least), ("segment.bytes", "262144")];
    let configs = configs
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into_iter()
        .collect();
    // A node is ready a moment before the others have heard of it, and they place the replicas.
    runtime.block_on(all_active(&config, options.nodes))?;
    runtime
        .block_on(create_topic(&config, replicas, &configs))
        .map_err(|error| format!("the topic could not be created: {error}"))?;
    let dir = match &options.keep {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!(
            "varve-history-{}-{}",
            std::process::id(),
            options.seed
        )),
    };
    std::fs::create_dir_all(&dir).map_err(text)?;
    let file = std::fs::File::create(dir.join("history.jsonl")).map_err(text)?;
    let file: Box<dyn Write + Send> = Box::new(BufWriter::new(file));
    let header = Header::new(TOPIC, config.places(), options.seed);
    let recorder = Arc::new(Recorder::new(&header, Some(file)).map_err(text)?);
    let mut run = Run {
        options,
        cluster,
        random: Random::new(options.seed),
        config,
        recorder,
        runtime,
        dir: dir.clone(),
        turn: 0,
        faults: BTreeMap::new(),
        wrong: Vec::new(),
    };
    run.history()?;
    let mut report = run.report().map_err(text)?;
    run.cluster.end();
    run.cluster.keep_logs(&dir);
    if options.keep.is_none() && report.exit_code() == 0 {
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        report.kept = Some(dir);
    }
    Ok(report)
}

/// Waits until every node is active in the cluster's metadata.
async fn all_active(config: &Config, nodes: usize) -> Result<(), String> {
    let client = config.client(0).map_err(|error| error.to_string())?;
    let admin = Admin::new(client);
    let began = Instant::now();
    loop {
        let asked = admin.get_metadata(v1::GetMetadataRequest::default()).await;
        let active = asked.map_err(|error| error.to_string()).map(|metadata| {
            let active = |node: &&v1::Node| node.state == v1::NodeState::Active as i32;
            metadata.nodes.iter().filter(active).count()
        });
        if active == Ok(nodes) {
            return Ok(());
        }
        if began.elapsed() > HEALTHY_WITHIN {
            return Err(format!(
                "{nodes} nodes are not active after {HEALTHY_WITHIN:?}: {active:?}"
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Clients that run.
enum Clients {
    Own(Workload),
    Kafka(Box<KafkaClients>),
}

impl Run<'_> {
    fn start_clients(&self) -> Result<Clients, String> {
        let recorder = self.recorder.clone();
        if self.options.work == Work::Kafka {
            let servers = self.cluster.kafka();
            let clients = KafkaClients::start(&self.config, &servers, recorder, &self.dir)?;
            return Ok(Clients::Kafka(Box::new(clients)));
        }
        let _guard = self.runtime.enter();
        let started = Workload::start(self.config.clone(), recorder);
        started.map(Clients::Own).map_err(|error| error.to_string())
    }

    fn stop_clients(&mut self, clients: Clients) {
        let wrong = match clients {
            Clients::Own(workload) => self.runtime.block_on(workload.stop()),
            Clients::Kafka(mut clients) => {
                clients.stop();
                let ns = self.recorder.ns();
                self.recorder.event(Event::Healed { ns });
                clients.finish()
            }
        };
        self.wrong.extend(wrong);
    }

    fn history(&mut self) -> Result<(), String> {
        let can = self.possible();
        let clients = self.start_clients()?;
        let end = Instant::now() + self.options.duration;
        // Something to lose first.
        self.sleep_until(end.min(Instant::now() + self.options.duration / 8));
        let turns = if self.options.in_turn {
            can.len()
        } else {
            usize::MAX
        };
        while Instant::now() < end && !can.is_empty() && self.turn < turns {
            self.period(&can, end);
        }
        self.sleep_until(end);
        self.heal();
        self.healthy();
        self.stop_clients(clients);
        let done = finish(&self.config, &self.recorder, Duration::from_secs(120));
        self.runtime
            .block_on(done)
            .map_err(|error| format!("the end could not be read: {error}"))
    }

    /// The faults that this machine and this cluster can have; says which are left out.
    fn possible(&self) -> Vec<Fault> {
        let mut can = Vec::new();
        for fault in &self.options.faults {
            match fault.missing(&self.cluster) {
                None => can.push(*fault),
                Some(why) => say(&format!("LEFT OUT {}: {why}", fault.name())),
            }
        }
        can
    }

    fn sleep_until(&mut self, end: Instant) {
        loop {
            if let Some(node) = self.cluster.ended_by_itself() {
                let log = self.cluster.log_tail(node);
                self.recorder
                    .note(format!("node {} ended by itself", node + 1));
                self.wrong
                    .push(format!("node {} ended by itself:\n{log}", node + 1));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// One or two faults, or none, and their repair.
    fn period(&mut self, can: &[Fault], end: Instant) {
        let longest = (self.options.duration / 4).min(Duration::from_secs(20));
        let share = 25 + self.random.below(75) as u32;
        let lasts = longest * share / 100;
        let count = match self.random.below(8) {
            _ if self.options.in_turn => 1,
            0 | 1 => 0,
            2..=5 => 1,
            _ => 2,
        };
        let leader = self.leader();
        for _ in 0..count {
            let fault = match self.options.in_turn {
                true => can[self.turn],
                false => can[self.random.index(can.len())],
            };
            self.turn += 1;
            let mut scene = Scene {
                cluster: &mut self.cluster,
                random: &mut self.random,
                topic: TOPIC,
                leader,
                lasts,
            };
            match scene.apply(fault) {
                Ok(what) => {
                    *self.faults.entry(fault.name()).or_default() += 1;
                    self.recorder.note(what);
                }
                Err(why) if fault == Fault::Term => self.wrong.push(why),
                Err(why) => self
                    .recorder
                    .note(format!("{} could not be had: {why}", fault.name())),
            }
        }
        self.sleep_until(end.min(Instant::now() + lasts));
        if count > 0 {
            self.heal();
        }
        // Time to catch up, sometimes too little.
        let pause = longest * (10 + self.random.below(40) as u32) / 100;
        self.sleep_until(end.min(Instant::now() + pause));
    }

    fn heal(&mut self) {
        self.cluster.heal();
        // Nodes whose clock or disk was broken begin anew; the others go on.
        (0..self.cluster.len()).for_each(|node| self.cluster.start(node));
        self.recorder.note("repaired");
    }

    /// Waits until everything is whole; whatever is not is wrong.
    fn healthy(&mut self) {
        let began = Instant::now();
        if let Err(why) = self.cluster.start_all(HEALTHY_WITHIN) {
            self.wrong.push(why);
            return;
        }
        let mut last = String::new();
        while began.elapsed() < HEALTHY_WITHIN {
            match self.health() {
                Ok(health) if health.healthy => {
                    let took = began.elapsed().as_secs_f64();
                    self.recorder.note(format!("whole again after {took:.1} s"));
                    return;
                }
                Ok(health) => last = format!("{health:?}"),
                Err(error) => last = error,
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        self.wrong.push(format!(
            "not whole {HEALTHY_WITHIN:?} after the last repair: {last}"
        ));
    }

    fn health(&self) -> Result<v1::GetClusterHealthResponse, String> {
        let admin = self.admin()?;
        let asked = admin.get_cluster_health(v1::GetClusterHealthRequest {});
        self.runtime
            .block_on(asked)
            .map_err(|error| error.to_string())
    }

    fn admin(&self) -> Result<Admin, String> {
        let client = self.config.client(0).map_err(|error| error.to_string())?;
        Ok(Admin::new(client))
    }

    /// Who leads the first partition.
    fn leader(&self) -> Option<usize> {
        let admin = self.admin().ok()?;
        let asked = async {
            let within = Duration::from_secs(2);
            tokio::time::timeout(within, admin.all_partitions(TOPIC)).await
        };
        let partitions = self.runtime.block_on(asked).ok()?.ok()?;
        let id = partitions.first()?.leader_node_id?;
        let node = usize::try_from(id).ok()?.checked_sub(1)?;
        (node < self.cluster.len()).then_some(node)
    }

    fn report(&mut self) -> Result<Report, std::io::Error> {
        let mut wrong = std::mem::take(&mut self.wrong);
        wrong.extend(self.cluster.panics());
        Ok(Report {
            notes: self.recorder.notes(),
            verdict: self.recorder.verdict(&required(self.options))?,
            wrong,
            faults: std::mem::take(&mut self.faults),
            kept: None,
        })
    }
}
