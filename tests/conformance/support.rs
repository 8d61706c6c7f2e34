//! A node in this process, its generated clients, and the three questions every test asks: was it refused
//! with that code and reason, did nothing change, and did nothing panic.

use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tonic::transport::{Channel, Endpoint};
pub use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use v1::cluster_service_client::ClusterServiceClient;
use v1::consumer_service_client::ConsumerServiceClient;
use v1::group_service_client::GroupServiceClient;
use v1::producer_service_client::ProducerServiceClient;
use v1::topic_service_client::TopicServiceClient;
pub use varve_proto::v1;
use varve_server::embedded;
use varve_server::node::Node;

/// Bound of everything that is waited for: reached by a failure only.
pub const SOON: Duration = Duration::from_secs(20);

static PANICS: AtomicUsize = AtomicUsize::new(0);
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// The runtime of every test: nodes that tests share must outlive the test that started them.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // A failed assertion of a test is no panic of the node.
            let ours = info.location().is_some_and(|l| {
                l.file().contains("tests/conformance/") || l.file().contains("tests/src/")
            });
            if !ours {
                PANICS.fetch_add(1, Ordering::SeqCst);
                *PANIC.lock().unwrap_or_else(|e| e.into_inner()) = Some(info.to_string());
            }
            before(info);
        }));
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap()
    })
}

/// Runs a test. Fails it too when anything outside the tests panicked meanwhile.
pub fn run(test: impl Future<Output = ()>) {
    run_within(Duration::from_secs(120), test);
}

/// As [`run`], for a test that has much to do.
pub fn run_within(most: Duration, test: impl Future<Output = ()>) {
    let bounded = async {
        let test = Box::pin(test);
        let ended = tokio::time::timeout(most, test).await;
        assert!(ended.is_ok(), "the test hangs");
    };
    runtime().block_on(bounded);
    no_panics();
}

/// Fails when anything outside the tests has panicked.
pub fn no_panics() {
    let first = PANIC.lock().unwrap_or_else(|e| e.into_inner()).clone();
    let count = PANICS.load(Ordering::SeqCst);
    assert_eq!(count, 0, "the node panicked: {first:?}");
}

/// Clients of one node. Cloning shares the connection.
#[derive(Debug, Clone)]
pub struct Rpc {
    pub address: SocketAddr,
    pub channel: Channel,
}

impl Rpc {
    pub async fn connect(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .connect()
            .await
            .unwrap();
        Self { address, channel }
    }

    pub fn producer(&self) -> ProducerServiceClient<Channel> {
        ProducerServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub fn consumer(&self) -> ConsumerServiceClient<Channel> {
        ConsumerServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.channel.clone())
    }

