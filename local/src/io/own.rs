//! Whether an address is one of the laptop's own, asked of the kernel at the moment when a packet would go there.
//!
//! The policy knows the laptop's addresses from a snapshot, which is some milliseconds old when a VPN has just come up.
//! A service that trusts the laptop's own programs must not be reached in that time either.
//!
//! The kernel lets a socket be bound to the machine's own addresses only (and to groups and broadcast addresses, which the
//! policy refuses before). So an attempt to bind one is the question: one system call, without privilege, that sends
//! nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// How long an answer holds, for datagrams that follow each other.
const FRESH: Duration = Duration::from_millis(100);
/// Addresses for documentation (RFC 5737, RFC 3849), which no host should have. One that can be bound shows that any can
/// (`net.ipv4.ip_nonlocal_bind`), so that nothing can be learnt.
const UNASSIGNED: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct OwnAddresses {
    /// Unbound sockets, of IPv4 and IPv6.
    sockets: [Option<Socket>; 2],
    /// The latest address that was not ours, and when.
    latest: Option<(IpAddr, Instant)>,
    /// Whether no address is taken for the laptop's own.
    ignored: bool,
}

impl OwnAddresses {
    /// Asks the kernel.
    pub fn of_kernel() -> Self {
        Self { sockets: [None, None], latest: None, ignored: false }
    }

    /// Takes no address for the laptop's own.
    #[cfg(test)]
    pub(super) fn ignored() -> Self {
        Self { ignored: true, ..Self::of_kernel() }
    }

    /// Whether the laptop has this address now. Where the kernel can't be asked for want of descriptors, it has.
    pub(super) fn contain(&mut self, address: IpAddr) -> bool {
        let family = usize::from(address.is_ipv6());
        if self.ignored {
            return false;
        }
        match (self.can_bind(address), self.can_bind(UNASSIGNED[family])) {
            (Ok(bound), Ok(any)) => bound && !any,
            (Ok(false), Err(_)) => false,
            (Err(_), _) | (Ok(true), Err(_)) => true,
        }
    }

    /// The same for datagrams: an answer is remembered for a moment.
    pub(super) fn contain_recently(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.latest.is_some_and(|(latest, at)| latest == address && now < at + FRESH) {
            return false;
        }
        let own = self.contain(address);
        if !own {
            self.latest = Some((address, now));
        }
        own
    }

    /// Whether a socket can be bound to the address.
    ///
    /// # Errors
    /// There is no socket to try it with.
    fn can_bind(&mut self, address: IpAddr) -> io::Result<bool> {
        let socket = &mut self.sockets[usize::from(address.is_ipv6())];
        let unbound = match socket.take().map_or_else(|| Socket::new(domain(address), Type::DGRAM, None), Ok)
        {
            Ok(unbound) => unbound,
            // A laptop without this family has no address of it.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(false),
            Err(error) => return Err(error),
        };
        let bound = unbound.bind(&SocketAddr::new(address, 0).into()).is_ok();
        if !bound {
            *socket = Some(unbound);
        }
        Ok(bound)
    }
}

fn domain(address: IpAddr) -> Domain {
    if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_recognised() {
        let mut own = OwnAddresses::of_kernel();
        let now = Instant::now();
        for _ in 0..2 {
            assert!(own.contain(Ipv4Addr::LOCALHOST.into()));
            assert!(own.contain_recently("127.77.0.1".parse().unwrap(), now));
            assert!(!own.contain_recently("198.51.100.77".parse().unwrap(), now));
            assert!(!own.contain("2001:db8::77".parse().unwrap()));
        }
    }
}
