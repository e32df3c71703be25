//! What a session stands on: the device with its addresses, and the gateway hook. Made once, at its start.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use gh_net_common::frame::{Goodbye, Level, Open, Reason, Token, TunnelAddress};
use ipnet::IpNet;

use crate::address;
use crate::netlink::{Netlink, Route};
use crate::notify::Notifier;
use crate::resolv;
use crate::routes::{Plan, netlink::Gateway};
use crate::tun::{self, Device};
use crate::undo::Journal;

/// What a session stands on.
pub(super) struct Ground {
    pub(super) device: Device,
    pub(super) addresses: Vec<TunnelAddress>,
    pub(super) plan: Plan,
    pub(super) gateway: Gateway,
}

impl Ground {
    /// Makes it. What was done is in the journal, whether or not it succeeds.
    pub(super) fn make(
        open: &Open,
        peer: Option<IpAddr>,
        journal: &mut Journal,
        notifier: &Notifier,
    ) -> Result<Self, Goodbye> {
        let mut netlink = Netlink::open().map_err(failed("netlink"))?;
        let routes = netlink.routes().map_err(failed("reading the routes"))?;
        let mut taken: Vec<IpNet> = open.avoid.clone();
        taken.extend(routes.iter().map(|route| route.destination));
        taken.extend(netlink.addresses().map_err(failed("reading the addresses"))?);
        let mtu = open.mtu.clamp(tun::MIN_MTU, tun::MAX_MTU);
        let device = Device::create(mtu, journal)
            .map_err(|error| Goodbye { reason: error.reason(), text: error.to_string() })?;
        let addresses = add_addresses(&device, open, &taken, notifier)?;
        let mut plan = Plan::new(addresses.clone());
        plan.set_exceptions(exceptions(&routes, peer));
        let gateway = Gateway::install(&plan, device.index(), journal)
            .map_err(failed("setting up the routing hook"))?;
        Ok(Self { device, addresses, plan, gateway })
    }
}

/// A new session's name and the secret that resumes it.
pub(super) fn names() -> Result<([u8; 16], Token), Goodbye> {
    let unavailable = failed("no random numbers for the session's token");
    Ok((random().map_err(&unavailable)?, Token(random().map_err(&unavailable)?)))
}

/// The addresses the device was given. A family the codespace does not have is left out, with a notice.
fn add_addresses(
    device: &Device,
    open: &Open,
    taken: &[IpNet],
    notifier: &Notifier,
) -> Result<Vec<TunnelAddress>, Goodbye> {
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
    if addresses.is_empty() {
        problems.push("the tunnel has no addresses at all".to_owned());
        return Err(Goodbye { reason: Reason::Failed, text: problems.join("; ") });
    }
    for problem in problems {
        let left = if addresses[0].gateway.is_ipv4() { "IPv4" } else { "IPv6" };
        notifier.notify(Level::Warning, "family-unavailable", format!("{problem}; only {left} is forwarded"));
    }
    Ok(addresses)
}

/// What carries us: the ssh connection's other end, the next hops of the default routes, the resolvers.
pub(super) fn exceptions(routes: &[Route], peer: Option<IpAddr>) -> BTreeSet<IpAddr> {
    let defaults = routes.iter().filter(|route| route.destination.prefix_len() == 0);
    let gateways = defaults.filter_map(|route| route.gateway);
    peer.into_iter().chain(gateways).chain(resolv::nameservers()).collect()
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Goodbye {
    move |error| Goodbye { reason: Reason::Failed, text: format!("{what}: {error}") }
}

/// Bytes from the kernel's generator, getrandom(2).
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the buffer is writable for its whole length. Up to 256 bytes come in one piece.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if usize::try_from(length) == Ok(N) { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}
