//! The gateway hook: gets packets for the laptop's networks out of the codespace's IP stack and answers back into it.
//!
//! The [plan] says which networks are forwarded and which addresses never are. It is pure and independent of how a
//! hook works. [`Hook`] is all that the session and the pump know of one: it is installed once (all changes
//! journalled), follows the plan, and moves packets. Each kind of hook is a module beside the plan and a variant of
//! [`Hook`]: [`tun`], a TUN device with policy routes, needs `NET_ADMIN`.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use gh_net_common::frame::{Goodbye, Open, TunnelAddress};
use gh_net_common::netlink::{MAIN_TABLE, Netlink, Route, RouteKind};
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;

use crate::journal::{Change, Journal, Report};
use crate::notify::Notifier;

mod buffers;
mod concern;
mod containers;
pub(crate) mod plan;
mod rule;
mod tun;
#[cfg(feature = "fuzzing")]
pub(crate) use tun::fuzzing;

pub(crate) use buffers::{Buffers, kept_by};
pub(crate) use concern::Concern;
pub(crate) use containers::Bridges;
use plan::Plan;
pub(crate) use rule::Packets;
use rule::Rule;
pub(crate) use tun::device::NODE_ARGUMENTS;
pub(crate) use tun::gateway::MAX_TABLES;
pub(crate) use tun::{Damage, Repaired};
use tun::{Tunnel, device, gateway, message};

/// An installed hook. Dropping it stops the packets; the rest is undone through the journal.
#[derive(Debug)]
pub(crate) enum Hook {
    /// A TUN device with policy routes.
    Tun(Tunnel),
}

impl Hook {
    /// Installs a hook as `open` asks for it, with addresses outside of `taken`. Packets to `direct` never enter it.
    /// Besides the host's own packets, it gets those of `others`. Returns it with the plan it follows.
    ///
    /// # Errors
    /// The goodbye for the laptop. Changes already made are in the journal.
    pub(crate) fn install(
        open: &Open,
        taken: &[IpNet],
        direct: BTreeSet<IpAddr>,
        others: &BTreeSet<Packets>,
        journal: &mut Journal,
        notifier: &Notifier,
    ) -> Result<(Self, Plan), Goodbye> {
        match Tunnel::install(open, taken, direct, others, journal, notifier) {
            Ok((tunnel, plan)) => Ok((Self::Tun(tunnel), plan)),
            Err(error) => Err(Goodbye { reason: error.reason(), text: error.to_string() }),
        }
    }

    /// The name of its device.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Tun(_) => device::NAME,
        }
    }

    /// The largest packet, in bytes.
    pub(crate) fn mtu(&self) -> u16 {
        match self {
            Self::Tun(tunnel) => tunnel.device.mtu(),
        }
    }

    /// The tunnel's addresses, at most one pair a family.
    pub(crate) fn addresses(&self) -> &[TunnelAddress] {
        match self {
            Self::Tun(tunnel) => &tunnel.addresses,
        }
    }

    /// Forwards what `plan` says. Returns, as text, the routes that the kernel refused; they are tried again the next
    /// time.
    ///
    /// # Errors
    /// Communication with the kernel failed.
    pub(crate) fn follow(&mut self, plan: &Plan) -> io::Result<Vec<String>> {
        match self {
            Self::Tun(tunnel) => tunnel.follow(plan),
        }
    }

    /// Lets the networks in these `tables` of the codespace win, those that no other rule of the codespace lets win.
    /// Besides the host's own packets, those of `others` are forwarded. Returns, as text, the rules that could not be
    /// added or removed; they are tried again the next time.
    pub(crate) fn arrange(
        &mut self,
        tables: &BTreeSet<OwnTable>,
        others: &BTreeSet<Packets>,
        journal: &mut Journal,
    ) -> Vec<String> {
        match self {
            Self::Tun(tunnel) => tunnel.arrange(tables, others, journal),
        }
    }

    /// What an event of the kernel means to it.
    pub(crate) fn concern(&self, event: &RouteNetlinkMessage) -> Concern {
        match self {
            Self::Tun(tunnel) => tunnel.concern(event),
        }
    }

    /// What another program has taken from it.
    ///
    /// # Errors
    /// Communication with the kernel failed.
    pub(crate) fn damage(&mut self) -> io::Result<Damage> {
        match self {
            Self::Tun(tunnel) => tunnel.damage(),
        }
    }

    /// The interface that gets the tunnel's packets in its place, if another program's settings lead them there.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn bypass(&self) -> io::Result<Option<u32>> {
        match self {
            Self::Tun(tunnel) => tunnel.bypass(),
        }
    }

    /// Sets again what is missing, as far as that is possible.
    pub(crate) fn repair(&mut self, damage: &Damage, plan: &Plan) -> Repaired {
        match self {
            Self::Tun(tunnel) => tunnel.repair(damage, plan),
        }
    }

    /// Takes away, through the journal, what leads packets into the tunnel. From now on nothing is followed or missing.
    pub(crate) fn withdraw(&mut self, journal: &mut Journal) -> Report {
        match self {
            Self::Tun(tunnel) => tunnel.withdraw(journal),
        }
    }

    /// Looks whether an address family that was given up is available again. Returns its name.
    pub(crate) fn regain_family(&mut self) -> Option<&'static str> {
        match self {
            Self::Tun(tunnel) => tunnel.regain_family(),
        }
    }

    /// The networks of `plan` that are forwarded.
    pub(crate) fn forwarded(&self, plan: &Plan) -> Vec<IpNet> {
        match self {
            Self::Tun(tunnel) => tunnel.forwarded(plan),
        }
    }

    /// The next packet for the laptop.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Poll<io::Result<Bytes>> {
        let read = match self {
            Self::Tun(tunnel) => tunnel.device.poll_read(cx, buffers.room()),
        };
        read.map_ok(|length| buffers.packet(length))
    }

    /// Ready when another program has removed the hook.
    pub(crate) fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self {
            Self::Tun(tunnel) => tunnel.device.poll_lost(cx),
        }
    }

    /// Passes a packet of the laptop to the kernel. Never blocks: the kernel takes it or refuses it.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn write(&self, packet: &[u8]) -> io::Result<()> {
        match self {
            Self::Tun(tunnel) => tunnel.device.write(packet),
        }
    }
}

