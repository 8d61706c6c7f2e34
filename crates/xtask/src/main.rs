//! Automation: check, formats, fixtures. Needs nothing of the product.
fn main() {}
