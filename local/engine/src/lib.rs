//! The engine: whole IP packets on one side, the user's sockets on the other.
//!
//! It is pure. It holds no socket, no clock, no task: `now` is a parameter, packets and socket events come
//! in by `handle_*`, packets and socket commands go out by `poll_*`. Its driver, gh-net's io, calls:
//!
//! - [`Engine::handle_packet`] for each packet that came over the link (uplink).
//! - [`Engine::poll_command`] until it is empty, carrying each command out.
//! - [`Engine::poll_transmit`] while the link takes more, writing each packet to it (downlink), and
//!   [`Engine::handle_delivered`] when the sidecar reports what it has received.
//! - [`Engine::poll_timeout`] says when [`Engine::handle_timeout`] wants to be called.
//! - [`Engine::poll_event`] until it is empty, for the log and the status.
//!
//! The payload of TCP is pulled, not pushed, so that back pressure needs no queue. On
//! [`Command::Service`], and whenever the flow's socket becomes readable or writable, io *serves* the flow:
//!
//! 1. While the socket is writable and [`Engine::uplink`] gives bytes: write them, and say how many the
//!    socket took with [`Engine::handle_accepted`]. When there are none and [`Engine::uplink_ended`] says
//!    so, shut the socket's writing down, once.
//! 2. While the socket is readable and [`Engine::downlink_room`] is not 0: read at most that many bytes and
//!    hand them over with [`Engine::handle_data`]; an end of file is [`Engine::handle_end`], an error
//!    [`Engine::handle_failed`].
//!
//! A [`FlowId`] may be stale (the flow ended while an event was under way): calls with a stale id have no effect.
//!
//! The [`Policy`] decides which flows are forwarded. It is the engine's only callback. [`Engine::handle_names`] tells by
//! which names addresses were looked up.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start at any instant"))]

mod admission;
mod api;
mod budget;
mod datagrams;
mod deadline;
mod dns;
mod events;
mod eviction;
mod flow;
mod icmp;
mod limits;
mod link;
mod names;
mod packet;
mod peers;
mod pinned;
mod policy;
mod queue;
mod streams;
mod tcp;
mod telling;
mod udp;
mod unanswered;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use etherparse::IpNumber;
use gh_net_common::schedule::Schedule;

pub use self::api::{
    Bounds, Command, Config, ConnectError, Counters, FlowId, FlowState, FlowView, Headers, Loopback, QueryId,
    Resources, Target, Transmit, Unreachable, UnreachableKind,
};
use self::budget::{Budget, Charge};
use self::deadline::Deadlines;
use self::events::Events;
pub use self::events::{Denied, Ending, Event, FlowEvent};
use self::flow::{Entry, Flow, Table};
use self::limits::Limits;
pub use self::limits::OTHER_DESCRIPTORS;
use self::link::state::Link;
use self::packet::icmp::{Message, is_unicast};
use self::packet::reassembly::Reassembly;
use self::packet::{Malformed, Packet};
use self::pinned::Pinned;
pub use self::policy::{InterfaceIndex, NewFlow, Policy, Protocol, Refusal, RuleId, Verdict};
pub use self::tcp::state::State as TcpState;

/// Small packets (resets, errors, answers of the engine itself) that may wait for the link, in bytes, with what each costs
/// beside its own.
const MAX_URGENT: usize = 1024 * 1024;
/// A larger packet of the engine itself waits for room on the link, as payload does: an echo reply or a DNS answer. Smaller
/// ones are as large as an ICMP error or an answer over UDP usually gets.
const MAX_SMALL: usize = 1280;
/// Flows that were removed and may be left in the lists, if there are fewer flows.
const MAX_STALE: usize = 1024;
/// The lowest hop limit of an ordinary packet; a lower one means a traceroute's probe.
const ORDINARY_HOPS: u8 = 33;

/// See the [crate's documentation](crate).
#[derive(Debug)]
pub struct Engine {
    config: Config,
    table: Table,
    budget: Budget,
    pinned: Pinned,
    deadlines: Deadlines,
    schedule: Schedule<FlowId>,
    reassembly: Reassembly,
    queries: dns::Queries,
    names: names::Table,
    link: Link,
    challenges: tcp::ChallengeLimit,
    /// When payload of a TCP connection or UDP mapping last passed.
    active: Option<Instant>,
    /// When anything but a bare acknowledgment last passed.
    exchange: Option<Instant>,
    /// Whether [`Self::reset_all`] has been called.
    ended: bool,
    commands: VecDeque<Command>,
    urgent: VecDeque<Transmit>,
    /// Larger packets of the engine itself.
    answers: VecDeque<Transmit>,
    /// Bytes in both.
    urgent_bytes: usize,
    /// Whether the last packet with payload was one of `answers`, which take turns with the flows.
    answered_last: bool,
    /// Bytes of the largest segment to send, and what a flow may send in its turn.
    largest_packet: u16,
    controls: VecDeque<FlowId>,
    /// Flows that were removed while they may have been in a list.
    stale: usize,
    counters: Counters,
    events: Events,
    datagram_id: u16,
}

