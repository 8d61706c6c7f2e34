//! The rest of the API as plain calls: topics, offsets, groups, the cluster. Requests and responses are
//! the messages of the API; every call goes to any node and is forwarded there when need be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use varve_proto::v1;

use crate::backoff::{Backoff, Random};
use crate::connect::Client;
use crate::error::ClientError;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $service:ident . $method:ident ($request:ident) -> $response:ident;)*) => {
        impl Admin {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// What the server answered, or [`ClientError::NoBroker`].
                pub async fn $method(
                    &self,
                    request: v1::$request,
                ) -> Result<v1::$response, ClientError> {
                    let client = &self.client;
                    client
                        .any_node(|address| {
                            let request = client.with_deadline(request.clone());
                            async move {
                                let mut service = client.$service(&address)?;
                                Ok(service.$method(request).await?.into_inner())
                            }
                        })
                        .await
                }
            )*
        }
    };
}

calls! {
    /// Creates a topic.
    topic_service.create_topic(CreateTopicRequest) -> CreateTopicResponse;
    /// Describes one topic.
    topic_service.get_topic(GetTopicRequest) -> GetTopicResponse;
    /// Lists one page of topics.
    topic_service.list_topics(ListTopicsRequest) -> ListTopicsResponse;
    /// Lists one page of a topic's partitions.
    topic_service.list_partitions(ListPartitionsRequest) -> ListPartitionsResponse;
    /// Lists a topic's effective configs.
    topic_service.get_topic_configs(GetTopicConfigsRequest) -> GetTopicConfigsResponse;
    /// Changes a topic's configs.
    topic_service.update_topic_configs(UpdateTopicConfigsRequest) -> UpdateTopicConfigsResponse;
    /// Adds partitions to a topic.
    topic_service.add_partitions(AddPartitionsRequest) -> AddPartitionsResponse;
    /// Deletes a topic.
    topic_service.delete_topic(DeleteTopicRequest) -> DeleteTopicResponse;
    /// Deletes records before given offsets.
    topic_service.delete_records(DeleteRecordsRequest) -> DeleteRecordsResponse;
    /// Finds offsets.
    list_offsets_service.list_offsets(ListOffsetsRequest) -> ListOffsetsResponse;
    /// Version, features and limits of a node.
    cluster_service.get_server_info(GetServerInfoRequest) -> GetServerInfoResponse;
    /// The routing table.
    cluster_service.get_metadata(GetMetadataRequest) -> GetMetadataResponse;
    /// What is wrong with the cluster.
    cluster_service.get_cluster_health(GetClusterHealthRequest) -> GetClusterHealthResponse;
    /// Nodes with their load.
    admin_service.list_nodes(ListNodesRequest) -> ListNodesResponse;
    /// Takes leadership from a node.
    admin_service.drain_node(DrainNodeRequest) -> DrainNodeResponse;
    /// Ends a drain or a decommission.
    admin_service.resume_node(ResumeNodeRequest) -> ResumeNodeResponse;
    /// Empties a node and removes it.
    admin_service.decommission_node(DecommissionNodeRequest) -> DecommissionNodeResponse;
    /// Moves leadership of a partition.
    admin_service.transfer_leadership(TransferLeadershipRequest) -> TransferLeadershipResponse;
    /// Preferred leaders lead again.
    admin_service.elect_preferred_leaders(ElectPreferredLeadersRequest) -> ElectPreferredLeadersResponse;
    /// Declares new replicas.
    admin_service.reassign_partitions(ReassignPartitionsRequest) -> ReassignPartitionsResponse;
    /// Lists one page of reassignments in progress.
    admin_service.list_reassignments(ListReassignmentsRequest) -> ListReassignmentsResponse;
    /// Returns partitions to the replicas they had.
    admin_service.cancel_reassignments(CancelReassignmentsRequest) -> CancelReassignmentsResponse;
    /// Reads a group's committed offsets.
    group_service.get_offsets(GetOffsetsRequest) -> GetOffsetsResponse;
    /// Commits offsets of a group.
    group_service.commit_offsets(CommitOffsetsRequest) -> CommitOffsetsResponse;
    /// Sets the offsets of a group without members.
    group_service.reset_offsets(ResetOffsetsRequest) -> ResetOffsetsResponse;
    /// Removes committed offsets.
    group_service.delete_offsets(DeleteOffsetsRequest) -> DeleteOffsetsResponse;
    /// Lists one page of groups.
    group_service.list_groups(ListGroupsRequest) -> ListGroupsResponse;
    /// Describes one group.
    group_service.get_group(GetGroupRequest) -> GetGroupResponse;
    /// Deletes a group without members.
    group_service.delete_group(DeleteGroupRequest) -> DeleteGroupResponse;
    /// Expels members of a group.
    group_service.remove_members(RemoveMembersRequest) -> RemoveMembersResponse;
}

