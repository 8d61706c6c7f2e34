//! Which node leads which partition, and at which address. Learned from `GetMetadata`, corrected by
//! hints; never older than what is known already.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use varve_proto::v1;
use varve_types::ErrorKind;

use crate::connect::Client;
use crate::error::{ClientError, RpcError};

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// Node.
    pub node_id: i32,
    /// Epoch in which it leads.
    pub epoch: i64,
}

/// Routing of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicRoutes {
    /// Id of the topic; another one after it is deleted and created again.
    pub topic_id: String,
    /// How keys map to partitions, as the API numbers it.
    pub partitioner: i32,
    /// Leaders by partition; `None` where there is none at present.
    pub leaders: Vec<Option<Leader>>,
    /// Nodes whose copy is in sync, by partition.
    pub in_sync: Vec<Vec<i32>>,
    /// Highest epoch of a leader that was heard of, by partition (KIP-320).
    pub epochs: Vec<i64>,
}

#[derive(Debug, Default)]
struct Table {
    version: i64,
    nodes: BTreeMap<i32, String>,
    racks: BTreeMap<i32, String>,
    topics: BTreeMap<String, TopicRoutes>,
    /// Addresses of groups' coordinators.
    coordinators: BTreeMap<String, String>,
}

/// Most coordinators that are remembered; with more groups the table begins again.
const COORDINATORS_MAX: usize = 10_000;

/// The routing table. Shared by everything that uses one [`Client`].
#[derive(Debug, Default)]
pub struct Routing {
    table: RwLock<Table>,
}