/// How often the networks are read at once because changes interrupt the reading.
const LOOKS: usize = 4;

/// A table of the codespace, and whether it is of IPv6.
pub(crate) type OwnTable = (bool, u32);

/// The codespace's networks, as its kernel knows them.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    /// The routes of all tables except our own, which may be larger than all others together.
    pub(crate) routes: Vec<Route>,
    /// The rules that look up a table of its own, not `main`, for every packet.
    pub(crate) rules: Vec<Rule>,
    /// Its addresses with the lengths of their prefixes, each with its interface's name.
    pub(crate) addresses: Vec<(IpNet, String)>,
    /// Its bridges; none if changes interrupted the reading.
    pub(crate) bridges: Bridges,
    /// Whether changes interrupted the reading: some may be missing.
    pub(crate) is_interrupted: bool,
}

impl Networks {
    /// The networks as they are now.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn read() -> io::Result<Self> {
        let mut found = Self::look()?;
        for _ in 1..LOOKS {
            if !found.is_interrupted {
                break;
            }
            found = Self::look()?;
        }
        Ok(found)
    }

    fn look() -> io::Result<Self> {
        let routes = Netlink::open()?.routes(|route| !message::is_own(route))?;
        let (rules, is_interrupted) = gateway::rules_of_codespace()?;
        let (bridges, is_missing) = containers::bridges(&routes.items)?;
        let addresses = Netlink::open()?.addresses()?;
        let is_interrupted = is_interrupted || is_missing || routes.interrupted || addresses.interrupted;
        let addresses = addresses.items.iter().map(|it| (it.address, interface_name(it.interface))).collect();
        let bridges = if is_interrupted { Bridges::default() } else { bridges };
        Ok(Self { routes: routes.items, rules, addresses, bridges, is_interrupted })
    }

    /// The tables whose networks win over the tunnel only if the hook has a rule for it.
    pub(crate) fn tables(&self) -> BTreeSet<OwnTable> {
        gateway::tables_after_ours(&self.rules, &self.routes)
    }

    /// The routes to networks that the codespace reaches by itself, and that take precedence over ours: those of `main`,
    /// and of the tables that its rules look up for every packet.
    pub(crate) fn own(&self) -> impl Iterator<Item = &Route> {
        let counts = |route: &Route| {
            let v6 = route.prefix.addr().is_ipv6();
            route.table == MAIN_TABLE
                || self.rules.iter().any(|rule| rule.table == route.table && rule.v6 == v6)
        };
        let routes = self.routes.iter();
        routes.filter(move |route| {
            route.kind == RouteKind::Unicast && route.prefix.prefix_len() > 0 && counts(route)
        })
    }
}

/// The name of the interface with this index, or a description if there is none.
pub(crate) fn interface_name(index: u32) -> String {
    match nix::net::if_::if_indextoname(index) {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => format!("interface {index}"),
    }
}

/// Reverts the changes of one kind that a hook has made. No error if there is nothing to revert.
///
/// # Errors
/// The system refused, or no hook makes such a change.
pub(crate) fn revert(change: Change) -> io::Result<()> {
    match change {
        Change::Rules => gateway::delete_rules(),
        Change::Routes => gateway::flush_table(),
        Change::Node => device::remove_node(),
        Change::NodeDirectory => device::remove_directory(),
        Change::Names => Err(io::Error::other("not a change of a gateway hook")),
    }
}
