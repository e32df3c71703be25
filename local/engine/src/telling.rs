//! Makes the [events](super::events) of flows.

use std::net::SocketAddr;

use super::Engine;
use super::api::{FlowId, Target};
use super::events::{Ending, Event, FlowEvent};
use super::flow::{Entry, Flow};
use super::peers::{Added, Known, Peer, Peers};
use super::policy::Protocol;
use super::tcp::Endpoints;
use super::{icmp, udp};

impl Engine {
    /// Whether [`Event::Opened`] and [`Event::Closed`] are made. Call it before the first flow. Denials are always told
    /// of.
    pub fn tell_flows(&mut self, tell: bool) {
        self.events.set_flows(tell);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// How many events were lost because they were not polled in time.
    pub fn lost_events(&self) -> u64 {
        self.events.lost()
    }

    /// Tells of the denials that were merged so far. To be called before a new policy gives their rules another meaning.
    pub fn flush_events(&mut self) {
        self.events.flush();
    }

    /// Tells that a TCP connection is open.
    pub(super) fn tell_opened(&mut self, id: FlowId) {
        if self.events.has_flows()
            && let Some(entry) = self.table.get(id)
            && let Some(flow) = connection_event(id, entry)
        {
            self.events.push(Event::Opened(flow));
        }
    }

    /// Tells of a mapping's or session's destination, if it is new, and of the one that it replaced.
    pub(super) fn tell_added(&mut self, id: FlowId, Added { new, forgotten }: Added) {
        self.tell_peers_closed(id, forgotten, Ending::Evicted);
        if new
            && self.events.has_flows()
            && let Some(entry) = self.table.get(id)
            && let Some((origin, peers)) = datagram_flow(&entry.flow)
            && let Some(known) = peers.last()
        {
            self.events.push(Event::Opened(peer_event(id, entry, origin, known)));
        }
    }

    /// Tells that a mapping or session has lost these destinations.
    pub(super) fn tell_peers_closed(
        &mut self,
        id: FlowId,
        ended: impl IntoIterator<Item = Known>,
        ending: Ending,
    ) {
        if self.events.has_flows()
            && let Some(entry) = self.table.get(id)
            && let Some((origin, _)) = datagram_flow(&entry.flow)
        {
            for known in ended {
                self.events.push(peer_closed(id, entry, origin, &known, ending));
            }
        }
    }

    /// Tells that the flow is over, once.
    pub(super) fn tell_closed(&mut self, id: FlowId) {
        if !self.events.has_flows() {
            return;
        }
        let Self { table, events, .. } = self;
        let Some(entry) = table.get_mut(id).filter(|entry| !entry.told) else { return };
        entry.told = true;
        if let Some((origin, peers)) = datagram_flow(&entry.flow) {
            let ending = entry.ending.unwrap_or(Ending::TimedOut);
            for known in peers.iter() {
                events.push(peer_closed(id, entry, origin, known, ending));
            }
        } else if let Some(flow) = connection_event(id, entry) {
            let ending = entry.ending.unwrap_or(Ending::Finished);
            let (uplink_bytes, downlink_bytes) = entry.usage.bytes();
            events.push(Event::Closed { flow, uplink_bytes, downlink_bytes, ending });
        }
    }
}

/// The protocol and client of a mapping or session.
type Origin = (Protocol, SocketAddr);

/// The origin and the destinations of a mapping or session.
fn datagram_flow(flow: &Flow) -> Option<(Origin, &Peers)> {
    match flow {
        Flow::Tcp(_) => None,
        Flow::Udp(udp::Mapping { client, peers, .. }) => Some(((Protocol::Udp, *client), peers)),
        Flow::Echo(icmp::Session { client, identifier, peers, .. }) => {
            Some(((Protocol::Echo, SocketAddr::new(*client, *identifier)), peers))
        }
    }
}

/// A TCP connection to a host.
fn connection_event(id: FlowId, entry: &Entry) -> Option<FlowEvent> {
    let Flow::Tcp(connection) = &entry.flow else { return None };
    let Endpoints { client, server, target } = connection.endpoints;
    let address = match target {
        Target::Host { address, .. } => address,
        Target::Laptop(loopback) => loopback.address(),
        Target::Resolver => return None,
    };
    Some(FlowEvent {
        flow: id,
        protocol: Protocol::Tcp,
        client,
        destination: server,
        actual: (address != server).then_some(address),
        name: entry.names.of(server).latest(),
        rule: entry.rule,
    })
}

fn peer_event(flow: FlowId, entry: &Entry, (protocol, client): Origin, known: &Known) -> FlowEvent {
    let Peer { asked, actual } = known.peer;
    let actual = (actual != asked).then_some(actual);
    let name = entry.names.of(asked).latest();
    FlowEvent { flow, protocol, client, destination: asked, actual, name, rule: known.rule }
}

fn peer_closed(flow: FlowId, entry: &Entry, origin: Origin, known: &Known, ending: Ending) -> Event {
    let Known { uplink_bytes, downlink_bytes, .. } = *known;
    let flow = peer_event(flow, entry, origin, known);
    Event::Closed { flow, uplink_bytes, downlink_bytes, ending }
}
