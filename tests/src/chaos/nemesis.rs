//! What breaks, when and where: drawn from a seed, written into the history.

use std::time::Duration;

use crate::proxy::{Proxy, Rules, Way};

use super::{Cluster, Random};

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

            /// Its name on command lines.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$fault => $name,)* }
            }

            /// What it does.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$fault => $what,)* }
            }
        }
    };
}

faults! {
    Kill, "kill", "kill -9 of some nodes";
    KillAll, "kill-all", "kill -9 of all nodes";
    Term, "term", "an orderly stop of a node, which must end in time";
    Pause, "pause", "SIGSTOP and SIGCONT";
    Isolate, "isolate", "nobody reaches a node, clients neither";
    Leave, "leave", "no other node reaches a node, clients do";
    Split, "split", "two halves that do not reach each other";
    OneWay, "one-way", "what one node sends does not reach another, or any other";
    Ring, "ring", "each node reaches its neighbours only";
    Narrow, "narrow", "256 kbit/s leave a node";
    Lag, "lag", "clients reach a node late";
    Drip, "drip", "bytes to and from clients come in slivers";
    Reset, "reset", "connections of clients are cut, some half";
    Power, "power", "a power cut of one node";
    PowerAll, "power-all", "a power cut of all nodes at one moment";
    Full, "full", "a full disk";
    Hang, "hang", "a disk that hangs";
    Slow, "slow", "every sync takes long";
    Fail, "fail", "a sync that fails once";
    Flip, "flip", "a flipped bit in an old segment of a node that was down";
    Clock, "clock", "a wall clock that is minutes off";
}

/// Reads a list of names with commas; `all` is everything.
///
/// # Errors
/// The name that is none, and all that are.
pub fn parse_faults(text: &str) -> Result<Vec<Fault>, String> {
    if text == "all" {
        return Ok(Fault::ALL.to_vec());
    }
    let one = |name: &str| {
        let found = Fault::ALL.iter().find(|fault| fault.name() == name);
        found.copied().ok_or_else(|| {
            let all: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
            format!("there is no fault {name:?}; there are {}", all.join(", "))
        })
    };
    text.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(one)
        .collect()
}

/// The library that shifts a program's clock, if it is installed.
fn faketime() -> Option<String> {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let paths = places.map(|place| format!("/usr/lib/{place}/faketime/libfaketime.so.1"));
    paths
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
}

impl Fault {
    /// Why it cannot happen here, if it cannot.
    #[must_use]
    pub fn missing(self, cluster: &Cluster) -> Option<&'static str> {
        let (many, disks) = (cluster.len() > 1, cluster.has_disks());
        let spaces = cluster.ground.has_namespaces();
        match self {
            Self::Leave | Self::Split | Self::OneWay | Self::Ring if !many => {
                Some("there is one node only")
            }
            Self::Leave | Self::Split | Self::OneWay | Self::Ring | Self::Narrow if !spaces => {
                Some("it needs network namespaces")
            }
            Self::Power | Self::PowerAll | Self::Full | Self::Hang | Self::Slow | Self::Fail
                if !disks =>
            {
                Some("it needs disks of its own and a tracer")
            }
            Self::Flip if cluster.len() < 3 => Some("there is no other copy to repair from"),
            Self::Clock if faketime().is_none() => Some("libfaketime is not installed"),
            _ => None,
        }
    }
}

/// What a fault needs to know.
#[derive(Debug)]
pub struct Scene<'a> {
    /// What may be broken.
    pub cluster: &'a mut Cluster,
    /// Choices.
    pub random: &'a mut Random,
    /// The topic that is written to.
    pub topic: &'a str,
    /// Who leads some partition, if anybody knows.
    pub leader: Option<usize>,
    /// How long the fault lasts.
    pub lasts: Duration,
}

