//! Two ends with the real [`LinkControl`], and a TCP connection between them in each direction.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use gh_net_common::frame::{Frame, HEADER_LEN};
use gh_net_common::link::{LinkControl, PROBE};

use crate::path::Path;
use crate::rng::Rng;
use crate::tcp::{Control, Due, MS, Tcp, Time};

/// What a frame costs on the stream beside a packet: ssh's own header and tag, and the frame.
const SMALL_FRAME: u64 = 48;
/// A keystroke with its headers.
const KEYSTROKE: usize = 53;
/// Mean time between keystrokes.
const PAUSE: Time = 25 * MS;
/// Timers ring at the next millisecond, as tokio's do.
const TICK: Time = MS;

/// A link to run on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    /// Bits per second.
    pub(crate) rate: f64,
    /// Round trip in milliseconds.
    pub(crate) trip: f64,
    /// The same, most that a packet is late one way.
    pub(crate) jitter: f64,
    /// Probability.
    pub(crate) loss: f64,
    pub(crate) control: Control,
    /// Bytes of ssh's window.
    pub(crate) channel: u64,
    /// The most that a program is late when it is woken.
    pub(crate) late: Time,
    pub(crate) seed: u64,
}

impl Line {
    pub(crate) fn new(rate: f64, trip: f64) -> Self {
        Self {
            rate,
            trip,
            jitter: 0.0,
            loss: 0.0,
            control: Control::Cubic,
            channel: u64::MAX / 4,
            late: MS / 20,
            seed: 1,
        }
    }

    fn path(&self, seed: u64) -> Path {
        let half = (self.trip / 2.0 * MS as f64) as Time;
        let mut path = Path::new(self.rate / 8.0, half, seed);
        path.jitter = (self.jitter * MS as f64) as Time;
        path.loss = self.loss;
        path
    }

    /// Small on slow lines, large on fast ones, where segments are offloaded.
    fn mss(&self) -> u64 {
        ((self.rate / 8.0 * 50e-6) as u64).clamp(1448, 65_160)
    }
}

#[derive(Debug, Clone, Copy)]
enum Item {
    Packet { len: usize, typed: Option<Time> },
    Frame(Small),
}

/// The frames of the link control, without the others.
#[derive(Debug, Clone, Copy)]
enum Small {
    Delivered { total: u64, micros: u64 },
    Ping(u64),
    Pong(u64),
}

#[derive(Debug)]
struct End {
    control: LinkControl,
    /// Whether it has an endless transfer for the other end.
    pub(crate) bulk: bool,
    /// When keystrokes were typed that are not sent yet.
    typed: VecDeque<Time>,
    /// What is on the stream to the other end, and where it ends.
    stream: VecDeque<(u64, Item)>,
    tcp: Tcp,
    path: Path,
    /// Bytes from the other end that can be read.
    readable: u64,
    read: u64,
    woken: bool,
    /// When the latest timer rings; earlier ones no longer do.
    alarm: Time,
    /// Bytes of packets that have arrived.
    taken: u64,
    /// How long keystrokes took to get here.
    waits: Vec<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Turn(usize),
    Alarm(usize),
    Arrival { end: usize, start: u64, len: u64, id: u64 },
    Acknowledgment { end: usize, id: u64, read: u64 },
    TimeOut(usize),
    Key(usize),
}

/// What one end received in some time.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Packets' bits per second.
    pub(crate) rate: f64,
    /// How long keystrokes took, sorted.
    waits: Vec<Time>,
}

impl Outcome {
    /// A quantile in milliseconds.
    pub(crate) fn wait(&self, quantile: f64) -> f64 {
        let last = self.waits.len().saturating_sub(1);
        self.waits.get((last as f64 * quantile) as usize).map_or(f64::NAN, |wait| *wait as f64 / MS as f64)
    }
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Time,
    start: Instant,
    ends: [End; 2],
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    count: u64,
    late: Time,
    rng: Rng,
    /// Which ends send all that TCP takes, without frames.
    pub(crate) endless: [bool; 2],
}

impl World {
    pub(crate) fn new(line: &Line) -> Self {
        let start = Instant::now();
        let end = |number: usize| End {
            control: LinkControl::new(PROBE, start),
            bulk: false,
            typed: VecDeque::new(),
            stream: VecDeque::new(),
            tcp: Tcp::new(line.control, line.mss(), line.channel),
            path: line.path(2 * line.seed + number as u64),
            readable: 0,
            read: 0,
            woken: false,
            alarm: 0,
            taken: 0,
            waits: Vec::new(),
        };
        let mut world = Self {
            now: 0,
            start,
            ends: [end(0), end(1)],
            events: BinaryHeap::new(),
            count: 0,
            late: line.late,
            rng: Rng::new(line.seed),
            endless: [false; 2],
        };
        for end in 0..2 {
            world.wake(end);
            world.at(0, Event::Key(end));
        }
        world
    }

    /// How much of the stream this end has received, frames included.
    pub(crate) fn received(&self, end: usize) -> u64 {
        self.ends[end].readable
    }

    /// Whether this end has an endless transfer for the other one.
    pub(crate) fn set_bulk(&mut self, end: usize, bulk: bool) {
        self.ends[end].bulk = bulk;
        self.wake(end);
    }

    /// Changes the path in both directions.
    pub(crate) fn change(&mut self, change: impl Fn(&mut Path)) {
        self.ends.iter_mut().for_each(|end| change(&mut end.path));
    }

