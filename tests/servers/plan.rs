//! What a seed makes: how many nodes there are, what the topic promises, how fast everything is.

use std::time::Duration;

use varve_tests::chaos::Random;
use varve_workload::Kind;

/// See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What everything is drawn from.
    pub seed: u64,
    /// What clients do.
    pub kind: Kind,
    /// Nodes.
    pub nodes: usize,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Replicas of each.
    pub replicas: i32,
    /// `min.insync.replicas`.
    pub min_isr: i32,
    /// Acknowledged is what replicas have synced; otherwise what they have written, and no power is cut.
    pub fsync: bool,
    /// Bytes of the journal; 0: none.
    pub journal_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Silence after which a node is given up for dead.
    pub session: Duration,
    /// Longest time of a message on its way, but for few.
    pub latency: Duration,
    /// Longest time of one piece of work of a disk.
    pub disk: Duration,
    /// Sends in a second.
    pub rate: u32,
    /// How long things break.
    pub faulty: Duration,
    /// Milliseconds by which wall clocks of nodes differ at most.
    pub skew_ms: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, faulty: Duration) -> Self {
        let mut random = Random::new(seed ^ 0x91a7);
        let mut pick = |of: &[u64]| of[random.index(of.len())];
        let nodes = if pick(&[0, 0, 0, 1]) == 0 { 3 } else { 5 };
        let replicas = if nodes == 5 { pick(&[3, 3, 5]) } else { 3 };
        let narrow = |n: u64| i32::try_from(n).unwrap_or(1);
        let kinds = Kind::ALL.len() as u64;
        Self {
            seed,
            // In turn, so that a few seeds have all of them.
            kind: Kind::ALL[usize::try_from(seed % kinds).unwrap_or(0)],
            nodes,
            partitions: narrow(pick(&[1, 2, 4])),
            replicas: narrow(replicas),
            min_isr: narrow(pick(&[2, 2, 2, replicas / 2 + 1])),
            fsync: pick(&[1, 1, 0]) == 1,
            journal_bytes: pick(&[0, 1 << 20, 4 << 20]),
            segment_bytes: pick(&[64 << 10, 256 << 10, 1 << 20]),
            session: Duration::from_millis(pick(&[2_000, 3_000, 6_000])),
            latency: Duration::from_millis(pick(&[1, 2, 5, 20])),
            disk: Duration::from_millis(pick(&[0, 1, 3, 15])),
            rate: u32::try_from(pick(&[40, 100, 200])).unwrap_or(100),
            faulty,
            skew_ms: pick(&[0, 500, 60_000]),
        }
    }

    /// Settings of node number `node`, from 0.
    pub fn settings(&self, node: usize) -> Vec<(String, String)> {
        let seeds: Vec<String> = (0..self.nodes)
            .map(|n| format!("{}:8279", name(n)))
            .collect();
        let heartbeat = self.session.as_millis() / 6;
        let pairs = [
            ("node.id", (node + 1).to_string()),
            ("cluster.seeds", seeds.join(",")),
            ("storage.data_dir", "/data".to_owned()),
            ("storage.min_free_bytes", "0".to_owned()),
            ("storage.min_free_percent", "0".to_owned()),
            ("journal.max.bytes", self.journal_bytes.to_string()),
            ("offsets.topic.num.partitions", "2".to_owned()),
            ("transaction.state.log.num.partitions", "2".to_owned()),
            ("group.session.timeout.ms", "3000".to_owned()),
            ("group.heartbeat.interval.ms", "500".to_owned()),
            ("listeners.client.address", "0.0.0.0:8278".to_owned()),
            (
                "listeners.client.advertised_address",
                format!("{}:8278", name(node)),
            ),
            ("listeners.client.tls.mode", "insecure".to_owned()),
            ("listeners.peer.address", "0.0.0.0:8279".to_owned()),
            (
                "listeners.peer.advertised_address",
                format!("{}:8279", name(node)),
            ),
            ("listeners.peer.tls.mode", "insecure".to_owned()),
            ("http.address", "0.0.0.0:8277".to_owned()),
            ("scrub.bytes.per.second", "0".to_owned()),
            (
                "node.session.timeout.ms",
                self.session.as_millis().to_string(),
            ),
            ("node.heartbeat.interval.ms", heartbeat.to_string()),
            ("replica.lag.time.max.ms", "3000".to_owned()),
            ("shutdown.drain_grace", "0s".to_owned()),
            ("shutdown.drain_timeout", "5s".to_owned()),
            ("shutdown.stream_grace", "1s".to_owned()),
        ];
        pairs.map(|(k, v)| (k.to_owned(), v)).into()
    }

    /// One line.
    pub fn text(&self) -> String {
        format!(
            "{}, {} nodes, {} partitions of {} replicas, min.insync.replicas {}, {}, journal {} KiB, segments {} KiB, \
             session {:?}, latency {:?}, disk {:?}, {} sends/s, wall clocks off by {} ms",
            self.kind.name(),
            self.nodes,
            self.partitions,
            self.replicas,
            self.min_isr,
            if self.fsync { "fsync" } else { "replicated" },
            self.journal_bytes >> 10,
            self.segment_bytes >> 10,
            self.session,
            self.latency,
            self.disk,
            self.rate,
            self.skew_ms,
        )
    }
}

/// Name of the host of node number `node`, from 0.
pub fn name(node: usize) -> String {
    format!("n{}", node + 1)
}
