//! What people type who come from kcat, rpk, nats and Kafka's own scripts: each line does what was meant, or is
//! answered by one sentence that names the right command. No line panics, shows Rust's debug text, or prints an
//! error code twice.

use crate::{Host, Ran, feed, run};

/// A line as typed after `varve`, with `{address}` for the node's; its input; the exit code; texts that the output
/// contains, or does not when they begin with `!`.
type Line = (&'static str, &'static str, i32, &'static [&'static str]);

/// Lines of kcat.
const KCAT: &[Line] = &[
    ("-P -t orders -K :", "k1:v1\nk2:v2\n", 0, &[]),
    ("-C -t orders -e -q", "", 0, &["v1\n", "v2\n"]),
    (
        "-C -b {address} -t orders -o beginning -e -f '%k=%s\\n'",
        "",
        0,
        &["k1=v1"],
    ),
    ("-C -t orders -o -1 -e", "", 0, &["v"]),
    ("-C -t orders -c 1 -J", "", 0, &["\"topic\":\"orders\""]),
    ("-C -t orders -e -Z NULL -K :", "", 0, &["k1:v1"]),
    (
        "-C -t orders -p 0 -o 1000 -e",
        "",
        3,
        &["offset 1000 is out of range", "orders:0"],
    ),
    ("-P -t orders -p 1 -k key", "x\n", 0, &[]),
    ("-L -t orders", "", 0, &["orders"]),
    ("-L -J -t orders", "", 0, &["orders", "{"]),
    ("-Q -t orders:0:-1", "", 2, &["varve topic offsets"]),
    ("-M 3", "", 2, &["varve server --dev"]),
    ("-X list", "", 0, &["linger", "batch.size"]),
    ("-X lst topic list", "", 2, &["KEY=VALUE"]),
    ("-V", "", 0, &["varve"]),
    ("-G billing -C orders -e", "", 0, &["v1"]),
];

/// Lines of kafka-topics.sh, kafka-configs.sh, kafka-consumer-groups.sh and the console tools.
const KAFKA: &[Line] = &[
    (
        "topic --create --topic k-new --partitions 2 --replication-factor 1",
        "",
        0,
        &["k-new: created, 2 partitions, 1 replica\n"],
    ),
    ("topic --list", "", 0, &["k-new"]),
    (
        "topic --list --bootstrap-server {address}",
        "",
        0,
        &["k-new"],
    ),
    (
        "--bootstrap-server {address} topics --list",
        "",
        0,
        &["k-new"],
    ),
    ("topic --describe --topic k-new", "", 0, &["PARTITION"]),
    ("topic --topic k-new --describe", "", 0, &["PARTITION"]),
    (
        "topic --create --topic k-new --if-not-exists --partitions 2",
        "",
        0,
        &["exists as requested, not changed"],
    ),
    (
        "topic --create --topic k-new --if-not-exists --partitions 5",
        "",
        4,
        &["topic k-new exists with 2 partitions, not 5; nothing was changed"],
    ),
    (
        "topic --alter --topic k-new --partitions 3",
        "",
        0,
        &["k-new: 3 partitions"],
    ),
    (
        "topic config --entity-type topics --entity-name k-new --alter --add-config retention.ms=1h",
        "",
        0,
        &["1h (3600000)"],
    ),
    (
        "topic config --entity-name k-new --describe",
        "",
        0,
        &["retention.ms"],
    ),
    (
        "topic config k-new --delete-config retention.ms",
        "",
        0,
        &["7d (604800000)"],
    ),
    (
        "topic --delete --topic k-new --if-exists",
        "",
        2,
        &["exit code 3"],
    ),
    (
        "topic --delete --topic k-new",
        "",
        2,
        &["this deletes topic k-new with all its records", "--yes"],
    ),
    (
        "topic --delete --topic k-new --yes",
        "",
        0,
        &["k-new: deleted"],
    ),
    (
        "topic list --zookeeper localhost:2181",
        "",
        2,
        &["-b HOST:PORT"],
    ),
    (
        "consume orders --from-beginning --max-messages 1",
        "",
        0,
        &["\n"],
    ),
    (
        "consume --topic orders --from-beginning --timeout-ms 300",
        "",
        0,
        &["v1"],
    ),
    (
        "consume orders --property print.key=true",
        "",
        2,
        &["-K TEXT"],
    ),
    (
        "consume orders --property key.separator=:",
        "",
        2,
        &["-K ':'"],
    ),
    (
        "consume orders -e --isolation-level read_committed",
        "",
        0,
        &["v1"],
    ),
    ("consume --include ord.* -e", "", 0, &["v1"]),
    (
        "consume orders --formatter kafka.tools.Default",
        "",
        2,
        &["-f FORMAT"],
    ),
    (
        "consume orders --consumer-property group.id=x",
        "",
        2,
        &["-X KEY=VALUE"],
    ),
    (
        "consume orders --group billing -e --from-beginning",
        "",
        0,
        &[],
    ),
    (
        "produce --topic orders --property parse.key=true",
        "",
        2,
        &["-K TEXT"],
    ),
    (
        "produce --broker-list {address} --topic orders",
        "x\n",
        0,
        &[],
    ),
    ("produce orders --request-required-acks 1", "x\n", 0, &[]),
    ("group --list", "", 0, &["billing"]),
    (
        "group --describe --group billing",
        "",
        0,
        &["COMMITTED", "LAG"],
    ),
    (
        "group --describe --group billing --members",
        "",
        0,
        &["billing"],
    ),
    (
        "group --describe --all-groups",
        "",
        2,
        &["varve group list"],
    ),
    (
        "group --reset-offsets --group billing --to-earliest --topic orders --dry-run",
        "",
        0,
        &["NEW OFFSET"],
    ),
    (
        "group --reset-offsets --group billing --to-latest --all-topics --execute",
        "",
        0,
        &["NEW OFFSET"],
    ),
    (
        "group --reset-offsets --group billing --by-duration PT1H",
        "",
        2,
        &["--to @-1h"],
    ),
    (
        "group --delete --group billing",
        "",
        2,
        &["this deletes group billing", "--yes"],
    ),
];

