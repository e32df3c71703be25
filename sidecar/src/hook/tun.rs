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
use crate::hook::rule::Packets;
use crate::journal::{Journal, Report};
use crate::notify::Notifier;

mod address;
mod damage;
pub(crate) mod device;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
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
    /// The families that the codespace does not have any more; `true` is IPv6.
    unavailable: BTreeSet<bool>,
    gateway: Gateway,
}

/// What a repair has done.
#[derive(Debug, Default)]
pub(crate) struct Repaired {
    /// Whether something is set again.
    pub(crate) is_progress: bool,
    /// What could not be set again, and why.
    pub(crate) failed: Vec<String>,
    /// The families that are given up, and why.
    pub(crate) unavailable: Vec<String>,
    /// The routes that the kernel refused; they are tried again the next time.
    pub(crate) refused: Vec<String>,
}

impl Repaired {
    fn note(&mut self, what: &str, result: io::Result<()>) {
        match result {
            Ok(()) => self.is_progress = true,
            Err(error) => self.failed.push(format!("{what}: {error}")),
        }
    }
}

impl Tunnel {
    /// Installs the hook as `open` asks for it, with addresses outside of `taken`. Packets to `direct` never enter it.
    /// Besides the host's own packets, it gets those of `others`. Returns it with the plan it follows.
    ///
    /// # Errors
    /// See [`Error`]. Changes already made are in the journal.
    pub(crate) fn install(
        open: &Open,
        taken: &[IpNet],
        direct: BTreeSet<IpAddr>,
        others: &BTreeSet<Packets>,
        journal: &mut Journal,
        notifier: &Notifier,
    ) -> Result<(Self, Plan), Error> {
        let device = Device::create(open.mtu.clamp(MIN_MTU, MAX_MTU), journal)?;
        let addresses = add_addresses(&device, open, taken, notifier)?;
        let mut plan = Plan::new(addresses.clone());
        plan.set_exceptions(direct);
        let gateway = Gateway::install(&plan, device.index(), others, journal).map_err(Error::Gateway)?;
        Ok((Self { device, addresses, unavailable: BTreeSet::new(), gateway }, plan))
    }

    /// Makes the routes what `plan` says. Returns, as text, the routes that the kernel refused; they are tried again
    /// the next time.
    ///
    /// # Errors
    /// Communication with the kernel failed.
    pub(crate) fn follow(&mut self, plan: &Plan) -> io::Result<Vec<String>> {
        self.gateway.follow(plan)
    }

    /// Lets these tables of the codespace, by family, win over the tunnel, and `others` use it. Returns, as text, the
    /// rules that could not be added or removed.
    pub(crate) fn arrange(
        &mut self,
        tables: &BTreeSet<(bool, u32)>,
        others: &BTreeSet<Packets>,
        journal: &mut Journal,
    ) -> Vec<String> {
        self.gateway.arrange(tables, others, journal)
    }

    /// Takes the rules and routes away, through the journal. From now on nothing is followed or missing.
    pub(crate) fn withdraw(&mut self, journal: &mut Journal) -> Report {
        self.gateway.withdraw(journal)
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
        if self.gateway.is_withdrawn() {
            return Ok(Damage::default());
        }
        let is_up = self.device.is_up()?;
        let addresses = self.missing_addresses()?;
        let rules = self.gateway.missing_rules()?;
        let has_routes = self.gateway.has_its_routes()?;
        Ok(Damage {
            is_unsure: is_up.is_none() || addresses.is_none() || rules.is_none() || has_routes.is_none(),
            down: is_up == Some(false),
            addresses: addresses.unwrap_or_default(),
            rules: rules.unwrap_or_default(),
            routes: has_routes == Some(false),
        })
    }

    /// The addresses that are missing in the families that the codespace has; `None` if changes interrupted the look.
    fn missing_addresses(&self) -> io::Result<Option<Vec<TunnelAddress>>> {
        let mut missing = self.device.missing(&self.addresses)?;
        if let Some(missing) = &mut missing {
            missing.retain(|address| !self.unavailable.contains(&is_v6(address)));
        }
        Ok(missing)
    }

    /// Sets again what is missing, each part by itself: what can't be repaired must not keep the rest from it. The rules
    /// come last, when the routes are there. A family that the codespace does not have any more is given up.
    pub(crate) fn repair(&mut self, damage: &Damage, plan: &Plan) -> Repaired {
        let mut repaired = Repaired::default();
        if damage.down {
            repaired.note("the device", self.device.set_up());
        }
        // A device that is down loses its addresses.
        let missing = self.device.missing(&self.addresses).unwrap_or_else(|error| {
            repaired.note("the addresses", Err(error));
            None
        });
        let missing = missing.unwrap_or_else(|| damage.addresses.clone());
        for address in &missing {
            if self.unavailable.contains(&is_v6(address)) {
                continue;
            }
            match self.device.add_address(address) {
                Err(error) if is_unavailable(&error) => {
                    self.unavailable.insert(is_v6(address));
                    repaired.unavailable.push(unavailable(is_v6(address), &error));
                }
                result => repaired.note(&format!("the address {}", address.sidecar.addr()), result),
            }
        }
        match self.gateway.follow(plan) {
            Ok(refused) => {
                repaired.refused = refused;
                repaired.is_progress |= damage.routes;
            }
            Err(error) => repaired.note("the routes", Err(error)),
        }
        for (rule, result) in self.gateway.add_rules(&damage.rules) {
            repaired.note(&format!("the routing rule {rule}"), result);
        }
        repaired
    }

    /// Looks whether a family that was given up is available again. Returns its name.
    pub(crate) fn regain_family(&mut self) -> Option<&'static str> {
        let Self { device, addresses, unavailable, .. } = self;
        let lost = addresses.iter().find(|address| unavailable.contains(&is_v6(address)))?;
        match device.add_address(lost) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => None,
            Ok(()) | Err(_) => {
                unavailable.remove(&is_v6(lost));
                Some(family(is_v6(lost)))
            }
        }
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

fn is_v6(address: &TunnelAddress) -> bool {
    address.gateway.is_ipv6()
}

fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

fn unavailable(v6: bool, error: &io::Error) -> String {
    format!("{} is not available in the codespace ({error})", family(v6))
}

/// Whether the kernel refuses an address because the family is disabled, for example by `disable_ipv6`.
fn is_unavailable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EOPNOTSUPP | libc::EADDRNOTAVAIL))
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
        match address::choose(v6, &open.preferred, taken) {
            Ok(address) => match device.add_address(&address) {
                Ok(()) => addresses.push(address),
                Err(error) => problems.push(unavailable(v6, &error)),
            },
            Err(error) => problems.push(error.to_string()),
        }
    }
    let Some(first) = addresses.first() else { return Err(Error::Addresses(problems.join("; "))) };
    let left = family(is_v6(first));
    for problem in problems {
        notifier.notify(Level::Warning, "family-unavailable", format!("{problem}; only {left} is forwarded"));
    }
    Ok(addresses)
}
