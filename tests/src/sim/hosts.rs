//! The laptop's sockets and the servers behind them, and an io that drives the engine by its contract.
//!
//! It is as strict as the real one with its edge-triggered readiness: a flow is served only when the engine asks for it
//! or when its socket *became* readable or writable. A wake-up that the engine misses shows as a stall.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gh_net_engine::{Command, Engine, FlowId, Target};

use super::plan::{Flow, Pattern, Seen};
use super::rng::Rng;
use super::server_number;

/// A socket of the laptop and the server it leads to.
#[derive(Debug)]
struct Socket {
    number: usize,
    flow: Flow,
    /// When the attempt to connect ends; `None` once it has.
    connects: Option<Duration>,
    /// Whether io has closed it.
    closed: bool,
    seen: Seen,
    /// Bytes of the codespace the socket took.
    accepted: u64,
    /// Bytes of the server that io took.
    taken: u64,
    /// io has shut its writing down.
    shut: bool,
    /// io has read the server's end.
    end_taken: bool,
    /// A write would have blocked.
    blocked: bool,
    /// It became readable or writable.
    event: bool,
    read: (Duration, usize),
}

/// All sockets of the laptop.
#[derive(Debug)]
pub struct Hosts {
    flows: Vec<Flow>,
    sockets: BTreeMap<FlowId, Socket>,
    /// The last socket asked for by each connection.
    latest: Vec<Option<FlowId>>,
    /// How often bytes were written to a socket.
    pub writes: u64,
}

/// The state that the engine's driver uses.
pub struct Context<'a> {
    /// Under test.
    pub engine: &'a mut Engine,
    /// The engine's clock.
    pub at: Instant,
    /// The same as time since the start.
    pub now: Duration,
    /// The run's randomness.
    pub rng: &'a mut Rng,
    /// What streams hold.
    pub pattern: &'a Pattern,
}

impl Hosts {
    /// Servers for these connections.
    pub fn new(flows: &[Flow]) -> Self {
        Self { flows: flows.to_vec(), sockets: BTreeMap::new(), latest: vec![None; flows.len()], writes: 0 }
    }

    /// What the server of a connection has seen; `None` if it was never asked.
    pub fn seen(&self, number: usize) -> Option<Seen> {
        self.latest(number).map(|socket| socket.seen)
    }

    /// How many bytes of a connection's uplink the laptop's socket has taken, and of its downlink the engine.
    pub fn progress(&self, number: usize) -> (u64, u64) {
        self.latest(number).map_or((0, 0), |socket| (socket.accepted, socket.taken))
    }

    fn latest(&self, number: usize) -> Option<&Socket> {
        self.sockets.get(&self.latest[number]?)
    }

    /// Sockets that io has not closed.
    pub fn open(&self) -> usize {
        self.sockets.values().filter(|socket| !socket.closed).count()
    }

    /// When it wants to run again.
    pub fn wakes(&self, now: Duration) -> Option<Duration> {
        self.sockets.values().filter_map(|socket| socket.wakes(now)).min()
    }

