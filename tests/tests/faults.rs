//! What happens to a developer's link, laptop and codespace, and what is connected meanwhile: it stays connected, or is
//! reset on both sides, and the codespace is as it was.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::servers::DISCARD;
use gh_net_tests::lab::traffic::{Everything, MOVES};
use gh_net_tests::lab::{Bridge, Direction, Event, EventKind, Lab, Options, State, Terminal};
use nix::sys::signal::{Signal, kill};

/// A dead link is found after 15 s under traffic, and some room for a busy machine.
const LOST_UNDER_TRAFFIC: Duration = Duration::from_secs(15 + 10);
/// A dead link is found after 29 s when it is idle.
const LOST: Duration = Duration::from_secs(29 + 10);
/// Attempts to connect are at most 30 s apart; each takes an ssh login.
const RECONNECTED: Duration = Duration::from_secs(60);
/// The laptop's networks are followed within 2 s, and some room for a busy machine.
const FOLLOWED: Duration = Duration::from_secs(2 + 3);
/// Programs on both sides learn of an end within this time.
const RESET: Duration = Duration::from_secs(20);
/// More than any of these tests takes.
const LONG: Duration = Duration::from_secs(600);

/// A lab, and how it was before the bridge.
struct Scene {
    lab: Lab,
    before: State,
    leaks: u64,
}

impl Scene {
    fn new() -> Result<Option<Self>> {
        let Some(lab) = Lab::for_test(Options::default())? else { return Ok(None) };
        let (before, leaks) = (lab.codespace.state()?, lab.leaks()?);
        Ok(Some(Self { lab, before, leaks }))
    }

    /// Ends the bridge, if it has not ended, and checks that nothing leaked and that the codespace is as it was.
    fn end(&self, bridge: Option<Bridge<'_>>) -> Result<()> {
        ensure!(
            self.lab.leaks()? == self.leaks,
            "packets for the laptop's networks reached the internet's router"
        );
        if let Some(bridge) = bridge {
            bridge.stop()?;
        }
        self.is_as_before()
    }

    fn is_as_before(&self) -> Result<()> {
        let diff = self.before.diff(&self.lab.codespace.state()?);
        ensure!(diff.is_empty(), "the codespace is not as it was:\n{diff}");
        Ok(())
    }
}

/// Numbers that are the same in each run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn everything_survives_ssh_being_killed_ten_times_at_random_moments() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let lab = &scene.lab;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let mut traffic = Everything::start(lab, 4, LONG)?;
    let mut random = Random(0x5eed);
    for number in 1..=10 {
        if number == 6 {
            // A link that is lost again and again is replaced ever later. One that has lasted for 10 s is not.
            sleep(Duration::from_secs(11));
        }
        sleep(Duration::from_millis(random.below(1500)));
        lab.kill_ssh()?;
        bridge.wait_for_reconnect(number)?;
        traffic.moves().with_context(|| format!("after cut {number}:\n{}", bridge.log()))?;
    }
    traffic.finish()?;
    scene.end(Some(bridge))
}

#[test]
fn everything_survives_an_sshd_that_is_stopped_for_twenty_seconds() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let lab = &scene.lab;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let mut traffic = Everything::start(lab, 1, LONG)?;
    lab.kill_sshd()?;
    let stopped = Instant::now();
    bridge.process().wait_for("link lost (", MOVES)?;
    // A connection that is opened now waits for its answer, as on a slow network.
    let opening = lab.codespace.spawn("curl -sS --max-time 100 http://10.20.0.10/")?;
    sleep((stopped + Duration::from_secs(20)).saturating_duration_since(Instant::now()));
    let _sshd = lab.start_sshd()?;
    bridge.process().wait_for("reconnected after", RECONNECTED)?;
    traffic.moves()?;
    ensure!(opening.finish(MOVES)?.ok()? == "hello from corp");
    traffic.finish()?;
    scene.end(Some(bridge))
}

#[test]
fn everything_survives_a_link_that_is_dead_to_the_laptop_only() -> Result<()> {
    one_way(Direction::Up)
}

#[test]
fn everything_survives_a_link_that_is_dead_from_the_laptop_only() -> Result<()> {
    one_way(Direction::Down)
}

fn one_way(direction: Direction) -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let lab = &scene.lab;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let mut traffic = Everything::start(lab, 1, LONG)?;
    lab.start_one_way_black_hole(direction)?;
    let start = Instant::now();
    bridge.process().wait_for("link lost (no data from the codespace for 1", LOST_UNDER_TRAFFIC)?;
    sleep((start + Duration::from_secs(20)).saturating_duration_since(Instant::now()));
    lab.end_black_hole()?;
    bridge.process().wait_for("reconnected after", RECONNECTED)?;
    ensure!(bridge.log().contains("connections kept"), "{}", bridge.log());
    traffic.moves()?;
    traffic.finish()?;
    scene.end(Some(bridge))
}

