//! Certificates of a test's own making.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// A CA and the folder where its files are.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    /// Its certificate.
    pub file: PathBuf,
}

impl Ca {
    /// A new CA with its file in `dir`.
    pub fn new(dir: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, name.to_owned());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = dir.join(format!("{name}.pem"));
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&file, certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            dir: dir.to_owned(),
            file,
        }
    }

    /// Files of a certificate for these names, and of its key.
    pub fn issue(&self, file: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        self.issue_until(file, names, 2096)
    }

    /// As [`Self::issue`], valid to the beginning of that year.
    pub fn issue_until(&self, file: &str, names: &[&str], year: i32) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let cert = self.dir.join(format!("{file}.crt"));
        let path = self.dir.join(format!("{file}.key"));
        std::fs::write(&cert, certificate.pem()).unwrap();
        std::fs::write(&path, key.serialize_pem()).unwrap();
        (cert, path)
    }

    /// Files of a certificate of that node.
    #[allow(dead_code, reason = "not every suite has nodes")]
    pub fn node(&self, node: i32) -> (PathBuf, PathBuf) {
        let name = format!("node-{node}.peer.varve");
        self.issue(&format!("node-{node}"), &[&name, "peer.varve"])
    }
}
