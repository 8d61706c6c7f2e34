//! `varve demo` as people meet it: what it shows, how it ends on bad input, full disks, narrow terminals, closed pipes
//! and interrupts, and that it leaves neither a process nor a directory behind.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use varve_tests::small_disk::SmallDisk;
use varve_tests::wait;

use crate::{PATIENCE, Ran, command, finish, program};

/// Where a run makes its directory, and how its processes are known.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn demo(&self, args: &[&str]) -> Command {
        let mut command = command("varve", "127.0.0.1:1");
        command.arg("demo").args(args).env("TMPDIR", self.path());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        finish(self.demo(args), None)
    }

    fn file(&self, bytes: &[u8]) -> String {
        let path = self.path().join("input");
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Processes that were started with this directory for temporary files.
    fn processes(&self) -> usize {
        let marker = format!("TMPDIR={}", self.path().display());
        let Ok(all) = std::fs::read_dir("/proc") else {
            return 0;
        };
        let theirs = all.flatten().filter(|entry| {
            std::fs::read(entry.path().join("environ"))
                .is_ok_and(|environ| environ.split(|b| *b == 0).any(|v| v == marker.as_bytes()))
        });
        theirs.count()
    }

    fn directories(&self) -> usize {
        let all = std::fs::read_dir(self.path()).unwrap().flatten();
        all.filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("varve-demo-")
        })
        .count()
    }

    #[track_caller]
    fn is_left_clean(&self) {
        assert_eq!((self.processes(), self.directories()), (0, 0));
    }
}

/// Whether a process has a handler for SIGINT (proc(5): the mask `SigCgt`, signal 2 is bit 1).
fn catches_interrupts(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
    caught & (1 << (Signal::INT.as_raw() - 1)) != 0
}

fn lines(count: usize) -> Vec<u8> {
    let line = |n: usize| format!("key-{} a line of some length with number {n}\n", n % 50);
    (0..count).map(line).collect::<String>().into_bytes()
}

