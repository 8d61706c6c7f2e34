//! An empty stand-in for the crate `chrono-tz`; `[patch.crates-io]` in the workspace's `Cargo.toml` puts it in its
//! place.
//!
//! `openraft` depends on `display-more`, which names `chrono-tz` as a dependency and uses nothing of it. The real crate
//! brings tables of all time zones and, to generate them, a second build of a regular expression engine. Nothing here
//! may ever be used: a build fails when `display-more` starts to, and this crate can then go.
