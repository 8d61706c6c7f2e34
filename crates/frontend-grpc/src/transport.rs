//! HTTP/2 under the services, with every bound set explicitly. Connections come from [`crate::incoming`]; each is
//! served by a task of its own until its client goes or the drain is over.
//!
//! Invariant: what waits in a stream for the socket is bounded by [`SEND_BUFFER_BYTES`] and one message, so a client
//! whose windows are large and whose socket is full costs no more than one that allows nothing.

use std::io;
use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::Connected as _;
use tower::ServiceExt as _;
use varve_types::limits;

use crate::incoming::Connection;
use crate::layer::Observed;

/// Interval of the server's pings on a quiet connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long an answer to a ping may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest list of request headers, in bytes.
const HEADER_LIST_BYTES: u32 = 16 * 1024;
/// Streams a client may reset before they were accepted (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams the server may have to reset for a client's faults.
const LOCAL_RESETS: usize = 100;
/// Bytes that may wait in one stream before it is asked for no more.
const SEND_BUFFER_BYTES: usize = 32 * 1024;

/// Serves the connections until `drain` is cancelled and the last of them has ended. What listens is let go as soon as
/// the drain begins.
pub async fn serve(
    service: Observed<Routes>,
    connections: impl Stream<Item = io::Result<Connection>>,
    drain: CancellationToken,
) {
    let (builder, open) = (builder(), TaskTracker::new());
    {
        let mut connections = pin!(connections);
        let accepted = async {
            while let Some(connection) = connections.next().await {
                let Ok(connection) = connection else {
                    continue;
                };
                let one = serve_one(builder.clone(), service.clone(), connection, drain.clone());
                open.spawn(one);
            }
        };
        drain.run_until_cancelled(accepted).await;
    }
    open.close();
    open.wait().await;
}

async fn serve_one(
    builder: http2::Builder<TokioExecutor>,
    service: Observed<Routes>,
    connection: Connection,
    drain: CancellationToken,
) {
    let info = connection.connect_info();
    let service = service.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(info.clone());
        request.map(Body::new)
    });
    let service = TowerToHyperService::new(service);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(connection), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = drain.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a gRPC connection has ended by an error");
    }
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .adaptive_window(false)
        .max_frame_size(limits::HTTP2_FRAME_BYTES)
        .max_concurrent_streams(limits::HTTP2_MAX_STREAMS)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(Some(KEEPALIVE_INTERVAL))
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .max_local_error_reset_streams(Some(LOCAL_RESETS));
    builder
}
