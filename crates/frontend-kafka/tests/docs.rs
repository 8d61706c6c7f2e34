//! What `docs/kafka.md` says of APIs, versions and configs is what the code does. `VARVE_BLESS=1 cargo test -p
//! varve-frontend-kafka --test docs` writes its tables anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use varve_frontend_kafka::{config_table, served};

const SERVED: [&str; 2] = [
    "<!-- what is served: made from the code, see crates/frontend-kafka/src/served.rs -->\n",
    "<!-- end of what is served -->\n",
];
const CONFIGS: [&str; 2] = [
    "<!-- configs: made from the code, see crates/types/src/kafka_configs.rs -->\n",
    "<!-- end of configs -->\n",
];

/// Compares what stands between the marks, or writes it.
fn check([begin, end]: [&str; 2], table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kafka.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(begin).expect("the table's beginning");
    let (found, after) = rest.split_once(end).expect("the table's end");
    let wanted = format!("\n{table}\n");
    if found == wanted {
        return;
    }
    if std::env::var_os("VARVE_BLESS").is_some() {
        return std::fs::write(&path, [before, begin, &wanted, end, after].concat()).unwrap();
    }
    panic!(
        "a table of docs/kafka.md is not what the code says; VARVE_BLESS=1 writes it anew, or put this between its \
         marks:\n{wanted}"
    );
}

#[test]
fn the_document_lists_what_is_served_and_what_becomes_of_every_config() {
    check(SERVED, &served::table());
    check(CONFIGS, &config_table::tables());
}
