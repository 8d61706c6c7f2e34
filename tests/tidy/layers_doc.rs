//! The table of crates in `docs/architecture.md` says what `layers.rs` says: the same crates, layers and sentences, in
//! order of layers. `VARVE_BLESS=1 cargo test -p varve-tests --test tidy` writes the table anew.

use crate::layers::{LAYERS, Row};
use crate::root;

const PAGE: &str = "docs/architecture.md";
const BEGIN: &str = "<!-- crates: made from tests/tidy/layers.rs -->\n";
const END: &str = "<!-- end of crates -->\n";

/// Crates in order of layers, those that are no part of the product last.
fn by_layer() -> Vec<&'static Row> {
    let mut rows: Vec<&Row> = LAYERS.iter().collect();
    rows.sort_by_key(|row| row.layer.unwrap_or(u8::MAX));
    rows
}

/// A link to the document of the crate's file formats, if it has one.
fn format_link(row: &Row) -> String {
    let path = format!("crates/{}/FORMAT.md", row.name);
    if root().join(&path).exists() {
        format!("[format](../{path})")
    } else {
        String::new()
    }
}

/// The table as the page must have it.
fn table() -> String {
    let mut table =
        "| layer | crate | what it is | bytes |\n| --- | --- | --- | --- |\n".to_owned();
    for row in by_layer() {
        let layer = row.layer.map_or("–".to_owned(), |layer| layer.to_string());
        let (name, sentence, link) = (row.name, row.sentence, format_link(row));
        table += &format!("| {layer} | `{name}` | {sentence} | {link} |\n");
    }
    table
}

#[test]
fn the_architecture_page_lists_the_crates() {
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the table's beginning");
    let (found, after) = rest.split_once(END).expect("the table's end");
    let wanted = format!("\n{}\n", table());
    if found != wanted && std::env::var_os("VARVE_BLESS").is_some() {
        let page = [before, BEGIN, &wanted, END, after].concat();
        return std::fs::write(&path, page).unwrap();
    }
    assert_eq!(
        found, wanted,
        "the table of crates in {PAGE} differs from tests/tidy/layers.rs; VARVE_BLESS=1 writes it anew"
    );
}

#[test]
fn a_crate_of_the_product_has_a_sentence_of_its_own() {
    let mut sentences: Vec<&str> = LAYERS.iter().map(|row| row.sentence).collect();
    sentences.sort_unstable();
    sentences.dedup();
    assert_eq!(sentences.len(), LAYERS.len(), "two crates share a sentence");
    assert!(sentences.iter().all(|sentence| !sentence.ends_with('.')));
}
