//! What happens to a developer's link and connections: faults, and a connection that notices them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};

use crate::bridge::Bridge;
use crate::{Lab, Process};

/// A reconnect takes an ssh login and a handshake.
const RECONNECT: Duration = Duration::from_secs(30);
/// An answer to a typed line takes no longer, whatever happened to the link before.
const ANSWER: Duration = Duration::from_secs(20);

impl Lab {
    /// Kills the ssh processes of the laptop with SIGKILL.
    ///
    /// # Errors
    /// There are none.
    pub fn kill_ssh(&self) -> Result<()> {
        let ssh = self.laptop.processes("ssh")?;
        ensure!(!ssh.is_empty(), "no ssh runs on the laptop");
        for pid in ssh {
            // One may end by itself because another one did.
            let _ = kill(pid, Signal::SIGKILL);
        }
        Ok(())
    }

    /// Silently drops all packets between the laptop and the codespace, until [`Lab::end_black_hole`].
    ///
    /// # Errors
    /// nft failed.
    pub fn start_black_hole(&self) -> Result<()> {
        let rules = "nft 'table inet black_hole { chain forward { type filter hook forward priority -1; \
             ip daddr 172.16.5.4 drop; ip saddr 172.16.5.4 drop; }; }'";
        self.home.shell(rules).map(drop)
    }

    /// Ends what [`Lab::start_black_hole`] began.
    ///
    /// # Errors
    /// nft failed.
    pub fn end_black_hole(&self) -> Result<()> {
        self.home.shell("nft delete table inet black_hole").map(drop)
    }
}

impl Bridge<'_> {
    /// Waits for the `number`th line of the log that says that the session is connected again.
    ///
    /// # Errors
    /// It was not there in time.
    pub fn wait_for_reconnect(&self, number: usize) -> Result<()> {
        let deadline = Instant::now() + RECONNECT;
        while self.log().matches("reconnected after").count() < number {
            ensure!(Instant::now() < deadline, "not reconnected {number} times:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// An interactive connection from the codespace to the corporate echo server: each line that is typed comes back.
pub struct Terminal<'lab> {
    lab: &'lab Lab,
    process: Process,
    fifo: String,
    lines: usize,
}

impl<'lab> Terminal<'lab> {
    /// Opens the connection, and waits until a first line has come back. `name` is unique in the lab.
    ///
    /// # Errors
    /// It could not be opened.
    pub fn open(lab: &'lab Lab, name: &str) -> Result<Self> {
        let fifo = format!("/run/lab/{name}");
        lab.codespace.shell(&format!("mkfifo {fifo}"))?;
        let process = lab.codespace.spawn(&format!("sh -c 'exec 3<>{fifo}; exec nc 10.20.0.10 7 <&3'"))?;
        let mut terminal = Self { lab, process, fifo, lines: 0 };
        terminal.type_line()?;
        Ok(terminal)
    }

    /// Types a line, and returns how long it took to come back.
    ///
    /// # Errors
    /// It did not come back.
    pub fn type_line(&mut self) -> Result<Duration> {
        self.lines += 1;
        let line = format!("line-{}-", self.lines);
        let start = Instant::now();
        self.lab.codespace.shell(&format!("echo {line} > {}", self.fifo))?;
        self.process.wait_for(&line, ANSWER)?;
        Ok(start.elapsed())
    }

    /// Waits until the connection has ended.
    ///
    /// # Errors
    /// It did not end within `limit`.
    pub fn wait_for_end(self, limit: Duration) -> Result<()> {
        self.process.finish(limit).map(drop)
    }
}
