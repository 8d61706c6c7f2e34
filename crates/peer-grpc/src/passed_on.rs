//! Calls of clients that another node passes on: methods of the public API behind the check of this port.
//!
//! Invariants: a caller is checked before its message is looked at, as for every other call of a peer; who
//! passes a call on is known by its certificate, and what the call says of that itself is replaced; methods
//! that are not listed here are not served.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::HeaderValue;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tower::{Service, ServiceExt as _};
use varve_tls::Caller;

use crate::identity::{Identity, Membership};

/// Metadata key: the node that passes a call on. No call that has it is passed on again.
const HOP: &str = "varve-hop";

/// What any node may have to ask of another for a client.
const METHODS: &[&str] = &[
    "/varve.v1.ClusterService/GetServerInfo",
    "/varve.v1.ProducerService/Produce",
    "/varve.v1.ConsumerService/Fetch",
    "/varve.v1.ConsumerService/ListOffsets",
    "/varve.v1.TopicService/DeleteRecords",
    "/varve.v1.GroupService/Heartbeat",
    "/varve.v1.GroupService/CommitOffsets",
    "/varve.v1.GroupService/GetOffsets",
    "/varve.v1.GroupService/ResetOffsets",
    "/varve.v1.GroupService/DeleteOffsets",
    "/varve.v1.GroupService/GetGroup",
    "/varve.v1.GroupService/DeleteGroup",
    "/varve.v1.GroupService/ListGroups",
    "/varve.v1.GroupService/RemoveMembers",
    "/varve.v1.TransactionService/InitTransactions",
    "/varve.v1.TransactionService/CommitTransactionOffsets",
    "/varve.v1.TransactionService/EndTransaction",
    "/varve.v1.TransactionService/ListTransactions",
    "/varve.v1.TransactionService/GetTransaction",
    "/varve.v1.TransactionService/AbortTransaction",
];

/// The public API as a service.
pub type CallService =
    tower::util::BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// Where a node's public API is found once there is one. Cloning shares it.
#[derive(Clone, Default)]
pub struct CallsHandle(Arc<OnceLock<CallService>>);

impl std::fmt::Debug for CallsHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CallsHandle")
            .field(&self.0.get().is_some())
            .finish()
    }
}

impl CallsHandle {
    /// Calls are answered by `service` from now on. The first one counts.
    pub fn serve(&self, service: CallService) {
        let _ = self.0.set(service);
    }
}

/// One service of the public API, named by `N`.
pub(crate) struct PassedOn<N> {
    identity: Identity,
    calls: CallsHandle,
    name: PhantomData<fn() -> N>,
}

impl<N> PassedOn<N> {
    pub(crate) const fn new(identity: Identity, calls: CallsHandle) -> Self {
        Self {
            identity,
            calls,
            name: PhantomData,
        }
    }

    fn admit(&self, request: &mut http::Request<Body>) -> Result<CallService, Status> {
        let metadata = MetadataMap::from_headers(request.headers().clone());
        let caller = request.extensions().get::<Caller>();
        let from = self
            .identity
            .check(&metadata, caller, Membership::Required)?;
        let path = request.uri().path();
        if !METHODS.contains(&path) {
            let why = format!("{path} is not for nodes; clients use another port");
            return Err(Status::unimplemented(why));
        }
        let Some(service) = self.calls.0.get() else {
            return Err(Status::unavailable(format!(
                "node {} has not started yet; nothing was done; try again",
                self.identity.node
            )));
        };
        let headers = request.headers_mut();
        headers.insert(HOP, HeaderValue::from(from.0));
        Ok(service.clone())
    }
}

impl<N> Clone for PassedOn<N> {
    fn clone(&self) -> Self {
        Self::new(self.identity.clone(), self.calls.clone())
    }
}

impl<N> Service<http::Request<Body>> for PassedOn<N> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.admit(&mut request) {
            Ok(service) => Box::pin(service.oneshot(request)),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

macro_rules! named {
    ($($marker:ident = $name:literal;)+) => {$(
        #[derive(Debug)]
        pub(crate) struct $marker;

        impl NamedService for PassedOn<$marker> {
            const NAME: &'static str = $name;
        }
    )+};
}

named! {
    Producers = "varve.v1.ProducerService";
    Consumers = "varve.v1.ConsumerService";
    Groups = "varve.v1.GroupService";
    Topics = "varve.v1.TopicService";
    Clusters = "varve.v1.ClusterService";
    Transactions = "varve.v1.TransactionService";
}
