//! The Kafka protocol as an adapter: so far its wire codec, [`wire`], which knows bytes and nothing else.

pub mod wire;
