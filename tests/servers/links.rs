//! Which hosts hear each other. A link that is cut loses what is sent, for good: nothing repeats it, so what was
//! connected over it stays dead after the repair until somebody notices, as behind a firewall that has forgotten
//! the connection. A link that is held keeps what is sent and delivers it in the end, as TCP does over a network
//! that comes back.
//!
//! Invariant: what turmoil was told is what is in force, and links that stay as they are are not touched, since
//! that would lose what is on its way.

use std::collections::BTreeSet;

use turmoil::Sim;

use crate::plan::name;

/// The host of all clients.
pub const CLIENTS: &str = "clients";

/// What is wrong with the links of the hosts, which are numbered; the clients come last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Broken {
    /// What the first sends never reaches the second.
    pub cut: BTreeSet<(usize, usize)>,
    /// What is sent waits, in both directions. The smaller number first.
    pub held: BTreeSet<(usize, usize)>,
}

impl Broken {
    /// Cuts both directions.
    pub fn part(&mut self, a: usize, b: usize) {
        self.cut.extend([(a, b), (b, a)]);
    }

    /// Holds both directions.
    pub fn hold(&mut self, a: usize, b: usize) {
        self.held.insert((a.min(b), a.max(b)));
    }

    fn between(&self, a: usize, b: usize) -> (bool, bool, bool) {
        let held = self.held.contains(&(a.min(b), a.max(b)));
        (self.cut.contains(&(a, b)), self.cut.contains(&(b, a)), held)
    }
}

/// The links between all hosts.
#[derive(Debug)]
pub struct Links {
    nodes: usize,
    now: Broken,
}

impl Links {
    /// All whole.
    pub fn new(nodes: usize) -> Self {
        Self {
            nodes,
            now: Broken::default(),
        }
    }

    /// Name of a host.
    pub fn host(&self, number: usize) -> String {
        if number == self.nodes {
            CLIENTS.to_owned()
        } else {
            name(number)
        }
    }

    /// Puts `broken` into force, and nothing else.
    pub fn set(&mut self, sim: &Sim<'_>, broken: Broken) {
        for a in 0..=self.nodes {
            for b in a + 1..=self.nodes {
                let (old, new) = (self.now.between(a, b), broken.between(a, b));
                if old == new {
                    continue;
                }
                let (x, y) = (self.host(a), self.host(b));
                if old.2 && !new.2 && !new.0 && !new.1 {
                    sim.release(x.as_str(), y.as_str());
                } else {
                    sim.repair(x.as_str(), y.as_str());
                }
                if new.2 {
                    sim.hold(x.as_str(), y.as_str());
                }
                if new.0 {
                    sim.partition_oneway(x.as_str(), y.as_str());
                }
                if new.1 {
                    sim.partition_oneway(y.as_str(), x.as_str());
                }
            }
        }
        self.now = broken;
    }
}
