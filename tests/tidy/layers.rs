//! The crates by layer: what each is for, what of ours it may use, what of others it must not.

/// One crate.
pub struct Row {
    /// Folder and package name without prefix.
    pub name: &'static str,
    /// Edges point to lower layers only. `None`: not part of the product.
    pub layer: Option<u8>,
    /// What it is, in one sentence; `docs/architecture.md` repeats it.
    pub sentence: &'static str,
    /// Crates of ours it may use; `*`: any.
    pub uses: &'static [&'static str],
    /// Crates of others it must not use.
    pub must_not: &'static [&'static str],
}

impl Row {
    /// Whether an edge to `other` is allowed.
    pub fn may_use(&self, other: &str) -> bool {
        self.uses.contains(&other) || (self.uses == ["*"] && other != self.name)
    }
}

/// What layers 0 to 3 must not use: waiting, chance, wires.
const PURE: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-stream",
    "futures-util",
    "async-trait",
    "rand",
    "getrandom",
    "uuid",
    "serde",
    "serde_json",
    "prost",
    "prost-types",
    "tonic",
    "axum",
    "openraft",
    "rustix",
    "memmap2",
    "tracing",
    "anyhow",
];
/// The checker is pure too, and a history is JSON.
const CHECKER: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-stream",
    "futures-util",
    "async-trait",
    "rand",
    "getrandom",
    "uuid",
    "prost",
    "prost-types",
    "tonic",
    "axum",
    "openraft",
    "rustix",
    "memmap2",
    "tracing",
    "anyhow",
];
/// `vfs` is where the operating system is.
const SEAM: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-stream",
    "futures-util",
    "async-trait",
    "rand",
    "getrandom",
    "uuid",
    "serde",
    "serde_json",
    "prost",
    "prost-types",
    "tonic",
    "axum",
    "openraft",
    "tracing",
    "anyhow",
];
/// The broker runs things and knows no protocol.
const NO_PROTOCOL: &[&str] = &[
    "prost",
    "prost-types",
    "tonic",
    "tonic-prost",
    "axum",
    "hyper-util",
    "http",
    "openraft",
    "serde",
    "anyhow",
    "clap",
];
/// The consensus on metadata knows openraft, and no wire.
const NO_PROTOCOL_BUT_RAFT: &[&str] = &[
    "prost",
    "prost-types",
    "tonic",
    "tonic-prost",
    "axum",
    "hyper-util",
    "http",
    "serde",
    "anyhow",
    "clap",
];
const NO_ANYHOW: &[&str] = &["anyhow", "clap"];