/// Lines of rpk.
const RPK: &[Line] = &[
    (
        "topic create r-new -p 2 -r 1 -c retention.ms=7d",
        "",
        0,
        &["r-new: created"],
    ),
    ("topic list --format json", "", 0, &["\"topics\""]),
    ("topic consume orders -n 1 -f '%v\\n'", "", 0, &["\n"]),
    (
        "topic consume orders -f json -n 1",
        "",
        0,
        &["\"topic\":\"orders\""],
    ),
    ("topic produce orders -k key", "x\n", 0, &[]),
    (
        "topic add-partitions r-new -n 2",
        "",
        0,
        &["r-new: 4 partitions"],
    ),
    (
        "topic add-partitions r-new 5",
        "",
        2,
        &["takes no argument \"5\""],
    ),
    (
        "topic alter-config r-new --set segment.bytes=1GiB",
        "",
        0,
        &["1GiB (1073741824)", "7d (604800000)"],
    ),
    ("topic describe r-new -a --format yaml", "", 0, &["r-new"]),
    (
        "topic trim-prefix r-new -o 0 --no-confirm",
        "",
        0,
        &["r-new"],
    ),
    (
        "topic delete r-new --no-confirm",
        "",
        0,
        &["r-new: deleted"],
    ),
    ("cluster info", "", 0, &[]),
    ("cluster health", "", 0, &["healthy"]),
    (
        "cluster maintenance enable 1",
        "",
        2,
        &["varve cluster drain"],
    ),
    ("cluster brokers", "", 0, &["{address}"]),
    (
        "group seek billing --to start --topics orders --execute",
        "",
        0,
        &["NEW OFFSET"],
    ),
    ("profile list", "", 2, &["--context"]),
    ("acl list", "", 2, &["docs/security.md"]),
    ("security user list", "", 2, &["docs/security.md"]),
];