    /// Runs for `time`. Returns what each end received.
    pub(crate) fn run(&mut self, time: Time) -> [Outcome; 2] {
        let until = self.now + time;
        let before = [0, 1].map(|end| self.ends[end].taken);
        self.ends.iter_mut().for_each(|end| end.waits.clear());
        while let Some(Reverse((at, ..))) = self.events.peek()
            && *at <= until
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.now = at;
            self.handle(event);
        }
        self.now = until;
        [0, 1].map(|end| {
            let End { taken, waits, .. } = &mut self.ends[end];
            let mut waits = std::mem::take(waits);
            waits.sort_unstable();
            Outcome { rate: (*taken - before[end]) as f64 * 8e9 / time as f64, waits }
        })
    }

    fn at(&mut self, time: Time, event: Event) {
        self.count += 1;
        self.events.push(Reverse((time, self.count, event)));
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_nanos(self.now)
    }

    /// Wakes the program of this end, which is a little late.
    fn wake(&mut self, end: usize) {
        if !std::mem::replace(&mut self.ends[end].woken, true) {
            let late = self.rng.below(self.late);
            self.at(self.now + late, Event::Turn(end));
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Turn(end) => self.turn(end),
            Event::Alarm(end) if self.ends[end].alarm == self.now => self.wake(end),
            Event::Alarm(_) => {}
            Event::Arrival { end, start, len, id } => {
                let other = 1 - end;
                let complete = self.ends[end].tcp.arrive(start, len);
                if complete > self.ends[other].readable {
                    self.ends[other].readable = complete;
                    self.wake(other);
                }
                let back = &self.ends[other].path;
                let at = self.now + back.wait(self.now) + back.delay;
                let read = self.ends[other].read;
                self.at(at, Event::Acknowledgment { end, id, read });
            }
            Event::Acknowledgment { end, id, read } => {
                self.ends[end].tcp.acknowledge(id, read, self.now);
                self.send(end);
            }
            Event::TimeOut(end) => {
                let mut due = Vec::new();
                self.ends[end].tcp.time_out(self.now, &mut due);
                self.schedule(end, due);
                self.send(end);
            }
            Event::Key(end) => {
                self.ends[end].typed.push_back(self.now);
                self.wake(end);
                let pause = PAUSE / 2 + self.rng.below(PAUSE);
                self.at(self.now + pause, Event::Key(end));
            }
        }
    }

    fn send(&mut self, end: usize) {
        let mut due = Vec::new();
        let End { tcp, path, .. } = &mut self.ends[end];
        if self.endless[end] {
            tcp.fill();
        }
        tcp.send(path, self.now, &mut due);
        self.schedule(end, due);
    }

    fn schedule(&mut self, end: usize, due: Vec<Due>) {
        for due in due {
            match due {
                Due::Arrival { at, start, len, id } => self.at(at, Event::Arrival { end, start, len, id }),
                Due::TimeOut { at } => self.at(at, Event::TimeOut(end)),
            }
        }
    }

    /// One turn of the program: reads, then writes, as the drivers of both ends do.
    fn turn(&mut self, end: usize) {
        self.ends[end].woken = false;
        self.read(end);
        self.write(end);
        self.send(end);
        let timeout = self.ends[end].control.poll_timeout(false, self.instant());
        if let Some(at) = timeout {
            let at = at.saturating_duration_since(self.start).as_nanos() as Time;
            let at = at.max(self.now + 1).div_ceil(TICK) * TICK;
            if std::mem::replace(&mut self.ends[end].alarm, at) != at {
                self.at(at, Event::Alarm(end));
            }
        }
    }

    fn read(&mut self, end: usize) {
        let (now, time) = (self.instant(), self.now);
        let [one, two] = &mut self.ends;
        let (this, other) = if end == 0 { (one, two) } else { (two, one) };
        this.read = this.readable;
        while let Some((_, item)) = other.stream.front().copied().filter(|(end, _)| *end <= this.read) {
            other.stream.pop_front();
            this.control.frame_received(now);
            match item {
                Item::Packet { len, typed } => {
                    this.taken += len as u64;
                    this.control.packet_received(len, now);
                    this.waits.extend(typed.map(|typed| time - typed));
                }
                Item::Frame(Small::Delivered { total, micros }) => this.control.delivered(total, micros, now),
                Item::Frame(Small::Ping(value)) => this.control.ping_received(value),
                Item::Frame(Small::Pong(value)) => drop(this.control.pong_received(value, now)),
            }
        }
    }

    fn write(&mut self, end: usize) {
        let now = self.instant();
        let this = &mut self.ends[end];
        while let Some(frame) = this.control.poll_frame(false, now) {
            this.push_frame(&frame);
        }
        let mut written = false;
        let mut packets = VecDeque::new();
        loop {
            let typed = this.typed.front().copied();
            let len = if typed.is_some() && this.control.has_room(now) {
                this.typed.pop_front();
                KEYSTROKE
            } else if this.bulk && this.control.has_room(now) {
                this.control.largest_packet()
            } else {
                break;
            };
            let typed = typed.filter(|_| len == KEYSTROKE);
            this.control.packet_sent(len, now);
            packets.push_back(Item::Packet { len, typed });
            written = true;
        }
        if written && let Some(report) = this.control.poll_report() {
            this.push_frame(&report);
        }
        for item in packets {
            let Item::Packet { len, .. } = item else { continue };
            let end = this.tcp.write((len + HEADER_LEN) as u64);
            this.stream.push_back((end, item));
        }
    }
}

impl End {
    fn push_frame(&mut self, frame: &Frame) {
        let frame = if let Frame::Delivered { total, micros } = frame {
            Small::Delivered { total: *total, micros: *micros }
        } else if let Frame::Ping(value) = frame {
            Small::Ping(*value)
        } else if let Frame::Pong(value) = frame {
            Small::Pong(*value)
        } else {
            panic!("{frame:?} is not a frame of a busy link");
        };
        let end = self.tcp.write(SMALL_FRAME);
        self.stream.push_back((end, Item::Frame(frame)));
    }
}
