//! The sockets on a network of three hosts, each a network namespace: the laptop (this process), a router,
//! and a host behind it. ICMP errors of routers can't be produced on loopback.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::super::arena::Arena;
use super::super::datagram::{DatagramSocket, QueuedError};
use super::super::dns::Queries;
use super::super::flows::Flows;
use super::super::icmp::Echo;
use super::super::own::OwnAddresses;
use super::super::reactor::{Reactor, Readiness};
use super::super::tcp::Connection;
use super::super::udp::Mapping;
use crate::engine::{self, ConnectError, FlowId, UnreachableKind};
use crate::resolver::Resolver;

const INSIDE: &str = "GH_NET_TEST_NETWORK";
const SETUP: &str = include_str!("network.sh");

/// A process that keeps a network namespace until its standard input ends, which is when we do.
struct Host(Child);

impl Host {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        Self(child)
    }

    /// Runs `act` in the host's namespace, in a thread of its own.
    fn within<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let enter = move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            act()
        };
        std::thread::spawn(enter).join().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Runs `body` on a network of its own.
fn in_own_network(test: &str, body: impl FnOnce(&Host)) {
    apart(test, || {
        let (router, host) = (Host::new(), Host::new());
        let pids = [&router, &host].map(|host| host.0.id().to_string());
        let set_up = Command::new("sh").args(["-euc", SETUP, "network.sh"]).args(pids).status().unwrap();
        assert!(set_up.success(), "the network can't be set up");
        networks().iter().for_each(|network| block_on(come_up(network)));
        body(&host);
    });
}

/// Runs `body` in a process and a namespace of its own, by starting this test again there.
fn apart(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut unshare = vec!["--net"];
    if !nix::unistd::geteuid().is_root() {
        unshare.extend(["--user", "--map-root-user"]);
    }
    if !Command::new("unshare").args(&unshare).arg("true").status().is_ok_and(|status| status.success()) {
        return super::skip(test, "no network namespace to be had");
    }
    let again = Command::new("unshare")
        .args(&unshare)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(again.success(), "{test} failed there");
}

fn block_on(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let patient = async { tokio::time::timeout(Duration::from_secs(20), body).await.expect("in time") };
    runtime.block_on(patient);
}

/// Waits for something to happen to the only socket there is.
async fn event(reactor: &mut Reactor) -> Readiness {
    let mut seen = Readiness::default();
    std::future::poll_fn(|cx| reactor.poll(cx, |_, readiness| seen.add(readiness))).await.unwrap();
    seen
}

/// The next error; none is that long under way here.
async fn next_error(reactor: &mut Reactor, socket: &mut DatagramSocket) -> QueuedError {
    loop {
        if let Some(error) = socket.next_error() {
            return error;
        }
        socket.note(event(reactor).await);
    }
}

async fn next_datagram(reactor: &mut Reactor, socket: &mut DatagramSocket) -> (Bytes, SocketAddr) {
    let mut arena = Arena::default();
    loop {
        if let Some(datagram) = socket.next_datagram(&mut arena) {
            return datagram;
        }
        socket.note(event(reactor).await);
    }
}

/// Waits until the host is reachable: links take some time to come up.
async fn come_up(network: &Network) {
    let mut reactor = Reactor::new().unwrap();
    let mut probe = Mapping::open(network.host.is_ipv6(), None).unwrap();
    reactor.register(FlowId(1), probe.socket()).unwrap();
    loop {
        let _ = probe.send(SocketAddr::new(network.host, 9), 64, b"up?");
        let answer = next_error(&mut reactor, probe.socket());
        if let Ok(QueuedError { kind: UnreachableKind::Port, .. }) =
            tokio::time::timeout(Duration::from_millis(50), answer).await
        {
            return;
        }
    }
}

