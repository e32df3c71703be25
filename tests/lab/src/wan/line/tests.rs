use super::*;

type Packet = Vec<u8>;

const MBIT: u64 = 1_000_000;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A line in virtual time, and a source that offers packets of one size at a constant rate.
struct World {
    start: Instant,
    now: Instant,
    line: Line<Packet>,
    /// Number and arrival of each packet, since the start.
    arrivals: Vec<(u32, Duration)>,
    sent: u32,
}

impl World {
    fn new(shape: Shape) -> Self {
        let start = Instant::now();
        Self { start, now: start, line: Line::new(start, shape, 1), arrivals: Vec::new(), sent: 0 }
    }

    /// Takes everything that arrives until `time` after the start, each packet exactly when the line says so.
    fn run_until(&mut self, time: Duration) {
        let end = self.start + time;
        while let Some(next) = self.line.next().filter(|next| *next <= end) {
            self.take_at(next.max(self.now));
        }
        self.now = end;
    }

    fn take_at(&mut self, now: Instant) {
        self.now = now;
        while let Some(packet) = self.line.take(now) {
            let number = u32::from_be_bytes(packet[..4].try_into().expect("four bytes"));
            self.arrivals.push((number, now - self.start));
        }
    }

    fn send(&mut self, len: usize) {
        let mut packet = vec![0; len];
        packet[..4].copy_from_slice(&self.sent.to_be_bytes());
        self.sent += 1;
        self.line.offer(self.now, packet);
    }

    /// Sends packets of `len` bytes at `rate` until `time` after the start.
    fn send_at(&mut self, rate: u64, len: usize, time: Duration) {
        let gap = occupation(Some(rate), len);
        while self.now < self.start + time {
            self.send(len);
            self.run_until(self.now + gap - self.start);
        }
    }

    /// Bits per second that arrived within a span after the start.
    fn rate(&self, from: Duration, to: Duration, len: usize) -> f64 {
        let count = self.arrivals.iter().filter(|(_, at)| (from..to).contains(at)).count();
        (count * len * 8) as f64 / (to - from).as_secs_f64()
    }

    fn is_in_order(&self) -> bool {
        self.arrivals.is_sorted_by_key(|(number, _)| *number)
    }
}

fn is_about(value: f64, wanted: f64) -> bool {
    (value / wanted - 1.0).abs() < 0.005
}

#[test]
fn a_shape_of_nothing_changes_nothing() {
    let mut world = World::new(Shape::default());
    world.send(1500);
    assert_eq!(world.line.take(world.now).map(|packet| packet.len()), Some(1500));
    assert_eq!(world.line.next(), None);
}

#[test]
fn a_packet_takes_its_turn_and_the_delay() {
    // 1250 bytes are 10,000 bits: 10 ms at 1 Mbit/s.
    let mut world = World::new(Shape { rate: Some(MBIT), delay: ms(20), ..Shape::default() });
    world.send(1250);
    world.send(1250);
    world.run_until(ms(100));
    assert_eq!(world.arrivals, [(0, ms(30)), (1, ms(40))]);
    // The line is idle again.
    world.send(125);
    world.run_until(ms(200));
    assert_eq!(world.arrivals[2], (2, ms(121)));
}

#[test]
fn the_rate_is_that_of_the_shape_from_slow_to_fast() {
    for rate in [MBIT / 4, 2 * MBIT, 50 * MBIT, 500 * MBIT, 5_000 * MBIT] {
        let queue = Some(rate as usize / 8 / 10);
        let mut world = World::new(Shape { rate: Some(rate), delay: ms(40), queue, ..Shape::default() });
        let end = ms(if rate > 100 * MBIT { 500 } else { 10_000 });
        world.send_at(rate * 3 / 2, 1500, end);
        let measured = world.rate(ms(200), end, 1500);
        assert!(is_about(measured, rate as f64), "{measured} instead of {rate}");
        assert!(world.is_in_order());
    }
}

#[test]
fn a_late_caller_does_not_slow_the_line() {
    let mut world = World::new(Shape { rate: Some(8 * MBIT), delay: ms(5), ..Shape::default() });
    for _ in 0..1000 {
        world.send(1000);
    }
    // 1,000 packets of 1 ms each; every look is late by up to 7 ms.
    for late in 1..=144 {
        world.take_at(world.start + ms(late * 7));
    }
    assert_eq!(world.arrivals.len(), 1000);
    assert_eq!(world.arrivals[999].1, ms(1008), "the first look after 1,005 ms");
}