/// Lines of nats, and of hands that expect what most programs have.
const NATS: &[Line] = &[
    (
        "pub orders hello",
        "",
        3,
        &[
            "there is no file hello; nothing was written",
            "--value hello",
        ],
    ),
    ("pub orders --value hello", "", 0, &[]),
    ("sub orders --count 1", "", 0, &["\n"]),
    ("-s {address} topic list", "", 0, &["orders"]),
    ("stream ls", "", 2, &["varve topic list"]),
    ("consumer info orders x", "", 2, &["varve group list"]),
    ("--server {address} info", "", 0, &[]),
    ("ls", "", 0, &["orders"]),
    ("ls --json", "", 0, &["\"topics\""]),
    ("topics", "", 0, &["orders"]),
    ("topic ls -r '^ord'", "", 0, &["orders"]),
    ("topic info orders", "", 0, &["PARTITION"]),
    ("groups", "", 0, &["billing"]),
    ("group ls -o json", "", 0, &["billing"]),
    ("group info billing", "", 0, &["billing"]),
    ("group lag billing", "", 0, &["LAG"]),
    ("lag billing", "", 0, &["LAG"]),
    ("lag", "", 2, &["GROUP"]),
    ("info", "", 0, &[]),
    ("status", "", 0, &["healthy"]),
    ("cluster status", "", 0, &["healthy"]),
    ("reset billing --to end --dry-run", "", 0, &["NEW OFFSET"]),
    ("group reset billing", "", 2, &["--shift-by", "!delete"]),
    ("rm orders", "", 2, &["this deletes topic orders", "--yes"]),
    ("topic rm no-such --yes", "", 3, &["no-such"]),
    ("group rm nobody --yes", "", 3, &["nobody"]),
    ("help", "", 0, &["produce", "consume", "Examples:"]),
    ("help topic create", "", 0, &["--partitions", "Examples:"]),
    ("topic help", "", 0, &["add-partitions"]),
    (
        "help options",
        "",
        0,
        &["--brokers", "--timeout", "!Examples:"],
    ),
    ("tail orders", "", 2, &["-o end"]),
    ("delete orders", "", 2, &["varve topic delete TOPIC"]),
];

/// Slips of the finger, and units.
const SLIPS: &[Line] = &[
    ("topci list", "", 2, &["did you mean \"varve topic\"?"]),
    ("topic lsit", "", 2, &["did you mean \"varve topic list\"?"]),
    ("topic delet orders", "", 2, &["!did you mean"]),
    ("group delte billing", "", 2, &["!did you mean"]),
    ("login", "", 2, &["!did you mean"]),
    ("top", "", 2, &["no command \"top\"", "!did you mean"]),
    (
        "consume orders --cuont 1",
        "",
        2,
        &["did you mean \"--count\"?"],
    ),
    ("consume ordres -e", "", 3, &["did you mean \"orders\"?"]),
    (
        "produce orders no-1 no-2",
        "",
        3,
        &["there is no file no-1", "!--value"],
    ),
    ("produce orders /", "", 2, &["/ is a directory"]),
    (
        "consume orders -o 10x",
        "",
        2,
        &["\"10x\" is not an offset"],
    ),
    ("consume orders --idle-timeout 10x", "", 2, &["1h30m"]),
    (
        "topic create u-1 -c 'retention.ms= 1.5 H '",
        "",
        0,
        &["created"],
    ),
    (
        "topic config u-1 -c retention.bytes=0.5GiB",
        "",
        0,
        &["512MiB (536870912)", "1h30m (5400000)"],
    ),
    (
        "topic config u-1 --set retention.ms=-1",
        "",
        0,
        &["unlimited (-1)"],
    ),
    (
        "topic config u-1 --set retention.ms=unlimited --json",
        "",
        0,
        &[],
    ),
    (
        "topic config u-1 --set retention.ms=10x",
        "",
        2,
        &["1h30m", "nothing was changed"],
    ),
    (
        "topic config u-1 --set retention.ms=-1h",
        "",
        2,
        &["is negative"],
    ),
    (
        "topic create u-2 -c retention.ms=5M",
        "",
        2,
        &["minutes or months"],
    ),
    (
        "topic create u-2 -c segment.bytes=99999999999999999999GiB",
        "",
        2,
        &["is too large"],
    ),
    (
        "topic create u-2 -c retention.ms=99999999999999999999",
        "",
        2,
        &["is too large"],
    ),
    ("topic describe u-2", "", 3, &["u-2"]),
];

