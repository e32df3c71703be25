//! The flow table: all flows, by key and by id, within bounds.

use std::collections::btree_map;
use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use gh_net_common::schedule::Standing;

use super::api::{FlowId, FlowState, FlowView, Transmit};
use super::budget::Charge;
use super::events::Ending;
use super::limits::Limits;
use super::names::{Kept, Names};
use super::policy::{InterfaceIndex, Protocol, RuleId};
use super::tcp::state::State;
use super::tcp::{Connection, Endpoints};
use super::unanswered::{Destinations, Group};
use super::{icmp, udp};

/// Maximum number of connections in TIME-WAIT; beyond that, the oldest is forgotten early.
const MAX_TIME_WAIT: usize = 4096;
/// How long the flows of a network that has vanished wait for it to return.
const HOLD: Duration = Duration::from_secs(30);

/// What packets of a flow have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A connection's five-tuple.
    Tcp { client: SocketAddr, server: SocketAddr },
    /// An endpoint in the codespace, and the interface that its datagrams leave by.
    Udp { client: SocketAddr, interface: Option<InterfaceIndex> },
    /// An echo identifier of a host in the codespace, and the interface that its requests leave by.
    Echo { client: IpAddr, identifier: u16, interface: Option<InterfaceIndex> },
}

impl Key {
    fn is_datagrams(&self) -> bool {
        matches!(self, Self::Udp { .. } | Self::Echo { .. })
    }

    /// The interface that a datagram flow's socket is bound to.
    pub(super) fn interface(&self) -> Option<InterfaceIndex> {
        match self {
            Self::Tcp { .. } => None,
            Self::Udp { interface, .. } | Self::Echo { interface, .. } => *interface,
        }
    }
}

/// The state of a flow.
#[derive(Debug)]
pub(super) enum Flow {
    Tcp(Box<Connection>),
    Udp(udp::Mapping),
    Echo(icmp::Session),
}

/// A flow, and its state in the engine's lists.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: Key,
    pub flow: Flow,
    /// Its state in the schedule.
    pub standing: Standing,
    /// Its deadline as registered.
    pub registered: Option<Instant>,
    /// Where on the link its last packet with payload ends, in bytes since the link began.
    pub last_sent: u64,
    /// Whether it is in the list of flows with control segments due.
    pub control_listed: bool,
    /// Whether a [`super::Command::Service`] for it waits to be polled.
    pub service_listed: bool,
    /// What has passed.
    pub usage: Usage,
    /// Since when it waits for its network to return.
    pub held_since: Option<Instant>,
    /// What it is charged in the budget.
    pub charged: Charge,
    /// Its destination, as long as nothing has come from there.
    unanswered: Option<IpAddr>,
    /// The rule by which it was admitted, of a mapping or session the first one.
    pub rule: RuleId,
    /// How it ended, as soon as that is known.
    pub ending: Option<Ending>,
    /// Whether its end has been told.
    pub told: bool,
    /// The names that it was admitted with.
    pub names: Kept,
    time_wait: bool,
}

/// What has passed on a flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    opened: Instant,
    last_active: Instant,
    uplink_bytes: u64,
    downlink_bytes: u64,
}

impl Usage {
    fn new(now: Instant) -> Self {
        Self { opened: now, last_active: now, uplink_bytes: 0, downlink_bytes: 0 }
    }

    /// Payload for the host.
    pub(super) fn uplink(&mut self, bytes: usize, now: Instant) {
        self.last_active = now;
        self.uplink_bytes += bytes as u64;
    }

    /// Payload for the codespace.
    pub(super) fn downlink(&mut self, bytes: usize, now: Instant) {
        self.last_active = now;
        self.downlink_bytes += bytes as u64;
    }

    /// Bytes for the host, and for the codespace.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.uplink_bytes, self.downlink_bytes)
    }
}

impl Entry {
    /// If the connection has just ended, it is because of this.
    pub(super) fn note_end(&mut self, ending: Ending) {
        if let Flow::Tcp(connection) = &self.flow
            && connection.state() == State::Closed
            && !connection.is_draining()
        {
            self.ending.get_or_insert(ending);
        }
    }

    /// The next packet for the codespace, with payload.
    pub(super) fn poll(&mut self, largest: u16, now: Instant) -> Option<Transmit> {
        match &mut self.flow {
            Flow::Tcp(connection) => connection.poll_segment(largest, now),
            Flow::Udp(mapping) => mapping.queue.pop(),
            Flow::Echo(session) => session.queue.pop(),
        }
    }

