//! One seed: servers and clients on turmoil's hosts, faults, repair, verdict.

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use turmoil::Sim;
use varve_check::{Outcome, Required, Verdict};
use varve_server::config::Settings;
use varve_server::{Config, Node};
use varve_tests::chaos::Random;
use varve_vfs::mem::MemVfs;

use crate::chance::{self, BEGIN_MS};
use crate::clients::{self, Board, Stage, board, note_at};
use crate::dials;
use crate::links::{Broken, CLIENTS, Links};
use crate::machine::{Disk, machine};
use crate::nemesis::{Act, Nemesis, Period};
use crate::panics;
use crate::plan::{Plan, name};

/// Simulated time of one step.
const TICK: Duration = Duration::from_millis(1);
/// A seed is over after its faults and this long, whatever happens.
const END_WITHIN: Duration = Duration::from_secs(540);
/// An orderly stop is over after this long.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// A process that ended by itself is started again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(800);

/// What came out of a seed.
#[derive(Debug)]
pub struct Report {
    /// What it was made of.
    pub plan: Plan,
    /// Of the checker; `None`: it never came to a history.
    pub verdict: Option<Verdict>,
    /// What the simulation itself found wrong.
    pub wrong: Vec<String>,
    /// How often each fault happened, and other counts.
    pub counts: BTreeMap<&'static str, u64>,
    /// What happened when, in nanoseconds since the history began.
    pub notes: Vec<(u64, String)>,
    /// Simulated time.
    pub simulated: Duration,
    /// The most connections within a second, and whose.
    pub dials: (u32, String),
}

impl Report {
    /// Whether everything that must hold held.
    pub fn holds(&self) -> bool {
        let valid = |verdict: &Verdict| verdict.outcome == Outcome::Valid;
        self.wrong.is_empty() && self.verdict.as_ref().is_some_and(valid)
    }

    /// The story, for people.
    pub fn text(&self) -> String {
        let mut text = format!("seed {}: {}\n", self.plan.seed, self.plan.text());
        for (ns, what) in &self.notes {
            text += &format!("{:>9.3} s  {what}\n", *ns as f64 / 1e9);
        }
        let counts = self.counts.iter().map(|(name, n)| format!("{name} {n}"));
        text += &format!("counts: {}\n", counts.collect::<Vec<_>>().join(", "));
        text += &format!("most connections: {}\n", self.dials.1);
        match &self.verdict {
            Some(verdict) => text += &verdict.text(),
            None => text += "no history\n",
        }
        for wrong in &self.wrong {
            text += &format!("WRONG: {wrong}\n");
        }
        text
    }
}

/// How a node is, as the simulation sees it from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    /// It runs, or was told to.
    On,
    /// It was told to stop, then.
    Stopping(Duration),
    /// The process is gone, and starts at that moment.
    Gone(Duration),
    /// The machine has no power until that moment, and answers nobody.
    Dark(Duration),
}

struct Server {
    disk: Disk,
    /// Whether the process is told to stop.
    stop: watch::Sender<bool>,
    power: Power,
}

struct World<'a> {
    plan: Plan,
    sim: Sim<'a>,
    servers: Vec<Server>,
    links: Links,
    broken: Broken,
    lagging: Vec<(usize, usize)>,
    nemesis: Nemesis,
    told: Board,
    counts: BTreeMap<&'static str, u64>,
}

/// Runs a seed. Belongs on a thread of its own: chance and panics are the thread's.
pub fn run(plan: &Plan, history: Option<Box<dyn Write + Send>>) -> Report {
    let told = Board::default();
    let mut world = World::new(plan, &told, history);
    let ended = catch_unwind(AssertUnwindSafe(|| world.go()));
    let simulated = world.sim.elapsed();
    let mut wrong = std::mem::take(&mut board(&told).wrong);
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(why)) => wrong.push(why),
        Err(_) => wrong.push("the simulation ended with a panic".to_owned()),
    }
    wrong.extend(
        panics::taken()
            .into_iter()
            .map(|panic| format!("a panic: {panic}")),
    );
    let dials = dials::most();
    if dials.0 > dials::MOST_IN_A_SECOND {
        wrong.push(format!("no pause between connections: {}", dials.1));
    }
    let mut counts = std::mem::take(&mut world.counts);
    // What is dropped now is taken apart as nothing ever is in production.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(world)));
    let (recorder, moves, shrunk) = {
        let told = board(&told);
        (told.recorder.clone(), told.moves, told.shrunk)
    };
    counts.insert("leader-moves", moves);
    counts.insert("looks-at-fewer-in-sync", shrunk);
    let notes = recorder.as_ref().map_or_else(Vec::new, |r| r.notes());
    let verdict = recorder.map(|recorder| recorder.verdict(&Required::default()));
    let verdict = match verdict.transpose() {
        Ok(verdict) => verdict,
        Err(error) => {
            wrong.push(format!("the history could not be written: {error}"));
            None
        }
    };
    if wrong.is_empty() && verdict.is_none() {
        wrong.push("there is no history".to_owned());
    }
    Report {
        plan: plan.clone(),
        verdict,
        wrong,
        counts,
        notes,
        simulated,
        dials,
    }
}

