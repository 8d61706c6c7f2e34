//! The tables of `docs/kafka.md` with every config that Kafka knows and what becomes of it here. A test compares them
//! with the page.

use std::fmt::Write as _;

use varve_types::config::KEYS;
use varve_types::kafka_configs::{Fate, KafkaConfig, Scope};

/// What becomes of a config, for people.
fn here(config: &KafkaConfig) -> String {
    match config.fate {
        Fate::Obeyed(ours) if ours == config.name => match default_of_ours(config) {
            Some(default) => format!("obeyed; the default is `{default}`"),
            None => "obeyed".to_owned(),
        },
        Fate::Obeyed(ours) => format!("obeyed, as `{}`", ours.replace(" and ", "` and `")),
        Fate::Kept => "kept and shown".to_owned(),
        Fate::KeptAt(only, reason) => {
            format!("kept and shown as `{only}`; refused otherwise: {reason}")
        }
        Fate::Node(key) => format!("set `{key}` in the node's file"),
        Fate::Refused(reason) => format!("refused: {reason}"),
    }
}

/// The default here, where it is another than Kafka's.
fn default_of_ours(config: &KafkaConfig) -> Option<&'static str> {
    let ours = KEYS.iter().find(|key| key.name == config.name)?.default;
    (config.default != Some(ours)).then_some(ours)
}

/// The table of a scope, ordered by name.
#[must_use]
pub fn table(scope: Scope) -> String {
    let mut text =
        String::from("| config | type | Kafka's default | here |\n| --- | --- | --- | --- |\n");
    for config in scope.configs() {
        let default = match config.default {
            None | Some("") => "–".to_owned(),
            Some(default) => format!("`{default}`"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {} |",
            config.name,
            config.kind.name(),
            here(&config)
        );
    }
    text
}

/// All of them, under headings.
#[must_use]
pub fn tables() -> String {
    let parts = [
        ("Topics", Scope::Topic),
        ("Groups", Scope::Group),
        ("Client metrics", Scope::ClientMetrics),
        ("Brokers", Scope::Broker),
    ];
    let parts = parts.map(|(heading, scope)| format!("### {heading}\n\n{}", table(scope)));
    parts.join("\n")
}
