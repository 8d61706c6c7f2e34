//! Names of nodes in certificates. The certificate of node 3 has the DNS names `node-3.peer.varve`, by which
//! whoever means that node knows it, and `peer.varve`, by which whoever only has an address knows that a node
//! answers. Neither is ever looked up.

use rustls::pki_types::CertificateDer;
use varve_types::NodeId;

/// The name that every node's certificate has.
pub const ANY_NODE: &str = "peer.varve";

/// The name of one node; of any, when it is not known which.
#[must_use]
pub fn of(node: Option<NodeId>) -> String {
    node.map_or_else(
        || ANY_NODE.to_owned(),
        |node| format!("node-{node}.{ANY_NODE}"),
    )
}

fn parse(name: &str) -> Option<NodeId> {
    let digits = name
        .strip_prefix("node-")?
        .strip_suffix(ANY_NODE)?
        .strip_suffix('.')?;
    let node = NodeId(digits.parse().ok().filter(|n| *n >= 0)?);
    // One spelling of each number.
    (of(Some(node)) == name).then_some(node)
}

/// The node that a certificate names; `None` when it names none, or several.
#[must_use]
pub fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut nodes = certificate.valid_dns_names().filter_map(parse);
    let node = nodes.next()?;
    nodes.all(|other| other == node).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(names).unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_names_one_node() {
        assert_eq!(of(Some(NodeId(3))), "node-3.peer.varve");
        let named = |names: &[&str]| node_of(&certificate(names));
        let three = Some(NodeId(3));
        assert_eq!(
            named(&["node-3.peer.varve", "peer.varve", "a.example"]),
            three
        );
        assert_eq!(named(&["node-3.peer.varve", "node-4.peer.varve"]), None);
        for none in [
            "peer.varve",
            "node-.peer.varve",
            "node-03.peer.varve",
            "node-+3.peer.varve",
            "node-2147483648.peer.varve",
            "node-3.peer.varve.example",
            "node-3peer.varve",
            "*.peer.varve",
            "x.node-3.peer.varve",
        ] {
            assert_eq!(named(&[none]), None, "{none}");
        }
        assert_eq!(node_of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
