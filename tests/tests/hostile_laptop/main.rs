//! Something other than gh-net at the laptop's end, over ssh and the real `attach`: whatever it sends, the sidecar lives on
//! or ends with a reason, its memory stays bounded, a proper laptop has a session afterwards, and in the end the codespace
//! is as it was.

mod laptop;
mod lies;
mod stalling;

use std::sync::mpsc::channel;
use std::thread;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use gh_net_common::frame::{
    Codespace, Dns, DnsMode, Families, Frame, Level, MAX_PAYLOAD, MAX_STANDBY, Notice, Open, Opened,
    PREAMBLE, Reason, Rebind, Routes, SidecarCounters, SidecarStatus, Token, TunnelAddress,
};
use gh_net_common::hello;
use ipnet::IpNet;

use laptop::{Laptop, Scene, Then, encoded, handshake, open};

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

/// So many different networks of the company.
fn many(count: u32) -> Vec<IpNet> {
    (0..count).map(|n| IpNet::from(std::net::IpAddr::from((0x0a00_0000 + n).to_be_bytes()))).collect()
}

fn packet(from: [u8; 4], to: [u8; 4]) -> Frame {
    let builder = etherparse::PacketBuilder::ipv4(from, to, 64).udp(53, 40_000);
    let mut packet = Vec::new();
    builder.write(&mut packet, b"hello").expect("writing to a vector does not fail");
    Frame::Packet(packet.into())
}

/// An acknowledgment of one of many connections.
fn standby(number: u32) -> Frame {
    let [_, high, low, port] = number.to_be_bytes();
    let builder = etherparse::PacketBuilder::ipv4([10, 20, high, low], [198, 19, 240, 1], 64);
    let mut packet = Vec::new();
    let segment = builder.tcp(80, 40_000 + u16::from(port), 1, 1000).ack(number);
    segment.write(&mut packet, &[]).expect("writing to a vector does not fail");
    Frame::Standby(packet.into())
}

#[test]
fn claims_to_a_session_that_are_not_true_change_nothing() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let mut owner = Laptop::session(&scene)?;
    let opened = owner.opened.clone().context("a session")?;
    let mut almost = opened.token;
    almost.0[31] ^= 1;
    let claims = [
        (
            "another session",
            Open { resume: Some(([1; 16], opened.token)), link: 9, ..open() },
            Reason::NoSession,
        ),
        (
            "a wrong token",
            Open { resume: Some((opened.session, Token([0; 32]))), link: 9, ..open() },
            Reason::NoSession,
        ),
        (
            "a token that is wrong in one bit",
            Open { resume: Some((opened.session, almost)), link: 9, ..open() },
            Reason::NoSession,
        ),
        (
            "a stale link",
            Open { resume: Some((opened.session, opened.token)), link: 1, ..open() },
            Reason::Stale,
        ),
        ("link 0", Open { resume: Some((opened.session, opened.token)), link: 0, ..open() }, Reason::Stale),
        ("another lane", Open { lane: u8::MAX, ..open() }, Reason::Failed),
    ];
    for (name, claim, reason) in claims {
        let goodbye =
            Laptop::connect(&scene)?.ask(claim)?.err().with_context(|| format!("{name} is believed"))?;
        assert_eq!(goodbye.reason, reason, "{name}");
        assert_eq!(owner.settle()?, None, "{name} ends the session of another");
    }
    drop(owner);
    scene.serves_others()
}

#[test]
fn extreme_wishes_for_a_session_are_met_or_refused() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let long = "\u{1b}[2J\n".repeat(1600);
    let wishes = [
        ("no MTU", Open { mtu: 0, ..open() }),
        ("the largest numbers", Open { mtu: u16::MAX, link: u32::MAX, grace: u32::MAX, ..open() }),
        ("no family", Open { families: Families { v4: false, v6: false }, ..open() }),
        ("names like a terminal's", Open { user: long.clone(), host: long, ..open() }),
        ("no address left", Open { avoid: vec![net("0.0.0.0/0"), net("::/0")], ..open() }),
        ("many networks to avoid", Open { avoid: many(2048), preferred: many(2048), ..open() }),
        (
            "the codespace's own",
            Open { preferred: vec![net("172.16.5.4/32"), net("127.0.0.0/8"), net("::/0")], ..open() },
        ),
    ];
    for (name, wish) in wishes {
        let mut laptop = Laptop::connect(&scene)?;
        match laptop.ask(wish).context(name)? {
            Ok(opened) => {
                assert!(opened.mtu >= 1280, "{name}: {opened:?}");
                assert_eq!(laptop.settle()?, None, "{name}");
            }
            Err(goodbye) => assert!(!goodbye.text.is_empty(), "{name}: {goodbye:?}"),
        }
        scene.has_bounded_memory().context(name)?;
        drop(laptop);
        scene.serves_others().context(name)?;
    }
    Ok(())
}

