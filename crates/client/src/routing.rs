//! Which node leads which partition, and at which address. Learned from `GetMetadata`, corrected by
//! hints; never older than what is known already.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tonic::Code;
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
}

#[derive(Debug, Default)]
struct Table {
    version: i64,
    nodes: BTreeMap<i32, String>,
    topics: BTreeMap<String, TopicRoutes>,
}

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
        for topic in &metadata.topics {
            if topic.error.is_some() {
                table.topics.remove(&topic.topic);
                continue;
            }
            let leader = |partition: &v1::PartitionMetadata| {
                let epoch = partition.leader_epoch;
                partition
                    .leader_node_id
                    .map(|node_id| Leader { node_id, epoch })
            };
            let routes = TopicRoutes {
                topic_id: topic.topic_id.clone(),
                partitioner: topic.partitioner,
                leaders: topic.partitions.iter().map(leader).collect(),
            };
            table.topics.insert(topic.topic.clone(), routes);
        }
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
}

impl Client {
    /// Asks the cluster for the routes of `topics` and takes them over. The nodes that are known are
    /// asked before the configured addresses.
    ///
    /// # Errors
    /// [`ClientError::TopicNotFound`] when a topic does not exist; [`ClientError::NoBroker`] when nobody
    /// answers.
    pub async fn refresh(&self, topics: &[String]) -> Result<(), ClientError> {
        let request = v1::GetMetadataRequest {
            topics: topics.to_vec(),
            all_topics: false,
        };
        let metadata = self.metadata(request).await?;
        self.routing().update(&metadata);
        let missing = metadata
            .topics
            .into_iter()
            .find_map(|topic| Some((topic.topic, topic.error?)));
        match missing {
            None => Ok(()),
            Some((topic, error)) => {
                let error = RpcError::from_partition(error);
                match error.kind {
                    Some(ErrorKind::TopicNotFound) => Err(ClientError::TopicNotFound(topic)),
                    _ => Err(error.into()),
                }
            }
        }
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
                let mut service = self.cluster_service(&address)?;
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

    /// Runs `call` at one address after the other until one answers. An error of the server itself is
    /// an answer; only a node that cannot be reached is passed over.
    ///
    /// # Errors
    /// The answer's error, or [`ClientError::NoBroker`].
    pub async fn any_node<T, F>(&self, call: impl Fn(String) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut addresses = self.config().brokers.clone();
        for address in self.routing().addresses() {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let mut last = RpcError::transport("no address is known");
        for address in &addresses {
            match call(address.clone()).await {
                Err(ClientError::Rpc(error))
                    if error.kind.is_none()
                        && matches!(error.code, Code::Unavailable | Code::DeadlineExceeded) =>
                {
                    last = (*error).clone();
                }
                other => return other,
            }
        }
        Err(ClientError::NoBroker {
            addresses: addresses.join(", "),
            last: Arc::new(last),
        })
    }
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
    fn a_topic_with_an_error_is_forgotten() {
        let routing = Routing::default();
        routing.update(&metadata(1, Some(1), 1));
        let mut gone = metadata(2, None, 0);
        gone.topics[0].error = Some(v1::PartitionError::default());
        routing.update(&gone);
        assert_eq!(routing.topic("t"), None);
    }
}
