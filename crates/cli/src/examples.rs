//! Examples of every command for its `--help`, by the command's path. A test types each of them into the parser and
//! checks that none is missing; lines are at most 76 columns, so that an ordinary terminal shows them whole.

/// A command's path, and its examples: shell lines that begin with, or pipe into, `varve`.
pub const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "varve server --dev",
            "varve topic create orders -p 6",
            "echo 'alice:3 apples' | varve produce orders -K :",
            "varve consume orders -e",
        ],
    ),
    (
        "produce",
        &[
            "echo 'alice:3 apples' | varve produce orders -K :",
            "varve produce orders --value hello",
            "varve consume orders -J -e | varve produce copy -J",
        ],
    ),
    (
        "consume",
        &[
            "varve consume orders -e -f '%t:%p@%o %k %v\\n'",
            "varve consume orders -o @-1h -J",
            "varve consume orders -g billing",
        ],
    ),
    (
        "topic",
        &["varve topic create orders -p 6 -r 3", "varve topic list"],
    ),
    (
        "topic create",
        &[
            "varve topic create orders -p 6 -r 3 -c retention.ms=7d",
            "varve topic create customers --compact --if-not-exists",
        ],
    ),
    (
        "topic list",
        &["varve topic list", "varve topic list -r '^orders' -o json"],
    ),
    (
        "topic describe",
        &[
            "varve topic describe orders",
            "varve topic describe orders -a -o json",
        ],
    ),
    (
        "topic config",
        &[
            "varve topic config orders",
            "varve topic config orders --set retention.ms=12h",
            "varve topic config orders --delete retention.ms",
        ],
    ),
    (
        "topic add-partitions",
        &[
            "varve topic add-partitions orders -n 2",
            "varve topic add-partitions orders --total 12 --dry-run",
        ],
    ),
    (
        "topic alter",
        &[
            "varve topic alter orders --replicas 3 --wait",
            "varve topic alter orders payments --replicas 3 --dry-run",
        ],
    ),
    (
        "topic trim",
        &[
            "varve topic trim orders -o @-7d --dry-run",
            "varve topic trim orders -o -1000 -p 0,1",
        ],
    ),
    (
        "topic delete",
        &[
            "varve topic delete orders",
            "varve topic delete -r 'test-.*' --yes",
        ],
    ),
    (
        "topic offsets",
        &[
            "varve topic offsets orders",
            "varve topic offsets orders --at @2026-11-01",
        ],
    ),
    (
        "group",
        &["varve group list", "varve group describe billing"],
    ),
    (
        "group list",
        &["varve group list", "varve group list -o json"],
    ),
    (
        "group describe",
        &[
            "varve group describe billing",
            "varve group describe billing --topics --watch",
        ],
    ),
    (
        "group seek",
        &[
            "varve group seek billing --to @-2h --dry-run",
            "varve group seek billing --to start --topics orders",
            "varve group seek billing --shift-by -100 --execute",
        ],
    ),
    (
        "group delete",
        &["varve group delete billing", "varve group delete a b --yes"],
    ),
    (
        "group offset-delete",
        &[
            "varve group offset-delete billing -t orders",
            "varve group offset-delete billing -t orders:0 payments:2",
        ],
    ),
    (
        "group remove-member",
        &[
            "varve group remove-member billing --all",
            "varve group remove-member billing worker-1",
        ],
    ),
    (
        "transaction",
        &[
            "varve transaction list",
            "varve transaction describe billing-1",
        ],
    ),
    (
        "transaction list",
        &[
            "varve transaction list --state ongoing --open-for 5m",
            "varve transaction list --prefix etl- -o json",
        ],
    ),
    (
        "transaction describe",
        &[
            "varve transaction describe billing-1",
            "varve transaction describe billing-1 billing-2 -o yaml",
        ],
    ),
    (
        "transaction abort",
        &[
            "varve transaction abort billing-1",
            "varve transaction abort billing-1 billing-2 --yes",
        ],
    ),
    ("cluster", &["varve cluster health", "varve cluster nodes"]),
    (
        "cluster nodes",
        &["varve cluster nodes", "varve cluster nodes -o wide"],
    ),
    (
        "cluster drain",
        &[
            "varve cluster drain 2 --wait --within 1m",
            "varve cluster drain 2 --force",
        ],
    ),
    (
        "cluster resume",
        &["varve cluster resume 2", "varve cluster resume 2 -o json"],
    ),
    (
        "cluster decommission",
        &[
            "varve cluster decommission 3 --wait",
            "varve cluster decommission 3 --dead --yes",
        ],
    ),
    (
        "cluster transfer-leader",
        &[
            "varve cluster transfer-leader orders:0",
            "varve cluster transfer-leader orders:0 --to 2",
        ],
    ),
    (
        "cluster elect-leaders",
        &[
            "varve cluster elect-leaders",
            "varve cluster elect-leaders orders payments",
        ],
    ),
    (
        "cluster reassign",
        &[
            "varve cluster reassign orders:0 --to 1,2,3 --wait",
            "varve cluster reassign orders --replicas 3 --dry-run",
            "varve cluster reassign orders --cancel",
        ],
    ),
    (
        "cluster upgrade",
        &[
            "varve cluster upgrade",
            "varve cluster upgrade finalize --dry-run",
        ],
    ),
    (
        "cluster upgrade finalize",
        &[
            "varve cluster upgrade finalize --dry-run",
            "varve cluster upgrade finalize --yes",
        ],
    ),
    (
        "cluster reassignments",
        &[
            "varve cluster reassignments",
            "varve cluster reassignments --watch",
        ],
    ),
    (
        "cluster info",
        &["varve cluster info", "varve cluster info -o json"],
    ),
    (
        "cluster health",
        &[
            "varve cluster health --exit-code",
            "varve cluster health --watch --exit-when-healthy",
        ],
    ),
    (
        "cluster metadata",
        &[
            "varve cluster metadata",
            "varve cluster metadata -t orders -J",
        ],
    ),
    (
        "check",
        &[
            "varve check replication",
            "varve check lag billing --max 1000",
        ],
    ),
    (
        "check run",
        &[
            "varve check run --duration 5m -r 3",
            "varve check run --seed 7 --history history.jsonl",
        ],
    ),
    (
        "check health",
        &[
            "varve check health",
            "varve check health --live --http node2:8277",
        ],
    ),
    (
        "check lag",
        &[
            "varve check lag billing --max 1000",
            "varve check lag billing --max-age 5m -t orders",
        ],
    ),
    (
        "check replication",
        &["varve check replication", "varve check replication -o json"],
    ),
    (
        "check history",
        &[
            "varve check history history.jsonl",
            "varve check history history.jsonl -o json",
        ],
    ),
    (
        "log",
        &[
            "varve log verify /var/lib/varve",
            "varve log dump /var/lib/varve/topics/orders/0",
        ],
    ),
    (
        "log dump",
        &[
            "varve log dump topics/orders/0",
            "varve log dump 00000000000000000000.log -o json",
        ],
    ),
    (
        "log verify",
        &[
            "varve log verify /var/lib/varve",
            "varve log verify topics/orders/0 -o json",
        ],
    ),
    (
        "log repair",
        &[
            "varve log repair topics/orders/0 --cut-at-damage",
            "varve log repair topics/orders/0 --cut-at-damage --yes",
        ],
    ),
    (
        "server",
        &[
            "varve server --dev",
            "varve server -c /etc/varve/varve.toml",
        ],
    ),
    (
        "config",
        &[
            "varve config show --effective",
            "varve config check -c varve.toml",
        ],
    ),
    (
        "config show",
        &[
            "varve config show -c varve.toml",
            "varve config show --effective -o json",
        ],
    ),
    (
        "config check",
        &[
            "varve config check -c varve.toml",
            "varve config check -c varve.toml --set-config node.id=3",
        ],
    ),
    (
        "config docs",
        &["varve config docs", "varve config docs > keys.md"],
    ),
    (
        "demo",
        &["varve demo", "varve demo access.log --partitions 12"],
    ),
    ("sim", &["varve sim --seed 7", "varve sim torture --seed 7"]),
    (
        "completion",
        &[
            "varve completion bash > ~/.local/share/bash-completion/completions/varve",
            "varve completion zsh > _varve",
        ],
    ),
    ("version", &["varve version", "varve version --json"]),
];

/// Where the documentation of a command is, by the first word of its path.
const DOCUMENTS: &[(&str, &str)] = &[
    ("", "docs/cli.md"),
    ("produce", "docs/cli.md#produce"),
    ("consume", "docs/cli.md#consume"),
    ("topic", "docs/cli.md#topic"),
    ("group", "docs/cli.md#group"),
    ("transaction", "docs/cli.md#transaction"),
    ("cluster", "docs/operations.md"),
    ("check", "docs/cli.md#check"),
    ("log", "docs/cli.md#files-of-a-stopped-node"),
    ("server", "docs/configuration.md"),
    ("config", "docs/configuration.md"),
    ("sim", "docs/testing.md"),
];

/// Examples of a command, if there are any.
#[must_use]
pub fn of(path: &str) -> Option<&'static [&'static str]> {
    EXAMPLES
        .iter()
        .find(|(of, _)| *of == path)
        .map(|(_, lines)| *lines)
}

/// The page and section about a command.
#[must_use]
pub fn document(path: &str) -> &'static str {
    let first = path.split(' ').next().unwrap_or_default();
    let found = DOCUMENTS.iter().find(|(of, _)| *of == first);
    found.map_or("docs/cli.md", |(_, page)| *page)
}