#[test]
fn a_handshake_that_is_none_leaves_nothing() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let frames = |frames: &[Frame]| [&PREAMBLE[..], &encoded(frames)].concat();
    let mut hello = hello::ours();
    (hello.lowest, hello.highest) = (u16::MAX, 0);
    let cut = handshake();
    let cases = [
        ("silence", vec![]),
        ("half a preamble", PREAMBLE[..4].to_vec()),
        ("zeros", vec![0; 200_000]),
        ("a banner", b"Welcome\n".repeat(20_000)),
        ("no hello", frames(&[Frame::Open(open())])),
        ("impossible versions", frames(&[Frame::Hello(hello)])),
        ("two hellos", frames(&[Frame::Hello(hello::ours()), Frame::Hello(hello::ours())])),
        (
            "a packet before the session",
            frames(&[Frame::Hello(hello::ours()), packet([10, 0, 0, 1], [10, 0, 0, 2])]),
        ),
        ("half an Open", cut[..cut.len() - 3].to_vec()),
    ];
    for (_, bytes) in cases {
        let mut laptop = Laptop::dial(&scene)?;
        laptop.write(&bytes);
    }
    scene.lab.wait_for_sidecars_end()?;
    scene.serves_others()
}

#[test]
fn forty_laptops_at_once_get_one_session() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let laptops: Vec<Laptop> = thread::scope(|scope| {
        let starting: Vec<_> = (0..40).map(|_| scope.spawn(|| Laptop::dial(&scene))).collect();
        starting.into_iter().map(|laptop| laptop.join().expect("no panic")).collect::<Result<_>>()
    })?;
    // Of those that come before there is a session, one gets it; the others wait for it to show that it is alive.
    let answers = thread::scope(|scope| {
        let asking: Vec<_> = laptops
            .into_iter()
            .map(|mut laptop| {
                scope.spawn(move || -> Result<_> {
                    laptop.write(&PREAMBLE);
                    laptop.send(&[Frame::Hello(hello::ours())]);
                    let answer = laptop.ask(open())?;
                    laptop.settle().map(|ended| (laptop, answer, ended))
                })
            })
            .collect();
        asking.into_iter().map(|asking| asking.join().expect("no panic")).collect::<Vec<_>>()
    });
    let mut kept = Vec::new();
    let mut sessions = 0;
    for answer in answers {
        let (laptop, answer, ended) = answer?;
        match answer {
            Ok(_) => sessions += usize::from(ended.is_none()),
            Err(goodbye) => assert!(!goodbye.text.is_empty(), "{goodbye:?}"),
        }
        kept.push(laptop);
    }
    assert!(sessions >= 1, "nobody has a session");
    scene.has_bounded_memory()?;
    drop(kept);
    scene.serves_others()
}