    /// Whether [`Self::poll`] has something.
    pub(super) fn is_ready(&self) -> bool {
        match &self.flow {
            Flow::Tcp(connection) => connection.has_segment(),
            Flow::Udp(mapping) => !mapping.queue.is_empty(),
            Flow::Echo(session) => !session.queue.is_empty(),
        }
    }

    /// What it holds.
    pub(super) fn charge(&self) -> Charge {
        match &self.flow {
            Flow::Tcp(connection) => connection.charge(),
            Flow::Udp(udp::Mapping { queue, peers, .. }) | Flow::Echo(icmp::Session { queue, peers, .. }) => {
                Charge { queue: queue.charge(), peers: peers.charge(), ..Charge::default() }
            }
        }
    }

    /// The flow as the status shows it.
    pub(super) fn view(&self) -> FlowView {
        let state = |answered| if answered { FlowState::Replied } else { FlowState::Unreplied };
        let (protocol, client, destination, state) = match &self.flow {
            Flow::Tcp(connection) => {
                let Endpoints { client, server, .. } = connection.endpoints;
                (Protocol::Tcp, client, Some(server), FlowState::Tcp(connection.state()))
            }
            Flow::Udp(mapping) => {
                (Protocol::Udp, mapping.client, mapping.peers.latest(), state(mapping.answered))
            }
            Flow::Echo(session) => {
                let client = SocketAddr::new(session.client, session.identifier);
                (Protocol::Echo, client, session.peers.latest(), state(session.answered))
            }
        };
        let Usage { opened, last_active, uplink_bytes, downlink_bytes } = self.usage;
        FlowView {
            protocol,
            client,
            destination,
            name: destination.and_then(|destination| self.names.of(destination).first().cloned()),
            state,
            held: self.held_since.is_some(),
            uplink_bytes,
            downlink_bytes,
            opened,
            last_active,
        }
    }

    /// When the flow wants to be woken.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let own = match &self.flow {
            Flow::Tcp(connection) => connection.deadline(),
            Flow::Udp(mapping) => Some(mapping.deadline()),
            Flow::Echo(session) => Some(session.deadline()),
        };
        own.into_iter().chain(self.hold_ends()).min()
    }

    /// Until when it waits for its network to return.
    pub(super) fn hold_ends(&self) -> Option<Instant> {
        self.held_since.map(|since| since + HOLD)
    }
}

/// The flows of one kind, not counting those in TIME-WAIT.
#[derive(Debug, Default)]
struct Kind {
    count: usize,
    unanswered: Destinations<FlowId>,
}

/// Whether another flow fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// It fits.
    Free,
    /// It fits when this flow, which nobody has answered, has been removed.
    InPlaceOf(FlowId),
    /// It does not fit.
    None,
}

