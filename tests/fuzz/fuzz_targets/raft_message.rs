//! Fuzz target `raft_message`: see `varve_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| varve_tests::fuzz::run("raft_message", data));
