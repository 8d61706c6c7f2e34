//! A node as a process: start, serve until a signal, stop. The second signal ends it at once.

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use varve_broker_api::Boxed;
use varve_tls::ConnectionLimits;

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
    mut config: Config,
    announce: Box<dyn FnOnce(&Node) + Send + '_>,
) -> Result<()> {
    let files = raise_open_files().unwrap_or(u64::MAX);
    let lowered = leave_files(&mut config, files);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let timeout = config.shutdown_timeout;
    let mut node = tokio::select! {
        node = Node::start(config) => node?,
        _ = terminate.recv() => bail!("stopped before the start was complete"),
        _ = interrupt.recv() => bail!("stopped before the start was complete"),
    };
    for lowered in &lowered {
        lowered.log(files);
    }
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

/// A bound of a listener's connections that the files of this process do not allow.
struct Lowered {
    key: &'static str,
    configured: usize,
    effective: usize,
}

impl Lowered {
    /// A warning where somebody asked for the bound; the default is only a wish.
    fn log(&self, files: u64) {
        let (key, configured, effective) = (self.key, self.configured, self.effective);
        if configured == ConnectionLimits::default().all {
            tracing::info!(
                open_files = files,
                key,
                effective,
                "connections are bounded by the limit of open files"
            );
        } else {
            tracing::warn!(
                open_files = files,
                key,
                configured,
                effective,
                "this process may open too few files for the connections of that key; raise its limit (ulimit -n, LimitNOFILE)"
            );
        }
    }
}

/// Connections take files that segments need as well: a listener gets at most a quarter of those that there may be.
fn leave_files(config: &mut Config, files: u64) -> Vec<Lowered> {
    let most = usize::try_from(files / 4).unwrap_or(usize::MAX).max(1);
    let kafka = config.kafka.as_mut().map(|kafka| &mut kafka.connections);
    let listeners = [
        (
            "listeners.client.max_connections",
            Some(&mut config.connections),
        ),
        ("listeners.kafka.max_connections", kafka),
    ];
    let mut lowered = Vec::new();
    for (key, limits) in listeners {
        let Some(limits) = limits.filter(|limits| limits.all > most) else {
            continue;
        };
        lowered.push(Lowered {
            key,
            configured: limits.all,
            effective: most,
        });
        limits.all = most;
    }
    lowered
}

/// Raises the limit of open files as far as this process may. Returns what it is then; `None`: there is none.
fn raise_open_files() -> Option<u64> {
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
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn connections_leave_files_for_segments() {
        let flags = [
            ("node.id", "1"),
            ("listeners.client.tls.mode", "insecure"),
            ("listeners.kafka.address", "127.0.0.1:0"),
            ("listeners.kafka.tls.mode", "insecure"),
            ("listeners.kafka.max_connections", "200"),
        ];
        let flags = flags.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let settings = Settings::load(None, std::iter::empty(), &flags).unwrap();
        let mut config = Config::resolve(&settings).unwrap();
        let lowered = leave_files(&mut config, 4_096);
        let keys: Vec<_> = lowered.iter().map(|lowered| lowered.key).collect();
        assert_eq!(keys, ["listeners.client.max_connections"]);
        let kafka = config.kafka.as_ref().unwrap().connections;
        assert_eq!((config.connections.all, kafka.all), (1_024, 200));
        leave_files(&mut config, 1);
        assert_eq!(config.connections.all, 1);
    }
}
