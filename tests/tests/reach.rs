//! Programs in the codespace reach what the laptop reaches: by address and by name, IPv4 and IPv6, TCP, UDP, ICMP.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::servers::{ECHO, Pattern};
use gh_net_tests::lab::{Binaries, Bridged, Host, Lab, Options};

static BRIDGED: LazyLock<Option<Bridged>> =
    LazyLock::new(|| Bridged::start(Options::default(), &[]).expect("a bridge"));

const CORP: [&str; 2] = ["10.20.0.10", "fd20:20::10"];

fn address(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().expect("an address"), port)
}

#[test]
fn curl_by_ipv4_by_ipv6_and_by_name() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    for url in [
        "http://10.20.0.10/",
        "http://[fd20:20::10]/",
        "http://www.corp.internal/",
        "-4 http://www.corp.internal/",
        "-6 http://www.corp.internal/",
        "http://intranet.corp.internal/",
    ] {
        assert_eq!(lab.codespace.shell(&format!("curl -sS -g {url}"))?, "hello from corp", "{url}");
    }
    Ok(())
}

#[test]
fn servers_see_the_laptop() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    assert_eq!(lab.codespace.shell("curl -sS http://10.20.0.10/whoami")?, "10.8.0.2");
    assert_eq!(lab.codespace.shell("curl -sS -g 'http://[fd20:20::10]/whoami'")?, "fd20:8::2");
    Ok(())
}

#[test]
fn the_laptops_lan_is_reachable() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    assert_eq!(lab.codespace.shell("curl -sS http://192.168.1.50/")?, "hello from lan");
    assert_eq!(lab.codespace.shell("curl -sS -g 'http://[fd19:168::50]/'")?, "hello from lan");
    Ok(())
}

#[test]
fn ping_small_and_large() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    for host in CORP {
        for size in [0, 56, 1400, 20_000] {
            let output = lab.codespace.shell(&format!("ping -c 3 -i 0.2 -W 3 -s {size} {host}"))?;
            assert!(output.contains("3 received"), "{size} bytes to {host}: {output}");
        }
    }
    Ok(())
}

#[test]
fn concurrent_pings_do_not_interfere() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let line = "ping -c 10 -i 0.1 -W 3 10.20.0.10";
    let running = [lab.codespace.spawn(line)?, lab.codespace.spawn(line)?, lab.nested.spawn(line)?];
    for ping in running {
        let output = ping.finish(Duration::from_secs(20))?.ok()?;
        assert!(output.contains("10 received") && !output.contains("DUP"), "{output}");
    }
    Ok(())
}

#[test]
fn traceroute_shows_the_hops_beyond_the_laptop() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    for (flags, hosts) in [("-4", ["10.8.0.1", "10.20.0.10"]), ("-6", ["fd20:8::1", "fd20:20::10"])] {
        for method in ["--udp", "--icmp"] {
            let line = format!("traceroute -n {flags} {method} -q 1 -w 3 -m 8 {}", hosts[1]);
            let output = lab.codespace.shell(&line)?;
            let hops: Vec<_> = output.lines().skip(1).map(|line| line.split_whitespace().nth(1)).collect();
            let is_shown = |hop: &&str| hops.contains(&Some(*hop));
            assert!(hosts.iter().all(is_shown), "{line}: {output}");
            assert_eq!(hops.last(), Some(&Some(hosts[1])), "{line}: {output}");
        }
    }
    Ok(())
}

#[test]
fn udp_echo_of_all_sizes() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    udp_echoes(&lab.codespace, "10.20.0.10")?;
    udp_echoes(&lab.codespace, "fd20:20::10")
}

fn udp_echoes(host: &Host, server: &'static str) -> Result<()> {
    let client = host.thread(move || -> Result<()> {
        let any = if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address(server, ECHO))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut buffer = vec![0; 1 << 16];
        for size in [0, 1, 1400, 1472, 1473, 9000, 60_000, 65_000] {
            let mut pattern = Pattern::new(size);
            let datagram = pattern.next_block().unwrap_or_default();
            socket.send(datagram).with_context(|| format!("sending {size} bytes"))?;
            let len = socket.recv(&mut buffer).with_context(|| format!("the echo of {size} bytes"))?;
            ensure!(&buffer[..len] == datagram, "the echo of {size} bytes is {len} different bytes");
        }
        Ok(())
    });
    client.join().expect("the client does not panic")
}

#[test]
fn one_udp_socket_reaches_several_servers() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let client = lab.codespace.thread(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let servers = [address("10.20.0.10", ECHO), address("10.20.0.53", ECHO)];
        for server in servers {
            socket.send_to(server.to_string().as_bytes(), server)?;
        }
        let mut buffer = [0; 64];
        for _ in servers {
            let (len, from) = socket.recv_from(&mut buffer)?;
            ensure!(buffer[..len] == *from.to_string().as_bytes(), "an answer came from {from}");
        }
        Ok(())
    });
    client.join().expect("the client does not panic")
}

