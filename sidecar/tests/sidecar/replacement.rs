//! While the laptop's routes are replaced, packets for networks that stay forwarded never take the default route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gh_net_common::frame::{Frame, MAX_PREFIXES, Open, Routes};
use ipnet::IpNet;

use crate::codespace::{in_codespace, route_to, sh, snapshot};
use crate::laptop::{Laptop, net, resume, routes};

/// Counts packets for the laptop's networks by the interface they leave through. The default gateways get a link-layer
/// address, so that packets for them are really sent.
const COUNTERS: &str = "
    ip neighbour add 172.16.5.1 lladdr 02:00:00:00:00:01 dev eth0
    ip -6 neighbour add 2001:db8:5::1 lladdr 02:00:00:00:00:01 dev eth0
    nft -f - <<'END'
    table inet test {
        counter tunnel {}
        counter leaked {}
        chain output {
            type filter hook output priority 0;
            oifname eth0 ip daddr 10.0.0.0/8 counter name leaked
            oifname eth0 ip6 daddr fd20::/16 counter name leaked
            oifname ghnet0 ip daddr 10.0.0.0/8 counter name tunnel
            oifname ghnet0 ip6 daddr fd20::/16 counter name tunnel
        }
    }
END
";

fn packets(counter: &str) -> u64 {
    let listing = sh(&format!("nft list counter inet test {counter}"));
    let count = listing.split_whitespace().skip_while(|word| *word != "packets").nth(1);
    count.expect("a count").parse().expect("a number")
}

/// /24 networks of the first 4096 that the traffic goes to.
const TARGETS: u32 = 4096;

/// Sends datagrams to addresses of the laptop's networks, all the time.
struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    begun: Instant,
}

impl Traffic {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
            // 1103 is coprime to the number of targets, so each comes up.
            let targets = (0..).map(|n: u32| n.wrapping_mul(1103) % TARGETS);
            for target in targets.take_while(|_| !stopped.load(Ordering::Relaxed)) {
                let IpNet::V4(net) = v4_net(target, 24) else { unreachable!() };
                v4.send_to(b"x", (Ipv4Addr::from_bits(net.addr().to_bits() + 77), 9)).unwrap();
                let IpNet::V6(net) = v6_net(target, 48) else { unreachable!() };
                v6.send_to(b"x", (Ipv6Addr::from_bits(net.addr().to_bits() + 77), 9)).unwrap();
                // A pace, not a wait: some thousand packets a second.
                thread::sleep(Duration::from_micros(100));
            }
        });
        Self { stop, thread, begun: Instant::now() }
    }

    /// Stops. Returns the seconds it lasted.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.begun.elapsed().as_secs()
    }
}

/// The prefix of this length that begins where the network of a target does.
fn v4_net(target: u32, length: u8) -> IpNet {
    IpNet::new(IpAddr::from((0x0a00_0000 + (target << 8)).to_be_bytes()), length).unwrap().trunc()
}

fn v6_net(target: u32, length: u8) -> IpNet {
    let bits = (0xfd20_u128 << 112) + (u128::from(target) << 80);
    IpNet::new(Ipv6Addr::from_bits(bits).into(), length).unwrap().trunc()
}

/// A full set, in as many frames as it takes.
fn full_set(nets: &[IpNet]) -> Vec<Frame> {
    let mut frames: Vec<_> =
        nets.chunks(MAX_PREFIXES).map(|part| Frame::Routes(Routes::Part(part.to_vec()))).collect();
    if let Some(Frame::Routes(Routes::Part(last))) = frames.pop() {
        frames.push(Frame::Routes(Routes::Last(last)));
    }
    frames
}

