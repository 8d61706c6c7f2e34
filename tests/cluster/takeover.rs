//! Two consumers of one group share the partitions; one is killed; the other takes over within the session
//! timeout and continues from the committed offsets.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use varve_tests::node::Node;
use varve_tests::wait;

const SESSION: Duration = Duration::from_secs(3);

/// A `varve consume -g` and what it has printed: partition, offset.
struct Member {
    child: Child,
    seen: Arc<Mutex<Vec<(u32, u64)>>>,
}

impl Member {
    fn start(node: &Node) -> Self {
        let mut child = Command::new(varve_tests::varve())
            .args([
                "consume",
                "orders",
                "-g",
                "billing",
                "-u",
                "--commit-interval",
                "100ms",
            ])
            .args(["-f", "%p %o\\n"])
            .env("VARVE_BROKERS", node.address())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let (partition, offset) = line.split_once(' ').unwrap();
                let record = (partition.parse().unwrap(), offset.parse().unwrap());
                sink.lock().unwrap().push(record);
            }
        });
        Self { child, seen }
    }

    fn seen(&self) -> Vec<(u32, u64)> {
        self.seen.lock().unwrap().clone()
    }

    fn partitions(&self) -> Vec<u32> {
        let mut partitions: Vec<u32> = self.seen().iter().map(|(p, _)| *p).collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One record to each of the four partitions.
fn produce_round(node: &Node) {
    for partition in ["0", "1", "2", "3"] {
        let args = ["produce", "orders", "-p", partition];
        let output = varve_tests::run_with_input(node, &args, b"x\n");
        assert!(output.status.success(), "{output:?}");
    }
}

/// Committed offset per partition, from `varve group describe -o json`.
fn committed(node: &Node) -> BTreeMap<u64, u64> {
    let output = varve_tests::run(node, &["group", "describe", "billing", "-o", "json"]);
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
        return BTreeMap::new();
    };
    let offsets = json
        .pointer("/offsets")
        .and_then(|o| o.as_array())
        .cloned()
        .unwrap_or_default();
    offsets
        .iter()
        .filter_map(|o| {
            let partition = o.pointer("/topicPartition/partition")?.as_u64()?;
            let offset = o.pointer("/offset")?.as_str()?.parse().ok()?;
            Some((partition, offset))
        })
        .collect()
}

#[test]
fn a_killed_member_is_replaced_within_the_session_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let session = SESSION.as_millis().to_string();
    let node = Node::start_with(
        dir.path(),
        &[
            ("VARVE_GROUP__SESSION__TIMEOUT__MS", &session),
            ("VARVE_GROUP__HEARTBEAT__INTERVAL__MS", "500"),
        ],
    );
    let made = varve_tests::run(&node, &["topic", "create", "orders", "-p", "4"]);
    assert!(made.status.success(), "{made:?}");
    let mut first = Member::start(&node);
    let second = Member::start(&node);
    // Rounds until each member has been given records of two partitions of its own.
    wait::until(
        "the group to share the partitions",
        Duration::from_secs(60),
        || {
            produce_round(&node);
            let (a, b) = (first.partitions(), second.partitions());
            let shared = a.iter().filter(|p| !b.contains(p)).count();
            (shared == 2 || (a.len() == 4 && b.len() == 2)).then_some(())
        },
    );
    // What each owns is what it gets of one more round, once nothing is being handed over any more.
    let owned_by_first: Vec<u32> = wait::until(
        "two of four partitions each",
        Duration::from_secs(60),
        || {
            let (before_a, before_b) = (first.seen().len(), second.seen().len());
            produce_round(&node);
            wait::until("the round to arrive", Duration::from_secs(30), || {
                (first.seen().len() + second.seen().len() >= before_a + before_b + 4).then_some(())
            });
            let seen = first.seen();
            let owned: Vec<u32> = seen[before_a..].iter().map(|(p, _)| *p).collect();
            (owned.len() == 2).then_some(owned)
        },
    );
    let ends: BTreeMap<u64, u64> = {
        let mut ends = BTreeMap::new();
        for (p, o) in first.seen().into_iter().chain(second.seen()) {
            let end = ends.entry(u64::from(p)).or_insert(0);
            *end = (*end).max(o + 1);
        }
        ends
    };
    wait::until(
        "everything to be committed",
        Duration::from_secs(30),
        || (committed(&node) == ends).then_some(()),
    );

    first.child.kill().unwrap();
    let killed = Instant::now();
    let before = second.seen().len();
    produce_round(&node);
    wait::until("the other to take over", Duration::from_secs(60), || {
        (second.seen().len() >= before + 4).then_some(())
    });
    let took = killed.elapsed();
    let news = second.seen()[before..].to_vec();
    for partition in owned_by_first {
        let from = news.iter().find(|(p, _)| *p == partition).map(|(_, o)| *o);
        let expected = ends.get(&u64::from(partition)).copied();
        assert_eq!(
            from, expected,
            "partition {partition} continues from the committed offset"
        );
    }
    // The session timeout, and time for one heartbeat, one fetch and a busy machine: still less than the session of a
    // node that was not told of this one.
    assert!(
        took < SESSION + Duration::from_secs(30),
        "taking over took {took:?}"
    );
}
