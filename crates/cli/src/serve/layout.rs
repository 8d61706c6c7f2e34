//! Where the nodes of `varve server --dev --nodes N` are: one rule for ports and directories, the same in the command
//! that starts all of them and in the one that starts a single node again.
//!
//! Node 1 has the addresses of `--dev`, or those that were given. Each further node listens ten ports higher, for
//! Kafka clients one port higher. Its data is in `node-ID` below the directory. Nothing is changed here: the checks
//! look at ports and directories before anything is started.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use varve_server::config::{ConfigError, Settings, Source};
use varve_server::datadir;

use super::{DEV, SettingsArgs};
use crate::failure::{FAILED, Failure, USAGE};

/// Below which the nodes' directories are.
const DIRECTORY: &str = "./varve-cluster";
/// What `--nodes` stands for beside [`DEV`], and before it.
const NODES: &[(&str, &str)] = &[
    ("storage.data_dir", DIRECTORY),
    ("listeners.peer.address", "127.0.0.1:8279"),
    ("listeners.peer.tls.mode", "insecure"),
    // One who kills a node to see what happens does not want to wait long for it.
    ("node.session.timeout.ms", "4000"),
    ("node.heartbeat.interval.ms", "1000"),
    // All nodes stop together: the last ones find nobody to hand their leaderships to.
    ("shutdown.drain_timeout", "2s"),
];
/// Keys that differ from node to node in a way that one value cannot say.
const REFUSED: &[&str] = &[
    "cluster.bootstrap_expect",
    "cluster.seeds",
    "listeners.client.advertised_address",
    "listeners.kafka.advertised_address",
    "listeners.peer.advertised_address",
    "node.id_from",
];

/// A listener of every node.
struct Listener {
    key: &'static str,
    name: &'static str,
    /// What moves the listeners of all nodes.
    flag: &'static str,
    /// From one node to the next.
    step: u16,
}

const LISTENERS: [Listener; 4] = [
    Listener {
        key: "listeners.client.address",
        name: "gRPC",
        flag: "--listen HOST:PORT",
        step: 10,
    },
    Listener {
        key: "http.address",
        name: "HTTP",
        flag: "--http HOST:PORT",
        step: 10,
    },
    Listener {
        key: "listeners.kafka.address",
        name: "Kafka",
        flag: "--set-config listeners.kafka.address=HOST:PORT",
        step: 1,
    },
    Listener {
        key: "listeners.peer.address",
        name: "peer",
        flag: "--set-config listeners.peer.address=HOST:PORT",
        step: 10,
    },
];

/// The nodes.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
    /// Addresses of each node, in the order of [`LISTENERS`]; empty: it has none.
    addresses: Vec<[String; 4]>,
}

impl Layout {
    /// Of this number of nodes.
    ///
    /// # Errors
    /// A setting that cannot hold for several nodes.
    pub fn of(args: &SettingsArgs, count: usize) -> Result<Self, Failure> {
        let base = filled(args.load_with(&[])?)?;
        for key in REFUSED {
            if let Some((_, source)) = base.get(key) {
                return Err(own(key, &source));
            }
        }
        match base.get("node.id") {
            Some((_, source @ (Source::File(_) | Source::Environment(_)))) => {
                return Err(own("node.id", &source));
            }
            _ if args.sets("node.id") => return Err(own("node.id", &Source::Flag)),
            _ => {}
        }
        let value = |key| base.get(key).map_or("", |(value, _)| value);
        let of = |node: usize| -> Result<[String; 4], Failure> {
            let mut addresses = [const { String::new() }; 4];
            for (address, listener) in addresses.iter_mut().zip(&LISTENERS) {
                *address = shifted(value(listener.key), listener, node)?;
            }
            Ok(addresses)
        };
        Ok(Self {
            dir: PathBuf::from(value("storage.data_dir")),
            addresses: (0..count).map(of).collect::<Result<_, _>>()?,
        })
    }

    /// Number of nodes.
    pub const fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Directory of a node.
    pub fn dir(&self, id: usize) -> PathBuf {
        self.dir.join(format!("node-{id}"))
    }

    /// Listener of a node's gRPC API.
    pub fn client(&self, id: usize) -> &str {
        &self.addresses[id - 1][0]
    }

    /// Listener of a node's metrics and health.
    pub fn http(&self, id: usize) -> &str {
        &self.addresses[id - 1][1]
    }

