//! The HTTP port: metrics, health, version; also the gRPC health service in plaintext, for probes that speak
//! it. Nothing here can change anything.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use varve_broker_api::Broker as _;
use varve_tls::{Listener, Socket};

use crate::exposition::Dialect;
use crate::health::Health;
use crate::metrics::Metrics;

/// Pause after an accept that failed, most likely for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// Connections, as axum wants them.
struct Incoming(Listener);

impl axum::serve::Listener for Incoming {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Socket, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The pages of the port, and what they say.
const PAGES: [(&str, &str); 6] = [
    ("/metrics", "metrics for Prometheus, as OpenMetrics or text"),
    ("/healthz", "health in detail, as JSON"),
    ("/readyz", "whether the node takes requests"),
    ("/livez", "whether the node is alive"),
    ("/startupz", "whether the node has finished starting"),
    ("/version", "version and commit, as JSON"),
];
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:3rem auto;max-width:44rem;padding:0 1rem}\
    th{text-align:left;padding-right:2rem;font-weight:600}li{margin:.2rem 0}\
    @media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}}";

/// What handlers look at.
#[derive(Debug, Clone)]
struct Seen {
    health: Health,
    metrics: Metrics,
}

/// Serves until `shutdown`; `extra` is merged in.
///
/// # Errors
/// The listener's.
pub async fn serve(
    listener: Listener,
    health: Health,
    metrics: Metrics,
    extra: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/", get(index))
        .route("/metrics", get(render))
        .route("/metrics/debug", get(render))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/startupz", get(startup))
        .route("/healthz", get(healthz))
        .route("/version", get(version))
        .with_state(Seen {
            health: health.clone(),
            metrics,
        })
        .merge(extra)
        // What is merged in answers every other path as a gRPC call, with status 200. A probe of a path
        // that is not there must fail; gRPC reads 404 as "unimplemented".
        .fallback(move |headers| not_found(health, headers));
    axum::serve(Incoming(listener), router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

fn answer(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn not_found(health: Health, headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        let text = format!(
            "no such path; this port has {}\n",
            PAGES.map(|(path, _)| path).join(", ")
        );
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    // A gRPC client at the wrong port: 12 is UNIMPLEMENTED, and the address is plain ASCII.
    let address = health.startup().ok().and_then(|broker| {
        let (nodes, own) = (broker.nodes(), broker.node().node);
        Some(nodes.into_iter().find(|node| node.node == own)?.address)
    });
    let at = address.map_or_else(String::new, |address| format!("; gRPC is at {address}"));
    let text = format!("this is the HTTP port for metrics and health{at}");
    let headers = [
        ("content-type", "application/grpc".to_owned()),
        ("grpc-status", "12".to_owned()),
        ("grpc-message", text),
    ];
    headers.into_response()
}

/// What a person who opens the port in a browser wants to know.
async fn index(State(seen): State<Seen>) -> Html<String> {
    let state = match (seen.health.startup(), seen.health.ready()) {
        (Err(why), _) | (_, Err(why)) => why,
        (Ok(_), Ok(())) => "ready".to_owned(),
    };
    let broker = seen.health.startup().ok();
    let rows = broker.map_or(String::new(), |broker| {
        let node = broker.node();
        let nodes = broker.nodes();
        let me = nodes.into_iter().find(|other| other.node == node.node);
        let address = me.map_or(String::new(), |me| me.address);
        let kafka = node.listeners.get(varve_frontend_kafka::LISTENER);
        let kafka = kafka.map_or(String::new(), |address| {
            let address = escaped(address);
            format!("<tr><th>Kafka protocol</th><td>{address}</td></tr>")
        });
        format!(
            "<tr><th>node</th><td>{}</td></tr><tr><th>cluster</th><td>{}</td></tr>\
             <tr><th>gRPC</th><td>{}</td></tr>{kafka}",
            node.node,
            node.cluster,
            escaped(&address),
        )
    });
    let links: String = PAGES
        .iter()
        .map(|(path, what)| format!("<li><a href=\"{path}\">{path}</a> {what}</li>"))
        .collect();
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>varve</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style>\
         <h1>varve {}</h1><table><tr><th>state</th><td>{}</td></tr>{rows}</table><ul>{links}</ul></html>\n",
        crate::VERSION_LINE,
        escaped(&state),
    ))
}

/// Text as it may stand in a page.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            c => out.push(c),
        }
    }
    out
}

