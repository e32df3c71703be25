use super::*;

/// An echo reply in IPv4 as a raw socket reads it.
fn raw_reply(identifier: u16, options: usize) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0, 0, 0, 9, b'h', b'i', b'!'];
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0; 20 + options];
    packet[0] = 0x40 | (packet.len() / 4) as u8;
    packet.extend_from_slice(&message);
    packet
}

#[test]
fn a_raw_socket_takes_only_our_replies() {
    let expected = Some((9, Bytes::from_static(b"hi!")));
    assert_eq!(reply(raw_reply(77, 0).into(), false, Some(77)), expected);
    assert_eq!(reply(raw_reply(77, 40).into(), false, Some(77)), expected);
    assert_eq!(reply(raw_reply(78, 0).into(), false, Some(77)), None);
    let mut broken = raw_reply(77, 0);
    broken[30] ^= 1;
    assert_eq!(reply(broken.into(), false, Some(77)), None, "a wrong checksum");
    let mut request = raw_reply(77, 0);
    (request[20], request[22]) = (8, request[22].wrapping_sub(8));
    assert_eq!(reply(request.into(), false, Some(77)), None, "a request, seen on loopback");
}

#[test]
fn malformed_messages_are_ignored() {
    let whole = raw_reply(77, 0);
    for len in 0..whole.len() {
        for first in [0x00, 0x45, 0x4f, 0xff] {
            let mut message = whole[..len].to_vec();
            if let Some(byte) = message.first_mut() {
                *byte = first;
            }
            for (v6, raw) in [(false, None), (false, Some(77)), (true, None), (true, Some(77))] {
                let _ = reply(Bytes::from(message.clone()), v6, raw);
            }
        }
    }
}
