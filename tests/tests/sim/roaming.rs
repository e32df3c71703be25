//! A client that roams: the link is cut at any byte, in any state of any connection, for milliseconds or for longer than
//! the codespace's kernel backs off. Every byte arrives all the same, and nothing is left behind.

use std::time::Duration;

use gh_net_engine::ConnectError;
use gh_net_tests::sim::link::Profile;
use gh_net_tests::sim::plan::{Flow, Plan};
use gh_net_tests::sim::rng::Rng;
use gh_net_tests::sim::{Cut, Scenario};

use crate::{KB, any_pipe, any_rough_link, ms, nothing_more, over_seeds, pick};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One to four cuts during the first seconds of linked time, none longer than `longest`.
fn any_cuts(rng: &mut Rng, longest: Duration) -> Vec<Cut> {
    let mut ends = Duration::ZERO;
    let count = 1 + rng.below(4);
    let cut = |_| {
        let pause = ms(pick(rng, &[30, 600]));
        let at = ends + ms(1) + rng.time(pause);
        let most = pick(rng, &[ms(10), seconds(3), seconds(20), seconds(60), seconds(600)]);
        let length = ms(1) + rng.time(most.min(longest));
        ends = at + length;
        let unnoticed = if rng.chance(500) { Duration::ZERO } else { rng.time(length.min(seconds(15))) };
        Cut { at, unnoticed, ends }
    };
    (0..count).map(cut).collect()
}

/// These cuts, and hours to get over them.
fn roams(rng: &mut Rng, scenario: Scenario) -> Scenario {
    let cuts = any_cuts(rng, seconds(600));
    Scenario { cuts, keeps: rng.chance(500), patience: seconds(4 * 3600), ..scenario }
}

#[test]
fn cuts_during_transfers() {
    over_seeds(
        40,
        |rng| {
            let flow = |n: u64| Flow {
                starts: ms(40 * n),
                ..Flow::new(Plan::sends(300 * KB), Plan::sends(300 * KB))
            };
            let scenario = any_pipe(rng, (0..5).map(flow).collect());
            roams(rng, scenario)
        },
        nothing_more,
    );
}

#[test]
fn cuts_during_half_closes() {
    let last = Plan { sends_after_end: true, ..Plan::sends(100 * KB) };
    let first = Plan::sends(100 * KB);
    over_seeds(
        40,
        |rng| {
            let flows = [Flow::new(first, last), Flow::new(last, first), Flow::new(first, first)];
            let flows = (0..9).map(|n| Flow { starts: ms(60 * n), ..flows[n as usize % 3] }).collect();
            let scenario = any_pipe(rng, flows);
            roams(rng, scenario)
        },
        nothing_more,
    );
}

#[test]
fn cuts_with_closed_windows() {
    over_seeds(
        40,
        |rng| {
            let pause =
                |rng: &mut Rng| Some((rng.time(ms(400)), ms(500) + rng.time(Duration::from_secs(90))));
            let client = Plan { pause: pause(rng), ..Plan::sends(2_000 * KB) };
            let server = Plan { pause: pause(rng), ..Plan::sends(2_000 * KB) };
            let scenario = any_pipe(rng, vec![Flow::new(client, server)]);
            roams(rng, scenario)
        },
        nothing_more,
    );
}

#[test]
fn cuts_during_resets_leave_nothing_behind() {
    over_seeds(
        40,
        |rng| {
            let mut flow = |n: u64| {
                let mut flow = Flow::new(Plan::sends(300 * KB), Plan::sends(300 * KB));
                flow.starts = ms(n * 50);
                let at = Some(ms(20) + rng.time(ms(2000)));
                if n.is_multiple_of(2) {
                    flow.client.resets = at
                } else {
                    flow.server.resets = at
                }
                flow
            };
            let flows = (0..8).map(&mut flow).collect();
            let scenario = any_pipe(rng, flows);
            roams(rng, scenario)
        },
        nothing_more,
    );
}

