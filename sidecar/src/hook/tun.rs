//! The TUN hook: a TUN [device] with [addresses](address) of its own, and [policy routes](gateway) that lead packets for
//! the laptop's networks into it. Needs `NET_ADMIN`.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use gh_net_common::frame::{Level, Open, Reason, TunnelAddress};
use gh_net_common::netlink::Netlink;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;

use crate::hook::concern::Concern;
use crate::hook::plan::{Plan, Target};
use crate::journal::Journal;
use crate::notify::Notifier;

mod address;
mod damage;
pub(crate) mod device;
pub(crate) mod gateway;
pub(crate) mod message;
mod table;
mod transition;

pub(crate) use damage::Damage;
use device::{Device, MAX_MTU, MIN_MTU};
use gateway::Gateway;

/// Why the hook could not be installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No device.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// No address, for these reasons.
    #[error("the tunnel has no addresses: {0}")]
    Addresses(String),
    /// No routes or rules.
    #[error("setting up the routing hook: {0}")]
    Gateway(#[source] io::Error),
}

impl Error {
    /// The reason in a goodbye.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Device(error) => error.reason(),
            Self::Addresses(_) | Self::Gateway(_) => Reason::Failed,
        }
    }
}

/// The installed hook. Dropping it removes the device; the rest is undone through the journal.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// Where packets go in and out.
    pub(crate) device: Device,
    /// The tunnel's addresses, at most one pair a family.
    pub(crate) addresses: Vec<TunnelAddress>,
    gateway: Gateway,
}

impl Tunnel {
    /// Installs the hook as `open` asks for it, with addresses outside of `taken`. Packets to `direct` never enter it.
    /// Returns it with the plan it follows.
    ///
    /// # Errors
    /// See [`Error`]. Changes already made are in the journal.
    pub(crate) fn install(
        open: &Open,
        taken: &[IpNet],
        direct: BTreeSet<IpAddr>,
        journal: &mut Journal,
        notifier: &Notifier,
    ) -> Result<(Self, Plan), Error> {
        let device = Device::create(open.mtu.clamp(MIN_MTU, MAX_MTU), journal)?;
        let addresses = add_addresses(&device, open, taken, notifier)?;
        let mut plan = Plan::new(addresses.clone());
        plan.set_exceptions(direct);
        let gateway = Gateway::install(&plan, device.index(), journal).map_err(Error::Gateway)?;
        Ok((Self { device, addresses, gateway }, plan))
    }

    /// Makes the routes what `plan` says. Returns, as text, the routes that the kernel refused; they are tried again
    /// the next time.
    ///
    /// # Errors
    /// Communication with the kernel failed.
    pub(crate) fn follow(&mut self, plan: &Plan) -> io::Result<Vec<String>> {
        self.gateway.follow(plan)
    }

    /// Lets these tables of the codespace, by family, win over the tunnel.
    ///
    /// # Errors
    /// The kernel refused a rule, or it could not be written down.
    pub(crate) fn prefer(&mut self, tables: &BTreeSet<(bool, u32)>, journal: &mut Journal) -> io::Result<()> {
        self.gateway.prefer(tables, journal)
    }

    /// What an event of the kernel means to the hook.
    pub(crate) fn concern(&self, event: &RouteNetlinkMessage) -> Concern {
        let Self { device, gateway, .. } = self;
        damage::concern(event, device.index(), gateway.rules(), gateway.installed())
    }

    /// What another program has taken from the hook.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn damage(&mut self) -> io::Result<Damage> {
        Ok(Damage {
            down: !self.device.is_up()?,
            addresses: self.device.missing(&self.addresses)?,
            rules: self.gateway.missing_rules()?,
            routes: !self.gateway.has_its_routes()?,
        })
    }

    /// Sets again what is missing: the rules last, when the routes are there. The caller follows the plan's refusals.
    ///
    /// # Errors
    /// The kernel's answer. What comes after it is still missing.
    pub(crate) fn repair(&mut self, damage: &Damage, plan: &Plan) -> io::Result<Vec<String>> {
        if damage.down {
            self.device.set_up()?;
        }
        for address in self.device.missing(&self.addresses)? {
            self.device.add_address(&address)?;
        }
        let refused = self.gateway.follow(plan)?;
        self.gateway.add_rules(&damage.rules)?;
        Ok(refused)
    }

    /// The interface that gets the tunnel's packets in place of the device, because a rule of the codespace comes before
    /// ours and leads there.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn bypass(&self) -> io::Result<Option<u32>> {
        for address in &self.addresses {
            let route = Netlink::open()?.route_to(address.gateway)?;
            let interface = route.and_then(|route| route.hops.first().map(|hop| hop.interface));
            if let Some(other) = interface.filter(|interface| *interface != self.device.index()) {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    /// The networks of `plan` that the kernel routes into the tunnel.
    pub(crate) fn forwarded(&self, plan: &Plan) -> Vec<IpNet> {
        let installed = self.gateway.installed();
        let is_forwarded = |net: &&IpNet| installed.get(*net) == Some(&Target::Tunnel);
        plan.laptop().iter().filter(is_forwarded).copied().collect()
    }
}

/// Adds the device's addresses. A family that the codespace does not have is left out, with a notice.
fn add_addresses(
    device: &Device,
    open: &Open,
    taken: &[IpNet],
    notifier: &Notifier,
) -> Result<Vec<TunnelAddress>, Error> {
    let mut addresses = Vec::new();
    let mut problems = Vec::new();
    for (v6, wanted) in [(false, open.families.v4), (true, open.families.v6)] {
        if !wanted {
            continue;
        }
        let family = if v6 { "IPv6" } else { "IPv4" };
        match address::choose(v6, &open.preferred, taken) {
            Ok(address) => match device.add_address(&address) {
                Ok(()) => addresses.push(address),
                Err(error) => {
                    problems.push(format!("{family} is not available in the codespace ({error})"));
                }
            },
            Err(error) => problems.push(error.to_string()),
        }
    }
    let Some(first) = addresses.first() else { return Err(Error::Addresses(problems.join("; "))) };
    let left = if first.gateway.is_ipv4() { "IPv4" } else { "IPv6" };
    for problem in problems {
        notifier.notify(Level::Warning, "family-unavailable", format!("{problem}; only {left} is forwarded"));
    }
    Ok(addresses)
}
