//! Arbitrary bytes, in arbitrary pieces, for the decoder of frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gh_net_tests::fuzzing::frame(data));
