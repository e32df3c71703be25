//! The control plane in a network namespace of its own, which this thread enters.

use std::process::Command;
use std::time::Duration;

use gh_net_common::frame::{DnsMode, Frame, Routes, Token, TunnelAddress};
use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use tokio::time::timeout;

use super::*;
use crate::request::{self, SessionHandle};
use crate::status::{LinkState, RouteReason, SessionState};

/// Time limit for every wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// A control plane, and what is at the other ends of its ports.
struct World {
    plane: ControlPlane,
    stop: watch::Sender<bool>,
    status: SessionHandle,
    io: mpsc::Receiver<Control>,
}

impl World {
    fn new() -> Self {
        let (stop, stopped) = watch::channel(false);
        let (status, requests) = request::channel();
        let (sender, io) = mpsc::channel(crate::io::CONTROLS);
        let ports = Ports { stop: stopped, requests, io: sender };
        let resolver = Arc::new(Resolver::default());
        let sources = Sources::default();
        let config = Config { dns: DnsMode::Off, ..sources.load().unwrap() };
        let plane = ControlPlane::new(config, sources, "codespace x".into(), resolver, ports);
        Self { plane: plane.unwrap(), stop, status, io }
    }

    /// Opens the session, as a link does. The sender signals that it has settled.
    fn open(&mut self) -> oneshot::Sender<()> {
        let (settled, is_settled) = oneshot::channel();
        let quiet = watch::Sender::default().subscribe();
        self.plane.opened(&opened(), Vec::new(), 0, Signals { settled: Some(is_settled), quiet });
        settled
    }
}

fn opened() -> Opened {
    let address = TunnelAddress {
        sidecar: "198.19.240.1/30".parse().unwrap(),
        gateway: "198.19.240.2".parse().unwrap(),
    };
    Opened {
        session: [1; 16],
        token: Token([2; 32]),
        resumed: false,
        mtu: 65_520,
        addresses: vec![address],
        device: "ghnet0".into(),
        networks: Vec::new(),
        resolvers: Vec::new(),
    }
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

fn prefixes(prefixes: &[&str]) -> Vec<IpNet> {
    prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect()
}

/// Runs `test` in a thread and a network namespace of its own, with an interface vpn0.
fn in_own_network(test: impl AsyncFnOnce() + Send + 'static) {
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            assert!(std::env::var_os("CI").is_none(), "no network namespace: {error}");
            eprintln!("SKIPPED: no network namespace: {error}");
            return;
        }
        ip("link add vpn0 type veth peer name peer0");
        ip("link set peer0 up");
        ip("link set vpn0 up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(PATIENCE, test()).await.expect("in time") });
    };
    std::thread::spawn(run).join().unwrap();
}

/// The next routes that io gets to send. Status requests are not answered.
async fn next_routes(io: &mut mpsc::Receiver<Control>) -> Routes {
    loop {
        match io.recv().await.unwrap() {
            Control::Send(Frame::Routes(routes)) => return routes,
            Control::Send(frame) => panic!("{frame:?}"),
            Control::Policy(_)
            | Control::Probe
            | Control::Gone(_)
            | Control::Report(_)
            | Control::Names(..) => {}
            Control::Shutdown => panic!("the session must not end"),
        }
    }
}

#[test]
fn a_change_of_the_laptops_networks_reaches_the_sidecar_and_the_status() {
    in_own_network(async || {
        let mut world = World::new();
        let settled = world.open();
        settled.send(()).unwrap();
        let World { plane, status, io, stop: _stop } = &mut world;
        let script = async {
            assert_eq!(next_routes(io).await, Routes::Last(Vec::new()));
            ip("address add 10.30.0.1/16 dev vpn0");
            let added = Routes::Change { add: prefixes(&["10.30.0.0/16"]), remove: Vec::new() };
            assert_eq!(next_routes(io).await, added);
            let (asked, ()) = tokio::join!(status.status(), async {
                while !matches!(io.recv().await, Some(Control::Report(_))) {}
            });
            let asked = asked.unwrap();
            assert_eq!((asked.session.state, asked.link.state), (SessionState::Open, LinkState::Up));
            assert_eq!(asked.routes[0].prefix, prefixes(&["10.30.0.0/16"])[0]);
            assert_eq!(asked.routes[0].reason, RouteReason::Connected { interface: "vpn0".into() });
            assert_eq!(asked.link.tunnel.unwrap().device, "ghnet0");
            ip("link delete vpn0");
            let removed = Routes::Change { add: Vec::new(), remove: prefixes(&["10.30.0.0/16"]) };
            assert_eq!(next_routes(io).await, removed);
        };
        tokio::select! {
            never = plane.run() => match never {},
            () = script => {}
        }
    });
}

