//! Fuzz target `kafka_requests`: see `varve_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| varve_tests::fuzz::run("kafka_requests", data));
