//! One round of one line, in a lab of its own.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_lab::{Direction, Lab, Options, question};

use super::bulk::{Bulk, Sender};
use super::figures::{Carrier, Figure, Load, Percentile, Sample, bulk, milliseconds};
use crate::bench::measures::{paced, trip};
use crate::bench::network::{Dial, SERVER};
use crate::bench::pipe;
use crate::distance::Distance;

/// Time between bytes of an echo: a little more than a person who holds a key down.
const KEYSTROKES: Duration = Duration::from_millis(20);
/// Least time between questions.
const QUESTIONS: Duration = Duration::from_millis(100);
/// A program gives up a question then (resolv.conf(5), `timeout`).
const UNANSWERED: Duration = Duration::from_secs(5);
/// What was under way at the end of a measurement has passed by then.
const SETTLED: Duration = Duration::from_secs(60);
const CODESPACE: Ipv4Addr = Ipv4Addr::new(172, 16, 5, 4);

/// The measurements of a round.
pub(super) struct Round {
    pub(super) sample: Sample,
    /// The measurements that failed, and why.
    pub(super) failures: Vec<String>,
    distance: Distance,
    limit: Duration,
}

impl Round {
    /// Measures `carriers`, each figure for `limit`.
    pub(super) fn of(distance: Distance, carriers: &[Carrier], limit: Duration) -> Result<Self> {
        let lab = Lab::start(Options::default())?;
        for host in [&lab.codespace, &lab.laptop] {
            // What a connection has learned of the path would speed up the next one's start.
            host.shell("echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save")?;
        }
        let _wan = lab.wan(distance.shape())?;
        let mut round = Self { sample: Sample::new(), failures: Vec::new(), distance, limit };
        for carrier in carriers {
            match carrier {
                Carrier::Ssh => round.ssh(&lab),
                Carrier::Tcp => round.tcp(&lab),
                Carrier::GhNet => round.attempt("gh-net", |round| round.bridge(&lab)),
            }
        }
        Ok(round)
    }

    fn ssh(&mut self, lab: &Lab) {
        let (laptop, limit, warm_up) = (&lab.laptop, self.limit, self.warm_up());
        // 20 confirmations a second.
        let chunk = self.distance.rate / 8 / 20;
        self.put(Figure::BulkUp(Carrier::Ssh), pipe::up(laptop, &[], warm_up, limit).map(|rate| rate * 1e3));
        let down = pipe::steady_down(laptop, chunk, warm_up, limit);
        self.put(Figure::BulkDown(Carrier::Ssh), down.map(|rate| rate * 1e3));
        self.put_trips(Figure::SshEcho, pipe::paced_echo(laptop, KEYSTROKES, limit));
    }

    fn tcp(&mut self, lab: &Lab) {
        // The laptop connects, because its home's router translates addresses.
        for (direction, sender) in [(Direction::Up, Sender::Server), (Direction::Down, Sender::Client)] {
            let rate = Bulk::start(&lab.laptop, &lab.codespace, CODESPACE, sender, 1).map(|bulk| {
                thread::sleep(self.warm_up());
                let before = bulk.received();
                thread::sleep(self.limit);
                bulk.received().rate_since(&before) / 1e6
            });
            self.put(bulk(direction, Carrier::Tcp), rate);
        }
    }

    fn bridge(&mut self, lab: &Lab) -> Result<()> {
        let _bridge = lab.bridge(&[])?;
        for load in Load::ALL {
            self.attempt(load.name(), |round| round.load(lab, load));
            self.settle(lab).context("waiting for the end of a load")?;
        }
        Ok(())
    }

