//! The sockets of the engine's flows: carries out the engine's commands and serves the sockets that are ready, in
//! turn, each a bounded amount at a time.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::arena::Arena;
use super::datagram::{self, SendError};
use super::dns::{Answer, Client, Queries};
use super::icmp::{self, Echo};
use super::names::Lookup;
use super::own::OwnAddresses;
use super::reactor::{Reactor, Readiness};
use super::served::Served;
use super::stream::{self, MAX_STREAMS, MAX_WAITING, Stream};
use super::tcp::{self, Connection};
use super::udp::Mapping;
use super::warning::{Warning, Warnings};
use crate::engine::{Command, ConnectError, Engine, FlowId, Loopback, Target, Unreachable, UnreachableKind};
use crate::policy::InterfaceIndex;
use crate::resolver::{self, Named};

/// Maximum number of flows served per turn.
const TURN: usize = 128;
/// The hop limit of datagrams that stay on the laptop.
const LOOPBACK_HOPS: u8 = 64;
/// Interval at which flows that wait for time to pass are served.
const TICK: Duration = Duration::from_secs(1);

/// A flow's socket.
#[derive(Debug)]
enum Socket {
    Tcp(Connection),
    Dns(Stream),
    Udp(Mapping),
    Echo(Echo),
    /// A datagram socket that could not be opened: each datagram tries again.
    Closed {
        kind: Datagrams,
        v6: bool,
        interface: Option<InterfaceIndex>,
    },
}

/// The kinds of datagram sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Datagrams {
    Udp,
    Echo,
}

#[derive(Debug)]
struct Flow {
    socket: Socket,
    /// Whether it is in [`Flows::ready`].
    queued: bool,
}

/// Failures, for the status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Failures {
    /// Datagrams and echo requests that the laptop's kernel did not accept.
    pub(super) datagrams: u64,
    /// Sockets that could not be opened.
    pub(super) sockets: u64,
    /// Connections to the resolver that gave way to others, or whose answers were too many bytes.
    pub(super) streams: u64,
}

/// All sockets.
#[derive(Debug)]
pub(super) struct Flows {
    table: HashMap<FlowId, Flow>,
    /// Those of them that are connections to the resolver.
    streams: BTreeSet<FlowId>,
    /// Flows to be served, each once.
    ready: VecDeque<FlowId>,
    reactor: Reactor,
    own: OwnAddresses,
    queries: Queries,
    arena: Arena,
    /// When flows that wait for time to pass are served next.
    tick: Option<Instant>,
    failures: Failures,
    warnings: Warnings,
}

impl Flows {
    /// No sockets yet. Must be called within a tokio runtime.
    pub(super) fn new(own: OwnAddresses, queries: Queries) -> io::Result<Self> {
        Ok(Self {
            table: HashMap::new(),
            streams: BTreeSet::new(),
            ready: VecDeque::new(),
            reactor: Reactor::new()?,
            own,
            queries,
            arena: Arena::default(),
            tick: None,
            failures: Failures::default(),
            warnings: Warnings::default(),
        })
    }

    /// The failures so far.
    pub(super) fn failures(&self) -> Failures {
        self.failures
    }

