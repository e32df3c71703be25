//! The codespace: smoltcp as its network stack, and the programs that use it.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use gh_net_testkit::net::Tun;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::{Duration as SmolDuration, Instant as SmolInstant};

use super::plan::{Flow, Pattern, Seen};
use super::{CLIENT_V4, CLIENT_V6, GATEWAY_V4, GATEWAY_V6, client, server};

/// A program and its socket.
#[derive(Debug)]
struct Program {
    number: usize,
    flow: Flow,
    handle: Option<SocketHandle>,
    seen: Seen,
    /// Read since the last tick of its pace.
    read: (Duration, usize),
}

/// The codespace.
pub struct Codespace {
    device: Tun,
    interface: Interface,
    sockets: SocketSet<'static>,
    programs: Vec<Program>,
}

fn instant(now: Duration) -> SmolInstant {
    SmolInstant::from_micros(now.as_micros() as i64)
}

impl Codespace {
    /// A codespace whose TUN device has this MTU.
    pub fn new(mtu: usize, flows: &[Flow], seed: u64) -> Self {
        let mut device = Tun::new(mtu, usize::MAX);
        let addresses = [(CLIENT_V4.into(), 24), (CLIENT_V6.into(), 64)];
        let gateways = [GATEWAY_V4.into(), GATEWAY_V6.into()];
        let interface = device.interface(&addresses, &gateways, seed);
        let program = |(number, flow): (usize, &Flow)| Program {
            number,
            flow: *flow,
            handle: None,
            seen: Seen::default(),
            read: (Duration::ZERO, 0),
        };
        let programs = flows.iter().enumerate().map(program).collect();
        Self { device, interface, sockets: SocketSet::new(Vec::new()), programs }
    }

    /// A packet comes out of the tunnel.
    pub fn receive(&mut self, packet: Bytes) {
        self.device.received.push_back(packet);
    }

    /// The next packet for the tunnel.
    pub fn transmit(&mut self) -> Option<Bytes> {
        self.device.sent.pop_front()
    }

    /// What the programs have seen.
    pub fn seen(&self) -> impl Iterator<Item = Seen> {
        self.programs.iter().map(|program| program.seen)
    }

    /// Lets kernel and programs act until nothing more happens at this instant.
    pub fn run(&mut self, now: Duration, pattern: &Pattern) {
        loop {
            self.interface.poll(instant(now), &mut self.device, &mut self.sockets);
            let mut busy = false;
            for program in &mut self.programs {
                busy |= program.step(&mut self.sockets, &mut self.interface, now, pattern);
            }
            if !busy {
                return;
            }
        }
    }

    /// When it wants to run again.
    pub fn wakes(&mut self, now: Duration) -> Option<Duration> {
        let kernel = self.interface.poll_at(instant(now), &self.sockets);
        let kernel = kernel.map(|at| Duration::from_micros(at.total_micros().max(0) as u64).max(now));
        self.programs.iter().filter_map(|program| program.wakes(&self.sockets, now)).chain(kernel).min()
    }
}

impl Program {
    fn wakes(&self, sockets: &SocketSet<'static>, now: Duration) -> Option<Duration> {
        if self.seen.done {
            return None;
        }
        let Some(handle) = self.handle else { return Some(self.flow.starts) };
        let waiting = self.flow.client.reads.is_some() && sockets.get::<Socket>(handle).recv_queue() > 0;
        let pace = waiting.then(|| now + Duration::from_millis(1));
        self.flow.client.wakes(now).into_iter().chain(pace).min()
    }

    /// Returns whether anything was done.
    fn step(
        &mut self,
        sockets: &mut SocketSet<'static>,
        interface: &mut Interface,
        now: Duration,
        pattern: &Pattern,
    ) -> bool {
        if self.seen.done {
            return self.let_go(sockets);
        }
        let Some(handle) = self.handle else {
            if now >= self.flow.starts {
                self.connect(sockets, interface);
            }
            return self.handle.is_some();
        };
        let socket = sockets.get_mut::<Socket>(handle);
        self.seen.connected |= socket.may_send() || socket.may_recv();
        if self.flow.client.resets.is_some_and(|at| now >= at) {
            socket.abort();
            self.seen.done = true;
            return true;
        }
        let before = self.seen;
        self.read(socket, now, pattern);
        self.write(socket, pattern);
        self.seen.reset |= self.seen.end && !self.seen.ended && socket.state() == State::Closed;
        self.seen.done |= self.seen.reset || (self.seen.end && self.seen.ended);
        self.seen != before
    }

    fn connect(&mut self, sockets: &mut SocketSet<'static>, interface: &mut Interface) {
        let buffer = || SocketBuffer::new(vec![0; self.flow.client.buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        if !self.flow.is_peaceful() {
            // A reset may be lost; only a keepalive probe finds out.
            socket.set_keep_alive(Some(SmolDuration::from_secs(20)));
            socket.set_timeout(Some(SmolDuration::from_secs(100)));
        }
        let (from, to) = (client(self.number, self.flow.v6), server(self.number, self.flow.v6));
        let connected = socket.connect(interface.context(), (smol(to.ip()), to.port()), from.port());
        connected.expect("a fresh socket connects");
        self.handle = Some(sockets.add(socket));
    }

    fn read(&mut self, socket: &mut Socket<'_>, now: Duration, pattern: &Pattern) {
        // smoltcp discards unread data when TIME-WAIT ends.
        let last_chance = matches!(socket.state(), State::TimeWait | State::Closed);
        if !self.flow.client.is_reading(now) && !last_chance {
            return;
        }
        if now >= self.read.0 + Duration::from_millis(1) {
            self.read = (now, 0);
        }
        loop {
            let pace = self.flow.client.reads.filter(|_| !last_chance);
            let most = pace.map_or(usize::MAX, |pace| pace.saturating_sub(self.read.1));
            if most == 0 {
                return;
            }
            let (stream, position) = (2 * self.number as u64 + 1, self.seen.received);
            let read = socket.recv(|bytes| {
                let bytes = &bytes[..bytes.len().min(most)];
                pattern.check(stream, position, bytes, "client");
                (bytes.len(), bytes.len())
            });
            match read {
                Ok(0) => return,
                Ok(count) => {
                    self.seen.received += count as u64;
                    self.read.1 += count;
                }
                Err(RecvError::Finished) => {
                    self.seen.end = true;
                    return;
                }
                Err(RecvError::InvalidState) => {
                    self.seen.reset |= socket.state() == State::Closed;
                    return;
                }
            }
        }
    }

    fn write(&mut self, socket: &mut Socket<'_>, pattern: &Pattern) {
        let plan = self.flow.client;
        if self.seen.ended || !socket.may_send() || (plan.sends_after_end && !self.seen.end) {
            return;
        }
        while self.seen.sent < plan.bytes {
            let left = (plan.bytes - self.seen.sent) as usize;
            let bytes = pattern.at(2 * self.number as u64, self.seen.sent, left);
            match socket.send_slice(bytes) {
                Ok(0) | Err(_) => return,
                Ok(count) => self.seen.sent += count as u64,
            }
        }
        if !plan.ends_after_end || self.seen.end {
            socket.close();
            self.seen.ended = true;
        }
    }

    /// Takes a closed socket out of the kernel's set.
    fn let_go(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        if let Some(handle) = self.handle
            && sockets.get::<Socket>(handle).state() == State::Closed
            && sockets.get::<Socket>(handle).remote_endpoint().is_none()
        {
            sockets.remove(handle);
            self.handle = None;
        }
        false
    }
}

fn smol(address: IpAddr) -> smoltcp::wire::IpAddress {
    address.into()
}
