//! The StatefulSet of an overlay, read as the kubelet would.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

/// What a pod needs to be run.
pub struct Manifest {
    objects: Vec<Value>,
}

/// Where the content of a mount comes from.
pub enum Source {
    /// Files of a config map.
    Files(BTreeMap<String, String>),
    /// A secret of that name, which somebody has to make.
    Secret(String),
    /// The pod's own volume.
    Claim,
}

impl Manifest {
    /// Of an overlay's objects as JSON.
    pub fn parse(json: &str) -> Self {
        let objects = serde_json::from_str(json).unwrap();
        Self { objects }
    }

    fn object(&self, kind: &str) -> &Value {
        let found = self.objects.iter().find(|o| o["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind} in the overlay"))
    }

    fn set(&self) -> &Value {
        &self.object("StatefulSet")["spec"]
    }

    fn container(&self) -> &Value {
        &self.set()["template"]["spec"]["containers"][0]
    }

    /// Namespace.
    pub fn namespace(&self) -> &str {
        let object = self.object("StatefulSet");
        object["metadata"]["namespace"].as_str().unwrap()
    }

    /// Pods.
    pub fn replicas(&self) -> usize {
        usize::try_from(self.set()["replicas"].as_u64().unwrap()).unwrap()
    }

    fn seconds(value: &Value) -> Duration {
        Duration::from_secs(value.as_u64().unwrap())
    }

    /// Time a pod must be ready before the next one is replaced.
    pub fn min_ready(&self) -> Duration {
        Self::seconds(&self.set()["minReadySeconds"])
    }

    /// Time a pod has to end by itself.
    pub fn grace(&self) -> Duration {
        Self::seconds(&self.set()["template"]["spec"]["terminationGracePeriodSeconds"])
    }

    /// Name of the pod with that ordinal, which is its host's name too.
    pub fn pod(&self, ordinal: usize) -> String {
        let object = self.object("StatefulSet");
        format!("{}-{ordinal}", object["metadata"]["name"].as_str().unwrap())
    }

    /// Name of that pod in DNS.
    pub fn host(&self, ordinal: usize) -> String {
        let (pod, service) = (self.pod(ordinal), self.set()["serviceName"].as_str());
        format!(
            "{pod}.{}.{}.svc.cluster.local",
            service.unwrap(),
            self.namespace()
        )
    }

    /// Port of that name.
    pub fn port(&self, name: &str) -> u16 {
        let ports = self.container()["ports"].as_array().unwrap();
        let port = ports.iter().find(|p| p["name"] == name).unwrap();
        u16::try_from(port["containerPort"].as_u64().unwrap()).unwrap()
    }

    /// Path of a probe.
    pub fn probe(&self, name: &str) -> &str {
        self.container()[name]["httpGet"]["path"].as_str().unwrap()
    }

    /// Arguments of the container.
    pub fn args(&self) -> Vec<String> {
        let args = self.container()["args"].as_array().unwrap();
        args.iter()
            .map(|a| a.as_str().unwrap().to_owned())
            .collect()
    }

    /// Environment of a pod; references see what stands before them.
    pub fn env(&self, ordinal: usize) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = Vec::new();
        for entry in self.container()["env"].as_array().unwrap() {
            let name = entry["name"].as_str().unwrap().to_owned();
            let mut value = match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("metadata.name") => self.pod(ordinal),
                Some("metadata.namespace") => self.namespace().to_owned(),
                Some(other) => panic!("{other} is not known here"),
                None => entry["value"].as_str().unwrap().to_owned(),
            };
            for (before, known) in &out {
                value = value.replace(&format!("$({before})"), known);
            }
            out.push((name, value));
        }
        out
    }

    /// Paths in the container, with what is there.
    pub fn mounts(&self) -> Vec<(String, Source)> {
        let mounts = self.container()["volumeMounts"].as_array().unwrap();
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        mounts
            .iter()
            .map(|m| (text(&m["mountPath"]), self.source(&text(&m["name"]))))
            .collect()
    }

    fn source(&self, volume: &str) -> Source {
        let volumes = self.set()["template"]["spec"]["volumes"].as_array();
        let Some(found) = volumes.unwrap().iter().find(|v| v["name"] == volume) else {
            let claims = self.set()["volumeClaimTemplates"].as_array().unwrap();
            assert!(claims.iter().any(|c| c["metadata"]["name"] == volume));
            return Source::Claim;
        };
        if let Some(secret) = found["secret"]["secretName"].as_str() {
            return Source::Secret(secret.to_owned());
        }
        let config = self.object("ConfigMap");
        assert_eq!(found["configMap"]["name"], config["metadata"]["name"]);
        let files = config["data"].as_object().unwrap();
        let file = |(k, v): (&String, &Value)| (k.clone(), v.as_str().unwrap().to_owned());
        Source::Files(files.iter().map(file).collect())
    }
}
