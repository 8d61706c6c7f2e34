//! Commands without a node: the files of a stopped one, the configuration, completions, the version.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Host, alone, command, create, feed, finish, program};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// A stopped node with one topic per codec.
fn stopped() -> Host {
    let mut host = Host::start();
    let text: String = (0..300)
        .map(|n| format!("k{n}:line {n} of something that repeats\n"))
        .collect();
    for codec in CODECS {
        let topic = format!("l-{codec}");
        create(&host, &topic, 1);
        feed(&host, &["produce", &topic, "-z", codec, "-K", ":"], &text).ok();
    }
    assert_eq!(host.node.stop().code(), Some(0));
    host
}

/// Segment files below a directory whose path mentions `part`, non-empty ones.
fn logs(dir: &Path, part: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            logs(&path, part, found);
        } else if path.extension().is_some_and(|e| e == "log")
            && path.display().to_string().contains(part)
            && path.metadata().unwrap().len() > 0
        {
            found.push(path);
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// The log whose batches have this codec and 300 records in all.
fn dumped(host: &Host) -> Vec<(PathBuf, Vec<Value>)> {
    let mut files = Vec::new();
    logs(host.dir(), "", &mut files);
    files
        .into_iter()
        .map(|file| {
            let json = alone(&["log", "dump", &file.display().to_string(), "-o", "json"]).ok();
            (
                file,
                json.lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect(),
            )
        })
        .collect()
}

#[test]
fn dump_and_verify_of_a_stopped_node() {
    let host = stopped();
    let dumps = dumped(&host);
    for codec in CODECS {
        let mut of_codec = dumps.iter().filter(|(_, batches)| {
            let records: u64 = batches.iter().map(|b| b["records"].as_u64().unwrap()).sum();
            batches.iter().all(|batch| batch["compression"] == codec) && records == 300
        });
        let (file, batches) = of_codec
            .next_back()
            .unwrap_or_else(|| panic!("no log with {codec}"));
        assert_eq!(batches[0]["base_offset"], 0);
        assert_eq!(batches.last().unwrap()["last_offset"], 299);
        assert!(batches[0]["fault"].is_null());
        let text = alone(&["log", "dump", &file.display().to_string()]).ok();
        assert_eq!(text.lines().count(), batches.len());
        assert!(
            text.contains(codec) && text.contains("offsets 0..") && text.contains("crc "),
            "{text}"
        );
    }
    let data = host.dir().display().to_string();
    let verified = alone(&["log", "verify", &data]).ok();
    assert!(
        verified.lines().count() >= 6 && verified.contains(" ok"),
        "{verified}"
    );
    let json = alone(&["log", "verify", &data, "-o", "json"]).ok();
    for line in json.lines() {
        let report: Value = serde_json::from_str(line).unwrap();
        assert_eq!(report["problems"], serde_json::json!([]), "{report}");
    }
    let error = alone(&["log", "dump", "/nonexistent/00.log"]).fails(3);
    assert!(error.contains("/nonexistent/00.log"), "{error}");
    alone(&["log", "verify", "/nonexistent"]).fails(3);
}

#[test]
fn damage_is_named_by_file_and_byte() {
    let host = stopped();
    let copy = tempfile::tempdir().unwrap();
    copy_dir(host.dir(), copy.path());
    let (file, batches) = dumped(&host)
        .into_iter()
        .find(|(_, b)| b[0]["compression"] == "none")
        .unwrap();
    let file = copy.path().join(file.strip_prefix(host.dir()).unwrap());
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&file, &bytes).unwrap();
    let at = batches
        .iter()
        .map(|b| b["position"].as_u64().unwrap())
        .filter(|p| *p <= middle as u64)
        .max()
        .unwrap();
    let name = file.display().to_string();

    let verified = alone(&["log", "verify", &copy.path().display().to_string()]);
    assert_eq!(verified.code, Some(4), "{verified:?}");
    assert!(
        verified.out.contains(&format!("{name} at byte {at}")),
        "{verified:?}"
    );
    let json = alone(&[
        "log",
        "verify",
        &copy.path().display().to_string(),
        "-o",
        "json",
    ]);
    let found = json
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let problems: Vec<Value> = found
        .flat_map(|r| r["problems"].as_array().unwrap().clone())
        .collect();
    assert!(
        problems
            .iter()
            .any(|p| p["file"] == name && p["position"] == at),
        "{problems:?}"
    );

    let dump = alone(&["log", "dump", &name]);
    assert_eq!(dump.code, Some(4), "{dump:?}");
    assert!(
        dump.out.contains(&format!("{name}:{at} ")) && dump.out.contains("DAMAGED"),
        "{dump:?}"
    );
    let json = alone(&["log", "dump", &name, "-o", "json"]);
    assert_eq!(json.code, Some(4));
    assert!(
        json.out
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{json:?}"
    );

    // Cut off in the middle of a batch.
    std::fs::write(&file, &bytes[..30]).unwrap();
    let dump = alone(&["log", "dump", &name, "-o", "json"]);
    assert_eq!(dump.code, Some(4), "{dump:?}");
    let lines: Vec<Value> = dump
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines.iter().any(|line| line["fault"].is_string()),
        "{dump:?}"
    );
    // Neither command changed a byte.
    assert_eq!(std::fs::read(&file).unwrap(), bytes[..30]);
    let original = alone(&["log", "verify", &host.dir().display().to_string()]);
    assert_eq!(original.code, Some(0), "{original:?}");
}

