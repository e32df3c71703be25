//! Whether an address is one of the laptop's own, asked of the kernel at the moment when a packet would go there.
//!
//! The policy knows the laptop's addresses from a snapshot, which is some milliseconds old when a VPN has just come up.
//! A service that trusts the laptop's own programs must not be reached in that time either.
//!
//! The kernel lets a socket be bound to the machine's own addresses only, so an attempt to bind one is the question. It
//! takes one system call, needs no privilege, and sends nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// How long an answer holds, for datagrams that follow each other.
const FRESH: Duration = Duration::from_millis(100);
/// Addresses for documentation (RFC 5737, RFC 3849), which no host has.
const NOBODYS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct OwnAddresses {
    v4: Question,
    v6: Question,
    /// The latest address that was not ours, and when.
    latest: Option<(IpAddr, Instant)>,
}

/// How a family is asked about.
#[derive(Debug)]
enum Question {
    /// With this unbound socket.
    Socket(Socket),
    /// It can't be: the laptop does not have the family, lets sockets be bound to any address
    /// (`net.ipv4.ip_nonlocal_bind`), or own addresses are allowed.
    Never,
}

impl OwnAddresses {
    /// Asks the kernel.
    pub fn of_kernel() -> Self {
        let [v4, v6] = NOBODYS.map(|nobody| {
            let mut question = Question::new(nobody.is_ipv6());
            if question.is_own(nobody) {
                tracing::debug!("own addresses can't be recognised: sockets may be bound to any address");
                question = Question::Never;
            }
            question
        });
        Self { v4, v6, latest: None }
    }

    /// Takes no address for the laptop's own.
    #[cfg(test)]
    pub(super) fn ignored() -> Self {
        Self { v4: Question::Never, v6: Question::Never, latest: None }
    }

    /// Whether the laptop has this address now.
    pub(super) fn contain(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.latest.is_some_and(|(latest, at)| latest == address && now < at + FRESH) {
            return false;
        }
        let question = if address.is_ipv6() { &mut self.v6 } else { &mut self.v4 };
        let own = question.is_own(address);
        if !own {
            self.latest = Some((address, now));
        }
        own
    }
}

impl Question {
    fn new(v6: bool) -> Self {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        Socket::new(domain, Type::DGRAM, None).map_or(Self::Never, Self::Socket)
    }

    fn is_own(&mut self, address: IpAddr) -> bool {
        let Self::Socket(socket) = self else { return false };
        let own = socket.bind(&SocketAddr::new(address, 0).into()).is_ok();
        if own {
            // It is bound now.
            *self = Self::new(address.is_ipv6());
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_recognised() {
        let mut own = OwnAddresses::of_kernel();
        let now = Instant::now();
        for _ in 0..2 {
            assert!(own.contain(Ipv4Addr::LOCALHOST.into(), now));
            assert!(own.contain("127.77.0.1".parse().unwrap(), now));
            assert!(!own.contain("198.51.100.77".parse().unwrap(), now));
            assert!(!own.contain("2001:db8::77".parse().unwrap(), now));
        }
    }
}
