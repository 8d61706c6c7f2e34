//! Every hard limit in one place, with the relations between them checked at compile time. Defaults that
//! operators may change live in configuration; these are the bounds configuration itself must keep.

/// Longest topic, group, member or producer name, in bytes. Kafka's rule; fits a file name with a suffix.
pub const NAME_MAX_BYTES: usize = 249;
/// Most partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: i32 = 10_000;
/// Most replicas of one partition.
pub const REPLICATION_FACTOR_MAX: i32 = 7;
/// Most nodes of a cluster.
pub const NODES_MAX: usize = 10_000;
/// Most partitions of one node.
pub const PARTITIONS_PER_NODE_MAX: usize = 20_000;
/// Largest batch on the wire and on disk, header included, in bytes: Kafka's bound of a request.
pub const BATCH_MAX_BYTES: usize = 100 * 1024 * 1024;
/// Largest batch that is built of records here, header included, in bytes. It fits a request of the gRPC API.
pub const BUILT_BATCH_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Default of `max.message.bytes`.
pub const MESSAGE_DEFAULT_MAX_BYTES: usize = 1024 * 1024;
/// Bytes that a record takes at least: its length, attributes, deltas of time and offset, and the lengths of key, value
/// and headers.
pub const RECORD_MIN_BYTES: usize = 7;
/// Most records of one batch: only bytes count, so these are what a payload can hold once it is decompressed.
pub const BATCH_MAX_RECORDS: u32 = (DECOMPRESSED_MAX_BYTES / RECORD_MIN_BYTES) as u32;
/// Most records in simple form in one request.
pub const REQUEST_MAX_RECORDS: usize = 10_000;
/// Bytes a batch may grow to when decompressed.
pub const DECOMPRESSED_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Largest request message, in bytes.
pub const REQUEST_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Largest control-plane request message, in bytes.
pub const CONTROL_REQUEST_MAX_BYTES: usize = 256 * 1024;
/// Largest request message about groups, in bytes: a member says all that it owns at once.
pub const GROUP_REQUEST_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Largest `max_bytes` of a fetch, in bytes.
pub const FETCH_MAX_BYTES: usize = 50 * 1024 * 1024;
/// Largest answer when the client names no bound: stock gRPC clients refuse more than 4 MiB.
pub const RESPONSE_DEFAULT_MAX_BYTES: usize = 3 * 1024 * 1024;
/// Most partitions, queries or offsets in one request.
pub const REQUEST_MAX_PARTITIONS: usize = 1_000;
/// Longest time a fetch or heartbeat may be held, in milliseconds.
pub const WAIT_MAX_MS: u64 = 30_000;
/// Most members of one group.
pub const GROUP_MAX_MEMBERS: usize = 1_000;
/// Default of `metrics.groups.max`: groups of a node that have metric series of their own.
pub const GROUPS_METRICS_DEFAULT_MAX: usize = 1_000;

/// Default of `groups.max`: groups that one node coordinates.
pub const GROUPS_DEFAULT_MAX: usize = 1_000_000;
/// Most bytes that a member of the classic group protocol says with all of its protocols together.
pub const GROUP_PROTOCOLS_MAX_BYTES: usize = GROUP_RECORD_MAX_BYTES;
/// Most bytes that all members of a group of the classic protocol say with all of their protocols.
pub const GROUP_MEMBERS_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Most bytes that members of a group of the classic protocol say and are assigned, together: the group is one record.
pub const GROUP_RECORD_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Longest topic pattern of a subscription, in bytes.
pub const TOPIC_PATTERN_MAX_BYTES: usize = 4096;
/// Longest commit metadata, in bytes.
pub const COMMIT_METADATA_MAX_BYTES: usize = 4096;
/// Shortest session timeout of a group member, in milliseconds.
pub const SESSION_TIMEOUT_MIN_MS: u64 = 6_000;
/// Longest session timeout of a group member, in milliseconds (30 minutes).
pub const SESSION_TIMEOUT_MAX_MS: u64 = 1_800_000;
/// Batches remembered per producer and partition (Kafka's `NUM_BATCHES_TO_RETAIN`).
pub const PRODUCER_BATCHES_REMEMBERED: usize = 5;
/// Memory that a remembered producer session takes, in bytes, with what the maps around it take (`load many`).
pub const PRODUCER_SESSION_BYTES: usize = 320;
/// Default of `producer.sessions.max.bytes`: memory for the producer sessions of a node.
pub const PRODUCER_SESSIONS_DEFAULT_BYTES: u64 = 512 * 1024 * 1024;
/// Producer sessions that fit into the default.
pub const PRODUCER_SESSIONS_MAX: usize =
    PRODUCER_SESSIONS_DEFAULT_BYTES as usize / PRODUCER_SESSION_BYTES;
