//! Configuration of a node: built-in defaults, then what `--dev` stands for, then a TOML file, then the environment,
//! then flags. Every key is in one table ([`keys::KEYS`]); an unknown key or variable is an error that names the
//! nearest known one.
//!
//! [`Settings`] are the strings with their sources; [`Config`] is what they mean, without options left.

mod kafka;
pub mod keys;
mod resolve;
pub mod settings;

pub use kafka::Kafka;
pub(crate) use resolve::advertised;
pub use resolve::{Config, LogFormat, Members, PeerTls};
pub use settings::{ConfigError, Settings, Source};