    /// The latest warnings.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        self.warnings.to_vec()
    }

    /// The latest DNS lookups, oldest first.
    pub(super) fn lookups(&self) -> Vec<Lookup> {
        self.queries.lookups()
    }

    /// DNS queries and connections to the resolver that were dropped because there were too many.
    pub(super) fn queries_dropped(&self) -> u64 {
        self.queries.dropped() + self.failures.streams
    }

    /// How many sockets there are.
    pub(super) fn count(&self) -> usize {
        self.table.len()
    }

    /// Whether flows wait for their turn.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tick
    }

    /// Takes the reactor's events.
    pub(super) fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (table, ready) = (&mut self.table, &mut self.ready);
        self.reactor.poll(cx, |id, readiness| {
            let Some(flow) = table.get_mut(&id) else { return };
            flow.note(readiness);
            flow.queue(id, ready);
        })
    }

    /// Takes one of the resolver's answers.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        engine: &mut Engine,
        now: Instant,
    ) -> Poll<()> {
        let (client, answer): Answer = std::task::ready!(self.queries.poll_answer(cx));
        let message = answer.map(|resolver::Answer { message, named, .. }| {
            // Before the answer leaves: the client may connect at once.
            if let Some(Named { names, addresses }) = named {
                engine.handle_names(&names, &addresses, now);
            }
            message
        });
        match (client, message) {
            (Client::Datagram(query), Some(message)) => engine.handle_dns_answer(query, message),
            (Client::Datagram(_), None) => {}
            (Client::Stream(id), message) => self.answer_stream(id, message, engine, now),
        }
        Poll::Ready(())
    }

    fn answer_stream(&mut self, id: FlowId, message: Option<Bytes>, engine: &mut Engine, now: Instant) {
        if let Some(Flow { socket: Socket::Dns(stream), .. }) = self.table.get_mut(&id) {
            stream.answer(message, now);
            self.mark(id);
            self.bound_answers(engine, now);
        }
        self.serve_waiting_streams();
    }

    fn mark(&mut self, id: FlowId) {
        if let Some(flow) = self.table.get_mut(&id) {
            flow.queue(id, &mut self.ready);
        }
    }

    /// Queues the flows that wait for time to pass, once the tick has come.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.tick.is_none_or(|tick| now < tick) {
            return;
        }
        self.tick = None;
        for (id, flow) in &mut self.table {
            if flow.waits_for_time() {
                // Serving it sets the next tick if it still waits.
                flow.queue(*id, &mut self.ready);
            }
        }
    }

    /// Serves flows that are ready, each at most once, up to the bound of a turn.
    pub(super) fn serve(&mut self, engine: &mut Engine, now: Instant) {
        let mut left = TURN;
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { return };
            // One that is gone takes no turn: a flood of short flows would leave more than are taken out.
            let Some(flow) = self.table.get_mut(&id) else { continue };
            left -= 1;
            flow.queued = false;
            let served = match &mut flow.socket {
                Socket::Tcp(connection) => connection.serve(id, engine, &mut self.arena, now),
                Socket::Dns(stream) => stream.serve(id, engine, &mut self.queries, now),
                Socket::Udp(mapping) => mapping.serve(id, engine, &mut self.arena, now),
                Socket::Echo(echo) => echo.serve(id, engine, &mut self.arena, now),
                Socket::Closed { .. } => Served::Idle,
            };
            match served {
                Served::Idle => {}
                Served::Later => {
                    self.tick.get_or_insert(now + TICK);
                }
                Served::Again => flow.queue(id, &mut self.ready),
                Served::Failed => {
                    self.remove(id);
                    engine.handle_failed(id, now);
                }
                Served::Unconnected(error) => {
                    self.remove(id);
                    engine.handle_connect_failed(id, error, now);
                }
            }
            if left == 0 {
                return;
            }
        }
    }

    /// Resets the connections whose sockets are bound to one of these addresses, which the laptop does not have any
    /// more: their packets would never be answered, and the kernel notices only after many minutes.
    pub(super) fn fail_bound_to(&mut self, addresses: &[IpAddr], engine: &mut Engine, now: Instant) {
        let is_lost = |flow: &Flow| match &flow.socket {
            Socket::Tcp(connection) => connection.local_address().is_some_and(|own| addresses.contains(&own)),
            Socket::Dns(_) | Socket::Udp(_) | Socket::Echo(_) | Socket::Closed { .. } => false,
        };
        let lost: Vec<FlowId> =
            self.table.iter().filter(|(_, flow)| is_lost(flow)).map(|(id, _)| *id).collect();
        for id in lost {
            if let Some(Flow { socket: Socket::Tcp(connection), .. }) = self.remove(id) {
                connection.abort();
            }
            engine.handle_failed(id, now);
        }
    }

    /// There was no room for another flow.
    pub(super) fn note_full(&mut self, now: Instant) {
        self.warnings.add(Warning::TableFull, now);
    }

    /// Carries out one command of the engine.
    pub(super) fn carry_out(&mut self, command: Command, engine: &mut Engine, now: Instant) {
        match command {
            Command::Connect { flow, target, hop_limit } => {
                self.connect(flow, target, hop_limit, engine, now)
            }
            Command::Service(flow) => self.mark(flow),
            Command::Abort(flow) => {
                if let Some(Flow { socket: Socket::Tcp(connection), .. }) = self.remove(flow) {
                    connection.abort();
                }
            }
            Command::Close(flow) => drop(self.remove(flow)),
            Command::Hold(flow) => {
                if let Some(Flow { socket: Socket::Tcp(connection), .. }) = self.table.get(&flow) {
                    connection.confine();
                }
            }
            Command::OpenUdp { flow, v6, interface } => {
                self.open(flow, Datagrams::Udp, v6, interface, now);
            }
            Command::OpenEcho { flow, v6, interface } => {
                self.open(flow, Datagrams::Echo, v6, interface, now);
            }
            Command::SendUdp { flow, destination, hop_limit, payload } => {
                let sent = self.send_udp(flow, destination, hop_limit, &payload, now);
                self.account(flow, destination, None, sent, engine);
            }
            Command::SendToLaptop { flow, destination, payload } => {
                let sent = self.send_to_laptop(flow, destination, &payload, now);
                self.account(flow, destination.address(), None, sent, engine);
            }
            Command::SendEcho { flow, destination, sequence, hop_limit, payload } => {
                let sent = self.send_echo(flow, destination, sequence, hop_limit, &payload, now);
                self.account(flow, SocketAddr::new(destination, 0), Some(sequence), sent, engine);
            }
            Command::Resolve { query, message } => {
                self.queries.ask(Client::Datagram(query), &message);
            }
            Command::Forget(query) => self.queries.forget(Client::Datagram(query)),
        }
    }

    fn connect(
        &mut self,
        id: FlowId,
        target: Target,
        hop_limit: Option<u8>,
        engine: &mut Engine,
        now: Instant,
    ) {
        let (address, interface) = match target {
            Target::Host { address, interface } => (address, interface),
            Target::Laptop(loopback) => return self.connect_to_laptop(id, loopback, hop_limit, engine, now),
            Target::Resolver => {
                return self.accept_stream(id, engine, now);
            }
        };
        if self.own.contain(address.ip()) {
            return engine.handle_connect_failed(id, ConnectError::Prohibited, now);
        }
        self.open_tcp(id, address, interface, hop_limit, engine, now);
    }

    /// Accepts a connection to the resolver. Another one gives way if there are too many.
    fn accept_stream(&mut self, id: FlowId, engine: &mut Engine, now: Instant) {
        if self.streams().count() >= MAX_STREAMS
            && let Some(other) = stream::least_wanted(self.streams())
        {
            self.end_stream(other, engine, now);
        }
        self.streams.insert(id);
        self.insert(id, Socket::Dns(Stream::new(now)));
        engine.handle_connected(id, now);
        self.mark(id);
    }

    /// Has the streams with most answers waiting give way if all together are too many bytes.
    fn bound_answers(&mut self, engine: &mut Engine, now: Instant) {
        while self.streams().map(|(_, stream)| stream.waiting()).sum::<usize>() > MAX_WAITING
            && let Some((most, _)) = self.streams().max_by_key(|(_, stream)| stream.waiting())
        {
            self.end_stream(most, engine, now);
        }
    }

    fn end_stream(&mut self, id: FlowId, engine: &mut Engine, now: Instant) {
        self.failures.streams += 1;
        self.remove(id);
        engine.handle_failed(id, now);
    }

    fn streams(&self) -> impl Iterator<Item = (FlowId, &Stream)> + Clone {
        self.streams.iter().filter_map(|id| match &self.table.get(id)?.socket {
            Socket::Dns(stream) => Some((*id, stream)),
            Socket::Tcp(_) | Socket::Udp(_) | Socket::Echo(_) | Socket::Closed { .. } => None,
        })
    }

    /// Forgets a flow.
    fn remove(&mut self, id: FlowId) -> Option<Flow> {
        if self.streams.remove(&id) {
            self.queries.forget(Client::Stream(id));
            self.serve_waiting_streams();
        }
        self.table.remove(&id)
    }

    /// There may be room for questions that waited in their streams.
    fn serve_waiting_streams(&mut self) {
        for id in self.queries.take_waiting() {
            self.mark(id);
        }
    }

    /// Connects to a port of the laptop itself: the one place that does not ask whose address it is.
    fn connect_to_laptop(
        &mut self,
        id: FlowId,
        loopback: Loopback,
        hop_limit: Option<u8>,
        engine: &mut Engine,
        now: Instant,
    ) {
        self.open_tcp(id, loopback.address(), None, hop_limit, engine, now);
    }

    fn open_tcp(
        &mut self,
        id: FlowId,
        address: SocketAddr,
        interface: Option<InterfaceIndex>,
        hop_limit: Option<u8>,
        engine: &mut Engine,
        now: Instant,
    ) {
        let opened = Connection::open(address, interface, hop_limit).and_then(|connection| {
            self.reactor.register(id, &connection)?;
            Ok(connection)
        });
        match opened {
            Ok(connection) => self.insert(id, Socket::Tcp(connection)),
            Err(error) => {
                self.note_shortage(&error, now);
                engine.handle_connect_failed(id, tcp::connect_error(&error), now);
            }
        }
    }

    fn insert(&mut self, id: FlowId, socket: Socket) {
        self.table.insert(id, Flow { socket, queued: false });
    }

    /// Opens a datagram socket, or records that it is to be opened later.
    fn open(
        &mut self,
        id: FlowId,
        kind: Datagrams,
        v6: bool,
        interface: Option<InterfaceIndex>,
        now: Instant,
    ) -> Option<UnreachableKind> {
        let opened = match kind {
            Datagrams::Udp => Mapping::open(v6, interface).and_then(|mut mapping| {
                self.reactor.register(id, mapping.socket())?;
                Ok(Socket::Udp(mapping))
            }),
            // The low bits of the flow's number serve as identifier: consecutive flows differ in them.
            Datagrams::Echo => Echo::open(v6, interface, id.0 as u16).and_then(|mut echo| {
                self.reactor.register(id, echo.socket())?;
                Ok(Socket::Echo(echo))
            }),
        };
        match opened {
            Ok(socket) => {
                self.insert(id, socket);
                None
            }
            Err(error) => {
                self.insert(id, Socket::Closed { kind, v6, interface });
                self.note_shortage(&error, now);
                if kind == Datagrams::Echo && icmp::forbidden(&error) {
                    self.warnings.add(Warning::EchoForbidden, now);
                }
                datagram::unreachable_kind(&error)
            }
        }
    }

    /// Tries again to open a datagram socket that could not be opened before.
    fn reopen(&mut self, id: FlowId, now: Instant) -> Result<(), SendError> {
        if let Some(&Flow { socket: Socket::Closed { kind, v6, interface }, .. }) = self.table.get(&id)
            && let Some(kind) = self.open(id, kind, v6, interface, now)
        {
            return Err(SendError::Unreachable(kind));
        }
        Ok(())
    }

    fn refuse_own(&mut self, destination: IpAddr, now: Instant) -> Result<(), SendError> {
        let own = self.own.contain_recently(destination, now);
        if own { Err(SendError::Unreachable(UnreachableKind::Prohibited)) } else { Ok(()) }
    }

    fn send_udp(
        &mut self,
        id: FlowId,
        destination: SocketAddr,
        hop_limit: u8,
        payload: &Bytes,
        now: Instant,
    ) -> Result<(), SendError> {
        self.refuse_own(destination.ip(), now)?;
        self.reopen(id, now)?;
        match self.table.get_mut(&id) {
            Some(Flow { socket: Socket::Udp(mapping), .. }) => mapping.send(destination, hop_limit, payload),
            Some(_) | None => Err(SendError::Dropped),
        }
    }

    /// Sends a datagram to a port of the laptop itself, see [`Self::connect_to_laptop`].
    fn send_to_laptop(
        &mut self,
        id: FlowId,
        destination: Loopback,
        payload: &Bytes,
        now: Instant,
    ) -> Result<(), SendError> {
        self.reopen(id, now)?;
        match self.table.get_mut(&id) {
            Some(Flow { socket: Socket::Udp(mapping), .. }) => {
                mapping.send(destination.address(), LOOPBACK_HOPS, payload)
            }
            Some(_) | None => Err(SendError::Dropped),
        }
    }

    fn send_echo(
        &mut self,
        id: FlowId,
        destination: IpAddr,
        sequence: u16,
        hop_limit: u8,
        payload: &Bytes,
        now: Instant,
    ) -> Result<(), SendError> {
        self.refuse_own(destination, now)?;
        self.reopen(id, now)?;
        match self.table.get_mut(&id) {
            Some(Flow { socket: Socket::Echo(echo), .. }) => {
                echo.send(destination, sequence, hop_limit, payload)
            }
            Some(_) | None => Err(SendError::Dropped),
        }
    }

    /// Counts a datagram that was not sent, and tells the engine if its sender should learn the reason.
    fn account(
        &mut self,
        flow: FlowId,
        destination: SocketAddr,
        sequence: Option<u16>,
        sent: Result<(), SendError>,
        engine: &mut Engine,
    ) {
        match sent {
            Ok(()) => {}
            Err(SendError::Dropped) => self.failures.datagrams += 1,
            Err(SendError::Unreachable(kind)) => {
                self.failures.datagrams += 1;
                let error = Unreachable { offender: None, destination, sequence, kind };
                engine.handle_unreachable(flow, error);
            }
        }
    }

    fn note_shortage(&mut self, error: &io::Error, now: Instant) {
        self.failures.sockets += 1;
        let short =
            matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM));
        if short {
            let warning = Warning::SocketShortage { error: error.to_string(), open: self.table.len() };
            self.warnings.add(warning, now);
        }
    }
}

impl Flow {
    fn queue(&mut self, id: FlowId, ready: &mut VecDeque<FlowId>) {
        if !self.queued {
            self.queued = true;
            ready.push_back(id);
        }
    }

    fn note(&mut self, readiness: Readiness) {
        match &mut self.socket {
            Socket::Tcp(connection) => connection.note(readiness),
            Socket::Udp(mapping) => mapping.socket().note(readiness),
            Socket::Echo(echo) => echo.socket().note(readiness),
            Socket::Dns(_) | Socket::Closed { .. } => {}
        }
    }

    fn waits_for_time(&self) -> bool {
        match &self.socket {
            Socket::Tcp(connection) => connection.has_failed(),
            Socket::Dns(_) => true,
            Socket::Udp(_) | Socket::Echo(_) | Socket::Closed { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests;
