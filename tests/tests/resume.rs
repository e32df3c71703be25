//! Sessions that outlive their links: what is connected stays connected when ssh is killed, stalled or replaced.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gh_net_tests::lab::{Lab, Options, Terminal};
use nix::sys::signal::Signal;

/// A reconnect takes an ssh login and a handshake.
const RECONNECTED: Duration = Duration::from_secs(30);
/// After `reconnected` every flow has to move within this time, and some room for a busy machine.
const MOVES: Duration = Duration::from_secs(2 + 3);
/// A dead link is found after 29 s when it is idle.
const LOST: Duration = Duration::from_secs(29 + 10);

#[test]
fn a_download_and_a_terminal_survive_ssh_being_killed_again_and_again() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let leaks = lab.leaks()?;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let mut terminal = Terminal::open(&lab, "keys")?;
    let download = lab
        .codespace
        .spawn("sh -c 'curl -sS --limit-rate 30M http://10.20.0.10/bytes/268435456 | sha256sum'")?;
    for number in 1..=5 {
        lab.kill_ssh()?;
        bridge.wait_for_reconnect(number)?;
        let took = terminal.type_line()?;
        ensure!(took < MOVES, "a keystroke took {took:?} after the link was there again");
    }
    let sum = download.finish(Duration::from_secs(60))?.ok()?;
    assert!(sum.starts_with(&expected(&lab)?), "{sum}");
    assert!(bridge.log().contains("link lost ("), "{}", bridge.log());
    assert!(
        bridge.log().contains("connections kept") || bridge.log().contains("connection kept"),
        "{}",
        bridge.log()
    );
    assert_eq!(lab.leaks()?, leaks, "packets for the laptop's networks reached the internet's router");
    bridge.stop()?;
    drop(terminal);
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

fn expected(lab: &Lab) -> Result<String> {
    let sum = lab.corp.shell("curl -sS http://10.20.0.10/bytes/268435456 | sha256sum")?;
    Ok(sum.split(' ').next().unwrap_or_default().to_owned())
}

#[test]
fn while_there_is_no_link_nothing_leaks_and_the_codespace_keeps_working() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let leaks = lab.leaks()?;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let mut terminal = Terminal::open(&lab, "keys")?;
    lab.start_black_hole()?;
    bridge.process().wait_for("link lost (", LOST)?;

    let start = Instant::now();
    let public = lab.codespace.shell("dig +short +tries=1 +time=4 example.com")?;
    ensure!(public == "203.0.113.10", "a public name: {public:?}");
    ensure!(start.elapsed() < Duration::from_secs(2), "a public name took {:?}", start.elapsed());
    assert_eq!(lab.codespace.shell("curl -sS --max-time 5 http://example.com/whoami")?, "172.16.5.4");
    // A new connection waits for the link, and does not go another way.
    let waiting = lab.codespace.spawn("curl -sS --max-time 100 http://10.20.0.10/")?;
    assert_ne!(lab.codespace.run("curl -sS --max-time 2 http://10.20.0.10/")?.code(), 0);
    assert_eq!(lab.leaks()?, leaks, "packets for the laptop's networks reached the internet's router");

    lab.end_black_hole()?;
    bridge.process().wait_for("reconnected after", Duration::from_secs(60))?;
    assert!(bridge.log().contains("kept"), "{}", bridge.log());
    let took = terminal.type_line()?;
    ensure!(took < MOVES, "a keystroke took {took:?} after the link was there again");
    assert_eq!(waiting.finish(Duration::from_secs(60))?.ok()?, "hello from corp");
    assert_eq!(lab.leaks()?, leaks, "packets for the laptop's networks reached the internet's router");
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn a_session_without_a_link_can_be_ended_and_the_next_start_takes_over() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    lab.start_black_hole()?;
    bridge.process().wait_for("link lost (", LOST)?;
    bridge.process().signal(Signal::SIGINT)?;
    let ended = bridge.into_process().finish(Duration::from_secs(20))?;
    assert_eq!(ended.code(), 0, "{}", ended.errors());
    assert!(ended.errors().contains("its grace of 15m"), "{}", ended.errors());

    lab.end_black_hole()?;
    let bridge = lab.bridge(&[])?;
    assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn a_suspended_laptop_goes_on_with_its_connections() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let mut terminal = Terminal::open(&lab, "keys")?;
    bridge.process().signal(Signal::SIGSTOP)?;
    // Long enough for the sidecar to give the link up.
    let sidecar_gave_up = Instant::now() + LOST;
    while lab.codespace.processes("sshd")?.len() > 1 && Instant::now() < sidecar_gave_up {
        std::thread::sleep(Duration::from_millis(100));
    }
    bridge.process().signal(Signal::SIGCONT)?;
    bridge.process().wait_for("reconnected after", RECONNECTED)?;
    let took = terminal.type_line()?;
    ensure!(took < MOVES, "a keystroke took {took:?} after the link was there again");
    bridge.stop().map(drop)
}