#[test]
fn the_queue_holds_its_bytes_and_drops_what_comes_then() {
    let shape = Shape { rate: Some(8 * MBIT), queue: Some(10_000), ..Shape::default() };
    let mut world = World::new(shape);
    for _ in 0..15 {
        world.send(1000);
    }
    assert_eq!(world.line.counts().overflowed, 5);
    world.run_until(ms(4));
    world.send(5000);
    assert_eq!(world.line.counts().overflowed, 6, "four packets have left, and this one is five");
    world.send(4000);
    world.run_until(ms(100));
    assert_eq!(world.line.counts().overflowed, 6);
    assert_eq!(world.line.counts().packets, 11);
    world.send(20_000);
    world.run_until(ms(200));
    assert_eq!(world.line.counts().packets, 12, "a single packet always fits");
}

#[test]
fn a_full_queue_delays_by_its_bytes() {
    let shape = Shape { rate: Some(8 * MBIT), delay: ms(20), queue: Some(100_000), ..Shape::default() };
    let mut world = World::new(shape);
    world.send_at(16 * MBIT, 1000, ms(1000));
    // At 900 ms the queue is full: the next packet that fits waits for 100 ms.
    let (number, arrived) = *world.arrivals.last().expect("packets arrived");
    let sent = Duration::from_micros(500) * number;
    assert_eq!(arrived - sent, ms(120));
}

#[test]
fn as_many_are_lost_as_the_shape_says() {
    for loss in [0.001, 0.1, 1.0] {
        let mut world = World::new(Shape { loss, ..Shape::default() });
        for _ in 0..100_000 {
            world.send(100);
        }
        let lost = world.line.counts().lost as f64;
        assert!((lost / (loss * 1e5) - 1.0).abs() < 0.2, "{lost} of 100,000 lost at {loss}");
    }
}

#[test]
fn the_jitter_is_within_its_bounds_and_keeps_the_order() {
    let mut world = World::new(Shape { delay: ms(20), jitter: ms(5), ..Shape::default() });
    world.send_at(10 * MBIT, 1000, ms(10_000));
    world.run_until(ms(11_000));
    assert!(world.is_in_order());
    let sent = |number| occupation(Some(10 * MBIT), 1000) * number;
    let delays: Vec<_> = world.arrivals.iter().map(|(number, at)| *at - sent(*number)).collect();
    let (least, most) = (delays.iter().min().expect("some"), delays.iter().max().expect("some"));
    assert!(ms(20) <= *least && *least < ms(21), "{least:?}");
    assert!(ms(24) < *most && *most <= ms(25), "{most:?}");
    let mean = delays.iter().sum::<Duration>() / delays.len() as u32;
    assert!((ms(22)..ms(24)).contains(&mean), "{mean:?}");
}

#[test]
fn a_change_of_rate_applies_to_what_waits() {
    let shape = Shape { rate: Some(MBIT), delay: ms(10), ..Shape::default() };
    let mut world = World::new(shape);
    for _ in 0..3 {
        world.send(1250);
    }
    // Half of the first packet is on the line. The other half is sent at ten times the rate.
    world.run_until(ms(5));
    world.line.set(world.now, Shape { rate: Some(10 * MBIT), ..shape });
    world.run_until(ms(100));
    let micros: Vec<_> = world.arrivals.iter().map(|(_, at)| at.as_micros()).collect();
    assert_eq!(micros, [15_500, 16_500, 17_500]);
}

#[test]
fn a_line_that_falls_and_rises_by_ten_has_each_rate_at_once() {
    let shape = Shape { rate: Some(50 * MBIT), delay: ms(20), queue: Some(100_000), ..Shape::default() };
    let mut world = World::new(shape);
    world.send_at(60 * MBIT, 1500, ms(2000));
    world.line.set(world.now, Shape { rate: Some(5 * MBIT), ..shape });
    world.send_at(60 * MBIT, 1500, ms(4000));
    world.line.set(world.now, shape);
    world.send_at(60 * MBIT, 1500, ms(6000));
    for (from, to, rate) in [(500, 2000, 50), (2030, 4000, 5), (4030, 6000, 50)] {
        let measured = world.rate(ms(from), ms(to), 1500);
        assert!((measured / (rate * MBIT) as f64 - 1.0).abs() < 0.02, "{measured} from {from} ms");
    }
    assert!(world.is_in_order());
}

#[test]
fn a_shorter_delay_does_not_reorder() {
    let shape = Shape { delay: ms(100), ..Shape::default() };
    let mut world = World::new(shape);
    world.send(100);
    world.run_until(ms(10));
    world.line.set(world.now, Shape { delay: ms(10), ..shape });
    world.send(100);
    world.run_until(ms(200));
    assert_eq!(world.arrivals, [(0, ms(100)), (1, ms(100))]);
}

#[test]
fn a_line_without_a_limit_sends_what_waited_at_once() {
    let shape = Shape { rate: Some(MBIT), ..Shape::default() };
    let mut world = World::new(shape);
    world.send(1250);
    world.send(1250);
    world.line.set(world.now, Shape::default());
    assert_eq!(world.line.next(), Some(world.now));
    world.take_at(world.now);
    assert_eq!(world.arrivals.len(), 2);
}