/// One life of a server.
async fn serve(
    plan: Plan,
    node: usize,
    disk: Disk,
    mut stop: watch::Receiver<bool>,
    wall_ms: i64,
    told: Board,
) {
    let say = |what: String| {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        note_at(&told, at, format!("{} {what}", name(node)));
    };
    let settings = Settings::load(None, std::iter::empty(), &plan.settings(node));
    let config = settings.and_then(|settings| Config::resolve(&settings));
    let config = match config {
        Ok(config) => config,
        Err(error) => return board(&told).wrong.push(format!("configuration: {error}")),
    };
    let mut running = match Node::start_on(config, machine(name(node), &disk, wall_ms)).await {
        Ok(running) => running,
        Err(error) => return say(format!("did not start: {error:#}")),
    };
    say("is ready".to_owned());
    let why = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => "was told to",
        () = running.failed() => "cannot go on",
    };
    say(format!("stops: it {why}"));
    match running.shutdown().await {
        Ok(()) => say("has stopped".to_owned()),
        Err(error) => say(format!("has stopped: {error:#}")),
    }
}

impl<'a> World<'a> {
    fn new(plan: &Plan, told: &Board, history: Option<Box<dyn Write + Send>>) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(24 * 3600))
            .min_message_latency(Duration::ZERO)
            .max_message_latency(plan.latency)
            .tcp_capacity(1 << 16)
            .enable_random_order()
            .build();
        let mut random = Random::new(plan.seed ^ 0xc10c);
        let mut servers = Vec::new();
        for node in 0..plan.nodes {
            let disk = Disk::new(plan.seed ^ (node as u64 + 1) << 32, plan.disk);
            let (stop, stopped) = watch::channel(false);
            let skew = random.below(2 * plan.skew_ms + 1) as i64 - plan.skew_ms as i64;
            let life = (plan.clone(), disk.clone(), stopped, Arc::clone(told));
            sim.host(name(node).as_str(), move || {
                let (plan, disk, stop, told) = life.clone();
                async move {
                    serve(plan, node, disk, stop, BEGIN_MS + skew, told).await;
                    Ok(())
                }
            });
            servers.push(Server {
                disk,
                stop,
                power: Power::On,
            });
        }
        let script = clients::run(plan.clone(), Arc::clone(told), history);
        sim.client(CLIENTS, async move {
            script.await;
            Ok(())
        });
        Self {
            links: Links::new(plan.nodes),
            nemesis: Nemesis::new(plan),
            plan: plan.clone(),
            sim,
            servers,
            broken: Broken::default(),
            lagging: Vec::new(),
            told: Arc::clone(told),
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn say(&self, what: impl Into<String>) {
        note_at(&self.told, self.sim.elapsed(), what.into());
    }

    fn go(&mut self) -> Result<(), String> {
        while board(&self.told).stage == Stage::Starting {
            self.step()?;
            if self.sim.elapsed() > END_WITHIN {
                return Err("the clients never began".to_owned());
            }
        }
        if board(&self.told).stage == Stage::Over {
            return Ok(());
        }
        let end = self.sim.elapsed() + self.plan.faulty;
        // Something to lose first.
        self.until(self.sim.elapsed() + Duration::from_secs(2))?;
        while self.sim.elapsed() < end {
            let leader = board(&self.told).leader;
            let period = self.nemesis.period(leader);
            let (lasts, pause) = (period.lasts, period.pause);
            self.begin(period);
            self.until(end.min(self.sim.elapsed() + lasts))?;
            self.repair();
            self.until(end.min(self.sim.elapsed() + pause))?;
        }
        self.heal();
        let last = self.sim.elapsed() + END_WITHIN;
        while board(&self.told).stage != Stage::Over {
            self.step()?;
            if self.sim.elapsed() > last {
                return Err(format!(
                    "the clients did not end within {END_WITHIN:?} of the repair"
                ));
            }
        }
        Ok(())
    }

    fn until(&mut self, end: Duration) -> Result<(), String> {
        while self.sim.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    /// A millisecond, and whoever is due to be started.
    fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| error.to_string())?;
        let now = self.sim.elapsed();
        chance::now(now);
        for node in 0..self.servers.len() {
            match self.servers[node].power {
                Power::Gone(due) | Power::Dark(due) if now >= due => self.start(node),
                Power::On | Power::Stopping(_) if !self.sim.is_host_running(name(node)) => {
                    let stopped = matches!(self.servers[node].power, Power::Stopping(_));
                    self.count(if stopped {
                        "stopped"
                    } else {
                        "ended-by-itself"
                    });
                    let gone = if stopped {
                        self.nemesis.gone()
                    } else {
                        AGAIN_AFTER
                    };
                    self.servers[node].power = Power::Gone(now + gone);
                }
                Power::Stopping(since) if now > since + STOP_WITHIN => {
                    return Err(format!(
                        "{} did not stop within {STOP_WITHIN:?}",
                        name(node)
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn start(&mut self, node: usize) {
        let server = &mut self.servers[node];
        server.disk.files.kill_process();
        server.stop.send_replace(false);
        server.power = Power::On;
        self.sim.bounce(name(node));
        self.relink();
        self.say(format!("{} starts", name(node)));
    }

    /// Links as the faults and the machines without power have them.
    fn relink(&mut self) {
        let mut broken = self.broken.clone();
        for (node, server) in self.servers.iter().enumerate() {
            if matches!(server.power, Power::Dark(_)) {
                (0..=self.servers.len())
                    .filter(|other| *other != node)
                    .for_each(|other| broken.part(node, other));
            }
        }
        self.links.set(&self.sim, broken);
    }

    fn begin(&mut self, period: Period) {
        for fault in &period.faults {
            self.count(fault.name());
        }
        if !period.what.is_empty() {
            self.say(format!("FAULT {}", period.what.join("; ")));
        }
        if !period.broken.cut.is_empty() || !period.broken.held.is_empty() {
            self.count("cuts");
        }
        self.broken = period.broken;
        self.relink();
        for act in period.acts {
            self.act(act);
        }
    }

    fn act(&mut self, act: Act) {
        let now = self.sim.elapsed();
        match act {
            Act::Kill(node) if self.is_up(node) => {
                let gone = self.nemesis.gone();
                self.count("crashes");
                self.servers[node].disk.files.kill_process();
                self.sim.crash(name(node));
                self.servers[node].power = Power::Gone(now + gone);
            }
            Act::Power(node) if self.is_up(node) => {
                let gone = self.nemesis.gone();
                self.count("crashes");
                // It says nothing to anybody, not even that connections end.
                self.servers[node].power = Power::Dark(now + gone);
                self.relink();
                let lost = self.nemesis.lost();
                cut_power(&self.servers[node].disk.files, lost);
                self.sim.crash(name(node));
            }
            Act::Stop(node) if self.servers[node].power == Power::On => {
                self.servers[node].stop.send_replace(true);
                self.servers[node].power = Power::Stopping(now);
            }
            Act::Stand(node, lasts) => self.servers[node].disk.stand_still(now + lasts),
            Act::Fail(node, sync) => self.servers[node].disk.fail_sync(sync),
            Act::Lag(a, b, late) => {
                let (x, y) = (self.links.host(a), self.links.host(b));
                self.sim.set_link_max_message_latency(x, y, late);
                self.lagging.push((a, b));
            }
            Act::Kill(_) | Act::Power(_) | Act::Stop(_) => {}
        }
    }

    fn is_up(&self, node: usize) -> bool {
        matches!(self.servers[node].power, Power::On | Power::Stopping(_))
    }

    /// Links are whole again; disks and processes take their time.
    fn repair(&mut self) {
        if self.broken != Broken::default() || !self.lagging.is_empty() {
            self.say("links are whole");
        }
        self.broken = Broken::default();
        for (a, b) in std::mem::take(&mut self.lagging) {
            let (x, y) = (self.links.host(a), self.links.host(b));
            self.sim
                .set_link_max_message_latency(x, y, self.plan.latency);
        }
        self.relink();
    }

    /// Nothing is broken any more.
    fn heal(&mut self) {
        self.repair();
        for node in 0..self.servers.len() {
            self.servers[node].disk.heal();
            if matches!(self.servers[node].power, Power::Gone(_) | Power::Dark(_)) {
                self.start(node);
            }
        }
        self.say("HEALED");
        board(&self.told).healed = true;
    }
}

fn cut_power(files: &MemVfs, lost: Option<(u64, usize)>) {
    match lost {
        None => files.crash_losing_unsynced(),
        Some((changes, torn)) => {
            let kept = files.changes().saturating_sub(changes);
            files.crash_in_order(kept, torn);
        }
    }
}
