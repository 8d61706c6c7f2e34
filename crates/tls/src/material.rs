//! Certificates and keys from PEM files, made into configurations of rustls.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// What HTTP/2 is called in a handshake; gRPC clients insist on it.
const ALPN: &[u8] = b"h2";
/// Where systems keep the CAs they trust; the first that is there counts.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Why certificates cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A file is not what it should be.
    #[error("{} holds no {what}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// The files do not fit together.
    #[error("{} cannot be used: {why}", path.display())]
    Unusable {
        /// The file, or the first of several.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Files of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// Certificate with those between it and its CA, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// What callers must show.
    pub callers: Callers,
}

/// What a listener asks of callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callers {
    /// No certificate.
    Anyone,
    /// A certificate signed by a CA of this file, PEM.
    SignedBy(PathBuf),
}

/// Files of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientFiles {
    /// CAs that servers' certificates are signed by, PEM; `None`: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// Certificate to show, and its private key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

fn unreadable(path: &Path, error: &pem::Error) -> TlsError {
    TlsError::Unreadable {
        path: path.to_owned(),
        why: match error {
            pem::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        },
    }
}

fn unusable(path: &Path, error: impl std::fmt::Display) -> TlsError {
    TlsError::Unusable {
        path: path.to_owned(),
        why: error.to_string(),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = found.map_err(|error| unreadable(path, &error))?;
    if found.is_empty() {
        return Err(TlsError::Empty {
            path: path.to_owned(),
            what: "certificate",
        });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::Empty {
            path: path.to_owned(),
            what: "private key",
        },
        error => unreadable(path, &error),
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(path: &Path, found: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in found {
        roots
            .add(certificate.clone())
            .map_err(|error| unusable(path, error))?;
    }
    Ok(roots)
}

/// Everything that was read, so that a change is seen whatever the file system says of times.
#[derive(PartialEq, Eq)]
struct Read {
    chain: Vec<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
    ca: Vec<CertificateDer<'static>>,
}

/// A configuration that is replaced when its files change. New connections take the newest.
struct Current<C> {
    read: Mutex<Read>,
    config: ArcSwap<C>,
}

impl<C> Current<C> {
    fn new(read: Read, config: C) -> Self {
        Self {
            read: Mutex::new(read),
            config: ArcSwap::from_pointee(config),
        }
    }

    /// Whether anything had changed.
    fn renew(
        &self,
        read: Read,
        build: impl FnOnce(&Read) -> Result<C, TlsError>,
    ) -> Result<bool, TlsError> {
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == read {
            return Ok(false);
        }
        self.config.store(Arc::new(build(&read)?));
        *known = read;
        Ok(true)
    }
}

/// TLS of a listener.
pub struct ServerTls {
    files: ServerFiles,
    current: Current<ServerConfig>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl ServerFiles {
    fn read(&self) -> Result<Read, TlsError> {
        Ok(Read {
            chain: certificates(&self.cert)?,
            key: Some(private_key(&self.key)?),
            ca: match &self.callers {
                Callers::Anyone => Vec::new(),
                Callers::SignedBy(ca) => certificates(ca)?,
            },
        })
    }

    fn build(&self, read: &Read) -> Result<ServerConfig, TlsError> {
        let Some(key) = read.key.as_ref().map(PrivateKeyDer::clone_key) else {
            return Err(unusable(&self.key, "there is no key"));
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(&self.cert, error))?;
        let builder = match &self.callers {
            Callers::Anyone => builder.with_no_client_auth(),
            Callers::SignedBy(ca) => {
                let roots = Arc::new(roots(ca, &read.ca)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                builder.with_client_cert_verifier(
                    verifier.build().map_err(|error| unusable(ca, error))?,
                )
            }
        };
        let mut config = builder
            .with_single_cert(read.chain.clone(), key)
            .map_err(|error| unusable(&self.cert, error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A session that is resumed shows no certificate; every connection is to be checked anew.
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file that is at fault.
    pub fn load(files: ServerFiles) -> Result<Arc<Self>, TlsError> {
        let read = files.read()?;
        let config = files.build(&read)?;
        Ok(Arc::new(Self {
            files,
            current: Current::new(read, config),
        }))
    }

    /// Reads the files again; new connections take what is in them. Whether anything had changed.
    ///
    /// # Errors
    /// [`TlsError`]; what was read before stays in use.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let read = self.files.read()?;
        self.current.renew(read, |read| self.files.build(read))
    }

    /// The files.
    #[must_use]
    pub const fn files(&self) -> &ServerFiles {
        &self.files
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.config.load_full()
    }
}

/// TLS of a caller.
pub struct ClientTls {
    files: ClientFiles,
    current: Current<ClientConfig>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl ClientFiles {
    /// The file with the CAs, for messages too.
    fn ca(&self) -> PathBuf {
        if let Some(ca) = &self.ca {
            return ca.clone();
        }
        let there = SYSTEM_ROOTS.iter().map(Path::new).find(|p| p.exists());
        there.unwrap_or(Path::new(SYSTEM_ROOTS[0])).to_owned()
    }

    fn read(&self) -> Result<Read, TlsError> {
        let (chain, key) = match &self.identity {
            Some((cert, key)) => (certificates(cert)?, Some(private_key(key)?)),
            None => (Vec::new(), None),
        };
        Ok(Read {
            chain,
            key,
            ca: certificates(&self.ca())?,
        })
    }

    fn build(&self, read: &Read) -> Result<ClientConfig, TlsError> {
        let path = self.ca();
        let roots = match &self.ca {
            Some(_) => roots(&path, &read.ca)?,
            None => {
                // Systems trust certificates that rustls does not understand; those are left out.
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(read.ca.iter().cloned());
                roots
            }
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(&path, error))?
            .with_root_certificates(roots);
        let mut config = match (&self.identity, &read.key) {
            (Some((cert, _)), Some(key)) => builder
                .with_client_auth_cert(read.chain.clone(), key.clone_key())
                .map_err(|error| unusable(cert, error))?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file that is at fault.
    pub fn load(files: ClientFiles) -> Result<Arc<Self>, TlsError> {
        let read = files.read()?;
        let config = files.build(&read)?;
        Ok(Arc::new(Self {
            files,
            current: Current::new(read, config),
        }))
    }

    /// Reads the files again; new connections take what is in them. Whether anything had changed.
    ///
    /// # Errors
    /// [`TlsError`]; what was read before stays in use.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let read = self.files.read()?;
        self.current.renew(read, |read| self.files.build(read))
    }

    /// The files.
    #[must_use]
    pub const fn files(&self) -> &ClientFiles {
        &self.files
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.current.config.load_full()
    }
}