#[test]
fn cuts_while_connecting() {
    over_seeds(
        40,
        |rng| {
            let flow = |n: u64| {
                let outcome = if n.is_multiple_of(3) { Err(ConnectError::Refused) } else { Ok(()) };
                let mut flow = Flow::new(Plan::sends(1000), Plan::sends(1000));
                flow.starts = ms(70 * n);
                flow.connect = (ms(30 * n), outcome);
                flow
            };
            roams(rng, Scenario::new((0..12).map(flow).collect()))
        },
        nothing_more,
    );
}

/// A connection of any kind, begun at any time.
fn any_flow(rng: &mut Rng) -> Flow {
    let mut plan = || {
        let most_bytes = pick(rng, &[1, 2000, 300 * KB]);
        let longest_pause = pick(rng, &[ms(500), seconds(90)]);
        Plan {
            bytes: rng.below(most_bytes),
            pause: rng.chance(300).then(|| (rng.time(ms(800)), ms(1) + rng.time(longest_pause))),
            resets: rng.chance(150).then(|| rng.time(seconds(5))),
            reads: rng.chance(300).then(|| pick(rng, &[50, 2000])),
            ..Plan::default()
        }
    };
    let mut flow = Flow::new(plan(), plan());
    // Two programs that wait for each other's end would wait forever.
    match rng.below(4) {
        0 => flow.client.sends_after_end = true,
        1 => flow.server.sends_after_end = true,
        2 => flow.client.ends_after_end = true,
        _ => flow.server.ends_after_end = true,
    }
    flow.starts = rng.time(ms(1500));
    flow
}

/// Several of them, some of which cannot be connected.
fn any_flows(rng: &mut Rng) -> Vec<Flow> {
    let count = 1 + rng.below(12);
    (0..count).map(|_| any_flow(rng)).collect()
}

fn some_are_refused(rng: &mut Rng, scenario: &mut Scenario) {
    let errors = [ConnectError::Refused, ConnectError::HostUnreachable, ConnectError::TimedOut];
    for flow in &mut scenario.flows {
        if rng.chance(100) {
            flow.connect.1 = Err(pick(rng, &errors));
            // smoltcp never gives up by itself.
            flow.client.resets = Some(flow.starts + seconds(30));
        }
    }
}

#[test]
fn cuts_at_any_time_of_any_connections() {
    over_seeds(
        100,
        |rng| {
            let flows = any_flows(rng);
            let mut scenario = any_pipe(rng, flows);
            some_are_refused(rng, &mut scenario);
            roams(rng, scenario)
        },
        nothing_more,
    );
}

#[test]
fn cuts_of_a_rough_link() {
    over_seeds(
        30,
        |rng| {
            let flows = any_flows(rng);
            let mut scenario = any_rough_link(rng, flows);
            some_are_refused(rng, &mut scenario);
            roams(rng, scenario)
        },
        nothing_more,
    );
}

#[test]
fn every_connection_moves_soon_after_a_cut_however_long_it_was() {
    // One direction or both are busy for many seconds of linked time.
    let silent = Plan { buffer: 32 * 1024, ..Plan::default() };
    let busy = Plan { bytes: 1000 * KB, ..silent };
    let ends = [(busy, busy), (busy, silent), (silent, busy)];
    over_seeds(
        12,
        |rng| {
            let at = ms(500) + rng.time(seconds(1));
            let length = pick(rng, &[seconds(1), seconds(20), seconds(120), seconds(600)]);
            let unnoticed = rng.time(length.min(seconds(15)));
            let again = at + length + seconds(2) + ms(100);
            let cuts = vec![
                Cut { at, unnoticed, ends: at + length },
                Cut { at: again, unnoticed: Duration::ZERO, ends: again + length },
            ];
            let flow = |n: u64| {
                let (client, server) = ends[n as usize % 3];
                Flow { starts: ms(20 * n), ..Flow::new(client, server) }
            };
            let slow = Profile::pipe(ms(20), Some(400_000));
            let scenario = Scenario::new((0..6).map(flow).collect());
            Scenario {
                up: slow,
                down: slow,
                client_mtu: 1500,
                cuts,
                keeps: rng.chance(500),
                moves_within: Some(seconds(2)),
                patience: seconds(3600),
                ..scenario
            }
        },
        nothing_more,
    );
}
