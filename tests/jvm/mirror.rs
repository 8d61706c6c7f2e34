//! MirrorMaker 2 between a broker of Kafka's and a node, both ways at once and exactly once: configs and records.

use std::path::Path;
use std::time::Duration;

use varve_tests::node::free_port;

use crate::java::{Java, KAFKA, Running, is_long, node, sources};

/// Topics of each cluster.
const TOPICS: &str = "25";

/// A broker of Kafka's, and its address.
fn broker(java: &Java, dir: &Path) -> (Running, String) {
    let (address, controller) = (
        format!("127.0.0.1:{}", free_port()),
        format!("127.0.0.1:{}", free_port()),
    );
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{controller}\n\
         listeners=PLAINTEXT://{address},CONTROLLER://{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\ngroup.initial.rebalance.delay.ms=0\nlog.dirs={}\n",
        dir.join("kafka").display()
    );
    let config = dir.join("kafka.properties");
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let id = "AAAAAAAAAAAAAAAAAAAAAQ";
    java.run(
        "kafka.tools.StorageTool",
        &["format", "-t", id, "-c", config],
    );
    let broker = java.start("kafka.Kafka", &[config], &dir.join("kafka.log"));
    varve_tests::wait::until("Kafka's broker", Duration::from_secs(60), || {
        std::net::TcpStream::connect(&address).ok()
    });
    (broker, address)
}

fn settings(kafka: &str, varve: &str) -> String {
    let mut text = format!(
        "clusters=kafka,varve\nkafka.bootstrap.servers={kafka}\nvarve.bootstrap.servers={varve}\n\
         replication.factor=1\nrefresh.topics.interval.seconds=2\n\
         sync.topic.configs.interval.seconds=2\nsync.topic.acls.enabled=false\n\
         emit.heartbeats.enabled=false\ntasks.max=2\ndedicated.mode.enable.internal.rest=true\n\
         listeners=http://127.0.0.1:{}\n",
        free_port()
    );
    for topic in [
        "checkpoints.topic",
        "heartbeats.topic",
        "offset-syncs.topic",
    ] {
        text.push_str(&format!("{topic}.replication.factor=1\n"));
    }
    for storage in ["config", "offset", "status"] {
        text.push_str(&format!("{storage}.storage.replication.factor=1\n"));
    }
    for (from, to) in [("kafka", "varve"), ("varve", "kafka")] {
        text.push_str(&format!(
            "{from}->{to}.enabled=true\n{from}->{to}.topics=of-{from}-.*\n"
        ));
        text.push_str(&format!("{to}.exactly.once.source.support=enabled\n"));
    }
    text
}

#[test]
fn mirror_maker_brings_topics_with_their_configs_both_ways() {
    let what = "jvm mirror";
    if !is_long() {
        return varve_tests::chaos::say(&format!("SKIPPED {what}: VARVE_TEST_JVM=long runs it"));
    }
    let Some(java) = Java::of(what, "system", KAFKA) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (_node, varve) = node(&dir.path().join("node"));
    let (_broker, kafka) = broker(&java, dir.path());
    let config = dir.path().join("mirror.properties");
    std::fs::write(&config, settings(&kafka, &varve)).unwrap();
    let maker = "org.apache.kafka.connect.mirror.MirrorMaker";
    let log = dir.path().join("mirror.log");
    let maker = java.start(maker, &[config.to_str().unwrap()], &log);
    let clusters = [format!("kafka={kafka}"), format!("varve={varve}")];
    let program = sources().join("Mirror.java");
    let printed = java.run(
        program.to_str().unwrap(),
        &[&clusters[0], &clusters[1], TOPICS],
    );
    assert!(
        printed.contains("all passed: 50 topics, 60 configs"),
        "{printed}\n{}",
        maker.log()
    );
}
