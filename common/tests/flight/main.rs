//! Flight control in virtual time: how much of a line it uses, and how long a keystroke waits beside a transfer.
//!
//! The two ends are real. Between them is a [model](world) of ssh's TCP on a [path] with a rate, a queue, jitter and
//! losses. What it reaches is compared with what that TCP reaches by itself, without an end to its data.

mod path;
mod rng;
mod tcp;
mod world;

use tcp::{Control, MS};
use world::{Line, World};

const SECOND: u64 = 1000 * MS;

/// Which ends send.
const ONE: [bool; 2] = [true, false];
const BOTH: [bool; 2] = [true, true];

/// What was measured on a line.
#[derive(Debug)]
struct Row {
    /// The transfer's part of what TCP alone carries.
    used: f64,
    /// What it adds to a keystroke in the same direction, in milliseconds.
    p50: f64,
    p99: f64,
}

/// A line of `rate` bits per second and a round trip of `trip` milliseconds.
fn line(rate: f64, trip: f64) -> Line {
    Line::new(rate, trip)
}

/// How long until a transfer is settled: TCP's start takes some round trips.
fn start(line: &Line) -> u64 {
    2 * SECOND + (line.trip * 10.0) as u64 * MS
}

/// The rate of TCP alone.
fn alone(line: &Line, bulk: [bool; 2]) -> f64 {
    let mut world = World::new(line);
    world.endless = bulk;
    world.run(start(line));
    let before = world.received(1);
    world.run(12 * SECOND);
    (world.received(1) - before) as f64 * 8.0 / 12.0
}

/// The first end's transfer beside keystrokes: the mean of some runs if chance decides.
fn measure(line: &Line, bulk: [bool; 2]) -> Row {
    let runs = if line.loss > 0.0 { 6 } else { 1 };
    let rows = (1..=runs).map(|seed| measure_once(&Line { seed, ..*line }, bulk));
    let sum = rows.reduce(|a, b| Row { used: a.used + b.used, p50: a.p50 + b.p50, p99: a.p99 + b.p99 });
    let (sum, runs) = (sum.expect("a run"), runs as f64);
    Row { used: sum.used / runs, p50: sum.p50 / runs, p99: sum.p99 / runs }
}

fn measure_once(line: &Line, bulk: [bool; 2]) -> Row {
    let mut world = World::new(line);
    let idle = world.run(2 * SECOND)[1].wait(0.5);
    (0..2).for_each(|end| world.set_bulk(end, bulk[end]));
    world.run(start(line));
    let outcome = &world.run(12 * SECOND)[1];
    Row {
        used: outcome.rate / alone(line, bulk),
        p50: outcome.wait(0.5) - idle,
        p99: outcome.wait(0.99) - idle,
    }
}

/// Checks a line. The bounds are for the model's seeds: what a change of the control makes worse shows.
#[track_caller]
fn check(line: &Line, bulk: [bool; 2], used: f64, p50: f64, p99: f64) {
    let row = measure(line, bulk);
    assert!(row.used >= used && row.p50 <= p50 && row.p99 <= p99, "{row:?} on {line:?}");
}

#[test]
fn a_transfer_fills_the_line_and_a_keystroke_hardly_waits() {
    check(&line(2e6, 60.0), ONE, 0.9, 40.0, 80.0);
    check(&line(10e6, 150.0), ONE, 0.9, 25.0, 70.0);
    check(&line(50e6, 40.0), ONE, 0.95, 10.0, 30.0);
    check(&line(300e6, 100.0), ONE, 0.95, 15.0, 60.0);
    check(&line(500e6, 10.0), ONE, 0.95, 5.0, 10.0);
    check(&line(5e9, 0.1), ONE, 0.95, 3.0, 5.0);
}

#[test]
fn both_directions_at_once_do_not_inflate_each_other() {
    check(&line(2e6, 60.0), BOTH, 0.9, 45.0, 100.0);
    check(&line(10e6, 150.0), BOTH, 0.9, 30.0, 150.0);
    check(&line(50e6, 40.0), BOTH, 0.9, 12.0, 40.0);
    check(&line(50e6, 100.0), BOTH, 0.9, 20.0, 300.0);
    check(&line(500e6, 10.0), BOTH, 0.9, 6.0, 15.0);
}

