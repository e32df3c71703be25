//! A distant line between the codespace and the laptop's home: rate, delay, queue, loss and jitter, each direction by
//! itself. It works on whole IP packets, so ssh's own TCP lives on it, and needs no support of the kernel (netem).
//!
//! Two TUN devices carry the traffic between `home` and `internet` instead of their cable. For each direction, a thread
//! reads the packets from one device and writes them to the other one when [`mod@line`] says that they arrive. Routes that are
//! more specific than the lab's lead to the devices and vanish with them, so a line can be put in and taken out while
//! connections last.
//!
//! The threads run with real-time priority where that is allowed, so that other load on the machine does not delay packets.

use std::fs::File;

use anyhow::{Context, Result};

use crate::{Direction, Host, Lab, sys};
use carrier::Carrier;
pub use line::{Counts, Shape};

mod carrier;
mod line;

/// The name of both devices.
const DEVICE: &str = "far0";
/// Room for what a program sends at once at memory's speed: only the line's own queue is to drop.
const DEVICE_QUEUE: usize = 20_000;

/// A distant line. Dropping it brings back the cable.
#[derive(Debug)]
pub struct Wan {
    up: Carrier,
    down: Carrier,
}

impl Lab {
    /// Puts a distant line between the codespace and the laptop's home, with the same shape in both directions.
    ///
    /// # Errors
    /// The devices can't be made.
    pub fn wan(&self, shape: Shape) -> Result<Wan> {
        let at_home = device(&self.home).context("making a TUN device")?;
        let at_internet = device(&self.internet).context("making a TUN device")?;
        for (host, networks) in [
            (&self.home, "0.0.0.0/1 128.0.0.0/1"),
            (&self.internet, "198.51.100.2/32 192.168.1.0/25 192.168.1.128/25"),
        ] {
            host.script(&format!("for network in {networks}; do ip route add $network dev {DEVICE}; done"))?;
        }
        let up = Carrier::start("up", at_internet.try_clone()?, at_home.try_clone()?, shape, 1)?;
        let down = Carrier::start("down", at_home, at_internet, shape, 2)?;
        Ok(Wan { up, down })
    }
}

impl Wan {
    /// Changes one direction. What is under way arrives as before; what waits in the queue leaves at the new rate.
    pub fn set(&mut self, direction: Direction, shape: Shape) {
        match direction {
            Direction::Up => self.up.set(shape),
            Direction::Down => self.down.set(shape),
        }
    }

    /// What has happened to the packets of one direction.
    pub fn counts(&self, direction: Direction) -> Counts {
        match direction {
            Direction::Up => self.up.counts(),
            Direction::Down => self.down.counts(),
        }
    }
}

/// Makes a TUN device on `host`, and sets it up.
fn device(host: &Host) -> Result<File> {
    let file = host.enter(|| sys::open_tun(DEVICE))?;
    host.script(&format!(
        "echo 1 > /proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6
        ip link set {DEVICE} txqueuelen {DEVICE_QUEUE} up"
    ))?;
    Ok(file)
}
