//! Packets through the tunnel, both ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use gh_net_common::frame::{Frame, Goodbye, HEADER_LEN, Open, Reason};
use gh_net_common::link::SILENCE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use tokio::time::timeout;

use crate::codespace::{device_statistics, in_codespace, owner, sidecar, snapshot};
use crate::laptop::{Laptop, open, resume, routes};

const OURS: Ipv4Addr = Ipv4Addr::new(198, 19, 240, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);

/// A socket of a program in the codespace.
fn socket(address: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0))).sum()
}

fn checksum(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn udp(from: u16, to: u16, payload: &[u8], pseudo: u32) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let ports = [from.to_be_bytes(), to.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    let mut datagram = [&ports[..], payload].concat();
    let check = checksum(sum(&datagram) + pseudo + 17 + u32::from(length));
    datagram[6..8].copy_from_slice(&check);
    datagram
}

/// A datagram of the server to the codespace.
fn v4_packet(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let datagram = udp(from, to, payload, sum(&SERVER.octets()) + sum(&OURS.octets()));
    let length = (20 + datagram.len()) as u16;
    let mut header = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0x40, 0, 64, 17, 0, 0]].concat();
    header.extend(SERVER.octets());
    header.extend(OURS.octets());
    let check = checksum(sum(&header));
    header[10..12].copy_from_slice(&check);
    [header, datagram].concat()
}

fn v6_packet(source: Ipv6Addr, destination: Ipv6Addr, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let datagram = udp(from, to, payload, sum(&source.octets()) + sum(&destination.octets()));
    let mut header = [&[0x60, 0, 0, 0][..], &(datagram.len() as u16).to_be_bytes(), &[17, 64]].concat();
    header.extend(source.octets());
    header.extend(destination.octets());
    [header, datagram].concat()
}

async fn packet(laptop: &mut Laptop) -> Bytes {
    laptop
        .until(|frame| match frame {
            Frame::Packet(packet) => Some(packet),
            _ => None,
        })
        .await
}

/// The next datagram, put together from its fragments, with the header of the first one.
async fn datagram(laptop: &mut Laptop) -> Vec<u8> {
    const MORE: u16 = 0x2000;
    let mut whole = Vec::new();
    loop {
        let fragment = packet(laptop).await;
        laptop.report().await;
        let place = u16::from_be_bytes([fragment[6], fragment[7]]);
        let offset = usize::from(place & 0x1fff) * 8;
        if offset == 0 {
            whole.extend_from_slice(&fragment[..20]);
        }
        assert_eq!(whole.len(), 20 + offset, "a fragment out of order");
        whole.extend_from_slice(&fragment[20..]);
        if place & MORE == 0 {
            return whole;
        }
    }
}

async fn delivered(laptop: &mut Laptop, total: u64) {
    laptop
        .until(|frame| matches!(frame, Frame::Delivered { total: all, .. } if all == total).then_some(()))
        .await;
}

