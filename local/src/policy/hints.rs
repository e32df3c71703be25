//! What the user should know: hints, and overlaps with the codespace's own networks.

use std::fmt;

use ipnet::IpNet;

/// Why `--route auto` may not do what the user expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// All of the laptop's traffic goes by a VPN's interface, so its routes don't show which networks are behind the
    /// VPN.
    FullTunnel {
        /// The interface.
        interface: String,
    },
    /// The laptop has no route besides its default routes.
    NoRoutes,
    /// The laptop has more routes than are processed.
    TooManyRoutes,
}

impl Hint {
    /// The hint's code, which stays the same from version to version.
    pub fn code(&self) -> &'static str {
        match self {
            Self::FullTunnel { .. } => "full-tunnel",
            Self::NoRoutes => "no-routes",
            Self::TooManyRoutes => "too-many-routes",
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FullTunnel { interface } => write!(
                f,
                "{interface} looks like a full-tunnel VPN: all of this machine's traffic goes there, so its routes \
                 don't tell which networks are behind it; forward all private networks with --route private, or \
                 name them with --route CIDR"
            ),
            Self::NoRoutes => f.write_str(
                "there is no network to forward: this machine has only a default route, or everything else is excluded; \
                 forward all private networks with --route private, or name them with --route CIDR",
            ),
            Self::TooManyRoutes => f.write_str(
                "this machine has more routes than gh-net follows; name the networks to forward with --route CIDR",
            ),
        }
    }
}

/// A network of the laptop that can't be reached, completely or in part, because the codespace has it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The laptop's.
    pub laptop: IpNet,
    /// The interface by which the laptop reaches it, if that is known.
    pub interface: Option<String>,
    /// The codespace's own.
    pub codespace: IpNet,
}

impl Overlap {
    /// The code of this kind of hint, which stays the same from version to version.
    pub const CODE: &str = "overlap";

    /// What both have; it stays the codespace's.
    pub fn shared(&self) -> IpNet {
        if self.laptop.contains(&self.codespace) { self.codespace } else { self.laptop }
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { laptop, interface, codespace } = self;
        write!(f, "the laptop's network {laptop}")?;
        if let Some(interface) = interface {
            write!(f, " ({interface})")?;
        }
        let shared = self.shared();
        write!(
            f,
            " overlaps the codespace's own {codespace}: the codespace keeps {shared} for itself, so the \
             laptop's hosts in it can't be reached; reach them by another address, or give the codespace's network \
             another range (a container network's subnet), or accept it with --exclude {shared}"
        )
    }
}