#[test]
fn no_set_of_networks_does_harm() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    scene.attack("parts without an end", Then::Lives, |laptop| {
        let part = Frame::Routes(Routes::Part(many(2048)));
        (0..4000).for_each(|_| laptop.send(std::slice::from_ref(&part)));
        Ok(())
    })?;
    scene.attack("100,000 networks", Then::Lives, |laptop| {
        Routes::full(&many(100_000)).for_each(|frame| laptop.send(&[frame]));
        Ok(())
    })?;
    scene.attack("networks that come and go", Then::Lives, |laptop| {
        for _ in 0..100 {
            let nets = many(64);
            laptop.send(&[Frame::Routes(Routes::Change { add: nets.clone(), remove: vec![] })]);
            laptop.send(&[Frame::Routes(Routes::Change { add: vec![], remove: nets })]);
        }
        Ok(())
    })?;
    // The link goes through the codespace's own network to the laptop's router.
    let all = [
        "0.0.0.0/0",
        "0.0.0.0/1",
        "128.0.0.0/1",
        "::/0",
        "172.16.5.0/24",
        "198.51.100.2/32",
        "172.16.5.1/32",
    ];
    let reserved =
        ["127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "198.19.240.0/30", "fe80::/10", "::1/128"];
    scene.attack("networks that are not the laptop's", Then::Lives, |laptop| {
        let nets = all.iter().chain(&reserved).map(|text| net(text)).collect();
        laptop.send(&[Frame::Routes(Routes::Last(nets))]);
        ensure!(laptop.settle()?.is_none(), "the link is cut off");
        for own in ["172.16.5.1", "127.0.0.1", "169.254.169.254", "198.51.100.2"] {
            let route = scene.lab.codespace.shell(&format!("ip route get {own}"))?;
            ensure!(!route.contains("ghnet0"), "{own} leads into the tunnel: {route}");
        }
        Ok(())
    })
}

#[test]
fn no_packet_does_harm() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    scene.attack("malformed packets", Then::Lives, |laptop| {
        for length in [0, 1, 19, 20, 39, 40, 1500, 65_535, 65_536, MAX_PAYLOAD] {
            for first in [0x00, 0x45, 0x4f, 0x60, 0xff] {
                let mut bytes = vec![0; length];
                bytes.first_mut().into_iter().for_each(|byte| *byte = first);
                laptop.send(&[Frame::Packet(bytes.into())]);
            }
        }
        Ok(())
    })?;
    scene.attack("packets of foreign addresses", Then::Lives, |laptop| {
        let addresses = [
            [127, 0, 0, 1],
            [172, 16, 5, 4],
            [172, 16, 5, 1],
            [198, 19, 240, 1],
            [198, 19, 240, 2],
            [0, 0, 0, 0],
            [255, 255, 255, 255],
            [224, 0, 0, 251],
            [203, 0, 113, 10],
            [172, 17, 0, 2],
            [198, 51, 100, 2],
        ];
        for from in addresses {
            addresses.iter().for_each(|to| laptop.send(&[packet(from, *to)]));
        }
        Ok(())
    })?;
    scene.attack("a flood of standby packets", Then::Lives, |laptop| {
        (0..4 * MAX_STANDBY as u32).for_each(|number| laptop.send(&[standby(number)]));
        laptop.send(&[Frame::Standby(Bytes::new()), Frame::Standby(vec![0x45; MAX_PAYLOAD].into())]);
        for seconds in [u32::MAX, 1, 0, u32::MAX] {
            laptop.send(&[Frame::Quiet(seconds), Frame::Quiet(seconds)]);
        }
        Ok(())
    })?;
    scene.attack("a flood of questions by a laptop that goes away", Then::Either, |laptop| {
        let (_, unread) = channel();
        // Its reader ends with the next frame.
        laptop.frames = unread;
        let questions: Vec<Frame> = (0..1000).flat_map(|n| [Frame::AskStatus, Frame::Ping(n)]).collect();
        (0..100).for_each(|_| laptop.send(&questions));
        Ok(())
    })
}

