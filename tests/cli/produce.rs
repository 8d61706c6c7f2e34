//! `varve produce`: what is read, what is sent, what is said.

use crate::{alone, command, create, feed, finish, node, read, run, sorted};

const RECORD: &str = r"%k|%v|%h\n";

#[test]
fn lines_of_standard_input_are_records() {
    let node = node();
    create(&node, "p-lines", 1);
    let said = feed(&node, &["produce", "p-lines"], "a\nb\n\nlast without end").ok();
    assert_eq!(said, "", "nothing is said when all is well");
    assert_eq!(
        read(&node, "p-lines", RECORD),
        "NULL|a|\nNULL|b|\nNULL||\nNULL|last without end|\n"
    );
    feed(&node, &["produce", "-t", "p-lines"], "").ok();
    assert_eq!(read(&node, "p-lines", "%o ").len(), "0 1 2 3 ".len());
}

#[test]
fn a_file_is_one_record_and_with_l_every_line_is() {
    let node = node();
    create(&node, "p-files", 1);
    create(&node, "p-filelines", 1);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (one, two) = (path("one"), path("two"));
    std::fs::write(&one, "x\ny\n").unwrap();
    std::fs::write(&two, b"\x00\xff").unwrap();
    run(&node, &["produce", "p-files", &one, &two]).ok();
    assert_eq!(read(&node, "p-files", "%v{hex} "), "780a790a 00ff ");
    run(&node, &["produce", "-t", "p-filelines", "-l", &one, &one]).ok();
    assert_eq!(read(&node, "p-filelines", "%v "), "x y x y ");
    for lines in [None, Some("-l")] {
        let missing = path("missing");
        let mut args = vec!["produce", "p-files", &missing];
        args.extend(lines);
        let error = run(&node, &args).fails(3);
        assert!(error.contains("missing"), "{error}");
    }
}

#[test]
fn delimiters_have_escapes() {
    let node = node();
    for (topic, flags, input) in [
        (
            "p-delim-a",
            &["-D", r"\0", "-K", r"\t"][..],
            "k\tone\n\0two\0",
        ),
        (
            "p-delim-b",
            &["-D", r"\x3b\x20", "-K", "::"][..],
            "k::one\n; two; ",
        ),
        (
            "p-delim-c",
            &["--delim", "END", "--key-delim", "="][..],
            "k=one\nENDtwoEND",
        ),
    ] {
        create(&node, topic, 1);
        let mut args = vec!["produce", topic];
        args.extend(flags);
        feed(&node, &args, input).ok();
        assert_eq!(
            read(&node, topic, r"%k|%v;"),
            "k|one\n;NULL|two;",
            "{topic}"
        );
    }
    let error = alone(&["produce", "t", "-D", ""]).usage();
    assert!(error.contains("must not be empty"), "{error}");
    alone(&["produce", "t", "-K", r"\q"]).usage();
}

#[test]
fn a_key_of_the_record_wins_over_the_given_one() {
    let node = node();
    create(&node, "p-key", 1);
    feed(
        &node,
        &["produce", "p-key", "-K", ":", "-k", "given"],
        "a:1:2\nplain\n:empty\n",
    )
    .ok();
    feed(&node, &["produce", "p-key", "-k", "-dash"], "x\n").ok();
    assert_eq!(
        read(&node, "p-key", r"%k|%v\n"),
        "a|1:2\ngiven|plain\n|empty\n-dash|x\n"
    );
}

#[test]
fn the_partition_can_be_given() {
    let node = node();
    create(&node, "p-part", 3);
    feed(&node, &["produce", "p-part", "-p", "2"], "a\nb\n").ok();
    assert_eq!(read(&node, "p-part", "%p%v "), "2a 2b ");
    let error = feed(&node, &["produce", "p-part", "-p", "3"], "a\n").fails(3);
    assert!(error.contains("p-part") && error.contains('3'), "{error}");
    // One key, one partition.
    feed(&node, &["produce", "p-part", "-k", "k"], "c\nd\ne\n").ok();
    let parts = read(&node, "p-part", r"%k %p\n");
    let mut of_key: Vec<_> = parts.lines().filter(|line| line.starts_with('k')).collect();
    of_key.dedup();
    assert_eq!(of_key.len(), 1, "{parts}");
}

