//! A channel that knows why its connection failed. HTTP libraries tell those who wait only that it closed: the
//! reason is seen by whoever reads the socket, and kept here for the calls that it concerns.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use crate::connector::ConnectError;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the last connection failed, if that is known. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Fault(Arc<Mutex<Option<ConnectError>>>);

impl Fault {
    pub(crate) fn set(&self, fault: Option<ConnectError>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn get(&self) -> Option<ConnectError> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The reason in the place of an error that tells less.
    fn explain(&self, error: impl Into<BoxError>) -> BoxError {
        let error = error.into();
        match self.get() {
            Some(fault) if ConnectError::within(error.as_ref()).is_none() => fault.into(),
            _ => error,
        }
    }
}

/// A service over connections whose faults are known.
#[derive(Debug, Clone)]
pub struct Explained<S> {
    inner: S,
    fault: Fault,
}

impl<S> Explained<S> {
    /// `inner` uses the [`crate::Connector`] that `fault` is of.
    pub const fn new(inner: S, fault: Fault) -> Self {
        Self { inner, fault }
    }
}

impl<S, R> tower::Service<R> for Explained<S>
where
    S: tower::Service<R>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let ready = self.inner.poll_ready(cx);
        ready.map_err(|error| self.fault.explain(error))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (call, fault) = (self.inner.call(request), self.fault.clone());
        Box::pin(async move { call.await.map_err(|error| fault.explain(error)) })
    }
}
