//! The engine in virtual time, against an independent TCP.
//!
//! Two ends and a link: the real [`Engine`] with a model of the laptop's sockets ([`hosts`]), a codespace whose kernel
//! is smoltcp ([`codespace`]), and a link that delays, loses, reorders, duplicates and is cut ([`link`]). A run is
//! determined by its [`Scenario`] and a seed. It takes milliseconds, in which hours of virtual time pass. [`run`]
//! asserts what both ends and a packet analyser between them ([`inspect`]) would notice, and returns the counts for
//! further assertions of a scenario.

pub mod codespace;
pub mod hosts;
pub mod inspect;
pub mod link;
pub mod plan;
pub mod rng;
pub mod sidecar;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use gh_net_common::frame::HEADER_LEN;
use gh_net_common::window::Window;
use gh_net_engine::{Config, Engine, Resources};
use gh_net_testkit::driver::flatten;
use gh_net_testkit::packet::describe;
use gh_net_testkit::policy::Rules;

use self::codespace::Codespace;
use self::hosts::{Context, Hosts};
use self::inspect::Inspector;
use self::link::{Direction, Fate, Profile};
use self::plan::{Flow, Pattern, Seen};
use self::rng::Rng;
use self::sidecar::Sidecar;

/// The codespace's addresses on the tunnel.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
/// The same, IPv6.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);
/// The engine's own addresses.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The same, IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 10);
const FIRST_SERVER_PORT: u16 = 1000;
const FIRST_CLIENT_PORT: u16 = 20_000;

/// The most that the engine may offer beyond what a host's socket has taken.
const MOST_UPLINK: u64 = 4 * 1024 * 1024 + 17 * 1024;
/// The most that the engine may take from a host's socket beyond what it has sent.
const MOST_UNSENT: u64 = 256 * 1024;

fn client(number: usize, v6: bool) -> SocketAddr {
    let address = if v6 { IpAddr::V6(CLIENT_V6) } else { IpAddr::V4(CLIENT_V4) };
    SocketAddr::new(address, FIRST_CLIENT_PORT + number as u16)
}

fn server(number: usize, v6: bool) -> SocketAddr {
    let address = if v6 { IpAddr::V6(SERVER_V6) } else { IpAddr::V4(SERVER_V4) };
    SocketAddr::new(address, FIRST_SERVER_PORT + number as u16)
}

fn server_number(address: SocketAddr) -> Option<usize> {
    let known = [IpAddr::V4(SERVER_V4), IpAddr::V6(SERVER_V6)].contains(&address.ip());
    known.then(|| address.port().checked_sub(FIRST_SERVER_PORT))?.map(usize::from)
}

/// The engine under test.
fn engine(mtu: u16) -> Engine {
    Engine::new(Config {
        gateways: vec![GATEWAY_V4.into(), GATEWAY_V6.into()],
        dns: true,
        mtu,
        policy: Box::new(Rules::forward(&["10.20.0.0/16", "fd20::/16"])),
        secret: 7,
        resources: Resources::default(),
    })
}

/// A time without a link.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// When packets stop arriving.
    pub at: Duration,
    /// How much later both ends notice.
    pub unnoticed: Duration,
    /// When the next link is up.
    pub ends: Duration,
}

/// The parameters of a run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The MTU of the tunnel.
    pub mtu: u16,
    /// The MTU of the programs in the codespace, which may sit behind another interface.
    pub client_mtu: usize,
    /// The link to the laptop.
    pub up: Profile,
    /// The link to the codespace.
    pub down: Profile,
    /// When the link is cut, in ascending order.
    pub cuts: Vec<Cut>,
    /// Whether the sidecar keeps a packet of each connection while there is no link.
    pub keeps: bool,
    /// The time after each cut within which bytes must arrive on every connection, in each direction that has some.
    pub moves_within: Option<Duration>,
    /// The connections.
    pub flows: Vec<Flow>,
    /// The time by which all programs must be done.
    pub patience: Duration,
}

