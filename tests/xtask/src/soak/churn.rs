//! Connections that come and go: transfers both ways, half-closed ones, refused and aborted ones, datagrams, names.

use std::fmt;
use std::io::Write;
use std::net::TcpStream;
use std::ops::Add;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_lab::Lab;
use gh_net_lab::traffic::{Client, Datagrams, Pace};

use super::Random;

/// A transfer has at most so many bytes.
const TRANSFER: u64 = 4 << 20;
/// Each action ends within this time, in which the link may be cut several times.
const LIMIT: Duration = Duration::from_secs(180);
/// The first port for datagrams; each client has its own.
const PORT: u16 = 6000;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) kills: u64,
    pub(super) black_holes: u64,
    transfers: u64,
    half_closed: u64,
    ended_early: u64,
    datagrams: u64,
    names: u64,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            kills: self.kills + other.kills,
            black_holes: self.black_holes + other.black_holes,
            transfers: self.transfers + other.transfers,
            half_closed: self.half_closed + other.half_closed,
            ended_early: self.ended_early + other.ended_early,
            datagrams: self.datagrams + other.datagrams,
            names: self.names + other.names,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, black_holes, transfers, half_closed, ended_early, datagrams, names } = self;
        write!(
            f,
            "{kills} times ssh killed, {black_holes} black holes; {transfers} transfers and {half_closed} half-closed \
             connections checked byte by byte, {ended_early} refused or aborted; {datagrams} UDP mappings; {names} names"
        )
    }
}

/// One client.
pub(super) struct Churn<'lab> {
    lab: &'lab Lab,
    random: Random,
    datagrams: Option<Datagrams>,
    port: u16,
    counts: Counts,
}

impl<'lab> Churn<'lab> {
    pub(super) fn new(lab: &'lab Lab, random: Random, number: u64) -> Self {
        let port = PORT + number as u16;
        Self { lab, random, datagrams: None, port, counts: Counts::default() }
    }

    /// Works as long as wanted.
    pub(super) fn run(&mut self, goes_on: &impl Fn() -> bool) -> Result<Counts> {
        while goes_on() {
            self.act()?;
            std::thread::sleep(Duration::from_millis(self.random.below(300)));
        }
        Ok(self.counts)
    }

    fn act(&mut self) -> Result<()> {
        let length = 1 + self.random.below(TRANSFER);
        // Some take their time, so that they are under way when the link is cut.
        let pace = Pace::default();
        if self.random.below(3) > 0 {
            pace.hurry();
        }
        let counts = &mut self.counts;
        match self.random.below(9) {
            0 | 1 => {
                counts.transfers += 1;
                Client::upload(self.lab, length, &pace).finish(Instant::now() + LIMIT)
            }
            2 | 3 => {
                counts.transfers += 1;
                Client::download(self.lab, length, &pace).finish(Instant::now() + LIMIT)
            }
            4 => {
                counts.half_closed += 1;
                let time = Duration::from_millis(self.random.below(10_000));
                Client::half_closed(self.lab, length / 8, time).finish(Instant::now() + LIMIT)
            }
            5 => {
                counts.half_closed += 1;
                Client::half_closed_by_server(self.lab, length / 8, &pace).finish(Instant::now() + LIMIT)
            }
            6 => self.end_early(),
            7 => self.exchange(),
            _ => self.look_up(),
        }
    }

    /// A closed port, or a connection that is dropped with data under way in both directions.
    fn end_early(&mut self) -> Result<()> {
        self.counts.ended_early += 1;
        let port = if self.random.below(2) == 0 { 81 } else { 7 };
        let connected = self.lab.codespace.thread(move || TcpStream::connect(("10.20.0.10", port))).join();
        match connected.expect("connecting does not panic") {
            Ok(mut stream) => stream.write_all(&[0; 1000]).context("an aborted connection"),
            // Refused, or not answered while there was no link.
            Err(_) => Ok(()),
        }
    }

    fn exchange(&mut self) -> Result<()> {
        self.counts.datagrams += 1;
        // The old sockets first: the new ones have the same port.
        drop(self.datagrams.take());
        let deadline = Instant::now() + LIMIT;
        loop {
            match Datagrams::open(self.lab, self.port) {
                Ok(datagrams) => {
                    self.datagrams = Some(datagrams);
                    return Ok(());
                }
                // They may be lost while there is no link.
                Err(error) => ensure!(Instant::now() < deadline, "{error:#}"),
            }
        }
    }

    fn look_up(&mut self) -> Result<()> {
        self.counts.names += 1;
        let deadline = Instant::now() + LIMIT;
        // While there is no link, names of the laptop may fail.
        while self.lab.codespace.shell("dig +short +tries=1 v4only.corp.internal")? != "10.20.0.10" {
            ensure!(Instant::now() < deadline, "a name of the laptop is not found");
        }
        ensure!(
            self.lab.codespace.shell("dig +short +tries=1 example.com")? == "203.0.113.10",
            "a public name"
        );
        Ok(())
    }
}