fn json(ran: &Ran) -> serde_json::Value {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn the_demo_kills_a_consumer_and_the_node_and_nothing_is_lost() {
    let place = Place::new();
    let mut demo = place.demo(&["-o", "json"]);
    // Settings of the person who runs it: any of these would stop it.
    let config = place.path().join("varve");
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("client.toml"), "nonsense = 1\n").unwrap();
    demo.env("VARVE_NODE__ID", "77")
        .env("VARVE_STORAGE__DATADIR", "/nonexistent")
        .env("VARVE_TLS", "1")
        .env("VARVE_CONFIG", "/nonexistent")
        .env("XDG_CONFIG_HOME", place.path());
    let ran = finish(demo, None);
    let found = json(&ran);
    assert_eq!(found["holds"], true, "{ran:?}");
    for (count, expected) in [
        ("records", 50_000),
        ("keys", 400),
        ("acknowledged", 50_000),
        ("delivered", 50_000),
        ("lost", 0),
        ("damaged", 0),
        ("duplicatedByProducer", 0),
        ("keysOutOfOrder", 0),
    ] {
        assert_eq!(found[count], expected, "{count} in {found}");
    }
    assert_eq!(
        found["acknowledgement"],
        "flushed to disk: acks=all, durability=fsync"
    );
    let partitions = found["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 6);
    for partition in partitions {
        let records = partition["records"].as_u64().unwrap();
        assert!(records > 50_000 / 12, "keys spread: {found}");
    }
    assert!(
        found["pendingAtKill"].as_u64().unwrap() > 0,
        "in the middle: {found}"
    );
    assert!(found["recoverySeconds"].as_f64().unwrap() > 0.0, "{found}");
    assert!(found["recordsPerSecond"].as_f64().unwrap() > 0.0, "{found}");
    assert!((1..=3).contains(&found["killedConsumer"].as_u64().unwrap()));
    let first = found["deliveredFirstByConsumer"].as_array().unwrap();
    let first: Vec<u64> = first.iter().filter_map(serde_json::Value::as_u64).collect();
    assert_eq!(first.iter().sum::<u64>(), 50_000);
    assert_eq!(first.len(), 3);
    // Plain lines where there is no terminal.
    for part in [
        "3 consumers have joined the group and share 6 partitions\n",
        ": consumer ",
        ": the node, with ",
        "the node is back after ",
        "reading the whole log to verify it\n",
    ] {
        assert!(ran.err.contains(part), "{part:?} in {ran:?}");
    }
    assert!(
        !ran.err.contains('\r') && !ran.err.contains('\u{1b}'),
        "{ran:?}"
    );
    place.is_left_clean();
}

#[test]
fn input_of_ones_own_gets_the_same() {
    let place = Place::new();
    let mut text = lines(300);
    text.pop();
    let file = place.file(&text);
    let ran = place.run(&[&file, "-p", "3"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for part in [
        ": 300 records with 50 keys, 0.0 MB\n3 partitions: ",
        "\nrecords acknowledged            300  flushed to disk: acks=all, durability=fsync\n",
        "\nrecords delivered               300  to a group of 3; consumer ",
        "\nlost                              0  ",
        "\nduplicated by producer            0  ",
        "\nkeys out of order                 0  ",
        "\nAll of it holds: ",
    ] {
        assert!(ran.out.contains(part), "{part:?} in {}", ran.out);
    }
    let next = "\nNext:\n  varve server --dev\nand in another terminal:\n  varve topic create hello -p 3\n";
    assert!(ran.err.contains(next), "{}", ran.err);
    assert!(
        ran.err
            .ends_with("  varve consume hello -e -f '%k %v\\n'\n"),
        "{}",
        ran.err
    );
    for line in ran.out.lines().chain(ran.err.lines()) {
        // The name of the file is as long as it is.
        assert!(
            line.contains("input: 300") || line.chars().count() <= 80,
            "{line}"
        );
    }

    // Standard input, keys split off by a delimiter, one record only, nothing on standard error.
    let mut demo = place.demo(&["-", "-K", ":", "-o", "yaml"]);
    demo.arg("-q");
    let ran = finish(demo, Some(b"only:one"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.out.contains("\nrecords: 1\n"), "{}", ran.out);
    assert!(ran.out.contains("\nkeys: 1\n"), "{}", ran.out);
    assert!(ran.out.contains("\nholds: true\n"), "{}", ran.out);
    place.is_left_clean();
}

#[test]
fn binary_zeros_are_records_too() {
    let place = Place::new();
    let file = place.file(&vec![0; 900_000]);
    let found = json(&place.run(&[&file, "-o", "json"]));
    assert_eq!((&found["records"], &found["keys"]), (&1.into(), &0.into()));
    assert_eq!(found["bytes"], 900_000);
    assert_eq!(found["holds"], true, "{found}");
    place.is_left_clean();
}

#[test]
fn what_cannot_be_sent_is_refused_before_anything_starts() {
    let place = Place::new();
    let empty = place.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let mut long = b"first\n".to_vec();
    long.extend(vec![b'x'; 8 << 20]);
    let long = place.file(&long);
    let folder = place.path().to_str().unwrap();
    let missing = place.path().join("missing");
    for (file, code, part) in [
        (
            empty.to_str().unwrap(),
            2,
            "is empty; the demo needs at least one line",
        ),
        (&long, 2, "line 2 of "),
        (&long, 2, "is longer than 1000000 bytes"),
        (
            folder,
            2,
            "is a directory; give a file, or - for standard input",
        ),
        (missing.to_str().unwrap(), 1, "cannot be read: No such file"),
    ] {
        let ran = place.run(&[file]);
        let error = ran.fails(code);
        assert!(
            error.contains(part) && error.ends_with("nothing was started"),
            "{error}"
        );
    }
    let error = finish(place.demo(&["-"]), Some(b"")).fails(2);
    assert!(error.contains("standard input is empty"), "{error}");
    // /proc/self/mem opens and refuses to be read, also to root.
    let error = place.run(&["/proc/self/mem"]).fails(1);
    assert!(error.contains("/proc/self/mem cannot be read: "), "{error}");
    place.is_left_clean();
}

#[test]
fn a_disk_without_room_is_named() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount("size=16m") else {
        return;
    };
    let mut demo = place.demo(&[]);
    demo.env("TMPDIR", disk.path());
    let error = finish(demo, None).fails(1);
    for part in [
        disk.path().to_str().unwrap(),
        "is too full: the demo needs ",
        "name another place with TMPDIR; nothing was started",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 0);
}

#[test]
fn a_disk_that_fills_meanwhile_is_named() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount("size=160m") else {
        return;
    };
    let file = place.file(&lines(50_000));
    let mut demo = place.demo(&[&file]);
    demo.env("TMPDIR", disk.path());
    let mut child = demo.spawn().unwrap();
    let mut error = shows(&mut child, "producing");
    let mut filler = std::fs::File::create(disk.path().join("filler")).unwrap();
    while filler.write_all(&[0; 64 * 1024]).is_ok() {}
    let mut rest = String::new();
    error.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest}");
    let expected = format!(
        "error: the disk of {} has filled up: ",
        disk.path().display()
    );
    let last = rest.lines().last().unwrap_or_default();
    assert!(last.starts_with(&expected), "{rest}");
    assert!(
        last.ends_with("its files were removed; make room or name another place with TMPDIR"),
        "{rest}"
    );
    let left = std::fs::read_dir(disk.path()).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["filler"]);
}

