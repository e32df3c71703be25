//! The text of resolv.conf.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gh_net_tests::fuzzing::resolv(data));
