//! The clients that people use, unmodified: kafka-python, aiokafka, confluent-kafka (librdkafka) and kcat. A test whose
//! client is not there is skipped, loudly, unless `VARVE_TEST_REQUIRE_PYTHON=1` or `VARVE_TEST_REQUIRE_KCAT=1` says
//! that it must be there.

use std::process::Command;

use varve_tests::python::{self, python, scripts};

use crate::Bed;

/// `wanted` names the variable that says that there must be a client.
fn skipped(wanted: &str, text: &str) {
    let required = std::env::var_os(wanted).is_some_and(|v| v == "1");
    assert!(!required, "{text}");
    // Past the capture of output: nobody should take it for a test that ran.
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {text}");
}

/// Runs a client to its end, and ends it itself where that does not come: what it had said by then is told.
async fn drive(client: Command) -> String {
    let mut command = Command::new("timeout");
    command.args(["-k", "10", "300"]).arg(client.get_program());
    command.args(client.get_args());
    let done = tokio::task::spawn_blocking(move || command.output());
    let done = done.await.unwrap().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout).into_owned(),
        String::from_utf8_lossy(&done.stderr).into_owned(),
    );
    assert!(done.status.success(), "{}: {out}\n{err}", done.status);
    out
}

/// Runs a script against a listener of a cluster of so many nodes.
pub async fn script(modules: &str, name: &str, address: &str, nodes: &str) {
    script_with(modules, name, &[address, nodes]).await;
}

/// Runs a script with these arguments.
pub async fn script_with(modules: &str, name: &str, arguments: &[&str]) {
    let Some(python) = python(modules) else {
        return python::skip(name);
    };
    let mut command = Command::new(python);
    command.arg(scripts().join(name)).args(arguments);
    let out = drive(command).await;
    assert!(out.contains("ok"), "{out}");
}

async fn on_one_node(modules: &str, name: &str) {
    let bed = Bed::start(&[("auto.create.topics.enable", "true")]).await;
    script(modules, name, &bed.kafka.to_string(), "1").await;
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_python() {
    on_one_node("kafka", "kafka_python.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_both() {
    on_one_node("kafka, confluent_kafka", "kafka_groups.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aiokafka() {
    on_one_node("aiokafka", "aio.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn confluent_kafka() {
    on_one_node("confluent_kafka", "confluent.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_both() {
    on_one_node("kafka, confluent_kafka", "kafka_transactions.py").await;
}

/// The programs that the document shows, as they stand there but for the address.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_document() {
    let Some(python) = python("kafka, confluent_kafka") else {
        return python::skip("the examples of docs/kafka.md");
    };
    let document = include_str!("../../docs/kafka.md");
    let after = |start: &str| -> Vec<String> {
        let blocks = document.split(start).skip(1);
        let ends = blocks.filter_map(|block| block.split("```").next());
        ends.map(str::to_owned).collect()
    };
    let examples = after("```python\n");
    assert!(examples.len() >= 2, "the document has examples");
    let bed = Bed::start(&[("auto.create.topics.enable", "true")]).await;
    let address = bed.kafka.to_string();
    for example in examples {
        assert!(example.contains("localhost:9092"), "{example}");
        let mut command = Command::new(&python);
        command.args(["-c", &example.replace("localhost:9092", &address)]);
        let out = drive(command).await;
        // What a comment of the last line says is printed is printed.
        let last = example.trim_end().lines().last().unwrap_or_default();
        let (_, shown) = last
            .split_once("# prints ")
            .expect("what the example prints");
        assert!(out.contains(shown), "{example}\n{out}");
    }
    bed.stop().await;
}

/// Runs kcat against a listener: what it prints. `None`: there is none, and there need not be.
pub async fn kcat(address: &str, before: &str, arguments: &str) -> Option<String> {
    if Command::new("kcat").arg("-V").output().is_err() {
        let text = "kcat was not found; install the package of that name";
        skipped("VARVE_TEST_REQUIRE_KCAT", text);
        return None;
    }
    let mut command = Command::new("sh");
    let text = format!("{before} kcat -b {address} {arguments}");
    command.args(["-c", &text]);
    Some(drive(command).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_lists_and_produces_and_reads() {
    let bed = Bed::start(&[]).await;
    bed.client().await.create("lines", 2).await;
    let address = &bed.kafka.to_string();
    let Some(list) = kcat(address, "", "-L").await else {
        return;
    };
    assert!(list.contains("topic \"lines\" with 2 partitions"), "{list}");
    let lines = "printf 'k:one\\nk:two\\n' |";
    kcat(address, lines, "-P -t lines -p 1 -K: -X acks=all").await;
    let format = "-C -t lines -p 1 -o beginning -e -q -f '%k=%s@%o\\n'";
    let read = kcat(address, "", format).await.unwrap();
    assert_eq!(read, "k=one@0\nk=two@1\n");
    let end = kcat(address, "", "-Q -t lines:1:-1").await.unwrap();
    assert!(end.contains("lines [1] offset 2"), "{end}");
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_over_tls() {
    if Command::new("kcat").arg("-V").output().is_err() {
        return skipped(
            "VARVE_TEST_REQUIRE_KCAT",
            "kcat was not found; install the package of that name",
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_string_lossy(), key.to_string_lossy());
    let bed = Bed::start(&[
        ("listeners.kafka.tls.mode", "tls"),
        ("listeners.kafka.tls.cert", &*cert),
        ("listeners.kafka.tls.key", &*key),
    ])
    .await;
    let mut command = Command::new("kcat");
    command.args(["-b", &bed.kafka.to_string(), "-L"]);
    command.args(["-X", "security.protocol=SSL", "-X"]);
    command.arg(format!("ssl.ca.location={cert}"));
    let list = drive(command).await;
    assert!(list.contains("1 brokers"), "{list}");
    // Plaintext gets nowhere, and costs others nothing.
    let mut plain = crate::client::Client::connect(bed.kafka).await;
    plain.raw(&[0, 0, 0, 8, 0, 18, 0, 0, 0, 0, 0, 1]).await;
    let refused = plain.frame_or_alert().await;
    assert!(refused, "no answer to plaintext");
    bed.stop().await;
}