impl Engine {
    /// An engine without flows. It has a link from the start.
    pub fn new(config: Config) -> Self {
        let Resources { memory, .. } = config.resources;
        Self {
            table: Table::new(Limits::of(&config.resources)),
            budget: Budget::new(memory),
            pinned: Pinned::new(memory),
            config,
            deadlines: Deadlines::default(),
            schedule: Schedule::new(usize::from(u16::MAX)),
            reassembly: Reassembly::new(memory),
            queries: dns::Queries::new(memory),
            names: names::Table::default(),
            link: Link::default(),
            challenges: tcp::ChallengeLimit::default(),
            active: None,
            exchange: None,
            ended: false,
            commands: VecDeque::new(),
            urgent: VecDeque::new(),
            answers: VecDeque::new(),
            urgent_bytes: 0,
            answered_last: false,
            largest_packet: u16::MAX,
            controls: VecDeque::new(),
            stale: 0,
            counters: Counters::default(),
            events: Events::default(),
            datagram_id: 0,
        }
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        let (uplink_waits, downlink_waits) = self.budget.waits();
        let fragments = self.reassembly.dropped();
        let bounds = Bounds { uplink_waits, downlink_waits, fragments, ..self.counters.bounds };
        Counters { bounds, ..self.counters }
    }

    /// How many flows of all kinds are known, finished ones that are remembered included.
    pub fn flow_count(&self) -> usize {
        self.table.len()
    }

    /// All flows, in no particular order.
    pub fn flows(&self) -> impl Iterator<Item = FlowView> {
        self.table.entries().map(Entry::view)
    }

    // ---- packets from the codespace -----------------------------------------------------------------

    /// A packet came over the link.
    pub fn handle_packet(&mut self, packet: Bytes, now: Instant) {
        self.counters.uplink_packets += 1;
        if let Err(malformed) = self.try_packet(packet, now) {
            tracing::trace!(%malformed, "packet dropped");
            self.counters.malformed += 1;
        }
    }

    fn try_packet(&mut self, packet: Bytes, now: Instant) -> Result<(), Malformed> {
        let mut packet = Packet::parse(packet)?;
        if !is_unicast(packet.source) || packet.source.is_loopback() {
            return Err(Malformed::Ip);
        }
        if packet.hop_limit <= 1 && !self.is_gateway(packet.destination) {
            self.answer(&packet, Message::Unreachable(UnreachableKind::TimeExceeded));
            return Ok(());
        }
        if let Some(fragment) = packet.fragment {
            match self.reassembly.add(packet, fragment, now) {
                Some(whole) => packet = whole,
                None => return Ok(()),
            }
        }
        if self.ended {
            return self.refuse_after_end(&packet);
        }
        if packet.protocol != IpNumber::TCP {
            self.exchange = Some(now);
        }
        match packet.protocol {
            IpNumber::TCP => self.handle_tcp(packet, now)?,
            IpNumber::UDP => self.handle_udp(packet, now)?,
            IpNumber::ICMP | IpNumber::IPV6_ICMP => self.handle_icmp(packet, now)?,
            _ => {
                self.counters.unsupported += 1;
                self.answer(&packet, Message::Protocol);
            }
        }
        Ok(())
    }

    fn is_gateway(&self, address: IpAddr) -> bool {
        self.config.gateways.contains(&address)
    }

    /// Whether one of the engine's own addresses answers DNS there.
    fn is_resolver(&self, server: SocketAddr) -> bool {
        self.config.dns && self.is_gateway(server.ip()) && server.port() == dns::PORT
    }

    /// The engine's own address of the same family as `address`.
    fn gateway(&self, address: IpAddr) -> IpAddr {
        let same = |gateway: &&IpAddr| gateway.is_ipv4() == address.is_ipv4();
        self.config.gateways.iter().find(same).copied().unwrap_or(address)
    }