/// Topics with the names of aliases are topics.
const NAMES: &[Line] = &[
    (
        "topic create ls rm help topics group",
        "",
        0,
        &["help: created"],
    ),
    ("produce ls", "in ls\n", 0, &[]),
    ("consume ls -e", "", 0, &["in ls\n"]),
    ("produce rm", "in rm\n", 0, &[]),
    ("consume rm -e", "", 0, &["in rm\n"]),
    ("topic describe help", "", 0, &["help"]),
    (
        "topic describe topics group -o json",
        "",
        0,
        &["\"topics\"", "\"group\""],
    ),
    ("consume help topics -e", "", 0, &[]),
    ("topic offsets help ls", "", 0, &["help", "ls"]),
    ("topic delete help --yes", "", 0, &["help: deleted"]),
];

/// The words of a line; single quotes hold a word together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for character in line.chars().chain([' ']) {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            character => word.push(character),
        }
    }
    words
}

/// What is wrong with an answer, whatever the line was.
fn faults(ran: &Ran) -> Vec<String> {
    let mut faults = Vec::new();
    let text = format!("{}{}", ran.out, ran.err);
    for debug in [
        "panicked",
        "Some(",
        "Err(",
        "Error {",
        "Status {",
        "RUST_BACKTRACE",
        "::Code",
    ] {
        if text.contains(debug) {
            faults.push(format!("debug text {debug:?}"));
        }
    }
    if ran.code != Some(0) {
        if !ran.err.starts_with("error: ") {
            faults.push("no line that begins with `error: `".to_owned());
        }
        let mut codes: Vec<&str> = ran
            .err
            .split(|c: char| !(c.is_ascii_uppercase() || c == '_' || c == '/'))
            .filter(|word| word.contains('/') && word.len() > 4)
            .collect();
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        if codes.len() != all {
            faults.push("a code is printed twice".to_owned());
        }
        if ran.err.contains("tip:") {
            faults.push("a tip of the parser".to_owned());
        }
    }
    faults
}

/// Types the lines in order; all that is wrong is reported at once.
fn type_all(lines: &[Line]) {
    let node = Host::start();
    run(&node, &["topic", "create", "orders", "-p", "3", "-q"]).ok();
    feed(&node, &["produce", "orders", "-K", ":"], "k1:v1\nk2:v2\n").ok();
    run(&node, &["consume", "orders", "-g", "billing", "-e"]).ok();
    let address = node.address();
    let mut wrong = Vec::new();
    for (line, input, code, texts) in lines {
        let typed = words(&line.replace("{address}", &address));
        let typed: Vec<&str> = typed.iter().map(String::as_str).collect();
        let ran = feed(&node, &typed, input);
        let mut faults = faults(&ran);
        if ran.code != Some(*code) {
            faults.push(format!("exit code {:?}, not {code}", ran.code));
        }
        let text = format!("{}{}", ran.out, ran.err);
        for expected in *texts {
            let (shown, fragment) = match expected.strip_prefix('!') {
                Some(fragment) => (false, fragment.to_owned()),
                None => (true, expected.replace("{address}", &address)),
            };
            if text.contains(&fragment) != shown {
                faults.push(format!("{fragment:?}: expected {shown}"));
            }
        }
        if !faults.is_empty() {
            wrong.push(format!(
                "varve {line}\n  {}\n  out: {:?}\n  err: {:?}",
                faults.join("\n  "),
                ran.out,
                ran.err
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} lines:\n{}",
        wrong.len(),
        lines.len(),
        wrong.join("\n")
    );
}

#[test]
fn lines_of_kcat() {
    type_all(KCAT);
}

#[test]
fn lines_of_kafkas_scripts() {
    type_all(KAFKA);
}

#[test]
fn lines_of_rpk() {
    type_all(RPK);
}

#[test]
fn lines_of_nats_and_of_most_programs() {
    type_all(NATS);
}

#[test]
fn slips_and_units() {
    type_all(SLIPS);
}

#[test]
fn aliases_never_shadow_a_topic() {
    type_all(NAMES);
}

#[test]
fn there_are_many_lines() {
    let all = [KCAT, KAFKA, RPK, NATS, SLIPS, NAMES];
    let count: usize = all.iter().map(|lines| lines.len()).sum();
    assert!(count >= 120, "{count}");
}
