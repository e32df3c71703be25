use etherparse::checksum::Sum16BitWords;
use etherparse::defrag::IpDefragBuf;
use etherparse::{IpNumber, IpSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

const V4: ([u8; 4], [u8; 4]) = ([198, 19, 240, 1], [10, 20, 0, 10]);
const V6: ([u8; 16], [u8; 16]) = ([0xfd; 16], [0xfe; 16]);

/// A TCP segment with a timestamp option and these flags, as etherparse builds it.
fn segment(v6: bool, flags: u8, sequence: u32, payload: &[u8]) -> Bytes {
    let tcp = |step: etherparse::PacketBuilderStep<etherparse::IpHeaders>| {
        let timestamps = [etherparse::TcpOptionElement::Timestamp(7, 9)];
        let mut step = step.tcp(5000, 80, sequence, 1000).ack(77).options(&timestamps).unwrap();
        for (bit, set) in [(0x01, 0), (0x02, 1), (0x04, 2), (0x08, 3), (0x20, 4), (0x80, 5)] {
            step = match (flags & bit != 0, set) {
                (false, _) => step,
                (true, 0) => step.fin(),
                (true, 1) => step.syn(),
                (true, 2) => step.rst(),
                (true, 3) => step.psh(),
                (true, 4) => step.urg(3),
                (true, _) => step.cwr(),
            };
        }
        let mut packet = Vec::new();
        step.write(&mut packet, payload).unwrap();
        packet.into()
    };
    tcp(if v6 { PacketBuilder::ipv6(V6.0, V6.1, 64) } else { PacketBuilder::ipv4(V4.0, V4.1, 64) })
}

fn datagram(v6: bool, payload: &[u8]) -> Bytes {
    let step = if v6 { PacketBuilder::ipv6(V6.0, V6.1, 64) } else { PacketBuilder::ipv4(V4.0, V4.1, 64) };
    let mut packet = Vec::new();
    step.udp(5000, 9000).write(&mut packet, payload).unwrap();
    packet.into()
}

/// The packets that `packet` is sent as.
fn sent(cutter: &mut Cutter, packet: &Bytes) -> Vec<Bytes> {
    let mut waiting = Waiting::new(packet.clone());
    let mut pieces = Vec::new();
    loop {
        let (piece, is_last) = waiting.next(cutter);
        assert_eq!(piece.len(), piece.headers.len() + piece.payload.len());
        pieces.push([&piece.headers[..], &piece.payload].concat().into());
        if is_last {
            return pieces;
        }
    }
}

fn cutter(largest: usize) -> Cutter {
    Cutter { largest, ..Cutter::new(7) }
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// Asserts that an independent parser finds nothing wrong with this packet.
fn assert_valid(packet: &[u8]) {
    let ip = IpSlice::from_slice(packet).unwrap();
    if let IpSlice::Ipv4(v4) = &ip {
        let header = v4.header();
        assert_eq!(usize::from(header.total_len()), packet.len());
        assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
    }
    let SlicedPacket { net: Some(net), transport, .. } = SlicedPacket::from_ip(packet).unwrap() else {
        panic!("no IP")
    };
    let Some(TransportSlice::Tcp(tcp)) = transport else { return };
    let expected = match &net {
        NetSlice::Ipv4(v4) => tcp.calc_checksum_ipv4(v4.header().source(), v4.header().destination()),
        NetSlice::Ipv6(v6) => tcp.calc_checksum_ipv6(v6.header().source(), v6.header().destination()),
        NetSlice::Arp(_) => panic!("ARP"),
    };
    assert_eq!(tcp.checksum(), expected.unwrap());
}

proptest! {
    #[test]
    fn segments_say_what_the_whole_one_said(
        v6 in any::<bool>(),
        length in 1usize..60_000,
        largest in 1280usize..20_000,
        sequence in any::<u32>(),
        flags in prop::sample::subsequence(vec![0x01u8, 0x08, 0x80], 0..=3),
    ) {
        let flags = flags.into_iter().fold(0, |all, flag| all | flag);
        let data = payload(length);
        let whole = segment(v6, flags, sequence, &data);
        let pieces = sent(&mut cutter(largest), &whole);
        prop_assert!(whole.len() > largest || pieces == [whole.clone()]);
        let mut next = sequence;
        let mut received = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            prop_assert!(piece.len() <= largest);
            assert_valid(piece);
            let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ip(piece).unwrap().transport else { panic!() };
            let (is_first, is_last) = (at == 0, at + 1 == pieces.len());
            prop_assert_eq!(tcp.sequence_number(), next);
            prop_assert_eq!((tcp.ack(), tcp.acknowledgment_number(), tcp.window_size()), (true, 77, 1000));
            prop_assert_eq!(tcp.fin(), is_last && flags & 0x01 != 0);
            prop_assert_eq!(tcp.psh(), is_last && flags & 0x08 != 0);
            prop_assert_eq!(tcp.cwr(), is_first && flags & 0x80 != 0);
            prop_assert_eq!(tcp.options().len(), 12);
            next = next.wrapping_add(tcp.payload().len() as u32);
            received.extend_from_slice(tcp.payload());
        }
        prop_assert_eq!(received, data);
    }

    #[test]
    fn fragments_reassemble_to_the_datagram(
        v6 in any::<bool>(), length in 0usize..60_000, largest in 1280usize..20_000,
    ) {
        let whole = datagram(v6, &payload(length));
        let pieces = sent(&mut cutter(largest), &whole);
        if whole.len() / 2 <= largest {
            prop_assert_eq!(pieces, [whole]);
            return Ok(());
        }
        let mut buffer = IpDefragBuf::new(IpNumber::UDP, Vec::new(), Vec::new());
        for piece in &pieces {
            prop_assert!(piece.len() <= largest);
            assert_valid(piece);
            let ip = IpSlice::from_slice(piece).unwrap();
            prop_assert_eq!(ip.payload_ip_number(), IpNumber::UDP);
            let (offset, more) = match &ip {
                IpSlice::Ipv4(v4) => (v4.header().fragments_offset(), v4.header().more_fragments()),
                IpSlice::Ipv6(v6) => {
                    let Some(etherparse::Ipv6ExtensionSlice::Fragment(it)) = v6.extensions().clone().into_iter().next()
                        else { panic!("no fragment") };
                    (it.fragment_offset(), it.more_fragments())
                }
            };
            buffer.add(offset, more, ip.payload().payload).unwrap();
        }
        prop_assert!(buffer.is_complete());
        let header = if v6 { 40 } else { 20 };
        prop_assert_eq!(&buffer.take_bufs().0[..], &whole[header..]);
    }

    #[test]
    fn nothing_that_is_no_packet_breaks_it(
        bytes in prop::collection::vec(any::<u8>(), 0..3000), version in 4u8..7, protocol in any::<bool>(),
    ) {
        let mut bytes = bytes;
        let length = bytes.len();
        if let Some(header) = bytes.first_chunk_mut::<20>() {
            header[0] = version << 4 | (header[0] & 0xf);
            let length = if version == 4 { length } else { length.saturating_sub(40) } as u16;
            header[if version == 4 { 2 } else { 4 }..][..2].copy_from_slice(&length.to_be_bytes());
            header[if version == 4 { 9 } else { 6 }] = if protocol { TCP } else { UDP };
        }
        prop_assert!(!sent(&mut cutter(1280), &bytes.into()).is_empty());
    }
}

#[test]
fn what_would_change_its_meaning_goes_whole() {
    let data = payload(5000);
    for flags in [0x02, 0x04, 0x20] {
        let whole = segment(false, flags, 1, &data);
        assert_eq!(sent(&mut cutter(1280), &whole), [whole]);
    }
    // Pieces of a damaged segment would have correct checksums.
    let mut damaged = segment(false, 0, 1, &data).to_vec();
    damaged[3000] ^= 1;
    let damaged = Bytes::from(damaged);
    assert_eq!(sent(&mut cutter(1280), &damaged), [damaged]);
    // A fragment of a segment has no header of its own.
    let mut fragment = segment(false, 0, 1, &data).to_vec();
    fragment[6] = 0x20;
    let sum = Sum16BitWords::new().add_slice(&fragment[..10]).add_slice(&fragment[12..20]).ones_complement();
    fragment[10..12].copy_from_slice(&sum.to_ne_bytes());
    let fragment = Bytes::from(fragment);
    assert_eq!(sent(&mut cutter(1280), &fragment), [fragment]);
}

#[test]
fn few_datagrams_are_fragmented_at_once() {
    let mut cutter = cutter(1280);
    let whole = datagram(false, &payload(5000));
    let mut begun: Vec<_> = (0..MAX_FRAGMENTED).map(|_| Waiting::new(whole.clone())).collect();
    assert!(begun.iter_mut().all(|it| !it.next(&mut cutter).1));
    assert_eq!(sent(&mut cutter, &whole).len(), 1);
    begun.pop();
    assert!(sent(&mut cutter, &whole).len() > 1);
}
