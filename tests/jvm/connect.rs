//! Connect in its distributed mode with a source that is exactly once, killed while it works.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use varve_tests::node::free_port;
use varve_tests::wait;

use crate::java::{Java, KAFKA, Running, is_long, node};

const LINES: usize = 20_000;
/// Lines behind them: the source keeps what it has read of the end of a file until more is written.
const MORE: usize = 1_000;

fn settings(kafka: &str, rest: u16) -> String {
    let mut text = format!(
        "bootstrap.servers={kafka}\ngroup.id=connect\nlisteners=http://127.0.0.1:{rest}\n\
         exactly.once.source.support=enabled\noffset.flush.interval.ms=500\n\
         key.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=org.apache.kafka.connect.storage.StringConverter\n\
         session.timeout.ms=10000\nplugin.discovery=service_load\n"
    );
    for storage in ["config", "offset", "status"] {
        text.push_str(&format!(
            "{storage}.storage.topic=connect-{storage}\n{storage}.storage.replication.factor=1\n"
        ));
    }
    text
}

fn worker(java: &Java, config: &Path, log: &Path) -> Running {
    let main = "org.apache.kafka.connect.cli.ConnectDistributed";
    java.start(main, &[config.to_str().unwrap()], log)
}

/// Asks the worker to have a connector; whether it agrees.
fn configure(rest: u16, body: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", rest))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(
            stream,
            "PUT /connectors/lines/config HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 20"))
}

#[test]
fn connect_brings_each_line_once_though_its_worker_is_killed() {
    let what = "jvm connect";
    if !is_long() {
        return varve_tests::chaos::say(&format!("SKIPPED {what}: VARVE_TEST_JVM=long runs it"));
    }
    let Some(java) = Java::of(what, "system", KAFKA) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (node, kafka) = node(&dir.path().join("node"));
    let made = varve_tests::run(&node, &["topic", "create", "lines", "-p", "1", "-q"]);
    assert!(made.status.success(), "{made:?}");
    let (config, lines, log) = (
        dir.path().join("connect.properties"),
        dir.path().join("lines.txt"),
        dir.path().join("connect.log"),
    );
    let rest = free_port();
    std::fs::write(&config, settings(&kafka, rest)).unwrap();
    let text: String = (0..LINES + MORE).map(|n| format!("line {n}\n")).collect();
    std::fs::write(&lines, &text).unwrap();
    let mut running = worker(&java, &config, &log);
    // Small batches: there are many transactions for the kills to fall into.
    let connector = format!(
        "{{\"connector.class\":\"org.apache.kafka.connect.file.FileStreamSourceConnector\",\"tasks.max\":\"1\",\
         \"file\":{:?},\"topic\":\"lines\",\"batch.size\":\"20\",\"exactly.once.support\":\"required\",\
         \"transaction.boundary\":\"poll\"}}",
        lines.display().to_string()
    );
    wait::until("a connector", Duration::from_secs(120), || {
        configure(rest, &connector).then_some(())
    });
    let read = || {
        let out = varve_tests::run(
            &node,
            &["consume", "lines", "-o", "start", "-e", "-q", "-f", "%v\\n"],
        );
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    for part in [10, 3] {
        let enough = || (read().lines().count() >= LINES / part).then_some(());
        wait::until("some of the lines", Duration::from_secs(180), enough);
        running.kill();
        running = worker(&java, &config, &log);
    }
    let all = || (read().lines().count() >= LINES).then_some(());
    wait::until("all lines", Duration::from_secs(240), all);
    let (read, log) = (read(), running.log());
    assert!(
        text.starts_with(&read),
        "each line is there once and in its order\n{log}"
    );
}
