//! Laptops that say what is not so: about what they have received, and again and again about what they forward.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gh_net_common::frame::{Dns, DnsMode, Frame, MAX_PREFIXES, Rebind, Routes};
use gh_net_tests::lab::Process;
use ipnet::IpNet;

use super::laptop::{Laptop, MEMORY, SIDECAR, Scene, Then, encoded, handshake};

/// Sends datagrams to the laptop's network as fast as the codespace can.
fn flood(scene: &Scene) -> Result<Process> {
    scene.lab.codespace.spawn(
        "bash -c 'while :; do dd if=/dev/zero bs=60000 count=1000 >/dev/udp/10.20.0.10/9; done' 2>/dev/null",
    )
}

/// Says `again` until the sidecar has read as many bytes of the device as would break its bound if it kept them.
fn until_flooded(scene: &Scene, mut again: impl FnMut()) -> Result<()> {
    loop {
        again();
        let links = scene.lab.codespace.shell("ip -j -s link show ghnet0")?;
        let links: serde_json::Value = serde_json::from_str(&links)?;
        if links[0]["stats64"]["tx"]["bytes"].as_u64().context("a counter")? > 2 * MEMORY {
            return Ok(());
        }
        scene.has_bounded_memory()?;
    }
}

fn host(address: u32) -> IpNet {
    IpNet::from(IpAddr::from(address.to_be_bytes()))
}

fn forward() -> Result<Frame> {
    Ok(Frame::Routes(Routes::Last(vec!["10.20.0.0/16".parse()?])))
}

/// More than was sent, less than before, and answers to pings that were never sent.
fn lies() -> Vec<Frame> {
    let reports =
        [u64::MAX, 0, 1, 1 << 40, u64::MAX - 1].map(|lie| Frame::Delivered { total: lie, micros: lie });
    reports.into_iter().chain([0, 7, u64::MAX].map(Frame::Pong)).collect()
}

#[test]
fn reports_that_lie_do_no_harm() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    scene.attack("reports before there was a packet", Then::Lives, |laptop| {
        (0..100).for_each(|_| laptop.send(&lies()));
        Ok(())
    })?;
    scene.attack("reports of a laptop that reads", Then::Lives, |laptop| {
        laptop.send(&[forward()?]);
        ensure!(laptop.settle()?.is_none(), "the session ends");
        let flood = flood(&scene)?;
        until_flooded(&scene, || laptop.send(&lies()))?;
        drop(flood);
        Ok(())
    })
}

/// As many networks and names as there is room for, each time others: the codespace's own programs are served meanwhile.
#[test]
fn the_largest_lists_again_and_again_block_nobody() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let parts = |first: u32| -> Vec<Frame> {
        let nets: Vec<IpNet> = (0..8 * MAX_PREFIXES as u32).map(|n| host(first + n)).collect();
        Routes::full(&nets).collect()
    };
    let names = |letter: &str| {
        let name = |n: u32| format!("{n}.{}.example", letter.repeat(40));
        let domains = (0..1000).map(name).collect();
        let search = (1000..2000).map(name).collect();
        Frame::Dns(Dns { mode: DnsMode::Split, search, domains, rebind: Rebind::Refuse })
    };
    let lists = [parts(0x0a00_0000), vec![names("a")], parts(0x0b00_0000), vec![names("b")]].concat();
    let mut laptop = Laptop::session(&scene)?;
    let churn = laptop.repeat(encoded(&lists), Duration::ZERO)?;
    let followed = |network: &str| {
        let network = format!("until ip route get {network} | grep -q ghnet0; do :; done");
        scene.lab.codespace.shell(&network)
    };
    for _ in 0..3 {
        followed("10.0.0.7")?;
        followed("11.0.0.7")?;
        let status = scene.lab.codespace.shell(&format!("{SIDECAR} status"))?;
        ensure!(status.contains("from "), "{status}");
        scene.has_bounded_memory()?;
    }
    drop(laptop);
    ensure!(churn.join().is_ok());
    scene.serves_others()
}

/// The window is always open for it, and its packets have nowhere to go.
#[test]
fn reports_that_lie_make_nothing_wait_without_a_bound() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let (mut laptop, _unread) = Laptop::deaf(&scene)?;
    laptop.write(&handshake());
    laptop.send(&[forward()?]);
    let lying = laptop.repeat(encoded(&lies()), Duration::from_millis(1))?;
    scene.lab.codespace.shell("until ip route get 10.20.0.10 | grep -q ghnet0; do :; done")?;
    let flood = flood(&scene)?;
    until_flooded(&scene, || ())?;
    drop(flood);
    drop(laptop);
    ensure!(lying.join().is_ok());
    scene.serves_others()
}
