//! A node as a library: configuration, data directory, wiring, lifecycle, telemetry. The binary in `cli` runs
//! [`run()`]; the demo, the tests and the benches run [`embedded`].
//!
//! Invariants: configuration is parsed once and passed by value; one process per data directory; the clean
//! shutdown mark is removed before anything is served and written only after everything is on disk. No
//! decision about records is made here.

mod cluster;
pub mod config;
pub mod datadir;
pub mod embedded;
pub mod exposition;
pub mod health;
pub mod http;
pub mod identity;
mod kafka;
mod limits;
pub mod machine;
pub mod metrics;
pub mod node;
pub mod notify;
pub mod run;
pub mod telemetry;

pub use config::Config;
pub use machine::Machine;
pub use node::Node;
pub use run::run;

/// Semantic version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit of this build, 12 digits; empty for a debug build and where it is not known.
pub const REVISION: &str = env!("VARVE_BUILD_REVISION");

/// Version and commit in one line, as people are shown it.
pub const VERSION_LINE: &str = env!("VARVE_BUILD_VERSION");