fn place(progress: &v1::ReassignmentProgress) -> Option<(String, i32)> {
    let at = progress.topic_partition.as_ref()?;
    Some((at.topic.clone(), at.partition))
}

impl Client {
    fn list_offsets_service(
        &self,
        address: &str,
    ) -> Result<v1::consumer_service_client::ConsumerServiceClient<crate::connect::Rpc>, ClientError>
    {
        self.consumer_service(address, false)
    }

    /// Repeats `call`, which must be harmless to repeat, until it succeeds, fails for good, or `within`
    /// has passed.
    ///
    /// # Errors
    /// The last error.
    pub async fn retrying<T, F>(
        &self,
        within: Duration,
        call: impl Fn() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let started = tokio::time::Instant::now();
        let mut random = Random::new(uuid::Uuid::new_v4().as_u64_pair().0);
        let mut failures = 0;
        loop {
            let error = match call().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            failures += 1;
            let pause = Backoff::default().pause(failures, &mut random);
            if !error.is_retryable() || started.elapsed() + pause > within {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

impl Admin {
    /// Calls through `client`.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }

    /// The connections.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Every topic, page by page. Only names with `prefix`; internal ones on demand.
    ///
    /// # Errors
    /// As every call.
    pub async fn all_topics(
        &self,
        prefix: &str,
        include_internal: bool,
    ) -> Result<Vec<v1::Topic>, ClientError> {
        let mut request = v1::ListTopicsRequest {
            page_size: 1000,
            name_prefix: prefix.to_owned(),
            include_internal,
            ..Default::default()
        };
        let mut topics = Vec::new();
        loop {
            let page = self.list_topics(request.clone()).await?;
            topics.extend(page.topics);
            if page.next_page_token.is_empty() {
                return Ok(topics);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Every partition of a topic, page by page.
    ///
    /// # Errors
    /// As every call.
    pub async fn all_partitions(&self, topic: &str) -> Result<Vec<v1::Partition>, ClientError> {
        let mut request = v1::ListPartitionsRequest {
            topic: topic.to_owned(),
            ..Default::default()
        };
        let mut partitions = Vec::new();
        loop {
            let page = self.list_partitions(request.clone()).await?;
            partitions.extend(page.partitions);
            if page.next_page_token.is_empty() {
                return Ok(partitions);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Every reassignment in progress, page by page; what is left of each is asked of its leader, and stays
    /// unknown when that does not answer.
    ///
    /// # Errors
    /// As every call, for the list itself.
    pub async fn all_reassignments(&self) -> Result<Vec<v1::ReassignmentProgress>, ClientError> {
        let mut request = v1::ListReassignmentsRequest {
            page_size: 1000,
            ..Default::default()
        };
        let mut moves = Vec::new();
        loop {
            let page = self.list_reassignments(request.clone()).await?;
            moves.extend(page.reassignments);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let unknown = |m: &&v1::ReassignmentProgress| m.remaining_bytes.is_none();
        let leaders = moves
            .iter()
            .filter(unknown)
            .filter_map(|m| m.leader_node_id);
        let leaders: BTreeSet<i32> = leaders.collect();
        if leaders.is_empty() {
            return Ok(moves);
        }
        let nodes = self.get_metadata(v1::GetMetadataRequest::default()).await?;
        for node in nodes.nodes.iter().filter(|n| leaders.contains(&n.node_id)) {
            let Ok(told) = self.moves_at(&node.address).await else {
                continue;
            };
            let told: BTreeMap<_, _> = told
                .into_iter()
                .filter_map(|m| Some((place(&m)?, m.remaining_bytes?)))
                .collect();
            for known in moves.iter_mut().filter(|m| m.remaining_bytes.is_none()) {
                known.remaining_bytes = place(known).and_then(|at| told.get(&at).copied());
            }
        }
        Ok(moves)
    }

    /// The reassignments as one node sees them.
    async fn moves_at(&self, address: &str) -> Result<Vec<v1::ReassignmentProgress>, ClientError> {
        let mut request = v1::ListReassignmentsRequest {
            page_size: 1000,
            ..Default::default()
        };
        let mut moves = Vec::new();
        loop {
            let mut service = self.client.admin_service(address)?;
            let asked = self.client.with_deadline(request.clone());
            let page = service.list_reassignments(asked).await?.into_inner();
            moves.extend(page.reassignments);
            if page.next_page_token.is_empty() {
                return Ok(moves);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Every group, page by page.
    ///
    /// # Errors
    /// As every call.
    pub async fn all_groups(&self) -> Result<Vec<v1::GroupListing>, ClientError> {
        let mut request = v1::ListGroupsRequest {
            page_size: 1000,
            ..Default::default()
        };
        let mut groups = Vec::new();
        loop {
            let page = self.list_groups(request.clone()).await?;
            groups.extend(page.groups);
            if page.next_page_token.is_empty() {
                return Ok(groups);
            }
            request.page_token = page.next_page_token;
        }
    }
}