#[test]
fn a_damaged_log_is_cut_only_when_told_to() {
    let mut host = Host::start();
    create(&host, "cut", 1);
    for line in ["first", "second", "third"] {
        feed(&host, &["produce", "cut"], format!("{line}\n")).ok();
    }
    let mut found = Vec::new();
    logs(host.dir(), "/cut-", &mut found);
    let (file, dir) = (found[0].clone(), found[0].parent().unwrap().to_owned());
    let path = dir.display().to_string();
    let running = alone(&["log", "repair", &path, "--cut-at-damage"]).fails(1);
    assert!(
        running.contains("in use by") && running.contains("nothing was changed"),
        "{running}"
    );
    assert_eq!(host.node.stop().code(), Some(0));
    alone(&["log", "repair", &path]).usage();
    let sound = alone(&["log", "repair", &path, "--cut-at-damage", "--yes"]).ok();
    assert!(
        sound.contains("nothing to repair") && sound.contains("3 records"),
        "{sound}"
    );

    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(6).position(|w| w == b"second").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let plan = alone(&["log", "repair", &path, "--cut-at-damage"]).ok();
    for part in [
        "kept:     1 record in 1 batch, from offset 0 to before 1",
        "given up: offsets 1 to before 3",
        "1 record of them could be read",
        "nothing was changed; repeat with --yes to repair the log",
    ] {
        assert!(plan.contains(part), "{part:?} is not in {plan}");
    }
    assert_eq!(
        std::fs::read(&file).unwrap(),
        bytes,
        "a plan changes nothing"
    );
    let args = [
        "log",
        "repair",
        &path,
        "--cut-at-damage",
        "--yes",
        "-o",
        "json",
    ];
    let done: Value = serde_json::from_str(&alone(&args).ok()).unwrap();
    assert_eq!(
        (&done["done"], &done["cut_at"]),
        (&true.into(), &1.into()),
        "{done}"
    );
    let backup = PathBuf::from(done["backup"].as_str().unwrap());
    assert_eq!(
        std::fs::read(backup.join(file.file_name().unwrap())).unwrap(),
        bytes
    );
    // The data directory is right; what was moved aside is not, when it is asked for.
    alone(&["log", "verify", &host.dir().display().to_string()]).ok();
    let aside = alone(&["log", "verify", &backup.display().to_string()]);
    assert_eq!(aside.code, Some(4), "{aside:?}");
    let stranger = alone(&["log", "repair", "/nonexistent", "--cut-at-damage"]);
    assert_eq!(stranger.code, Some(3), "{stranger:?}");
}

#[test]
fn what_is_not_the_logs_is_noted() {
    let host = stopped();
    let mut found = Vec::new();
    logs(host.dir(), "l-none", &mut found);
    let dir = found[0].parent().unwrap();
    std::fs::write(dir.join("README"), "mine").unwrap();
    let path = dir.display().to_string();
    let text = alone(&["log", "verify", &path]).ok();
    assert!(
        text.contains("note: ") && text.contains("README: not a file of this log"),
        "{text}"
    );
    let json: Value =
        serde_json::from_str(&alone(&["log", "verify", &path, "-o", "json"]).ok()).unwrap();
    assert_eq!(json["notes"].as_array().unwrap().len(), 1, "{json}");
    // A flipped bit in a file that can be derived is a flipped bit.
    let index = found[0].with_extension("index");
    let mut bytes = std::fs::read(&index).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&index, bytes).unwrap();
    let text = alone(&["log", "verify", &path]);
    assert_eq!(text.code, Some(4), "{text:?}");
    assert!(text.out.contains(".index at byte 64"), "{text:?}");
}

