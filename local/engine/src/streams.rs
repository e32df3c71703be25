//! The engine's TCP: looks up or opens the connection of a segment, and passes socket events to their connection. The
//! connection itself is in [`super::tcp`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use etherparse::IpNumber;

use super::admission::{Admitted, Destination};
use super::api::{Command, ConnectError, FlowId, Target, UnreachableKind};
use super::budget::FLOOR;
use super::events::Ending;
use super::flow::{Entry, Flow, Key, Usage};
use super::names::Names;
use super::packet::icmp::Message;
use super::packet::{Malformed, Packet};
use super::tcp::{self, Connection, Endpoints, Segment, Shares};
use super::{Engine, ORDINARY_HOPS, Protocol, RuleId, packet};

impl Engine {
    pub(super) fn handle_tcp(&mut self, packet: Packet, now: Instant) -> Result<(), Malformed> {
        let segment = Segment::parse(&packet)?;
        if !segment.is_bare() {
            self.exchange = Some(now);
        }
        let client = SocketAddr::new(packet.source, segment.source_port);
        let server = SocketAddr::new(packet.destination, segment.destination_port);
        let key = Key::Tcp { client, server };
        if let Some(id) = self.table.find(&key)
            && let Some(connection) = self.table.connection_mut(id)
        {
            if !connection.gives_way_to(&segment) {
                let reset = segment.rst;
                connection.handle_segment(segment, now);
                if connection.take_challenge() {
                    if self.challenges.admits(now) {
                        connection.send_challenge();
                    } else {
                        self.counters.dropped += 1;
                        self.counters.bounds.answers += 1;
                    }
                }
                let pinned = connection.take_pinned();
                if reset {
                    self.note_end(id, Ending::ResetByCodespace);
                }
                self.settle(id, now);
                if let Some((id, end)) = pinned.and_then(|end| self.pinned.push(id, end))
                    && let Some(connection) = self.table.connection_mut(id)
                {
                    connection.release(end);
                }
                return Ok(());
            }
            if connection.is_draining() {
                // Its bytes were acknowledged: it stays beside the new one until the server has them.
                connection.leave(now);
                self.settle(id, now);
                self.table.detach(id);
            } else {
                connection.reset();
                self.note_end(id, Ending::ResetByCodespace);
                self.settle(id, now);
                self.remove(id);
            }
        }
        if segment.is_opening() {
            self.open_tcp(&packet, key, &segment, now);
        } else {
            self.send_urgent(tcp::refusal(&packet, &segment));
        }
        Ok(())
    }

    fn open_tcp(&mut self, packet: &Packet, key: Key, segment: &Segment, now: Instant) {
        let Key::Tcp { client, server } = key else { return };
        let (target, rule, names) = if self.is_resolver(server) {
            // Not a rule of the policy, and never told of.
            (Target::Resolver, RuleId(0), Names::default())
        } else {
            let Some(admitted) = self.admit(packet, Protocol::Tcp, client, server, now) else { return };
            let Admitted { destination, interface, rule, names } = admitted;
            let target = match destination {
                Destination::Host(address) => Target::Host { address, interface },
                Destination::Laptop(loopback) => Target::Laptop(loopback),
            };
            (target, rule, names)
        };
        if !self.make_room(&key, now) {
            return;
        }
        let initial = self.initial_sequence(&key);
        let shares = Shares { uplink: FLOOR, downlink: FLOOR };
        let endpoints = Endpoints { client, server, target };
        let connection = Connection::new(endpoints, segment, initial, self.config.mtu, shares, now);
        let flow = self.table.insert(key, Flow::Tcp(Box::new(connection)), server.ip(), rule, now);
        if let Some(entry) = self.table.get_mut(flow) {
            entry.names.keep(server, &names);
        }
        self.counters.connections += 1;
        self.tell_opened(flow);
        let hop_limit = (packet.hop_limit < ORDINARY_HOPS).then(|| packet.hop_limit.saturating_sub(1));
        self.commands.push_back(Command::Connect { flow, target, hop_limit });
        self.settle(flow, now);
    }

    /// RFC 6528: unpredictable without the secret, and increasing for the same pair of endpoints.
    fn initial_sequence(&self, key: &Key) -> u32 {
        let mut hasher = DefaultHasher::new();
        (self.config.secret, key).hash(&mut hasher);
        // Each connection advances the start, as the RFC's clock does.
        (hasher.finish() as u32).wrapping_add((self.counters.connections as u32).wrapping_mul(64 * 1024))
    }

