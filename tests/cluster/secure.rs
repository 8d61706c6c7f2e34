//! A cluster whose nodes have certificates, for clients and for each other, of two CAs.

use std::path::Path;

use varve_tests::cluster::Cluster;

use crate::ca::Ca;

/// Three nodes by TLS, not started. The CA of the peers comes with them, to make more certificates.
pub fn prepare(dir: &Path) -> (Cluster, Ca) {
    let folder = dir.join("certificates");
    std::fs::create_dir(&folder).unwrap();
    let (clients, peers) = (Ca::new(&folder, "clients"), Ca::new(&folder, "peers"));
    let mut cluster = Cluster::prepare(dir, 3, &[]);
    for id in 1..=3_u8 {
        let for_clients = clients.issue(&format!("client-{id}"), &["127.0.0.1", "localhost"]);
        let for_peers = peers.node(i32::from(id));
        let node = cluster.node_mut(usize::from(id));
        let mut set = |key: &str, path: &Path| node.set(key, path.to_str().unwrap());
        set("VARVE_LISTENERS__CLIENT__TLS__CERT", &for_clients.0);
        set("VARVE_LISTENERS__CLIENT__TLS__KEY", &for_clients.1);
        set("VARVE_LISTENERS__PEER__TLS__CERT", &for_peers.0);
        set("VARVE_LISTENERS__PEER__TLS__KEY", &for_peers.1);
        set("VARVE_LISTENERS__PEER__TLS__CA", &peers.file);
        node.set("VARVE_LISTENERS__CLIENT__TLS__MODE", "tls");
        node.set("VARVE_LISTENERS__PEER__TLS__MODE", "mutual");
        node.trust(&clients.file);
    }
    (cluster, peers)
}

/// Three nodes by TLS that are ready.
pub fn start(dir: &Path) -> Cluster {
    let (mut cluster, _) = prepare(dir);
    cluster.start_all();
    cluster
}