/// Every crate.
pub const LAYERS: &[Row] = &[
    Row {
        name: "types",
        layer: Some(0),
        sentence: "the domain's types and every hard limit",
        uses: &[],
        must_not: PURE,
    },
    Row {
        name: "record",
        layer: Some(1),
        sentence: "the byte format of a batch: Kafka's record batch v2",
        uses: &["types"],
        must_not: PURE,
    },
    Row {
        name: "vfs",
        layer: Some(1),
        sentence: "the only door to the operating system: files, sync, time; with disks that fail on command",
        uses: &["types"],
        must_not: SEAM,
    },
    Row {
        name: "storage",
        layer: Some(2),
        sentence: "the log of one partition in segment files: one writer, many readers",
        uses: &["types", "record", "vfs"],
        must_not: PURE,
    },
    Row {
        name: "partition",
        layer: Some(2),
        sentence: "the replication state machine of one partition, without I/O",
        uses: &["types", "record"],
        must_not: PURE,
    },
    Row {
        name: "metadata",
        layer: Some(2),
        sentence: "the cluster's state, changed only by a pure apply(state, command)",
        uses: &["types"],
        must_not: PURE,
    },
    Row {
        name: "groups",
        layer: Some(2),
        sentence: "consumer groups and committed offsets, without I/O",
        uses: &["types"],
        must_not: PURE,
    },
    Row {
        name: "txn",
        layer: Some(2),
        sentence: "transactions over several partitions, without I/O",
        uses: &["types"],
        must_not: PURE,
    },
    Row {
        name: "broker-api",
        layer: Some(3),
        sentence: "the protocol-neutral API: plain data and one `Broker` trait",
        uses: &["types", "record"],
        must_not: PURE,
    },
    Row {
        name: "broker",
        layer: Some(4),
        sentence: "runs the state machines: lanes, flushers, readers, admission",
        uses: &[
            "types",
            "record",
            "vfs",
            "storage",
            "partition",
            "metadata",
            "groups",
            "txn",
            "broker-api",
        ],
        must_not: NO_PROTOCOL,
    },
    Row {
        name: "metadata-raft",
        layer: Some(4),
        sentence: "replicates the cluster's state by Raft",
        uses: &["types", "record", "vfs", "storage", "metadata"],
        must_not: NO_PROTOCOL_BUT_RAFT,
    },
    Row {
        name: "proto",
        layer: Some(4),
        sentence: "messages and services generated from `proto/`, nothing else",
        uses: &[],
        must_not: NO_ANYHOW,
    },
    Row {
        name: "tls",
        layer: Some(4),
        sentence: "TLS for listeners and connections: certificates from files, reloaded when they change",
        uses: &["types"],
        must_not: NO_ANYHOW,
    },
    Row {
        name: "frontend-grpc",
        layer: Some(5),
        sentence: "the public gRPC API as a thin adapter",
        uses: &["types", "record", "proto", "broker-api", "tls"],
        must_not: NO_ANYHOW,
    },
    Row {
        name: "frontend-kafka",
        layer: Some(5),
        sentence: "the Kafka protocol as a thin adapter",
        uses: &["types", "record", "broker-api", "tls"],
        must_not: NO_ANYHOW,
    },
    Row {
        name: "peer-grpc",
        layer: Some(5),
        sentence: "node to node over gRPC: replication, heartbeats, consensus",
        uses: &[
            "types",
            "proto",
            "broker",
            "broker-api",
            "metadata",
            "partition",
            "tls",
        ],
        must_not: NO_ANYHOW,
    },
    Row {
        name: "client",
        layer: Some(5),
        sentence: "the Rust client: batching, routing, retries",
        uses: &["types", "record", "proto", "broker-api", "tls"],
        must_not: NO_ANYHOW,
    },
    Row {
        name: "forward",
        layer: Some(6),
        sentence: "forwards calls that another node must answer, so that any node will do",
        uses: &["types", "proto", "broker-api", "client"],
        must_not: NO_ANYHOW,
    },
    Row {
        name: "server",
        layer: Some(7),
        sentence: "the node as a library: configuration, wiring, lifecycle, telemetry",
        uses: &[
            "types",
            "vfs",
            "storage",
            "metadata",
            "metadata-raft",
            "broker-api",
            "broker",
            "proto",
            "frontend-grpc",
            "frontend-kafka",
            "peer-grpc",
            "client",
            "forward",
            "tls",
        ],
        must_not: &["clap"],
    },
    Row {
        name: "cli",
        layer: Some(8),
        sentence: "the `varve` binary: server, producer, consumer and operator's tool",
        uses: &[
            "types", "record", "client", "proto", "server", "storage", "vfs", "check", "workload",
        ],
        must_not: &[],
    },
    Row {
        name: "check",
        layer: Some(0),
        sentence: "the independent checker: reads a history of what clients saw, returns a verdict",
        uses: &[],
        must_not: CHECKER,
    },
    Row {
        name: "workload",
        layer: Some(6),
        sentence: "test clients that record what they saw as a history for the checker",
        uses: &["types", "client", "check"],
        must_not: NO_ANYHOW,
    },
    Row {
        name: "sim",
        layer: Some(7),
        sentence: "the simulator: disks and clusters under every fault, in simulated time, with planted bugs",
        uses: &[
            "types",
            "record",
            "vfs",
            "storage",
            "partition",
            "metadata",
            "groups",
            "txn",
            "broker-api",
            "broker",
        ],
        must_not: &["tonic", "prost", "axum", "openraft", "rand", "anyhow"],
    },
    Row {
        name: "xtask",
        layer: Some(7),
        sentence: "`cargo xtask`: checks and long runs; uses no other crate",
        uses: &[],
        must_not: &[],
    },
    Row {
        name: "tests",
        layer: None,
        sentence: "test suites that need more than one crate",
        uses: &["*"],
        must_not: &[],
    },
    Row {
        name: "benches",
        layer: None,
        sentence: "benchmarks",
        uses: &["*"],
        must_not: &[],
    },
];
