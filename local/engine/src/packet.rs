//! IP packets: parsed once, into [`Packet`], and built in [`build`].
//!
//! etherparse does the parsing. What it accepts is consistent: every slice lies within the packet, and the length
//! fields agree with the bytes that are there. Nothing here can panic on any input.

pub(crate) mod build;
pub(crate) mod icmp;
pub(crate) mod reassembly;

use std::net::IpAddr;

use bytes::Bytes;
use etherparse::{IpFragOffset, IpNumber, IpSlice, Ipv6ExtensionSlice};
use gh_net_common::checksum;

/// One IP packet, its payload (behind all extension headers) sliced out of it without a copy.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// The payload's protocol.
    pub protocol: IpNumber,
    /// TTL or hop limit as it arrived.
    pub hop_limit: u8,
    /// Its place in the datagram, if it is a fragment.
    pub fragment: Option<Fragment>,
    /// What follows the IP headers.
    pub payload: Bytes,
    /// The whole packet, for quoting in ICMP errors.
    pub whole: Bytes,
}

/// A fragment's place in its datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fragment {
    /// Which datagram.
    pub identification: u32,
    /// Its offset.
    pub offset: IpFragOffset,
    /// Whether more follows.
    pub more: bool,
}

/// Why a packet is dropped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// The IP headers are broken, or longer than the packet.
    #[error("broken IP headers")]
    Ip,
    /// The IPv4 header's checksum is wrong.
    #[error("wrong IPv4 header checksum")]
    HeaderChecksum,
    /// The transport header is broken, or longer than the payload.
    #[error("broken transport header")]
    Transport,
    /// The transport checksum is wrong.
    #[error("wrong transport checksum")]
    Checksum,
}

impl Packet {
    /// Parses a packet. Bytes after the length that the header announces are cut off.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        match IpSlice::from_slice(&bytes).map_err(|_| Malformed::Ip)? {
            IpSlice::Ipv4(ip) => {
                let header = ip.header();
                if checksum::of(header.slice()) != 0 {
                    return Err(Malformed::HeaderChecksum);
                }
                let fragment = header.is_fragmenting_payload().then(|| Fragment {
                    identification: header.identification().into(),
                    offset: header.fragments_offset(),
                    more: header.more_fragments(),
                });
                Ok(Self {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    protocol: ip.payload().ip_number,
                    hop_limit: header.ttl(),
                    fragment,
                    payload: bytes.slice_ref(ip.payload().payload),
                    whole: bytes.slice(..usize::from(header.total_len())),
                })
            }
            IpSlice::Ipv6(ip) => {
                let header = ip.header();
                let fragment = ip.extensions().clone().into_iter().find_map(|extension| match extension {
                    Ipv6ExtensionSlice::Fragment(fragment) if fragment.is_fragmenting_payload() => {
                        Some(Fragment {
                            identification: fragment.identification(),
                            offset: fragment.fragment_offset(),
                            more: fragment.more_fragments(),
                        })
                    }
                    Ipv6ExtensionSlice::Fragment(_)
                    | Ipv6ExtensionSlice::HopByHop(_)
                    | Ipv6ExtensionSlice::Routing(_)
                    | Ipv6ExtensionSlice::DestinationOptions(_)
                    | Ipv6ExtensionSlice::Authentication(_) => None,
                });
                let payload = ip.payload().payload;
                let end = end_of(&bytes, payload);
                Ok(Self {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    protocol: ip.payload().ip_number,
                    hop_limit: header.hop_limit(),
                    fragment,
                    payload: bytes.slice_ref(payload),
                    whole: bytes.slice(..end),
                })
            }
        }
    }

    /// The transport checksum over pseudo-header and payload: 0 if it is right.
    pub(crate) fn transport_checksum(&self) -> u16 {
        let length = self.payload.len();
        let pseudo = checksum::pseudo_header(self.source, self.destination, self.protocol.0, length);
        checksum::finish(pseudo + checksum::sum(&self.payload))
    }
}

/// Where in `whole` its part ends. The part must be a plain slice: an empty `Bytes` has no place.
fn end_of(whole: &[u8], part: &[u8]) -> usize {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    (start + part.len()).min(whole.len())
}

#[cfg(test)]
mod tests;