impl Scenario {
    /// These connections over an ordinary, faithful link.
    pub fn new(flows: Vec<Flow>) -> Self {
        let pipe = Profile::pipe(Duration::from_millis(5), Some(20_000_000));
        Self {
            mtu: 65_520,
            client_mtu: 65_520,
            up: pipe,
            down: pipe,
            cuts: Vec::new(),
            keeps: true,
            moves_within: None,
            flows,
            patience: Duration::from_secs(600),
        }
    }
}

/// The results of a run.
#[derive(Debug)]
pub struct Report {
    /// The packets on the link.
    pub wire: Inspector,
    /// What the programs in the codespace saw.
    pub clients: Vec<Seen>,
    /// What the servers saw; `None` if no socket was asked for.
    pub servers: Vec<Option<Seen>>,
    /// When the last program was done.
    pub took: Duration,
    /// How often something was written to a host's socket.
    pub writes: u64,
}

/// Runs a scenario to its end and asserts what must hold in all of them.
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    let mut world = World::new(scenario, seed);
    while !world.is_done() {
        world.turn();
        assert!(world.now <= scenario.patience, "not done after {:?}: {}", world.now, world.story());
    }
    let took = world.now;
    // What is left ends by time-out: TIME-WAIT, and connections whose other end has vanished.
    while world.engine.flow_count() > 0 || world.engine.poll_timeout().is_some() {
        world.turn();
        assert!(world.now <= took + Duration::from_secs(4 * 3600), "never idle: {}", world.story());
    }
    assert_eq!(world.hosts.open(), 0, "sockets are left behind");
    world.assert_outcome();
    Report {
        clients: world.codespace.seen().collect(),
        servers: (0..scenario.flows.len()).map(|number| world.hosts.seen(number)).collect(),
        writes: world.hosts.writes,
        wire: world.wire,
        took,
    }
}

/// The link as both ends see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Up,
    /// Nothing arrives any more, and neither end has noticed.
    Dead,
    Down,
}

/// Bytes of a connection that the server and the client have read; `None` if it is not open.
type Progress = Option<(u64, u64)>;

