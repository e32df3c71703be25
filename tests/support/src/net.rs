//! The codespace's network stack: smoltcp, a TCP implementation that shares no code with the engine.

use std::collections::VecDeque;
use std::net::IpAddr;

use bytes::Bytes;
use smoltcp::iface::{Config, Interface};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

/// A TUN device: two queues of packets.
#[derive(Debug)]
pub struct Tun {
    /// From the tunnel to the stack.
    pub received: VecDeque<Bytes>,
    /// From the stack to the tunnel.
    pub sent: VecDeque<Bytes>,
    mtu: usize,
    /// Maximum number of packets in `sent`; at the maximum the stack waits.
    queue: usize,
}

impl Tun {
    /// A device with this MTU, and room for `queue` packets to the tunnel.
    pub fn new(mtu: usize, queue: usize) -> Self {
        Self { received: VecDeque::new(), sent: VecDeque::new(), mtu, queue }
    }

    /// A stack on this device, with these addresses and default routes.
    pub fn interface(&mut self, addresses: &[(IpAddr, u8)], gateways: &[IpAddr], seed: u64) -> Interface {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, self, Instant::ZERO);
        interface.update_ip_addrs(|known| {
            for (address, length) in addresses {
                known.push(IpCidr::new((*address).into(), *length)).expect("room for an address");
            }
        });
        for gateway in gateways {
            match gateway {
                IpAddr::V4(v4) => interface.routes_mut().add_default_ipv4_route(*v4),
                IpAddr::V6(v6) => interface.routes_mut().add_default_ipv6_route(*v6),
            }
            .expect("room for a route");
        }
        interface
    }
}

/// A packet on its way to the stack.
#[derive(Debug)]
pub struct Received(Bytes);

/// Room for a packet on its way to the tunnel.
#[derive(Debug)]
pub struct Sending<'a>(&'a mut VecDeque<Bytes>);

impl Device for Tun {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        Some((Received(self.received.pop_front()?), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        (self.sent.len() < self.queue).then_some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        self.0.push_back(packet.into());
        result
    }
}
