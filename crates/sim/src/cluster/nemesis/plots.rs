//! Faults that take several steps: replicas left behind that are made to lead, in-sync replicas that die one
//! after the other, leaders killed as soon as they lead.

use std::collections::BTreeSet;

use varve_metadata::{Election, PartitionKey};
use varve_types::NodeId;
use varve_types::config::Durability;

use super::super::knobs::Theme;
use super::super::world::{Addr, Event, Message, World};

/// What comes next of a fault that takes several steps.
#[derive(Debug, Clone, Copy)]
pub(in crate::cluster) enum Plot {
    /// The replica has been cut off for long enough: now the others go.
    LeftBehind {
        key: PartitionKey,
        node: NodeId,
        fault: u64,
    },
    /// Nobody else may be left: that replica is to lead, whatever it lacks.
    ElectUnclean {
        key: PartitionKey,
        node: NodeId,
        tries: u32,
    },
    /// That node dies, too.
    Kill { node: NodeId, away_ms: u64 },
    /// That replica is removed, or added again; so many times more.
    Flicker {
        key: PartitionKey,
        node: NodeId,
        times: u32,
    },
    /// The partition moves to that node alone.
    MoveTo { key: PartitionKey, node: NodeId },
    /// Whoever leads now dies, too.
    KillLeader(PartitionKey),
    /// That node stops for a while.
    Pause(NodeId),
    /// Somebody looks after the cluster.
    Operator,
}

impl World {
    pub(in crate::cluster) fn plot_goes_on(&mut self, plot: Plot) -> Result<(), String> {
        if self.healed && !matches!(plot, Plot::Operator) {
            return Ok(());
        }
        match plot {
            Plot::LeftBehind { key, node, fault } => self.leave_alone(key, node, fault),
            Plot::ElectUnclean { key, node, tries } => return self.elect_unclean(key, node, tries),
            Plot::Kill { node, away_ms } => self.kill_for(node, away_ms),
            Plot::Flicker { key, node, times } => return self.flickers(key, node, times),
            Plot::MoveTo { key, node } => {
                // One that has just died may have lost more than what is left can make good.
                let lives = self
                    .nodes
                    .get(&node)
                    .is_some_and(|n| n.up && n.epoch.is_some());
                if lives && self.reassign(key, Some(vec![node]))? {
                    self.count("moved to a node that wants to stop");
                }
            }
            Plot::KillLeader(key) => {
                let partition = self.controller.state.partition_at(key);
                if let Some(leader) = partition.and_then(|p| p.leader) {
                    self.count("leader killed twice in a row");
                    let away = 200 + self.rng.below(600);
                    self.kill_for(leader, away);
                }
            }
            Plot::Pause(node) => self.pause(node),
            Plot::Operator => return self.operator_looks(),
        }
        Ok(())
    }

    /// A node that coordinates dies, sleeps, or is to lead no longer.
    pub(in crate::cluster) fn strike_at(&mut self, node: NodeId, after: u64) {
        let plot = match self.rng.below(4) {
            0 => Plot::Pause(node),
            _ => {
                let away_ms = 20 + self.rng.below(800);
                Plot::Kill { node, away_ms }
            }
        };
        self.at(after, Event::Plot(plot));
    }

    fn kill_for(&mut self, node: NodeId, away_ms: u64) {
        let power = self.rng.below(2) == 0;
        self.kill_now(node, power);
        self.at(away_ms, Event::Start(node));
    }

    /// A follower is removed and added again as fast as nodes can hear of it.
    pub(super) fn flicker(&mut self) -> Result<(), String> {
        let Some(key) = self.some_key() else {
            return Ok(());
        };
        let partition = self.controller.state.partition_at(key);
        let others = partition.into_iter().flat_map(|p| {
            let follows = |n: &&NodeId| Some(**n) != p.leader;
            p.replicas.iter().filter(follows).copied()
        });
        let others: Vec<NodeId> = others.collect();
        let Some(node) = others.get(self.rng.below(others.len() as u64) as usize) else {
            return Ok(());
        };
        self.count("replica flickers");
        self.flickers(key, *node, 16)
    }

    fn flickers(&mut self, key: PartitionKey, node: NodeId, times: u32) -> Result<(), String> {
        let Some(partition) = self.controller.state.partition_at(key) else {
            return Ok(());
        };
        let mut target = partition.target();
        if target.contains(&node) {
            target.retain(|n| *n != node);
        } else {
            target.push(node);
        }
        let kept = partition.leader.is_some_and(|n| target.contains(&n));
        if kept && target.len() >= self.knobs.min_insync {
            self.reassign(key, Some(target))?;
        }
        if times > 0 {
            let times = times - 1;
            let after = 30 + self.rng.below(70);
            self.at(after, Event::Plot(Plot::Flicker { key, node, times }));
        }
        Ok(())
    }

    /// A node wants to stop, and before it has, a partition is moved to it alone.
    pub(super) fn move_to_stopping(&mut self, node: NodeId) {
        let now = self.now;
        let Some(key) = self.some_key() else { return };
        if self.knobs.durability == Durability::Replicated {
            return;
        }
        if let Some(n) = self.nodes.get_mut(&node).filter(|n| n.up && !n.paused) {
            n.wants_stop = n.epoch.map(|_| now);
            let after = 40 + self.rng.below(200);
            self.at(after, Event::Plot(Plot::MoveTo { key, node }));
        }
    }

    fn some_key(&mut self) -> Option<PartitionKey> {
        let keys = self.keys();
        let at = self.rng.below(keys.len() as u64) as usize;
        keys.get(at).copied()
    }