    /// All figures of one load, at once: an echo and a question are little beside it.
    fn load(&mut self, lab: &Lab, load: Load) -> Result<()> {
        let echo = lab.codespace.thread(|| Dial::Direct.connect()).join();
        let echo = echo.map_err(|_| anyhow::anyhow!("a client panicked"))??;
        let mut streams = Vec::new();
        for (direction, count) in load.streams() {
            let sender = match direction {
                Direction::Up => Sender::Client,
                Direction::Down => Sender::Server,
            };
            streams.push((*direction, Bulk::start(&lab.codespace, &lab.corp, SERVER, sender, *count)?));
        }
        if load != Load::Idle {
            thread::sleep(self.warm_up());
        }

        let before: Vec<_> = streams.iter().map(|(_, bulk)| bulk.received()).collect();
        let resolver = lab.codespace_resolver()?;
        let (limit, nonce) = (self.limit, load.name().replace(' ', "-"));
        let asking = lab.codespace.thread(move || questions(resolver, &nonce, limit));
        let trips = paced(echo.try_clone()?, &echo, KEYSTROKES, limit).map_err(Into::into);
        for ((direction, bulk), before) in streams.iter().zip(&before) {
            let now = bulk.received();
            self.sample.insert(load.rate(*direction), now.rate_since(before) / 1e6);
            if load == Load::Down8 {
                self.sample.insert(Figure::Fairness, now.fairness_since(before));
            }
        }
        self.put_trips(|percentile| Figure::Echo(load, percentile), trips);
        let answers = asking.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
        self.put_trips(|percentile| Figure::Dns(load, percentile), answers);
        Ok(())
    }

    /// Waits until what a load has left in buffers and queues has passed.
    fn settle(&self, lab: &Lab) -> Result<()> {
        let round_trip = self.distance.round_trip;
        let settled = lab.codespace.thread(move || {
            let deadline = Instant::now() + SETTLED;
            let mut echo = Dial::Direct.connect()?;
            echo.set_read_timeout(Some(SETTLED))?;
            while trip(&mut echo)? > round_trip + Duration::from_millis(10) {
                ensure!(Instant::now() < deadline, "the echo stays slow");
            }
            Ok(())
        });
        settled.join().map_err(|_| anyhow::anyhow!("a client panicked"))?
    }

    /// TCP's slow start, and what finds the line's rate, are over by then.
    fn warm_up(&self) -> Duration {
        Duration::from_secs(1) + self.distance.round_trip * 15
    }

    fn attempt(&mut self, what: &str, measure: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = measure(self) {
            self.failures.push(format!("{what}: {error:#}"));
        }
    }

    fn put(&mut self, figure: Figure, value: Result<f64>) {
        self.attempt(&figure.key(), |round| {
            round.sample.insert(figure, value?);
            Ok(())
        });
    }

    fn put_trips(&mut self, figure: impl Fn(Percentile) -> Figure, trips: Result<Vec<Duration>>) {
        self.attempt(&figure(Percentile::P50).key(), |round| {
            let figures = milliseconds(trips?).context("nothing came back")?;
            round.sample.extend(figures.map(|(percentile, value)| (figure(percentile), value)));
            Ok(())
        });
    }
}

/// How long questions of different names took, one after the other. One without an answer took [`UNANSWERED`].
fn questions(resolver: std::net::SocketAddr, nonce: &str, limit: Duration) -> Result<Vec<Duration>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(resolver)?;
    let (begun, mut trips, mut answer) = (Instant::now(), Vec::new(), [0; 512]);
    while begun.elapsed() < limit {
        let id = trips.len() as u16;
        let asked = Instant::now();
        socket.send(&question(id, &format!("{nonce}-{id}.corp.internal"), 1))?;
        let answered = loop {
            let left = UNANSWERED.saturating_sub(asked.elapsed());
            if left.is_zero() {
                break UNANSWERED;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut answer) {
                Ok(2..) if answer[..2] == id.to_be_bytes() => break asked.elapsed(),
                // A late answer to an earlier question, or the time is up.
                Ok(_) | Err(_) => {}
            }
        };
        trips.push(answered);
        thread::sleep(QUESTIONS.saturating_sub(asked.elapsed()));
    }
    Ok(trips)
}
