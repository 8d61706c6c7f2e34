//! The binary varve: server, producer, consumer and operator's tool.
fn main() {}