#[test]
fn routes_that_a_client_rewrites_are_never_withdrawn() {
    in_own_network(async || {
        ip("route add 10.20.0.0/16 dev vpn0");
        let mut world = World::new();
        let _settled = world.open();
        let World { plane, io, stop: _stop, status: _status } = &mut world;
        let script = async {
            assert_eq!(next_routes(io).await, Routes::Last(prefixes(&["10.20.0.0/16"])));
            ip("route delete 10.20.0.0/16 dev vpn0");
            // Other changes go on for longer than the interval of reports.
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            for metric in 1..=14 {
                tick.tick().await;
                ip(&format!("route add 10.30.0.0/16 dev vpn0 metric {metric}"));
            }
            ip("route add 10.20.0.0/16 dev vpn0");
            let added = Routes::Change { add: prefixes(&["10.30.0.0/16"]), remove: Vec::new() };
            assert_eq!(next_routes(io).await, added);
            ip("route add 10.40.0.0/16 dev vpn0");
            let added = Routes::Change { add: prefixes(&["10.40.0.0/16"]), remove: Vec::new() };
            assert_eq!(next_routes(io).await, added, "10.20.0.0/16 was there all the time");
        };
        tokio::select! {
            never = plane.run() => match never {},
            () = script => {}
        }
    });
}

#[test]
fn what_changes_before_the_session_is_open_is_in_its_first_routes() {
    in_own_network(async || {
        let mut world = World::new();
        ip("address add 10.30.0.1/16 dev vpn0");
        world.plane.refresh().unwrap();
        assert!(world.io.is_empty(), "without a session nothing is sent");
        let _settled = world.open();
        assert_eq!(next_routes(&mut world.io).await, Routes::Last(prefixes(&["10.30.0.0/16"])));
    });
}

#[test]
fn what_the_codespace_has_of_its_own_is_followed() {
    in_own_network(async || {
        ip("route add 10.20.0.0/16 dev vpn0");
        let mut world = World::new();
        let _settled = world.open();
        let sidecar = watch::Sender::new(Codespace::default());
        world.plane.follow_codespace(sidecar.subscribe());
        let World { plane, io, stop: _stop, status } = &mut world;
        let script = async {
            let mut policies = 0;
            for (networks, codes) in [(&["10.20.3.0/24"][..], &["overlap"][..]), (&[], &[])] {
                let networks = prefixes(networks);
                sidecar.send_replace(Codespace { networks, resolvers: Vec::new() });
                let mut shown = Vec::new();
                while shown != codes {
                    let report = async {
                        loop {
                            match io.recv().await {
                                Some(Control::Report(_)) => return,
                                message => policies += u32::from(matches!(message, Some(Control::Policy(_)))),
                            }
                        }
                    };
                    let (status, ()) = tokio::join!(status.status(), report);
                    shown = status.unwrap().notes.into_iter().map(|note| note.code).collect();
                }
            }
            assert_eq!(policies, 1, "flows are judged by the one of the session's beginning");
        };
        tokio::select! {
            never = plane.run() => match never {},
            () = script => {}
        }
    });
}

#[test]
fn the_users_stop_reaches_io() {
    in_own_network(async || {
        let mut world = World::new();
        world.stop.send_replace(true);
        tokio::select! {
            never = world.plane.run() => match never {},
            message = world.io.recv() => assert!(matches!(message, Some(Control::Shutdown))),
        }
    });
}
