//! Something other than a sidecar at the other end: gh-net ends in time, reports what it received, and its memory stays
//! bounded.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use gh_net_common::frame::{
    Codespace, Dns, DnsMode, Families, Frame, Level, MAX_PAYLOAD, MAX_PREFIXES, MAX_TEXT, Notice, Open,
    Opened, PREAMBLE, Rebind, Routes, SidecarCounters, SidecarStatus, Token, TunnelAddress,
};
use gh_net_common::hello;
use gh_net_tests::lab::{Lab, Options, Output, servers};

const LIMIT: Duration = Duration::from_secs(30);
/// A link is dead after 29 s at the latest.
const LOST: Duration = Duration::from_secs(29 + 20);
const MEMORY: u64 = 200 << 20;

/// A fake sidecar, which never reads: its first bytes, and the bytes that it then repeats. If there are none, it stays
/// silent.
struct Fake {
    name: &'static str,
    once: Vec<u8>,
    forever: Vec<u8>,
}

/// Installs a shell script; returns the command for `--exec` that runs it.
fn script(lab: &Lab, name: &str, lines: &str) -> Result<String> {
    let path = format!("/run/lab/fake/{name}");
    lab.laptop.write(&path, 0o644, format!("{lines}\n"))?;
    Ok(format!("sh {path}"))
}

impl Fake {
    fn install(&self, lab: &Lab) -> Result<String> {
        let path = |part: &str| format!("/run/lab/fake/{}.{part}", self.name);
        lab.laptop.write(path("once"), 0o644, self.once.as_slice())?;
        // A megabyte per process, because starting cat for each copy would be slow.
        let times = (1 << 20) / self.forever.len().max(1);
        lab.laptop.write(path("forever"), 0o644, self.forever.repeat(times))?;
        let after =
            if self.forever.is_empty() { "exec sleep 1000" } else { "while cat $0.forever; do :; done" };
        script(lab, self.name, &format!("cat $0.once; {after}"))
    }
}

fn frames(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = BytesMut::from(PREAMBLE.as_slice());
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    bytes.to_vec()
}

fn opened() -> Frame {
    Frame::Opened(opened_body())
}

fn opened_body() -> Opened {
    Opened {
        session: [7; 16],
        token: Token([7; 32]),
        resumed: false,
        mtu: 65520,
        addresses: vec![TunnelAddress {
            sidecar: "100.100.64.2/30".parse().expect("a prefix"),
            gateway: "100.100.64.1".parse().expect("an address"),
        }],
        device: "ghnet0".to_owned(),
        networks: Vec::new(),
        resolvers: Vec::new(),
    }
}

fn greeting() -> Vec<u8> {
    frames(&[Frame::Hello(hello::ours())])
}

/// Runs gh-net against a command.
fn against(lab: &Lab, command: &str) -> Result<Output> {
    lab.gh_net(&["--exec", command])?.start()?.finish(LIMIT)
}

fn check(name: &str, output: &Output, words: &[&str]) {
    let errors = output.errors();
    assert!(!matches!(output.code(), 0 | 101), "{name}: exit code {}: {errors}", output.code());
    assert!(!errors.contains("panicked"), "{name}: {errors}");
    assert!(output.peak_memory < MEMORY, "{name}: {} MiB", output.peak_memory >> 20);
    // gh-net accepts 32 notices, here of 500 bytes, before it treats them as a flood.
    assert!(errors.len() < 32_000, "{name}: a message of {} bytes", errors.len());
    assert!(errors.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "{name}: {errors:?}");
    for word in words {
        assert!(errors.contains(word), "{name} does not print {word:?}: {errors}");
    }
}

#[test]
fn output_of_something_other_than_a_sidecar_is_shown() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let cases: [(&str, &str, &[&str]); 9] = [
        ("eof", "exit 0", &["received nothing"]),
        ("words", "echo 'This account is currently not available.'", &["currently not available"]),
        ("stderr", "echo 'sudo: a password is required' >&2; exit 1", &["a password is required"]),
        ("banner", "exec yes 'Welcome to nowhere'", &["Welcome to nowhere"]),
        ("zeros", "exec cat /dev/zero", &["received instead"]),
        ("garbage", "exec cat /dev/urandom", &["received instead"]),
        ("escapes", "printf '\\033[2J\\033]0;owned\\007some text'", &["some text"]),
        ("half", "printf '\\000gh-n'", &[]),
        ("bytes", "head -c 70000 /dev/urandom", &["received instead"]),
    ];
    for (name, lines, words) in cases {
        let output = against(&lab, &script(&lab, name, lines)?)?;
        check(name, &output, words);
    }
    Ok(())
}