/// A server on the host, with a time limit.
fn server(host: &Host, address: SocketAddr) -> UdpSocket {
    let socket = host.within(move || UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// The addresses of one family.
struct Network {
    router: IpAddr,
    host: IpAddr,
    /// Unused; the router has no route to it.
    nowhere: IpAddr,
    /// Unused, on the network behind the router.
    nobody: IpAddr,
}

fn networks() -> [Network; 2] {
    [
        ["10.77.1.1", "10.77.2.2", "10.78.0.1", "10.77.2.99"],
        ["fd77:1::1", "fd77:2::2", "fd78::1", "fd77:2::99"],
    ]
    .map(|addresses| {
        let [router, host, nowhere, nobody] = addresses.map(|address| address.parse().unwrap());
        Network { router, host, nowhere, nobody }
    })
}

#[test]
fn icmp_errors_of_routers_and_hosts_are_reported() {
    in_own_network("io::tests::network::icmp_errors_of_routers_and_hosts_are_reported", |host| {
        for Network { router, host: address, nowhere, nobody } in networks() {
            let server = server(host, SocketAddr::new(address, 7));
            block_on(async {
                let mut reactor = Reactor::new().unwrap();
                let mut mapping = Mapping::open(address.is_ipv6(), None).unwrap();
                reactor.register(FlowId(1), mapping.socket()).unwrap();
                for (to, hops, offender, kind) in [
                    (address, 1, router, UnreachableKind::TimeExceeded),
                    (address, 2, address, UnreachableKind::Port),
                    (nowhere, 64, router, UnreachableKind::Network),
                    (nobody, 64, router, UnreachableKind::Host),
                ] {
                    let to = SocketAddr::new(to, 9);
                    mapping.send(to, hops, b"datagram").unwrap();
                    let error = next_error(&mut reactor, mapping.socket()).await;
                    assert_eq!((error.destination.ip(), error.destination.port()), (to.ip(), to.port()));
                    assert_eq!((error.offender, error.kind), (Some(offender), kind));
                }
                // A queued error does not make a datagram to another host fail.
                mapping.send(SocketAddr::new(address, 9), 64, b"x").unwrap();
                event(&mut reactor).await;
                let large = vec![5; 9000];
                mapping.send(SocketAddr::new(address, 7), 64, &large).unwrap();
                let mut buffer = vec![0; 10_000];
                let (len, from) = server.recv_from(&mut buffer).unwrap();
                assert_eq!(buffer[..len], large, "in fragments");
                server.send_to(&buffer[..len], from).unwrap();
                let (answer, source) = next_datagram(&mut reactor, mapping.socket()).await;
                assert!(answer == large);
                assert_eq!(source, SocketAddr::new(address, 7));
            });
        }
    });
}

#[test]
fn echo_works_by_ping_sockets_and_by_raw_sockets() {
    in_own_network("io::tests::network::echo_works_by_ping_sockets_and_by_raw_sockets", |_| {
        // A new namespace allows no group to use ping sockets.
        for raw in [true, false] {
            if !raw {
                std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
            }
            for network in networks() {
                block_on(echo(&network, raw));
            }
        }
    });
}

async fn echo(&Network { router, host, nowhere, nobody }: &Network, raw: bool) {
    let mut reactor = Reactor::new().unwrap();
    let mut echo = Echo::open(host.is_ipv6(), None, 0x4711).unwrap();
    assert_eq!(echo.raw.is_some(), raw);
    reactor.register(FlowId(1), echo.socket()).unwrap();
    for (sequence, to, hops, offender, kind) in [
        (7, host, 1, router, UnreachableKind::TimeExceeded),
        (8, nowhere, 64, router, UnreachableKind::Network),
        (9, nobody, 64, router, UnreachableKind::Host),
    ] {
        echo.send(to, sequence, hops, b"request").unwrap();
        let error = loop {
            let error = next_error(&mut reactor, echo.socket()).await;
            if let Some(error) = echo.about_request(&error) {
                break error;
            }
        };
        assert_eq!((error.destination.ip(), error.sequence), (to, Some(sequence)));
        assert_eq!((error.offender, error.kind), (Some(offender), kind));
    }
    let large: Vec<u8> = (0..20_000).map(|i| i as u8).collect();
    for (sequence, hops) in [(10, 2), (11, 64)] {
        echo.send(host, sequence, hops, &large).unwrap();
        let (source, heard, payload) = loop {
            let (message, source) = next_datagram(&mut reactor, echo.socket()).await;
            if let Some((heard, payload)) = echo.reply(message) {
                break (source.ip(), heard, payload);
            }
        };
        assert_eq!((source, heard), (host, sequence));
        assert!(payload == large);
    }
}

#[test]
fn connections_fail_with_the_networks_error() {
    in_own_network("io::tests::network::connections_fail_with_the_networks_error", |_| {
        for Network { host, nowhere, nobody, .. } in networks() {
            for (to, hop_limit, expected) in [
                (host, None, ConnectError::Refused),
                (host, Some(1), ConnectError::HostUnreachable),
                (nowhere, None, ConnectError::NetworkUnreachable),
                (nobody, None, ConnectError::HostUnreachable),
            ] {
                block_on(async move {
                    let mut reactor = Reactor::new().unwrap();
                    let error = match Connection::open(SocketAddr::new(to, 9), None, hop_limit) {
                        Err(error) => error,
                        Ok(mut connection) => {
                            reactor.register(FlowId(1), &connection).unwrap();
                            loop {
                                connection.note(event(&mut reactor).await);
                                match connection.finish_connecting() {
                                    Ok(connected) => assert!(!connected),
                                    Err(error) => break error,
                                }
                            }
                        }
                    };
                    assert_eq!(
                        super::super::tcp::connect_error(&error),
                        expected,
                        "{to} {hop_limit:?}: {error}"
                    );
                });
            }
        }
    });
}

#[test]
fn a_socket_bound_to_an_interface_uses_no_other() {
    in_own_network("io::tests::network::a_socket_bound_to_an_interface_uses_no_other", |host| {
        let index = |name| std::num::NonZeroU32::new(nix::net::if_::if_nametoindex(name).unwrap());
        for Network { host: address, .. } in networks() {
            let to = SocketAddr::new(address, 7);
            let server = server(host, to);
            // The host can't be reached by this interface.
            let mut astray = Mapping::open(to.is_ipv6(), index("other")).unwrap();
            let _ = astray.send(to, 64, b"astray");
            let mut bound = Mapping::open(to.is_ipv6(), index("lan")).unwrap();
            bound.send(to, 64, b"this way").unwrap();
            let mut buffer = [0; 16];
            let (len, _) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"this way");
            let gone = Connection::open(to, std::num::NonZeroU32::new(9999), None).unwrap_err();
            assert_eq!(super::super::tcp::connect_error(&gone), ConnectError::NetworkUnreachable);
        }
    });
}

#[test]
fn a_mapping_without_a_socket_gets_one_when_descriptors_are_free_again() {
    apart("io::tests::network::a_mapping_without_a_socket_gets_one_when_descriptors_are_free_again", || {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let destination = server.local_addr().unwrap();
        block_on(async {
            let mut engine = super::engine();
            let mut flows =
                Flows::new(OwnAddresses::ignored(), Queries::new(Arc::new(Resolver::default()))).unwrap();
            let mut carry_out = |command| flows.carry_out(command, &mut engine, Instant::now());
            let send = |payload: &'static [u8]| engine::Command::SendUdp {
                flow: FlowId(1),
                destination,
                hop_limit: 64,
                payload: payload.into(),
            };
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 0, most).unwrap();
            carry_out(engine::Command::OpenUdp { flow: FlowId(1), v6: false, interface: None });
            carry_out(send(b"lost"));
            let strange = "198.51.100.77".parse().unwrap();
            assert!(OwnAddresses::of_kernel().contain(strange), "what can't be asked is refused");
            setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
            carry_out(send(b"heard"));
        });
        let mut buffer = [0; 16];
        let (len, _) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"heard");
    });
}
