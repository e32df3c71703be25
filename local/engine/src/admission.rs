//! Which flows are admitted, and what happens to them when the policy changes.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use etherparse::IpNumber;

use super::api::{Command, FlowId, Loopback, Target, Transmit, UnreachableKind};
use super::events::{Denied, Ending};
use super::flow::Flow;
use super::names::Names;
use super::packet::icmp::Message;
use super::packet::{Malformed, Packet};
use super::policy::Judgement;
use super::tcp::{self, Segment};
use super::{
    Config, Engine, InterfaceIndex, NewFlow, Policy, Protocol, Refusal, RuleId, Verdict, icmp, queue, udp,
};

/// Where an admitted flow leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// To a host; the driver refuses the laptop's own addresses.
    Host(SocketAddr),
    /// To the laptop's own loopback.
    Laptop(Loopback),
}

impl Destination {
    pub(super) fn address(self) -> SocketAddr {
        match self {
            Self::Host(address) => address,
            Self::Laptop(loopback) => loopback.address(),
        }
    }
}

/// An admitted flow.
#[derive(Debug)]
pub(super) struct Admitted {
    pub destination: Destination,
    pub interface: Option<InterfaceIndex>,
    /// The rule that admitted it.
    pub rule: RuleId,
    /// The names that it was admitted with.
    pub names: Names,
}

impl Engine {
    /// Asks the policy about a packet of a flow, and answers the packet if the policy refuses. A datagram to a destination
    /// that its mapping or session was admitted to is also judged by the names that it had then.
    pub(super) fn admit(
        &mut self,
        packet: &Packet,
        protocol: Protocol,
        client: SocketAddr,
        destination: SocketAddr,
        now: Instant,
    ) -> Option<Admitted> {
        let mut names = self.names.of(destination.ip(), now);
        let judge =
            |names: &Names| self.config.policy.verdict(&NewFlow { protocol, client, destination, names });
        let mut verdict = judge(&names);
        if let Verdict::Refuse { .. } = verdict
            && let Some(kept) = self.table.kept_names(protocol, client, destination)
        {
            (verdict, names) = (judge(&kept), kept);
        }
        match at_gateway(verdict, destination, &self.config.gateways) {
            Verdict::Forward { destination, interface, rule } => {
                Some(Admitted { destination: Destination::Host(destination), interface, rule, names })
            }
            Verdict::Laptop { port, rule } => {
                let loopback = Loopback { port, v6: destination.is_ipv6() };
                Some(Admitted { destination: Destination::Laptop(loopback), interface: None, rule, names })
            }
            Verdict::Refuse { refusal, rule } => {
                tracing::debug!(?protocol, %client, %destination, ?names, ?refusal, rule = rule.0, "refused");
                self.counters.refused += 1;
                let name = names.latest();
                let denied = Denied { protocol, client, destination, name, refusal, rule, count: 1 };
                self.events.deny(denied, now);
                match refusal {
                    Refusal::NoRoute => self.answer(packet, Message::Unreachable(UnreachableKind::Network)),
                    Refusal::Prohibited => {
                        self.answer(packet, Message::Unreachable(UnreachableKind::Prohibited));
                    }
                    Refusal::Closed => match Segment::parse(packet) {
                        Ok(segment) if protocol == Protocol::Tcp => {
                            self.send_urgent(tcp::refusal(packet, &segment));
                        }
                        Ok(_) | Err(_) => self.answer(packet, Message::Unreachable(UnreachableKind::Port)),
                    },
                    Refusal::Silent => {}
                }
                None
            }
        }
    }

    /// Replaces the policy, and judges every existing flow by the new one.
    ///
    /// - A flow that is still forwarded to the same destination and bound to the same interface goes on.
    /// - A flow whose network has vanished ([`Refusal::NoRoute`]) is held for 30 s: a VPN that reconnects comes back
    ///   within that time. If the new verdict is then the old one again, the flow goes on, otherwise it ends.
    /// - A flow is judged by the names that it was admitted with, whatever has become of them since.
    /// - Every other flow ends at once. That includes one whose interface has changed: its socket is bound to the old
    ///   one, or its source address is gone.
    ///
    /// How a flow ends: A TCP connection is reset on both sides. A UDP mapping or an echo session has several
    /// destinations, which are judged one by one. Those that are not admitted any more are forgotten, so that nothing
    /// from them reaches the codespace, and the socket is closed with the last one. Connections to the laptop's
    /// resolver are not judged.
    ///
    /// Nothing of a held flow leaves the laptop, because another interface might now be the way there: its socket is
    /// neither written to nor shut down. A TCP connection is still served towards the codespace. Its segments are
    /// acknowledged within the window, so that the codespace's kernel does not back off and the connection continues as
    /// soon as its network is back. A connection attempt is not held but refused, since the laptop's kernel would
    /// retransmit its SYN by another interface. Datagrams get the refusal's answer, ICMP network unreachable, which is
    /// a soft error (RFC 1122, 4.2.3.9): the program's socket stays usable, and the mapping keeps its port.
    pub fn set_policy(&mut self, policy: Box<dyn Policy>, now: Instant) {
        self.config.policy = policy;
        self.names.classify(&*self.config.policy);
        for id in self.table.ids() {
            self.judge_again(id, now);
        }
    }