#[test]
fn a_silent_command_times_out() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let output = against(&lab, "sleep 1000")?;
    check("silence", &output, &["received nothing"]);
    Ok(())
}

#[test]
fn a_missing_command_is_named() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    check("missing", &against(&lab, "/no/such/program attach")?, &["/no/such/program"]);
    Ok(())
}

#[test]
fn a_protocol_violation_ends_the_session() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let huge = [PREAMBLE.as_slice(), &[1, 0xff, 0xff, 0xff]].concat();
    let unknown = [200, 0, 0, 4, 1, 2, 3, 4];
    let notice =
        frames(&[Frame::Notice(Notice { level: Level::Warning, code: "x".into(), text: "x".repeat(500) })]);
    let future = frames(&[Frame::Hello(gh_net_common::frame::Hello {
        lowest: 9000,
        highest: 9001,
        capabilities: 0,
        software: "99.0.0".to_owned(),
    })]);
    let cases = [
        (Fake { name: "preamble", once: PREAMBLE.to_vec(), forever: vec![] }, &[][..]),
        (Fake { name: "greeting", once: greeting(), forever: vec![] }, &[]),
        (Fake { name: "huge", once: huge, forever: vec![0] }, &["broke the protocol"]),
        (Fake { name: "unknown", once: greeting(), forever: unknown.to_vec() }, &[]),
        (Fake { name: "notices", once: greeting(), forever: notice[PREAMBLE.len()..].to_vec() }, &[]),
        (Fake { name: "future", once: future, forever: vec![] }, &["update gh-net on the laptop"]),
        (Fake { name: "early", once: frames(&[opened()]), forever: vec![] }, &[]),
    ];
    // Concurrently, because most of them take as long as gh-net waits for an answer.
    std::thread::scope(|scope| {
        let running = cases.map(|(fake, words)| {
            let lab = &lab;
            scope.spawn(move || -> Result<()> {
                let output = against(lab, &fake.install(lab)?)?;
                check(fake.name, &output, words);
                Ok(())
            })
        });
        running.into_iter().try_for_each(|fake| fake.join().expect("no check failed"))
    })
}

/// A sidecar that floods after a correct handshake: gh-net's memory stays bounded, and it still ends on Ctrl-C.
#[test]
fn a_flood_after_the_handshake_leaves_memory_bounded() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let handshake = frames(&[Frame::Hello(hello::ours()), opened()]);
    let junk: Vec<u8> = (0..1400u32).map(|i| (i * 31 % 251) as u8).collect();
    let floods = [
        ("packets", vec![Frame::Packet(Bytes::from(junk))]),
        ("empty", vec![Frame::Packet(Bytes::new())]),
        ("connections", (1..=200).map(syn).collect()),
        ("codespaces", (0..4).map(|turn| codespace(turn, 2048)).collect()),
        (
            "notices-later",
            vec![Frame::Notice(Notice { level: Level::Error, code: "x".into(), text: "\n".repeat(900) })],
        ),
        ("lanes", vec![Frame::WantLane]),
        ("quiets", vec![Frame::Quiet(0), Frame::Delivered { total: 0, micros: 1 }]),
        // Each echo is on its way to the codespace, and is reported before that.
        (
            "reports",
            [u64::MAX, 0, 1 << 40, 1]
                .map(|lie| [datagram(), Frame::Delivered { total: lie, micros: lie }])
                .concat(),
        ),
        ("largest", largest()),
        (
            "pings",
            vec![Frame::Ping(1), Frame::Pong(2), Frame::Delivered { total: u64::MAX, micros: u64::MAX }],
        ),
    ];
    for (name, flood) in floods {
        // Includes the answer to gh-net's first ping, without which it would not become ready.
        let flood = [vec![Frame::Pong(1)], flood].concat();
        let forever = frames(&flood)[PREAMBLE.len()..].to_vec();
        let fake = Fake { name, once: handshake.clone(), forever };
        let process = lab.gh_net(&["--exec", &fake.install(&lab)?])?.start()?;
        process.wait_for("ready", LIMIT)?;
        // There is no event to wait for: the flood has to last for a while.
        std::thread::sleep(Duration::from_secs(3));
        process.signal(nix::sys::signal::Signal::SIGINT)?;
        let output = process.finish(LIMIT)?;
        ensure!(!output.errors().contains("panicked"), "{name}: {}", output.errors());
        ensure!(output.peak_memory < MEMORY, "{name}: {} MiB", output.peak_memory >> 20);
    }
    Ok(())
}

