//! Reassembly of fragmented datagrams (RFC 791 3.2, RFC 8200 4.5), within bounds.
//!
//! Fragments reach the engine from containers behind the codespace, whose links are narrower than the TUN.
//! etherparse's buffer puts one datagram together; this table bounds how many, how large and how long.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etherparse::IpNumber;
use etherparse::defrag::IpDefragBuf;
use gh_net_common::link::MAX_FRAGMENTED;

use super::{Fragment, Packet};

/// How long the parts of a datagram wait for the rest. RFC 8200 says 60 s, Linux 30 s; the link neither loses nor
/// reorders, so less is enough.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Incomplete datagrams at once. Each holds up to 64 KiB, and its first fragment once more.
const MAX_DATAGRAMS: usize = 64;

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    protocol: IpNumber,
    identification: u32,
}

#[derive(Debug)]
struct Partial {
    key: Key,
    since: Instant,
    buffer: IpDefragBuf,
    /// The packet of the first fragment, the only one that ICMP errors may quote.
    first: Option<Bytes>,
}

/// Incomplete datagrams, oldest first.
#[derive(Debug)]
pub(crate) struct Reassembly {
    most: usize,
    /// Datagrams that made room for others.
    dropped: u64,
    partials: VecDeque<Partial>,
}

impl Reassembly {
    /// As many as take a thirty-second of `memory`, at most [`MAX_DATAGRAMS`]; at least those that the sidecar has cut, and as
    /// many others.
    pub(crate) fn new(memory: usize) -> Self {
        let most = MAX_DATAGRAMS.min(memory / 32 / (128 * 1024)).max(2 * MAX_FRAGMENTED);
        Self { most, dropped: 0, partials: VecDeque::new() }
    }

    /// How many datagrams made room for others.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a fragment; returns the whole datagram if no other part is missing. A datagram whose parts contradict
    /// each other or overlap is dropped (RFC 5722).
    pub(crate) fn add(&mut self, packet: Packet, fragment: Fragment, now: Instant) -> Option<Packet> {
        self.expire(now);
        let key = Key {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            identification: fragment.identification,
        };
        let at = self.partials.iter().position(|partial| partial.key == key).unwrap_or_else(|| {
            if self.partials.len() == self.most {
                self.partials.pop_front();
                self.dropped += 1;
            }
            let buffer = IpDefragBuf::new(key.protocol, Vec::new(), Vec::new());
            self.partials.push_back(Partial { key, since: now, buffer, first: None });
            self.partials.len() - 1
        });
        let partial = &mut self.partials[at];
        let start = usize::from(fragment.offset.byte_offset());
        let end = start + packet.payload.len();
        let known = partial.buffer.sections();
        let overlaps = known.iter().any(|it| start < it.end.into() && usize::from(it.start) < end);
        if overlaps || partial.buffer.add(fragment.offset, fragment.more, &packet.payload).is_err() {
            self.partials.remove(at);
            return None;
        }
        if fragment.offset.value() == 0 {
            // A slice would pin the whole buffer of the link.
            partial.first = Some(Bytes::copy_from_slice(&packet.whole));
        }
        if !partial.buffer.is_complete() {
            return None;
        }
        let Partial { buffer, first, .. } = self.partials.remove(at)?;
        let payload = buffer.take_bufs().0.into();
        Some(Packet { payload, fragment: None, whole: first.unwrap_or_default(), ..packet })
    }

    fn expire(&mut self, now: Instant) {
        let old = |partial: &Partial| now.saturating_duration_since(partial.since) >= TIMEOUT;
        while self.partials.front().is_some_and(old) {
            self.partials.pop_front();
        }
    }
}
