//! DNS messages to the laptop's resolver.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gh_net_tests::fuzzing::resolver(data));
