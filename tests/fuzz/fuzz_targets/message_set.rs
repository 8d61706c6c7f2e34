//! Fuzz target `message_set`: see `varve_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| varve_tests::fuzz::run("message_set", data));
