//! The TUN device: whole IP packets from and to the codespace's kernel.
//!
//! The device exists as long as its descriptor is open. The kernel removes it, with its addresses and routes, when the
//! owner closes it or dies.
#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel adds messages")]

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use gh_net_common::frame::{Reason, TunnelAddress};
use gh_net_common::netlink::{Netlink, Route, RouteKind};
use gh_net_common::sys::ReadyFd;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tokio::io::ReadBuf;

use crate::journal::{Change, Journal};
use crate::privilege::REMEDY;
use crate::sys;

/// The device's name.
pub(crate) const NAME: &str = "ghnet0";
/// The largest useful MTU: 64 KiB less 16.
pub(crate) const MAX_MTU: u16 = 65_520;
/// The smallest MTU: IPv6 requires it (RFC 8200, section 5).
pub(crate) const MIN_MTU: u16 = 1280;

/// A new IPv6 address starts to receive shortly after the kernel has accepted it (addrconf_dad_work).
const SETTLE: Duration = Duration::from_secs(2);

const DIRECTORY: &str = "/dev/net";
const NODE: &str = "/dev/net/tun";
/// Documentation/admin-guide/devices.txt: 10 misc, 200 TUN.
const MAJOR: u64 = 10;
const MINOR: u64 = 200;
/// The mode of the node that we make. The sticky bit has no meaning for a device: it says that the node is ours.
const NODE_MODE: u32 = 0o1600;
/// The node's mode with its type, and its number: what `mknod` gets.
pub(crate) const NODE_ARGUMENTS: (u32, u64) = (libc::S_IFCHR | NODE_MODE, makedev(MAJOR, MINOR));

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no node, and it can't be created.
    #[error("/dev/net/tun is missing and could not be created ({0}). {REMEDY}")]
    NoNode(io::Error),
    /// There is a node, but the container's device rules forbid opening it.
    #[error(
        "/dev/net/tun exists, but this container may not open it ({0}): its device rules forbid it. {REMEDY}"
    )]
    Forbidden(io::Error),
    /// The kernel has no TUN driver.
    #[error("this kernel has no TUN driver ({0}); on the host of the container: modprobe tun")]
    NoDriver(io::Error),
    /// The capability is missing.
    #[error("creating a TUN device needs the capability NET_ADMIN ({0}). {REMEDY}")]
    NoPrivilege(io::Error),
    /// A device of that name exists already.
    #[error(
        "a network device {NAME} exists already, of another program or of a gh-net-sidecar in another container that \
         shares this network; end that program, or remove the device: ip link delete {NAME}"
    )]
    Taken,
    /// Anything else.
    #[error("the TUN device could not be set up: {0}")]
    Other(io::Error),
}

impl Error {
    /// The reason in a goodbye.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NoPrivilege(_) => Reason::Privilege,
            Self::NoNode(_) | Self::Forbidden(_) | Self::NoDriver(_) | Self::Taken | Self::Other(_) => {
                Reason::Tun
            }
        }
    }
}

/// An open device.
#[derive(Debug)]
pub(crate) struct Device {
    fd: ReadyFd,
    index: u32,
    mtu: u16,
}

impl Device {
    /// Creates the device and sets it up, without addresses.
    ///
    /// # Errors
    /// See [`Error`]. If the node was created, that is in the journal.
    pub(crate) fn create(mtu: u16, journal: &mut Journal) -> Result<Self, Error> {
        open_node(journal)?;
        // Attaching to a persistent device of another program would succeed, and the device would outlive us.
        if nix::net::if_::if_nametoindex(NAME).is_ok() {
            return Err(Error::Taken);
        }
        let mut config = ::tun::configure();
        config.tun_name(NAME).platform_config(|platform| {
            // Addresses and MTU are set below by netlink, for both families.
            platform.ensure_root_privileges(false);
        });
        let device = ::tun::Device::new(&config).map_err(|error| match io::Error::from(error) {
            error if error.raw_os_error() == Some(libc::EPERM) => Error::NoPrivilege(error),
            error if error.raw_os_error() == Some(libc::EBUSY) => Error::Taken,
            error => Error::Other(error),
        })?;
        device.set_nonblock().map_err(Error::Other)?;
        let fd = sys::descriptor(device);
        let index = nix::net::if_::if_nametoindex(NAME).map_err(|errno| Error::Other(errno.into()))?;
        set_up(index, mtu).map_err(Error::Other)?;
        let fd = ReadyFd::new(fd).map_err(Error::Other)?;
        Ok(Self { fd, index, mtu })
    }

