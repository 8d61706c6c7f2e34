//! What people type who come from Kafka's scripts, rpk, nats and kcat, and what it means here. Only tables: a word
//! where a command is expected, and a flag that a command does not have. Nothing here applies where the command
//! line has the word or the flag itself, and nothing ever applies to the name of a topic or a group.

/// What a word or a flag means here.
#[derive(Debug, Clone, Copy)]
pub enum Means {
    /// The command with this path.
    Command(&'static [&'static str]),
    /// These arguments in its place.
    Flags(&'static [&'static str]),
    /// These arguments; `{}` is the value of the flag.
    Value(&'static [&'static str]),
    /// An output format: `--output` with the value of the flag.
    Output,
    /// Nothing: what it asks for is done anyway.
    Nothing,
    /// A property of Kafka's console tools: the answer depends on the value.
    Property,
    /// A sentence that names the right command.
    Says(&'static str),
}

use Means::{Command, Flags, Nothing, Output, Property, Says, Value};

/// A word where a command is expected: the commands before it, the words, what they mean.
pub const WORDS: &[(&str, &[&str], Means)] = &[
    ("", &["ls", "list"], Command(&["topic", "list"])),
    ("", &["rm"], Command(&["topic", "delete"])),
    ("", &["create"], Command(&["topic", "create"])),
    ("", &["describe"], Command(&["topic", "describe"])),
    ("", &["offsets"], Command(&["topic", "offsets"])),
    ("", &["info"], Command(&["cluster", "info"])),
    ("", &["status", "health"], Command(&["cluster", "health"])),
    ("", &["metadata"], Command(&["cluster", "metadata"])),
    ("", &["nodes", "brokers"], Command(&["cluster", "nodes"])),
    ("", &["lag"], Command(&["group", "describe"])),
    ("", &["reset", "seek"], Command(&["group", "seek"])),
    (
        "",
        &["publish", "put", "send", "write", "producer"],
        Command(&["produce"]),
    ),
    (
        "",
        &["subscribe", "get", "read", "cat"],
        Command(&["consume"]),
    ),
    (
        "",
        &["delete", "remove"],
        Says("delete what? type varve topic delete TOPIC or varve group delete GROUP"),
    ),
    (
        "",
        &["tail", "follow"],
        Says(
            "to read new records: varve consume TOPIC -o end, or the last ten and new ones: -o -10",
        ),
    ),
    (
        "",
        &["stream", "streams", "queue"],
        Says("a stream is a topic here: varve topic list, create, describe or delete"),
    ),
    (
        "",
        &["consumer", "consumers", "consumer-group"],
        Says(
            "consumers that share topics are a group here: varve group list; to read records: varve consume TOPIC",
        ),
    ),
    (
        "",
        &["start", "run", "serve", "broker"],
        Says("to run a node: varve server --dev, or varve server -c FILE"),
    ),
    (
        "",
        &["profile", "context", "contexts"],
        Says(
            "contexts are tables in the client configuration file (docs/cli.md); --context NAME selects one",
        ),
    ),
    (
        "",
        &["maintenance"],
        Says(
            "to take leadership from a node: varve cluster drain NODE; varve cluster resume NODE ends it",
        ),
    ),
    (
        "",
        &[
            "account", "acl", "acls", "login", "security", "user", "users",
        ],
        Says(
            "users and access control lists are not implemented; TLS certificates protect a cluster (docs/security.md)",
        ),
    ),
    ("topic", &["get", "show"], Command(&["topic", "describe"])),
    ("topic", &["add", "new"], Command(&["topic", "create"])),
    ("topic", &["del", "remove"], Command(&["topic", "delete"])),
    ("topic", &["produce", "pub"], Command(&["produce"])),
    ("topic", &["consume", "sub"], Command(&["consume"])),
    (
        "topic",
        &["alter-config", "configs", "set-config"],
        Command(&["topic", "config"]),
    ),
    (
        "topic",
        &["delete-records", "trim-prefix"],
        Command(&["topic", "trim"]),
    ),
    (
        "topic",
        &["purge"],
        Says("to delete all records and keep the topic: varve topic trim TOPIC -o end"),
    ),
    (
        "group",
        &["get", "show", "members", "status"],
        Command(&["group", "describe"]),
    ),
    ("group", &["reset-offsets"], Command(&["group", "seek"])),
    (
        "group",
        &["delete-offsets"],
        Command(&["group", "offset-delete"]),
    ),
    ("group", &["remove"], Command(&["group", "delete"])),
    ("cluster", &["show"], Command(&["cluster", "info"])),
    (
        "cluster",
        &["brokers", "list", "ls"],
        Command(&["cluster", "nodes"]),
    ),
    (
        "cluster",
        &["maintenance"],
        Says(
            "to take leadership from a node: varve cluster drain NODE; varve cluster resume NODE ends it",
        ),
    ),
    (
        "cluster",
        &["config"],
        Says("each node has a configuration file: varve config show, docs/configuration.md"),
    ),
    (
        "cluster",
        &["balance", "balancer", "rebalance"],
        Says(
            "to give leadership back to preferred leaders: varve cluster elect-leaders; to move replicas: varve \
             cluster reassign",
        ),
    ),
    (
        "cluster",
        &["remove"],
        Says(
            "to move all replicas away from a node and remove it: varve cluster decommission NODE",
        ),
    ),
    ("config", &["get", "list"], Command(&["config", "show"])),
];

