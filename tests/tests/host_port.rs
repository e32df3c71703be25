//! `--host-port`: the laptop's own ports at host.gh-net.internal, and nothing else of the laptop.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Lab, Options};

const SOON: Duration = Duration::from_secs(10);

/// A server that sends its address to whoever connects, until the process ends.
fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    let text = address.to_owned();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{text}");
        }
    });
    Ok(())
}

/// The same over UDP.
fn serve_datagrams(address: &str) -> Result<()> {
    let socket = UdpSocket::bind(address)?;
    let text = address.to_owned();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(text.as_bytes(), client);
        }
    });
    Ok(())
}

fn ask(lab: &Lab, host: String) -> Result<String> {
    let client = move || -> Result<String> {
        let to: SocketAddr = host.parse()?;
        let socket = UdpSocket::bind(if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(SOON))?;
        socket.send(b"?")?;
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    lab.codespace.thread(client).join().expect("the client does not panic")
}

#[test]
fn the_codespace_reaches_the_listed_ports_of_the_laptop_and_no_others() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let servers = || -> Result<()> {
        let addresses =
            ["127.0.0.1:3000", "[::1]:3000", "127.0.0.1:3001", "192.168.1.20:3002", "127.0.0.1:3003"];
        addresses.into_iter().try_for_each(serve)?;
        serve_datagrams("127.0.0.1:3000")?;
        serve_datagrams("[::1]:3000")
    };
    lab.laptop.thread(servers).join().expect("no panic")?;
    let ports = ["3000", "8080:3001", "3002", "3003"].map(|port| ["--host-port", port]).concat();
    let bridge = lab.bridge(&[&ports[..], &["--deny", "host.gh-net.internal:3003"]].concat())?;
    let curl = |family: &str, port: u16| {
        let line = format!("curl -sS --max-time 5 {family} http://host.gh-net.internal:{port}/");
        Ok::<_, anyhow::Error>(lab.codespace.run(&line)?.text())
    };
    assert_eq!(curl("-4", 3000)?, "127.0.0.1:3000");
    assert_eq!(curl("-6", 3000)?, "[::1]:3000");
    assert_eq!(curl("-4", 8080)?, "127.0.0.1:3001");
    // Not listed; on the LAN's address only; denied by a rule; on all addresses, but not listed.
    for closed in [3001, 3002, 3003, 8000] {
        assert_eq!(curl("-4", closed)?, "", "{closed}");
    }
    for other in ["192.168.1.20:3002", "192.168.1.20:3000"] {
        assert_eq!(
            lab.codespace.run(&format!("curl -sS --max-time 5 http://{other}/"))?.text(),
            "",
            "{other}"
        );
    }
    let gateway = |database: &str| {
        let found = lab.codespace.shell(&format!("getent {database} host.gh-net.internal"))?;
        found.split_whitespace().next().map(str::to_owned).context("no address")
    };
    assert_eq!(ask(&lab, format!("{}:3000", gateway("ahostsv4")?))?, "127.0.0.1:3000");
    assert_eq!(ask(&lab, format!("[{}]:3000", gateway("ahostsv6")?))?, "[::1]:3000");
    let log = bridge.log();
    ensure!(log.contains("to allow it: --host-port 3001"), "{log}");
    Ok(())
}