async fn live(State(seen): State<Seen>) -> Response {
    answer(seen.health.live().await)
}

async fn ready(State(seen): State<Seen>) -> Response {
    answer(seen.health.ready())
}

async fn startup(State(seen): State<Seen>) -> Response {
    answer(seen.health.startup().map(|_| ()))
}

async fn render(State(seen): State<Seen>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
    let dialect = Dialect::accepted(&accept.join(","));
    if let Ok(broker) = seen.health.startup() {
        broker.refresh_group_metrics().await;
    }
    match seen.metrics.render() {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, dialect.content_type())];
            (kind, dialect.body(text)).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn version() -> Response {
    let body = serde_json::json!({ "version": crate::VERSION, "revision": crate::REVISION });
    axum::Json(body).into_response()
}

async fn healthz(State(seen): State<Seen>) -> Response {
    let word = |state: Result<(), String>| state.map_or_else(|why| why, |()| "ok".to_owned());
    let ready = seen.health.ready();
    let status = if ready.is_ok() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let cluster = seen.health.startup().ok().map(|broker| {
        let health = broker.health();
        serde_json::json!({
            "healthy": health.healthy(),
            "leaderless_partitions": health.leaderless,
            "under_replicated_partitions": health.under_replicated,
            "under_min_isr_partitions": health.under_min_isr,
            "low_space_nodes": health.low_space.iter().map(|n| n.0).collect::<Vec<_>>(),
        })
    });
    let storage = seen.health.startup().ok().map(storage);
    let body = serde_json::json!({
        "version": crate::VERSION,
        "startup": word(seen.health.startup().map(|_| ())),
        "live": word(seen.health.live().await),
        "ready": word(ready),
        "cluster": cluster,
        "storage": storage,
    });
    (status, axum::Json(body)).into_response()
}

/// What is wrong with the disk. Liveness and readiness do not look at it: a restart repairs no file, and the
/// other partitions serve.
fn storage(broker: &varve_broker::Broker) -> serde_json::Value {
    let health = broker.storage_health();
    let offline = health.offline.iter().map(|(partition, reason)| {
        let (topic, number) = (partition.topic.as_str(), partition.partition.0);
        serde_json::json!({ "topic": topic, "partition": number, "reason": reason })
    });
    let damaged = health.damaged.iter().map(|d| {
        serde_json::json!({
            "topic": d.partition.topic.as_str(), "partition": d.partition.partition.0,
            "file": d.file, "position": d.position,
            "first_offset": d.offsets.map(|range| range.start.get()),
            "next_offset": d.offsets.map(|range| range.end.get()),
            "expected": d.expected, "found": d.found,
        })
    });
    let stalled = health.stalled.iter().map(|(partition, span)| {
        let (topic, number) = (partition.topic.as_str(), partition.partition.0);
        serde_json::json!({ "topic": topic, "partition": number, "seconds": span.as_secs() })
    });
    let repairing = health.repairing.iter().map(|partition| {
        let (topic, number) = (partition.topic.as_str(), partition.partition.0);
        serde_json::json!({ "topic": topic, "partition": number })
    });
    let scrub = health.scrub.map(|s| {
        serde_json::json!({
            "running": s.running, "pass_bytes": s.pass_bytes, "pass_damage": s.pass_damage,
            "last_pass_ms": s.last_pass_ms,
        })
    });
    serde_json::json!({
        "healthy": health.is_good(),
        "offline_partitions": offline.collect::<Vec<_>>(),
        "damaged": damaged.collect::<Vec<_>>(),
        "repairing": repairing.collect::<Vec<_>>(),
        "stalled_flushes": stalled.collect::<Vec<_>>(),
        "scrub": scrub,
    })
}
