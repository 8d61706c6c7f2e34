//! `varve cluster`, kcat's letters, how a cluster is reached, and the help.

use serde_json::Value;
use varve_tests::node::Node;

use crate::{Host, alone, command, create, feed, finish, node, run};

#[test]
fn info_health_and_metadata() {
    let node = node();
    create(&node, "m-topic", 2);
    let info = run(&node, &["cluster", "info"]).ok();
    for word in [
        "CLUSTER",
        "CONTROLLER",
        "NODE",
        "ADDRESS",
        &node.address(),
        "active",
    ] {
        assert!(info.contains(word), "{word}\n{info}");
    }
    let parse = |args: &[&str]| -> Value { serde_json::from_str(&run(&node, args).ok()).unwrap() };
    let info = parse(&["cluster", "info", "-o", "json"]);
    assert_eq!(info["nodes"][0]["address"], node.address());
    assert_eq!(info["nodeId"], 1);
    assert_eq!(run(&node, &["cluster", "health"]).ok(), "healthy\n");
    assert_eq!(
        run(&node, &["cluster", "health", "-w", "-e"]).ok(),
        "healthy\n"
    );
    assert_eq!(parse(&["cluster", "health", "-o", "json"])["healthy"], true);
    let wide = run(&node, &["cluster", "health", "-o", "wide", "--exit-code"]).ok();
    assert!(wide.contains("every partition has a leader"), "{wide}");
    let table = run(&node, &["cluster", "metadata", "m-topic"]).ok();
    assert!(
        table.contains("LEADER") && table.matches("m-topic").count() == 2,
        "{table}"
    );
    for args in [
        &["cluster", "metadata", "-t", "m-topic", "-J"][..],
        &["cluster", "metadata", "m-topic", "-o", "json"],
    ] {
        let metadata = parse(args);
        assert_eq!(metadata["topics"][0]["topic"], "m-topic");
        assert_eq!(metadata["topics"][0]["partitions"][1]["leaderNodeId"], 1);
    }
    let missing = run(&node, &["cluster", "metadata", "m-tpoic"]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
    assert!(missing.error_line().contains("m-tpoic"), "{missing:?}");
}

#[test]
fn health_has_an_exit_code_for_scripts() {
    // Half of the disk is to be free: whether it is depends on the machine, so both are right answers. A
    // node short of space is alive and not ready, so it is started without waiting for that.
    let mut host = Host::start();
    let space = rustix::fs::statvfs(host.dir()).unwrap();
    let low = space.f_bavail < space.f_blocks / 2;
    host.node.stop();
    let mut child = host
        .command()
        .env("VARVE_STORAGE__MIN_FREE_BYTES", "1000000000000000")
        .env("VARVE_STORAGE__MIN_FREE_PERCENT", "50")
        .spawn()
        .unwrap();
    let ran = varve_tests::wait::until("an answer about the disk", crate::PATIENCE, || {
        let ran = run(&host, &["cluster", "health", "--exit-code"]);
        (ran.code == Some(if low { 4 } else { 0 })).then_some(ran)
    });
    let plain = run(&host, &["cluster", "health"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(ran.out.starts_with("not healthy\n"), low, "{ran:?}");
    assert_eq!(
        ran.out.contains("node 1 is low on disk space"),
        low,
        "{ran:?}"
    );
    assert_eq!(plain.code, Some(0), "only when asked for");
}

#[test]
fn a_probe_asks_one_node() {
    let mut host = Host::start();
    let http = format!("127.0.0.1:{}", host.http_port());
    for probe in ["--ready", "--live", "--startup"] {
        assert_eq!(
            alone(&["check", "health", probe, "--http", &http]).ok(),
            "ok\n"
        );
    }
    assert_eq!(alone(&["check", "health", "-q", "--http", &http]).ok(), "");
    let client = host.address();
    let error = alone(&["check", "health", "--http", &client]).fails(1);
    assert!(error.contains(&client), "{error}");
    host.node.stop();
    let error = alone(&["check", "health", "--http", &http]).fails(1);
    assert!(error.contains("no node answers at"), "{error}");
}

#[test]
fn the_letters_of_kcat() {
    let node = node();
    create(&node, "m-kcat", 1);
    let address = node.address();
    feed(
        &node,
        &["-P", "-b", &address, "-t", "m-kcat", "-K", ":"],
        "a:1\n",
    )
    .ok();
    feed(
        &node,
        &["-b", &address, "-t", "m-kcat", "-P", "-K:", "-z", "zstd"],
        "b:2\n",
    )
    .ok();
    for args in [
        &["-C", "-t", "m-kcat", "-e", "-f", "%k%s;"][..],
        &[
            "-b",
            &address,
            "-C",
            "-t",
            "m-kcat",
            "-o",
            "beginning",
            "-e",
            "-f",
            "%k%s;",
        ],
        &[
            "-b", &address, "-t", "m-kcat", "-C", "-e", "-q", "-f", "%k%s;",
        ],
        &["-t", "m-kcat", "-o", "0", "-e", "-f", "%k%s;", "-C"],
        &[
            "-C", "-b", &address, "-t", "m-kcat", "-o", "-5", "-e", "-f", "%k%s;",
        ],
    ] {
        assert_eq!(run(&node, args).ok(), "a1;b2;", "{args:?}");
    }
    for args in [
        &["-L"][..],
        &["-L", "-b", &address, "-t", "m-kcat"],
        &["-b", &address, "-L", "-t", "m-kcat"],
    ] {
        let listed = run(&node, args).ok();
        assert!(
            listed.contains("m-kcat") && listed.contains(&address),
            "{listed}"
        );
    }
    let json: Value =
        serde_json::from_str(&run(&node, &["-L", "-J", "-t", "m-kcat"]).ok()).unwrap();
    assert_eq!(json["topics"][0]["topic"], "m-kcat");
    assert_eq!(
        run(&node, &["-G", "m-kcat", "m-kcat", "-e", "-f", "%s"]).code,
        Some(2),
        "-G needs -C here"
    );
    assert_eq!(
        run(&node, &["-C", "-G", "m-kcat", "m-kcat", "-e", "-f", "%s"]).ok(),
        "12"
    );
}

#[test]
fn every_way_to_name_the_cluster() {
    let node = Host::start();
    let address = node.address();
    for args in [
        &["-b", &address, "cluster", "health"][..],
        &["cluster", "health", "--brokers", &address],
        &["cluster", "health", "--bootstrap-server", &address],
        &["cluster", "health", "--server", &address],
        &["cluster", "health", "-X", &format!("brokers={address}")],
        &["cluster", "health", "-b", &format!("127.0.0.1:1,{address}")],
    ] {
        assert_eq!(alone(args).ok(), "healthy\n", "{args:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("client.toml");
    std::fs::write(&file, format!("[contexts.here]\nbrokers = \"{address}\"\n")).unwrap();
    let file = file.display().to_string();
    let mut named = command("varve", "");
    named
        .env_remove("VARVE_BROKERS")
        .args(["-F", &file, "--context", "here", "cluster", "health"]);
    assert_eq!(finish(named, None).ok(), "healthy\n");
    let error = alone(&["-F", &file, "--context", "there", "topic", "list"]).fails(2);
    assert!(error.contains("there"), "{error}");
    let error = alone(&["-X", "linge=5ms", "topic", "list"]).fails(2);
    assert!(error.contains("did you mean \"linger\"?"), "{error}");
    let error = alone(&["-F", "/nonexistent/file", "topic", "list"]).fails(2);
    assert!(error.contains("/nonexistent/file"), "{error}");
    let settings = alone(&["topic", "list", "-X", "list"]).ok();
    for name in [
        "linger",
        "batch.size",
        "compression",
        "acks",
        "prefetch.bytes",
    ] {
        assert!(settings.contains(name), "{name}\n{settings}");
    }
}

#[test]
fn help_mentions_every_flag() {
    for (command, flags) in [
        (
            "produce",
            "--topic --lines --delim --key-delim --key --partition --header --compression --acks \
          --null-empty --count --format --json --tee --output-format --linger --batch-size --delivery-timeout \
          --idempotent --no-idempotent --producer-name --at --timestamp",
        ),
        (
            "consume",
            "--topic --regex --partition --group --offset --exit-at-end --count --format --json \
          --json-pretty --delim --key-delim --null --unbuffered --meta-only --from-beginning --idle-timeout \
          --require --no-commit --commit-interval --instance-id --rack",
        ),
        (
            "topic create",
            "--partitions --replicas --config --if-not-exists --dry-run --compact --output",
        ),
        ("topic list", "--detailed --internal --regex --output"),
        (
            "topic describe",
            "--summary --configs --partitions --all --under-replicated --unavailable",
        ),
        ("topic config", "--set --delete --append --dry-run"),
        ("topic add-partitions", "--total --dry-run"),
        ("topic trim", "--offset --partition --dry-run --output"),
        ("topic delete", "--regex"),
        ("topic offsets", "--at --partition"),
        ("group list", "--output"),
        ("group describe", "--summary --topics --watch"),
        (
            "group seek",
            "--to --shift-by --to-group --to-file --topics --dry-run --execute",
        ),
        ("group delete", "--yes"),
        ("group offset-delete", "--topic"),
        ("group remove-member", "--all"),
        ("cluster info", "--output"),
        ("cluster health", "--watch --exit-when-healthy --exit-code"),
        ("cluster metadata", "--topic --json"),
        ("check health", "--ready --live --startup --http"),
        ("log dump", "--output"),
        ("log verify", "--output"),
        (
            "server",
            "--config-file --data-dir --node-id --listen --http --dev",
        ),
        ("config show", "--effective --output"),
        ("config check", "--config-file"),
        ("version", "--json"),
        ("demo", "--help"),
    ] {
        let mut args: Vec<&str> = command.split(' ').collect();
        args.push("--help");
        let help = alone(&args).ok();
        let global = [
            "--brokers",
            "--timeout",
            "--tls --tls-ca --tls-cert --tls-key",
            "--quiet",
            "--verbose",
            "--no-color",
            "--yes",
            "--client-set",
        ];
        let global = global.iter().flat_map(|flags| flags.split(' '));
        for flag in flags.split_whitespace().chain(global) {
            let found = help
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                .any(|word| word == flag);
            assert!(found, "{command} --help does not mention {flag}\n{help}");
        }
    }
    let help = alone(&["--help"]).ok();
    for command in [
        "produce",
        "consume",
        "topic",
        "group",
        "cluster",
        "check",
        "log",
        "server",
        "config",
        "demo",
        "completion",
        "version",
    ] {
        assert!(help.contains(command), "{help}");
    }
    let error = alone(&["topci", "list"]).usage();
    assert!(error.contains("topic"), "{error}");
    alone(&[]).usage_or_help();
}

impl crate::Ran {
    #[track_caller]
    fn usage_or_help(self) {
        assert_eq!((self.code, self.out.as_str()), (Some(2), ""), "{self:?}");
        assert!(self.err.contains("Usage:"), "{self:?}");
    }
}

#[test]
fn operations_on_a_node_that_is_alone() {
    let node = node();
    create(&node, "ops-topic", 2);
    let nodes = run(&node, &["cluster", "nodes"]).ok();
    for word in ["REPLICAS", "LEADERS", "active", &node.address()] {
        assert!(nodes.contains(word), "{word}\n{nodes}");
    }
    let json: Value =
        serde_json::from_str(&run(&node, &["cluster", "nodes", "-o", "json"]).ok()).unwrap();
    assert_eq!(json["nodes"][0]["node"]["nodeId"], 1);
    let none = run(&node, &["cluster", "reassignments"]).ok();
    assert!(none.contains("BYTES LEFT"), "{none}");
    for args in [
        &["cluster", "drain", "1"][..],
        &["cluster", "decommission", "1", "-y"],
        &["cluster", "reassign", "ops-topic", "--to", "1,2"],
        &["cluster", "transfer-leader", "ops-topic:0"],
        &["topic", "alter", "ops-topic", "--replicas", "3"],
    ] {
        let refused = run(&node, args);
        assert_eq!(refused.code, Some(1), "{args:?}: {refused:?}");
        assert!(refused.error_line().contains("is alone"), "{refused:?}");
        assert!(refused.error_line().contains("nothing was changed"));
    }
    let unasked = run(&node, &["cluster", "decommission", "1"]);
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    for (args, code) in [
        (&["cluster", "transfer-leader", "ops-topic"][..], 2),
        (&["cluster", "reassign", "ops-topic:x", "--to", "1"], 2),
        (&["topic", "alter", "ops-tpoic", "--replicas", "3"], 3),
    ] {
        let refused = run(&node, args);
        assert_eq!(refused.code, Some(code), "{args:?}: {refused:?}");
    }
}

#[test]
fn health_warns_before_a_limit_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_with(dir.path(), &[("VARVE_GROUPS__MAX", "5")]);
    create(&node, "near", 1);
    feed(&node, &["produce", "-q", "near"], "a\n").ok();
    let join = |group: &str| {
        run(
            &node,
            &["consume", "near", "-e", "-q", "-g", group, "-f", "%v"],
        )
    };
    for group in ["a", "b", "c"] {
        join(group).ok();
    }
    assert_eq!(run(&node, &["cluster", "health"]).ok(), "healthy\n");
    join("d").ok();
    let warned = run(&node, &["cluster", "health"]).ok();
    assert_eq!(
        warned,
        "healthy\nthe limit groups.max of the node that answered is used to 80 % (4 of 5); see docs/limits.md\n"
    );
    let metrics = node.get("/metrics").1;
    for line in [
        "varve_limit_used{key=\"groups.max\"} 4",
        "varve_limit_max{key=\"groups.max\"} 5",
        "varve_limit_max{key=\"memory.unread.max_bytes\"} 100663296",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    join("e").ok();
    let refused = join("f");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.error_line().contains("groups.max"), "{refused:?}");
}
