//! Kafka's own client, one version of each generation.

use crate::java::{Java, is_long, node, sources};

/// The first client with idempotence and transactions, and the one that is used most.
const SHORT: &[&str] = &["0.11.0.3", "4.3.1"];
const LONG: &[&str] = &["0.11.0.3", "2.0.1", "2.8.2", "3.9.1", "4.3.1", "4.4.0"];

#[test]
fn clients_of_every_generation() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, kafka) = node(dir.path());
    let program = sources().join("Clients.java");
    for version in if is_long() { LONG } else { SHORT } {
        let what = format!("jvm clients {version}");
        let Some(java) = Java::of(&what, "clients", version) else {
            continue;
        };
        let prefix = format!("v{version}");
        let printed = java.run(program.to_str().unwrap(), &[&kafka, &prefix]);
        for part in ["topics", "produce", "pattern", "rebalance", "transactions"] {
            let passed = format!("passed: {part}\n");
            assert!(printed.contains(&passed), "{version}\n{printed}");
        }
    }
}