/// Words that stand for a whole family, or for its list when nothing of the family follows.
pub const FAMILIES: &[(&str, &str)] = &[
    ("topics", "topic"),
    ("groups", "group"),
    ("consumer-groups", "group"),
    ("transactions", "transaction"),
];

/// A flag that the command does not have: the command's path or the beginning of it, the flags, what they mean.
pub const FLAGS: &[(&str, &[&str], Means)] = &[
    // kafka-topics.sh
    ("topic", &["--create"], Command(&["topic", "create"])),
    ("topic", &["--list"], Command(&["topic", "list"])),
    ("topic", &["--describe"], Command(&["topic", "describe"])),
    ("topic", &["--delete"], Command(&["topic", "delete"])),
    ("topic", &["--alter"], Command(&["topic", "add-partitions"])),
    (
        "topic",
        &["--if-exists"],
        Says(
            "a topic that does not exist is exit code 3, and nothing is changed: there is no --if-exists",
        ),
    ),
    (
        "topic",
        &["--replica-assignment"],
        Says(
            "create the topic, then place its replicas: varve cluster reassign TOPIC --to NODE,...",
        ),
    ),
    // kafka-configs.sh
    ("topic config", &["--add-config"], Value(&["--set", "{}"])),
    (
        "topic config",
        &["--delete-config"],
        Value(&["--delete", "{}"]),
    ),
    ("topic config", &["--alter", "--describe"], Nothing),
    ("topic config", &["--entity-name"], Value(&["{}"])),
    ("topic config", &["--entity-type"], Value(&[])),
    ("topic", &["--topic", "-t"], Value(&["{}"])),
    // kafka-consumer-groups.sh
    ("group", &["--list"], Command(&["group", "list"])),
    ("group", &["--describe"], Command(&["group", "describe"])),
    ("group", &["--delete"], Command(&["group", "delete"])),
    ("group", &["--reset-offsets"], Command(&["group", "seek"])),
    (
        "group",
        &["--delete-offsets"],
        Command(&["group", "offset-delete"]),
    ),
    ("group seek", &["--to-earliest"], Flags(&["--to", "start"])),
    ("group seek", &["--to-latest"], Flags(&["--to", "end"])),
    ("group seek", &["--to-offset"], Value(&["--to", "{}"])),
    ("group seek", &["--to-datetime"], Value(&["--to", "@{}"])),
    ("group seek", &["--from-file"], Value(&["--to-file", "{}"])),
    ("group seek", &["--topic"], Value(&["--topics", "{}"])),
    ("group seek", &["--all-topics"], Nothing),
    (
        "group seek",
        &["--by-duration"],
        Says("to go back by a time: varve group seek GROUP --to @-1h"),
    ),
    (
        "group describe",
        &["--members", "--offsets", "--verbose"],
        Nothing,
    ),
    ("group describe", &["--state"], Flags(&["--summary"])),
    (
        "group",
        &["--all-groups"],
        Says("varve group list shows all groups; the other commands take their names"),
    ),
    ("group", &["--group", "-g"], Value(&["{}"])),
    // kafka-console-consumer.sh
    (
        "consume",
        &["--whitelist", "--include"],
        Value(&["--regex", "{}"]),
    ),
    (
        "consume",
        &["--isolation-level"],
        Value(&["--isolation", "{}"]),
    ),
    (
        "consume",
        &["--formatter", "--key-deserializer", "--value-deserializer"],
        Says("-f FORMAT prints records in a form of your own, and -J as JSON"),
    ),
    (
        "consume",
        &[
            "--consumer-property",
            "--consumer.config",
            "--command-config",
        ],
        Says("client settings are -X KEY=VALUE (varve -X list prints them) or a file with -F FILE"),
    ),
    // kafka-console-producer.sh
    (
        "produce",
        &["--request-required-acks"],
        Value(&["--acks", "{}"]),
    ),
    (
        "produce",
        &["--compression-codec"],
        Value(&["--compression", "{}"]),
    ),
    ("produce", &["--sync"], Nothing),
    (
        "produce",
        &[
            "--producer-property",
            "--producer.config",
            "--command-config",
        ],
        Says("client settings are -X KEY=VALUE (varve -X list prints them) or a file with -F FILE"),
    ),
    ("produce", &["--property", "--reader-property"], Property),
    ("consume", &["--property", "--formatter-property"], Property),
    // kcat
    (
        "",
        &["-Q"],
        Says("to look up offsets: varve topic offsets TOPIC --at @TIME"),
    ),
    (
        "",
        &["-M"],
        Says("to run a node for trying things out: varve server --dev"),
    ),
    // All of them.
    ("", &["--json"], Flags(&["--output", "json"])),
    ("", &["--format"], Output),
    (
        "",
        &["--broker-list", "--servers"],
        Value(&["--brokers", "{}"]),
    ),
    ("", &["-s"], Value(&["--brokers", "{}"])),
    ("", &["--tlsca"], Value(&["--tls-ca", "{}"])),
    ("", &["--tlscert"], Value(&["--tls-cert", "{}"])),
    ("", &["--tlskey"], Value(&["--tls-key", "{}"])),
    ("", &["--no-confirm"], Flags(&["--yes"])),
    (
        "",
        &["--zookeeper"],
        Says("there is no ZooKeeper; -b HOST:PORT names a node of the cluster"),
    ),
    (
        "",
        &["--command-config"],
        Says("client settings are -X KEY=VALUE (varve -X list prints them) or a file with -F FILE"),
    ),
];

