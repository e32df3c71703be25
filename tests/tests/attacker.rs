//! A hostile root in the codespace leads packets for everything that SECURITY.md calls out of reach into the tunnel.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Host, Lab, Options};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
/// Long enough for a refusal; some destinations are refused by silence.
const TRY: Duration = Duration::from_secs(1);
const PORT: u16 = 8097;

/// The laptop itself, the machine's metadata, what is excluded or denied, and the internet behind the laptop: each by its
/// address and in the forms that a translator would send there.
const OUT_OF_REACH: [&str; 22] = [
    "127.0.0.5",
    "0.0.0.9",
    "192.168.1.20",
    "10.8.0.2",
    "fd20:8::2",
    "fd19:168::20",
    "64:ff9b::127.0.0.1",
    "64:ff9b::192.168.1.20",
    "64:ff9b:1::192.168.1.20",
    "2002:c0a8:114::1",
    "2002:7f00:1::1",
    "::192.168.1.20",
    "169.254.169.254",
    "fd00:ec2::254",
    "100.100.100.100",
    "168.63.129.16",
    "10.20.0.66",
    "64:ff9b::10.20.0.66",
    "2002:a14:42::1",
    "10.20.0.53",
    "64:ff9b::10.20.0.53",
    "203.0.113.10",
];

/// Tries TCP and UDP.
fn attack(codespace: &Host, destination: IpAddr) -> Result<()> {
    let to = SocketAddr::new(destination, PORT);
    let attempt = move || -> Result<()> {
        ensure!(TcpStream::connect_timeout(&to, TRY).is_err(), "{to} is reached over TCP");
        let socket = UdpSocket::bind(if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
        socket.set_read_timeout(Some(TRY))?;
        socket.connect(to)?;
        socket.send(b"anybody there?").with_context(|| format!("sending to {to}"))?;
        ensure!(socket.recv(&mut [0; 64]).is_err(), "{to} answers over UDP");
        Ok(())
    };
    codespace.thread(attempt).join().expect("no panic")
}

#[test]
fn packets_that_a_hostile_root_leads_into_the_tunnel_reach_nothing_that_is_out_of_reach() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let servers = || -> Result<_> {
        let address = SocketAddr::new("::".parse()?, PORT);
        let (tcp, udp) = (TcpListener::bind(address)?, UdpSocket::bind(address)?);
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok((tcp, udp))
    };
    let (tcp, udp) = lab.laptop.thread(servers).join().expect("no panic")?;
    // The codespace's own rules and routes are no obstacle to root. So that the laptop's routes are none either, all of IPv6
    // is forwarded, and with it all forms of a translator.
    let options = [["--route", "auto"], ["--route", "::/0"], ["--host-port", "3000"]];
    let rules = [["--exclude", "10.20.0.64/26"], ["--deny", "10.20.0.53"]];
    let bridge = lab.bridge(&[&options[..], &rules[..]].concat().concat())?;
    // What the codespace would drop itself, or send elsewhere.
    let mut destinations = OUT_OF_REACH.map(str::to_owned).to_vec();
    for destination in &destinations {
        lab.codespace.shell(&format!("ip route replace {destination} dev ghnet0 table local"))?;
    }
    for database in ["ahostsv4", "ahostsv6"] {
        let found = lab.codespace.shell(&format!("getent {database} host.gh-net.internal"))?;
        destinations.push(found.split_whitespace().next().context("no address")?.to_owned());
    }
    for destination in &destinations {
        attack(&lab.codespace, destination.parse()?)?;
    }
    assert_eq!(tcp.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    assert_eq!(udp.recv(&mut [0; 64]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));

    // Each of them came to the laptop and was refused there.
    let deadline = Instant::now() + SOON;
    for destination in destinations {
        let server = SocketAddr::new(destination.parse()?, PORT).to_string();
        while !is_denied(&lab, &server)? {
            ensure!(Instant::now() < deadline, "{server} was not refused by the laptop");
        }
    }
    bridge.stop().map(drop)
}

fn is_denied(lab: &Lab, server: &str) -> Result<bool> {
    let status = lab.gh_net(&["status", "--json"])?.start()?.finish(SOON)?.ok()?;
    let status: Value = serde_json::from_str(&status)?;
    let denied = status["denied"].as_array().context("no list")?;
    Ok(["tcp", "udp"].iter().all(|protocol| {
        denied.iter().any(|denied| denied["server"] == server && denied["protocol"] == *protocol)
    }))
}
