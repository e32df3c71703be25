//! Refusals, resets, half-closes and silence are the same as without a bridge, and no packet leaks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gh_net_tests::lab::servers::{BYE, COUNT, DISCARD, Pattern, RESET, STALL};
use gh_net_tests::lab::{Bridged, EventKind, Lab, Options};

static BRIDGED: LazyLock<Option<Bridged>> =
    LazyLock::new(|| Bridged::start(Options::default(), &[]).expect("a bridge"));

const CORP: [&str; 2] = ["10.20.0.10", "fd20:20::10"];
/// A closed port.
const CLOSED: u16 = 81;
const AT_ONCE: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(10);

/// Runs a client in the codespace.
fn in_codespace<T: Send + 'static>(
    lab: &Lab,
    client: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    lab.codespace.thread(client).join().expect("the client does not panic")
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(host.parse().expect("an address"), port), SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(stream)
}

#[test]
fn a_closed_tcp_port_refuses_at_once() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    in_codespace(lab, || {
        for host in CORP {
            let started = Instant::now();
            let error = connect(host, CLOSED).err().context("connected to a closed port")?;
            ensure!(error.kind() == ErrorKind::ConnectionRefused, "{host}: {error}");
            ensure!(started.elapsed() < AT_ONCE, "{host} took {:?}", started.elapsed());
        }
        Ok(())
    })
}

#[test]
fn a_closed_udp_port_refuses_at_once() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    in_codespace(lab, || {
        for (any, host) in ["0.0.0.0:0", "[::]:0"].into_iter().zip(CORP) {
            let socket = UdpSocket::bind(any)?;
            socket.connect(SocketAddr::new(host.parse()?, CLOSED))?;
            socket.set_read_timeout(Some(SOON))?;
            let started = Instant::now();
            socket.send(b"anyone?")?;
            let error = socket.recv(&mut [0; 64]).err().context("an answer from a closed port")?;
            ensure!(error.kind() == ErrorKind::ConnectionRefused, "{host}: {error}");
            ensure!(started.elapsed() < AT_ONCE, "{host} took {:?}", started.elapsed());
        }
        Ok(())
    })
}

#[test]
fn a_connection_to_a_dead_address_fails() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    in_codespace(lab, || {
        // .66 drops all packets. .99 is not in use, which its gateway notices within seconds and reports by ICMP.
        for (host, kinds) in [
            ("10.20.0.66", &[ErrorKind::TimedOut][..]),
            ("fd20:20::66", &[ErrorKind::TimedOut]),
            ("10.20.0.99", &[ErrorKind::HostUnreachable]),
            ("fd20:20::99", &[ErrorKind::HostUnreachable]),
        ] {
            let error = connect(host, 80).err().with_context(|| format!("connected to {host}"))?;
            ensure!(kinds.contains(&error.kind()), "{host}: {error:?}");
        }
        Ok(())
    })?;
    let dead = lab.codespace.run("ping -c 1 -W 2 10.20.0.66")?;
    assert_ne!(dead.code(), 0, "{}", dead.text());
    Ok(())
}

#[test]
fn a_dead_neighbour_of_the_laptop_is_unreachable() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    in_codespace(lab, || {
        // An unused address on the laptop's own LAN: its kernel notices by ARP.
        let error = connect("192.168.1.99", 80).err().context("connected to an unused address")?;
        ensure!(error.kind() == ErrorKind::HostUnreachable, "TCP: {error:?}");
        Ok(())
    })?;
    let ping = lab.codespace.run("ping -c 1 -W 10 192.168.1.98")?;
    assert!(ping.text().contains("Destination Host Unreachable"), "{}", ping.text());
    Ok(())
}

#[test]
fn a_reset_by_the_server_arrives_as_a_reset() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    in_codespace(lab, || {
        for host in CORP {
            let mut stream = connect(host, RESET)?;
            stream.write_all(b"x")?;
            let error = stream.read(&mut [0; 1]).err().context("no reset arrived")?;
            ensure!(error.kind() == ErrorKind::ConnectionReset, "{host}: {error}");
        }
        Ok(())
    })
}

#[test]
fn a_reset_by_the_client_arrives_as_a_reset() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    in_codespace(lab, || {
        let mut stream = connect("10.20.0.10", DISCARD)?;
        stream.write_all(b"four")?;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).context("SO_LINGER")
    })?;
    lab.corp_servers().wait_for(SOON, |event| {
        event.port == DISCARD && matches!(event.kind, EventKind::Broken(_, ErrorKind::ConnectionReset))
    })?;
    Ok(())
}

#[test]
fn a_half_close_by_the_client_leaves_the_other_half_open() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let len = 5_000_003;
    let answers = in_codespace(lab, move || {
        CORP.map(|host| {
            let mut stream = connect(host, COUNT)?;
            let mut pattern = Pattern::new(len);
            while let Some(block) = pattern.next_block() {
                stream.write_all(block)?;
            }
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).context("the answer after the client's end of file")?;
            Ok(answer)
        })
        .into_iter()
        .collect::<Result<Vec<_>>>()
    })?;
    for answer in answers {
        assert_eq!(answer.trim(), format!("{len} {}", Pattern::sha256(len)));
    }
    Ok(())
}