#[test]
fn a_network_that_comes_and_goes_is_followed_and_its_connections_wait_for_it() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let mut terminal = Terminal::open(&lab, "keys")?;
    let routes = || lab.codespace.shell("ip route show table all dev ghnet0");
    let changed_within = |seconds: u64, wanted: bool| -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while routes()?.contains("10.20.0.0/16") != wanted {
            ensure!(
                Instant::now() < deadline,
                "the route did not follow within {seconds} s:\n{}",
                bridge.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    let up = "ip addr add 10.8.0.2/24 dev corp0; ip route add 10.20.0.0/16 via 10.8.0.1";

    // Gone for a moment: the connection waits.
    lab.laptop.shell("ip addr del 10.8.0.2/24 dev corp0")?;
    changed_within(4, false)?;
    lab.laptop.shell(up)?;
    changed_within(4, true)?;
    let took = terminal.type_line()?;
    ensure!(took < MOVES, "a keystroke took {took:?} after the network was there again");
    assert!(bridge.log().contains("-10.20.0.0/16 (was: route on corp0)"), "{}", bridge.log());
    assert!(bridge.log().contains("+10.20.0.0/16 (route on corp0)"), "{}", bridge.log());
    assert_eq!(lab.codespace.shell("curl -sS http://10.20.0.10/")?, "hello from corp");

    // Gone for good: the connection is reset.
    lab.laptop.shell("ip addr del 10.8.0.2/24 dev corp0")?;
    changed_within(4, false)?;
    terminal.wait_for_end(Duration::from_secs(45))?;
    bridge.stop().map(drop)
}

/// Whatever the kernel still has of a connection (retransmissions, window updates, the reset at the end) must not leave
/// by the default route.
#[test]
fn nothing_of_a_connection_whose_route_is_gone_leaves_by_another_interface() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    lab.home.shell(
        "nft 'table inet strays { counter strays { }; chain prerouting { type filter hook prerouting priority -300; \
         ip daddr 10.20.0.0/16 counter name strays; }; }'",
    )?;
    let bridge = lab.bridge(&[])?;
    let terminal = Terminal::open(&lab, "keys")?;
    let upload = lab.codespace.spawn("bash -c 'exec cat /dev/zero > /dev/tcp/10.20.0.10/9'")?;
    lab.laptop.shell("while ! ss -Htin dst 10.20.0.10 | grep -qE 'bytes_acked:[0-9]{8}'; do :; done")?;
    lab.laptop.shell("ip route del 10.20.0.0/16")?;
    bridge.process().wait_for("-10.20.0.0/16", Duration::from_secs(10))?;
    // The change is said before all sockets are bound.
    lab.laptop.shell("while [ $(ss -Htn dst 10.20.0.10 | grep -c %corp0) != 2 ]; do :; done")?;
    let before = lab.home.counted_packets()?;
    bridge.process().wait_for("connections ended", Duration::from_secs(30 + 10))?;
    terminal.wait_for_end(Duration::from_secs(10))?;
    upload.finish(Duration::from_secs(10))?;
    assert_eq!(lab.home.counted_packets()?, before);
    bridge.stop().map(drop)
}
