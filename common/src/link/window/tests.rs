use super::*;

const MS: Duration = Duration::from_millis(1);

/// A window on a line of 10 MB/s and 40 ms that delivers what is sent, in packets of 1,000 bytes.
struct Line {
    window: Window,
    now: Instant,
    /// When each packet that is under way arrives.
    arrivals: std::collections::VecDeque<Instant>,
    /// How long a report takes.
    back: Duration,
    /// What the other end's clock shows at `start`, in microseconds.
    clock: u64,
    start: Instant,
    /// When the line has carried everything.
    free: Instant,
    rate: f64,
    total: u64,
}

impl Line {
    fn new() -> Self {
        let now = Instant::now();
        let mut window = Window::new(now);
        window.measured(40 * MS);
        Self {
            window,
            now,
            arrivals: Default::default(),
            back: 20 * MS,
            clock: 1,
            start: now,
            free: now,
            rate: 10e6,
            total: 0,
        }
    }

    /// A busy time. Returns the bytes that were delivered.
    fn run(&mut self, time: Duration) -> u64 {
        let (end, before) = (self.now + time, self.total);
        while self.now < end {
            while let Some(at) = self.arrivals.front().copied().filter(|at| *at + self.back <= self.now) {
                self.arrivals.pop_front();
                self.total += 1000;
                let micros = self.clock + (at - self.start).as_micros() as u64;
                self.window.delivered(self.total, micros, self.now);
            }
            while self.window.is_open(self.now) {
                self.window.sent(1000, self.now);
                self.free = self.free.max(self.now) + Duration::from_secs_f64(1000.0 / self.rate);
                self.arrivals.push_back(self.free + 20 * MS);
            }
            self.now += MS / 4;
        }
        self.total - before
    }
}

#[test]
fn a_window_closes_when_nothing_is_delivered() {
    let now = Instant::now();
    let mut window = Window::new(now);
    while window.is_open(now) {
        window.sent(1000, now);
    }
    assert!(window.in_flight() < INITIAL_WINDOW + 1000);
    window.delivered(window.sent, 1, now + MS);
    assert!(window.is_open(now + MS));
    assert_eq!(window.in_flight(), 0);
}

#[test]
fn a_lying_count_neither_wraps_nor_goes_back() {
    let now = Instant::now();
    let mut window = Window::new(now);
    window.sent(1000, now);
    window.delivered(u64::MAX, u64::MAX, now);
    assert_eq!(window.in_flight(), 0);
    window.delivered(0, 0, now);
    assert_eq!(window.in_flight(), 0);
}

#[test]
fn reports_of_any_kind_keep_the_window_within_its_bounds() {
    let mut now = Instant::now();
    let mut window = Window::new(now);
    for turn in 0..10_000_u64 {
        window.sent(1 << (turn % 27), now);
        now += Duration::from_micros(turn.pow(3) % 977 * 300);
        let micros = if turn % 11 == 0 { u64::MAX >> (turn % 60) } else { turn << (turn % 50) };
        window.delivered(if turn % 7 == 0 { u64::MAX } else { turn << (turn % 40) }, micros, now);
        window.measured(Duration::from_secs(turn % 5 * 3600));
        assert!((FEW_PACKETS..=MAX_WINDOW).contains(&window.size()), "{}", window.size());
        assert!(window.poll_timeout(now).is_none_or(|at| at > now && at <= now + Duration::from_secs(2)));
    }
}

#[test]
fn a_window_is_the_rate_times_the_round_trip_and_little_more() {
    let mut line = Line::new();
    line.run(Duration::from_secs(2));
    let delivered = line.run(Duration::from_secs(8));
    assert!(delivered > 78_000_000, "{delivered}");
    let product = 400_000;
    assert!((product..product * 5 / 4).contains(&line.window.size()), "{}", line.window.size());
}

#[test]
fn what_the_other_clock_shows_and_how_late_reports_are_makes_no_difference_to_the_rate() {
    let mut sizes = [0, 1, 1_000_000_000_000].map(|clock| {
        let mut line = Line::new();
        line.clock = clock;
        line.run(Duration::from_secs(3));
        assert!(line.run(Duration::from_secs(1)) > 9_700_000);
        line.window.size()
    });
    sizes.sort_unstable();
    assert!(sizes[2] - sizes[0] < 20_000, "{sizes:?}");
    // The other direction becomes busy, and reports wait.
    let mut line = Line::new();
    line.run(Duration::from_secs(2));
    let rate = line.window.rate().unwrap();
    line.back = 60 * MS;
    line.run(Duration::from_secs(1));
    assert!(line.run(Duration::from_secs(1)) > 9_700_000, "the pipe is kept full");
    assert!((line.window.rate().unwrap() / rate - 1.0).abs() < 0.01);
    assert!(line.free - line.now < 10 * MS, "{:?} wait", line.free - line.now);
}

#[test]
fn a_stall_neither_raises_the_rate_nor_is_its_end_a_burst() {
    let mut line = Line::new();
    line.run(Duration::from_secs(2));
    let rate = line.window.rate().unwrap();
    // Everything under way arrives at once, much later.
    let until = line.now + 80 * MS;
    line.arrivals.iter_mut().for_each(|at| *at = until.max(*at));
    line.free = until;
    line.run(80 * MS);
    let before = line.window.sent;
    line.run(21 * MS);
    assert!(line.window.sent - before < 400_000, "{} bytes at once", line.window.sent - before);
    line.run(500 * MS);
    assert!(line.window.rate().unwrap() < rate * 1.1);
}

#[test]
fn an_open_window_has_no_timeout() {
    let mut line = Line::new();
    line.run(Duration::from_secs(2));
    // What was under way arrives, and nothing more is sent.
    for packet in std::mem::take(&mut line.arrivals) {
        line.now = line.now.max(packet + line.back);
        line.total += 1000;
        line.window.delivered(line.total, 0, line.now);
    }
    let later = line.now + 10 * MS;
    assert!(line.window.is_open(later));
    assert_eq!(line.window.poll_timeout(later), None);
}

#[test]
fn what_is_kept_of_arrivals_lasts_a_round_trip_however_long_the_transfer() {
    let mut line = Line::new();
    for _ in 0..4 {
        line.run(Duration::from_secs(2));
        assert!(line.window.rounds.kept() < 100, "{}", line.window.rounds.kept());
    }
    // The other end's clock stands still.
    for _ in 0..4000 {
        line.window.sent(1000, line.now);
        line.now += 2 * MS;
        line.window.delivered(line.window.sent, 1, line.now);
    }
    assert!(line.window.rounds.kept() <= 1024, "{}", line.window.rounds.kept());
}

#[test]
fn departures_are_few_however_small_the_packets() {
    let mut line = Line::new();
    line.run(Duration::from_secs(2));
    let mut departures = Departures::default();
    for packet in 1..400_000 {
        departures.add(packet * 64, 25_600_000, line.now);
        line.now += Duration::from_nanos(2000);
    }
    assert!((700..=900).contains(&departures.len()), "{}", departures.len());
}
