//! What `docs/kafka.md` says of APIs and versions is what is served. `VARVE_BLESS=1 cargo test -p varve-frontend-kafka
//! --test docs` writes the table anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use varve_frontend_kafka::served::table;

const BEGIN: &str =
    "<!-- what is served: made from the code, see crates/frontend-kafka/src/served.rs -->\n";
const END: &str = "<!-- end of what is served -->\n";

#[test]
fn the_document_lists_what_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kafka.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the table's beginning");
    let (found, after) = rest.split_once(END).expect("the table's end");
    let wanted = format!("\n{}\n", table());
    if found == wanted {
        return;
    }
    if std::env::var_os("VARVE_BLESS").is_some() {
        return std::fs::write(&path, [before, BEGIN, &wanted, END, after].concat()).unwrap();
    }
    panic!(
        "the table of docs/kafka.md is not what is served; VARVE_BLESS=1 writes it anew, or put this between its marks:\n\
         {wanted}"
    );
}
