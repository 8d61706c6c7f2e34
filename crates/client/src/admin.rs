//! The rest of the API as plain calls: topics, offsets, groups, the cluster. Requests and responses are
//! the messages of the API; every call goes to a node that can answer it: any, a group's coordinator, or the
//! leaders of partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use varve_proto::v1;
use varve_types::{ErrorKind, limits};

use crate::backoff::{Backoff, Random};
use crate::connect::Client;
use crate::error::ClientError;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

/// Time for an election of the node that decides about metadata, within which a call is made again.
const ELECTION: Duration = Duration::from_secs(20);

/// Calls that any node answers. They return boxed futures, so that the machinery of a call is compiled in this crate
/// and not once more in each program. `repeat`: making one again is harmless even when it may have arrived.
macro_rules! calls {
    ($($(#[$doc:meta])* $service:ident . $method:ident ($request:ident) -> $response:ident, repeat = $repeat:literal;)*) => {
        impl Admin {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// What the server answered, or [`ClientError::NoBroker`].
                pub fn $method(
                    &self,
                    request: v1::$request,
                ) -> BoxFuture<'_, Result<v1::$response, ClientError>> {
                    Box::pin(async move {
                    let client = &self.client;
                    let call = |address: String| {
                        let request = client.with_deadline(request.clone());
                        async move {
                            let mut service = client.$service(&address, false)?;
                            Ok(service.$method(request).await?.into_inner())
                        }
                    };
                    let within = client.config().request_timeout.min(ELECTION);
                    client
                        .retrying_while(within, nobody_decides, || async {
                            Ok(client.first_answer($repeat, &call).await?.1)
                        })
                        .await
                    })
                }
            )*
        }
    };
}

/// Calls that a group's coordinator answers.
macro_rules! group_calls {
    ($($(#[$doc:meta])* $method:ident ($request:ident) -> $response:ident, repeat = $repeat:literal;)*) => {
        impl Admin {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// What the server answered, or [`ClientError::NoBroker`].
                pub fn $method(
                    &self,
                    request: v1::$request,
                ) -> BoxFuture<'_, Result<v1::$response, ClientError>> {
                    Box::pin(async move {
                    let client = &self.client;
                    let within = client.config().request_timeout;
                    client
                        .at_coordinator(&request.group, within, $repeat, |address| {
                            let request = client.with_deadline(request.clone());
                            async move {
                                let mut service = client.group_service(&address, true)?;
                                Ok(service.$method(request).await?.into_inner())
                            }
                        })
                        .await
                    })
                }
            )*
        }
    };
}

calls! {
    /// Creates a topic.
    topic_service.create_topic(CreateTopicRequest) -> CreateTopicResponse, repeat = false;
    /// Describes one topic.
    topic_service.get_topic(GetTopicRequest) -> GetTopicResponse, repeat = true;
    /// Lists one page of topics.
    topic_service.list_topics(ListTopicsRequest) -> ListTopicsResponse, repeat = true;
    /// Lists one page of a topic's partitions, as one node sees them.
    topic_service.list_partitions(ListPartitionsRequest) -> ListPartitionsResponse, repeat = true;
    /// Lists a topic's effective configs.
    topic_service.get_topic_configs(GetTopicConfigsRequest) -> GetTopicConfigsResponse, repeat = true;
    /// Changes a topic's configs.
    topic_service.update_topic_configs(UpdateTopicConfigsRequest) -> UpdateTopicConfigsResponse, repeat = false;
    /// Adds partitions to a topic.
    topic_service.add_partitions(AddPartitionsRequest) -> AddPartitionsResponse, repeat = false;
    /// Deletes a topic.
    topic_service.delete_topic(DeleteTopicRequest) -> DeleteTopicResponse, repeat = false;
    /// Lists one page of transactional ids.
    transaction_service.list_transactions(ListTransactionsRequest) -> ListTransactionsResponse, repeat = true;
    /// Describes one transactional id with its transaction.
    transaction_service.get_transaction(GetTransactionRequest) -> GetTransactionResponse, repeat = true;
    /// Aborts the open transaction of a transactional id.
    transaction_service.abort_transaction(AbortTransactionRequest) -> AbortTransactionResponse, repeat = false;
    /// Version, features and limits of a node.
    cluster_service.get_server_info(GetServerInfoRequest) -> GetServerInfoResponse, repeat = true;
    /// The routing table.
    cluster_service.get_metadata(GetMetadataRequest) -> GetMetadataResponse, repeat = true;
    /// What is wrong with the cluster.
    cluster_service.get_cluster_health(GetClusterHealthRequest) -> GetClusterHealthResponse, repeat = true;
    /// Nodes with their load.
    admin_service.list_nodes(ListNodesRequest) -> ListNodesResponse, repeat = true;
    /// Takes leadership from a node.
    admin_service.drain_node(DrainNodeRequest) -> DrainNodeResponse, repeat = false;
    /// Ends a drain or a decommission.
    admin_service.resume_node(ResumeNodeRequest) -> ResumeNodeResponse, repeat = false;
    /// Empties a node and removes it.
    admin_service.decommission_node(DecommissionNodeRequest) -> DecommissionNodeResponse, repeat = false;
    /// Moves leadership of a partition.
    admin_service.transfer_leadership(TransferLeadershipRequest) -> TransferLeadershipResponse, repeat = false;
    /// Preferred leaders lead again.
    admin_service.elect_preferred_leaders(ElectPreferredLeadersRequest) -> ElectPreferredLeadersResponse, repeat = false;
    /// Declares new replicas.
    admin_service.reassign_partitions(ReassignPartitionsRequest) -> ReassignPartitionsResponse, repeat = false;
    /// Lists one page of reassignments in progress.
    admin_service.list_reassignments(ListReassignmentsRequest) -> ListReassignmentsResponse, repeat = true;
    /// Returns partitions to the replicas they had.
    admin_service.cancel_reassignments(CancelReassignmentsRequest) -> CancelReassignmentsResponse, repeat = false;
    /// Feature levels of the cluster and of its nodes.
    admin_service.get_features(GetFeaturesRequest) -> GetFeaturesResponse, repeat = true;
    /// Raises the feature level of the cluster. Raising it to the same level again changes nothing.
    admin_service.finalize_features(FinalizeFeaturesRequest) -> FinalizeFeaturesResponse, repeat = true;
}