#[test]
fn a_datagram_arrives_and_its_answer_returns() {
    in_codespace(|| async {
        let (mut laptop, _) = Laptop::session(0).await;
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        let socket = socket([0, 0, 0, 0].into());
        let port = socket.local_addr().unwrap().port();
        for size in [1, 1400, 60_000] {
            socket.send_to(&vec![7; size], (SERVER, 9)).unwrap();
            let sent = datagram(&mut laptop).await;
            assert_eq!(sent[16..20], SERVER.octets());
            assert_eq!(sent[12..16], OURS.octets());
            assert_eq!(sent[28..], vec![7; size]);
            laptop.send(&[Frame::Packet(v4_packet(9, port, &vec![8; size]).into())]).await;
            let mut answer = vec![0; 65_536];
            let (length, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!((from.ip(), length), (SERVER.into(), size));
            assert_eq!(answer[..length], vec![8; size]);
        }
    });
}

#[test]
fn the_same_over_ipv6() {
    in_codespace(|| async {
        let (mut laptop, opened) = Laptop::session(0).await;
        laptop.send(&[routes(&["fd20::/32"])]).await;
        laptop.settle().await;
        let IpAddr::V6(ours) = opened.addresses[1].sidecar.addr() else { panic!() };
        let server: Ipv6Addr = "fd20::10".parse().unwrap();
        let socket = socket(Ipv6Addr::UNSPECIFIED.into());
        socket.send_to(b"hello", (server, 9)).unwrap();
        // The first packet of all: the kernel sends nothing of its own through the device.
        let sent = packet(&mut laptop).await;
        assert_eq!((&sent[8..24], &sent[24..40]), (&ours.octets()[..], &server.octets()[..]));
        let port = socket.local_addr().unwrap().port();
        laptop.send(&[Frame::Packet(v6_packet(server, ours, 9, port, b"world").into())]).await;
        let mut answer = [0; 16];
        assert_eq!(socket.recv_from(&mut answer).unwrap().0, 5);
    });
}

#[test]
fn all_bytes_received_are_reported() {
    in_codespace(|| async {
        let (mut laptop, _) = Laptop::session(0).await;
        let packet = v4_packet(9, 9, &[0; 1000]);
        let size = (HEADER_LEN + packet.len()) as u64;
        let many = vec![Frame::Packet(packet.into()); 500];
        laptop.send(&many).await;
        delivered(&mut laptop, 500 * size).await;
        laptop.send(&many[..1]).await;
        delivered(&mut laptop, 501 * size).await;
    });
}

#[test]
fn junk_is_dropped_and_counted() {
    in_codespace(|| async {
        let (mut laptop, _) = Laptop::session(0).await;
        let junk = [&[][..], &[0x45], &[0xff; 100], &[0x60; 39], &[0; 65_536]];
        for junk in junk {
            laptop.send(&[Frame::Packet(Bytes::copy_from_slice(junk))]).await;
        }
        laptop.settle().await;
        let status = sidecar(&["status", "--json"]).stdout;
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
        assert_eq!(status["session"]["counters"]["downlink_malformed"], junk.len());
    });
}

#[test]
fn a_laptop_that_reports_nothing_gets_no_more_than_a_window() {
    in_codespace(|| async {
        let (mut laptop, _) = Laptop::session(0).await;
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        let socket = socket([0, 0, 0, 0].into());
        let mut taken = 0;
        // One at a time: of many at once of a flow that nobody has answered, most would be dropped.
        loop {
            socket.send_to(&[7; 32_000], (SERVER, 9)).unwrap();
            let before = taken;
            laptop.send(&[Frame::Ping(1)]).await;
            laptop
                .until(|frame| match frame {
                    Frame::Packet(packet) => {
                        taken += packet.len();
                        None
                    }
                    Frame::Pong(1) => Some(()),
                    _ => None,
                })
                .await;
            assert!(taken < 1_200_000, "{taken}");
            if taken == before {
                break;
            }
        }
        // It continues as soon as something is reported.
        laptop.send(&[Frame::Delivered { total: 1_000_000, micros: u64::MAX }]).await;
        assert!(packet(&mut laptop).await.len() > 1000);
    });
}

#[test]
fn a_laptop_that_asks_and_does_not_read_loses_its_link_and_then_the_session() {
    in_codespace(|| async {
        let before = snapshot();
        let (mut laptop, _) = Laptop::session(1).await;
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        let status = format!("/proc/{}/status", owner());
        let socket = socket([0, 0, 0, 0].into());
        for port in 1..2000 {
            socket.send_to(&[7; 32_000], (SERVER, port)).unwrap();
        }
        // Until the sidecar no longer reads either: it then hears nothing, and gives the link up.
        let asks = async {
            loop {
                laptop.writer.push(&Frame::AskStatus);
                if laptop.writer.flush().await.is_err() {
                    return std::fs::read_to_string(&status).expect("the owner, within the grace");
                }
            }
        };
        let status = timeout(2 * SILENCE + Duration::from_secs(20), asks).await.expect("the link ends");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        assert!(peak < 64 << 10, "{peak} KiB");
        println!("{peak} KiB at most");
        laptop.exit_code().await;
        timeout(Duration::from_secs(20), async {
            while snapshot() != before {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the codespace is as before, without a cleanup");
    });
}

#[test]
fn control_frames_pass_a_full_window() {
    in_codespace(|| async {
        let mut laptop = Laptop::connect().await;
        let mut request = open(0);
        request.mtu = 1280;
        assert_eq!(laptop.ask(request).await.unwrap().mtu, 1280);
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        let socket = socket([0, 0, 0, 0].into());
        for _ in 0..2000 {
            socket.send_to(&[7; 1000], (SERVER, 9)).unwrap();
        }
        laptop.settle().await;
    });
}

#[test]
fn what_wakes_connections_up_is_kept_without_a_link_and_nothing_stale_is() {
    in_codespace(|| async {
        let (mut laptop, opened) = Laptop::session(60).await;
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        laptop.cut().await;
        let read = || device_statistics("tx")["packets"].as_u64().unwrap();
        let before = read();
        let datagrams = socket([0, 0, 0, 0].into());
        for _ in 0..100 {
            datagrams.send_to(b"stale", (SERVER, 9)).unwrap();
        }
        let program = tokio::net::TcpStream::connect((SERVER, 80));
        tokio::pin!(program);
        while read() < before + 101 {
            tokio::select! {
                biased;
                _ = &mut program => panic!("nobody answers"),
                () = tokio::task::yield_now() => {}
            }
        }

        let mut laptop = Laptop::connect().await;
        laptop.ask(Open { grace: 0, ..resume(&opened) }).await.unwrap();
        let first = packet(&mut laptop).await;
        assert_eq!(
            (first[9], &first[16..20], &first[22..24]),
            (6, &SERVER.octets()[..], &80_u16.to_be_bytes()[..])
        );
        // Then the device is read as usual.
        datagrams.send_to(b"fresh", (SERVER, 9)).unwrap();
        let datagram = laptop
            .until(|frame| match frame {
                Frame::Packet(packet) if packet[9] == 17 => Some(packet),
                _ => None,
            })
            .await;
        assert_eq!(datagram[28..], *b"fresh");
    });
}

#[test]
fn nothing_passes_on_a_quiet_link_until_a_packet_wakes_it() {
    in_codespace(|| async {
        let (mut laptop, _) = Laptop::session(60).await;
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        // The kernel announces its multicast groups on a new device.
        laptop.settle().await;
        laptop.send(&[Frame::Quiet(3600)]).await;
        laptop.until(|frame| (frame == Frame::Quiet(0)).then_some(())).await;
        // An active link would be pinged after 15 s.
        laptop.hears_nothing_for(Duration::from_secs(16)).await;
        socket([0, 0, 0, 0].into()).send_to(b"wake up", (SERVER, 9)).unwrap();
        let packet = laptop.next().await;
        assert!(matches!(&packet, Frame::Packet(packet) if packet[28..] == *b"wake up"), "{packet:?}");
        laptop.wait_for_ping().await;
    });
}

/// A laptop that is told that the sidecar is about to end resets its flows.
#[test]
fn what_the_laptop_sends_before_its_goodbye_still_arrives() {
    in_codespace(|| async {
        let (mut laptop, _) = Laptop::session(60).await;
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        let program = socket(OURS.into());
        let port = program.local_addr().unwrap().port();
        kill(Pid::from_raw(owner()), Signal::SIGTERM).unwrap();
        laptop.until(|frame| (frame == Frame::Ending).then_some(())).await;
        let goodbye = Frame::Goodbye(Goodbye { reason: Reason::Done, text: String::new() });
        laptop.send(&[Frame::Packet(v4_packet(53, port, b"the last one").into()), goodbye]).await;
        assert_eq!(laptop.goodbye().await.reason, Reason::Terminated);
        let mut buffer = [0; 100];
        let length = program.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"the last one");
    });
}
