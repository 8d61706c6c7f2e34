//! Formats: every token and modifier, JSON as a contract, and the round trip through it.

use varve_tests::node::Node;

use crate::{create, feed, node, read, run};

fn one_record(node: &Node, topic: &str) {
    create(node, topic, 2);
    let args = [
        "produce",
        topic,
        "-p",
        "1",
        "-k",
        "k1",
        "-H",
        "a=b",
        "-H",
        "n",
        "--timestamp",
        "1600000000123",
    ];
    feed(node, &args, "hello\n").ok();
}

#[test]
fn every_token_and_modifier() {
    let node = node();
    one_record(&node, "f-tokens");
    for (format, expected) in [
        ("%v %s", "hello hello"),
        ("%V %S", "5 5"),
        ("%k %K", "k1 2"),
        ("%h", "a=b,n=NULL"),
        (r"%h{%k=%v\n}", "a=b\nn=NULL\n"),
        ("%h{%K %V;}", "1 1;1 -1;"),
        ("%t %p %o", "f-tokens 1 0"),
        ("%T", "1600000000123"),
        ("%d", "2020-09-13T12:26:40.123Z"),
        ("%d{rfc3339}", "2020-09-13T12:26:40.123Z"),
        ("%d{strftime[%F %T]}", "2020-09-13 12:26:40"),
        ("%i %e", "1 0"),
        ("%%", "%"),
        (r"\t|\n|\r|\\|\x41\x42|\0", "\t|\n|\r|\\|AB|\0"),
        ("%v{hex}", "68656c6c6f"),
        ("%v{base64}", "aGVsbG8="),
        ("%k{hex}", "6b31"),
        ("%K{big32}", "\0\0\0\u{2}"),
        ("%V{little16}", "\u{5}\0"),
        ("%o{big64}", "\0\0\0\0\0\0\0\0"),
        ("%p{big8}", "\u{1}"),
        ("%K{ascii}", "2"),
        ("%{", "error"),
    ] {
        let ran = run(
            &node,
            &["consume", "f-tokens", "-e", "-Z", "NULL", "-f", format],
        );
        if expected == "error" {
            ran.fails(2);
        } else {
            assert_eq!(ran.ok(), expected, "{format}");
        }
    }
}

#[test]
fn wrong_formats_are_explained() {
    let node = node();
    one_record(&node, "f-wrong");
    for (format, word) in [
        ("%q", "%q"),
        ("%", "single %"),
        ("%v{hex", "no matching }"),
        ("%v{big32}", "not a format for bytes"),
        ("%K{hex}", "number format"),
        ("%d{x}", "time format"),
        (r"\q", r"\q"),
        ("%t{hex}", "%t takes no"),
    ] {
        let error = run(&node, &["consume", "f-wrong", "-e", "-f", format]).fails(2);
        assert!(error.contains(word), "{format}: {error}");
    }
    run(&node, &["consume", "f-wrong", "-f", "%v", "-J"]).usage();
}