    /// Its interface index.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Its MTU in bytes.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Adds an address, without the route to its prefix that the kernel would otherwise add to `main`.
    ///
    /// # Errors
    /// The kernel's answer; EACCES or EOPNOTSUPP if the family is disabled.
    pub(crate) fn add_address(&self, address: &TunnelAddress) -> io::Result<()> {
        let own = address.sidecar;
        let mut message = AddressMessage::default();
        message.header.family = match own {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        };
        message.header.prefix_len = own.prefix_len();
        message.header.index = self.index;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes = vec![
            AddressAttribute::Local(own.addr()),
            AddressAttribute::Address(own.addr()),
            AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
        ];
        let events = Netlink::open()?;
        if own.addr().is_ipv6() {
            events.listen(libc::RTNLGRP_IPV6_ROUTE)?;
        }
        let request = RouteNetlinkMessage::NewAddress(message);
        Netlink::open()?.request(request, NLM_F_CREATE | NLM_F_EXCL)?;
        if own.addr().is_ipv6() && !has_settled(own.addr(), |left| events.wait(left), is_routed)? {
            tracing::warn!("the kernel has no route to {own} yet: it may not receive packets");
        }
        Ok(())
    }

    /// Whether it is up, which another program may change; `None` if changes interrupted the look.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn is_up(&self) -> io::Result<Option<bool>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let up = Netlink::open()?.dump(request, |message| match message {
            RouteNetlinkMessage::NewLink(link) if link.header.index == self.index => {
                Some(link.header.flags.contains(LinkFlags::Up))
            }
            _ => None,
        })?;
        let is_missed = up.interrupted && up.items.is_empty();
        Ok((!is_missed).then_some(up.items.first() == Some(&true)))
    }

    /// Sets it up again, without its addresses.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn set_up(&self) -> io::Result<()> {
        set_up(self.index, self.mtu)
    }

    /// Those of `addresses` that it lacks; `None` if changes interrupted the look.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn missing(&self, addresses: &[TunnelAddress]) -> io::Result<Option<Vec<TunnelAddress>>> {
        let present = Netlink::open()?.addresses()?;
        let has = |own: &TunnelAddress| {
            present
                .items
                .iter()
                .any(|it| it.interface == self.index && it.address.addr() == own.sidecar.addr())
        };
        let missing: Vec<TunnelAddress> = addresses.iter().filter(|own| !has(own)).copied().collect();
        Ok((missing.is_empty() || !present.interrupted).then_some(missing))
    }

    /// Reads the next packet into `buffer`; returns its length.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.fd.poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Ready when another program has removed the device.
    pub(crate) fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            match ready!(self.fd.poll_write_ready(cx)) {
                Err(error) => return Poll::Ready(error),
                // A TUN descriptor without a device reports EPOLLERR alone, which mio maps to this.
                Ok(guard) if guard.ready().is_write_closed() => {
                    return Poll::Ready(io::Error::from_raw_os_error(libc::ENODEV));
                }
                // A TUN descriptor is always writable.
                Ok(mut guard) => guard.clear_ready(),
            }
        }
    }

    /// Passes a packet to the kernel. Never blocks: the kernel takes it or refuses it.
    ///
    /// # Errors
    /// The kernel's answer: EINVAL if it is no packet, EIO if the device is down.
    pub(crate) fn write(&self, packet: &[u8]) -> io::Result<()> {
        nix::unistd::write(self.fd.get_ref(), packet)?;
        Ok(())
    }
}

/// Waits for the kernel's own route to a new IPv6 address. Returns whether it appeared in time.
fn has_settled(
    own: IpAddr,
    wait: impl Fn(Duration) -> io::Result<Vec<RouteNetlinkMessage>>,
    is_routed: impl Fn(IpAddr) -> io::Result<bool>,
) -> io::Result<bool> {
    let deadline = Instant::now() + SETTLE;
    loop {
        // Other routes may come and go all the time.
        let left = deadline.saturating_duration_since(Instant::now());
        let events = match wait(left) {
            // There were more events than the socket holds. The one we wait for may have been lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                if is_routed(own)? {
                    return Ok(true);
                }
                continue;
            }
            events => events?,
        };
        if events.is_empty() && left.is_zero() {
            return Ok(false);
        }
        for event in events {
            if let RouteNetlinkMessage::NewRoute(route) = event
                && Route::from_message(route).is_some_and(|route| route.prefix == IpNet::from(own))
            {
                return Ok(true);
            }
        }
    }
}

