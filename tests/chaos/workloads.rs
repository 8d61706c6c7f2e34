//! Every workload on a node that nothing happens to: the verdict is clean, and the history holds what it is for.
//! Then one thing in it is changed, and the checker names it.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use varve_check::{
    Checker, Event, Header, Kind as Anomaly, Outcome, Required, Verdict, read_history,
};
use varve_server::embedded;
use varve_workload::{Config, Kind, Progress, Recorder, Workload, create_topic, finish};

const PARTITIONS: i32 = 3;
/// Long enough for members to be replaced; a run goes on until it has seen enough.
const LASTS: Duration = Duration::from_secs(8);
/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A history, its verdict, and what is in it.
struct Run {
    events: Vec<Event>,
    verdict: Verdict,
    types: BTreeSet<String>,
}

async fn run(kind: Kind) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("group.session.timeout.ms", "1500"),
        ("group.heartbeat.interval.ms", "200"),
        ("offsets.topic.num.partitions", "2"),
        ("transaction.state.log.num.partitions", "2"),
    ];
    let node = embedded::start_with(dir.path(), &settings).await.unwrap();
    let brokers = vec![node.client_address().to_string()];
    let config = Config {
        rate: 200,
        life: Duration::from_secs(3),
        delivery_timeout: Duration::from_secs(15),
        ..Config::new(brokers, "run".parse().unwrap(), PARTITIONS, 7)
    };
    let config = config.with_kind(kind).unwrap();
    create_topic(&config, 1, &Default::default()).await.unwrap();
    let path = dir.path().join("history.jsonl");
    let file: Box<dyn Write + Send> = Box::new(std::fs::File::create(&path).unwrap());
    let header = Header::new("run", config.places(), 7);
    let recorder = Arc::new(Recorder::new(&header, Some(file)).unwrap());
    let workload = Workload::start(config.clone(), recorder.clone()).unwrap();
    tokio::time::sleep(LASTS).await;
    let enough = async {
        while !is_enough(kind, recorder.progress()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, enough).await;
    assert!(seen.is_ok(), "{:?}", recorder.progress());
    let behind = workload.stop().await;
    assert!(behind.is_empty(), "{behind:?}");
    let within = Duration::from_secs(60);
    finish(&config, &recorder, within).await.unwrap();
    let verdict = recorder.verdict(&Required::default()).unwrap();
    assert_eq!(verdict.outcome, Outcome::Valid, "{}", verdict.text());
    let (events, types) = read(&path);
    assert_eq!(judge(events.iter().cloned()), verdict, "read back");
    Run {
        events,
        verdict,
        types,
    }
}

/// Whether a history holds what the tests look for in it.
fn is_enough(kind: Kind, seen: Progress) -> bool {
    let parts = u64::try_from(PARTITIONS).unwrap();
    seen.ok > 150
        && match kind {
            Kind::Queue => true,
            Kind::QueueSubscribe => seen.owned > 3 * parts,
            Kind::Txn | Kind::Abort => seen.commits > 25 && seen.aborts > 15,
            Kind::Ctp => seen.owned > 2 * parts && seen.commits > 15,
        }
}

fn read(path: &Path) -> (Vec<Event>, BTreeSet<String>) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut events = Vec::new();
    read_history(text.as_bytes(), |_, event| events.push(event)).unwrap();
    let types = events.iter().map(|event| {
        let json = serde_json::to_value(event).unwrap();
        json["type"].as_str().unwrap().to_owned()
    });
    let types = types.collect();
    (events, types)
}

fn judge(events: impl Iterator<Item = Event>) -> Verdict {
    let mut checker = Checker::new();
    for (line, event) in (2..).zip(events) {
        checker.event(line, event);
    }
    checker.verdict(&Required::default())
}

impl Run {
    fn has(&self, types: &[&str]) {
        for wanted in types {
            assert!(
                self.types.contains(*wanted),
                "no {wanted}: {:?}",
                self.types
            );
        }
    }

    /// The verdict when every event is passed through `change`; `None` takes it out.
    fn changed(&self, change: impl FnMut(Event) -> Option<Event>) -> Verdict {
        judge(self.events.iter().cloned().filter_map(change))
    }

