//! Drives the engine in tests: with a clock that they advance, and with every packet verified.

use std::time::{Duration, Instant};

use bytes::Bytes;
use gh_net_engine::{Engine, Headers, Transmit};

use crate::packet::Packet;

/// Maximum number of wake-ups in one call of [`pass`]; more mean that the engine loops.
const MAX_WAKEUPS: u32 = 10_000;

/// The next packet for the codespace, verified, and its length.
pub fn transmit(engine: &mut Engine, bulk: bool, now: Instant) -> Option<(Packet, usize)> {
    let packet = engine.poll_transmit(bulk, now)?;
    assert!(packet.headers.as_slice().len() <= Headers::MAX);
    Some((Packet::verified(&flatten(&packet)), packet.len()))
}

/// Advances the clock by `time`, with all timeouts that are due until then.
pub fn pass(engine: &mut Engine, now: &mut Instant, time: Duration) {
    let end = *now + time;
    let mut wakeups = 0;
    while let Some(at) = engine.poll_timeout().filter(|at| *at <= end) {
        *now = at.max(*now);
        engine.handle_timeout(*now);
        wakeups += 1;
        assert!(
            wakeups < MAX_WAKEUPS,
            "the engine asks to be woken without end, {:?} before the deadline",
            end - at
        );
    }
    *now = end;
}

/// The bytes of a packet as they are sent over the link.
pub fn flatten(packet: &Transmit) -> Bytes {
    [packet.headers.as_slice(), &packet.payload].concat().into()
}
