//! A node as a process: start, serve until a signal, stop. The second signal ends it at once.

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use varve_broker_api::Boxed;

use crate::config::Config;
use crate::node::Node;
use crate::notify::notify;

/// Open files a node asks for: segments and connections need many.
const OPEN_FILES: u64 = 1_000_000;

/// Runs a node until SIGTERM or SIGINT. `announce` is told the node once it serves.
///
/// # Errors
/// A sentence about what is wrong, at the start or at the end.
pub fn run<'a>(
    config: Config,
    announce: Box<dyn FnOnce(&Node) + Send + 'a>,
) -> Boxed<'a, Result<()>> {
    Box::pin(run_until_told(config, announce))
}

async fn run_until_told(
    config: Config,
    announce: Box<dyn FnOnce(&Node) + Send + '_>,
) -> Result<()> {
    raise_open_files();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let timeout = config.shutdown_timeout;
    let mut node = tokio::select! {
        node = Node::start(config) => node?,
        _ = terminate.recv() => bail!("stopped before the start was complete"),
        _ = interrupt.recv() => bail!("stopped before the start was complete"),
    };
    notify("READY=1");
    announce(&node);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = node.failed() => break,
            // Certificates are read again by themselves; a hangup must not kill a node.
            _ = hangup.recv() => tracing::info!(
                "SIGHUP ignored: certificates are reloaded when they change, and no setting can \
                 change while the node runs"
            ),
        }
    }
    tokio::select! {
        ended = tokio::time::timeout(timeout, node.shutdown()) => match ended {
            Ok(ended) => ended,
            Err(_) => bail!("shutdown took longer than {timeout:?} and was abandoned; acknowledged \
                data is safe"),
        },
        _ = terminate.recv() => bail!("stopped immediately by a second signal; acknowledged data \
            is safe"),
        _ = interrupt.recv() => bail!("stopped immediately by a second signal; acknowledged data \
            is safe"),
    }
}

fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(OPEN_FILES, |max| max.min(OPEN_FILES));
    if now.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: now.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "could not raise the limit of open files");
        }
    }
}
