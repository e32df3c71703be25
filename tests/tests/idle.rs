//! An idle link becomes quiet: nothing passes, so that a codespace may fall asleep, and data of either side wakes it.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gh_net_tests::lab::{Bridge, Host, Lab, Options, Process};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

/// The time-out of 5 s, what may be under way before, and room for a busy machine.
const QUIET: Duration = Duration::from_secs(30);
/// What wakes the link is carried at once.
const AT_ONCE: Duration = Duration::from_secs(3);
/// More than twice the time after which an idle link is pinged.
const OBSERVED: Duration = Duration::from_secs(40);

/// Counts the packets between the laptop and the codespace.
fn count_link(home: &Host) -> Result<()> {
    home.shell(
        "nft 'table inet observed { counter link { }; chain forward { type filter hook forward priority -2; \
         ip daddr 172.16.5.4 counter name link; ip saddr 172.16.5.4 counter name link; }; }'",
    )
    .map(drop)
}

/// Waits until the link has become quiet for the `number`th time, and its last acknowledgments have passed.
fn wait_for_quiet(bridge: &Bridge<'_>, home: &Host, number: usize) -> Result<u64> {
    let deadline = Instant::now() + QUIET;
    while bridge.log().matches("link quiet").count() < number {
        ensure!(Instant::now() < deadline, "the link is not quiet:\n{}", bridge.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut packets = home.counted_packets()?;
    loop {
        // TCP delays an acknowledgment by at most 0.5 s (RFC 9293, 3.8.6.3).
        std::thread::sleep(Duration::from_millis(500));
        let now = home.counted_packets()?;
        if now == packets {
            return Ok(packets);
        }
        ensure!(Instant::now() < deadline, "the link is said to be quiet, but packets pass");
        packets = now;
    }
}

/// A connection from the codespace on which the server speaks when it is told to.
struct Pushed<'lab> {
    lab: &'lab Lab,
    client: Process,
    _server: Process,
}

impl<'lab> Pushed<'lab> {
    fn open(lab: &'lab Lab) -> Result<Self> {
        lab.corp.shell("mkfifo /run/lab/words")?;
        let server = lab.corp.spawn("sh -c 'exec 3<>/run/lab/words; exec nc -nv -l 7777 <&3'")?;
        server.wait_for("Listening", AT_ONCE)?;
        let client = lab.codespace.spawn("sh -c 'sleep infinity | nc 10.20.0.10 7777'")?;
        server.wait_for("Connection received", QUIET)?;
        Ok(Self { lab, client, _server: server })
    }

    fn say(&self, word: &str) -> Result<()> {
        self.lab.corp.shell(&format!("echo {word} > /run/lab/words")).map(drop)
    }
}

/// A connection whose program asks for a keepalive every second.
fn with_keepalives(lab: &Lab) -> Result<TcpStream> {
    lab.codespace.enter(|| {
        let stream = TcpStream::connect(SocketAddr::from(([10, 20, 0, 10], 7)))?;
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &1)?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &1)?;
        Ok(stream)
    })
}

#[test]
fn nothing_passes_on_an_idle_link_until_either_side_has_data() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let before = lab.codespace.state()?;
    count_link(&lab.home)?;
    let bridge = lab.bridge(&["--idle-timeout", "5s"])?;
    let pushed = Pushed::open(&lab)?;
    let stream = with_keepalives(&lab)?;

    let packets = wait_for_quiet(&bridge, &lab.home, 1)?;
    std::thread::sleep(OBSERVED);
    let status = lab.gh_net(&["status", "--json"])?.start()?.finish(QUIET)?.ok()?;
    let status: Value = serde_json::from_str(&status)?;
    assert_eq!(status["link"]["state"], "quiet");
    assert_eq!(lab.home.counted_packets()?, packets, "packets passed on the quiet link");
    assert_eq!(stream.take_error()?.map(|error| error.to_string()), None, "keepalives were not answered");

    // From the codespace.
    let start = Instant::now();
    assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    ensure!(start.elapsed() < AT_ONCE, "a curl took {:?}", start.elapsed());
    wait_for_quiet(&bridge, &lab.home, 2)?;
    // From the laptop's side.
    let start = Instant::now();
    pushed.say("surprise")?;
    pushed.client.wait_for("surprise", AT_ONCE)?;
    ensure!(start.elapsed() < AT_ONCE, "a word of the server took {:?}", start.elapsed());
    wait_for_quiet(&bridge, &lab.home, 3)?;
    assert!(!bridge.log().contains("link lost"), "{}", bridge.log());

    bridge.stop()?;
    drop((pushed, stream));
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn a_name_whose_answer_has_not_expired_does_not_wake_a_quiet_link() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    count_link(&lab.home)?;
    let bridge = lab.bridge(&["--idle-timeout", "5s"])?;
    let dig = |name: &str| lab.codespace.shell(&format!("dig +short +tries=1 {name}.corp.internal A"));
    assert_eq!(dig("lasting")?, "10.20.0.10");
    let packets = wait_for_quiet(&bridge, &lab.home, 1)?;
    assert_eq!(dig("lasting")?, "10.20.0.10");
    assert_eq!(lab.home.counted_packets()?, packets, "the question went to the laptop");
    assert_eq!(dig("mail")?, "10.20.0.25", "a name that is not known yet");
    assert_ne!(lab.home.counted_packets()?, packets);
    bridge.stop().map(drop)
}

#[test]
fn a_quiet_link_that_has_died_is_replaced_when_data_comes() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    count_link(&lab.home)?;
    let bridge = lab.bridge(&["--idle-timeout", "5s"])?;
    let pushed = Pushed::open(&lab)?;
    wait_for_quiet(&bridge, &lab.home, 1)?;
    lab.start_black_hole()?;
    pushed.say("surprise")?;
    // It is probed for 2 s.
    bridge.process().wait_for("link lost (", Duration::from_secs(2 + 3))?;
    lab.end_black_hole()?;
    bridge.wait_for_reconnect(1)?;
    pushed.client.wait_for("surprise", Duration::from_secs(2 + 3))?;
    bridge.stop().map(drop)
}
