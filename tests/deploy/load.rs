//! A producer that goes on while nodes come and go, and the proof that nothing was lost, doubled or reordered.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use varve_tests::wait;

use crate::PATIENCE;

/// The bundled producer, fed with numbers by a thread.
pub struct Load {
    child: Option<Child>,
    feeder: Option<JoinHandle<()>>,
    acked: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    count: Arc<AtomicU64>,
}

impl Load {
    /// Starts `command`, which must read lines from standard input and print one for each that is acknowledged.
    pub fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let counted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&counted);
        let acked = std::thread::spawn(move || {
            for _ in output.lines().map_while(Result::ok) {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        let (done, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let feeder = std::thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                let number = count.load(Ordering::SeqCst);
                // A producer that ends early is judged by its exit code.
                if writeln!(input, "{number}").is_err() {
                    return;
                }
                count.store(number + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self {
            child: Some(child),
            feeder: Some(feeder),
            acked: Some(acked),
            stop,
            sent,
            count: counted,
        }
    }

    /// Lets some more records be acknowledged.
    pub fn goes_on(&self) {
        let before = self.count.load(Ordering::SeqCst);
        wait::until("production to go on", PATIENCE, || {
            (self.count.load(Ordering::SeqCst) > before + 100).then_some(())
        });
    }

    /// Ends it, and asserts that it knows of no error. Gives the number of records.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.feeder.take().unwrap().join().unwrap();
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the producer failed: {error}");
        assert!(!error.contains("error"), "{error}");
        self.acked.take().unwrap().join().unwrap();
        let (sent, acked) = (&self.sent, &self.count);
        let sent = sent.load(Ordering::SeqCst);
        assert_eq!(acked.load(Ordering::SeqCst), sent, "acknowledged");
        sent
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `text` is the records of one partition from the beginning: exactly the numbers below `count`, in order.
pub fn assert_whole(text: &str, count: u64) {
    let got: Vec<u64> = text.lines().map(|l| l.parse().unwrap()).collect();
    if let Some(at) = (0..count).zip(&got).position(|(want, got)| want != *got) {
        let around = &got[at.saturating_sub(2)..(at + 3).min(got.len())];
        panic!("record {at} is wrong, lost, doubled or reordered: ...{around:?}...");
    }
    assert_eq!(got.len() as u64, count, "records at the end");
}

/// Waits until every partition of the topic has a leader and `replicas` in sync, as `client` sees it.
pub fn in_sync(client: impl Fn(&[&str]) -> Command, topic: &str, replicas: usize) {
    let good = |metadata: &serde_json::Value| {
        let partitions = metadata["topics"][0]["partitions"].as_array()?;
        let mut whole = partitions.iter().map(|p| {
            let in_sync = p["inSyncNodeIds"].as_array().map_or(0, Vec::len);
            in_sync == replicas && !p["leaderNodeId"].is_null()
        });
        (!partitions.is_empty() && whole.all(|w| w)).then_some(())
    };
    wait::until("all replicas to be in sync", PATIENCE, || {
        let asked = client(&["cluster", "metadata", topic, "-o", "json"]).output();
        let output = asked.unwrap();
        // A cluster that does not answer yet is asked again.
        good(&serde_json::from_slice(&output.stdout).ok()?)
    });
}