    /// A step on the way to an unclean election.
    pub(super) fn unclean_fault(&mut self) -> Result<(), String> {
        let Some(key) = self.some_key() else {
            return Ok(());
        };
        if self.rng.below(3) > 0 {
            // Whoever is there leads, if nobody does; if somebody does, it is refused.
            let replicas = self
                .controller
                .state
                .partition_at(key)
                .map(|p| p.replicas.clone());
            let replicas = replicas.unwrap_or_default();
            let at = self.rng.below(replicas.len() as u64) as usize;
            let Some(node) = replicas.get(at).copied() else {
                return Ok(());
            };
            return self.elect_unclean(key, node, 0);
        }
        let Some(partition) = self.controller.state.partition_at(key) else {
            return Ok(());
        };
        let others = partition
            .isr
            .iter()
            .filter(|n| Some(**n) != partition.leader);
        let others: Vec<NodeId> = others.copied().collect();
        if others.is_empty() {
            return Ok(());
        }
        let node = others[self.rng.below(others.len() as u64) as usize];
        let mut peers: BTreeSet<Addr> = self.nodes.keys().map(|n| Addr::Node(*n)).collect();
        peers.remove(&Addr::Node(node));
        let fault = self.separate(&BTreeSet::from([Addr::Node(node)]), &peers, true);
        self.say(|_| format!("node {node} is to be left behind"));
        let after = 300 + self.rng.below(1_500);
        self.at(after, Event::Plot(Plot::LeftBehind { key, node, fault }));
        Ok(())
    }

    /// All other replicas go, and stay away for a while, some until after the next such election.
    fn leave_alone(&mut self, key: PartitionKey, node: NodeId, fault: u64) {
        self.heal_cut(fault);
        let replicas = self
            .controller
            .state
            .partition_at(key)
            .map(|p| p.replicas.clone());
        for other in replicas.into_iter().flatten().filter(|n| *n != node) {
            let longest = [1_000, 5_000][self.rng.below(2) as usize];
            let away = self.knobs.session_ms + 300 + self.rng.below(longest);
            self.kill_for(other, away);
        }
        let after = self.knobs.session_ms + self.rng.below(300);
        let tries = 8;
        self.at(after, Event::Plot(Plot::ElectUnclean { key, node, tries }));
    }

    fn elect_unclean(&mut self, key: PartitionKey, node: NodeId, tries: u32) -> Result<(), String> {
        let before = self
            .controller
            .state
            .partition_at(key)
            .map(|p| p.leader_epoch);
        self.elect(key, Election::Unclean(node))?;
        let after = self
            .controller
            .state
            .partition_at(key)
            .map(|p| p.leader_epoch);
        if before == after && tries > 0 {
            let tries = tries - 1;
            let wait = 50 + self.rng.below(100);
            self.at(wait, Event::Plot(Plot::ElectUnclean { key, node, tries }));
        }
        Ok(())
    }

    /// Whether this proposal of a leader is one to strike at.
    pub(in crate::cluster) fn strikes(&mut self, leader: NodeId) -> bool {
        let muted = self.muted.0 == leader && self.now < self.muted.1;
        let wanted = self.knobs.theme == Theme::Crashes && !self.healed;
        let may = self.knobs.durability == Durability::Fsync && !muted;
        wanted && may && self.rng.below(3) == 0
    }

    /// A leader wants a replica in sync. Its word comes late, and others that it says meanwhile get lost; the
    /// replica dies, and is there again in another run before the first word arrives.
    pub(in crate::cluster) fn strike(&mut self, leader: NodeId, joining: NodeId, message: Message) {
        self.count("replica begins a new run while it is let in sync");
        self.say(|_| {
            format!("node {joining} dies while node {leader} adds it to the in-sync replicas")
        });
        let late = self.knobs.session_ms + 100 + self.rng.below(400);
        self.muted = (leader, self.now + late + 1);
        let (from, to) = (Addr::Node(leader), Addr::Controller);
        self.at(late, Event::Deliver { from, to, message });
        // It is missed from its last word on, which may be from some time ago.
        self.at(
            0,
            Event::Plot(Plot::Kill {
                node: joining,
                away_ms: 1,
            }),
        );
    }

    /// In-sync replicas die one after the other.
    pub(super) fn crash_several(&mut self) {
        let Some(key) = self.some_key() else { return };
        let Some(partition) = self.controller.state.partition_at(key) else {
            return;
        };
        let (isr, leader) = (partition.isr.clone(), partition.leader);
        let promised = self.knobs.durability == Durability::Fsync;
        if !promised || isr.is_empty() {
            return;
        }
        let session = self.knobs.session_ms;
        match self.rng.below(3) {
            0 => {
                self.count("rolling crash");
                for (n, node) in isr.into_iter().enumerate() {
                    let gap = 30 + self.rng.below(250);
                    let away_ms = 50 + self.rng.below(400);
                    self.at(n as u64 * gap, Event::Plot(Plot::Kill { node, away_ms }));
                }
            }
            1 => {
                // Each is missed before the next one goes; the last one to go comes back last, or first.
                self.count("last replica standing falls");
                let last = isr.len() as u64 * (session + 150);
                let late = self.rng.below(2) * 500;
                for (n, node) in isr.into_iter().enumerate() {
                    let at = n as u64 * (session + 150);
                    let away_ms = last - at + 100 + self.rng.below(300) + late;
                    self.at(at, Event::Plot(Plot::Kill { node, away_ms }));
                }
            }
            _ => {
                if let Some(leader) = leader {
                    let away = session + self.rng.below(600);
                    self.kill_for(leader, away);
                    let after = session + 30 + self.rng.below(100);
                    self.at(after, Event::Plot(Plot::KillLeader(key)));
                }
            }
        }
    }
}
