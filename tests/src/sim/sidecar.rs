//! The sidecar without a link: it keeps one packet of each connection, and sends these first on the next link.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use etherparse::{IpSlice, TcpSlice};

/// A packet that waits for the link.
#[derive(Debug)]
struct Kept {
    since: Duration,
    /// Whether it is more than an acknowledgment, and so will be sent again until it is acknowledged.
    occupies: bool,
    packet: Bytes,
}

/// The packets that wait for the link, one of each connection.
#[derive(Debug, Default)]
pub struct Sidecar(BTreeMap<(SocketAddr, SocketAddr), Kept>);

impl Sidecar {
    /// The codespace sends a packet that can't leave.
    ///
    /// The first packet of the latest retransmission is kept. Linux sends one packet at a time; smoltcp sends all that
    /// the window allows at the same instant, and only the first of them is what the other side waits for.
    pub fn keep(&mut self, packet: Bytes, now: Duration) {
        let ip = IpSlice::from_slice(&packet).expect("smoltcp's packets parse");
        let tcp = TcpSlice::from_slice(ip.payload().payload).expect("smoltcp's segments parse");
        let ends = (
            SocketAddr::new(ip.source_addr(), tcp.source_port()),
            SocketAddr::new(ip.destination_addr(), tcp.destination_port()),
        );
        let occupies = !tcp.payload().is_empty() || tcp.syn() || tcp.fin();
        let replaces = match self.0.get(&ends) {
            None => true,
            Some(kept) => tcp.rst() || !kept.occupies || (occupies && kept.since < now),
        };
        if replaces {
            self.0.insert(ends, Kept { since: now, occupies, packet });
        }
    }

    /// The link is back: the packets to send first.
    pub fn resume(&mut self) -> impl Iterator<Item = Bytes> {
        std::mem::take(&mut self.0).into_values().map(|kept| kept.packet)
    }
}