group_calls! {
    /// Reads a group's committed offsets.
    get_offsets(GetOffsetsRequest) -> GetOffsetsResponse, repeat = true;
    /// Commits offsets of a group.
    commit_offsets(CommitOffsetsRequest) -> CommitOffsetsResponse, repeat = true;
    /// Sets the offsets of a group without members.
    reset_offsets(ResetOffsetsRequest) -> ResetOffsetsResponse, repeat = false;
    /// Removes committed offsets.
    delete_offsets(DeleteOffsetsRequest) -> DeleteOffsetsResponse, repeat = true;
    /// Describes one group.
    get_group(GetGroupRequest) -> GetGroupResponse, repeat = true;
    /// Deletes a group without members.
    delete_group(DeleteGroupRequest) -> DeleteGroupResponse, repeat = false;
    /// Expels members of a group.
    remove_members(RemoveMembersRequest) -> RemoveMembersResponse, repeat = true;
}

/// Whether the node that decides about metadata is just being elected.
fn nobody_decides(error: &ClientError) -> bool {
    error.kind() == Some(ErrorKind::LeaderNotAvailable)
}

fn place(progress: &v1::ReassignmentProgress) -> Option<(String, i32)> {
    let at = progress.topic_partition.as_ref()?;
    Some((at.topic.clone(), at.partition))
}

impl Client {
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
        let again = ClientError::is_retryable;
        self.retrying_while(within, again, call).await
    }

    /// As [`Client::retrying`], for the errors that `again` names.
    pub(crate) async fn retrying_while<T, F>(
        &self,
        within: Duration,
        again: impl Fn(&ClientError) -> bool,
        call: impl Fn() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let started = tokio::time::Instant::now();
        let mut random = Random::new(uuid::Uuid::new_v4().as_u64_pair().0);
        let (mut failures, mut unanswered) = (0, false);
        loop {
            let error = match call().await {
                Ok(done) => return Ok(done),
                Err(error) => error.after(&mut unanswered),
            };
            failures += 1;
            let pause = Backoff::default().pause(failures, &mut random);
            if !again(&error) || started.elapsed() + pause > within {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// How long whoever goes on from committed offsets waits for transactions that may change them: longer than
/// a transaction whose producer is gone stays open by default.
const STABLE_WITHIN: Duration = Duration::from_secs(90);

impl Admin {
    /// As [`Admin::get_offsets`], and waits for transactions that may change the answer.
    ///
    /// # Errors
    /// As every call; `ConcurrentTransactions` when they are still not decided after a minute and a half.
    pub(crate) async fn stable_offsets(
        &self,
        request: v1::GetOffsetsRequest,
    ) -> Result<v1::GetOffsetsResponse, ClientError> {
        let request = v1::GetOffsetsRequest {
            require_stable: true,
            ..request
        };
        let undecided =
            |error: &ClientError| error.kind() == Some(ErrorKind::ConcurrentTransactions);
        let ask = || self.get_offsets(request.clone());
        let asked = self.client.retrying_while(STABLE_WITHIN, undecided, ask);
        asked.await
    }

    /// What a group has committed for given partitions, however many they are: asked in several calls where they do
    /// not fit one. Partitions without a commit are left out.
    ///
    /// # Errors
    /// The first call's error; `GroupNotFound` where the group does not exist.
    pub async fn offsets_of(
        &self,
        request: v1::GetOffsetsRequest,
    ) -> Result<Vec<v1::CommittedOffset>, ClientError> {
        let mut found = Vec::new();
        for partitions in request.partitions.chunks(limits::REQUEST_MAX_PARTITIONS) {
            let some = v1::GetOffsetsRequest {
                partitions: partitions.to_vec(),
                ..request.clone()
            };
            found.extend(self.get_offsets(some).await?.offsets);
        }
        Ok(found)
    }

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
            let mut service = self.client.admin_service(address, true)?;
            let asked = self.client.with_deadline(request.clone());
            let page = service.list_reassignments(asked).await?.into_inner();
            moves.extend(page.reassignments);
            if page.next_page_token.is_empty() {
                return Ok(moves);
            }
            request.page_token = page.next_page_token;
        }
    }
}