/// A partition forgets an idle producer session after this long, in milliseconds (7 days).
pub const PRODUCER_IDLE_EXPIRY_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// Transactions of one partition that are open, or were aborted and still have records in its log. Beyond it no
/// further transaction may begin there.
pub const TRANSACTIONS_PER_PARTITION_MAX: usize = 1_000_000;
/// Default of `transactional.ids.max`: transactional ids that one node coordinates.
pub const TRANSACTIONAL_IDS_DEFAULT_MAX: usize = 1_000_000;
/// Transactions of one partition of the transaction log that are open or being completed.
pub const TRANSACTIONS_OPEN_MAX: usize = 10_000;
/// Partitions of one transaction.
pub const TRANSACTION_MAX_PARTITIONS: usize = 10_000;
/// Shortest transaction timeout, in milliseconds.
pub const TRANSACTION_TIMEOUT_MIN_MS: u64 = 1_000;
/// Longest transaction timeout, in milliseconds (15 minutes, Kafka's `transaction.max.timeout.ms`).
pub const TRANSACTION_TIMEOUT_MAX_MS: u64 = 900_000;
/// Requests a client may have in flight on one produce stream.
pub const STREAM_MAX_IN_FLIGHT_REQUESTS: usize = 64;
/// Bytes a client may have in flight on one produce stream.
pub const STREAM_MAX_IN_FLIGHT_BYTES: usize = 32 * 1024 * 1024;
/// HTTP/2 window of one stream, in bytes, both ends.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// HTTP/2 window of one connection, in bytes, both ends.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// Largest HTTP/2 frame that a server takes, in bytes.
pub const HTTP2_FRAME_BYTES: u32 = 64 * 1024;
/// Largest HTTP/2 frame that our client takes, in bytes. A whole read fits, so that a reader is woken once
/// for it and finds it in one piece.
pub const HTTP2_READ_FRAME_BYTES: u32 = READ_CHUNK_BYTES as u32;
/// Most bytes a stream reads of one partition at a time, unless one batch is larger. Large enough that the
/// price of a read is its copy, small enough that the copy is still in the cache when it is sent.
pub const READ_CHUNK_BYTES: usize = 1024 * 1024;
/// Default of `memory.unread.max_bytes`: memory of a node for what is read of its logs and not taken by its readers.
pub const UNREAD_DEFAULT_MAX_BYTES: usize = 96 * 1024 * 1024;
/// Incremental fetch sessions of Kafka clients that a node remembers.
pub const FETCH_SESSIONS_MAX: usize = 1_000;
/// Partitions of all of them together.
pub const FETCH_SESSION_PARTITIONS_MAX: usize = 500_000;
/// Streams of one connection.
pub const HTTP2_MAX_STREAMS: u32 = 1024;
/// Default of `listeners.*.max_connections`: open connections of one listener.
pub const CONNECTIONS_DEFAULT_MAX: usize = 50_000;
/// Default of `listeners.*.max_connections_per_address`: those from one address.
pub const CONNECTIONS_PER_ADDRESS_DEFAULT_MAX: usize = 25_000;
/// Open connections from other nodes: one for each, and one that takes its place.
pub const PEER_CONNECTIONS_MAX: usize = 2 * NODES_MAX;
/// Most fetches and progresses in one message from a follower.
pub const PEER_MESSAGES_MAX: usize = 4_096;
/// Largest message from a follower, in bytes: the most messages, each at its longest, fit.
pub const PEER_REQUEST_MAX_BYTES: usize = 1024 * 1024;
/// Largest message from a leader, in bytes: the answers of one read with one batch of any legal size.
pub const PEER_RESPONSE_MAX_BYTES: usize = READ_CHUNK_BYTES + BATCH_MAX_BYTES + 1024 * 1024;
/// Largest message of the metadata consensus, in bytes.
pub const PEER_RAFT_MAX_BYTES: usize = 4 * 1024 * 1024;
/// HTTP/2 window of one stream between nodes, in bytes, both ends.
pub const PEER_STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

