//! How tests drive the engine: with a clock that they move, looking at every packet.

use std::time::{Duration, Instant};

use bytes::Bytes;
use gh_net_engine::{Engine, Headers, Transmit};

use crate::packet::Packet;

/// Wake-ups within one span of time, beyond which the engine is taken to be caught in a loop.
const MAX_WAKEUPS: u32 = 10_000;

/// The next packet for the codespace, verified, and its length.
pub fn transmit(engine: &mut Engine, bulk: bool, now: Instant) -> Option<(Packet, usize)> {
    let packet = engine.poll_transmit(bulk, now)?;
    assert!(packet.headers.as_slice().len() <= Headers::MAX);
    Some((Packet::verified(&flatten(&packet)), packet.len()))
}

/// Time passes, with all that is due in it.
pub fn pass(engine: &mut Engine, now: &mut Instant, time: Duration) {
    let end = *now + time;
    let mut wakeups = 0;
    while let Some(at) = engine.poll_timeout().filter(|at| *at <= end) {
        *now = at.max(*now);
        engine.handle_timeout(*now);
        wakeups += 1;
        assert!(
            wakeups < MAX_WAKEUPS,
            "the engine wants to be woken for ever, {:?} before the end",
            end - at
        );
    }
    *now = end;
}

/// The bytes of a packet as they go over the link.
pub fn flatten(packet: &Transmit) -> Bytes {
    [packet.headers.as_slice(), &packet.payload].concat().into()
}