impl Routing {
    /// Routes of `topic`, when known.
    #[must_use]
    pub fn topic(&self, topic: &str) -> Option<TopicRoutes> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.topics.get(topic).cloned()
    }

    /// Leader of a partition, when known and present.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> Option<Leader> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(partition).ok()?;
        *table.topics.get(topic)?.leaders.get(index)?
    }

    /// A node in `rack` that has a copy of a partition in sync; the leader if it is there.
    #[must_use]
    pub fn nearest(&self, topic: &str, partition: i32, rack: &str) -> Option<i32> {
        let leader = self.leader(topic, partition)?.node_id;
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let near = |node: &i32| table.racks.get(node).is_some_and(|of| of == rack);
        if near(&leader) {
            return Some(leader);
        }
        let index = usize::try_from(partition).ok()?;
        let in_sync = table.topics.get(topic)?.in_sync.get(index)?;
        in_sync.iter().copied().find(near)
    }

    /// Address of a node, when known.
    #[must_use]
    pub fn address(&self, node_id: i32) -> Option<String> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.nodes.get(&node_id).cloned()
    }

    /// Addresses of all known nodes.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.nodes.values().cloned().collect()
    }

    /// Takes over an answer of `GetMetadata`. One that is older than the last is ignored.
    pub fn update(&self, metadata: &v1::GetMetadataResponse) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if metadata.metadata_version < table.version {
            return;
        }
        table.version = metadata.metadata_version;
        table.nodes = metadata
            .nodes
            .iter()
            .map(|node| (node.node_id, node.address.clone()))
            .collect();
        let rack = |node: &v1::Node| (node.node_id, node.rack.clone());
        let here = metadata.nodes.iter();
        let here = here.filter(|node| node.state() != v1::NodeState::Offline);
        table.racks = here.map(rack).collect();
        for topic in &metadata.topics {
            if topic.error.is_some() {
                table.topics.remove(&topic.topic);
                continue;
            }
            let known = table.topics.get(&topic.topic);
            let known = known.filter(|known| known.topic_id == topic.topic_id);
            let leader = |partition: &v1::PartitionMetadata| {
                let epoch = partition.leader_epoch;
                let index = usize::try_from(partition.partition).ok();
                // A hint may have come from a node that knew more than the one that was asked now.
                let newer = known
                    .and_then(|known| *known.leaders.get(index?)?)
                    .filter(|known| known.epoch > epoch);
                let told = partition.leader_node_id;
                newer.or_else(|| told.map(|node_id| Leader { node_id, epoch }))
            };
            let epoch = |partition: &v1::PartitionMetadata| {
                let index = usize::try_from(partition.partition).ok();
                let heard = known.and_then(|known| known.epochs.get(index?).copied());
                heard.map_or(partition.leader_epoch, |e| e.max(partition.leader_epoch))
            };
            let routes = TopicRoutes {
                epochs: topic.partitions.iter().map(epoch).collect(),
                topic_id: topic.topic_id.clone(),
                partitioner: topic.partitioner,
                leaders: topic.partitions.iter().map(leader).collect(),
                in_sync: topic
                    .partitions
                    .iter()
                    .map(|partition| partition.in_sync_node_ids.clone())
                    .collect(),
            };
            table.topics.insert(topic.topic.clone(), routes);
        }
    }

    /// Takes over the epoch in which a leader has answered. `false`: a newer leader is known, so the answer is
    /// that of one that has been replaced and does not know it; a caller that believed it would go back in
    /// time (KIP-320).
    pub fn heard(&self, topic: &str, partition: i32, leader_epoch: i64) -> bool {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let slot = usize::try_from(partition)
            .ok()
            .and_then(|index| table.topics.get_mut(topic)?.epochs.get_mut(index));
        let Some(slot) = slot else {
            return true;
        };
        *slot = leader_epoch.max(*slot);
        *slot == leader_epoch
    }

    /// Takes over a hint about one partition, unless something newer is known.
    pub fn learn(&self, topic: &str, partition: i32, hint: &v1::LeaderHint) -> bool {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = usize::try_from(partition)
            .ok()
            .and_then(|index| table.topics.get_mut(topic)?.leaders.get_mut(index))
        else {
            return false;
        };
        if slot.is_some_and(|known| known.epoch > hint.leader_epoch) {
            return false;
        }
        *slot = Some(Leader {
            node_id: hint.node_id,
            epoch: hint.leader_epoch,
        });
        if !hint.address.is_empty() {
            table.nodes.insert(hint.node_id, hint.address.clone());
        }
        true
    }

    /// Address of a group's coordinator, when known.
    #[must_use]
    pub fn coordinator(&self, group: &str) -> Option<String> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.coordinators.get(group).cloned()
    }

    /// Takes over where a group's coordinator is; `None`: not where it was.
    pub fn learn_coordinator(&self, group: &str, address: Option<String>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.coordinators.len() >= COORDINATORS_MAX {
            table.coordinators.clear();
        }
        match address {
            Some(address) => table.coordinators.insert(group.to_owned(), address),
            None => table.coordinators.remove(group),
        };
    }
}

/// A topic that does not exist is looked for again for so long where there are several nodes.
const NEWS_TRAVELS: Duration = Duration::from_millis(500);
/// A topic that the node which was asked is still opening is waited for.
const OPENING: Duration = Duration::from_secs(10);
/// Time between two looks.
const NEWS_PAUSE: Duration = Duration::from_millis(50);

impl Client {
    /// Asks the cluster for the routes of `topics` and takes them over. The nodes that are known are
    /// asked before the configured addresses.
    ///
    /// # Errors
    /// [`ClientError::TopicNotFound`] when a topic does not exist; [`ClientError::NoBroker`] when nobody
    /// answers.
    pub async fn refresh(&self, topics: &[String]) -> Result<(), ClientError> {
        let first = tokio::time::Instant::now();
        loop {
            let (nodes, result) = self.refresh_once(topics).await?;
            // The node that was asked may not have heard yet of a topic that another has just made.
            let patience = match &result {
                Err(ClientError::TopicNotFound(_)) if nodes > 1 => NEWS_TRAVELS,
                Err(error) if error.kind() == Some(ErrorKind::LeaderNotAvailable) => OPENING,
                _ => return result,
            };
            if first.elapsed() >= patience {
                return result;
            }
            tokio::time::sleep(NEWS_PAUSE).await;
        }
    }

