//! How the node is: started, live, ready. Liveness looks at this process alone, never at peers, so that a
//! lost quorum makes nobody kill the survivors.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use varve_broker::Broker;

/// Time in which lanes must answer to count as live.
const LIVE_WITHIN: Duration = Duration::from_secs(5);

/// State that the HTTP port and the gRPC health service tell from. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    broker: Arc<OnceLock<Broker>>,
    stopping: Arc<AtomicBool>,
}

impl Health {
    /// The node has recovered and listens.
    pub fn started(&self, broker: Broker) {
        let _ = self.broker.set(broker);
    }

    /// The node stops: not ready from here on.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Recovery is done and the listeners are open.
    ///
    /// # Errors
    /// That it is not.
    pub fn startup(&self) -> Result<&Broker, String> {
        self.broker.get().ok_or_else(|| "recovering".to_owned())
    }

    /// The process does its work.
    ///
    /// # Errors
    /// Which part does not answer.
    pub async fn live(&self) -> Result<(), String> {
        match self.broker.get() {
            // Recovery may take long; it is watched by the startup probe.
            None => Ok(()),
            Some(_) if self.stopping.load(Ordering::SeqCst) => Ok(()),
            Some(broker) => broker.liveness(LIVE_WITHIN).await,
        }
    }

    /// The node should be sent requests.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err("stopping".to_owned());
        }
        self.startup()?.readiness()
    }
}