#[test]
fn a_terminal_of_twenty_columns_gets_the_numbers() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no `script` of util-linux here, so nothing at a terminal was tested");
        return;
    }
    let place = Place::new();
    let file = place.file(&lines(200));
    let line = format!("stty cols 20; exec \"$V\" demo {file}");
    let output = Command::new("script")
        .args(["-qefc", &line, "/dev/null"])
        .env("V", program("varve"))
        .env("TMPDIR", place.path())
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .env_remove("VARVE_BROKERS")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in [
        "lost: 0\r\n",
        "keys out of order: 0\r\n",
        "delivered, of 200",
    ] {
        let cut = part.starts_with("delivered");
        assert!(cut || text.contains(part), "{part:?} in {text}");
    }
    place.is_left_clean();
}

#[test]
fn a_reader_that_goes_away_leaves_nothing_behind() {
    let place = Place::new();
    let file = place.file(&lines(100));
    let mut child = place.demo(&[&file]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(!error.contains("error: "), "{error}");
    // Standard error may be gone as well.
    let mut child = place.demo(&[&file]).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    place.is_left_clean();
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Reads standard error up to a line with this text.
fn shows(child: &mut Child, text: &str) -> BufReader<std::process::ChildStderr> {
    let mut error = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert!(
            error.read_line(&mut line).unwrap() > 0,
            "it ended before {text:?}"
        );
    }
    error
}

#[test]
fn an_interrupt_at_each_stage_cleans_up() {
    let place = Place::new();
    let file = place.file(&lines(20_000));
    for (text, sent) in [
        ("starting a node", Signal::INT),
        ("consumers have joined", Signal::TERM),
        ("producing", Signal::INT),
        (": consumer ", Signal::INT),
        (": the node, with ", Signal::HUP),
        ("the node is back", Signal::INT),
    ] {
        let (code, rest) = interrupted(&place, &file, text, sent);
        assert_eq!(code, Some(130), "{text}: {rest}");
        assert!(rest.ends_with(INTERRUPTED), "{text}: {rest}");
    }
    // Reading the log is short: on a busy machine the demo may have ended before the signal comes.
    let hit = (0..10).any(|_| {
        let (code, rest) = interrupted(&place, &file, "reading the whole log", Signal::INT);
        assert!(
            code == Some(0) || (code == Some(130) && rest.ends_with(INTERRUPTED)),
            "{code:?}: {rest}"
        );
        code == Some(130)
    });
    assert!(hit, "no interrupt came while the demo read its log");
}

const INTERRUPTED: &str = "error: interrupted; the node was stopped and its files were removed\n";

/// Runs the demo and interrupts it when it shows a text: its exit code, and what it said afterwards.
fn interrupted(place: &Place, file: &str, text: &str, sent: Signal) -> (Option<i32>, String) {
    let mut child = place.demo(&[file]).spawn().unwrap();
    let mut error = shows(&mut child, text);
    signal(&child, sent);
    // People press it twice; that must not keep the files here.
    signal(&child, sent);
    let mut rest = String::new();
    error.read_to_string(&mut rest).unwrap();
    let code = child.wait().unwrap().code();
    place.is_left_clean();
    (code, rest)
}

#[test]
fn an_interrupt_while_input_is_read_starts_nothing() {
    let place = Place::new();
    let mut demo = place.demo(&["-"]);
    let mut child = demo.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"a line\n").unwrap();
    // Until the program listens for signals, one ends it as any other program.
    wait::until("the program to listen for SIGINT", PATIENCE, || {
        catches_interrupts(&child).then_some(())
    });
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!(output.status.code(), Some(130));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(error, "error: interrupted; nothing was started\n");
    place.is_left_clean();
}

#[test]
fn no_process_survives_the_demo_that_is_killed() {
    let place = Place::new();
    let file = place.file(&lines(20_000));
    let mut child = place.demo(&[&file]).spawn().unwrap();
    drop(shows(&mut child, "producing"));
    assert!(
        place.processes() >= 4,
        "the demo, its node and its consumers"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    wait::until("its processes to end", PATIENCE, || {
        (place.processes() == 0).then_some(())
    });
}

#[test]
fn the_help_has_two_examples() {
    let place = Place::new();
    let help = place.run(&["--help"]).ok();
    assert!(
        help.contains("Examples:\n  varve demo\n  varve demo "),
        "{help}"
    );
    place.run(&["-K", ":"]).usage();
}
