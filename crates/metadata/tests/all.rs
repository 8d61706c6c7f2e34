//! The metadata core: commands, the controller, invariants under random commands, transcripts. One binary for all of
//! it: each module is a suite.

mod commands;
mod controller;
mod invariants;
mod state;
mod support;
mod transcripts;