    /// The number of nodes, and whether every topic has routes now.
    async fn refresh_once(
        &self,
        topics: &[String],
    ) -> Result<(usize, Result<(), ClientError>), ClientError> {
        let request = v1::GetMetadataRequest {
            topics: topics.to_vec(),
            all_topics: false,
        };
        let metadata = self.metadata(request).await?;
        self.routing().update(&metadata);
        let nodes = metadata.nodes.len();
        let missing = metadata
            .topics
            .into_iter()
            .find_map(|topic| Some((topic.topic, topic.error?)));
        let result = match missing {
            None => Ok(()),
            Some((topic, error)) => {
                let error = RpcError::from_partition(error);
                match error.kind {
                    Some(ErrorKind::TopicNotFound) => Err(ClientError::TopicNotFound(topic)),
                    _ => Err(error.into()),
                }
            }
        };
        Ok((nodes, result))
    }

    /// `GetMetadata` at the first node that answers.
    ///
    /// # Errors
    /// [`ClientError::NoBroker`] when none does.
    pub async fn metadata(
        &self,
        request: v1::GetMetadataRequest,
    ) -> Result<v1::GetMetadataResponse, ClientError> {
        self.any_node(|address| {
            let request = request.clone();
            async move {
                let mut service = self.cluster_service(&address, false)?;
                let response = service.get_metadata(self.with_deadline(request)).await?;
                Ok(response.into_inner())
            }
        })
        .await
    }

    /// A request that gives up after the configured timeout.
    pub fn with_deadline<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.config().request_timeout);
        request
    }

    /// Runs `call`, which must be harmless to repeat, at one address after the other until one answers. An
    /// error of the server itself is an answer; a node that cannot be reached, or is about to end, is passed
    /// over.
    ///
    /// # Errors
    /// The answer's error, or [`ClientError::NoBroker`].
    pub async fn any_node<T, F>(&self, call: impl Fn(String) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        Ok(self.first_answer(true, call).await?.1)
    }

    /// As [`Client::any_node`], with the address that answered. Without `repeat` a call that may have
    /// arrived is not made again.
    pub(crate) async fn first_answer<T, F>(
        &self,
        repeat: bool,
        call: impl Fn(String) -> F,
    ) -> Result<(String, T), ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let addresses = self.addresses();
        let mut last = RpcError::transport("no address is known");
        let mut unanswered = false;
        for address in &addresses {
            let error = match call(address.clone()).await {
                Ok(answer) => {
                    *self.answered() = Some(address.clone());
                    return Ok((address.clone(), answer));
                }
                Err(error) => error.after(&mut unanswered),
            };
            match error {
                ClientError::Rpc(error) if passes_over(&error, repeat) => {
                    last = (*error).clone();
                    self.answered().take_if(|answered| answered == address);
                }
                error => return Err(error),
            }
        }
        if last.kind.is_some() {
            return Err(last.into());
        }
        Err(ClientError::NoBroker {
            addresses: addresses.join(", "),
            last: Arc::new(last),
        })
    }
}