/// A link that brings no whole frame is lost in time, whatever trickles in; gh-net then tries again until it is ended.
#[test]
fn silence_after_the_handshake_loses_the_link() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let handshake = frames(&[Frame::Hello(hello::ours()), opened()]);
    let half = [&handshake[..], &[200, 2, 0, 0], &[0; 1000]].concat();
    lab.laptop.write("/run/lab/fake/bytewise", 0o644, half.as_slice())?;
    let bytewise = script(
        &lab,
        "trickle",
        "f=/run/lab/fake/bytewise
        for at in $(seq 0 $(($(stat -c %s $f) - 1))); do dd if=$f bs=1 skip=$at count=1 status=none; done
        while sleep 0.1; do printf x; done",
    )?;
    let cases = [
        ("nothing", Fake { name: "nothing", once: handshake, forever: vec![] }.install(&lab)?),
        ("half a frame", Fake { name: "half-frame", once: half, forever: vec![] }.install(&lab)?),
        ("a trickle", bytewise),
    ];
    std::thread::scope(|scope| {
        let running = cases.map(|(name, command)| {
            let lab = &lab;
            scope.spawn(move || -> Result<()> {
                let process = lab.gh_net(&["--exec", &command])?.start()?;
                process.wait_for("link lost (no data from the codespace", LOST).context(name)?;
                process.signal(nix::sys::signal::Signal::SIGINT)?;
                let output = process.finish(LIMIT).context(name)?;
                ensure!(output.code() == 0, "{name}: {}", output.errors());
                ensure!(!output.errors().contains("panicked"), "{name}: {}", output.errors());
                ensure!(output.peak_memory < MEMORY, "{name}: {} MiB", output.peak_memory >> 20);
                Ok(())
            })
        });
        running.into_iter().try_for_each(|fake| fake.join().expect("no check failed"))
    })
}

/// What the wire knows, but a sidecar never sends once the session is open: it ends the session, and the message says what it
/// was.
#[test]
fn each_frame_that_only_a_laptop_sends_ends_the_session_and_is_named() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let open = Open {
        resume: None,
        link: u32::MAX,
        lane: u8::MAX,
        mtu: 0,
        families: Families { v4: true, v6: true },
        grace: u32::MAX,
        from: gh_net_common::frame::Sources { containers: true, networks: vec![] },
        user: "x".repeat(255),
        host: String::new(),
        preferred: Vec::new(),
        avoid: vec!["0.0.0.0/0".parse()?; 2048],
    };
    let dns = Dns {
        mode: DnsMode::Local,
        search: vec!["corp.internal".into(); 100],
        domains: Vec::new(),
        rebind: Rebind::Refuse,
    };
    let cases = [
        ("hello", Frame::Hello(hello::ours()), "a Hello"),
        ("open", Frame::Open(open), "an Open"),
        ("opened", opened(), "an Opened"),
        ("routes", Frame::Routes(Routes::Part(vec!["10.0.0.0/8".parse()?; 2048])), "Routes"),
        ("dns", Frame::Dns(dns), "DNS settings"),
        ("status", Frame::AskStatus, "a request for the status"),
        ("standby", Frame::Standby(Bytes::from_static(&[0x45; 60_000])), "a standby packet"),
        ("quiet", Frame::Quiet(u32::MAX), "a request to be quiet"),
        ("number", Frame::Numbered(u64::MAX, Bytes::new()), "its number belongs on another lane"),
    ];
    std::thread::scope(|scope| {
        let running = cases.map(|(name, frame, words)| {
            let lab = &lab;
            scope.spawn(move || -> Result<()> {
                let once = frames(&[Frame::Hello(hello::ours()), opened(), frame]);
                let output = against(lab, &Fake { name, once, forever: vec![] }.install(lab)?)?;
                check(name, &output, &[words]);
                Ok(())
            })
        });
        running.into_iter().try_for_each(|fake| fake.join().expect("no check failed"))
    })
}

