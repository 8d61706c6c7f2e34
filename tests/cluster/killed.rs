//! The node is killed with SIGKILL while a producer writes real text; it is started again, the producer
//! finishes, and every line is read back exactly once, each key in order.
//!
//! `VARVE_TEST_KILL_BYTES` sets the size of the input (default 24 MiB); `cargo xtask long kill` runs it with
//! 1 GiB in the release profile.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use varve_tests::node::Node;
use varve_tests::wait;

const PARTITIONS: &str = "8";
const KEYS: usize = 97;
/// Kills in one run.
const KILLS: u64 = 3;

/// Text that people wrote: the toolchain's documentation if it is installed, else our own sources.
fn real_text(dir: &Path, found: &mut Vec<PathBuf>, wanted: &mut u64) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if *wanted == 0 {
            return;
        }
        let is_text = path
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| ["html", "md", "rs", "txt", "toml"].contains(&e));
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
            real_text(&path, found, wanted);
        } else if is_text {
            *wanted = wanted.saturating_sub(path.metadata().map_or(0, |m| m.len()));
            found.push(path);
        }
    }
}

fn sources(bytes: u64) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    if let Ok(output) = sysroot {
        let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        real_text(&root.join("share/doc"), &mut found, &mut bytes.clone());
    }
    if found.is_empty() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        real_text(root, &mut found, &mut bytes.clone());
    }
    found
}

/// Writes `KEY<TAB>NUMBER LINE` for every line of real text; returns the number of lines.
fn write_input(path: &Path, bytes: u64) -> u64 {
    let sources = sources(bytes);
    let mut out = BufWriter::new(File::create(path).unwrap());
    let (mut written, mut number) = (0, 0u64);
    loop {
        for source in &sources {
            for line in BufReader::new(File::open(source).unwrap()).split(b'\n') {
                let line = line.unwrap();
                // The key depends on the text, so keys come and go as words do.
                let key = line.iter().map(|b| usize::from(*b)).sum::<usize>() % KEYS;
                let head = format!("key-{key}\t{number} ");
                out.write_all(head.as_bytes()).unwrap();
                out.write_all(&line).unwrap();
                out.write_all(b"\n").unwrap();
                number += 1;
                written += (head.len() + line.len() + 1) as u64;
                if written >= bytes {
                    out.flush().unwrap();
                    return number;
                }
            }
        }
    }
}

/// Sum of the log end offsets of the topic, from `/metrics`.
fn log_end(node: &Node, topic: &str) -> u64 {
    let (_, text) = node.get("/metrics");
    let label = format!("topic=\"{topic}\"");
    text.lines()
        .filter(|l| l.starts_with("varve_partition_log_end_offset{") && l.contains(&label))
        .filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum::<f64>() as u64
}

#[test]
fn a_killed_node_loses_no_acknowledged_line_and_doubles_none() {
    let bytes = match std::env::var("VARVE_TEST_KILL_BYTES") {
        Ok(text) => varve_types::size::parse_bytes(&text).unwrap(),
        Err(_) => 24 << 20,
    };
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("input");
    let lines = write_input(&input, bytes);
    let mut node = Node::start(&dir.path().join("data"));
    let made = varve_tests::run(&node, &["topic", "create", "text", "-p", PARTITIONS]);
    assert!(made.status.success(), "{made:?}");

    let mut producer = Command::new(varve_tests::varve())
        .args(["produce", "text", "-K", "\\t"])
        .env("VARVE_BROKERS", node.address())
        .stdin(Stdio::from(File::open(&input).unwrap()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for kill in 1..=KILLS {
        let target = lines * kill / (KILLS + 1);
        let ended = wait::until(
            "a part of the lines to be written",
            Duration::from_secs(600),
            || {
                let ended = producer.try_wait().unwrap().is_some();
                (ended || log_end(&node, "text") >= target).then_some(ended)
            },
        );
        assert!(!ended, "the producer ended before kill {kill}");
        node.kill();
        node.restart();
    }
    let output = producer.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    check(&node, &input, lines);
    assert_eq!(node.stop().code(), Some(0), "a clean stop");
    let verify = Command::new(varve_tests::varve())
        .args(["log", "verify"])
        .arg(node.dir())
        .output();
    let verify = verify.unwrap();
    assert!(
        verify.status.success(),
        "{}",
        String::from_utf8_lossy(&verify.stdout)
    );
}

/// Reads everything back and compares it with the input.
fn check(node: &Node, input: &Path, lines: u64) {
    let mut consumer = Command::new(varve_tests::varve())
        .args(["consume", "text", "-e", "-f", "%p\\t%o\\t%k\\t%v\\n"])
        .env("VARVE_BROKERS", node.address())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = consumer.stdout.take().unwrap();
    let mut offsets: HashMap<u32, u64> = HashMap::new();
    let mut last_of_key: HashMap<String, (u32, u64)> = HashMap::new();
    let mut seen = vec![false; usize::try_from(lines).unwrap()];
    let mut texts: Vec<(u64, u64)> = Vec::new();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.unwrap();
        let mut parts = line.splitn(4, |b| *b == b'\t');
        let mut text = || String::from_utf8_lossy(parts.next().unwrap()).into_owned();
        let partition: u32 = text().parse().unwrap();
        let offset: u64 = text().parse().unwrap();
        let key = text();
        let value = parts.next().unwrap();
        let space = value.iter().position(|b| *b == b' ').unwrap();
        let number: u64 = std::str::from_utf8(&value[..space])
            .unwrap()
            .parse()
            .unwrap();

        let next = offsets.entry(partition).or_default();
        assert_eq!(
            offset, *next,
            "partition {partition}: every offset once, without gaps"
        );
        *next += 1;
        let first = !std::mem::replace(&mut seen[usize::try_from(number).unwrap()], true);
        assert!(first, "line {number} is there twice");
        if let Some((old, last)) = last_of_key.insert(key.clone(), (partition, number)) {
            assert_eq!(old, partition, "key {key} is in two partitions");
            assert!(
                last < number,
                "key {key}: line {number} came after line {last}"
            );
        }
        texts.push((number, checksum(&value[space + 1..])));
    }
    assert!(consumer.wait().unwrap().success());
    let missing = seen.iter().position(|s| !s);
    assert_eq!(missing, None, "an acknowledged line is missing");
    texts.sort_unstable();
    for (line, (number, sum)) in BufReader::new(File::open(input).unwrap())
        .split(b'\n')
        .zip(texts)
    {
        let line = line.unwrap();
        let space = line.iter().position(|b| *b == b' ').unwrap();
        assert_eq!(
            checksum(&line[space + 1..]),
            sum,
            "line {number} came back changed"
        );
    }
}

/// FNV-1a: enough to tell two lines apart.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
