//! Laptops that take their time: they say nothing, read nothing, or send a byte now and then.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gh_net_common::frame::{Frame, HEADER_LEN, MAX_PAYLOAD, PREAMBLE, Routes};
use gh_net_common::hello;

use super::laptop::{Laptop, Scene, encoded, handshake};

/// A frame of no known kind, as long as one may be: its header.
const LONG: [u8; HEADER_LEN] = {
    let [_, a, b, c] = (MAX_PAYLOAD as u32).to_be_bytes();
    [200, a, b, c]
};

/// The link stays open: the proper laptop takes the session over from one that gives no sign of life.
#[test]
fn silence_keeps_no_one_out() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    for (name, last) in [
        ("silence after the handshake", vec![]),
        ("half a header", LONG[..2].to_vec()),
        ("half a frame", [&LONG[..], &[0; 100]].concat()),
        ("half a frame that is known", encoded(&[Frame::Ping(7)])[..HEADER_LEN + 3].to_vec()),
    ] {
        let mut laptop = Laptop::session(&scene)?;
        laptop.write(&last);
        scene.serves_others().context(name)?;
        drop(laptop);
        scene.lab.wait_for_sidecars_end()?;
    }
    Ok(())
}

/// More of them than the owner shakes hands with at a time.
#[test]
fn handshakes_that_never_end_keep_no_one_out() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let hello = [&PREAMBLE[..], &encoded(&[Frame::Hello(hello::ours())])].concat();
    let stalled: Vec<Laptop> = thread::scope(|scope| {
        let dial = |number: usize| {
            let (scene, hello) = (&scene, &hello);
            scope.spawn(move || -> Result<Laptop> {
                let mut laptop = Laptop::dial(scene)?;
                match number % 3 {
                    0 => laptop.write(hello),
                    1 => laptop.write(&hello[..hello.len() - 1]),
                    // The longest frame of any kind, but for its last byte.
                    _ => {
                        laptop.write(&PREAMBLE);
                        laptop.send_raw(1, MAX_PAYLOAD, &[0; MAX_PAYLOAD - 1]);
                    }
                }
                Ok(laptop)
            })
        };
        let dialing: Vec<_> = (0..60).map(dial).collect();
        dialing.into_iter().map(|laptop| laptop.join().expect("no panic")).collect::<Result<_>>()
    })?;
    let bridge = scene.serve()?;
    // Their handshakes would keep the owner for half a minute.
    drop(stalled);
    scene.end(bridge)
}

#[test]
fn a_handshake_of_single_bytes_is_answered() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let mut laptop = Laptop::dial(&scene)?;
    let routes = Frame::Routes(Routes::Last(vec!["10.20.0.0/16".parse()?]));
    for byte in handshake().into_iter().chain(encoded(&[routes, Frame::Ping(1)])) {
        laptop.write(&[byte]);
    }
    ensure!(laptop.answer()?.is_ok(), "no session");
    ensure!(laptop.settle()?.is_none(), "the session ends");
    let route = scene.lab.codespace.shell("ip route get 10.20.0.10")?;
    ensure!(route.contains("ghnet0"), "{route}");
    drop(laptop);
    scene.serves_others()
}

/// Bytes are no sign of life, frames are.
#[test]
fn a_frame_that_comes_byte_by_byte_keeps_no_one_out() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let mut laptop = Laptop::session(&scene)?;
    laptop.write(&LONG);
    let trickle = laptop.repeat(vec![0], Duration::from_millis(5))?;
    scene.serves_others()?;
    drop(laptop);
    ensure!(trickle.join().is_ok());
    scene.lab.wait_for_sidecars_end()
}

#[test]
fn a_laptop_that_reads_nothing_keeps_no_one_out() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let (mut laptop, _unread) = Laptop::deaf(&scene)?;
    laptop.write(&handshake());
    // It has the session once it has its routes.
    laptop.send(&[Frame::Routes(Routes::Last(vec!["10.20.0.0/16".parse()?]))]);
    scene.lab.codespace.shell("until ip route get 10.20.0.10 | grep -q ghnet0; do :; done")?;
    scene.serves_others()?;
    drop(laptop);
    scene.lab.wait_for_sidecars_end()
}

/// It asks as fast as it can. Once its answers have filled all there is between it and the sidecar, it is not heard any
/// more, and given up.
#[test]
fn a_laptop_that_asks_and_reads_nothing_is_given_up() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let (mut laptop, _unread) = Laptop::deaf(&scene)?;
    laptop.write(&handshake());
    let questions: Vec<Frame> = (0..1000).flat_map(|n| [Frame::AskStatus, Frame::Ping(n)]).collect();
    let asking = laptop.repeat(encoded(&questions), Duration::ZERO)?;
    scene.lab.codespace.shell("until ip link show ghnet0; do :; done 2>/dev/null")?;
    while !scene.lab.codespace.shell("ip link show ghnet0 || true")?.is_empty() {
        scene.has_bounded_memory()?;
        thread::sleep(Duration::from_millis(50));
    }
    scene.serves_others()?;
    drop(laptop);
    ensure!(asking.join().is_ok());
    scene.lab.wait_for_sidecars_end()
}