    pub fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone())
    }

    pub fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    pub async fn create(&self, topic: &str, partitions: i32) -> v1::Topic {
        self.create_with(topic, partitions, &[]).await
    }

    pub async fn create_with(
        &self,
        topic: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> v1::Topic {
        let request = v1::CreateTopicRequest {
            topic: topic.to_owned(),
            partition_count: partitions,
            configs: configs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..Default::default()
        };
        let created = self.topics().create_topic(request).await.unwrap();
        created.into_inner().topic.unwrap()
    }

    pub async fn produce(&self, request: v1::ProduceRequest) -> Result<v1::Appended, Status> {
        use v1::partition_produce_result::Outcome;
        let answer = self.producer().produce(request).await?.into_inner();
        assert_eq!(answer.results.len(), 1, "one partition, one result");
        match answer.results.into_iter().next().unwrap().outcome {
            Some(Outcome::Appended(appended)) => Ok(appended),
            other => panic!("an error of the only partition in the body: {other:?}"),
        }
    }

    /// Appends one record per value to a partition; returns the offset of the first.
    pub async fn put(&self, topic: &str, partition: i32, values: &[&str]) -> i64 {
        let appended = self.produce(request(topic, partition, values)).await;
        appended.unwrap().base_offset.unwrap()
    }

    pub async fn fetch(&self, request: v1::FetchRequest) -> Result<v1::FetchResponse, Status> {
        self.consumer()
            .fetch(request)
            .await
            .map(Response::into_inner)
    }

    /// Every committed value of a partition, in order.
    pub async fn values(&self, topic: &str, partition: i32) -> Vec<String> {
        let mut values = Vec::new();
        let mut next = 0;
        loop {
            let request = v1::FetchRequest {
                max_records: 10_000,
                max_bytes: 16 << 20,
                ..from(topic, partition, next)
            };
            let got = self.fetch(request).await.unwrap();
            values.extend(got.records.iter().map(value));
            next = got.next_offset;
            if next >= got.last_stable_offset.unwrap_or(got.high_watermark) {
                return values;
            }
        }
    }

    /// All that a client can see of the topics and groups whose names begin with `prefix`.
    pub async fn world(&self, prefix: &str) -> World {
        let mut world = World::default();
        let request = v1::ListTopicsRequest {
            name_prefix: prefix.to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        world.topics = self
            .topics()
            .list_topics(request)
            .await
            .unwrap()
            .into_inner()
            .topics;
        for topic in &world.topics {
            let request = v1::ListPartitionsRequest {
                topic: topic.name.clone(),
                ..Default::default()
            };
            let listed = self.topics().list_partitions(request).await.unwrap();
            world.partitions.extend(listed.into_inner().partitions);
        }
        let request = v1::ListGroupsRequest {
            name_prefix: prefix.to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        world.groups = self
            .groups()
            .list_groups(request)
            .await
            .unwrap()
            .into_inner()
            .groups;
        for group in &world.groups {
            let request = v1::GetOffsetsRequest {
                group: group.group.clone(),
                ..Default::default()
            };
            let offsets = self.groups().get_offsets(request).await.unwrap();
            world.offsets.extend(offsets.into_inner().offsets);
        }
        world
    }
}

/// What a refused request must leave as it was.
#[derive(Debug, Default, PartialEq)]
pub struct World {
    topics: Vec<v1::Topic>,
    partitions: Vec<v1::Partition>,
    groups: Vec<v1::GroupListing>,
    offsets: Vec<v1::CommittedOffset>,
}

/// A node of one test's own.
#[derive(Debug)]
pub struct Bed {
    pub dir: PathBuf,
    _temp: Option<tempfile::TempDir>,
    settings: Vec<(String, String)>,
    node: Option<Node>,
    pub rpc: Rpc,
}

impl Bed {
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut bed = Self::start_in(temp.path().to_owned(), settings).await;
        bed._temp = Some(temp);
        bed
    }

    /// A node on a directory that somebody else removes.
    pub async fn start_in(dir: PathBuf, settings: &[(&str, &str)]) -> Self {
        let node = embedded::start_with(&dir, settings).await.unwrap();
        let rpc = Rpc::connect(node.client_address()).await;
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        Self {
            dir,
            _temp: None,
            settings: settings.iter().map(own).collect(),
            node: Some(node),
            rpc,
        }
    }

    pub fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    pub fn http(&self) -> u16 {
        self.node().http_address().port()
    }

    pub fn take(&mut self) -> Node {
        self.node.take().unwrap()
    }

    pub async fn stop(&mut self) {
        self.take().shutdown().await.unwrap();
    }

    /// Starts the node again on its directory.
    pub async fn resume(&mut self) {
        let settings: Vec<(&str, &str)> = self
            .settings
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let node = embedded::start_with(&self.dir, &settings).await.unwrap();
        self.rpc = Rpc::connect(node.client_address()).await;
        self.node = Some(node);
    }
}

/// The node that tests share. It is never stopped; its directory is removed by a later run.
pub async fn shared() -> Rpc {
    static SHARED: OnceCell<Bed> = OnceCell::const_new();
    let start = async {
        let base = std::env::temp_dir();
        for entry in std::fs::read_dir(&base).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let dead = name
                .strip_prefix("varve-conformance-")
                .is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists());
            if dead {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let dir = base.join(format!("varve-conformance-{}", std::process::id()));
        Bed::start_in(dir, &[]).await
    };
    let bed = SHARED.get_or_init(|| start).await;
    Rpc::connect(bed.rpc.address).await
}

// ---- requests ----

pub fn record(key: Option<&str>, value: &str) -> v1::Record {
    v1::Record {
        key: key.map(|k| Bytes::copy_from_slice(k.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..Default::default()
    }
}

/// A Produce of one record without key per value.
pub fn request(topic: &str, partition: i32, values: &[&str]) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: topic.to_owned(),
        partition: Some(partition),
        records: values.iter().map(|v| record(None, v)).collect(),
        ..Default::default()
    }
}

pub fn tp(topic: &str, partition: i32) -> v1::TopicPartition {
    v1::TopicPartition {
        topic: topic.to_owned(),
        partition,
    }
}

pub fn at(offset: i64) -> Option<v1::StartPosition> {
    position(v1::start_position::Position::Offset(offset))
}

pub fn anchor(anchor: v1::StartAnchor) -> Option<v1::StartPosition> {
    position(v1::start_position::Position::Anchor(anchor as i32))
}

pub fn position(position: v1::start_position::Position) -> Option<v1::StartPosition> {
    Some(v1::StartPosition {
        position: Some(position),
    })
}

pub fn current_end() -> Option<v1::EndPosition> {
    Some(v1::EndPosition {
        position: Some(v1::end_position::Position::CurrentEnd(true)),
    })
}

pub fn from(topic: &str, partition: i32, offset: i64) -> v1::FetchRequest {
    v1::FetchRequest {
        topic: topic.to_owned(),
        partition,
        start: at(offset),
        ..Default::default()
    }
}

pub fn value(record: &v1::ConsumedRecord) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

pub fn span(ms: u64) -> Option<prost_types::Duration> {
    Duration::from_millis(ms).try_into().ok()
}

// ---- answers ----

/// Checks that a call was refused with this code and reason, and that its details keep their bounds.
#[track_caller]
pub fn refused<T: Debug>(
    what: &str,
    result: Result<T, Status>,
    code: Code,
    reason: &str,
) -> Status {
    let status = match result {
        Ok(answer) => panic!("{what}: accepted with {answer:?}"),
        Err(status) => status,
    };
    let info = status.get_details_error_info();
    let Some(info) = info else {
        panic!("{what}: no ErrorInfo in {status:?}");
    };
    assert_eq!(
        (status.code(), info.reason.as_str(), info.domain.as_str()),
        (code, reason, "varve"),
        "{what}: {}",
        status.message()
    );
    assert!(
        status.details().len() <= 2048,
        "{what}: details of {}",
        status.details().len()
    );
    assert!(
        (1..=512).contains(&status.message().len()),
        "{what}: {}",
        status.message()
    );
    if reason == "INVALID_REQUEST" {
        let bad = status.get_details_bad_request();
        let named = bad.is_some_and(|b| b.field_violations.iter().any(|v| !v.field.is_empty()));
        assert!(named, "{what}: no field is named in {status:?}");
    }
    status
}

/// The same for an item of a response body.
#[track_caller]
pub fn refused_item(what: &str, error: Option<&v1::PartitionError>, code: Code, reason: &str) {
    let Some(error) = error else {
        panic!("{what}: accepted");
    };
    let name = error.reason().as_str_name();
    assert_eq!(
        (
            Code::from_i32(error.code),
            name.trim_start_matches("ERROR_REASON_")
        ),
        (code, reason),
        "{what}: {}",
        error.message
    );
    assert!(!error.message.is_empty(), "{what}");
}

/// A value of an ErrorInfo's metadata.
pub fn told(status: &Status, key: &str) -> Option<String> {
    status.get_details_error_info()?.metadata.get(key).cloned()
}

/// Tells what a test left out: to the terminal, past what the test harness captures.
pub fn loudly(text: &str) {
    use std::io::Write as _;
    // A closed terminal is no reason to fail.
    let _ = writeln!(std::io::stderr(), "\n{text}");
}

/// Waits for a condition that a future answers.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let give_up = tokio::time::Instant::now() + SOON;
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < give_up,
            "waited in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A future that must end soon.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