    /// The flow's socket is connected.
    pub fn handle_connected(&mut self, flow: FlowId, now: Instant) {
        self.with_connection(flow, now, |connection, _| connection.handle_connected(now));
    }

    /// The flow's socket could not be connected, and io has closed it.
    pub fn handle_connect_failed(&mut self, flow: FlowId, error: ConnectError, now: Instant) {
        let Some(connection) = self.table.connection_mut(flow).filter(|flow| flow.is_connecting()) else {
            return;
        };
        let kind = match error {
            ConnectError::Refused => {
                connection.handle_refused();
                self.note_end(flow, Ending::ConnectFailed(error));
                return self.settle(flow, now);
            }
            ConnectError::NetworkUnreachable => Some(UnreachableKind::Network),
            ConnectError::HostUnreachable => Some(UnreachableKind::Host),
            ConnectError::Prohibited => Some(UnreachableKind::Prohibited),
            ConnectError::TimedOut | ConnectError::Local => None,
        };
        let Endpoints { client, server, .. } = connection.endpoints;
        let quotation = connection.quotation();
        connection.handle_no_answer();
        self.note_end(flow, Ending::ConnectFailed(error));
        self.settle(flow, now);
        if let Some(kind) = kind {
            let offender = self.gateway(client.ip());
            let message = Message::Unreachable(kind);
            let tcp = IpNumber::TCP;
            let error =
                packet::icmp::about_transport(client.ip(), server.ip(), tcp, &quotation, offender, message);
            self.send_urgent(error);
        }
    }

    /// Fills `slices` with the next bytes for the flow's socket; returns the number of slices.
    pub fn uplink<'a>(&'a self, flow: FlowId, slices: &mut [IoSlice<'a>]) -> usize {
        self.table.served(flow).map_or(0, |connection| connection.uplink(slices))
    }

    /// Whether the codespace has sent its FIN and every byte before it has been accepted by the socket.
    pub fn uplink_ended(&self, flow: FlowId) -> bool {
        self.table.served(flow).is_some_and(Connection::uplink_ended)
    }

    /// The socket accepted the next `count` bytes of [`Self::uplink`].
    pub fn handle_accepted(&mut self, flow: FlowId, count: usize, now: Instant) {
        self.active = Some(now);
        self.with_connection(flow, now, |connection, usage| {
            usage.uplink(count, now);
            connection.handle_accepted(count);
        });
    }

    /// How many bytes the engine would take from the flow's socket now. An end of file or an error may be
    /// reported even if this is 0.
    pub fn downlink_room(&mut self, flow: FlowId) -> usize {
        // What is told here is what the next acknowledgment is compared with.
        if let Some(Entry { flow: Flow::Tcp(connection), charged, .. }) = self.table.get_mut(flow) {
            connection.set_shares(self.budget.shares(*charged));
        }
        self.table.served(flow).map_or(0, Connection::downlink_room)
    }

    /// Bytes read from the flow's socket, at most [`Self::downlink_room`] of them.
    ///
    /// They may be a slice of a buffer of 64 KiB if they are at least three quarters of it; otherwise they must be copied
    /// out, because what they pin is what the budget counts.
    pub fn handle_data(&mut self, flow: FlowId, data: Bytes, now: Instant) {
        self.active = Some(now);
        self.with_connection(flow, now, |connection, usage| {
            usage.downlink(data.len(), now);
            connection.handle_data(data);
        });
    }

    /// The flow's socket has reached the end of file.
    pub fn handle_end(&mut self, flow: FlowId, now: Instant) {
        self.with_connection(flow, now, |connection, _| connection.handle_end());
    }

    /// The flow's socket failed (was reset, timed out), and io has closed it.
    pub fn handle_failed(&mut self, flow: FlowId, now: Instant) {
        // The reset follows the data that came before, so the connection may not be closed yet.
        if let Some(entry) = self.table.get_mut(flow) {
            entry.ending.get_or_insert(Ending::ResetByHost);
        }
        self.with_connection(flow, now, |connection, _| connection.handle_failed());
    }

    /// If the connection has just ended, it is because of this.
    fn note_end(&mut self, flow: FlowId, ending: Ending) {
        if let Some(entry) = self.table.get_mut(flow) {
            entry.note_end(ending);
        }
    }

    fn with_connection(&mut self, flow: FlowId, now: Instant, act: impl FnOnce(&mut Connection, &mut Usage)) {
        if let Some(Entry { flow: Flow::Tcp(connection), usage, charged, .. }) = self.table.get_mut(flow) {
            connection.set_shares(self.budget.shares(*charged));
            act(connection, usage);
            self.settle(flow, now);
        }
    }
}