#[test]
fn no_packet_leaks_while_routes_are_replaced() {
    in_codespace(|| async {
        sh(COUNTERS);
        let before = snapshot();
        let (mut laptop, _) = Laptop::session(0).await;
        // All of these hold every target, in 12,000 prefixes or more, in a few wide ones, and in halves of targets.
        let exact: Vec<_> =
            (0..10_000).map(|n| v4_net(n, 24)).chain((0..TARGETS).map(|n| v6_net(n, 48))).collect();
        let wide = vec![net("10.0.0.0/8"), net("fd20::/16")];
        let halves: Vec<_> = (0..TARGETS)
            .flat_map(|n| [v4_net(n, 25), net(&format!("10.{}.{}.128/25", n >> 8, n & 255)), v6_net(n, 49)])
            .collect();
        let nested: Vec<_> = exact.iter().chain(&wide).copied().collect();
        laptop.send(&full_set(&wide)).await;
        laptop.settle().await;

        let traffic = Traffic::start();
        for _ in 0..3 {
            for set in [&exact, &wide, &halves, &exact, &halves, &nested, &wide] {
                laptop.send(&full_set(set)).await;
                laptop.settle().await;
            }
            // The same by changes: the narrow ones in pieces, then the wide ones are withdrawn, and back.
            for piece in exact.chunks(2000) {
                laptop.send(&[Frame::Routes(Routes::Change { add: piece.to_vec(), remove: vec![] })]).await;
            }
            laptop.send(&[Frame::Routes(Routes::Change { add: vec![], remove: wide.clone() })]).await;
            laptop.settle().await;
        }
        let (tunnel, seconds) = (packets("tunnel"), traffic.stop());
        assert_eq!(packets("leaked"), 0, "of {tunnel} packets");
        assert!(tunnel > 50 * seconds, "{tunnel} packets in {seconds} s are too few to tell");
        assert_eq!(sh("ip route show table 26727 dev ghnet0").lines().count(), 10_001);
        laptop.cut().await;
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn a_full_set_counts_only_when_it_is_complete() {
    in_codespace(|| async {
        let (mut laptop, _) = Laptop::session(0).await;
        laptop.send(&[routes(&["10.200.0.0/16", "fd20:200::/32"])]).await;
        let set: Vec<_> = (0..3 * MAX_PREFIXES as u32).map(|n| v4_net(n, 24)).collect();
        let frames = full_set(&set);
        let old = ["10.200.0.1", "fd20:200::1"];
        for part in &frames[..2] {
            laptop.send(std::slice::from_ref(part)).await;
            laptop.settle().await;
            assert!(old.iter().all(|address| route_to(address).contains("dev ghnet0")));
            assert!(route_to("10.0.0.1").contains("via 172.16.5.1"));
        }
        laptop.send(&frames[2..]).await;
        laptop.settle().await;
        assert!(old.iter().all(|address| route_to(address).contains("dev eth0")));
        for there in ["10.0.0.1", "10.8.0.1", "10.23.255.1"] {
            assert!(route_to(there).contains("dev ghnet0"), "{}", route_to(there));
        }
        // A change begins anew: what was collected before it is no part of the next full set.
        laptop.send(&frames[..1]).await;
        laptop
            .send(&[Frame::Routes(Routes::Change { add: vec![net("10.99.0.0/16")], remove: vec![] })])
            .await;
        laptop.send(&[routes(&["10.98.0.0/16"])]).await;
        laptop.settle().await;
        assert!(route_to("10.98.0.1").contains("dev ghnet0"));
        assert!(route_to("10.0.0.1").contains("via 172.16.5.1"));
    });
}

#[test]
fn a_set_that_a_lost_link_left_incomplete_is_forgotten() {
    in_codespace(|| async {
        let (mut laptop, opened) = Laptop::session(60).await;
        laptop
            .send(&[routes(&["10.20.0.0/16"]), Frame::Routes(Routes::Part(vec![net("10.30.0.0/16")]))])
            .await;
        laptop.settle().await;
        laptop.cut().await;
        let mut next = Laptop::connect().await;
        next.ask(Open { grace: 0, ..resume(&opened) }).await.unwrap();
        assert!(route_to("10.20.0.1").contains("dev ghnet0"), "routes stay until others come");
        next.send(&[routes(&["10.40.0.0/16"])]).await;
        next.settle().await;
        assert!(route_to("10.40.0.1").contains("dev ghnet0"));
        for gone in ["10.20.0.1", "10.30.0.1"] {
            assert!(route_to(gone).contains("via 172.16.5.1"), "{}", route_to(gone));
        }
    });
}
