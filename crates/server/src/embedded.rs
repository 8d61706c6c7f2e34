//! A node inside another program, on loopback ports that the system chooses: for the demo, tests and benches.

use std::path::Path;

use anyhow::Result;

use crate::config::{Config, Settings};
use crate::node::Node;

/// Starts a node on `dir` with defaults.
///
/// # Errors
/// As [`Node::start`].
pub async fn start(dir: &Path) -> Result<Node> {
    start_with(dir, &[]).await
}

/// Starts a node on `dir` with settings over the defaults.
///
/// # Errors
/// As [`Node::start`], or a setting that is not valid.
pub async fn start_with(dir: &Path, settings: &[(&str, &str)]) -> Result<Node> {
    Node::start(config(dir, settings)?).await
}

/// The configuration of such a node.
pub(crate) fn config(dir: &Path, settings: &[(&str, &str)]) -> Result<Config> {
    let data = dir.join("data");
    let data = data.to_string_lossy();
    let base = [
        ("node.id", "1"),
        ("storage.data_dir", &*data),
        ("storage.min_free_bytes", "256MiB"),
        ("listeners.client.address", "127.0.0.1:0"),
        ("listeners.client.tls.mode", "insecure"),
        ("listeners.peer.tls.mode", "insecure"),
        ("http.address", "127.0.0.1:0"),
        ("shutdown.drain_grace", "0s"),
        ("shutdown.stream_grace", "1s"),
    ];
    let flags: Vec<(String, String)> = base
        .iter()
        .chain(settings)
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let settings = Settings::load(None, std::iter::empty(), &flags)?;
    Ok(Config::resolve(&settings)?)
}
