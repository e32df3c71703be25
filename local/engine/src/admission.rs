//! Which flows are let in, and how they end when that changes.

use std::net::SocketAddr;
use std::time::Instant;

use etherparse::IpNumber;

use super::api::{Command, FlowId, Target, Transmit, UnreachableKind};
use super::flow::Flow;
use super::packet::icmp::Message;
use super::packet::{Malformed, Packet};
use super::tcp::{self, Segment};
use super::{Config, Engine, InterfaceIndex, NewFlow, Policy, Protocol, Refusal, Verdict, dns, icmp};

/// Where an admitted flow goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admitted {
    pub destination: SocketAddr,
    pub interface: Option<InterfaceIndex>,
}

impl Engine {
    /// Asks the policy about a packet of a flow, and answers the packet if the policy refuses.
    pub(super) fn admit(
        &mut self,
        packet: &Packet,
        protocol: Protocol,
        client: SocketAddr,
        destination: SocketAddr,
    ) -> Option<Admitted> {
        match verdict(&*self.config.policy, protocol, client, destination) {
            Verdict::Forward { destination, interface, .. } => Some(Admitted { destination, interface }),
            Verdict::Refuse { refusal, rule } => {
                tracing::debug!(?protocol, %client, %destination, ?refusal, rule = rule.0, "refused");
                self.counters.refused += 1;
                match refusal {
                    Refusal::NoRoute => self.answer(packet, Message::Unreachable(UnreachableKind::Network)),
                    Refusal::Prohibited => {
                        self.answer(packet, Message::Unreachable(UnreachableKind::Prohibited));
                    }
                    Refusal::Silent => {}
                }
                None
            }
        }
    }

    /// Replaces the policy, and judges every existing flow by the new one.
    ///
    /// A flow stays if it is still forwarded to where it goes. The interface may differ: sockets that are open keep
    /// theirs. What is not admitted any more ends:
    /// - A TCP connection is reset on both sides. Connections to the laptop's resolver are not judged.
    /// - A UDP mapping has several destinations. Those that are not admitted are forgotten, so that nothing from
    ///   them reaches the codespace, and the mapping is closed with the last one. An echo session likewise.
    pub fn set_policy(&mut self, policy: Box<dyn Policy>, now: Instant) {
        self.config.policy = policy;
        for id in self.table.ids() {
            self.judge_again(id, now);
        }
    }

    fn judge_again(&mut self, id: FlowId, now: Instant) {
        let Self { table, config: Config { policy, .. }, .. } = self;
        let admits = |protocol, client, asked, actual| {
            let verdict = verdict(&**policy, protocol, client, asked);
            matches!(verdict, Verdict::Forward { destination, .. } if destination == actual)
        };
        let Some(entry) = table.get_mut(id) else { return };
        let is_admitted = match &mut entry.flow {
            Flow::Tcp(connection) if connection.is_over() => true,
            Flow::Tcp(connection) => {
                let tcp::Endpoints { client, server, target } = connection.endpoints;
                match target {
                    Target::Host { address, .. } => admits(Protocol::Tcp, client, server, address),
                    Target::Resolver => true,
                }
            }
            Flow::Udp(mapping) => {
                let client = mapping.client;
                mapping.peers.retain(|peer| admits(Protocol::Udp, client, peer.asked, peer.actual))
            }
            Flow::Echo(session) => {
                let client = SocketAddr::new(session.client, session.identifier);
                session.peers.retain(|peer| admits(Protocol::Echo, client, peer.asked, peer.actual))
            }
        };
        if is_admitted {
            return;
        }
        self.counters.revoked += 1;
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
    /// a link the codespace can't be told, and its connections find out by themselves.
    pub fn reset_all(&mut self, now: Instant) {
        self.ended = true;
        self.queries = dns::Queries::default();
        for id in self.table.ids() {
            let Some(entry) = self.table.get_mut(id) else { continue };
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
            self.urgent_bytes += reset.len();
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

fn verdict(policy: &dyn Policy, protocol: Protocol, client: SocketAddr, destination: SocketAddr) -> Verdict {
    policy.verdict(&NewFlow { protocol, client, destination, names: &[] })
}
