//! What breaks and when, drawn from the seed. Faults come in periods: some at once, then a repair and a pause, which
//! is sometimes too short for anything to be whole again.

use std::time::Duration;

use varve_tests::chaos::Random;

use crate::links::Broken;
use crate::plan::Plan;

macro_rules! faults {
    ($($fault:ident, $name:literal, $what:literal;)*) => {
        /// One kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $(#[doc = $what] $fault,)*
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$fault,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$fault => $name,)* }
            }
        }
    };
}

faults! {
    Isolate, "isolate", "nobody reaches a node, clients neither";
    Leave, "leave", "no other node reaches a node, clients do";
    Unseen, "unseen", "clients do not reach a node, other nodes do";
    Split, "split", "two groups of nodes that do not reach each other; clients reach one of them, or both";
    OneWay, "one-way", "what one node sends does not reach another";
    Mute, "mute", "what one node sends reaches no other node";
    Deaf, "deaf", "a node hears no other node";
    Ring, "ring", "each node reaches its neighbours only";
    Hold, "hold", "what a node and others send each other waits";
    Lag, "lag", "messages of a node are late, some by much";
    Kill, "kill", "a process ends without a word";
    KillAll, "kill-all", "all processes end without a word";
    Power, "power", "a machine loses power, and what was not synced";
    PowerAll, "power-all", "all machines lose power at one moment";
    Stop, "stop", "an orderly stop";
    Stand, "stand", "a disk that stands still";
    Fail, "fail", "a sync that fails once, upon which the process ends by itself";
}

/// What a fault does at its beginning, beside links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Ends the process.
    Kill(usize),
    /// Cuts the power.
    Power(usize),
    /// Stops in order.
    Stop(usize),
    /// The disk stands still for so long.
    Stand(usize, Duration),
    /// That sync fails.
    Fail(usize, u64),
    /// Messages between the two take up to so long.
    Lag(usize, usize, Duration),
}

/// Faults that begin together.
#[derive(Debug, Default)]
pub struct Period {
    /// Which.
    pub faults: Vec<Fault>,
    /// For people.
    pub what: Vec<String>,
    /// Links that are broken until the repair.
    pub broken: Broken,
    /// What happens at once.
    pub acts: Vec<Act>,
    /// Time until the repair.
    pub lasts: Duration,
    /// Time from the repair to the next period.
    pub pause: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Nemesis {
    random: Random,
    nodes: usize,
    can: Vec<Fault>,
    /// The only node that may end without a word, where that may cost what was acknowledged.
    only: Option<usize>,
}

impl Nemesis {
    /// For that plan.
    pub fn new(plan: &Plan) -> Self {
        // Where replication alone is what makes records durable, no replica that ended without a word may lead by
        // itself before it has caught up: once that befell all that were in sync or eligible, be it one after the
        // other, an operator has to choose, and there is none here. The promise is for `min.insync.replicas` - 1 of
        // them, so it is always the same node that is killed, or whose disk fails: whoever commits has another beside
        // it.
        let hard = |fault: &Fault| matches!(fault, Fault::Power | Fault::PowerAll | Fault::KillAll);
        let can = Fault::ALL.iter().copied();
        let mut random = Random::new(plan.seed ^ 0xfa17);
        let only = (!plan.fsync).then(|| random.index(plan.nodes));
        Self {
            random,
            nodes: plan.nodes,
            can: can.filter(|fault| plan.fsync || !hard(fault)).collect(),
            only,
        }
    }

    /// Time that a node that ended is gone.
    pub fn gone(&mut self) -> Duration {
        Duration::from_millis(match self.random.below(3) {
            0 => 50 + self.random.below(400),
            1 => 500 + self.random.below(2_500),
            _ => 3_000 + self.random.below(7_000),
        })
    }

    /// How many of its last unsynced changes a disk loses with the power, and how many bytes of the first of
    /// these arrive. `None`: it loses all.
    pub fn lost(&mut self) -> Option<(u64, usize)> {
        let torn = self.random.index(20_000);
        match self.random.below(3) {
            0 => None,
            1 => Some((0, torn)),
            _ => Some((1 + self.random.below(24), torn)),
        }
    }

