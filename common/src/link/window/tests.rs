use std::iter;

use super::*;

#[test]
fn the_window_closes_when_nothing_is_delivered() {
    let now = Instant::now();
    let mut window = Window::default();
    while window.is_open() {
        window.sent(65_536, now);
    }
    assert!(window.in_flight() <= MIN_WINDOW * 2 + 65_536);
    window.delivered(window.sent, now);
    assert!(window.is_open());
    assert_eq!(window.in_flight(), 0);
}

#[test]
fn a_lying_count_neither_wraps_nor_goes_back() {
    let now = Instant::now();
    let mut window = Window::default();
    window.sent(1000, now);
    window.delivered(u64::MAX, now);
    assert_eq!(window.in_flight(), 0);
    window.delivered(0, now);
    assert_eq!(window.in_flight(), 0);
}

#[test]
fn a_long_fat_link_gets_a_window_of_its_bandwidth_delay_product() {
    let mut now = Instant::now();
    let mut window = Window::default();
    window.measured(Duration::from_millis(50), now);
    // 100 MB/s, with half a second's worth always under way.
    window.sent(50_000_000, now);
    for _ in 0..100 {
        window.sent(1_000_000, now);
        now += Duration::from_millis(10);
        window.delivered(window.delivered + 1_000_000, now);
    }
    let product = 5_000_000;
    assert!(window.size() >= 2 * product && window.size() <= 3 * product, "{}", window.size());
}

/// One direction of a link: bytes leave at a rate, one after the other, and arrive after a delay.
struct Pipe {
    rate: f64,
    delay: Duration,
    free: Instant,
    under_way: VecDeque<(Instant, Item)>,
}

enum Item {
    Packet(u64),
    Delivered(u64),
    Ping(Instant),
    Pong(Instant),
}

impl Pipe {
    fn send(&mut self, item: Item, now: Instant) {
        let length = if let Item::Packet(length) = item { length } else { 12 };
        self.free = self.free.max(now) + Duration::from_secs_f64(length as f64 / self.rate);
        self.under_way.push_back((self.free + self.delay, item));
    }

    fn arrived(&mut self, now: Instant) -> Option<Item> {
        let _ = self.under_way.front().filter(|(at, _)| *at <= now)?;
        self.under_way.pop_front().map(|(_, item)| item)
    }
}

/// One end of a link, with an endless transfer or just acknowledgements to send.
struct End {
    window: Window,
    is_bulky: bool,
    taken: u64,
    pinged: Option<Instant>,
}

impl End {
    fn new(is_bulky: bool) -> Self {
        Self { window: Window::default(), is_bulky, taken: 0, pinged: None }
    }

    fn send(&mut self, length: u64, to: &mut Pipe, now: Instant) {
        self.window.sent(length, now);
        to.send(Item::Packet(length), now);
    }

    fn turn(&mut self, from: &mut Pipe, to: &mut Pipe, now: Instant) {
        let before = self.taken;
        let mut packets = 0;
        for item in iter::from_fn(|| from.arrived(now)) {
            match item {
                Item::Packet(length) => {
                    self.taken += length;
                    packets += u32::from(length > 1000);
                }
                Item::Delivered(total) => self.window.delivered(total, now),
                Item::Ping(sent) => to.send(Item::Pong(sent), now),
                Item::Pong(sent) => self.window.measured(now - sent, now),
            }
        }
        if self.taken > before {
            to.send(Item::Delivered(self.taken), now);
        }
        // Acknowledgements do not wait for the window, nor does a ping.
        (0..packets).for_each(|_| self.send(64, to, now));
        if self.pinged.is_none_or(|last| now - last >= Duration::from_secs(1)) {
            self.pinged = Some(now);
            to.send(Item::Ping(now), now);
        }
        while self.is_bulky && self.window.is_open() {
            self.send(65_524, to, now);
        }
    }
}

struct Link {
    now: Instant,
    ends: [End; 2],
    pipes: [Pipe; 2],
}

const RATE: f64 = 20e6;
const MS: Duration = Duration::from_millis(1);

impl Link {
    fn new(round_trip: Duration, bulky: [bool; 2]) -> Self {
        let now = Instant::now();
        let pipe = || Pipe { rate: RATE, delay: round_trip / 2, free: now, under_way: VecDeque::new() };
        Self { now, ends: bulky.map(End::new), pipes: [pipe(), pipe()] }
    }

    /// Returns the rate the first end's data arrived at, and the most of it that was under way.
    fn run(&mut self, time: Duration) -> (f64, u64) {
        let (start, end, before) = (self.now, self.now + time, self.ends[1].taken);
        let mut most = 0;
        while self.now < end {
            let [near, far] = &mut self.ends;
            let [up, down] = &mut self.pipes;
            near.turn(down, up, self.now);
            far.turn(up, down, self.now);
            most = most.max(near.window.in_flight());
            self.now += MS / 2;
        }
        ((self.ends[1].taken - before) as f64 / (self.now - start).as_secs_f64(), most)
    }
}

/// Twice the bandwidth-delay product and the least window, with some room: a packet takes its time, too, and
/// rates are overestimated a little.
fn enough(round_trip: Duration) -> u64 {
    (2.5 * RATE * (round_trip + 5 * MS).as_secs_f64()) as u64 + MIN_WINDOW + 2 * 65_524
}

#[test]
fn minutes_of_steady_load_do_not_widen_the_window() {
    for round_trip in [MS, 40 * MS, 100 * MS] {
        let mut link = Link::new(round_trip, [true, false]);
        link.run(Duration::from_secs(2));
        let (rate, most) = link.run(Duration::from_secs(150));
        assert!(most <= enough(round_trip), "{round_trip:?}: {most} bytes under way");
        assert!(rate > 0.96 * RATE, "{round_trip:?}: {rate} bytes/s");
    }
}

#[test]
fn a_path_that_becomes_longer_or_shorter_under_load_is_followed() {
    let mut link = Link::new(10 * MS, [true, false]);
    link.run(Duration::from_secs(5));
    for round_trip in [150 * MS, 10 * MS] {
        link.pipes.iter_mut().for_each(|pipe| pipe.delay = round_trip / 2);
        link.run(Duration::from_secs(25));
        let (rate, most) = link.run(Duration::from_secs(30));
        assert!(rate > 0.95 * RATE, "{round_trip:?}: {rate} bytes/s");
        assert!(most <= enough(round_trip), "{round_trip:?}: {most} bytes under way");
    }
}

#[test]
fn a_link_that_was_idle_starts_with_its_whole_window() {
    let mut link = Link::new(40 * MS, [true, false]);
    link.run(Duration::from_secs(5));
    link.ends[0].is_bulky = false;
    link.run(Duration::from_secs(60));
    let window = link.ends[0].window.size();
    link.ends[0].is_bulky = true;
    let (_, most) = link.run(MS);
    assert!(most >= window, "{most} of {window}");
}