    /// Answers a packet with an ICMP error from the engine's own address.
    fn answer(&mut self, packet: &Packet, message: Message) {
        let offender = self.gateway(packet.source);
        self.send_urgent(packet::icmp::about(packet, offender, message));
    }

    fn send_urgent(&mut self, packet: Option<Transmit>) {
        let Some(mut packet) = packet else { return };
        if !self.link.is_up() || self.urgent_bytes + queue::cost(&packet) > MAX_URGENT {
            self.counters.dropped += 1;
            self.counters.bounds.answers += u64::from(self.link.is_up());
            return;
        }
        // An answer to a ping is a slice of the request, which would pin the whole buffer of the link.
        packet.payload = Bytes::copy_from_slice(&packet.payload);
        self.urgent_bytes += queue::cost(&packet);
        if packet.len() > MAX_SMALL { &mut self.answers } else { &mut self.urgent }.push_back(packet);
    }

    // ---- commands, time, and the lists --------------------------------------------------------------

    /// The next command for the driver.
    pub fn poll_command(&mut self) -> Option<Command> {
        let command = self.commands.pop_front()?;
        if let Command::Service(flow) = command
            && let Some(entry) = self.table.get_mut(flow)
        {
            entry.service_listed = false;
        }
        Some(command)
    }

    /// When [`Self::handle_timeout`] wants to be called: never while there is no link.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().into_iter().chain(self.events.deadline()).min().filter(|_| self.link.is_up())
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.link.is_up() {
            return;
        }
        self.events.handle_timeout(now);
        while let Some(id) = self.deadlines.pop(now) {
            let Some(entry) = self.table.get_mut(id) else { continue };
            entry.registered = None;
            if entry.hold_ends().is_some_and(|at| at <= now) {
                self.end_hold(id, now);
                continue;
            }
            match &mut entry.flow {
                Flow::Tcp(connection) => {
                    connection.handle_timeout(now, self.link.line(entry.last_sent));
                    entry.note_end(Ending::TimedOut);
                }
                Flow::Udp(_) | Flow::Echo(_) => {
                    if entry.deadline().is_some_and(|at| at <= now) {
                        entry.ending = Some(Ending::TimedOut);
                        self.commands.push_back(Command::Close(id));
                        self.remove(id);
                        continue;
                    }
                }
            }
            self.settle(id, now);
        }
    }

    /// Updates the engine's lists after an event of a flow.
    fn settle(&mut self, id: FlowId, now: Instant) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let (mut is_expendable, mut is_answered) = (false, false);
        if let Flow::Tcp(connection) = &mut entry.flow {
            let actions = connection.take_actions();
            if actions.service && !std::mem::replace(&mut entry.service_listed, true) {
                self.commands.push_back(Command::Service(id));
            }
            if actions.abort {
                self.commands.push_back(Command::Abort(id));
            }
            if actions.close {
                self.commands.push_back(Command::Close(id));
            }
            if connection.is_closed() {
                self.remove(id);
                return;
            }
            is_answered = !connection.is_opening();
            if connection.has_control() && !std::mem::replace(&mut entry.control_listed, true) {
                self.controls.push_back(id);
            }
            connection.persist_if_stuck(now);
            is_expendable = connection.is_expendable();
        }
        if entry.is_ready() {
            self.schedule.add(id, &mut entry.standing);
        }
        let charge = entry.charge();
        self.budget.recharge(std::mem::replace(&mut entry.charged, charge), charge);
        let deadline = entry.deadline();
        self.deadlines.register(id, &mut entry.registered, deadline);
        if is_answered {
            self.table.answered(id);
        }
        if is_expendable {
            self.tell_closed(id);
            if let Some(oldest) = self.table.enter_time_wait(id) {
                self.remove(oldest);
            }
        }
    }

    fn remove(&mut self, id: FlowId) {
        self.tell_closed(id);
        if let Some(mut entry) = self.table.remove(id) {
            self.budget.recharge(entry.charged, Charge::default());
            self.deadlines.forget(id, &mut entry.registered);
            self.stale += 1;
            self.purge();
        }
    }

    /// Takes flows that were removed out of the lists, once they may be more than the others: a link that takes nothing
    /// does not empty them.
    fn purge(&mut self) {
        if self.stale <= self.table.len().max(MAX_STALE) {
            return;
        }
        self.stale = 0;
        let table = &self.table;
        self.controls.retain(|id| table.contains(*id));
        self.schedule.retain(|id| table.contains(id));
    }
}