#[test]
fn no_dns_setting_does_harm() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    /// DNS settings.
    const DNS: u8 = 9;
    scene.attack("names as long and as many as fit", Then::Lives, |laptop| {
        for length in [1, 62, 253] {
            let label = |rest: usize| "x".repeat(rest.min(62));
            let mut name = label(length);
            while name.len() + 1 < length {
                name = format!("{}.{name}", label(length - name.len() - 1));
            }
            let count = (MAX_PAYLOAD - 5) / (2 + name.len());
            let count = count.min(u16::MAX.into());
            let names = [&(name.len() as u16).to_be_bytes()[..], name.as_bytes()].concat().repeat(count);
            let counted = (count as u16).to_be_bytes();
            for lists in [
                [&[1][..], &[0, 0], &counted, &names].concat(),
                [&[1][..], &counted, &names, &[0, 0]].concat(),
            ] {
                laptop.send_raw(DNS, lists.len(), &lists);
            }
        }
        Ok(())
    })?;
    scene.attack("settings that come and go", Then::Lives, |laptop| {
        let dns = |mode| {
            Frame::Dns(Dns {
                mode,
                search: vec!["corp.internal".into()],
                domains: vec![],
                rebind: Rebind::Refuse,
            })
        };
        (0..100).for_each(|_| laptop.send(&[dns(DnsMode::Local), dns(DnsMode::Off)]));
        laptop.send(&[dns(DnsMode::SplitStrict)]);
        Ok(())
    })?;
    scene.attack("a name that is none", Then::Ends(Reason::Protocol), |laptop| {
        let lists = [&[1, 0, 1, 0, 18][..], b"x\nnameserver 6.6.6", &[0, 0]].concat();
        laptop.send_raw(DNS, lists.len(), &lists);
        Ok(())
    })
}

#[test]
fn frames_longer_than_allowed_end_the_session() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    const UNKNOWN: u8 = 200;
    const PING: u8 = 6;
    let payload = vec![0; MAX_PAYLOAD];
    for (name, kind) in [("unknown", UNKNOWN), ("known", PING)] {
        scene.attack(&format!("the longest frame of {name} kind"), Then::Lives, |laptop| {
            (0..20).for_each(|_| laptop.send_raw(kind, MAX_PAYLOAD, &payload));
            Ok(())
        })?;
        scene.attack(&format!("a longer frame of {name} kind"), Then::Ends(Reason::Protocol), |laptop| {
            laptop.send_raw(kind, MAX_PAYLOAD + 1, &payload);
            Ok(())
        })?;
    }
    scene.attack("the longest length", Then::Ends(Reason::Protocol), |laptop| {
        laptop.send_raw(UNKNOWN, 0xff_ffff, &[]);
        Ok(())
    })
}

#[test]
fn frames_without_a_payload_end_the_session_or_are_ignored() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    const LAST_KNOWN: u8 = 17;
    for kind in (0..=LAST_KNOWN + 1).chain([u8::MAX]) {
        let mut laptop = Laptop::session(&scene)?;
        laptop.send_raw(kind, 0, &[]);
        laptop.settle().with_context(|| format!("kind {kind}"))?;
        drop(laptop);
        // The next one has a session, whatever became of this.
        scene.lab.wait_for_sidecars_end()?;
    }
    scene.serves_others()
}

#[test]
fn frames_that_only_a_sidecar_sends_end_the_session() -> Result<()> {
    let Some(scene) = Scene::new()? else { return Ok(()) };
    let opened = Opened {
        session: [7; 16],
        token: Token([7; 32]),
        resumed: false,
        mtu: 65_520,
        addresses: vec![TunnelAddress { sidecar: net("172.16.5.4/24"), gateway: [172, 16, 5, 1].into() }],
        device: "eth0".to_owned(),
        networks: vec![],
        resolvers: vec![],
    };
    let status = SidecarStatus {
        uptime: 0,
        dns: DnsMode::Off,
        resolver_hook: false,
        routes: 0,
        counters: SidecarCounters::default(),
    };
    let frames = [
        ("another Open", Frame::Open(open())),
        ("another Hello", Frame::Hello(hello::ours())),
        ("an Opened", Frame::Opened(opened)),
        ("a Notice", Frame::Notice(Notice { level: Level::Error, code: "x".into(), text: "x".into() })),
        ("an Ending", Frame::Ending),
        ("a status", Frame::SidecarStatus(status)),
        (
            "networks of a codespace",
            Frame::Codespace(Codespace { networks: vec![net("0.0.0.0/0")], resolvers: vec![] }),
        ),
    ];
    for (name, frame) in frames {
        scene.attack(name, Then::Ends(Reason::Protocol), |laptop| {
            laptop.send(&[frame]);
            Ok(())
        })?;
    }
    scene.attack("the whole handshake again", Then::Ends(Reason::Protocol), |laptop| {
        laptop.write(&handshake());
        Ok(())
    })
}
