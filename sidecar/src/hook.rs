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

use bytes::{Bytes, BytesMut};
use gh_net_common::frame::{Goodbye, Open, TunnelAddress};
use gh_net_common::netlink::{Netlink, Route};
use ipnet::IpNet;

use crate::journal::{Change, Journal};
use crate::notify::Notifier;

pub(crate) mod plan;
mod tun;

use plan::Plan;
use tun::{Tunnel, device, gateway};

/// An installed hook. Dropping it stops the packets; the rest is undone through the journal.
#[derive(Debug)]
pub(crate) enum Hook {
    /// A TUN device with policy routes.
    Tun(Tunnel),
}

impl Hook {
    /// Installs a hook as `open` asks for it, with addresses outside of `taken`. Packets to `direct` never enter it.
    /// Returns it with the plan it follows.
    ///
    /// # Errors
    /// The goodbye for the laptop. Changes already made are in the journal.
    pub(crate) fn install(
        open: &Open,
        taken: &[IpNet],
        direct: BTreeSet<IpAddr>,
        journal: &mut Journal,
        notifier: &Notifier,
    ) -> Result<(Self, Plan), Goodbye> {
        match Tunnel::install(open, taken, direct, journal, notifier) {
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

    /// The networks of `plan` that are forwarded.
    pub(crate) fn forwarded(&self, plan: &Plan) -> Vec<IpNet> {
        match self {
            Self::Tun(tunnel) => tunnel.forwarded(plan),
        }
    }

    /// The next packet for the laptop, split off the front of `arena`, which gets new memory when it runs low.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, arena: &mut BytesMut) -> Poll<io::Result<Bytes>> {
        match self {
            Self::Tun(tunnel) => tunnel.device.poll_read(cx, arena),
        }
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

/// The codespace's routes: those of all tables except our own, which may be larger than all others together.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn routes_of_codespace() -> io::Result<Vec<Route>> {
    Ok(Netlink::open()?.routes(|route| !gateway::is_own(route))?.items)
}

/// Reverts a change that a hook has made. No error if there is nothing to revert.
///
/// # Errors
/// The system refused, or no hook makes such a change.
pub(crate) fn revert(change: &Change) -> io::Result<()> {
    match change {
        Change::Rule(rule) => gateway::delete_rule(rule),
        Change::Table { table } => gateway::flush_table(*table),
        Change::DeviceNode { path, directory } => device::remove_node(path, *directory),
        Change::ResolvConf { .. } => Err(io::Error::other("not a change of a gateway hook")),
    }
}
