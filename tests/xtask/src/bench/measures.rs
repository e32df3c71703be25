//! One round of one tunnel: all measurements, the same for each tunnel.

use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gh_net_lab::{Host, Lab};

use super::figures::{Figure, Sample, percentiles};
use super::network::{Client, Dial};
use super::pipe;

/// Enough round trips for a 99th percentile.
const ECHOES: usize = 3000;

/// How bytes are sent through a tunnel.
#[derive(Clone, Copy)]
pub(super) enum Carrier<'lab> {
    /// From programs on this host to the corporate server.
    Network(&'lab Host, Dial),
    /// Through the stdin and stdout of an ssh that the laptop starts with these options.
    Pipe(&'lab Host, &'static [&'static str]),
}

/// The results of a round.
#[derive(Default)]
pub(super) struct Round {
    pub(super) sample: Sample,
    /// The measurements that failed, and why.
    pub(super) failures: Vec<String>,
}

impl Round {
    /// Takes all measurements. Each takes about `limit`.
    pub(super) fn of(lab: &Lab, carrier: Carrier<'_>, limit: Duration) -> Self {
        let mut round = Self::default();
        match carrier {
            Carrier::Network(host, dial) => round.network(Client { host, dial, corp: &lab.corp, limit }),
            Carrier::Pipe(laptop, options) => round.pipe(laptop, options, limit),
        }
        round
    }

    fn network(&mut self, client: Client<'_>) {
        self.put(Figure::Up, client.iperf(""));
        self.put(Figure::Down, client.iperf("--reverse"));
        self.put(Figure::Down8, client.iperf("--reverse --parallel 8"));
        self.put(Figure::Connections, client.connections());
        self.put_echo([Figure::EchoP50, Figure::EchoP99], client.echo());
        self.put_echo([Figure::LoadedP50, Figure::LoadedP99], client.loaded_echo());
    }

    /// ssh's own stdio is one stream: nothing else can run beside a download.
    fn pipe(&mut self, laptop: &Host, options: &[&str], limit: Duration) {
        self.put(Figure::Up, pipe::up(laptop, options, Duration::ZERO, limit));
        self.put(Figure::Down, pipe::down(laptop, options, limit));
        let trips = pipe::echo(laptop, options, limit);
        self.put_echo([Figure::EchoP50, Figure::EchoP99], trips);
    }

    fn put(&mut self, figure: Figure, value: Result<f64>) {
        match value {
            Ok(value) => drop(self.sample.insert(figure, value)),
            Err(error) => self.failures.push(format!("{}: {error:#}", figure.title())),
        }
    }

    fn put_echo(&mut self, figures: [Figure; 2], trips: Result<Vec<Duration>>) {
        match trips.and_then(|trips| percentiles(trips).context("no echo came back")) {
            Ok((p50, p99)) => self.sample.extend(figures.into_iter().zip([p50, p99])),
            Err(error) => self.failures.push(format!("{}: {error:#}", figures[0].title())),
        }
    }
}

/// Round trips of one byte: [`ECHOES`] of them, or as many as fit `limit`.
pub(super) fn echoes(stream: &mut (impl Read + Write), limit: Duration) -> io::Result<Vec<Duration>> {
    let started = Instant::now();
    let mut trips = Vec::with_capacity(ECHOES);
    while trips.len() < ECHOES && started.elapsed() < limit {
        trips.push(trip(stream)?);
    }
    Ok(trips)
}

/// Round trips of single bytes, one every `interval` whether or not the one before is back: a stall delays all that are sent
/// while it lasts, as it does for a person who types.
pub(super) fn paced(
    mut writer: impl Write + Send,
    mut reader: impl Read,
    interval: Duration,
    limit: Duration,
) -> io::Result<Vec<Duration>> {
    let count = (limit.as_nanos() / interval.as_nanos()).max(1) as u32;
    let (sent, times) = mpsc::channel();
    thread::scope(|scope| {
        let typing = scope.spawn(move || {
            let started = Instant::now();
            for number in 0..count {
                thread::sleep((started + interval * number).saturating_duration_since(Instant::now()));
                // If the reader has failed, it says why.
                let _ = sent.send(Instant::now());
                writer.write_all(b"x")?;
                writer.flush()?;
            }
            Ok::<_, io::Error>(writer)
        });
        let mut trips = Vec::with_capacity(count as usize);
        for _ in 0..count {
            reader.read_exact(&mut [0])?;
            let sent = times.recv().map_err(|_| io::Error::other("more came back than was sent"))?;
            trips.push(sent.elapsed());
        }
        typing.join().map_err(|_| io::Error::other("the writer panicked"))??;
        Ok(trips)
    })
}

/// Sends one byte and waits for its echo.
pub(super) fn trip(stream: &mut (impl Read + Write)) -> io::Result<Duration> {
    let sent = Instant::now();
    stream.write_all(b"x")?;
    stream.flush()?;
    stream.read_exact(&mut [0])?;
    Ok(sent.elapsed())
}
