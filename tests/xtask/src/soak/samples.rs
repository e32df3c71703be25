//! Samples of what may grow: memory and open descriptors of both programs, and the flow table.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_lab::{Bridge, Lab};
use nix::unistd::Pid;
use serde_json::Value;

/// Interval at which samples are taken.
const INTERVAL: Duration = Duration::from_secs(5);
/// Time after which an idle session is as quiet as it gets: its requests for the status are answered.
const SETTLED: Duration = Duration::from_secs(3);
/// The table has at most about so many rows.
const ROWS: usize = 24;
/// Memory is flat if the mean of the last quarter exceeds that of the second by no more than this: a tenth, and a MiB
/// for the allocator's noise.
const GROWTH: (f64, f64) = (1.1, 1024.0 * 1024.0);

/// A process at some moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// Resident memory in bytes.
    pub(super) memory: u64,
    /// Open descriptors.
    pub(super) descriptors: usize,
}

/// Both programs at some moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    at: Duration,
    pub(super) gh_net: Usage,
    pub(super) sidecar: Usage,
    pub(super) flows: u64,
    /// Sockets of flows, which are among gh-net's descriptors.
    sockets: usize,
}

impl Sample {
    /// The open descriptors of gh-net that do not belong to a flow, and those of the sidecar.
    pub(super) fn descriptors(&self) -> (usize, usize) {
        (self.gh_net.descriptors.saturating_sub(self.sockets), self.sidecar.descriptors)
    }
}

/// All samples, in order.
pub(super) struct Samples<'lab> {
    lab: &'lab Lab,
    gh_net: Pid,
    begun: Instant,
    taken: Vec<Sample>,
}

impl<'lab> Samples<'lab> {
    pub(super) fn new(lab: &'lab Lab, bridge: &Bridge<'_>) -> Self {
        Self { lab, gh_net: bridge.process().pid(), begun: Instant::now(), taken: Vec::new() }
    }

    /// A sample of a session without traffic.
    pub(super) fn quiet(&self) -> Result<Sample> {
        thread::sleep(SETTLED);
        self.sample()
    }

    /// A sample before everything. Some sockets are opened when they are first needed, and kept.
    pub(super) fn start(&self) -> Result<Sample> {
        self.lab.codespace.shell("curl -sS http://www.corp.internal/ && ping -c 1 10.20.0.10")?;
        self.quiet()
    }

    /// Takes samples as long as wanted.
    pub(super) fn collect(&mut self, goes_on: &impl Fn() -> bool) -> Result<()> {
        self.begun = Instant::now();
        while goes_on() {
            let sample = self.sample()?;
            self.taken.push(sample);
            thread::sleep(INTERVAL);
        }
        Ok(())
    }

    /// Waits until there are no flows any more, and returns a sample of then.
    pub(super) fn empty(&self, limit: Duration) -> Result<Sample> {
        let deadline = Instant::now() + limit;
        loop {
            let sample = self.quiet()?;
            if sample.flows == 0 {
                return Ok(sample);
            }
            ensure!(Instant::now() < deadline, "flows are left: {}", self.status()?["flows"]);
            thread::sleep(INTERVAL);
        }
    }

    fn sample(&self) -> Result<Sample> {
        // Before the request for the status, which takes a descriptor.
        let (gh_net, sidecar) = (usage(self.gh_net)?, usage(self.owner()?)?);
        let counters = self.status()?["counters"].take();
        let count = |name: &str| counters[name].as_u64().with_context(|| format!("a status without {name}"));
        let (flows, sockets) = (count("flows")?, usize::try_from(count("sockets")?)?);
        Ok(Sample { at: self.begun.elapsed(), gh_net, sidecar, flows, sockets })
    }

    fn status(&self) -> Result<Value> {
        let status = self.lab.gh_net(&["status", "--json"])?.start()?.finish(Duration::from_secs(20))?;
        Ok(serde_json::from_str(&status.ok()?)?)
    }

    /// The sidecar's process that lasts as long as the session.
    fn owner(&self) -> Result<Pid> {
        let is_owner = |pid: &Pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|&byte| byte == 0).any(|word| word == b"owner")
        };
        self.lab.sidecars()?.into_iter().find(is_owner).context("the sidecar has no owner any more")
    }

    /// Compares the memory of the second quarter with that of the last.
    pub(super) fn memory_is_flat(&self) -> Result<()> {
        let quarter = |number: usize| {
            let len = self.taken.len();
            &self.taken[len * number / 4..len * (number + 1) / 4]
        };
        for (name, memory) in [
            ("gh-net", (|sample| sample.gh_net.memory) as fn(&Sample) -> u64),
            ("the sidecar", |sample| sample.sidecar.memory),
        ] {
            let mean = |samples: &[Sample]| {
                samples.iter().map(memory).sum::<u64>() as f64 / samples.len().max(1) as f64
            };
            let (second, last) = (mean(quarter(1)), mean(quarter(3)));
            let line = format!(
                "{name}: {:.1} MiB in the second quarter, {:.1} MiB in the last",
                mebibytes(second),
                mebibytes(last)
            );
            println!("{line}");
            ensure!(last <= second * GROWTH.0 + GROWTH.1, "its memory grows: {line}");
        }
        Ok(())
    }

    /// The samples as a table.
    pub(super) fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:>6}  {:>10} {:>6}  {:>11} {:>6}  {:>6}",
            "min", "gh-net MiB", "fds", "sidecar MiB", "fds", "flows"
        )];
        let step = self.taken.len().div_ceil(ROWS).max(1);
        lines.extend(self.taken.iter().step_by(step).map(|sample| {
            format!(
                "{:>6.1}  {:>10.1} {:>6}  {:>11.1} {:>6}  {:>6}",
                sample.at.as_secs_f64() / 60.0,
                mebibytes(sample.gh_net.memory as f64),
                sample.gh_net.descriptors,
                mebibytes(sample.sidecar.memory as f64),
                sample.sidecar.descriptors,
                sample.flows
            )
        }));
        lines.join("\n")
    }
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / (1024.0 * 1024.0)
}

fn usage(pid: Pid) -> Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a process has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok(Usage { memory: kib * 1024, descriptors })
}