/// Whether the kernel has a route of its own to this address.
fn is_routed(own: IpAddr) -> io::Result<bool> {
    let routes = Netlink::open()?.routes(|_| true)?.items;
    Ok(routes.iter().any(|route| route.kind == RouteKind::Local && route.prefix == IpNet::from(own)))
}

fn set_up(index: u32, mtu: u16) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let mut set = |flags: LinkFlags, attributes: Vec<LinkAttribute>| {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        message.header.change_mask = flags;
        message.attributes = attributes;
        netlink.request(RouteNetlinkMessage::SetLink(message), 0)
    };
    // Without a link-local address the kernel neither solicits routers nor reports multicast groups on the device.
    let no_link_local = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let no_link_local = vec![AfSpecUnspec::Inet6(vec![no_link_local])];
    if let Err(error) = set(LinkFlags::empty(), vec![LinkAttribute::AfSpecUnspec(no_link_local)]) {
        tracing::debug!(%error, "can't set the address generation mode; IPv6 may be disabled");
    }
    set(LinkFlags::empty(), vec![LinkAttribute::Mtu(mtu.into())])?;
    // Settings of our own device, which disappear with it. /proc/sys is read-only in most containers. Without them only
    // time-exceeded messages of routers outside the laptop's networks are lost.
    for (setting, value) in [
        (format!("/proc/sys/net/ipv6/conf/{NAME}/accept_ra"), "0"),
        (format!("/proc/sys/net/ipv4/conf/{NAME}/rp_filter"), "2"),
    ] {
        if let Err(error) = fs::write(&setting, value) {
            tracing::debug!(%error, "can't write {setting}");
        }
    }
    set(LinkFlags::Up, vec![])
}

/// Makes sure that the node exists and can be opened.
fn open_node(journal: &mut Journal) -> Result<(), Error> {
    let path = Path::new(NODE);
    let open = || OpenOptions::new().read(true).write(true).open(path);
    let error = match open() {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_node(journal).map_err(Error::NoNode)?;
            match open() {
                Ok(_) => return Ok(()),
                Err(error) => error,
            }
        }
        Err(error) => error,
    };
    Err(match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::Forbidden(error),
        Some(libc::ENODEV | libc::ENXIO) => Error::NoDriver(error),
        _ => Error::Other(error),
    })
}

fn make_node(journal: &mut Journal) -> io::Result<()> {
    if !Path::new(DIRECTORY).exists() {
        journal.record(Change::NodeDirectory)?;
        DirBuilder::new().mode(0o755).create(DIRECTORY)?;
    }
    journal.record(Change::Node)?;
    mknod(NODE, SFlag::S_IFCHR, Mode::from_bits_truncate(NODE_MODE), makedev(MAJOR, MINOR))?;
    Ok(())
}

/// Removes the node if we made it.
///
/// # Errors
/// The system refused.
pub(crate) fn remove_node() -> io::Result<()> {
    let is_ours = |found: &fs::Metadata| {
        let is_tun = found.file_type().is_char_device() && found.rdev() == makedev(MAJOR, MINOR);
        is_tun && found.mode() & 0o7777 == NODE_MODE
    };
    match fs::symlink_metadata(NODE) {
        Ok(found) if is_ours(&found) => fs::remove_file(NODE),
        // Another program's.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the node's directory if it is empty.
///
/// # Errors
/// The system refused.
pub(crate) fn remove_directory() -> io::Result<()> {
    match fs::remove_dir(DIRECTORY) {
        Err(error) if !is_in_use(&error) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether another program has put something into the directory or mounted it, or it is gone.
fn is_in_use(error: &io::Error) -> bool {
    use io::ErrorKind::{DirectoryNotEmpty, NotFound, ResourceBusy};
    matches!(error.kind(), DirectoryNotEmpty | NotFound | ResourceBusy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_events_make_it_look_at_the_routes() {
        let own = IpAddr::from([0xfd67, 0, 0, 0, 0, 0, 0, 1]);
        let overflow = |_| Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        let looks = std::cell::Cell::new(0);
        let is_routed = |_| {
            looks.set(looks.get() + 1);
            Ok(looks.get() == 3)
        };
        assert!(has_settled(own, overflow, is_routed).unwrap());
        has_settled(own, |_| Err(io::ErrorKind::BrokenPipe.into()), |_| Ok(true)).unwrap_err();
    }
}