/// Commands that destroy something: no tip leads to them.
pub const DESTRUCTIVE: &[&str] = &[
    "abort",
    "decommission",
    "delete",
    "finalize",
    "offset-delete",
    "remove-member",
    "repair",
    "rm",
    "trim",
];

/// What a property of Kafka's console tools is here.
#[must_use]
pub fn property(command: &str, value: &str) -> String {
    let (name, setting) = value.split_once('=').unwrap_or((value, ""));
    let here = match (command, name) {
        ("produce", "parse.key") => "-K TEXT splits key from value, such as -K :".to_owned(),
        ("produce", "parse.headers") => {
            "-H NAME=VALUE adds a header; -J reads records with headers".to_owned()
        }
        ("produce", "ignore.error" | "null.marker") => {
            "-Z sends null for an empty value".to_owned()
        }
        ("consume", "print.key") => {
            "-K TEXT prints the key before the value, such as -K '\\t'".to_owned()
        }
        ("consume", "print.timestamp") => "use a format with %T, such as -f '%T %v\\n'".to_owned(),
        ("consume", "print.partition") => "use a format with %p, such as -f '%p %v\\n'".to_owned(),
        ("consume", "print.headers") => "use a format with %h, such as -f '%h %v\\n'".to_owned(),
        ("consume", "print.offset") => "-O prints the offset before the record".to_owned(),
        ("consume", "print.value") => "--meta-only leaves the value out".to_owned(),
        ("consume", "null.literal") => "-Z TEXT prints TEXT for null".to_owned(),
        ("consume", "line.separator") => "-D TEXT ends a record".to_owned(),
        (_, "key.separator") => format!("-K '{setting}' names the separator of key and value"),
        _ => format!("varve {command} -h lists the flags"),
    };
    format!("varve {command} has no --property {name}: {here}")
}