/// Both ends and the link between them.
struct World<'a> {
    scenario: &'a Scenario,
    rng: Rng,
    pattern: Pattern,
    start: Instant,
    now: Duration,
    /// Turns without time passing.
    turns: u32,
    engine: Engine,
    hosts: Hosts,
    codespace: Codespace,
    wire: Inspector,
    up: Direction,
    down: Direction,
    /// The sidecar's reports on their way: when they arrive, and what they say, with the microseconds of its clock.
    reports: VecDeque<(Duration, u64, u64)>,
    delivered: u64,
    window: Window,
    state: LinkState,
    sidecar: Sidecar,
    /// When it is due, and how far every connection was when the link came back.
    check: Option<(Duration, Vec<Progress>)>,
    traced: bool,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut world = Self {
            pattern: Pattern::new(&mut rng),
            start: Instant::now(),
            now: Duration::ZERO,
            turns: 0,
            engine: engine(scenario.mtu),
            hosts: Hosts::new(&scenario.flows),
            codespace: Codespace::new(scenario.client_mtu, &scenario.flows, rng.number()),
            wire: Inspector::new(scenario.mtu.into()),
            up: Direction::new(scenario.up),
            down: Direction::new(scenario.down),
            reports: VecDeque::new(),
            delivered: 0,
            window: Window::new(Instant::now()),
            state: LinkState::Up,
            sidecar: Sidecar::default(),
            check: None,
            traced: std::env::var_os("SIM_TRACE").is_some(),
            rng,
            scenario,
        };
        world.link_up();
        world
    }

    fn at(&self) -> Instant {
        self.start + self.now
    }

    /// With `SIM_TRACE` set, every packet that reaches or leaves the engine is printed.
    #[allow(clippy::print_stderr, reason = "for debugging a seed")]
    fn trace(&self, way: &str, packet: &[u8]) {
        if self.traced {
            eprintln!("{:?} {way} {}", self.now, describe(packet));
        }
    }

    fn story(&self) -> String {
        let servers: Vec<_> = (0..self.scenario.flows.len()).map(|n| self.hosts.seen(n)).collect();
        let clients: Vec<_> = self.codespace.seen().collect();
        format!("clients {clients:#?}, servers {servers:#?}, on the wire {:?}", self.wire)
    }

    fn is_done(&self) -> bool {
        let servers = (0..self.scenario.flows.len()).all(|n| self.hosts.seen(n).is_none_or(|seen| seen.done));
        servers && self.codespace.seen().all(|seen| seen.done)
    }

    /// Everything that happens at this instant; then time moves to the next event.
    fn turn(&mut self) {
        self.cut_and_mend();
        self.arrive();
        if self.engine.poll_timeout().is_some_and(|at| at <= self.at()) {
            self.engine.handle_timeout(self.at());
        }
        self.drive();
        self.codespace.run(self.now, &self.pattern);
        while let Some(packet) = self.codespace.transmit() {
            match self.state {
                LinkState::Up => self.up.send(packet, self.now, &mut self.rng),
                LinkState::Down if self.scenario.keeps => self.sidecar.keep(packet, self.now),
                LinkState::Dead | LinkState::Down => {}
            }
        }
        self.check_bounds();
        self.check_progress();
        let next = self.next();
        self.turns = if next > self.now { 0 } else { self.turns + 1 };
        assert!(self.turns < 10_000, "busy at {:?}: {}", self.now, self.story());
        self.now = next;
    }

    fn next(&mut self) -> Duration {
        let engine = self.engine.poll_timeout().map(|at| at.saturating_duration_since(self.start));
        let cuts = self.scenario.cuts.iter().flat_map(|cut| [cut.at, cut.at + cut.unnoticed, cut.ends]);
        let cuts = cuts.filter(|at| *at > self.now).min();
        let check = self.check.as_ref().map(|(at, _)| *at);
        let report = self.reports.front().map(|(at, ..)| *at);
        let room = self.window.poll_timeout(self.at()).map(|at| at.saturating_duration_since(self.start));
        let events =
            [self.codespace.wakes(self.now), self.hosts.wakes(self.now), engine, cuts, report, room, check];
        let link = [self.up.next(), self.down.next()];
        let next = events.into_iter().chain(link).flatten().min();
        next.unwrap_or(self.now + Duration::from_secs(1)).max(self.now)
    }

    fn cut_and_mend(&mut self) {
        let cut = self.scenario.cuts.iter().find(|cut| (cut.at..cut.ends).contains(&self.now));
        let state = match cut {
            None => LinkState::Up,
            Some(cut) if self.now < cut.at + cut.unnoticed => LinkState::Dead,
            Some(_) => LinkState::Down,
        };
        if state == self.state {
            return;
        }
        if self.state == LinkState::Up {
            self.break_link();
        }
        match state {
            LinkState::Dead => {}
            LinkState::Down => self.engine.handle_link_down(self.at()),
            LinkState::Up => {
                self.link_up();
                self.check = self.scenario.moves_within.map(|time| (self.now + time, self.progress()));
            }
        }
        self.state = state;
    }

    fn break_link(&mut self) {
        for packet in self.up.cut(self.now, &mut self.rng) {
            self.wire.uplink(&packet);
            self.engine.handle_packet(packet, self.at());
        }
        for packet in self.down.cut(self.now, &mut self.rng) {
            self.codespace.receive(packet);
        }
        self.reports.clear();
        self.check = None;
    }

    fn link_up(&mut self) {
        self.delivered = 0;
        for packet in self.sidecar.resume() {
            self.up.send(packet, self.now, &mut self.rng);
        }
        self.engine.handle_link_up(self.at());
        self.window = Window::new(self.at());
        self.window.measured(self.scenario.up.delay + self.scenario.down.delay);
    }

    /// Delivers what has reached the end of the link.
    fn arrive(&mut self) {
        while let Some((fate, packet)) = self.up.receive(self.now) {
            if fate != Fate::Lost {
                self.trace("up", &packet);
                self.wire.uplink(&packet);
                self.engine.handle_packet(packet, self.at());
            }
        }
        let before = self.delivered;
        while let Some((fate, packet)) = self.down.receive(self.now) {
            if fate != Fate::Copy {
                self.delivered += (packet.len() + HEADER_LEN) as u64;
            }
            if fate != Fate::Lost {
                self.codespace.receive(packet);
            }
        }
        if self.delivered > before {
            let micros = self.now.as_micros() as u64 + 1;
            self.reports.push_back((self.now + self.scenario.up.delay, self.delivered, micros));
        }
        while let Some((_, total, micros)) = self.reports.front().copied().filter(|(at, ..)| *at <= self.now)
        {
            self.reports.pop_front();
            self.window.delivered(total, micros, self.at());
            self.engine.handle_delivered(total);
        }
    }

    /// One turn of io's loop.
    fn drive(&mut self) {
        let at = self.at();
        loop {
            let mut context = Context {
                engine: &mut self.engine,
                at,
                now: self.now,
                rng: &mut self.rng,
                pattern: &self.pattern,
            };
            self.hosts.run(&mut context);
            let mut busy = false;
            while self.down.is_writable(self.now)
                && let Some(packet) = self.engine.poll_transmit(self.window.is_open(at), at)
            {
                assert_ne!(self.state, LinkState::Down, "a packet without a link");
                self.window.sent((packet.len() + HEADER_LEN) as u64, at);
                let packet = flatten(&packet);
                self.trace("down", &packet);
                self.wire.downlink(&packet);
                if self.state == LinkState::Up {
                    self.down.send(packet, self.now, &mut self.rng);
                }
                busy = true;
            }
            if !busy {
                return;
            }
        }
    }

    /// The bounds on memory: bytes offered and not yet taken, bytes taken and not yet sent.
    fn check_bounds(&self) {
        for (number, flow) in self.scenario.flows.iter().enumerate() {
            let (accepted, taken) = self.hosts.progress(number);
            let (offered, sent) = self.wire.progress(number, flow.v6);
            assert!(offered <= accepted + MOST_UPLINK, "flow {number}: {offered} offered, {accepted} taken");
            assert!(taken <= sent + MOST_UNSENT, "flow {number}: {taken} taken, {sent} sent");
        }
    }

    fn progress(&self) -> Vec<Progress> {
        let open = |(number, client): (usize, Seen)| {
            let server = self.hosts.seen(number).filter(|_| client.connected)?;
            Some((server.received, client.received))
        };
        self.codespace.seen().enumerate().map(open).collect()
    }

    /// Some time after a cut every connection that was open has moved.
    fn check_progress(&mut self) {
        let Some((_, before)) = self.check.take_if(|(at, _)| *at <= self.now) else { return };
        for (number, (before, now)) in before.into_iter().zip(self.progress()).enumerate() {
            let (Some((up_before, down_before)), Some((up, down))) = (before, now) else { continue };
            let flow = &self.scenario.flows[number];
            let story = || format!("flow {number} at {:?}: {}", self.now, self.story());
            assert!(up > up_before || up == flow.client.bytes, "nothing goes up, {}", story());
            assert!(down > down_before || down == flow.server.bytes, "nothing comes down, {}", story());
        }
    }

    fn assert_outcome(&self) {
        for (number, (flow, client)) in self.scenario.flows.iter().zip(self.codespace.seen()).enumerate() {
            let server = self.hosts.seen(number);
            let story = format!("flow {number}: client {client:?}, server {server:?}");
            if flow.is_peaceful() {
                let server = server.expect("a server was asked");
                assert!(!client.reset && !server.reset, "reset without a reason, {story}");
                assert!(client.end && server.end, "an end is missing, {story}");
                assert_eq!(client.received, flow.server.bytes, "{story}");
                assert_eq!(server.received, flow.client.bytes, "{story}");
            } else if let Err(_error) = flow.connect.1 {
                assert!(!client.connected, "connected without a server, {story}");
            }
        }
    }
}
