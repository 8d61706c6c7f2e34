//! What a node stands on: files, time, network, and who runs what blocks. A server has this machine's; a
//! simulation of whole servers has machines of its own, and the same server on each.

use std::sync::Arc;

use varve_tls::{Network, Tcp};
use varve_vfs::{Clock, PacedVfs, RealVfs, SystemClock, Vfs, Workers};

/// What a node stands on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Files.
    pub vfs: Arc<dyn Vfs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Listeners and connections.
    pub network: Arc<dyn Network>,
    /// Who runs what blocks.
    pub workers: Workers,
}

impl Machine {
    /// The one that this process runs on.
    #[must_use]
    pub fn this() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self {
            vfs: Arc::new(PacedVfs::new(Arc::new(RealVfs), Arc::clone(&clock))),
            clock,
            network: Arc::new(Tcp),
            workers: Workers::Threads,
        }
    }
}
