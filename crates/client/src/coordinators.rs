//! Calls about a group, made at its coordinator: found by asking any node, remembered by group, found again
//! when it has moved or is dead.
//!
//! Invariants: a call that may have arrived is made again only where that is harmless; what the coordinator
//! itself says is never hidden; no call outlives the time it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use varve_proto::v1;
use varve_types::ErrorKind;

use crate::admin::Admin;
use crate::backoff::{Backoff, Random};
use crate::connect::Client;
use crate::error::{ClientError, RpcError};

/// Hints that are followed at once; after as many of them the nodes disagree, and a pause helps more.
const HOPS: u32 = 3;
/// Groups in one page of a list.
const PAGE: i32 = 1000;
/// Longest time for a page of a list: it is in the memory of the node that is asked.
const LISTING: Duration = Duration::from_secs(5);

/// Where the coordinator is not, or not yet.
const fn moved(kind: Option<ErrorKind>) -> bool {
    matches!(
        kind,
        Some(
            ErrorKind::NotCoordinator
                | ErrorKind::CoordinatorLoading
                | ErrorKind::LeaderNotAvailable
                | ErrorKind::ShuttingDown
        )
    )
}

impl Client {
    /// Makes a call at a group's coordinator. `repeat`: making it again is harmless even when the first may
    /// have arrived.
    pub(crate) async fn at_coordinator<T, F>(
        &self,
        group: &str,
        within: Duration,
        repeat: bool,
        call: impl Fn(String) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let until = Instant::now() + within;
        let mut random = Random::new(uuid::Uuid::new_v4().as_u64_pair().0);
        let (mut failures, mut unanswered) = (0, false);
        loop {
            let known = self.routing().coordinator(group);
            let answer = match &known {
                Some(address) => call(address.clone()).await,
                None => match self.first_answer(repeat, &call).await {
                    Ok((address, answer)) => {
                        self.routing().learn_coordinator(group, Some(address));
                        Ok(answer)
                    }
                    Err(error) => Err(error),
                },
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error.after(&mut unanswered),
            };
            let hint = match &error {
                ClientError::Rpc(error) => error.leader.as_ref(),
                _ => None,
            };
            let hint = hint.map(|hint| &hint.address).filter(|a| !a.is_empty());
            let lost = matches!(&error, ClientError::Rpc(error)
                if known.is_some() && error.is_transport() && (repeat || error.unsent));
            if !lost && !moved(error.kind()) {
                return Err(error);
            }
            self.routing().learn_coordinator(group, hint.cloned());
            failures += 1;
            let pause = if hint.is_some() && hint != known.as_ref() && failures <= HOPS {
                Duration::ZERO
            } else {
                Backoff::default().pause(failures, &mut random)
            };
            if Instant::now() + pause >= until {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The groups that one node coordinates.
    async fn groups_at(&self, address: &str) -> Result<Vec<v1::GroupListing>, ClientError> {
        let mut service = self.group_service(address, true)?;
        let mut request = v1::ListGroupsRequest {
            page_size: PAGE,
            ..Default::default()
        };
        let mut groups = Vec::new();
        loop {
            let page = service.list_groups(self.with_deadline(request.clone()));
            let page = page.await?.into_inner();
            groups.extend(page.groups);
            if page.next_page_token.is_empty() {
                return Ok(groups);
            }
            request.page_token = page.next_page_token;
        }
    }
}

impl Admin {
    /// Every group of the cluster, ordered by name. Each node is asked for those it coordinates; one that is
    /// dead is waited for until the others have taken over from it.
    ///
    /// # Errors
    /// [`ClientError::NoBroker`] when nobody answers; the error of a node that takes part in the cluster and
    /// cannot be asked within the client's request timeout.
    pub async fn all_groups(&self) -> Result<Vec<v1::GroupListing>, ClientError> {
        let client = self.client();
        let until = Instant::now() + client.config().request_timeout;
        let mut random = Random::new(uuid::Uuid::new_v4().as_u64_pair().0);
        let mut failures = 0;
        loop {
            let metadata = client.metadata(v1::GetMetadataRequest::default()).await?;
            client.routing().update(&metadata);
            let here = metadata.nodes.iter();
            let here = here.filter(|node| node.state() != v1::NodeState::Offline);
            let mut addresses: BTreeSet<String> = here.map(|node| node.address.clone()).collect();
            if addresses.len() <= 1 {
                // A node that is alone may be known by another address than it can be reached at.
                addresses = client.addresses().into_iter().take(1).collect();
            }
            let asked = addresses.iter().map(|address| client.groups_at(address));
            let mut groups: BTreeMap<String, v1::GroupListing> = BTreeMap::new();
            let mut failed: Option<ClientError> = None;
            for answer in join_all(asked).await {
                match answer {
                    Ok(some) => groups.extend(some.into_iter().map(|g| (g.group.clone(), g))),
                    Err(error) => failed = Some(error),
                }
            }
            let Some(error) = failed else {
                return Ok(groups.into_values().collect());
            };
            failures += 1;
            let pause = Backoff::default().pause(failures, &mut random);
            if !error.is_retryable() || Instant::now() + pause >= until {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Every partition of a topic, each as its leader describes it. One whose leader cannot be asked has an
    /// error, and no cursors.
    ///
    /// # Errors
    /// As every call.
    pub async fn all_partitions(&self, topic: &str) -> Result<Vec<v1::Partition>, ClientError> {
        let client = self.client();
        client.refresh(&[]).await?;
        let ask = |address: String| async move { client.partitions_at(&address, topic).await };
        let mut partitions = client.any_node(ask).await?;
        let elsewhere = |p: &v1::Partition| {
            let error = p.error.clone().map(RpcError::from_partition);
            error.is_some_and(|error| error.kind == Some(ErrorKind::NotLeader))
        };
        let leaders: BTreeSet<i32> = partitions
            .iter()
            .filter(|partition| elsewhere(partition))
            .filter_map(|partition| partition.leader_node_id)
            .collect();
        let calls = leaders.into_iter().map(|node| async move {
            let address = client.routing().address(node);
            let rows = match &address {
                Some(address) => client.partitions_at(address, topic).await,
                None => Err(RpcError::transport("its address is not known").into()),
            };
            (node, rows)
        });
        for (node, rows) in join_all(calls).await {
            let led = partitions
                .iter_mut()
                .filter(|p| p.leader_node_id == Some(node) && elsewhere(p));
            for partition in led {
                let own = rows.as_ref().map(|rows| {
                    let found = rows.iter().find(|row| row.partition == partition.partition);
                    found.filter(|row| row.leader_node_id == Some(node) && !elsewhere(row))
                });
                match own {
                    Ok(Some(row)) => *partition = row.clone(),
                    // Both believe that the other one leads: it is just moving.
                    Ok(None) => {}
                    Err(error) => {
                        let text = format!("node {node}, which leads it, did not answer: {error}");
                        let error = RpcError {
                            kind: Some(ErrorKind::LeaderNotAvailable),
                            ..RpcError::transport(text)
                        };
                        partition.error = Some(error.to_partition());
                    }
                }
            }
        }
        Ok(partitions)
    }
}

impl Client {
    /// Every partition of a topic as one node sees it, page by page.
    async fn partitions_at(
        &self,
        address: &str,
        topic: &str,
    ) -> Result<Vec<v1::Partition>, ClientError> {
        let mut service = self.topic_service(address, true)?;
        let mut request = v1::ListPartitionsRequest {
            topic: topic.to_owned(),
            ..Default::default()
        };
        let mut partitions = Vec::new();
        loop {
            let mut call = tonic::Request::new(request.clone());
            call.set_timeout(self.config().request_timeout.min(LISTING));
            let page = service.list_partitions(call).await?.into_inner();
            partitions.extend(page.partitions);
            if page.next_page_token.is_empty() {
                return Ok(partitions);
            }
            request.page_token = page.next_page_token;
        }
    }
}
