//! Requests to the sidecar's owner.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gh_net_tests::fuzzing::handover(data));