#[test]
fn nulls_in_formats() {
    let node = node();
    create(&node, "f-null", 1);
    feed(&node, &["produce", "f-null", "-Z"], "\n").ok();
    let ran = run(
        &node,
        &["consume", "f-null", "-e", "-f", r"[%k][%v] %K %V %v{hex}\n"],
    );
    assert_eq!(ran.ok(), "[][] -1 -1 \n");
    assert_eq!(read(&node, "f-null", "[%k][%v]"), "[NULL][NULL]");
    let json = run(&node, &["consume", "f-null", "-e", "-J", "-Z", "x"]).ok();
    assert!(json.contains(r#""key":null,"value":null"#), "{json}");
}

#[test]
fn json_is_a_contract() {
    let node = node();
    one_record(&node, "f-json");
    let line = run(&node, &["consume", "f-json", "-e", "-J"]).ok();
    assert_eq!(
        line,
        concat!(
            r#"{"topic":"f-json","partition":1,"offset":0,"timestamp":1600000000123,"key":"k1","#,
            r#""value":"hello","headers":[{"key":"a","value":"b"},{"key":"n","value":null}]}"#,
            "\n"
        )
    );
    let pretty = run(&node, &["consume", "f-json", "-e", "--json-pretty"]).ok();
    assert!(pretty.lines().count() > 5, "{pretty}");
    let (pretty, line): (serde_json::Value, serde_json::Value) = (
        serde_json::from_str(&pretty).unwrap(),
        serde_json::from_str(&line).unwrap(),
    );
    assert_eq!(pretty, line);
    let meta = run(&node, &["consume", "f-json", "-e", "-J", "--meta-only"]).ok();
    assert!(
        !meta.contains("value\":\"hello") && meta.contains("\"key\":\"k1\""),
        "{meta}"
    );
}

/// Every part in every state: null, empty, text with characters JSON escapes, bytes that are no text.
fn corpus() -> String {
    let parts = [
        ("null", None),
        ("\"\"", None),
        (r#""text \"quoted\" \\ \n\t\u0000 äöü 🦀""#, None),
        (r#""//79/AA=""#, Some("_base64")),
    ];
    let field = |name: &str, (text, suffix): (&str, Option<&str>)| {
        format!("\"{name}{}\":{text}", suffix.unwrap_or_default())
    };
    let mut lines = String::new();
    let mut time = 1_600_000_000_000_i64;
    for key in parts {
        for value in parts {
            for header in parts {
                let (key, value) = (field("key", key), field("value", value));
                let header = field("value", header);
                lines.push_str(&format!(
                    "{{\"topic\":\"T\",\"partition\":0,\"offset\":0,\"timestamp\":{time},{key},{value},\
                     \"headers\":[{{\"key\":\"h ä\",{header}}},{{\"key\":\"h ä\",\"value\":\"2\"}}]}}\n"
                ));
                time += 977;
            }
        }
    }
    lines
}

/// The records without where they are.
fn content(lines: &str) -> Vec<serde_json::Value> {
    let parse = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        let object = value.as_object_mut().unwrap();
        for place in ["topic", "partition", "offset"] {
            object.remove(place).unwrap();
        }
        value
    };
    lines.lines().map(parse).collect()
}

#[test]
fn records_survive_the_round_trip_bit_by_bit() {
    let node = node();
    let given = corpus();
    create(&node, "f-trip-1", 1);
    create(&node, "f-trip-2", 1);
    feed(&node, &["produce", "f-trip-1", "-J"], &given).ok();
    let first = run(&node, &["consume", "f-trip-1", "-e", "-J"]).ok();
    assert_eq!(content(&first), content(&given));
    feed(&node, &["produce", "f-trip-2", "-J", "-z", "zstd"], &first).ok();
    let second = run(&node, &["consume", "f-trip-2", "-e", "-J"]).ok();
    assert_eq!(second, first.replace("f-trip-1", "f-trip-2"));
    // The same bytes in the log, not only in print.
    let bytes = r"%k{hex} %v{hex} %T %h{%v{hex}}\n";
    assert_eq!(
        read(&node, "f-trip-1", bytes),
        read(&node, "f-trip-2", bytes)
    );
    assert!(read(&node, "f-trip-1", bytes).contains("fffefdfc00"));
}

#[test]
fn a_binary_format_survives_the_round_trip() {
    let node = node();
    create(&node, "f-bin-1", 1);
    create(&node, "f-bin-2", 1);
    feed(&node, &["produce", "f-bin-1", "-J"], corpus()).ok();
    let format = "%T{big64}%K{big32}%k%V{big32}%v";
    let ran = run(&node, &["consume", "f-bin-1", "-e", "-f", format]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    feed(&node, &["produce", "f-bin-2", "-f", format], &ran.bytes).ok();
    let again = run(&node, &["consume", "f-bin-2", "-e", "-f", format]);
    assert_eq!(again.bytes, ran.bytes);
}