#[test]
fn headers_are_text_empty_or_null() {
    let node = node();
    create(&node, "p-head", 1);
    let flags = [
        "produce", "p-head", "-H", "a=b=c", "-H", "e=", "-H", "n", "-H", "a=2",
    ];
    feed(&node, &flags, "x\n").ok();
    assert_eq!(
        read(&node, "p-head", r"%h{%k=%v;}|%h\n"),
        "a=b=c;e=;n=NULL;a=2;|a=b=c,e=,n=NULL,a=2\n"
    );
    alone(&["produce", "t", "-H", "=x"]).usage();
}

#[test]
fn an_empty_value_can_be_null() {
    let node = node();
    create(&node, "p-null", 1);
    feed(&node, &["produce", "p-null", "-Z", "-K", ":"], "k:\n:v\n").ok();
    assert_eq!(read(&node, "p-null", r"%k|%v %V\n"), "k|NULL -1\n|v 1\n");
}

#[test]
fn count_stops_early() {
    let node = node();
    create(&node, "p-count", 1);
    feed(&node, &["produce", "p-count", "-c", "2"], "a\nb\nc\n").ok();
    feed(&node, &["produce", "p-count", "-n", "1"], "d\ne\n").ok();
    feed(
        &node,
        &["produce", "p-count", "-c", "1", "-J"],
        "{\"value\":\"f\"}\nnot json\n",
    )
    .ok();
    assert_eq!(read(&node, "p-count", "%v"), "abdf");
}

#[test]
fn input_formats() {
    let node = node();
    create(&node, "p-fmt", 3);
    feed(
        &node,
        &["produce", "p-fmt", "-f", r"%k %v\n", "-p", "0"],
        "a one two\nb three\n",
    )
    .ok();
    // The second record: key length -1 is a null key, and a value of no bytes.
    let binary = b"\x00\x01k\x00\x00\x00\x03x\ny\xff\xff\x00\x00\x00\x00";
    feed(
        &node,
        &[
            "produce",
            "p-fmt",
            "-f",
            "%K{big16}%k%V{big32}%v",
            "-p",
            "1",
        ],
        binary,
    )
    .ok();
    feed(
        &node,
        &["produce", "-f", r"%t %p %T %v\n"],
        "p-fmt 2 1600000000000 timed\n",
    )
    .ok();
    let all = read(&node, "p-fmt", r"%p %k|%v{hex}\n");
    assert_eq!(
        sorted(&all),
        [
            "0 a|6f6e652074776f",
            "0 b|7468726565",
            "1 NULL|",
            "1 k|780a79",
            "2 NULL|74696d6564"
        ]
    );
    assert_eq!(
        run(&node, &["consume", "p-fmt", "-p", "2", "-e", "-f", "%T"]).ok(),
        "1600000000000"
    );
    let error = feed(&node, &["produce", "p-fmt", "-f", "%v"], "x").fails(2);
    assert!(error.contains("delimiter"), "{error}");
    let error = feed(&node, &["produce", "p-fmt", "-f", r"%p %v\n"], "x y\n").fails(1);
    assert!(error.contains("record 1 of the input"), "{error}");
}

