//! What a session needs before its hook is installed.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use gh_net_common::debounce::Changes;
use gh_net_common::frame::{Goodbye, Open, Reason, Token};
use gh_net_common::netlink::Route;
use ipnet::IpNet;
use rustix::rand::{GetRandomFlags, getrandom};

use super::sources::Known;
use crate::hook::plan::Plan;
use crate::hook::{Hook, Networks};
use crate::journal::Journal;
use crate::names::resolv;
use crate::notify::Notifier;

/// A new session's id and the secret that resumes it.
pub(super) fn identity() -> Result<([u8; 16], Token), Goodbye> {
    let unavailable = failed("no random numbers for the session's token");
    Ok((random().map_err(&unavailable)?, Token(random().map_err(&unavailable)?)))
}

/// Installs the hook with addresses outside the networks of the codespace and the laptop. Changes already made are in
/// the journal.
pub(super) fn install_hook(
    open: &Open,
    peer: Option<IpAddr>,
    journal: &mut Journal,
    notifier: &Notifier,
) -> Result<(Hook, Plan), Goodbye> {
    let found = Networks::read().map_err(failed("reading the routes and addresses"))?;
    let Networks { routes, addresses, .. } = &found;
    let mut taken: Vec<IpNet> = open.avoid.clone();
    taken.extend(routes.iter().map(|route| route.prefix));
    taken.extend(addresses.iter().flat_map(|(address, _)| [*address, address.trunc()]));
    let direct = exceptions(routes, peer, &resolv::nameservers());
    let mut known = Known::default();
    known.take(&found, Changes::Settled);
    Hook::install(open, &taken, direct, &known.packets(&open.from), journal, notifier)
}

/// The addresses that carry the session: the ssh peer, the next hops of the default routes, the resolvers.
pub(super) fn exceptions(routes: &[Route], peer: Option<IpAddr>, resolvers: &[IpAddr]) -> BTreeSet<IpAddr> {
    let defaults = routes.iter().filter(|route| route.prefix.prefix_len() == 0);
    let gateways = defaults.flat_map(Route::gateways);
    peer.into_iter().chain(gateways).chain(resolvers.iter().copied()).collect()
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Goodbye {
    move |error| Goodbye { reason: Reason::Failed, text: format!("{what}: {error}") }
}

/// Bytes from the kernel's random number generator.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // Up to 256 bytes come in one piece.
    let length = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if length == N { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