#[test]
fn a_stalled_ssh_is_noticed_and_replaced() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let lab = &scene.lab;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let mut traffic = Everything::start(lab, 1, LONG)?;
    let stalled = lab.laptop.processes("ssh")?;
    ensure!(!stalled.is_empty(), "no ssh runs on the laptop");
    for pid in &stalled {
        kill(*pid, Signal::SIGSTOP)?;
    }
    bridge.process().wait_for("link lost (no data from the codespace for 1", LOST_UNDER_TRAFFIC)?;
    bridge.process().wait_for("reconnected after", RECONNECTED)?;
    traffic.moves()?;
    let left = |pid| -> Result<bool> { Ok(lab.laptop.processes("ssh")?.contains(pid)) };
    let deadline = Instant::now() + RESET;
    for pid in &stalled {
        while left(pid)? {
            ensure!(Instant::now() < deadline, "the stalled ssh {pid} is still there");
            sleep(Duration::from_millis(20));
        }
    }
    traffic.finish()?;
    scene.end(Some(bridge))
}

/// A connection from the codespace to the corporate server whose end both sides notice.
struct Witness<'lab> {
    lab: &'lab Lab,
    client: TcpStream,
    events: usize,
}

impl<'lab> Witness<'lab> {
    fn open(lab: &'lab Lab) -> Result<Self> {
        let events = lab.corp_servers().events().len();
        let client = lab.codespace.thread(|| TcpStream::connect(("10.20.0.10", DISCARD))).join();
        let client = client.expect("connecting does not panic")?;
        let connected = |event: &Event| event.port == DISCARD && event.kind == EventKind::Connected;
        lab.corp_servers().wait_for(RESET, connected)?;
        Ok(Self { lab, client, events })
    }

    /// Waits until both sides have been told that the connection is reset.
    fn is_reset_on_both_sides(&self) -> Result<()> {
        self.is_reset_in_the_codespace()?;
        let how = self.end_at_the_server()?;
        ensure!(matches!(how, EventKind::Broken(_, ErrorKind::ConnectionReset)), "at the server: {how:?}");
        Ok(())
    }

    fn is_reset_in_the_codespace(&self) -> Result<()> {
        self.client.set_read_timeout(Some(RESET))?;
        let end = (&self.client).read(&mut [0]);
        ensure!(end.as_ref().is_err_and(is_reset), "the codespace's side was not reset but: {end:?}");
        Ok(())
    }

    fn end_at_the_server(&self) -> Result<EventKind> {
        let deadline = Instant::now() + RESET;
        loop {
            let mut events = self.lab.corp_servers().events().into_iter().skip(self.events);
            let end = |event: &Event| event.port == DISCARD && event.kind != EventKind::Connected;
            if let Some(event) = events.find(end) {
                return Ok(event.kind);
            }
            ensure!(Instant::now() < deadline, "the server did not learn of the end");
            sleep(Duration::from_millis(20));
        }
    }
}

fn is_reset(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionReset
}

fn works(lab: &Lab) -> Result<()> {
    let page = lab.codespace.shell("curl -sS --max-time 20 http://www.corp.internal/")?;
    ensure!(page == "hello from corp", "{page:?}");
    Ok(())
}

#[test]
fn a_laptop_with_another_address_keeps_what_does_not_depend_on_it() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let lab = &scene.lab;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let mut traffic = Everything::start(lab, 1, LONG)?;
    let lan = lab.codespace.thread(|| TcpStream::connect(("192.168.1.50", 80))).join();
    let lan = lan.expect("connecting does not panic")?;
    lab.laptop.shell(
        "ip addr del 192.168.1.20/24 dev wlan0; ip addr add 192.168.1.21/24 dev wlan0; \
         ip route add default via 192.168.1.1",
    )?;
    bridge.process().wait_for("reconnected after", RECONNECTED)?;
    traffic.moves()?;
    // The connection from the old address is at its end, and new ones use the new address.
    lan.set_read_timeout(Some(Duration::from_secs(45)))?;
    let end = (&lan).read(&mut [0]);
    ensure!(end.as_ref().is_err_and(is_reset), "the connection from the old address: {end:?}");
    ensure!(lab.codespace.shell("curl -sS http://192.168.1.50/whoami")? == "192.168.1.21");
    // The new address is the laptop's own, and refused.
    ensure!(lab.codespace.run("curl -sS --max-time 5 http://192.168.1.21:8000/")?.code() != 0);
    traffic.finish()?;
    scene.end(Some(bridge))
}

#[test]
fn a_killed_sidecar_is_replaced_by_a_new_session_and_old_connections_are_reset() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let lab = &scene.lab;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let witness = Witness::open(lab)?;
    let traffic = Everything::start(lab, 1, LONG)?;
    for pid in lab.sidecars()? {
        // One may end by itself because another one did.
        let _ = kill(pid, Signal::SIGKILL);
    }
    bridge.process().wait_for("with a new session; ", RECONNECTED)?;
    witness.is_reset_on_both_sides()?;
    traffic.is_reset(Instant::now() + RESET)?;
    ensure!(bridge.log().matches("reconnected after").count() == 1, "{}", bridge.log());
    ensure!(bridge.log().contains("connections reset"), "{}", bridge.log());
    works(lab)?;
    // The device has ended with the sidecar, so what was sent before the new session was there may have leaked.
    bridge.stop()?;
    scene.is_as_before()
}