const _: () = assert!(MESSAGE_DEFAULT_MAX_BYTES <= BATCH_MAX_BYTES);
const _: () = assert!(BUILT_BATCH_MAX_BYTES < REQUEST_MAX_BYTES);
const _: () = assert!(BUILT_BATCH_MAX_BYTES <= BATCH_MAX_BYTES);
const _: () = assert!(REQUEST_MAX_BYTES <= STREAM_MAX_IN_FLIGHT_BYTES);
const _: () = assert!(RESPONSE_DEFAULT_MAX_BYTES < 4 * 1024 * 1024);
const _: () = assert!(READ_CHUNK_BYTES < RESPONSE_DEFAULT_MAX_BYTES);
const _: () = assert!(HTTP2_READ_FRAME_BYTES as usize == READ_CHUNK_BYTES);
const _: () = assert!(HTTP2_STREAM_WINDOW_BYTES <= HTTP2_CONNECTION_WINDOW_BYTES);
const _: () = assert!(PEER_MESSAGES_MAX * 128 < PEER_REQUEST_MAX_BYTES);
const _: () = assert!(PEER_STREAM_WINDOW_BYTES <= HTTP2_CONNECTION_WINDOW_BYTES);
const _: () = assert!(PEER_RAFT_MAX_BYTES < PEER_RESPONSE_MAX_BYTES);
/// Labels of a topic.
pub const TOPIC_LABELS_MAX: usize = 64;
/// Longest name or value of a label, in bytes.
pub const LABEL_MAX_BYTES: usize = 256;
/// Configs of one request: more than there are keys.
pub const REQUEST_MAX_CONFIGS: usize = 256;
/// Records of the answer to one Fetch call.
pub const FETCH_MAX_RECORDS: u64 = 10_000;
/// Largest `max_message_bytes` of a FetchStream.
pub const STREAM_MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Subscriptions of one FetchStream.
pub const STREAM_MAX_SUBSCRIPTIONS: usize = 10_000;
/// Commits that may wait on one Consume stream.
pub const STREAM_MAX_COMMITS: usize = 64;
/// Transactional ids in one page of a list.
pub const TRANSACTIONS_PAGE_MAX: usize = 10_000;
/// Largest request of a Kafka client that is no append, in bytes.
pub const KAFKA_CONTROL_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Topics, groups or other things that one request of a Kafka client may name: as many topics as a node can have.
pub const KAFKA_REQUEST_MAX_NAMES: usize = PARTITIONS_PER_NODE_MAX;
/// Committed offsets that one request of a Kafka client may name: they may be of the whole cluster.
pub const KAFKA_REQUEST_MAX_OFFSETS: usize = 5 * PARTITIONS_PER_NODE_MAX;
/// Requests of one Kafka connection that are worked on at a time.
pub const KAFKA_PIPELINE: usize = 16;
/// Bytes of a client's metrics in one push (KIP-714).
pub const TELEMETRY_PUSH_MAX_BYTES: usize = 1024 * 1024;
/// Assignors that one member of the classic protocol may name.
pub const GROUP_PROTOCOLS_MAX: usize = 64;