    /// The next faults. `leader`: who leads some partition, if anybody knows.
    pub fn period(&mut self, leader: Option<usize>) -> Period {
        let mut period = Period {
            lasts: Duration::from_millis(300 + self.random.below(9_000)),
            pause: Duration::from_millis(200 + self.random.below(6_000)),
            ..Period::default()
        };
        let count = match self.random.below(8) {
            0 => 0,
            1..=4 => 1,
            5 | 6 => 2,
            _ => 3,
        };
        for _ in 0..count {
            let fault = self.can[self.random.index(self.can.len())];
            period.faults.push(fault);
            self.draw(fault, leader, &mut period);
        }
        period
    }

    /// One node; a leader more often than others.
    fn one(&mut self, leader: Option<usize>) -> usize {
        match leader {
            Some(leader) if self.random.below(2) == 0 => leader,
            _ => self.random.index(self.nodes),
        }
    }

    fn others(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.nodes).filter(move |other| *other != node)
    }

    fn draw(&mut self, fault: Fault, leader: Option<usize>, period: &mut Period) {
        let node = match (fault, self.only) {
            (Fault::Kill | Fault::Fail, Some(only)) => only,
            _ => self.one(leader),
        };
        let clients = self.nodes;
        let mut on = format!("n{}", node + 1);
        let broken = &mut period.broken;
        match fault {
            Fault::Isolate => {
                self.others(node).for_each(|other| broken.part(node, other));
                broken.part(node, clients);
            }
            Fault::Leave => self.others(node).for_each(|other| broken.part(node, other)),
            Fault::Unseen => broken.part(node, clients),
            Fault::Split => {
                let mut order: Vec<usize> = (0..self.nodes).collect();
                for at in (1..order.len()).rev() {
                    order.swap(at, self.random.index(at + 1));
                }
                let (less, more) = order.split_at(self.nodes / 2);
                for a in less {
                    more.iter().for_each(|b| broken.part(*a, *b));
                }
                let side = self.random.below(4);
                if side < 2 {
                    let cut = if side == 0 { less } else { more };
                    cut.iter().for_each(|node| broken.part(*node, clients));
                }
                on = format!(
                    "{:?} from the others",
                    less.iter().map(|n| n + 1).collect::<Vec<_>>()
                );
            }
            Fault::OneWay => {
                let other = (node + 1 + self.random.index(self.nodes - 1)) % self.nodes;
                broken.cut.insert((node, other));
                on = format!("{on} to n{}", other + 1);
            }
            Fault::Mute => broken
                .cut
                .extend(self.others(node).map(|other| (node, other))),
            Fault::Deaf => broken
                .cut
                .extend(self.others(node).map(|other| (other, node))),
            Fault::Ring => {
                for a in 0..self.nodes {
                    for b in a + 1..self.nodes {
                        let apart = (b - a).min(self.nodes - (b - a));
                        // Of three, everybody is everybody's neighbour: one link less is what a ring lacks.
                        if apart > 1 || (self.nodes == 3 && a == node.min(1) && b == 2) {
                            broken.part(a, b);
                        }
                    }
                }
                on.clear();
            }
            Fault::Hold => {
                let clients_too = self.random.below(2) == 0;
                self.others(node).for_each(|other| broken.hold(node, other));
                if clients_too {
                    broken.hold(node, clients);
                }
            }
            Fault::Lag => {
                let late = Duration::from_millis(50 + self.random.below(1_500));
                let mut late_to = |other| period.acts.push(Act::Lag(node, other, late));
                self.others(node).for_each(&mut late_to);
                late_to(clients);
                on = format!("{on} by up to {late:?}");
            }
            Fault::Kill => period.acts.push(Act::Kill(node)),
            Fault::Power => period.acts.push(Act::Power(node)),
            Fault::KillAll => period.acts.extend((0..self.nodes).map(Act::Kill)),
            Fault::PowerAll => period.acts.extend((0..self.nodes).map(Act::Power)),
            Fault::Stop => period.acts.push(Act::Stop(node)),
            Fault::Stand => {
                let lasts = Duration::from_millis(200 + self.random.below(8_000));
                period.acts.push(Act::Stand(node, lasts));
                on = format!("{on} for {lasts:?}");
            }
            Fault::Fail => {
                let sync = 1 + self.random.below(60);
                period.acts.push(Act::Fail(node, sync));
                on = format!("{on} in {sync} syncs");
            }
        }
        period
            .what
            .push(format!("{} {on}", fault.name()).trim_end().to_owned());
    }
}
