//! The listener with TLS: who is served, who is not, and that whoever is not costs others nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tower::Service as _;
use varve_frontend_kafka::wire::generated::api_versions::ApiVersionsRequest;
use varve_frontend_kafka::wire::{Request, Text};
use varve_tls::{ClientFiles, ClientTls, Connector};

use crate::Bed;
use crate::ca::Ca;
use crate::client::Client;
use crate::clients;

/// A node whose listener speaks TLS, its CA and the folder of the certificates.
struct Secure {
    bed: Bed,
    ca: Ca,
    files: TempDir,
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Secure {
    async fn start(mode: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let ca = Ca::new(files.path(), "ca");
        let (cert, key) = ca.issue("node", &["localhost", "127.0.0.1"]);
        let mut settings = vec![
            ("listeners.kafka.tls.mode", mode),
            ("listeners.kafka.tls.cert", text(&cert)),
            ("listeners.kafka.tls.key", text(&key)),
        ];
        if mode == "mutual" {
            settings.push(("listeners.kafka.tls.ca", text(&ca.file)));
        }
        let bed = Bed::start(&settings).await;
        Self { bed, ca, files }
    }

    /// A client that trusts that CA and shows that certificate; `None`: the handshake failed.
    async fn client(&self, trusted: &Ca, identity: Option<(PathBuf, PathBuf)>) -> Option<Client> {
        let files = ClientFiles {
            ca: Some(trusted.file.clone()),
            identity,
        };
        let tls: Arc<ClientTls> = ClientTls::load(files).unwrap();
        let mut connector = Connector::new(Some(tls), None);
        let uri = format!("http://{}", self.bed.kafka).parse().unwrap();
        let stream = connector.call(uri).await.ok()?;
        Some(Client::over(stream.into_inner()))
    }

    /// Whether whoever holds this connection is served.
    async fn serves(client: &mut Client) -> bool {
        let request = ApiVersionsRequest {
            client_software_name: Text::from_static("test"),
            client_software_version: Text::from_static("1.0"),
            ..ApiVersionsRequest::default()
        };
        client.is_answered(3, &Request::ApiVersions(request)).await
    }
}

/// Bytes that are no TLS, of this protocol and of others.
const PLAIN: [&[u8]; 4] = [
    &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
    b"GET / HTTP/1.1\r\n\r\n",
    &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3],
    &[0x7f, 0xff, 0xff, 0xff],
];

async fn plaintext_is_refused_alone(secure: &Secure, honest: &mut Client) {
    for bytes in PLAIN {
        let mut plain = Client::connect(secure.bed.kafka).await;
        plain.raw(bytes).await;
        if bytes[0] == 0x16 {
            // The beginning of a handshake that does not go on.
            drop(plain);
        } else {
            assert!(plain.frame_or_alert().await, "{bytes:?} was answered");
        }
        assert!(Secure::serves(honest).await, "after {bytes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_to_a_tls_listener_ends_its_own_connection_only() {
    let secure = Secure::start("tls").await;
    let mut honest = secure.client(&secure.ca, None).await.unwrap();
    assert!(Secure::serves(&mut honest).await);
    plaintext_is_refused_alone(&secure, &mut honest).await;
    // A client that does not trust the node does not speak to it.
    let other = Ca::new(secure.files.path(), "other");
    assert!(secure.client(&other, None).await.is_none());
    secure.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_asks_for_certificates_serves_those_of_its_ca() {
    let secure = Secure::start("mutual").await;
    let identity = secure.ca.issue("person", &["someone.example"]);
    let known = Some(identity.clone());
    let mut honest = secure.client(&secure.ca, known.clone()).await.unwrap();
    assert!(Secure::serves(&mut honest).await);
    let other = Ca::new(secure.files.path(), "other");
    let foreign = other.issue("stranger", &["someone.example"]);
    let expired = secure.ca.issue_until("expired", &["old.example"], 2001);
    for identity in [None, Some(foreign), Some(expired)] {
        let named = format!("{identity:?}");
        // The client's side of the handshake ends before the server has looked at the certificate.
        if let Some(mut client) = secure.client(&secure.ca, identity).await {
            assert!(!Secure::serves(&mut client).await, "{named} was served");
        }
        assert!(Secure::serves(&mut honest).await, "after {named}");
    }
    plaintext_is_refused_alone(&secure, &mut honest).await;
    honest.create("secret", 1).await;
    let address = secure.bed.kafka.to_string();
    let files = [&secure.ca.file, &identity.0, &identity.1].map(|p| text(p));
    let arguments = [&[address.as_str()][..], &files].concat();
    clients::script_with("kafka, confluent_kafka", "tls.py", &arguments).await;
    assert!(Secure::serves(&mut honest).await);
    secure.bed.stop().await;
}
