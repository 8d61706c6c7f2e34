//! A layer around every call: refuses what does not say that it is gRPC, ends a call at its deadline, counts it
//! when its answer has ended, however it ends, and names the node that answered. It never reads or changes a
//! message.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};
use tower::{Layer, Service};
use varve_broker_api::{Error, Unread};

use crate::context;
use crate::deadline::{self, Limited};
use crate::metrics::{Metrics, Rpc};
use crate::services::append;
use crate::status;
use crate::streams::pace::Pace;

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";

/// Makes [`Observed`] services.
#[derive(Debug, Clone)]
pub struct ObserveLayer {
    /// Where calls are counted.
    pub metrics: Metrics,
    /// Value of the response metadata that names the node.
    pub node: HeaderValue,
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed {
            inner,
            metrics: self.metrics.clone(),
            node: self.node.clone(),
        }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub struct Observed<S> {
    inner: S,
    metrics: Metrics,
    node: HeaderValue,
}

impl<S, Req, Res> Service<Request<Req>> for Observed<S>
where
    S: Service<Request<Req>, Response = Response<Res>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    Res: Default + Send + 'static,
{
    type Response = Response<ObservedBody<Res>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        let rpc = self.metrics.rpc(request.uri().path());
        let mut call = Call::new(self.metrics.clone(), rpc);
        let node = self.node.clone();
        if !is_grpc(request.headers()) {
            let mut response = Response::new(ObservedBody::empty(call));
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Box::pin(std::future::ready(Ok(response)));
        }
        let deadline = match deadline::timeout(request.headers()) {
            // Whether the message has been read yet must not decide between two reasons.
            Ok(Some(Duration::ZERO)) => Err(append::expired()),
            Ok(time) => Ok(time.map(|time| context::now() + time)),
            Err(error) => Err(error),
        };
        let deadline = match deadline {
            Ok(deadline) => deadline,
            Err(error) => {
                let response = ended(&error, call, node);
                return Box::pin(std::future::ready(Ok(response)));
            }
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = match deadline {
                None => answer.await?,
                Some(at) => match tokio::time::timeout_at(at.into(), answer).await {
                    Ok(answered) => answered?,
                    Err(_) => return Ok(ended(&deadline::over(), call, node)),
                },
            };
            response.headers_mut().insert(context::NODE, node);
            let transit = Transit::of(response.extensions_mut());
            // An answer without body carries its status in the headers.
            explain(response.headers_mut(), &call.metrics);
            call.read(response.headers());
            let ends = deadline.filter(|_| rpc.streams && call.code.is_none());
            Ok(response.map(|body| {
                let inner = match ends {
                    Some(at) => Limited::until(body, at, call.metrics.clone()),
                    None => Limited::Free(body),
                };
                ObservedBody {
                    inner,
                    call,
                    transit,
                }
            }))
        })
    }
}

/// An answer that is an error and nothing else.
fn ended<B: Default>(
    error: &Error,
    mut call: Call,
    node: HeaderValue,
) -> Response<ObservedBody<B>> {
    call.metrics.error(error.kind.reason());
    let (mut parts, ()) = status::to_status(error).into_http::<()>().into_parts();
    parts.headers.insert(context::NODE, node);
    call.read(&parts.headers);
    Response::from_parts(parts, ObservedBody::empty(call))
}

/// Whether a request is a gRPC call: anything else could be made by a browser on behalf of somebody else.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map_or(&[][..], HeaderValue::as_bytes);
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Gives a reason to a status that the transport made on its own.
fn explain(headers: &mut HeaderMap, metrics: &Metrics) {
    let Some(made) = headers
        .get(GRPC_STATUS)
        .and_then(|_| Status::from_header_map(headers))
    else {
        return;
    };
    if let Some(error) = status::unreadable(&made) {
        metrics.error(error.kind.reason());
        headers.remove(GRPC_MESSAGE);
        // Without room for the reason the status stays as it was.
        let _ = status::to_status(&error).add_header(headers);
    }
}

/// One call; counted when dropped, as CANCELLED unless a status went by.
#[derive(Debug)]
struct Call {
    metrics: Metrics,
    rpc: Rpc,
    started: Instant,
    code: Option<Code>,
}

impl Call {
    fn new(metrics: Metrics, rpc: Rpc) -> Self {
        Self {
            metrics,
            rpc,
            started: Instant::now(),
            code: None,
        }
    }

    fn read(&mut self, headers: &HeaderMap) {
        if let Some(value) = headers.get(GRPC_STATUS) {
            self.code = Some(Code::from_bytes(value.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        self.metrics
            .finished(self.rpc, code, self.started.elapsed());
    }
}

/// A response body whose trailers are looked at.
#[derive(Debug)]
pub struct ObservedBody<B> {
    inner: Limited<B>,
    call: Call,
    transit: Transit,
}

/// What wants to know of bytes on their way to the socket, until the transport lets go of them.
#[derive(Debug, Default)]
struct Transit {
    /// Of a stream that reads by it.
    pace: Option<Pace>,
    /// What the answer holds of the budget for what is read and not taken.
    held: Option<Arc<Unread>>,
}

impl Transit {
    fn of(extensions: &mut http::Extensions) -> Self {
        Self {
            pace: extensions.remove(),
            held: extensions.remove(),
        }
    }

    fn track(&self, bytes: Bytes) -> Bytes {
        match (&self.pace, &self.held) {
            (Some(pace), _) => pace.track(bytes),
            (None, Some(held)) => Bytes::from_owner(Holding(bytes, Arc::clone(held))),
            (None, None) => bytes,
        }
    }
}

/// Bytes, and what they hold of the budget.
struct Holding(
    Bytes,
    #[expect(dead_code, reason = "held until it is dropped")] Arc<Unread>,
);

impl AsRef<[u8]> for Holding {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<B: Default> ObservedBody<B> {
    fn empty(call: Call) -> Self {
        Self {
            inner: Limited::Free(B::default()),
            call,
            transit: Transit::default(),
        }
    }
}

impl<B: Default> Default for ObservedBody<B> {
    fn default() -> Self {
        Self::empty(Call::new(Metrics::default(), Metrics::default().rpc("")))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ObservedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.read(trailers);
        }
        let track = |bytes| self.transit.track(bytes);
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(track))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