/// Whether another node is asked after this answer.
fn passes_over(error: &RpcError, repeat: bool) -> bool {
    error.kind == Some(ErrorKind::ShuttingDown) || error.unsent || repeat && error.is_transport()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(version: i64, leader: Option<i32>, epoch: i64) -> v1::GetMetadataResponse {
        let partition = v1::PartitionMetadata {
            partition: 0,
            leader_node_id: leader,
            leader_epoch: epoch,
            ..Default::default()
        };
        let topic = v1::TopicMetadata {
            topic: "t".to_owned(),
            partitions: vec![partition],
            ..Default::default()
        };
        let node = v1::Node {
            node_id: 1,
            address: "one:1".to_owned(),
            ..Default::default()
        };
        v1::GetMetadataResponse {
            metadata_version: version,
            nodes: vec![node],
            topics: vec![topic],
            ..Default::default()
        }
    }

    #[test]
    fn older_tables_and_hints_are_ignored() {
        let routing = Routing::default();
        routing.update(&metadata(5, Some(1), 7));
        assert_eq!(
            routing.leader("t", 0),
            Some(Leader {
                node_id: 1,
                epoch: 7
            })
        );
        routing.update(&metadata(4, None, 0));
        assert_eq!(
            routing.leader("t", 0),
            Some(Leader {
                node_id: 1,
                epoch: 7
            })
        );
        let hint = |node_id, leader_epoch| v1::LeaderHint {
            node_id,
            address: format!("n{node_id}:1"),
            leader_epoch,
        };
        assert!(!routing.learn("t", 0, &hint(2, 6)));
        assert!(routing.learn("t", 0, &hint(2, 8)));
        assert_eq!(
            routing.leader("t", 0),
            Some(Leader {
                node_id: 2,
                epoch: 8
            })
        );
        assert_eq!(routing.address(2).as_deref(), Some("n2:1"));
        assert!(!routing.learn("t", 1, &hint(2, 9)));
        assert!(!routing.learn("t", -1, &hint(2, 9)));
        assert_eq!(routing.leader("t", -1), None);
    }

    #[test]
    fn a_table_from_a_node_that_lags_does_not_undo_a_hint() {
        let routing = Routing::default();
        routing.update(&metadata(5, Some(1), 7));
        let hint = v1::LeaderHint {
            node_id: 2,
            address: "two:1".to_owned(),
            leader_epoch: 8,
        };
        assert!(routing.learn("t", 0, &hint));
        routing.update(&metadata(6, Some(1), 7));
        assert_eq!(routing.leader("t", 0).unwrap().node_id, 2);
        routing.update(&metadata(7, None, 9));
        assert_eq!(routing.leader("t", 0), None);
        // A topic of the same name that is another one begins anew.
        routing.learn("t", 0, &hint);
        let mut other = metadata(8, Some(1), 0);
        other.topics[0].topic_id = "other".to_owned();
        routing.update(&other);
        assert_eq!(routing.leader("t", 0).unwrap().node_id, 1);
    }

    #[test]
    fn a_leader_that_was_replaced_is_not_believed() {
        let routing = Routing::default();
        assert!(routing.heard("t", 0, 3), "nothing is known");
        routing.update(&metadata(5, Some(1), 7));
        assert!(routing.heard("t", 0, 7));
        assert!(!routing.heard("t", 0, 6));
        assert!(routing.heard("t", 0, 8));
        // The node that was asked for the table lags.
        routing.update(&metadata(6, Some(1), 7));
        assert!(!routing.heard("t", 0, 7));
        // Another topic of the same name counts anew.
        let mut other = metadata(8, Some(1), 0);
        other.topics[0].topic_id = "other".to_owned();
        routing.update(&other);
        assert!(routing.heard("t", 0, 0));
    }

    #[test]
    fn coordinators_are_learned_and_forgotten() {
        let routing = Routing::default();
        assert_eq!(routing.coordinator("g"), None);
        routing.learn_coordinator("g", Some("one:1".to_owned()));
        assert_eq!(routing.coordinator("g").as_deref(), Some("one:1"));
        routing.learn_coordinator("g", None);
        assert_eq!(routing.coordinator("g"), None);
    }

    #[test]
    fn a_topic_with_an_error_is_forgotten() {
        let routing = Routing::default();
        routing.update(&metadata(1, Some(1), 1));
        let mut gone = metadata(2, None, 0);
        gone.topics[0].error = Some(v1::PartitionError::default());
        routing.update(&gone);
        assert_eq!(routing.topic("t"), None);
    }
}