    fn judge_again(&mut self, id: FlowId, now: Instant) {
        let Self { table, config: Config { policy, gateways, .. }, .. } = self;
        let Some(entry) = table.get_mut(id) else { return };
        let names = &entry.names;
        let judge = |protocol, client, asked, before| {
            let flow = NewFlow { protocol, client, destination: asked, names: &names.of(asked) };
            judgement(at_gateway(policy.verdict(&flow), asked, gateways), before)
        };
        let mut ended = Vec::new();
        let judgement = match (&mut entry.flow, entry.key) {
            (Flow::Tcp(connection), _) => {
                let tcp::Endpoints { client, server, target } = connection.endpoints;
                match target {
                    Target::Resolver => Judgement::Keep,
                    Target::Host { .. } | Target::Laptop(_) if connection.is_over() => Judgement::Keep,
                    Target::Laptop(loopback) => {
                        let judgement;
                        (judgement, entry.rule) =
                            judge(Protocol::Tcp, client, server, (loopback.address(), None));
                        judgement
                    }
                    Target::Host { address, interface } => {
                        let judgement;
                        (judgement, entry.rule) = judge(Protocol::Tcp, client, server, (address, interface));
                        match judgement {
                            Judgement::Hold if connection.is_connecting() => Judgement::End,
                            judgement @ (Judgement::Keep | Judgement::Hold | Judgement::End) => judgement,
                        }
                    }
                }
            }
            (Flow::Udp(mapping), key) => {
                let (client, interface) = (mapping.client, key.interface());
                mapping.peers.judge(
                    |peer| judge(Protocol::Udp, client, peer.asked, (peer.actual, interface)),
                    &mut ended,
                )
            }
            (Flow::Echo(session), key) => {
                let (client, interface) =
                    (SocketAddr::new(session.client, session.identifier), key.interface());
                session.peers.judge(
                    |peer| judge(Protocol::Echo, client, peer.asked, (peer.actual, interface)),
                    &mut ended,
                )
            }
        };
        self.tell_peers_closed(id, ended, Ending::Revoked);
        match judgement {
            Judgement::Keep => self.release(id, now),
            Judgement::Hold => {
                let Some(entry) = self.table.get_mut(id) else { return };
                if entry.held_since.is_none() && matches!(entry.flow, Flow::Tcp(_)) {
                    self.commands.push_back(Command::Hold(id));
                }
                entry.held_since.get_or_insert(now);
                self.settle(id, now);
            }
            Judgement::End => self.revoke(id, now),
        }
    }

    /// The flow's network is back, or it was never gone.
    fn release(&mut self, id: FlowId, now: Instant) {
        let Some(entry) = self.table.get_mut(id) else { return };
        if entry.held_since.take().is_some()
            && let Flow::Tcp(connection) = &mut entry.flow
        {
            connection.resume_service();
            self.settle(id, now);
        }
    }

