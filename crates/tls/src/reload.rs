//! Certificates are short-lived: files are read again every few seconds, and what is new and sound is used
//! from the next connection on. Contents are compared, not times: mounted secrets change by symbolic links.

use std::sync::Arc;
use std::time::Duration;

use crate::material::{ClientTls, ServerTls, TlsError};

/// Something whose files can be read again.
pub trait Reload: Send + Sync {
    /// Reads the files; whether anything had changed.
    ///
    /// # Errors
    /// [`TlsError`]; what was read before stays in use.
    fn reload(&self) -> Result<bool, TlsError>;

    /// What it is, for logs.
    fn what(&self) -> String;
}

impl Reload for ServerTls {
    fn reload(&self) -> Result<bool, TlsError> {
        Self::reload(self)
    }

    fn what(&self) -> String {
        self.files().cert.display().to_string()
    }
}

impl Reload for ClientTls {
    fn reload(&self) -> Result<bool, TlsError> {
        Self::reload(self)
    }

    fn what(&self) -> String {
        let files = self.files();
        let file = files.identity.as_ref().map(|(cert, _)| cert);
        file.or(files.ca.as_ref())
            .map_or_else(|| "system CAs".to_owned(), |f| f.display().to_string())
    }
}

/// Reads the files of `all` again every so often, without end: to be run as a task and dropped. A fault is
/// logged once, until it changes or goes away.
pub async fn watch(all: Vec<Arc<dyn Reload>>, every: Duration) {
    let mut faults: Vec<Option<TlsError>> = vec![None; all.len()];
    loop {
        tokio::time::sleep(every).await;
        for (tls, fault) in all.iter().zip(&mut faults) {
            let reading = Arc::clone(tls);
            let Ok(read) = tokio::task::spawn_blocking(move || reading.reload()).await else {
                continue;
            };
            match read {
                Ok(changed) => {
                    if changed {
                        tracing::info!(
                            certificate = tls.what(),
                            "certificates changed; the new ones are in use"
                        );
                    }
                    *fault = None;
                }
                Err(error) if fault.as_ref() != Some(&error) => {
                    tracing::error!(
                        certificate = tls.what(), %error,
                        "certificates changed but cannot be used; the old ones stay in use"
                    );
                    *fault = Some(error);
                }
                Err(_) => {}
            }
        }
    }
}