#[test]
fn a_half_close_by_the_server_leaves_the_other_half_open() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let len = 1_000_003;
    in_codespace(lab, move || {
        let mut stream = connect("10.20.0.10", BYE)?;
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting)?;
        ensure!(greeting == "bye\n", "the server sent {greeting:?}");
        let mut pattern = Pattern::new(len);
        while let Some(block) = pattern.next_block() {
            stream.write_all(block).context("writing after the server's end of file")?;
        }
        Ok(())
    })?;
    lab.corp_servers()
        .wait_for(SOON, |event| event.port == BYE && event.kind == EventKind::Ended(len))
        .map(drop)
}

#[test]
fn a_server_that_stops_reading_blocks_the_writer() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let taken = in_codespace(lab, || {
        let mut stream = connect("10.20.0.10", STALL)?;
        stream.set_write_timeout(Some(Duration::from_secs(3)))?;
        let block = [0; 64 * 1024];
        let mut taken = 0u64;
        loop {
            match stream.write(&block) {
                Ok(written) => taken += written as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => bail!("writing failed after {taken} bytes: {error}"),
            }
            ensure!(taken < 1 << 30, "{taken} bytes were accepted without blocking");
        }
    })?;
    assert!(taken < 32_000_000, "{taken} bytes were accepted");
    Ok(())
}

#[test]
fn the_codespaces_own_networks_and_the_internet_stay_direct() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    assert_eq!(lab.codespace.shell("curl -sS http://203.0.113.10/whoami")?, "172.16.5.4");
    assert_eq!(lab.codespace.shell("curl -sS http://172.17.0.2/whoami")?, "172.17.0.1");
    for (address, device) in [
        ("203.0.113.10", "eth0"),
        ("172.16.5.1", "eth0"),
        ("172.17.0.2", "docker0"),
        ("198.51.100.2", "eth0"),
        ("169.254.169.254", "eth0"),
        ("10.20.0.10", "ghnet0"),
        ("fd20:20::10", "ghnet0"),
    ] {
        let route = lab.codespace.shell(&format!("ip route get {address}"))?;
        assert!(route.contains(&format!("dev {device} ")), "{route}");
    }
    Ok(())
}

#[test]
fn the_laptop_itself_is_not_reachable() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    for address in ["192.168.1.20", "10.8.0.2", "[fd20:8::2]", "[fd19:168::20]"] {
        let url = format!("http://{address}:8000/");
        assert_eq!(lab.laptop.shell(&format!("curl -sS -g {url}"))?, "hello from laptop");
        let reached = lab.codespace.run(&format!("curl -sS -g --max-time 5 {url}"))?;
        assert_ne!(reached.code(), 0, "{url} answered {}", reached.text());
    }
    let gateways =
        lab.codespace.shell("ip -o route show table all dev ghnet0; ip -o addr show dev ghnet0")?;
    assert!(gateways.contains("10.20.0.0/16"), "{gateways}");
    Ok(())
}

#[test]
fn there_is_no_loop_through_the_laptop() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    // The corporate gateway has no route to this address, and the laptop only its default route.
    let reached = lab.codespace.run("curl -sS --max-time 5 http://10.99.0.1/")?;
    assert_ne!(reached.code(), 0);
    Ok(())
}

/// Needs its own lab, because other tests send packets that the router counts.
#[test]
fn no_packet_for_the_laptops_networks_reaches_the_internet() -> Result<()> {
    let Some(Bridged { lab, bridge }) = Bridged::start(Options::default(), &[])? else { return Ok(()) };
    for line in [
        "curl -sS http://10.20.0.10/",
        "curl -sS -g 'http://[fd20:20::10]/'",
        "curl -sS http://www.corp.internal/bytes/5000000 --output /dev/null",
        "curl -sS http://192.168.1.50/",
        "ping -c 2 -s 20000 10.20.0.10",
    ] {
        lab.codespace.shell(line)?;
        lab.nested.run(line)?;
    }
    lab.codespace.run("curl -sS http://10.20.0.10:81/")?;
    assert_eq!(lab.leaks()?, 0, "{}", lab.internet.shell("nft list counters")?);
    bridge.stop().map(drop)
}

/// The codespace sees 192.168.1.20 as ssh's peer, and 192.168.1.0/24 is forwarded.
#[test]
fn ssh_never_enters_the_tunnel_that_it_carries() -> Result<()> {
    let options = Options { home_nat: false, ..Options::default() };
    let Some(Bridged { lab, bridge }) = Bridged::start(options, &[])? else { return Ok(()) };
    let peer = lab.codespace.shell("ip route get 192.168.1.20")?;
    assert!(peer.contains("dev eth0"), "{peer}");
    let other = lab.codespace.shell("ip route get 192.168.1.50")?;
    assert!(other.contains("dev ghnet0"), "{other}");
    assert_eq!(lab.codespace.shell("curl -sS http://192.168.1.50/")?, "hello from lan");
    let len = 20_000_000;
    let sum = lab.codespace.shell(&format!("curl -sS http://10.20.0.10/bytes/{len} | sha256sum"))?;
    assert_eq!(sum, format!("{}  -", Pattern::sha256(len)));
    assert_eq!(lab.leaks()?, 0);
    bridge.stop().map(drop)
}