    /// The flow's network did not come back in time.
    pub(super) fn end_hold(&mut self, id: FlowId, now: Instant) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let mut ended = Vec::new();
        let is_left = match &mut entry.flow {
            Flow::Tcp(connection) => connection.is_over(),
            Flow::Udp(udp::Mapping { peers, .. }) | Flow::Echo(icmp::Session { peers, .. }) => {
                peers.forget_held(&mut ended)
            }
        };
        if is_left {
            entry.held_since = None;
            self.tell_peers_closed(id, ended, Ending::Revoked);
            self.settle(id, now);
        } else {
            self.tell_peers_closed(id, ended, Ending::Revoked);
            self.revoke(id, now);
        }
    }

    /// Ends a flow that is not admitted any more.
    fn revoke(&mut self, id: FlowId, now: Instant) {
        let Some(entry) = self.table.get_mut(id) else { return };
        self.counters.revoked += 1;
        entry.held_since = None;
        entry.ending.get_or_insert(Ending::Revoked);
        if let Flow::Tcp(connection) = &mut entry.flow {
            connection.reset();
            self.settle(id, now);
        } else {
            self.commands.push_back(Command::Close(id));
            self.remove(id);
        }
    }

    /// Ends the session in an orderly way: every flow is reset on both sides, and none is left. What comes from the
    /// codespace from now on is refused.
    ///
    /// Take the last packets with [`Self::poll_transmit`] and the last commands with [`Self::poll_command`]. Without
    /// a link the codespace can't be informed, and its connections time out or are reset later.
    pub fn reset_all(&mut self, now: Instant) {
        self.ended = true;
        self.queries.clear();
        self.events.flush();
        self.reset_flows(now);
    }

    /// Resets every flow on both sides and goes on without flows. For a session that the sidecar has lost: call it
    /// after [`Self::handle_link_up`], so that the resets go over the new link, before anything else.
    ///
    /// A connection in TIME-WAIT is forgotten without a reset: both sides have ended it in an orderly way. A reset that
    /// does not have the number that the codespace's kernel expects, because bytes were lost with the old link, is
    /// answered with a challenge (RFC 5961, 3), and as that belongs to no connection, a reset with the right number
    /// follows.
    pub fn reset_flows(&mut self, now: Instant) {
        for id in self.table.ids() {
            let Some(entry) = self.table.get_mut(id) else { continue };
            entry.ending.get_or_insert(Ending::SessionEnd);
            let reset = if let Flow::Tcp(connection) = &mut entry.flow {
                connection.reset();
                if connection.take_actions().abort {
                    self.commands.push_back(Command::Abort(id));
                }
                connection.poll_control(now)
            } else {
                self.commands.push_back(Command::Close(id));
                None
            };
            self.remove(id);
            self.send_reset(reset);
        }
    }

    /// Not subject to the bound on urgent packets: there is one for each connection of the table at most.
    fn send_reset(&mut self, reset: Option<Transmit>) {
        if let Some(reset) = reset.filter(|_| self.link.is_up()) {
            self.urgent_bytes += queue::cost(&reset);
            self.urgent.push_back(reset);
        }
    }

    /// Refuses a packet that comes after [`Self::reset_all`].
    pub(super) fn refuse_after_end(&mut self, packet: &Packet) -> Result<(), Malformed> {
        let gone = Message::Unreachable(UnreachableKind::Network);
        match packet.protocol {
            IpNumber::TCP => {
                let segment = Segment::parse(packet)?;
                self.send_urgent(tcp::refusal(packet, &segment));
            }
            IpNumber::ICMP | IpNumber::IPV6_ICMP if icmp::Request::parse(packet)?.is_none() => return Ok(()),
            _ => self.answer(packet, gone),
        }
        self.counters.refused += 1;
        Ok(())
    }
}

/// The judgement on a flow that went to this destination by this interface, and the rule that decided.
fn judgement(verdict: Verdict, before: (SocketAddr, Option<InterfaceIndex>)) -> (Judgement, RuleId) {
    match verdict {
        Verdict::Forward { destination, interface, rule } => {
            let same = (destination, interface) == before;
            (if same { Judgement::Keep } else { Judgement::End }, rule)
        }
        Verdict::Laptop { port, rule } => {
            let loopback = Loopback { port, v6: before.0.is_ipv6() };
            let same = (loopback.address(), None) == before;
            (if same { Judgement::Keep } else { Judgement::End }, rule)
        }
        Verdict::Refuse { refusal: Refusal::NoRoute, rule } => (Judgement::Hold, rule),
        Verdict::Refuse { refusal: Refusal::Prohibited | Refusal::Closed | Refusal::Silent, rule } => {
            (Judgement::End, rule)
        }
    }
}

/// The verdict, if the destination is one of the engine's own addresses: nothing but ports of the laptop is open there.
fn at_gateway(verdict: Verdict, destination: SocketAddr, gateways: &[IpAddr]) -> Verdict {
    match verdict {
        Verdict::Forward { rule, .. } | Verdict::Refuse { refusal: Refusal::NoRoute, rule }
            if gateways.contains(&destination.ip()) =>
        {
            Verdict::Refuse { refusal: Refusal::Closed, rule }
        }
        Verdict::Forward { .. } | Verdict::Laptop { .. } | Verdict::Refuse { .. } => verdict,
    }
}