#[test]
fn after_a_killed_gh_net_the_next_start_works_at_once() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let lab = &scene.lab;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let witness = Witness::open(lab)?;
    bridge.kill9()?;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    works(lab)?;
    // The old connections are at their end as soon as they are used.
    let _ = (&witness.client).write_all(b"is anybody there?");
    witness.is_reset_in_the_codespace()?;
    witness.end_at_the_server()?;
    scene.end(Some(bridge))
}

#[test]
fn beyond_the_grace_both_sides_are_reset_and_the_codespace_is_as_it_was_in_between() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let lab = &scene.lab;
    let bridge = lab.bridge(&["--grace", "10s"])?;
    let witness = Witness::open(lab)?;
    let traffic = Everything::start(lab, 1, LONG)?;
    lab.start_black_hole()?;
    lab.wait_for_sidecars_end_by(Instant::now() + LOST + Duration::from_secs(10))?;
    scene.is_as_before()?;
    ensure!(lab.codespace.run("curl -sS --max-time 5 http://10.20.0.10/")?.code() != 0);
    ensure!(lab.codespace.shell("dig +short example.com")? == "203.0.113.10");
    lab.end_black_hole()?;
    bridge.process().wait_for("with a new session; ", RECONNECTED)?;
    witness.is_reset_on_both_sides()?;
    traffic.is_reset(Instant::now() + RESET)?;
    works(lab)?;
    // Meanwhile the codespace was an ordinary one, so what was sent there may have reached the internet's router.
    bridge.stop()?;
    scene.is_as_before()
}

/// Waits until the codespace has a route to the corporate network, or has none.
fn followed(lab: &Lab, wanted: bool) -> Result<()> {
    let deadline = Instant::now() + FOLLOWED;
    while lab.codespace.shell("ip route show table all dev ghnet0")?.contains("10.20.0.0/16") != wanted {
        ensure!(Instant::now() < deadline, "the route to the corporate network did not follow");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn a_vpn_that_flaps_ends_with_the_right_routes() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let lab = &scene.lab;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    let mut terminal = Terminal::open(lab, "keys")?;
    const DOWN: &str = "ip addr del 10.8.0.2/24 dev corp0";
    const UP: &str = "ip addr add 10.8.0.2/24 dev corp0; ip route add 10.20.0.0/16 via 10.8.0.1";

    lab.laptop.shell(&format!(
        "for time in 1 2 3 4 5 6 7 8 9 10; do {DOWN}; sleep 0.$((time % 4)); {UP}; sleep 0.$((time * 3 % 4)); done"
    ))?;
    followed(lab, true)?;
    let took = terminal.type_line()?;
    ensure!(took < MOVES, "a keystroke took {took:?} after the network was there again");
    works(lab)?;

    lab.laptop
        .shell(&format!("for time in 1 2 3 4 5; do {DOWN}; sleep 0.1; {UP}; sleep 0.1; done; {DOWN}"))?;
    followed(lab, false)?;
    lab.laptop.shell(UP)?;
    followed(lab, true)?;
    works(lab)?;
    ensure!(!bridge.log().contains("link lost"), "{}", bridge.log());
    scene.end(Some(bridge))
}

#[test]
fn names_follow_the_laptops_resolver() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let lab = &scene.lab;
    let bridge = lab.bridge(&["--grace", "15m"])?;
    works(lab)?;
    ensure!(lab.codespace.run("curl -sS --max-time 5 http://wiki/")?.code() != 0);

    // A search domain more, as a VPN client adds it.
    lab.laptop.write(
        "/etc/resolv.conf",
        0o644,
        "nameserver 10.20.0.53\nsearch corp.internal partner.example\n",
    )?;
    let deadline = Instant::now() + FOLLOWED;
    while !lab.codespace.read("/etc/resolv.conf")?.contains("partner.example") {
        ensure!(Instant::now() < deadline, "the search domain did not follow:\n{}", bridge.log());
        sleep(Duration::from_millis(20));
    }
    ensure!(lab.codespace.shell("curl -sS --max-time 5 http://wiki/")? == "hello from corp");

    // Another server, and the domain withdrawn.
    lab.laptop.write("/etc/resolv.conf", 0o644, "nameserver fd20:20::53\nsearch corp.internal\n")?;
    let deadline = Instant::now() + FOLLOWED;
    while lab.codespace.read("/etc/resolv.conf")?.contains("partner.example") {
        ensure!(Instant::now() < deadline, "the search domain was not withdrawn:\n{}", bridge.log());
        sleep(Duration::from_millis(20));
    }
    works(lab)?;
    ensure!(lab.corp_dns_log().contains("from fd20:8::2"), "the new server was not asked");
    scene.end(Some(bridge))
}