    /// The processes of the polls that make up reads of everything.
    fn readers_of_everything(&self) -> BTreeSet<u32> {
        let process = |event: &Event| match event {
            Event::Final { process, .. } => Some(*process),
            _ => None,
        };
        self.events.iter().filter_map(process).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_groups_process_everything_at_least_once() {
    let run = run(Kind::QueueSubscribe).await;
    run.has(&[
        "own",
        "disown",
        "gone",
        "commit",
        "committed",
        "poll",
        "seek",
    ]);
    let c = &run.verdict.coverage;
    // Two readers who know nothing, and the members of each group together.
    assert_eq!(c.final_reads, 4 * u64::try_from(PARTITIONS).unwrap());
    assert!(c.commits_ok > 0, "{}", run.verdict.text());
    assert!(
        c.owned > 2 * u64::try_from(PARTITIONS).unwrap(),
        "nobody was replaced"
    );

    // A record that no member of one group was given.
    let groups: Vec<u32> = run.readers_of_everything().into_iter().collect();
    let (reader, group) = (groups[0], *groups.last().unwrap());
    assert!(reader < group, "{groups:?}");
    let mut taken = false;
    let lost = run.changed(|mut event| {
        if let Event::Poll {
            process, records, ..
        } = &mut event
            && *process == group
            && records.len() > 2
            && !taken
        {
            taken = true;
            records.remove(1);
        }
        Some(event)
    });
    // It need not have been acknowledged.
    let found = lost.found(Anomaly::LostAcked) || lost.found(Anomaly::VanishedRead);
    assert!(found, "{}", lost.text());
    let kept = run.changed(|event| match event {
        Event::Disown { .. } | Event::Gone { .. } => None,
        event => Some(event),
    });
    assert!(kept.found(Anomaly::DoubleOwnership), "{}", kept.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_seen_as_a_whole_or_not_at_all() {
    let run = run(Kind::Txn).await;
    run.has(&["end_txn", "poll", "ok"]);
    let (c, text) = (&run.verdict.coverage, run.verdict.text());
    assert!(c.txns_committed > 10 && c.txns_aborted > 10, "{text}");
    let of_txn = |event: &Event| matches!(event, Event::Poll { txn: Some(_), .. });
    assert!(run.events.iter().any(of_txn), "no polls in transactions");
    // Whoever reads what is not committed has seen what nobody had committed, and nobody else has.
    let seen = run.changed(|mut event| {
        if let Event::Poll { uncommitted, .. } = &mut event {
            *uncommitted = false;
        }
        Some(event)
    });
    let too_early = seen.found(Anomaly::PrecommittedRead) || seen.found(Anomaly::AbortedRead);
    assert!(too_early, "{}", seen.text());
    let doubted = run.changed(|mut event| {
        if let Event::EndTxn { commit, .. } = &mut event {
            *commit = true;
        }
        Some(event)
    });
    assert!(doubted.found(Anomaly::LostAcked), "{}", doubted.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_transaction_commits_no_offsets() {
    let run = run(Kind::Abort).await;
    run.has(&["end_txn", "commit", "committed", "seek"]);
    let (c, text) = (&run.verdict.coverage, run.verdict.text());
    assert!(c.txns_committed > 10 && c.txns_aborted > 10, "{text}");
    assert!(c.commits_ok > 3 && c.commits_read > 10, "{text}");
    // As if the offsets of every transaction had been committed.
    let mut commits = BTreeSet::new();
    let forgotten = run.changed(|event| match event {
        Event::Commit { op, .. } => {
            commits.insert(op);
            Some(event)
        }
        Event::Fail { op, ns, .. } if commits.contains(&op) => Some(Event::Ok {
            op,
            ns,
            offset: None,
        }),
        event => Some(event),
    });
    assert!(
        forgotten.found(Anomaly::CommitRegress),
        "{}",
        forgotten.text()
    );
    // As if none had.
    let mut commits = BTreeSet::new();
    let phantom = run.changed(|event| match event {
        Event::Commit { op, .. } => {
            commits.insert(op);
            Some(event)
        }
        Event::Ok { op, ns, .. } if commits.contains(&op) => Some(Event::Fail {
            op,
            ns,
            error: String::new(),
        }),
        event => Some(event),
    });
    assert!(phantom.found(Anomaly::PhantomCommit), "{}", phantom.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_makes_one_of_each() {
    let run = run(Kind::Ctp).await;
    run.has(&[
        "end_txn",
        "commit",
        "committed",
        "own",
        "disown",
        "gone",
        "drained",
    ]);
    let (c, text) = (&run.verdict.coverage, run.verdict.text());
    assert!(c.copies > 20 && c.txns_committed > 5, "{text}");
    assert_eq!(
        c.final_reads,
        4 * u64::try_from(PARTITIONS).unwrap(),
        "{text}"
    );
    let mut first = None;
    let twice = run.changed(|mut event| {
        if let Event::Send {
            source: Some(source),
            ..
        } = &mut event
        {
            *source = *first.get_or_insert(*source);
        }
        Some(event)
    });
    assert!(twice.found(Anomaly::CopiedTwice), "{}", twice.text());
    assert!(twice.found(Anomaly::NotCopied), "{}", twice.text());
}