    /// A node's listener for Kafka clients; empty when there is none.
    pub fn kafka(&self, id: usize) -> &str {
        &self.addresses[id - 1][2]
    }

    /// Every node's gRPC address, with commas between.
    pub fn brokers(&self) -> String {
        let all: Vec<&str> = (1..=self.count()).map(|id| self.client(id)).collect();
        all.join(",")
    }

    /// Settings of a node.
    ///
    /// # Errors
    /// What is not valid.
    pub fn settings(&self, args: &SettingsArgs, id: usize) -> Result<Settings, Failure> {
        let own = |key: &str, value: String| (key.to_owned(), value);
        let addresses = self.addresses[id - 1].iter().zip(&LISTENERS);
        let mut flags: Vec<(String, String)> = addresses
            .map(|(address, listener)| own(listener.key, address.clone()))
            .collect();
        let seeds: Vec<&str> = self.addresses.iter().map(|all| all[3].as_str()).collect();
        flags.push(own("cluster.seeds", seeds.join(",")));
        flags.push(own("node.id", id.to_string()));
        let dir = self.dir(id).to_string_lossy().into_owned();
        flags.push(own("storage.data_dir", dir));
        filled(args.load_with(&flags)?)
    }

    /// Looks whether all nodes can start.
    ///
    /// # Errors
    /// The first thing that stands in the way, in a sentence; nothing was changed.
    pub fn check(&self) -> Result<(), Failure> {
        self.check_ports()?;
        self.check_directories()
    }

    fn check_ports(&self) -> Result<(), Failure> {
        let mut users: BTreeMap<&str, String> = BTreeMap::new();
        let mut held = Vec::new();
        for (node, addresses) in self.addresses.iter().enumerate() {
            for (address, listener) in addresses.iter().zip(&LISTENERS) {
                if address.is_empty() {
                    continue;
                }
                let user = format!("the {} listener of node {}", listener.name, node + 1);
                if let Some(other) = users.insert(address, user.clone()) {
                    return Err(Failure::usage(format!(
                        "{other} and {user} would both be at {address}; move one with {}; nothing was started",
                        listener.flag
                    )));
                }
                let bound = TcpListener::bind(address).map_err(|error| {
                    let text = format!(
                        "{user} cannot listen on {address}: {error}; stop what uses the port, or move that listener \
                         of all nodes with {}; nothing was started",
                        listener.flag
                    );
                    Failure::new(FAILED, text)
                })?;
                held.push(bound);
            }
        }
        Ok(())
    }

    fn check_directories(&self) -> Result<(), Failure> {
        let shown = self.dir.display();
        let refuse = |text: String| {
            Err(Failure::new(
                FAILED,
                format!("{text}; name another directory with --data-dir; nothing was started"),
            ))
        };
        if self.dir.join("meta.toml").exists() {
            return refuse(format!(
                "{shown} is the data directory of a single node, not of a cluster"
            ));
        }
        let beyond = self.dir(self.count() + 1);
        if beyond.exists() {
            return refuse(format!(
                "{shown} belongs to a cluster of more than {} nodes ({} exists); start it with a higher --nodes",
                self.count(),
                beyond.display()
            ));
        }
        let mut first: Option<(PathBuf, String)> = None;
        for id in 1..=self.count() {
            let dir = self.dir(id);
            let owner = datadir::owner(&dir)
                .map_err(|error| Failure::new(FAILED, format!("{error}; nothing was started")))?;
            let Some(owner) = owner else {
                continue;
            };
            if usize::try_from(owner.node.0) != Ok(id) {
                return refuse(format!(
                    "{} belongs to node {}, not {id}",
                    dir.display(),
                    owner.node
                ));
            }
            let Some(cluster) = owner.cluster.map(|cluster| cluster.to_string()) else {
                continue;
            };
            if !dir.join("raft").exists() {
                return refuse(format!(
                    "{} is the data directory of a single node, not of a cluster",
                    dir.display()
                ));
            }
            match &first {
                Some((other, expected)) if *expected != cluster => {
                    return refuse(format!(
                        "{} belongs to cluster {cluster}, but {} belongs to cluster {expected}",
                        dir.display(),
                        other.display()
                    ));
                }
                Some(_) => {}
                None => first = Some((dir, cluster)),
            }
        }
        Ok(())
    }

    /// Base directory, for people.
    pub fn base(&self) -> &Path {
        &self.dir
    }
}

