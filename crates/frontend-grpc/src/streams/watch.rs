//! The routing table, once and as a stream. An update carries the whole table that was asked for and says
//! so; a change elsewhere in the cluster sends nothing, and silence is broken by a heartbeat.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use varve_broker_api::{Broker, Error};
use varve_proto::v1;
use varve_types::{ErrorKind, TopicName, limits};

use super::{Gone, IDLE_DEFAULT, Outbound, Outlet, Parked, channel};
use crate::context::CallContext;
use crate::shared::Shared;
use crate::translate::cluster::{controller, to_node, to_routing, to_version};
use crate::translate::{at_most, topic_name};

/// Time for the quorum to say whether anything is new.
const NEWS_WITHIN: Duration = Duration::from_secs(2);

/// What a client wants to know.
#[derive(Debug, Clone)]
pub struct Wanted {
    all: bool,
    topics: BTreeSet<TopicName>,
}

impl Wanted {
    /// Reads the topics of a request.
    ///
    /// # Errors
    /// `InvalidRequest` for names that are not legal, or too many.
    pub fn new(topics: &[String], all: bool) -> Result<Self, Error> {
        at_most("topics", topics.len(), limits::REQUEST_MAX_PARTITIONS)?;
        let topics = topics
            .iter()
            .map(|t| topic_name("topics", t))
            .collect::<Result<_, _>>()?;
        Ok(Self { all, topics })
    }
}

/// The routing table as the client wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Version of the metadata it was read at.
    pub version: i64,
    /// Node that leads the metadata.
    pub controller: Option<i32>,
    /// Nodes.
    pub nodes: Vec<v1::Node>,
    /// Topics.
    pub topics: Vec<v1::TopicMetadata>,
}

impl Table {
    /// Reads the table.
    ///
    /// # Errors
    /// What the broker says. A topic that does not exist is an entry with an error.
    pub fn read<B: Broker>(
        shared: &Shared<B>,
        ctx: &CallContext,
        wanted: &Wanted,
    ) -> Result<Self, Error> {
        // The version is read first: the table is at least as new as it says.
        let version = to_version(shared.broker.metadata_version());
        let nodes = shared.broker.nodes();
        let mut topics = Vec::new();
        if wanted.all {
            for info in shared.broker.topics(&ctx.broker)? {
                match shared.broker.partitions(&ctx.broker, &info.name) {
                    Ok(partitions) => topics.push(to_routing(&info, &partitions)),
                    // Deleted since the list was made.
                    Err(error) if error.kind == ErrorKind::TopicNotFound => {}
                    Err(error) => return Err(error),
                }
            }
        } else {
            for name in &wanted.topics {
                let found = shared.broker.topic(&ctx.broker, name).and_then(|info| {
                    let partitions = shared.broker.partitions(&ctx.broker, name)?;
                    Ok(to_routing(&info, &partitions))
                });
                topics.push(found.unwrap_or_else(|error| v1::TopicMetadata {
                    topic: name.to_string(),
                    error: Some(shared.partition_error(&error)),
                    ..Default::default()
                }));
            }
        }
        Ok(Self {
            version,
            controller: controller(&nodes),
            nodes: nodes.iter().map(to_node).collect(),
            topics,
        })
    }

    /// Reads the table. A topic that seems not to exist may be one that this node has not heard of yet, or not
    /// opened, so the quorum is asked before that is told; for as long as two seconds at most.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn newest<B: Broker>(
        shared: &Shared<B>,
        ctx: &CallContext,
        wanted: &Wanted,
    ) -> Result<Self, Error> {
        let table = Self::read(shared, ctx, wanted)?;
        if table.topics.iter().all(|t| t.error.is_none()) {
            return Ok(table);
        }
        // Whatever comes of it, more may be known now.
        let _ = tokio::time::timeout(NEWS_WITHIN, shared.broker.metadata_newest()).await;
        Self::read(shared, ctx, wanted)
    }

    fn same_content(&self, other: &Self) -> bool {
        self.controller == other.controller
            && self.nodes == other.nodes
            && self.topics == other.topics
    }
}

/// Opens the stream.
///
/// # Errors
/// What reading the table first comes to.
pub fn open<B: Broker>(
    shared: &Arc<Shared<B>>,
    ctx: CallContext,
    wanted: Wanted,
) -> Result<Outbound<v1::WatchMetadataResponse>, Error> {
    let table = Table::read(shared, &ctx, &wanted)?;
    let (outlet, outbound) = channel(shared, "WatchMetadata", 1);
    let watch = Watch {
        shared: Arc::clone(shared),
        ctx,
        wanted,
        outlet,
    };
    tokio::spawn(async move {
        if let Ok(Some(error)) = watch.serve(table).await {
            watch.outlet.end(watch.shared.fail(&error)).await;
        }
    });
    Ok(outbound)
}

struct Watch<B> {
    shared: Arc<Shared<B>>,
    ctx: CallContext,
    wanted: Wanted,
    outlet: Outlet<v1::WatchMetadataResponse>,
}

impl<B: Broker> Watch<B> {
    async fn serve(&self, mut table: Table) -> Result<Option<Error>, Gone> {
        let mut seen = u64::try_from(table.version).unwrap_or(0);
        self.outlet.send(update(&table)).await?;
        let mut heartbeat = Instant::now() + IDLE_DEFAULT;
        let mut changed = self.changed(seen);
        loop {
            tokio::select! {
                biased;
                () = self.outlet.closed() => return Err(Gone),
                // This stream has no event that announces an end; its client opens another at once.
                () = self.shared.drain.cancelled() => return Ok(Some(Shared::<B>::shutting_down())),
                version = &mut changed => {
                    seen = version.max(seen);
                    changed = self.changed(seen);
                    let next = match Table::read(&self.shared, &self.ctx, &self.wanted) {
                        Ok(next) => next,
                        Err(error) => return Ok(Some(error)),
                    };
                    if next.same_content(&table) {
                        continue;
                    }
                    table = next;
                    self.outlet.send(update(&table)).await?;
                    heartbeat = Instant::now() + IDLE_DEFAULT;
                }
                () = sleep_until(heartbeat) => {
                    let beat = v1::WatchMetadataResponse {
                        metadata_version: to_version(self.shared.broker.metadata_version()),
                        controller_node_id: table.controller,
                        ..Default::default()
                    };
                    self.outlet.send(beat).await?;
                    heartbeat = Instant::now() + IDLE_DEFAULT;
                }
            }
        }
    }

    fn changed(&self, seen: u64) -> Parked<u64> {
        let broker = Arc::clone(&self.shared.broker);
        Box::pin(async move { broker.metadata_changed(seen).await })
    }
}

fn update(table: &Table) -> v1::WatchMetadataResponse {
    v1::WatchMetadataResponse {
        metadata_version: table.version,
        full: true,
        nodes: table.nodes.clone(),
        topics: table.topics.clone(),
        controller_node_id: table.controller,
        ..Default::default()
    }
}