/// All flows.
#[derive(Debug)]
pub(super) struct Table {
    limits: Limits,
    by_key: HashMap<Key, FlowId>,
    entries: HashMap<FlowId, Entry>,
    time_wait: VecDeque<FlowId>,
    connections: Kind,
    mappings: Kind,
    sessions: Kind,
    /// How many mappings and sessions use each interface. There are few interfaces.
    interfaces: BTreeMap<Option<InterfaceIndex>, usize>,
    next: u64,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_key: HashMap::new(),
            entries: HashMap::new(),
            time_wait: VecDeque::new(),
            connections: Kind::default(),
            mappings: Kind::default(),
            sessions: Kind::default(),
            interfaces: BTreeMap::new(),
            next: 0,
        }
    }

    pub(super) fn find(&self, key: &Key) -> Option<FlowId> {
        self.by_key.get(key).copied()
    }

    pub(super) fn get(&self, id: FlowId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: FlowId) -> Option<&mut Entry> {
        self.entries.get_mut(&id)
    }

    /// The names that a mapping or session of `client` was admitted to `destination` with, if there were any.
    pub(super) fn kept_names(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        destination: SocketAddr,
    ) -> Option<Names> {
        let names = |key| self.get(self.find(&key)?).map(|entry| entry.names.of(destination));
        let mut keys = self.interfaces.keys().filter_map(|&interface| match protocol {
            Protocol::Tcp => None,
            Protocol::Udp => Some(Key::Udp { client, interface }),
            Protocol::Echo => Some(Key::Echo { client: client.ip(), identifier: client.port(), interface }),
        });
        keys.find_map(|key| names(key).filter(|names| !names.is_empty()))
    }

    /// The connection, if its host socket may be served.
    pub(super) fn served(&self, id: FlowId) -> Option<&Connection> {
        let entry = self.get(id)?;
        match &entry.flow {
            Flow::Tcp(connection) if entry.held_since.is_none() => Some(connection),
            Flow::Tcp(_) | Flow::Udp(_) | Flow::Echo(_) => None,
        }
    }

    pub(super) fn connection_mut(&mut self, id: FlowId) -> Option<&mut Connection> {
        match &mut self.entries.get_mut(&id)?.flow {
            Flow::Tcp(connection) => Some(connection),
            Flow::Udp(_) | Flow::Echo(_) => None,
        }
    }

    /// All flows, oldest first, so that what is done to all of them has the same order in every run.
    pub(super) fn ids(&self) -> Vec<FlowId> {
        let mut ids: Vec<_> = self.entries.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Whether there is such a flow.
    pub(super) fn contains(&self, id: FlowId) -> bool {
        self.entries.contains_key(&id)
    }

    /// How many flows there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether another flow like this one fits. What is answered never makes room for what is not.
    pub(super) fn room(&self, key: &Key) -> Room {
        let Limits { connections, opening, mappings, sessions } = self.limits;
        let (kind, is_full) = match key {
            // Those that are not open yet have a pool of their own.
            Key::Tcp { .. } => {
                let half_open = self.connections.unanswered.len();
                if self.connections.count - half_open >= connections {
                    return Room::None;
                }
                (&self.connections, half_open >= opening)
            }
            Key::Udp { .. } => (&self.mappings, self.mappings.count >= mappings),
            Key::Echo { .. } => (&self.sessions, self.sessions.count >= sessions),
        };
        match kind.unanswered.oldest_of_busiest() {
            _ if !is_full => Room::Free,
            Some(id) => Room::InPlaceOf(id),
            None => Room::None,
        }
    }

    /// Adds a flow to `destination`; its key must be free.
    pub(super) fn insert(
        &mut self,
        key: Key,
        flow: Flow,
        destination: IpAddr,
        rule: RuleId,
        now: Instant,
    ) -> FlowId {
        let id = FlowId(self.next);
        self.next += 1;
        let kind = self.kind(&key);
        kind.count += 1;
        kind.unanswered.insert_to(destination, id);
        if key.is_datagrams() {
            *self.interfaces.entry(key.interface()).or_default() += 1;
        }
        self.by_key.insert(key, id);
        self.entries.insert(
            id,
            Entry {
                key,
                flow,
                standing: Standing::default(),
                registered: None,
                last_sent: 0,
                control_listed: false,
                service_listed: false,
                usage: Usage::new(now),
                held_since: None,
                charged: Charge::default(),
                rule,
                ending: None,
                told: false,
                unanswered: Some(destination),
                names: Kept::default(),
                time_wait: false,
            },
        );
        id
    }

    /// The flow has been answered.
    pub(super) fn answered(&mut self, id: FlowId) {
        if let Some(entry) = self.entries.get_mut(&id)
            && let Some(destination) = entry.unanswered.take()
        {
            let key = entry.key;
            self.kind(&key).unanswered.remove_to(destination, id);
        }
    }

    fn kind(&mut self, key: &Key) -> &mut Kind {
        match key {
            Key::Tcp { .. } => &mut self.connections,
            Key::Udp { .. } => &mut self.mappings,
            Key::Echo { .. } => &mut self.sessions,
        }
    }

    /// Frees a flow's key for another flow. The flow itself stays.
    pub(super) fn detach(&mut self, id: FlowId) {
        if let Some(entry) = self.entries.get(&id)
            && let Slot::Occupied(slot) = self.by_key.entry(entry.key)
            && *slot.get() == id
        {
            slot.remove();
        }
    }

    /// Takes a flow out.
    pub(super) fn remove(&mut self, id: FlowId) -> Option<Entry> {
        self.detach(id);
        self.answered(id);
        let entry = self.entries.remove(&id)?;
        if entry.key.is_datagrams()
            && let btree_map::Entry::Occupied(mut users) = self.interfaces.entry(entry.key.interface())
        {
            *users.get_mut() -= 1;
            if *users.get() == 0 {
                users.remove();
            }
        }
        if !entry.time_wait {
            self.kind(&entry.key).count -= 1;
        }
        Some(entry)
    }

    /// The connection has entered TIME-WAIT and no longer counts as live. Returns a connection that must be removed
    /// to make room.
    pub(super) fn enter_time_wait(&mut self, id: FlowId) -> Option<FlowId> {
        let entry = self.entries.get_mut(&id)?;
        if !std::mem::replace(&mut entry.time_wait, true) {
            self.connections.count -= 1;
            self.time_wait.push_back(id);
        }
        while self.time_wait.front().is_some_and(|oldest| !self.entries.contains_key(oldest)) {
            self.time_wait.pop_front();
        }
        if self.time_wait.len() > MAX_TIME_WAIT { self.time_wait.pop_front() } else { None }
    }
}