fn filled(mut settings: Settings) -> Result<Settings, Failure> {
    let refused = |error: ConfigError| Failure::new(USAGE, error.to_string());
    settings.fill("--nodes", NODES).map_err(refused)?;
    settings.fill("--dev", DEV).map_err(refused)?;
    Ok(settings)
}

fn own(key: &str, source: &Source) -> Failure {
    Failure::usage(format!(
        "{key} (from {source}) cannot be the same for several nodes; leave it out with --nodes, which gives each node \
         its own; nothing was started"
    ))
}

fn shifted(address: &str, listener: &Listener, node: usize) -> Result<String, Failure> {
    if address.is_empty() {
        return Ok(String::new());
    }
    let wrong = || {
        Failure::usage(format!(
            "{} = {address:?} leaves no ports for all nodes: node 1 listens there and each further node {} higher; \
             expected HOST:PORT, such as 127.0.0.1:8278; nothing was started",
            listener.key,
            if listener.step == 1 {
                "1 port"
            } else {
                "10 ports"
            }
        ))
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let shift = u16::try_from(node)
        .ok()
        .and_then(|n| n.checked_mul(listener.step));
    let port = shift
        .and_then(|shift| port.checked_add(shift))
        .filter(|_| port > 0)
        .ok_or_else(wrong)?;
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(set: &[&str]) -> SettingsArgs {
        SettingsArgs {
            set_config: set.iter().map(|text| (*text).to_owned()).collect(),
            ..SettingsArgs::default()
        }
    }

    #[test]
    fn ports_and_directories_follow_one_rule() {
        let args = args(&[]);
        let layout = Layout::of(&args, 3).unwrap();
        let all = layout.addresses.iter().flatten().map(String::as_str);
        let ports: Vec<&str> = all.filter_map(|a| a.strip_prefix("127.0.0.1:")).collect();
        assert_eq!(
            ports,
            [
                "8278", "8277", "9092", "8279", "8288", "8287", "9093", "8289", "8298", "8297",
                "9094", "8299"
            ]
        );
        let settings = layout.settings(&args, 2).unwrap();
        let value = |key: &str| settings.get(key).unwrap().0.to_owned();
        assert_eq!(value("node.id"), "2");
        assert_eq!(value("storage.data_dir"), "./varve-cluster/node-2");
        assert_eq!(value("listeners.client.address"), "127.0.0.1:8288");
        assert_eq!(
            value("cluster.seeds"),
            "127.0.0.1:8279,127.0.0.1:8289,127.0.0.1:8299"
        );
        assert_eq!(
            layout.brokers(),
            "127.0.0.1:8278,127.0.0.1:8288,127.0.0.1:8298"
        );
        assert!(varve_server::Config::resolve(&settings).is_ok());
    }

    #[test]
    fn given_addresses_are_those_of_the_first_node() {
        let args = SettingsArgs {
            data_dir: Some("/data".to_owned()),
            listen: Some("localhost:7000".to_owned()),
            ..args(&["listeners.kafka.address="])
        };
        let layout = Layout::of(&args, 2).unwrap();
        assert_eq!(layout.client(2), "localhost:7010");
        assert_eq!(layout.kafka(2), "");
        assert_eq!(layout.dir(2), Path::new("/data/node-2"));
    }

    #[test]
    fn what_cannot_be_the_same_for_all_is_refused() {
        for (set, word) in [
            ("cluster.seeds=a:1", "cluster.seeds (from command line)"),
            ("node.id=4", "node.id (from command line)"),
            (
                "listeners.client.address=127.0.0.1:0",
                "no ports for all nodes",
            ),
            ("http.address=127.0.0.1:65530", "no ports for all nodes"),
            ("http.address=8277", "expected HOST:PORT"),
        ] {
            let failure = Layout::of(&args(&[set]), 3).unwrap_err();
            assert_eq!(failure.code, USAGE, "{set}");
            assert!(failure.message.contains(word), "{set}: {failure:?}");
        }
    }

    #[test]
    fn listeners_that_meet_are_named() {
        let args = args(&["listeners.kafka.address=127.0.0.1:8288"]);
        let failure = Layout::of(&args, 2).unwrap().check_ports().unwrap_err();
        assert!(
            failure.message.contains("would both be at 127.0.0.1:8288")
                || failure.message.contains("cannot listen"),
            "{failure:?}"
        );
    }
}
