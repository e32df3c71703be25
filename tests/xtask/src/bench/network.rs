//! Clients that use a tunnel: iperf3 for bulk, our own ones for round trips and connections.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gh_net_lab::servers::ECHO;
use gh_net_lab::{Host, Process};

use super::measures::{echoes, trip};

/// The corporate server.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);
/// Each run of iperf3 has its own server, so that a server that hangs does not affect the next run.
const IPERF: u16 = 5202;
/// Few enough connections not to exhaust the ports: each occupies one for a minute (TIME-WAIT).
const CONNECTIONS: usize = 4000;
/// Time limit for one answer, after which the tunnel counts as hung.
const PATIENCE: Duration = Duration::from_secs(10);
const PROXYCHAINS: &str = "/run/lab/proxychains.conf";

/// How a program connects.
#[derive(Clone, Copy)]
pub(super) enum Dial {
    /// Directly, as any program does.
    Direct,
    /// Through the SOCKS5 proxy on this local port.
    Socks(u16),
}

/// The clients on one host. Each runs for about `limit`.
pub(super) struct Client<'lab> {
    pub(super) host: &'lab Host,
    pub(super) dial: Dial,
    pub(super) corp: &'lab Host,
    pub(super) limit: Duration,
}

impl Client<'_> {
    /// The receiver's rate, in Gbit/s.
    pub(super) fn iperf(&self, flags: &str) -> Result<f64> {
        let (client, server) = self.start_iperf(self.limit, &format!("--json {flags}"))?;
        let output = client.finish(self.limit + 3 * PATIENCE)?;
        let report: serde_json::Value = serde_json::from_str(&output.text())
            .with_context(|| format!("iperf3 said {}{}", output.text(), output.errors()))?;
        if let Some(error) = report["error"].as_str() {
            bail!("iperf3: {error}");
        }
        server.finish(PATIENCE).context("iperf3's server")?;
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(rate.context("iperf3 reported no rate")? / 1e9)
    }

    /// Connections per second, one after the other, each with the echo of one byte. So a tunnel that accepts connections
    /// before the server has gains nothing by that.
    pub(super) fn connections(&self) -> Result<f64> {
        let (dial, limit) = (self.dial, self.limit);
        self.in_network(move || {
            let started = Instant::now();
            let mut count = 0;
            while count < CONNECTIONS && started.elapsed() < limit {
                trip(&mut dial.connect()?)?;
                count += 1;
            }
            Ok(count as f64 / started.elapsed().as_secs_f64())
        })
    }

    pub(super) fn echo(&self) -> Result<Vec<Duration>> {
        let (dial, limit) = (self.dial, self.limit);
        self.in_network(move || echoes(&mut dial.connect()?, limit))
    }

    /// The echo during an unlimited download.
    pub(super) fn loaded_echo(&self) -> Result<Vec<Duration>> {
        // The first report comes after a second; the rest is for connecting.
        let longer = self.limit + Duration::from_secs(3);
        let (download, server) = self.start_iperf(longer, "--reverse --interval 1 --forceflush")?;
        download.wait_for("bits/sec", 2 * PATIENCE)?;
        let trips = self.echo()?;
        download.finish(longer + 3 * PATIENCE)?.ok()?;
        server.finish(PATIENCE).context("iperf3's server")?;
        Ok(trips)
    }

    /// A client on the host and its server.
    fn start_iperf(&self, time: Duration, flags: &str) -> Result<(Process, Process)> {
        let server = self.corp.spawn(&format!("iperf3 --server --one-off --forceflush --port {IPERF}"))?;
        server.wait_for("Server listening", PATIENCE)?;
        let client = format!("iperf3 --client {SERVER} --port {IPERF} --time {} {flags}", time.as_secs());
        let client = match self.dial {
            Dial::Direct => client,
            // iperf3 does not speak SOCKS; proxychains adds it.
            Dial::Socks(port) => {
                let config = format!("strict_chain\n[ProxyList]\nsocks5 127.0.0.1 {port}\n");
                self.host.write(PROXYCHAINS, 0o644, config)?;
                format!("proxychains4 -q -f {PROXYCHAINS} {client}")
            }
        };
        Ok((self.host.spawn(&client)?, server))
    }

    /// Runs `job` in the host's network.
    fn in_network<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        Ok(self.host.thread(job).join().expect("a client does not panic")?)
    }
}

impl Dial {
    /// Connects to the corporate echo.
    pub(super) fn connect(self) -> io::Result<TcpStream> {
        let mut stream = match self {
            Self::Direct => TcpStream::connect((SERVER, ECHO))?,
            Self::Socks(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, port))?,
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        if let Self::Socks(_) = self {
            ask_socks(&mut stream)?;
        }
        Ok(stream)
    }
}

/// Asks a SOCKS5 proxy to connect to the corporate echo (RFC 1928).
fn ask_socks(stream: &mut TcpStream) -> io::Result<()> {
    let refused = |what, answer: &[u8]| Err(io::Error::other(format!("the proxy {what}: {answer:?}")));
    let mut request = vec![5, 1, 0, 1];
    request.extend(SERVER.octets());
    request.extend(ECHO.to_be_bytes());

    stream.write_all(&[5, 1, 0])?;
    let mut method = [0; 2];
    stream.read_exact(&mut method)?;
    if method != [5, 0] {
        return refused("wants a login", &method);
    }
    stream.write_all(&request)?;
    let mut reply = [0; 10];
    stream.read_exact(&mut reply)?;
    if reply[..4] != [5, 0, 0, 1] {
        return refused("did not connect", &reply);
    }
    Ok(())
}