impl Scene<'_> {
    /// One node; a leader more often than others.
    fn one(&mut self) -> usize {
        match self.leader {
            Some(leader) if self.random.below(2) == 0 => leader,
            _ => self.random.index(self.cluster.len()),
        }
    }

    /// Nodes in an order by chance.
    fn shuffled(&mut self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.cluster.len()).collect();
        for at in (1..all.len()).rev() {
            all.swap(at, self.random.index(at + 1));
        }
        all
    }

    fn part(&self, a: usize, b: usize) -> Result<(), String> {
        self.cluster.ground.cut(a, b)?;
        self.cluster.ground.cut(b, a)
    }

    /// Breaks it. What was done, in words that name the nodes by their ids.
    ///
    /// # Errors
    /// Why it could not be.
    pub fn apply(&mut self, fault: Fault) -> Result<String, String> {
        let node = self.one();
        let id = node + 1;
        match fault {
            Fault::Kill => {
                let mut killed = self.shuffled();
                let count = 1 + self.random.index(killed.len());
                killed.truncate(count);
                if !killed.contains(&node) {
                    killed[0] = node;
                }
                killed.iter().for_each(|node| self.cluster.kill(*node));
                Ok(format!("kill -9 of {}", ids(&killed)))
            }
            Fault::KillAll => {
                (0..self.cluster.len()).for_each(|node| self.cluster.kill(node));
                Ok("kill -9 of all".to_owned())
            }
            Fault::Term => {
                let orderly = self.cluster.stop(node);
                if orderly {
                    Ok(format!("node {id} stopped in order"))
                } else {
                    Err(format!("node {id} did not stop within 30 s of SIGTERM"))
                }
            }
            Fault::Pause => {
                self.cluster.pause(node);
                Ok(format!("node {id} paused"))
            }
            Fault::Power => {
                self.cluster.cut_power(&[node]);
                Ok(format!("power cut of node {id}"))
            }
            Fault::PowerAll => {
                let all: Vec<usize> = (0..self.cluster.len()).collect();
                self.cluster.cut_power(&all);
                Ok("power cut of all".to_owned())
            }
            Fault::Flip => {
                // Always the same one: copies on others stay whole.
                let node = self.cluster.len() - 1;
                self.cluster.kill(node);
                let flipped = self.cluster.flip_bit(node, self.topic, self.random);
                let what =
                    flipped.unwrap_or_else(|| "nothing, there is no old segment yet".to_owned());
                Ok(format!(
                    "node {} was killed and has flipped: {what}",
                    node + 1
                ))
            }
            Fault::Clock => {
                let library = faketime().ok_or("libfaketime is not installed")?;
                let seconds = self.random.below(600);
                let by = format!("{}{}", if seconds < 300 { "-" } else { "+" }, seconds % 300);
                self.cluster.kill(node);
                let extra = [
                    ("LD_PRELOAD", library),
                    ("FAKETIME", by.clone()),
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
                ];
                let extra = extra.map(|(name, value)| (name.to_owned(), value));
                self.cluster.set_extra(node, extra.to_vec());
                self.cluster.start(node);
                Ok(format!("the clock of node {id} is {by} s off"))
            }
            Fault::Full | Fault::Hang | Fault::Slow | Fault::Fail => self.disk(fault, node),
            Fault::Lag | Fault::Drip | Fault::Reset => Ok(self.clients(fault, node)),
            Fault::Isolate
            | Fault::Leave
            | Fault::Split
            | Fault::OneWay
            | Fault::Ring
            | Fault::Narrow => self.network(fault, node),
        }
    }

    fn disk(&mut self, fault: Fault, node: usize) -> Result<String, String> {
        let (id, syncs) = (node + 1, "fsync,fdatasync");
        let traced = |traced: bool| match traced {
            true => Ok(()),
            false => Err(format!("node {id} does not run")),
        };
        Ok(match fault {
            Fault::Full => {
                self.cluster.fill_disk(node);
                format!("the disk of node {id} is full")
            }
            Fault::Hang => {
                self.cluster
                    .hang_disk(node, self.lasts + Duration::from_secs(10));
                format!("the disk of node {id} hangs")
            }
            Fault::Slow => {
                let ms = 50 + self.random.below(450);
                let inject = format!("{syncs}:delay_enter={}", ms * 1_000);
                traced(self.cluster.trace(node, syncs, &inject, false))?;
                format!("every sync of node {id} takes {ms} ms more")
            }
            _ => {
                let inject = format!("{syncs}:error=EIO:when=1");
                traced(self.cluster.trace(node, syncs, &inject, true))?;
                format!("a sync of node {id} fails")
            }
        })
    }

    fn clients(&mut self, fault: Fault, node: usize) -> String {
        let id = node + 1;
        let proxies = self.cluster.ground.proxies(node);
        match fault {
            Fault::Lag => {
                let ms = 50 + self.random.below(1_000);
                let rules = Rules::both(Way::late(Duration::from_millis(ms)));
                proxies.into_iter().for_each(|proxy| proxy.set(rules));
                format!("clients are {ms} ms away from node {id}")
            }
            Fault::Drip => {
                let way = Way {
                    sliver: 1 + self.random.index(100),
                    bytes_per_second: 20_000,
                    ..Way::default()
                };
                proxies
                    .into_iter()
                    .for_each(|proxy| proxy.set(Rules::both(way)));
                format!("bytes drip between clients and node {id}")
            }
            _ if self.random.below(2) == 0 => {
                proxies.into_iter().for_each(Proxy::half_close_all);
                format!("connections of clients to node {id} half closed")
            }
            _ => {
                proxies.into_iter().for_each(Proxy::reset_all);
                format!("connections of clients to node {id} reset")
            }
        }
    }

    fn network(&mut self, fault: Fault, node: usize) -> Result<String, String> {
        let (id, count) = (node + 1, self.cluster.len());
        let others = (0..count).filter(|other| *other != node);
        match fault {
            Fault::Isolate => {
                self.cluster.ground.isolate(node)?;
                Ok(format!("node {id} cut off"))
            }
            Fault::Leave => {
                for other in others {
                    self.part(node, other)?;
                }
                Ok(format!("node {id} cut off from nodes"))
            }
            Fault::Split => {
                let order = self.shuffled();
                let (few, many) = order.split_at(count / 2);
                for a in few {
                    for b in many {
                        self.part(*a, *b)?;
                    }
                }
                Ok(format!("{} and {} parted", ids(few), ids(many)))
            }
            Fault::OneWay => {
                let to: Vec<usize> = others.collect();
                let out = self.random.below(2) == 0;
                let which = match self.random.index(to.len() + 1) {
                    0 => to,
                    one => vec![to[one - 1]],
                };
                for other in &which {
                    let (from, to) = if out { (node, *other) } else { (*other, node) };
                    self.cluster.ground.cut(from, to)?;
                }
                let other = ids(&which);
                Ok(if out {
                    format!("nothing from node {id} reaches {other}")
                } else {
                    format!("nothing from {other} reaches node {id}")
                })
            }
            Fault::Ring => {
                let order = self.shuffled();
                // Of three, all would be neighbours: one link is missing then.
                let apart = |a: usize, b: usize| b - a > 1 && (count == 3 || b - a < count - 1);
                for b in 0..count {
                    for a in (0..b).filter(|a| apart(*a, b)) {
                        self.part(order[a], order[b])?;
                    }
                }
                Ok(format!(
                    "each reaches its neighbours in the order {}",
                    ids(&order)
                ))
            }
            _ => {
                self.cluster.ground.narrow(node, 256)?;
                Ok(format!("256 kbit/s leave node {id}"))
            }
        }
    }
}

fn ids(nodes: &[usize]) -> String {
    let ids: Vec<String> = nodes.iter().map(|node| (node + 1).to_string()).collect();
    ids.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_names_of_their_own() {
        for fault in Fault::ALL {
            assert_eq!(parse_faults(fault.name()), Ok(vec![*fault]));
        }
        assert_eq!(
            parse_faults("kill, power"),
            Ok(vec![Fault::Kill, Fault::Power])
        );
        assert!(
            parse_faults("kil")
                .unwrap_err()
                .contains("there is no fault \"kil\"")
        );
    }
}