#[test]
fn json_lines_name_key_value_headers_and_time() {
    let node = node();
    create(&node, "p-json", 1);
    let lines = concat!(
        r#"{"topic":"p-json","value":"v","key":"k","timestamp":1600000000000}"#,
        "\n\n",
        r#"{"topic":"p-json","value_base64":"/w==","headers":[{"key":"h","value":null}]}"#,
        "\n"
    );
    feed(&node, &["produce", "-J"], lines).ok();
    assert_eq!(
        read(&node, "p-json", r"%k|%v{hex}|%h\n"),
        "k|76|\nNULL|ff|h=NULL\n"
    );
    let error = feed(
        &node,
        &["produce", "p-json", "-J"],
        "{\"value\":\"x\"}\n{\"val\":1}\n",
    )
    .fails(1);
    assert!(
        error.contains("record 2 of the input: unknown field `val`"),
        "{error}"
    );
    assert_eq!(
        read(&node, "p-json", "%V "),
        "1 1 1 ",
        "what came before the mistake was sent"
    );
    let error = feed(&node, &["produce", "-J"], "{\"value\":\"x\"}\n").fails(1);
    assert!(error.contains("names no topic"), "{error}");
}

#[test]
fn tee_and_acknowledgements_go_to_standard_output() {
    let node = node();
    create(&node, "p-tee", 1);
    assert_eq!(
        feed(&node, &["produce", "p-tee", "-T"], "a\nb").ok(),
        "a\nb"
    );
    let acks = feed(
        &node,
        &["produce", "p-tee", "-O", r"%t[%p]@%o #%i\n"],
        "c\nd\n",
    )
    .ok();
    assert_eq!(acks, "p-tee[0]@2 #1\np-tee[0]@3 #2\n");
    let error = feed(&node, &["produce", "p-tee", "-O", "%v"], "x\n").fails(2);
    assert!(error.contains("%v is not available"), "{error}");
    feed(&node, &["produce", "p-tee", "-O", "%o", "-T"], "x\n").usage();
    let verbose = feed(&node, &["-v", "produce", "p-tee"], "e\n");
    assert_eq!((verbose.code, verbose.out.as_str()), (Some(0), ""));
    assert!(
        verbose.err.contains("1 record acknowledged, 0 failed"),
        "{}",
        verbose.err
    );
}

#[test]
fn the_time_of_records_can_be_given() {
    let node = node();
    create(&node, "p-time", 1);
    for at in [
        &["--at", "2020-09-13T12:26:40Z"][..],
        &["--at", "2020-09-13T14:26:40+02:00"],
        &["--at", "1600000000"],
        &["--timestamp", "1600000000000"],
    ] {
        let mut args = vec!["produce", "p-time"];
        args.extend(at);
        feed(&node, &args, "x\n").ok();
    }
    feed(&node, &["produce", "p-time", "--at", "-1h"], "x\n").ok();
    feed(&node, &["produce", "p-time"], "x\n").ok();
    let times = read(&node, "p-time", "%T ");
    let times: Vec<i64> = times
        .split_whitespace()
        .map(|t| t.parse().unwrap())
        .collect();
    assert_eq!(times[..4], [1_600_000_000_000; 4]);
    let hour = times[5] - times[4];
    assert!((3_590_000..3_660_000).contains(&hour), "{times:?}");
    alone(&["produce", "t", "--at", "x", "--timestamp", "1"]).usage();
    let error = feed(&node, &["produce", "p-time", "--at", "yesterday"], "x\n").fails(2);
    assert!(error.contains("is not a time"), "{error}");
}

#[test]
fn every_kind_of_acknowledgement() {
    let node = node();
    create(&node, "p-acks", 1);
    for acks in ["all", "-1", "leader", "1", "none", "0"] {
        feed(&node, &["produce", "p-acks", "-a", acks], "x\n").ok();
    }
    varve_tests::wait::until("six records", crate::PATIENCE, || {
        (read(&node, "p-acks", "%v") == "xxxxxx").then_some(())
    });
    feed(&node, &["produce", "p-acks", "-a", "some"], "x\n").usage();
    let named = [
        "produce",
        "p-acks",
        "--producer-name",
        "me",
        "--linger",
        "1ms",
        "--batch-size",
        "1KiB",
    ];
    feed(&node, &named, "y\n").ok();
    feed(&node, &["produce", "p-acks", "--no-idempotent"], "z\n").ok();
    assert!(read(&node, "p-acks", "%v").ends_with("yz"));
}

