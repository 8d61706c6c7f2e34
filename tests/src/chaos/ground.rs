//! Where the nodes stand: each in a network namespace on a bridge, or on loopback addresses where namespaces
//! cannot be had. In both cases clients come through a proxy in front of each node.
//!
//! Namespaces can be parted in every way: whoever is cut off gets silence, not an error. On loopback only the
//! proxies part anybody: what goes to a node can be held, who it comes from cannot be told.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::machine::run;
use crate::proxy::{Proxy, Rules, Way};

use super::say;

/// Ports of a node.
pub const CLIENT: u16 = 8278;
const PEER: u16 = 8279;
const HTTP: u16 = 8277;
const KAFKA: u16 = 9092;
/// Where the proxies listen, plus the number of the node.
const PROXY: u16 = 9100;

/// See the module.
#[derive(Debug)]
pub struct Ground {
    nodes: usize,
    /// First three numbers of the addresses.
    subnet: String,
    spaces: Option<Spaces>,
    clients: Vec<Proxy>,
    /// In front of the Kafka listeners.
    kafka: Vec<Proxy>,
    /// In front of the peer listeners, on loopback only.
    peers: Vec<Proxy>,
}

#[derive(Debug)]
struct Spaces {
    tag: String,
    nodes: usize,
}

fn names(tag: &str, node: usize) -> (String, String) {
    (
        format!("varve-chaos-{tag}-{node}"),
        format!("vc{tag}-{node}"),
    )
}

/// Numbers of addresses that no other run uses at this time.
fn subnet(first: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    // A process may stand on several grounds, one after the other or at once.
    let number = std::process::id() + 1_009 * NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{first}.{}.{}", 100 + number / 250 % 150, number % 250)
}

impl Spaces {
    fn try_new(nodes: usize, subnet: &str) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        sweep();
        // The process first: whoever finds leftovers looks whether it lives. Names of links are short.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed) % 36;
        let number = char::from_digit(number, 36).unwrap_or('z');
        let tag = format!("{:x}.{number}", std::process::id());
        let spaces = Self { tag, nodes };
        let switch = switch_of(&spaces.tag);
        // The bridge has a space of its own: what the machine's firewall does to bridges is not our test.
        run("ip", &["netns", "add", &switch])?;
        let inside = |arguments: &[&str]| {
            let all: Vec<&str> = ["-n", &switch]
                .into_iter()
                .chain(arguments.iter().copied())
                .collect();
            run("ip", &all)
        };
        inside(&["link", "add", "bridge", "type", "bridge"])?;
        inside(&["link", "set", "bridge", "up"])?;
        let (up, down) = (format!("vc{}-u", spaces.tag), format!("vc{}-d", spaces.tag));
        run(
            "ip",
            &[
                "link", "add", &up, "type", "veth", "peer", "name", &down, "netns", &switch,
            ],
        )?;
        inside(&["link", "set", &down, "master", "bridge", "up"])?;
        run(
            "ip",
            &["addr", "add", &format!("{subnet}.254/24"), "dev", &up],
        )?;
        run("ip", &["link", "set", &up, "up"])?;
        for node in 0..nodes {
            let (space, port) = names(&spaces.tag, node);
            let link = format!("{port}i");
            run("ip", &["netns", "add", &space])?;
            run(
                "ip",
                &[
                    "link", "add", &port, "netns", &switch, "type", "veth", "peer", "name", &link,
                    "netns", &space,
                ],
            )?;
            inside(&["link", "set", &port, "master", "bridge", "up"])?;
            let address = format!("{subnet}.{}/24", node + 1);
            run("ip", &["-n", &space, "addr", "add", &address, "dev", &link])?;
            run("ip", &["-n", &space, "link", "set", &link, "up"])?;
            run("ip", &["-n", &space, "link", "set", "lo", "up"])?;
            // Looked at once: a filter that cannot be set parts nobody.
            spaces.inside(node, &["iptables", "-F", "INPUT"])?;
        }
        Ok(spaces)
    }

    /// Switches the port of a node.
    fn port(&self, node: usize, state: &str) -> Result<(), String> {
        let (_, port) = names(&self.tag, node);
        run(
            "ip",
            &["-n", &switch_of(&self.tag), "link", "set", &port, state],
        )
        .map(drop)
    }

    fn inside(&self, node: usize, command: &[&str]) -> Result<String, String> {
        let (space, _) = names(&self.tag, node);
        let all: Vec<&str> = ["netns", "exec", &space]
            .into_iter()
            .chain(command.iter().copied())
            .collect();
        run("ip", &all)
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        clear(&self.tag, self.nodes);
    }
}