    /// Carries out the engine's commands and lets the servers act until nothing more happens.
    pub fn run(&mut self, context: &mut Context<'_>) {
        loop {
            let mut busy = false;
            while let Some(command) = context.engine.poll_command() {
                self.carry_out(command, context);
                busy = true;
            }
            for (id, socket) in &mut self.sockets {
                busy |= socket.step(*id, context);
                if std::mem::take(&mut socket.event) {
                    self.writes += socket.serve(*id, context);
                    busy = true;
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn carry_out(&mut self, command: Command, context: &mut Context<'_>) {
        match command {
            Command::Connect { flow, target: Target::Host { address, .. }, .. } => {
                let number = server_number(address).expect("the address of one of the servers");
                let socket = Socket::new(number, self.flows[number], context.now);
                self.latest[number] = Some(flow);
                assert!(self.sockets.insert(flow, socket).is_none(), "{flow:?} is connected twice");
            }
            Command::Service(flow) => {
                // A stale flow is served, too: it must have no effect.
                match self.sockets.get_mut(&flow).filter(|socket| !socket.closed && socket.connects.is_none())
                {
                    Some(socket) => self.writes += socket.serve(flow, context),
                    None => context.engine.handle_accepted(flow, 0, context.at),
                }
            }
            Command::Abort(flow) => {
                let socket = self.sockets.get_mut(&flow).expect("a socket to reset");
                assert!(!socket.closed, "{flow:?} was closed before");
                socket.closed = true;
                if !socket.seen.done {
                    socket.seen.reset = true;
                    socket.seen.done = true;
                }
            }
            Command::Close(flow) => {
                let socket = self.sockets.get_mut(&flow).expect("a socket to close");
                assert!(!socket.closed, "{flow:?} was closed before");
                assert!(socket.end_taken, "{flow:?} is closed before the server's end was read");
                socket.closed = true;
                socket.shut = true;
            }
            other @ (Command::Connect { target: Target::Resolver | Target::Laptop(_), .. }
            | Command::SendToLaptop { .. }
            | Command::OpenUdp { .. }
            | Command::SendUdp { .. }
            | Command::OpenEcho { .. }
            | Command::SendEcho { .. }
            | Command::Hold(_)
            | Command::Resolve { .. }
            | Command::Forget(_)) => panic!("a simulation of TCP does not call for {other:?}"),
        }
    }
}

impl Socket {
    fn new(number: usize, flow: Flow, now: Duration) -> Self {
        Self {
            number,
            flow,
            connects: Some(now + flow.connect.0),
            closed: false,
            seen: Seen::default(),
            accepted: 0,
            taken: 0,
            shut: false,
            end_taken: false,
            blocked: false,
            event: false,
            read: (Duration::ZERO, 0),
        }
    }

    fn wakes(&self, now: Duration) -> Option<Duration> {
        if self.connects.is_some() {
            return if self.closed { None } else { self.connects };
        }
        if self.seen.done {
            return None;
        }
        let waiting = self.flow.server.reads.is_some() && self.unread() > 0;
        let pace = waiting.then(|| now + Duration::from_millis(1));
        self.flow.server.wakes(now).into_iter().chain(pace).min()
    }

    /// Bytes taken from the codespace that the server has not read.
    fn unread(&self) -> usize {
        (self.accepted - self.seen.received) as usize
    }

    fn space(&self) -> usize {
        self.flow.server.buffer.saturating_sub(self.unread())
    }

    /// The server and its kernel act. Returns whether anything was done.
    fn step(&mut self, id: FlowId, context: &mut Context<'_>) -> bool {
        if let Some(at) = self.connects {
            return !self.closed && context.now >= at && self.connected(id, context);
        }
        if self.seen.done {
            return false;
        }
        if self.flow.server.resets.is_some_and(|at| context.now >= at) {
            self.seen.done = true;
            if !std::mem::replace(&mut self.closed, true) {
                context.engine.handle_failed(id, context.at);
            }
            return true;
        }
        let before = self.seen;
        self.server_reads(context.now);
        self.server_writes();
        self.seen.done |= self.seen.end && self.seen.ended;
        self.seen != before
    }

    fn connected(&mut self, id: FlowId, context: &mut Context<'_>) -> bool {
        self.connects = None;
        match self.flow.connect.1 {
            Ok(()) => {
                self.seen.connected = true;
                self.event = true;
                context.engine.handle_connected(id, context.at);
            }
            Err(error) => {
                self.closed = true;
                self.seen.done = true;
                context.engine.handle_connect_failed(id, error, context.at);
            }
        }
        true
    }

    fn server_reads(&mut self, now: Duration) {
        if !self.flow.server.is_reading(now) {
            return;
        }
        if now >= self.read.0 + Duration::from_millis(1) {
            self.read = (now, 0);
        }
        let most = self.flow.server.reads.map_or(usize::MAX, |pace| pace.saturating_sub(self.read.1));
        let count = self.unread().min(most);
        self.read.1 += count;
        self.seen.received += count as u64;
        self.event |= count > 0 && std::mem::take(&mut self.blocked);
        self.seen.end |= self.shut && self.unread() == 0;
    }

    fn server_writes(&mut self) {
        let plan = self.flow.server;
        if self.seen.ended || (plan.sends_after_end && !self.seen.end) {
            return;
        }
        let space = plan.buffer as u64 - (self.seen.sent - self.taken).min(plan.buffer as u64);
        let count = space.min(plan.bytes - self.seen.sent);
        self.seen.sent += count;
        self.event |= count > 0;
        if self.seen.sent == plan.bytes && (!plan.ends_after_end || self.seen.end) {
            self.seen.ended = true;
            self.event = true;
        }
    }

    /// What io does for a flow. Returns how often it wrote.
    fn serve(&mut self, id: FlowId, context: &mut Context<'_>) -> u64 {
        if self.closed || self.connects.is_some() {
            return 0;
        }
        let writes = self.serve_uplink(id, context);
        self.serve_downlink(id, context);
        writes
    }

    fn serve_uplink(&mut self, id: FlowId, context: &mut Context<'_>) -> u64 {
        let mut writes = 0;
        loop {
            let space = self.space();
            let mut slices = [IoSlice::new(&[]); 8];
            let count = context.engine.uplink(id, &mut slices);
            if count == 0 {
                self.shut |= context.engine.uplink_ended(id);
                return writes;
            }
            if space == 0 {
                self.blocked = true;
                return writes;
            }
            let mut left = 1 + context.rng.below(space as u64) as usize;
            let mut took = 0;
            for slice in &slices[..count] {
                let part = &slice[..slice.len().min(left)];
                assert!(!slice.is_empty(), "an empty slice");
                context.pattern.check(2 * self.number as u64, self.accepted + took as u64, part, "server");
                took += part.len();
                left -= part.len();
            }
            assert!(!self.shut, "bytes after the end");
            self.accepted += took as u64;
            writes += 1;
            context.engine.handle_accepted(id, took, context.at);
        }
    }

    fn serve_downlink(&mut self, id: FlowId, context: &mut Context<'_>) {
        loop {
            let available = self.seen.sent - self.taken;
            if available == 0 {
                if self.seen.ended && !std::mem::replace(&mut self.end_taken, true) {
                    context.engine.handle_end(id, context.at);
                }
                return;
            }
            let room = context.engine.downlink_room(id);
            if room == 0 {
                return;
            }
            let most = room.min(available as usize).min(1 + context.rng.below(64 * 1024) as usize);
            let stream = 2 * self.number as u64 + 1;
            let data = Bytes::copy_from_slice(context.pattern.at(stream, self.taken, most));
            self.taken += data.len() as u64;
            context.engine.handle_data(id, data, context.at);
        }
    }
}