#[test]
fn every_codec_brings_the_bytes_back() {
    let node = node();
    let text: String = (0..500)
        .map(|n| format!("line {n} of something that repeats\n"))
        .collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("p-codec-{codec}");
        create(&node, &topic, 1);
        feed(&node, &["produce", &topic, "-z", codec], &text).ok();
        assert_eq!(read(&node, &topic, r"%v\n"), text, "{codec}");
    }
    feed(&node, &["produce", "p-codec-none", "-z", "brotli"], "x\n").usage();
}

#[test]
fn what_does_not_exist_is_told_with_a_hint() {
    let node = node();
    create(&node, "p-orders", 1);
    let error = feed(&node, &["produce", "p-ordres"], "x\n").fails(3);
    assert_eq!(
        error,
        "error: topic \"p-ordres\" not found (NOT_FOUND/TOPIC_NOT_FOUND); did you mean \"p-orders\"?"
    );
    let error = feed(&node, &["produce"], "x\n").fails(2);
    assert!(error.contains("no topic is given"), "{error}");
    let error = feed(&node, &["produce", "no spaces"], "x\n").fails(2);
    assert!(error.contains("no spaces"), "{error}");
    feed(&node, &["produce", "p-orders", "-f", r"%v\n", "-J"], "x\n").usage();
}

#[test]
fn nobody_at_the_address() {
    for args in [
        &["produce", "t"][..],
        &["consume", "t"],
        &["topic", "list"],
        &["group", "list"],
        &["cluster", "health"],
    ] {
        let mut given = args.to_vec();
        given.extend(["--timeout", "200ms"]);
        let error = alone(&given).fails(1);
        assert!(
            error.contains("no broker answered at 127.0.0.1:1"),
            "{error}"
        );
    }
    // A listener that never answers is a timeout.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let mut late = command("varve", &address);
    late.args(["topic", "list", "--timeout", "500ms"]);
    let error = finish(late, None).fails(5);
    assert!(
        error.contains(&address) || error.contains("in time"),
        "{error}"
    );
}

#[test]
fn a_record_that_is_too_large_is_refused_with_the_reason() {
    let node = node();
    create(&node, "p-large", 1);
    run(
        &node,
        &[
            "topic",
            "config",
            "p-large",
            "--set",
            "max.message.bytes=4096",
        ],
    )
    .ok();
    // Bytes that no codec makes small.
    let mut state = 1_u64;
    let noise = (0..20_000).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8 | 0x80
    });
    let noise: Vec<u8> = noise.collect();
    let ran = feed(&node, &["produce", "p-large"], &noise);
    let error = ran.fails(1);
    assert!(error.contains("1 of 1 records not written"), "{error}");
    assert!(
        error.contains("max.message.bytes") || error.contains("4096"),
        "{error}"
    );
    let huge = vec![b'x'; 20 << 20];
    let error = feed(&node, &["produce", "p-large", "-z", "none"], &huge).fails(1);
    assert!(error.contains("bytes"), "{error}");
    assert_eq!(read(&node, "p-large", "%v"), "", "nothing was written");
}

#[test]
fn the_programs_under_names_of_their_own() {
    let node = node();
    create(&node, "p-names", 1);
    let mut produce = command("varve-produce", &node.address());
    produce.args(["p-names", "-K", ":"]);
    assert_eq!(finish(produce, Some(b"a:1\n")).ok(), "");
    let mut consume = command("varve-consume", &node.address());
    consume.args(["p-names", "-e", "-K", "="]);
    assert_eq!(finish(consume, None).ok(), "a=1\n");
    let mut help = command("varve-consume", &node.address());
    help.arg("--help");
    let help = finish(help, None).ok();
    assert!(
        help.contains("--offset") && help.contains("--exit-at-end"),
        "{help}"
    );
}
