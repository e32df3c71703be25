//! Arbitrary packets for the engine: parsing, extension headers, fragments, the errors it answers with.

use std::time::Duration;

use gh_net_testkit::build::repair;

use super::Input;
use super::laptop::Laptop;

/// Each packet is led by a byte of flags (1: set its checksums right; the rest: time that passes before it)
/// and its length.
pub fn packet(data: &[u8]) {
    let mut input = Input(data);
    let mut laptop = Laptop::new();
    while !input.is_empty() {
        let flags = input.u8();
        let length = input.u16().into();
        let mut packet = input.bytes(length).to_vec();
        if flags & 1 != 0 {
            repair(&mut packet);
        }
        laptop.pass(Duration::from_millis(u64::from(flags >> 1) * 100));
        laptop.packet(packet);
        while laptop.transmit().is_some() {}
    }
    laptop.end();
}