/// A sidecar that moves the laptop's end of the tunnel to an address of the laptop's networks, asks for the laptop's own name
/// there, and moves it back: what a rule allows of that name would be allowed of the address.
#[test]
fn a_tunnel_that_moves_during_a_session_lends_no_address_the_laptops_name() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let tunnel = |sidecar: &str, gateway: &str| -> Result<_> {
        Ok(TunnelAddress { sidecar: sidecar.parse()?, gateway: gateway.parse()? })
    };
    let links = [
        (false, tunnel("100.100.64.2/30", "100.100.64.1")?, None),
        (true, tunnel("10.20.0.9/30", "10.20.0.10")?, Some(question("host.gh-net.internal"))),
        (true, tunnel("100.100.64.2/30", "100.100.64.1")?, Some(syn_to([10, 20, 0, 10], 1, 5432))),
    ];
    for (number, (resumed, address, packet)) in links.into_iter().enumerate() {
        let opened = Opened { resumed, addresses: vec![address], ..opened_body() };
        let begin = [Frame::Hello(hello::ours()), Frame::Opened(opened), Frame::Pong(1)];
        let link = frames(&begin.into_iter().chain(packet).collect::<Vec<_>>());
        lab.laptop.write(format!("/run/lab/fake/link{number}"), 0o644, link)?;
    }
    let lines = "cd /run/lab/fake; n=$(cat /tmp/links 2>/dev/null || echo 0); echo $((n + 1)) > /tmp/links
        cat link$n; [ $n -lt 2 ] || exec sleep 1000";
    let command = script(&lab, "moving", lines)?;
    let rules = ["--host-port", "5432", "--allow", "host.gh-net.internal:5432"];
    let process = lab.gh_net(&[&["--exec", &command][..], &rules].concat())?.start()?;
    process.wait_for("denied tcp 100.100.64.2:1 → 10.20.0.10:5432", LIMIT)?;
    process.signal(nix::sys::signal::Signal::SIGINT)?;
    let output = process.finish(LIMIT)?;
    let told = output.errors().contains("the tunnel's addresses have changed during the session");
    ensure!(told, "{}", output.errors());
    Ok(())
}

/// As many networks of the codespace as a frame has room for, each time others.
fn codespace(turn: u8, count: u16) -> Frame {
    let networks = (0..count).map(|number| {
        let [high, low] = number.to_be_bytes();
        format!("{}.{high}.{low}.0/24", 10 + turn).parse().expect("a network")
    });
    let resolvers = (0..=255).map(|last| [10, 0, turn, last].into()).collect();
    Frame::Codespace(Codespace { networks: networks.collect(), resolvers })
}

/// The longest frames that a sidecar may send.
fn largest() -> Vec<Frame> {
    let text = "x".repeat(MAX_TEXT);
    let status = SidecarStatus {
        uptime: u64::MAX,
        dns: DnsMode::Local,
        resolver_hook: true,
        routes: u32::MAX,
        counters: SidecarCounters::default(),
    };
    let notice = |level, code: &str| Frame::Notice(Notice { level, code: code.into(), text: text.clone() });
    vec![
        notice(Level::Warning, &text),
        notice(Level::Info, &format!("{}-ended", &text[6..])),
        codespace(0, MAX_PREFIXES as u16),
        Frame::SidecarStatus(status),
        Frame::Packet(vec![0x45; MAX_PAYLOAD].into()),
    ]
}

/// To a server that sends it back.
fn datagram() -> Frame {
    let builder =
        etherparse::PacketBuilder::ipv4([100, 100, 64, 2], [10, 20, 0, 10], 64).udp(40_000, servers::ECHO);
    let mut packet = Vec::new();
    builder.write(&mut packet, &[7; 1000]).expect("writing to a vector does not fail");
    Frame::Packet(packet.into())
}

/// A question for the address of a name, to the laptop's end of the tunnel.
fn question(name: &str) -> Frame {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    let builder = etherparse::PacketBuilder::ipv4([100, 100, 64, 2], [100, 100, 64, 1], 64).udp(40_000, 53);
    let mut packet = Vec::new();
    builder.write(&mut packet, &message).expect("writing to a vector does not fail");
    Frame::Packet(packet.into())
}

/// A SYN from one of many ports to a host that does not answer.
fn syn(port: u16) -> Frame {
    syn_to([10, 20, 0, 66], port, 80)
}

fn syn_to(host: [u8; 4], from: u16, to: u16) -> Frame {
    let builder = etherparse::PacketBuilder::ipv4([100, 100, 64, 2], host, 64).tcp(from, to, 1, 65535).syn();
    let mut packet = Vec::new();
    builder.write(&mut packet, &[]).expect("writing to a vector does not fail");
    Frame::Packet(packet.into())
}
