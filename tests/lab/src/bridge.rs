//! gh-net, running on a laptop of the lab.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{Binaries, Host, LAPTOP_USER, Lab, Options, Output, Process};

/// Time limit from a start to `ready`: an ssh login, a copy of the sidecar, a handshake.
const READY: Duration = Duration::from_secs(40);
/// Time limit for an orderly end.
const END: Duration = Duration::from_secs(20);

const GH_NET: &str = "/run/lab/bin/gh-net";
const SIDECAR_DIR: &str = "/run/lab/sidecar";
/// A directory without a sidecar.
const ALONE: &str = "/run/lab/alone/gh-net";

/// A command that starts gh-net.
#[derive(Debug)]
pub struct BridgeCommand<'lab> {
    lab: &'lab Lab,
    laptop: &'lab Host,
    command: Command,
}

impl<'lab> BridgeCommand<'lab> {
    fn new(lab: &'lab Lab, laptop: &'lab Host) -> Result<Self> {
        laptop.install(&Binaries::get()?.gh_net, GH_NET)?;
        Self::of(lab, laptop, laptop.command_as(LAPTOP_USER, 1000, GH_NET))
    }

    /// A `command` that starts gh-net on `laptop`, with a sidecar to copy to the codespace.
    pub(super) fn of(lab: &'lab Lab, laptop: &'lab Host, mut command: Command) -> Result<Self> {
        let sidecar = format!("{SIDECAR_DIR}/gh-net-sidecar-{}", std::env::consts::ARCH);
        laptop.install(&Binaries::get()?.sidecar, &sidecar)?;
        command.env("GH_NET_SIDECAR_DIR", SIDECAR_DIR).args(["--gui", "false"]);
        Ok(Self { lab, laptop, command })
    }

    /// gh-net without a sidecar beside it. `starter` is the emulator, if one is needed.
    fn alone(lab: &'lab Lab, program: &Path, starter: Option<&str>) -> Result<Self> {
        lab.laptop.install(program, ALONE)?;
        let mut command = lab.laptop.command_as(LAPTOP_USER, 1000, starter.unwrap_or(ALONE));
        command.args(starter.map(|_| ALONE)).args(["--gui", "false"]);
        Ok(Self { lab, laptop: &lab.laptop, command })
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts gh-net without waiting for it to be ready.
    ///
    /// # Errors
    /// It can't be started at all.
    pub fn start(self) -> Result<Process> {
        self.laptop.start(self.command)
    }

    /// Starts gh-net and waits until packets flow.
    ///
    /// # Errors
    /// It ended, or did not get ready in time; the message shows its output.
    pub fn ready(self) -> Result<Bridge<'lab>> {
        let lab = self.lab;
        let process = self.start()?;
        process.wait_for("ready", READY)?;
        Ok(Bridge { lab, process })
    }
}

impl Lab {
    /// gh-net as the laptop's ordinary user; the arguments say where to connect.
    ///
    /// # Errors
    /// The programs can't be built.
    pub fn gh_net(&self, args: &[&str]) -> Result<BridgeCommand<'_>> {
        self.gh_net_on(&self.laptop, args)
    }

    /// gh-net on another host, which must be a laptop by [`Self::make_laptop`].
    ///
    /// # Errors
    /// The programs can't be built.
    pub fn gh_net_on<'lab>(&'lab self, laptop: &'lab Host, args: &[&str]) -> Result<BridgeCommand<'lab>> {
        Ok(BridgeCommand::new(self, laptop)?.args(args))
    }

    /// The single file of a released gh-net. `starter` is the emulator, if one is needed.
    ///
    /// # Errors
    /// The program can't be copied.
    pub fn gh_net_alone(&self, program: &Path, starter: Option<&str>) -> Result<BridgeCommand<'_>> {
        BridgeCommand::alone(self, program, starter)
    }

    /// A bridge to the codespace over ssh, ready.
    ///
    /// # Errors
    /// See [`BridgeCommand::ready`].
    pub fn bridge(&self, args: &[&str]) -> Result<Bridge<'_>> {
        self.gh_net(&["--ssh", "codespace"])?.args(args).ready()
    }

    /// The sidecar processes in the codespace.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn sidecars(&self) -> Result<Vec<Pid>> {
        self.codespace.processes("gh-net-sidecar")
    }

    /// Kills every sidecar in the codespace and waits until they are gone.
    ///
    /// # Errors
    /// One of them can't be killed.
    pub fn kill_sidecars(&self) -> Result<()> {
        let pids = self.sidecars()?;
        ensure!(!pids.is_empty(), "no sidecar runs in the codespace");
        for pid in pids {
            // A sidecar may end by itself because another one has ended.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
        self.wait_for_sidecars_end()
    }

    /// Waits until no sidecar runs in the codespace any more.
    ///
    /// # Errors
    /// One still runs after 10 seconds.
    pub fn wait_for_sidecars_end(&self) -> Result<()> {
        self.wait_for_sidecars_end_by(Instant::now() + Duration::from_secs(10))
    }

    /// Waits until no sidecar runs in the codespace any more.
    ///
    /// # Errors
    /// One still runs at the deadline.
    pub fn wait_for_sidecars_end_by(&self, deadline: Instant) -> Result<()> {
        loop {
            let left = self.sidecars()?;
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the sidecars {left:?} still run");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A lab with a bridge that all tests of one file share. It ends with the process.
#[derive(Debug)]
pub struct Bridged {
    /// The lab.
    pub lab: &'static Lab,
    /// The bridge.
    pub bridge: Bridge<'static>,
}

impl Bridged {
    /// Builds the lab and starts the bridge; `None` where the privilege for it is missing.
    ///
    /// # Errors
    /// See [`Lab::for_test`] and [`BridgeCommand::ready`].
    pub fn start(options: Options, args: &[&str]) -> Result<Option<Self>> {
        let Some(lab) = Lab::for_test(options)? else { return Ok(None) };
        let lab: &'static Lab = Box::leak(Box::new(lab));
        let bridge = lab.bridge(args)?;
        lab.start_container()?;
        Ok(Some(Self { lab, bridge }))
    }
}

/// A bridge over which packets flow. Killed when dropped.
#[derive(Debug)]
pub struct Bridge<'lab> {
    lab: &'lab Lab,
    process: Process,
}

impl Bridge<'_> {
    /// The gh-net process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The gh-net process, for a caller that waits for its end.
    pub fn into_process(self) -> Process {
        self.process
    }

    /// gh-net's output so far.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Ends gh-net as Ctrl-C does, and waits until everything is undone.
    ///
    /// # Errors
    /// It did not end in time, or not with exit code 0, or a sidecar stayed behind.
    pub fn stop(self) -> Result<Output> {
        self.stop_by(Signal::SIGINT)
    }

    /// Ends gh-net by a signal on which it must end cleanly.
    ///
    /// # Errors
    /// See [`Self::stop`].
    pub fn stop_by(self, signal: Signal) -> Result<Output> {
        self.process.signal(signal)?;
        let output = self.process.finish(END)?;
        ensure!(
            output.code() == 0,
            "gh-net ended with {} after {signal}:\n{}",
            output.status,
            output.errors()
        );
        self.lab.wait_for_sidecars_end()?;
        Ok(output)
    }

    /// Kills gh-net, so that it sends no goodbye.
    ///
    /// # Errors
    /// It can't be waited for.
    pub fn kill9(self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.finish(END).map(drop)
    }
}