/// People's environments hold all kinds of bytes; only what is ours has to be text.
#[test]
fn variables_that_are_no_text_stop_nothing_but_are_told_where_they_are_ours() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = OsStr::from_bytes(b"caf\xe9");
    let run = |variables: &[(&OsStr, &OsStr)]| {
        let mut show = command("varve", "127.0.0.1:1");
        show.args(["config", "show"]);
        show.envs(variables.iter().copied());
        finish(show, None)
    };
    run(&[(OsStr::new("STRAY"), bytes), (bytes, OsStr::new("x"))]).ok();
    let error = run(&[(OsStr::new("VARVE_NODE__ID"), bytes)]).fails(2);
    let expected = "the environment variable VARVE_NODE__ID is not UTF-8; nothing was started";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn the_configuration_is_shown_checked_and_documented() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("varve.toml");
    std::fs::write(
        &file,
        "[node]\nid = 7\n[http]\naddress = \"127.0.0.1:9\"\n\
         [listeners.client.tls]\nmode = \"insecure\"\n",
    )
    .unwrap();
    let file = file.display().to_string();
    let show = alone(&["config", "show", "-c", &file]).ok();
    assert!(show.contains("node.id = \"7\""), "{show}");
    let effective = alone(&[
        "config",
        "show",
        "--effective",
        "-c",
        &file,
        "--node-id",
        "8",
    ])
    .ok();
    assert!(effective.contains("SOURCE"), "{effective}");
    let row = effective
        .lines()
        .find(|line| line.starts_with("node.id "))
        .unwrap();
    assert!(row.contains('8'), "a flag wins over the file: {row}");
    let json = alone(&["config", "show", "-o", "json", "-c", &file]).ok();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(
        json.as_array()
            .unwrap()
            .iter()
            .any(|e| e["key"] == "node.id" && e["value"] == "7"),
        "{json}"
    );
    assert_eq!(alone(&["config", "check", "-c", &file]).ok(), "ok\n");

    std::fs::write(dir.path().join("bad.toml"), "[node]\nidd = 7\n").unwrap();
    let bad = dir.path().join("bad.toml").display().to_string();
    let error = alone(&["config", "check", "-c", &bad]).fails(2);
    assert!(
        error.contains("node.idd") && error.contains("did you mean \"node.id\"?"),
        "{error}"
    );
    let error = alone(&["config", "check", "-c", "/nonexistent.toml"]).fails(2);
    assert!(error.contains("/nonexistent.toml"), "{error}");
    for arguments in [
        &["--set-config", "node.id=x"][..],
        &["--set-config", "node.id="],
    ] {
        let error = alone(&[&["config", "check"], arguments].concat()).fails(2);
        assert!(error.contains("node.id"), "{error}");
    }
    let docs = alone(&["config", "docs"]).ok();
    for key in [
        "node.id",
        "storage.data_dir",
        "listeners.client.address",
        "http.address",
    ] {
        assert!(docs.contains(key), "{key}");
    }
}

#[test]
fn completion_scripts_are_for_a_shell() {
    alone(&["completion", "csh"]).usage();
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(script.path(), alone(&["completion", "bash"]).ok()).unwrap();
    let checked = std::process::Command::new("bash")
        .arg("-n")
        .arg(script.path())
        .status();
    assert!(
        checked.is_ok_and(|status| status.success()),
        "bash reads it"
    );
}

#[test]
fn the_version_for_people_and_programs() {
    let text = alone(&["version"]).ok();
    assert!(text.starts_with("varve "), "{text}");
    let json: Value = serde_json::from_str(&alone(&["version", "--json"]).ok()).unwrap();
    let form: Value = serde_json::from_str(&alone(&["version", "-o", "json"]).ok()).unwrap();
    assert_eq!(form, json);
    let version = json["version"].as_str().unwrap();
    assert!(
        text.contains(version) && json["revision"].is_string(),
        "{json}"
    );
    let flag = alone(&["--version"]).ok();
    assert!(flag.contains(version), "{flag}");
    for name in ["varve-produce", "varve-consume"] {
        assert!(program(name).exists(), "{name}");
        let mut version = command(name, "127.0.0.1:1");
        version.arg("--help");
        assert!(finish(version, None).ok().contains("Usage:"));
    }
}
