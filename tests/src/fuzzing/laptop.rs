//! An engine on a simulated laptop, whose sockets do what the fuzzer decides.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gh_net::netwatch::{Address, Snapshot};
use gh_net::policy::{Choice, Codespace, Policy};
use gh_net_engine::{
    Command, Config, Engine, FlowId, NewFlow, Policy as _, Protocol, QueryId, Resources, Target, Verdict,
};
use gh_net_testkit::driver;
use gh_net_testkit::packet::Packet;

pub(super) const GATEWAYS: [&str; 2] = ["198.19.240.2", "fd67:682d:6e65:74::2"];
const MTU: u16 = 65520;

/// The engine, the time, and the sockets it has asked for.
#[derive(Debug)]
pub(super) struct Laptop {
    pub(super) engine: Engine,
    pub(super) now: Instant,
    pub(super) flows: Vec<FlowId>,
    pub(super) queries: Vec<QueryId>,
    /// TCP connections that were asked for and not yet taken by the test.
    pub(super) connects: Vec<FlowId>,
    /// Whether the link has room.
    pub(super) bulk: bool,
    /// The names that addresses have been looked up by, expired ones included.
    pub(super) names: HashMap<IpAddr, Vec<String>>,
    policy: Policy,
}

impl Laptop {
    /// Without rules.
    pub(super) fn new() -> Self {
        Self::with(Self::choice())
    }

    /// It forwards 10.0.0.0/8 and fd00::/8.
    pub(super) fn choice() -> Choice {
        let routes = ["10.0.0.0/8", "fd00::/8"].map(|route| route.parse().expect("a route"));
        Choice { routes: routes.to_vec(), ..Choice::default() }
    }

    pub(super) fn with(choice: Choice) -> Self {
        let policy = policy(&choice);
        let config = Config {
            gateways: GATEWAYS.map(|gateway| gateway.parse().expect("an address")).to_vec(),
            dns: true,
            mtu: MTU,
            policy: Box::new(policy.clone()),
            secret: 0,
            resources: Resources::default(),
        };
        Self {
            engine: Engine::new(config),
            now: Instant::now(),
            flows: Vec::new(),
            queries: Vec::new(),
            connects: Vec::new(),
            bulk: true,
            names: HashMap::new(),
            policy,
        }
    }

    /// The user chooses something else.
    pub(super) fn choose(&mut self, choice: Choice) {
        self.policy = policy(&choice);
        self.engine.set_policy(Box::new(self.policy.clone()), self.now);
    }

    pub(super) fn packet(&mut self, packet: impl Into<Bytes>) {
        self.engine.handle_packet(packet.into(), self.now);
        self.commands();
    }

    /// Takes all commands. None may go to a destination that the policy refuses.
    pub(super) fn commands(&mut self) {
        while let Some(command) = self.engine.poll_command() {
            match command {
                Command::Connect { flow, target, .. } => {
                    match target {
                        Target::Host { address, .. } => self.permitted(Protocol::Tcp, address),
                        Target::Laptop(loopback) => panic!("{loopback:?} is not open"),
                        Target::Resolver => {}
                    }
                    self.flows.push(flow);
                    self.connects.push(flow);
                }
                Command::OpenUdp { flow, .. } | Command::OpenEcho { flow, .. } => self.flows.push(flow),
                Command::SendUdp { destination, .. } => self.permitted(Protocol::Udp, destination),
                Command::SendToLaptop { destination, .. } => panic!("{destination:?} is not open"),
                Command::SendEcho { destination, .. } => {
                    self.permitted(Protocol::Echo, at_port_0(destination))
                }
                Command::Resolve { query, .. } => self.queries.push(query),
                // The flow stays in the list: an event for a flow that is gone must have no effect.
                Command::Abort(_)
                | Command::Close(_)
                | Command::Hold(_)
                | Command::Service(_)
                | Command::Forget(_) => {}
            }
        }
    }

    fn permitted(&self, protocol: Protocol, destination: SocketAddr) {
        let client = SocketAddr::from(([198, 19, 240, 1], 40_000));
        let all = self.names.get(&destination.ip()).map_or(&[][..], Vec::as_slice);
        // By which of the names a flow was admitted only the engine knows.
        let each = all.iter().map(std::slice::from_ref).chain([&[], all]);
        let verdict = |names| self.policy.verdict(&NewFlow { protocol, client, destination, names });
        let permits = |names| matches!(verdict(names), Verdict::Forward { .. });
        assert!(each.into_iter().any(permits), "{protocol:?} to {destination}: {all:?}");
    }

    /// The next packet for the codespace.
    pub(super) fn transmit(&mut self) -> Option<Packet> {
        let packet = driver::transmit(&mut self.engine, self.bulk, self.now);
        self.commands();
        packet.map(|(packet, _)| packet)
    }

    /// Lets time pass, with every time-out on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        driver::pass(&mut self.engine, &mut self.now, time);
        self.commands();
    }

    /// The session ends in an orderly way: nothing is left.
    pub(super) fn end(mut self) {
        self.engine.reset_all(self.now);
        self.bulk = false;
        while self.transmit().is_some() {}
        assert_eq!((self.engine.flow_count(), self.engine.poll_timeout()), (0, None), "after the end");
    }
}

/// The policy on a laptop that is itself 10.0.0.5 and fd00::5.
fn policy(choice: &Choice) -> Policy {
    let own =
        |address: &str| Address { interface: 1, address: address.parse().expect("a network"), peer: None };
    let snapshot = Snapshot { addresses: vec![own("10.0.0.5/24"), own("fd00::5/64")], ..Snapshot::default() };
    Policy::new(choice, &snapshot, &Codespace::default())
}

pub(super) fn at_port_0(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}