#[test]
fn five_hundred_concurrent_connections() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let client = lab.codespace.thread(|| -> Result<()> {
        let mut streams = Vec::new();
        for number in 0..500u32 {
            let host = CORP[number as usize % 2];
            let stream = TcpStream::connect_timeout(&address(host, ECHO), Duration::from_secs(10));
            let stream = stream.with_context(|| format!("connection {number}"))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            streams.push(stream);
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&number.to_be_bytes())?;
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut back = [0; 8];
            stream.read_exact(&mut back).with_context(|| format!("the echo on connection {number}"))?;
            ensure!(back == number.to_be_bytes(), "connection {number} received bytes of another one");
        }
        Ok(())
    });
    client.join().expect("the client does not panic")
}

#[test]
fn a_container_in_the_codespace_uses_the_bridge() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    assert_eq!(lab.nested.shell("curl -sS http://10.20.0.10/")?, "hello from corp");
    assert_eq!(lab.nested.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    assert_eq!(lab.nested.shell("curl -sS http://example.com/whoami")?, "172.16.5.4");
    lab.nested.shell("ping -c 2 -W 3 10.20.0.10")?;
    udp_echoes(&lab.nested, "10.20.0.10")
}

#[test]
fn the_codespaces_own_ipv6_keeps_working() -> Result<()> {
    let options = Options { codespace_ipv6: true, ..Options::default() };
    let Some(Bridged { lab, bridge }) = Bridged::start(options, &[])? else { return Ok(()) };
    assert_eq!(lab.codespace.shell("curl -sS -g 'http://[fd20:20::10]/whoami'")?, "fd20:8::2");
    assert_eq!(lab.codespace.shell("curl -sS -6 http://example.com/whoami")?, "fd00:c0de::4");
    assert_eq!(lab.leaks()?, 0);
    bridge.stop().map(drop)
}

#[test]
fn a_banner_of_the_login_shell_is_skipped() -> Result<()> {
    let options = Options { noisy_login: true, ..Options::default() };
    let Some(Bridged { lab, bridge }) = Bridged::start(options, &[])? else { return Ok(()) };
    assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    bridge.stop().map(drop)
}

#[test]
fn root_in_the_codespace_needs_no_sudo() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    lab.codespace.write("/etc/sudoers", 0o440, "")?;
    let bridge = lab.gh_net(&["--ssh", "codespace-root"])?.ready()?;
    assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    bridge.stop().map(drop)
}

#[test]
fn any_command_can_carry_the_link() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let sidecar = &Binaries::get()?.sidecar;
    lab.codespace.install(sidecar, "/run/lab/gh-net-sidecar")?;
    let carried = ["--exec", "ssh codespace-root '/run/lab/gh-net-sidecar' attach"];
    let bridge = lab.gh_net(&carried)?.ready()?;
    assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    bridge.stop().map(drop)
}

/// The policy follows the laptop's addresses a moment later: in that moment a service of the laptop must not be reached.
#[test]
fn an_address_that_the_laptop_has_just_got_is_refused_at_once() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let service = lab.laptop.spawn("nc -nvlk 8099")?;
    service.wait_for("Listening", Duration::from_secs(10))?;
    let bridge = lab.bridge(&[])?;
    for last in 90..95 {
        let address = format!("10.20.0.{last}");
        lab.laptop.shell(&format!("ip addr add {address}/32 dev corp0"))?;
        assert_ne!(lab.codespace.run(&format!("nc -nzw2 {address} 8099"))?.code(), 0);
    }
    assert!(!service.stderr().contains("Connection received"), "{}", service.stderr());
    bridge.stop().map(drop)
}

#[test]
fn datagrams_and_pings_to_an_address_that_the_laptop_has_just_got_are_refused_at_once() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let service = lab.laptop.thread(|| UdpSocket::bind("[::]:8098")).join().expect("no panic")?;
    service.set_nonblocking(true)?;
    let bridge = lab.bridge(&[])?;
    for last in 90..93 {
        let addresses = [format!("10.20.0.{last}"), format!("fd20:20::{last}")];
        for address in addresses {
            let length = if address.contains(':') { "128 nodad" } else { "32" };
            lab.laptop.shell(&format!("ip addr add {address}/{length} dev corp0"))?;
            let ping = lab.codespace.run(&format!("ping -n -c 1 -W 5 {address}"))?;
            assert_ne!(ping.code(), 0, "{address}: {}", ping.text());
            let target = SocketAddr::new(address.parse()?, 8098);
            let refused = lab.codespace.thread(move || -> Result<ErrorKind> {
                let socket = UdpSocket::bind(if target.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
                socket.connect(target)?;
                socket.set_read_timeout(Some(Duration::from_secs(10)))?;
                socket.send(b"anyone?")?;
                Ok(socket.recv(&mut [0; 64]).err().context("an answer of the laptop")?.kind())
            });
            let refused = refused.join().expect("no panic")?;
            // Administratively prohibited; a time-out would be EAGAIN.
            assert!(
                matches!(refused, ErrorKind::HostUnreachable | ErrorKind::PermissionDenied),
                "{refused:?}"
            );
        }
    }
    let received = service.recv(&mut [0; 64]).expect_err("a service of the laptop was reached");
    assert_eq!(received.kind(), ErrorKind::WouldBlock);
    bridge.stop().map(drop)
}