fn clear(tag: &str, nodes: usize) {
    for node in 0..nodes {
        let space = names(tag, node).0;
        // Nodes outlive a harness that was killed itself.
        for pid in run("ip", &["netns", "pids", &space])
            .unwrap_or_default()
            .lines()
        {
            let _ = run("kill", &["-9", pid.trim()]);
        }
        let _ = run("ip", &["netns", "del", &space]);
    }
    // The links in a space go with it, and so do their other ends.
    let _ = run("ip", &["netns", "del", &switch_of(tag)]);
}

fn switch_of(tag: &str) -> String {
    format!("varve-chaos-{tag}-switch")
}

/// Takes away what runs that were killed have left.
fn sweep() {
    for line in run("ip", &["netns", "list"]).unwrap_or_default().lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let tag = name
            .strip_prefix("varve-chaos-")
            .and_then(|rest| rest.split('-').next());
        let Some(tag) = tag else { continue };
        let pid = tag.split('.').next().unwrap_or_default();
        let alive = u32::from_str_radix(pid, 16)
            .is_ok_and(|pid| Path::new("/proc").join(pid.to_string()).exists());
        if !alive {
            clear(tag, 16);
        }
    }
}

impl Ground {
    /// Makes room for so many nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        let subnet = subnet("10");
        match Spaces::try_new(nodes, &subnet) {
            Ok(spaces) => Self::with(nodes, subnet, Some(spaces)),
            Err(why) => {
                say(&format!(
                    "NO NETWORK NAMESPACES ({why}): nodes stand on loopback addresses, only what goes to a \
                     whole node can be cut"
                ));
                Self::on_loopback(nodes)
            }
        }
    }

    /// As if there were no namespaces.
    #[must_use]
    pub fn on_loopback(nodes: usize) -> Self {
        Self::with(nodes, subnet("127"), None)
    }

    fn with(nodes: usize, subnet: String, spaces: Option<Spaces>) -> Self {
        let mut ground = Self {
            nodes,
            subnet,
            spaces,
            clients: Vec::new(),
            kafka: Vec::new(),
            peers: Vec::new(),
        };
        for node in 0..nodes {
            let port = PROXY + u16::try_from(node).unwrap_or(0);
            let listen = format!("{}.254:{port}", ground.subnet);
            let target = format!("{}:{CLIENT}", ground.host(node));
            ground.clients.push(Proxy::start(&listen, &target));
            let listen = format!("{}.254:{}", ground.subnet, port + 200);
            ground
                .kafka
                .push(Proxy::start(&listen, &ground.kafka(node)));
            if ground.spaces.is_none() {
                let listen = format!("{}.254:{}", ground.subnet, port + 100);
                let target = format!("{}:{PEER}", ground.host(node));
                ground.peers.push(Proxy::start(&listen, &target));
            }
        }
        ground
    }

    /// Whether every shape of partition can be had.
    #[must_use]
    pub const fn has_namespaces(&self) -> bool {
        self.spaces.is_some()
    }

    fn host(&self, node: usize) -> String {
        format!("{}.{}", self.subnet, node + 1)
    }

    /// Where a node listens for clients.
    #[must_use]
    pub fn client(&self, node: usize) -> String {
        format!("{}:{CLIENT}", self.host(node))
    }

    /// What a node tells clients to use.
    #[must_use]
    pub fn advertised_client(&self, node: usize) -> String {
        self.clients[node].address()
    }

    /// Where a node listens for Kafka's clients.
    #[must_use]
    pub fn kafka(&self, node: usize) -> String {
        format!("{}:{KAFKA}", self.host(node))
    }

    /// What a node tells Kafka's clients to use.
    #[must_use]
    pub fn advertised_kafka(&self, node: usize) -> String {
        self.kafka[node].address()
    }

    /// Where a node listens for nodes.
    #[must_use]
    pub fn peer(&self, node: usize) -> String {
        format!("{}:{PEER}", self.host(node))
    }

    /// What a node tells nodes to use.
    #[must_use]
    pub fn advertised_peer(&self, node: usize) -> String {
        let proxied = self.peers.get(node).map(Proxy::address);
        proxied.unwrap_or_else(|| self.peer(node))
    }

    /// Where a node shows its health.
    #[must_use]
    pub fn http(&self, node: usize) -> String {
        format!("{}:{HTTP}", self.host(node))
    }

    /// A command that runs where a node stands; its process is the program's own.
    #[must_use]
    pub fn command(&self, node: usize, program: &Path) -> Command {
        let Some(spaces) = &self.spaces else {
            return Command::new(program);
        };
        let (space, _) = names(&spaces.tag, node);
        // Not `ip netns exec`, which gives it mounts of its own: disks would stay busy.
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/var/run/netns/{space}"))
            .arg(program);
        command
    }

    /// Nothing that `from` sends reaches `to`, which goes for nodes only.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn cut(&self, from: usize, to: usize) -> Result<(), String> {
        let Some(spaces) = &self.spaces else {
            return Err("one link cannot be cut on loopback".to_owned());
        };
        let host = self.host(from);
        let rule = ["iptables", "-I", "INPUT", "-s", &host, "-j", "DROP"];
        spaces.inside(to, &rule).map(drop)
    }

    /// Nobody reaches a node, clients neither, and it reaches nobody.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn isolate(&self, node: usize) -> Result<(), String> {
        if let Some(spaces) = &self.spaces {
            return spaces.port(node, "down");
        }
        for proxy in self.proxies(node) {
            proxy.set(Rules::both(Way::held()));
        }
        self.peers[node].set(Rules::both(Way::held()));
        Ok(())
    }

    /// At most so many kilobits a second leave a node.
    ///
    /// # Errors
    /// What the kernel said, or that there is none to ask.
    pub fn narrow(&self, node: usize, kilobits: u32) -> Result<(), String> {
        let Some(spaces) = &self.spaces else {
            return Err("links have no rate on loopback".to_owned());
        };
        let (_, port) = names(&spaces.tag, node);
        let rate = format!("{kilobits}kbit");
        let inside = format!("{port}i");
        let limit = [
            "tc", "qdisc", "replace", "dev", &inside, "root", "tbf", "rate", &rate, "burst",
            "16kb", "latency", "400ms",
        ];
        spaces.inside(node, &limit).map(drop)
    }

    /// The ways of clients to a node, of ours and of Kafka's.
    #[must_use]
    pub fn proxies(&self, node: usize) -> [&Proxy; 2] {
        [&self.clients[node], &self.kafka[node]]
    }

    /// Every link works as if nothing had happened.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn heal(&self) -> Result<(), String> {
        let clients = self.clients.iter().chain(&self.kafka);
        clients.chain(&self.peers).for_each(Proxy::heal);
        let Some(spaces) = &self.spaces else {
            return Ok(());
        };
        for node in 0..self.nodes {
            let (_, port) = names(&spaces.tag, node);
            spaces.port(node, "up")?;
            spaces.inside(node, &["iptables", "-F", "INPUT"])?;
            let inside = format!("{port}i");
            // There is none unless it was narrowed.
            let _ = spaces.inside(node, &["tc", "qdisc", "del", "dev", &inside, "root"]);
        }
        Ok(())
    }
}
