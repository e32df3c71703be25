//! The kernel's messages about networks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gh_net_tests::fuzzing::netlink(data));