/// A loss is a stall and then a burst. TCP alone has the line's queue full when it loses, and goes on from that.
#[test]
fn losses_cost_little_more_than_they_cost_tcp() {
    for (rate, trip, loss, used) in [
        (10e6, 150.0, 0.001, 0.5),
        (50e6, 40.0, 0.001, 0.75),
        (50e6, 40.0, 0.01, 0.85),
        (300e6, 100.0, 1e-4, 0.75),
    ] {
        let mut line = line(rate, trip);
        line.loss = loss;
        check(&line, ONE, used, 40.0, 300.0);
    }
}

#[test]
fn jitter_is_not_taken_for_a_queue() {
    for (rate, trip, jitter) in [(50e6, 40.0, 5.0), (50e6, 40.0, 10.0), (10e6, 150.0, 20.0)] {
        let mut line = line(rate, trip);
        line.jitter = jitter;
        check(&line, ONE, 0.85, 25.0, 120.0);
    }
}

/// How much of the line is used from the second `from` on after its rate has changed by `factor`, and how long keystrokes
/// wait then beyond the round trip.
fn after_change(line: &Line, factor: f64, from: u64) -> (f64, f64) {
    let mut world = World::new(line);
    world.set_bulk(0, true);
    world.run(start(line));
    world.change(|path| path.rate *= factor);
    world.run(from * SECOND);
    let outcome = &world.run(2 * SECOND)[1];
    (outcome.rate / (line.rate * factor), outcome.wait(0.5) - line.trip / 2.0)
}

#[test]
fn a_rate_that_falls_or_rises_by_ten_is_followed_within_two_seconds() {
    for (rate, trip) in [(50e6, 40.0), (100e6, 20.0), (20e6, 60.0)] {
        let (used, wait) = after_change(&line(rate, trip), 0.1, 2);
        assert!(used > 0.85 && wait < 45.0, "{used} of a tenth of {rate}, {wait} ms");
        let (used, wait) = after_change(&line(rate / 10.0, trip), 10.0, 2);
        assert!(used > 0.85 && wait < 30.0, "{used} of {rate}, {wait} ms");
    }
}

/// What was under way takes 10 round trips to arrive, so this is as soon as it can be.
#[test]
fn a_long_line_that_becomes_slow_is_followed_as_soon_as_what_was_under_way_has_arrived() {
    let (used, wait) = after_change(&line(300e6, 100.0), 0.1, 2);
    assert!(used > 0.85 && wait < 40.0, "{used}, {wait} ms");
}

#[test]
fn a_transfer_begins_as_fast_as_the_start_of_tcp_below_lets_it() {
    for (rate, trip) in [(50e6, 40.0), (300e6, 100.0), (10e6, 150.0)] {
        let line = line(rate, trip);
        let mut world = World::new(&line);
        world.run(SECOND);
        world.set_bulk(0, true);
        world.run((trip * 15.0) as u64 * MS);
        let outcome = &world.run(SECOND)[1];
        assert!(outcome.rate > rate * 0.8, "{} of {rate}", outcome.rate);
    }
}

/// All lines of a grid: `cargo test -p gh-net-common --release --test flight -- --ignored --nocapture`.
#[test]
#[ignore = "prints a table"]
fn table() {
    println!(
        "| Mbit/s | round trip, ms | jitter, ms | loss | TCP below | directions | of TCP alone | p50, ms | p99, ms |"
    );
    println!("|---:|---:|---:|---:|---|---:|---:|---:|---:|");
    for rate in [2e6, 10e6, 50e6, 300e6, 500e6, 5e9] {
        for trip in [0.1, 10.0, 40.0, 100.0, 150.0] {
            for (jitter, loss) in [(0.0, 0.0), (trip / 8.0, 0.0), (0.0, 0.001)] {
                for control in [Control::Cubic, Control::Steady] {
                    for bulk in [ONE, BOTH] {
                        let mut line = line(rate, trip);
                        (line.jitter, line.loss, line.control) = (jitter, loss, control);
                        print(&line, bulk, &measure(&line, bulk));
                    }
                }
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "the table is what it is for")]
fn print(line: &Line, bulk: [bool; 2], row: &Row) {
    println!(
        "| {} | {} | {} | {} % | {:?} | {} | {:.2} | {:.1} | {:.1} |",
        line.rate / 1e6,
        line.trip,
        line.jitter,
        line.loss * 100.0,
        line.control,
        1 + usize::from(bulk[1]),
        row.used,
        row.p50,
        row.p99
    );
}
