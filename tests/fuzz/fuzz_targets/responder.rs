//! DNS messages to the sidecar's responder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gh_net_tests::fuzzing::responder(data));
