//! Built packets are parsed by our parser and by etherparse, and no input causes a panic.

use std::net::SocketAddr;

use etherparse::{SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::Transmit;

fn flat(packet: &Transmit) -> Bytes {
    [packet.headers.as_slice(), &packet.payload].concat().into()
}

fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = any::<([u8; 4], u16, [u8; 4], u16)>().prop_map(|(a, b, c, d)| ((a, b).into(), (c, d).into()));
    let v6 = any::<([u8; 16], u16, [u8; 16], u16)>().prop_map(|(a, b, c, d)| ((a, b).into(), (c, d).into()));
    prop_oneof![v4, v6]
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..2000).prop_map(Bytes::from)
}

proptest! {
    #[test]
    fn tcp_segments_are_what_they_say(
        (from, to) in ends(),
        (sequence, acknowledgment, window) in any::<(u32, Option<u32>, u16)>(),
        (mss, window_scale) in any::<(Option<u16>, Option<u8>)>(),
        flags in 0u8..16,
        payload in payload(),
    ) {
        let segment = build::Segment { sequence, acknowledgment, flags, window, mss, window_scale };
        let bytes = flat(&build::tcp(from, to, &segment, payload.clone()));
        let packet = Packet::parse(bytes.clone()).unwrap();
        prop_assert_eq!((packet.source, packet.destination), (from.ip(), to.ip()));
        prop_assert_eq!(packet.transport_checksum(), 0);
        prop_assert_eq!(&packet.whole, &bytes);
        let sliced = SlicedPacket::from_ip(&bytes).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        prop_assert_eq!((tcp.source_port(), tcp.destination_port()), (from.port(), to.port()));
        prop_assert_eq!((tcp.sequence_number(), tcp.window_size()), (sequence, window));
        prop_assert_eq!(tcp.ack().then(|| tcp.acknowledgment_number()), acknowledgment);
        let set = [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh()];
        prop_assert_eq!(set, [1, 2, 4, 8].map(|flag| flags & flag != 0));
        prop_assert_eq!(tcp.payload(), &payload[..]);
    }

    #[test]
    fn udp_datagrams_are_what_they_say((from, to) in ends(), id: u16, payload in payload()) {
        let bytes = flat(&build::udp(from, to, id, payload.clone()).unwrap());
        let packet = Packet::parse(bytes.clone()).unwrap();
        prop_assert_eq!(packet.transport_checksum(), 0);
        prop_assert!(packet.fragment.is_none());
        let sliced = SlicedPacket::from_ip(&bytes).unwrap();
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
        prop_assert_eq!((udp.source_port(), udp.destination_port()), (from.port(), to.port()));
        prop_assert_eq!(udp.payload(), &payload[..]);
        prop_assert_ne!(udp.checksum(), 0);
    }

    #[test]
    fn errors_about_anything_fit_any_link(
        (from, to) in ends(),
        payload in prop::collection::vec(any::<u8>(), 0..9000),
    ) {
        let about = Packet::parse(flat(&build::udp(from, to, 1, payload.into()).unwrap())).unwrap();
        if let Some(error) = icmp::about(&about, to.ip(), icmp::Message::Protocol) {
            let bytes = flat(&error);
            let most = if from.is_ipv4() { 576 } else { 1280 };
            prop_assert!(bytes.len() <= most);
            let error = Packet::parse(bytes).unwrap();
            prop_assert_eq!((error.source, error.destination), (to.ip(), from.ip()));
            prop_assert!(about.whole.starts_with(&error.payload[8..]));
        }
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), v6: bool, protocol: u8) {
        let mut bytes = bytes;
        // Most random bytes are not IP; set the version so that some are.
        if bytes.len() >= 40 {
            bytes[0] = if v6 { 0x60 } else { 0x45 | (bytes[0] & 3) };
            bytes[if v6 { 6 } else { 9 }] = protocol;
            let length = (bytes.len() - if v6 { 40 } else { 0 }) as u16;
            bytes[if v6 { 4 } else { 2 }..][..2].copy_from_slice(&length.to_be_bytes());
        }
        let whole = Bytes::from(bytes);
        if let Ok(packet) = Packet::parse(whole.clone()) {
            prop_assert!(whole.starts_with(&packet.whole));
            prop_assert!(packet.payload.len() < packet.whole.len());
        }
    }
}

#[test]
fn what_fits_no_packet_is_not_built() {
    let (v4, v6) =
        (SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], 1)));
    let zeros = Bytes::from(vec![0; 70_000]);
    for (end, most) in [(v4, 65_507), (v6, 65_527)] {
        assert!(build::udp(end, end, 0, zeros.slice(..most)).is_some());
        assert!(build::udp(end, end, 0, zeros.slice(..most + 1)).is_none());
        assert!(build::icmp(end.ip(), end.ip(), 0, [0; 8], zeros.slice(..most)).is_some());
        assert!(build::icmp(end.ip(), end.ip(), 0, [0; 8], zeros.slice(..most + 1)).is_none());
    }
    assert!(build::icmp(v4.ip(), v6.ip(), 0, [0; 8], Bytes::new()).is_none());
}
