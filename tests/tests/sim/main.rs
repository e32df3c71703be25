//! TCP in virtual time: scenarios over many seeds. [`gh_net_tests::sim::run`] asserts what must hold in every run; the
//! tests here assert what must hold in a particular scenario.

mod roaming;

use std::time::Duration;

use gh_net_engine::ConnectError;
use gh_net_tests::sim::link::Profile;
use gh_net_tests::sim::plan::{Flow, Plan};
use gh_net_tests::sim::rng::Rng;
use gh_net_tests::sim::{Report, Scenario, run};

const KB: u64 = 1000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs `scenario` for `count` seeds, and prints the seed of a failure. `SIM_SEEDS=100` multiplies their number by 100.
#[allow(clippy::print_stderr, reason = "a failure is reproduced by its seed")]
fn over_seeds(count: u64, scenario: impl Fn(&mut Rng) -> Scenario, check: impl Fn(&Report)) {
    let times = std::env::var("SIM_SEEDS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    for seed in 0..count * times {
        let scenario = scenario(&mut Rng::new(seed));
        let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&run(&scenario, seed))));
        if let Err(panic) = attempt {
            eprintln!("failed with seed {seed}: {scenario:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.below(choices.len() as u64) as usize]
}

/// A random codespace on a random link without loss.
fn any_pipe(rng: &mut Rng, flows: Vec<Flow>) -> Scenario {
    let delay = Duration::from_micros(pick(rng, &[20, 1000, 20_000, 150_000]));
    let pipe = Profile::pipe(delay, pick(rng, &[None, Some(2_000_000), Some(100_000_000)]));
    let client_mtu = pick(rng, &[576, 1500, 9000, 65_520]);
    let mut scenario = Scenario { up: pipe, down: pipe, client_mtu, ..Scenario::new(flows) };
    let v6 = client_mtu >= 1280 && rng.chance(500);
    for flow in &mut scenario.flows {
        flow.v6 = v6;
        flow.client.buffer = pick(rng, &[3000, 64 * 1024, 256 * 1024, 1024 * 1024]);
        flow.server.buffer = pick(rng, &[3000, 64 * 1024, 1024 * 1024]);
        flow.connect.0 = ms(pick(rng, &[0, 1, 50, 3000]));
    }
    scenario
}

/// [`any_pipe`] with loss, reordering and duplication.
fn any_rough_link(rng: &mut Rng, flows: Vec<Flow>) -> Scenario {
    let mut scenario = any_pipe(rng, flows);
    for profile in [&mut scenario.up, &mut scenario.down] {
        profile.loss = pick(rng, &[0, 5, 30]);
        profile.duplication = pick(rng, &[0, 20]);
        // Reorders a few dozen of the smallest packets, or a few of the larger ones.
        profile.jitter = ms(pick(rng, &[0, 3]));
        profile.rate = Some(4_000_000);
    }
    scenario.patience = Duration::from_secs(3600);
    scenario
}

/// Asserts that acknowledgments are only sent in answer to packets or to announce room.
fn assert_frugal(report: &Report) {
    let wire = &report.wire;
    assert!(wire.pure_acks <= wire.uplink + report.writes + 20, "{wire:?}");
}

/// Asserts that nothing within the engine's window was refused, and nothing was sent twice.
fn assert_nothing_repeated(report: &Report) {
    assert_frugal(report);
    assert_eq!(report.wire.uplink_repeated, 0, "bytes within the window were refused");
    assert_eq!(report.wire.downlink_repeated, 0, "bytes were retransmitted without a loss");
}

fn nothing_more(_: &Report) {}

#[test]
fn bulk_up() {
    let flows = || vec![Flow::new(Plan::sends(1500 * KB), Plan::default())];
    over_seeds(40, |rng| any_pipe(rng, flows()), assert_nothing_repeated);
}

#[test]
fn bulk_down() {
    let flows = || vec![Flow::new(Plan::default(), Plan::sends(1500 * KB))];
    let scenario = |rng: &mut Rng| {
        let mut scenario = any_pipe(rng, flows());
        // With a larger buffer, smoltcp scales its window, and drops bytes in the part that rounding takes back.
        scenario.flows[0].client.buffer = pick(rng, &[3000, 65_535]);
        scenario
    };
    over_seeds(40, scenario, assert_nothing_repeated);
}

#[test]
fn bulk_both_ways() {
    let flows = || vec![Flow::new(Plan::sends(800 * KB), Plan::sends(800 * KB))];
    over_seeds(40, |rng| any_pipe(rng, flows()), assert_frugal);
}

#[test]
fn many_flows() {
    let flow = |n: u64| Flow { starts: ms(n), ..Flow::new(Plan::sends(n * KB), Plan::sends((40 - n) * KB)) };
    over_seeds(6, |rng| any_pipe(rng, (0..40).map(flow).collect()), assert_frugal);
}

#[test]
fn a_request_ended_by_half_close_is_answered() {
    let server = Plan { sends_after_end: true, ..Plan::sends(300 * KB) };
    let flows = || vec![Flow::new(Plan::sends(300 * KB), server)];
    over_seeds(40, |rng| any_pipe(rng, flows()), assert_frugal);
}

#[test]
fn a_greeting_ended_by_half_close_is_answered() {
    let client = Plan { sends_after_end: true, ..Plan::sends(300 * KB) };
    let flows = || vec![Flow::new(client, Plan::sends(300 * KB))];
    over_seeds(40, |rng| any_pipe(rng, flows()), assert_frugal);
}

#[test]
fn both_ends_close_at_once() {
    let flow = |n: u64| Flow { starts: ms(n), ..Flow::new(Plan::sends(n), Plan::sends(2 * n)) };
    over_seeds(40, |rng| any_pipe(rng, (0..20).map(flow).collect()), assert_frugal);
}

#[test]
fn a_server_that_stops_reading_blocks_the_client_and_loses_nothing() {
    let pause = Some((ms(0), Duration::from_secs(200)));
    over_seeds(
        20,
        |rng| {
            let server = Plan { pause, ..Plan::default() };
            let client = Plan::sends(5_000 * KB);
            let mut scenario = any_pipe(rng, vec![Flow::new(client, server)]);
            scenario.patience = Duration::from_secs(3600);
            scenario
        },
        |report| assert!(report.took > Duration::from_secs(200), "it took {:?}", report.took),
    );
}

#[test]
fn bytes_for_a_slow_server_outlive_the_connection_in_the_codespace() {
    // Long before the server reads on, everything is acknowledged and both ends have closed.
    let pause = Some((ms(0), Duration::from_secs(300)));
    let down = |ends_after_end| Plan { pause, buffer: 3000, ends_after_end, ..Plan::sends(1000) };
    let flow = |ends_after_end| Flow::new(Plan::sends(200 * KB), down(ends_after_end));
    over_seeds(10, |_| Scenario::new(vec![flow(false), flow(true)]), nothing_more);
}

#[test]
fn a_client_that_stops_reading_is_probed_and_continues() {
    let client = Plan { pause: Some((ms(0), Duration::from_secs(300))), ..Plan::default() };
    over_seeds(
        20,
        |rng| any_pipe(rng, vec![Flow::new(client, Plan::sends(2_000 * KB))]),
        |report| {
            assert!(report.took > Duration::from_secs(300), "it took {:?}", report.took);
            assert!(report.wire.pure_acks < 100, "{:?}", report.wire);
        },
    );
}

#[test]
fn tiny_windows() {
    over_seeds(
        20,
        |rng| {
            let mut scenario = any_pipe(rng, vec![Flow::new(Plan::sends(20 * KB), Plan::sends(20 * KB))]);
            scenario.flows[0].client.buffer = pick(rng, &[1, 7, 100, 600]);
            scenario.flows[0].server.buffer = pick(rng, &[1, 7, 100, 600]);
            scenario.patience = Duration::from_secs(4 * 3600);
            scenario
        },
        |report| assert!(report.wire.downlink <= 3 * (report.wire.uplink + 20 * KB), "{:?}", report.wire),
    );
}

#[test]
fn slow_readers() {
    over_seeds(
        20,
        |rng| {
            let mut scenario = any_pipe(rng, vec![Flow::new(Plan::sends(300 * KB), Plan::sends(300 * KB))]);
            scenario.flows[0].client.reads = Some(pick(rng, &[100, 1000]));
            scenario.flows[0].server.reads = Some(pick(rng, &[100, 1000]));
            scenario
        },
        assert_frugal,
    );
}

#[test]
fn a_slow_link_is_not_filled_with_retransmissions() {
    // The link's window is at least 512 KiB, so the last bytes arrive after many retransmission time-outs.
    let flows = || vec![Flow::new(Plan::default(), Plan::sends(1_500 * KB)); 3];
    over_seeds(
        6,
        |rng| {
            let pipe = Profile::pipe(ms(pick(rng, &[10, 400])), Some(pick(rng, &[20_000, 50_000, 200_000])));
            Scenario { up: pipe, down: pipe, ..Scenario::new(flows()) }
        },
        |report| {
            let repeated = report.wire.downlink_repeated;
            assert!(repeated < 200 * KB, "{repeated} bytes were retransmitted on a link without loss");
        },
    );
}

#[test]
fn a_reset_of_the_server_reaches_the_client() {
    // At that time both still send, regardless of when they were connected.
    let slow = Plan { reads: Some(300), ..Plan::sends(50_000 * KB) };
    over_seeds(
        10,
        |rng| {
            let server = Plan { resets: Some(ms(4000) + rng.time(ms(400))), ..slow };
            let client = Plan { ends_after_end: true, ..slow };
            any_pipe(rng, vec![Flow::new(client, server)])
        },
        |report| {
            assert!(report.clients[0].reset, "{report:?}");
            assert!(report.took < Duration::from_secs(20), "{report:?}");
        },
    );
}

#[test]
fn a_reset_of_the_client_reaches_the_server() {
    // At that time both still send, regardless of when they were connected.
    let slow = Plan { reads: Some(300), ..Plan::sends(50_000 * KB) };
    over_seeds(
        10,
        |rng| {
            let client = Plan { resets: Some(ms(4000) + rng.time(ms(400))), ..slow };
            let server = Plan { ends_after_end: true, ..slow };
            any_pipe(rng, vec![Flow::new(client, server)])
        },
        |report| {
            assert!(report.servers[0].expect("asked").reset, "{report:?}");
            assert!(report.took < Duration::from_secs(8), "{report:?}");
        },
    );
}

#[test]
fn a_client_that_gives_up_connecting_closes_its_socket() {
    let client = Plan { resets: Some(ms(500)), ..Plan::default() };
    let connect = (Duration::from_secs(60), Ok(()));
    let flow = Flow { connect, ..Flow::new(client, Plan::default()) };
    over_seeds(
        5,
        |_| Scenario::new(vec![flow]),
        |report| assert!(report.servers[0].expect("asked").reset, "{report:?}"),
    );
}

/// A connection that fails with `error`, given up by the client after ten seconds.
fn refused(error: ConnectError, v6: bool) -> Scenario {
    let client = Plan { resets: Some(Duration::from_secs(10)), ..Plan::default() };
    let connect = (ms(30), Err(error));
    Scenario::new(vec![Flow { connect, v6, ..Flow::new(client, Plan::default()) }])
}

#[test]
fn a_refused_connection_is_refused_at_once() {
    for v6 in [false, true] {
        over_seeds(
            2,
            |_| refused(ConnectError::Refused, v6),
            |report| {
                assert!(report.clients[0].reset && report.took < ms(100), "{report:?}");
                assert_eq!(report.wire.resets, 1);
            },
        );
    }
}

#[test]
fn an_unreachable_host_is_reported_by_icmp() {
    let cases = [
        (ConnectError::NetworkUnreachable, (3, 0), (1, 0)),
        (ConnectError::HostUnreachable, (3, 1), (1, 3)),
        (ConnectError::Prohibited, (3, 13), (1, 1)),
    ];
    for (error, v4, v6) in cases {
        for (is_v6, code) in [(false, v4), (true, v6)] {
            over_seeds(
                1,
                |_| refused(error, is_v6),
                |report| {
                    // smoltcp ignores the error, so its SYN arrives several times.
                    assert!(!report.wire.errors.is_empty(), "{report:?}");
                    assert!(report.wire.errors.iter().all(|seen| *seen == code), "{report:?}");
                    assert_eq!(report.wire.resets, 0);
                },
            );
        }
    }
}

#[test]
fn a_time_out_stays_a_time_out() {
    for error in [ConnectError::TimedOut, ConnectError::Local] {
        over_seeds(1, |_| refused(error, false), |report| assert_eq!(report.wire.downlink, 0, "{report:?}"));
    }
}

#[test]
fn loss_reordering_and_duplication() {
    over_seeds(
        60,
        |rng| any_rough_link(rng, vec![Flow::new(Plan::sends(200 * KB), Plan::sends(200 * KB)); 2]),
        |report| assert!(report.wire.downlink <= 8000, "{:?}", report.wire),
    );
}

#[test]
fn half_close_over_a_rough_link() {
    let last = Plan { sends_after_end: true, ..Plan::sends(50 * KB) };
    let first = Plan::sends(50 * KB);
    over_seeds(
        40,
        |rng| any_rough_link(rng, vec![Flow::new(first, last), Flow::new(last, first)]),
        nothing_more,
    );
}
