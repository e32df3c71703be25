//! Arbitrary packets for an engine with rules and names.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gh_net_tests::fuzzing::policy(data));
