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
/// The rules that match packets to and from the codespace. Other hosts of the laptop's LAN still reach it.
const TO_CODESPACE: &str = "ip saddr 192.168.1.20 ip daddr 172.16.5.4 drop;";
const FROM_CODESPACE: &str = "ip saddr 172.16.5.4 ip daddr 192.168.1.20 drop;";

/// A direction between the codespace and the laptop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the codespace to the laptop.
    Up,
    /// From the laptop to the codespace.
    Down,
}

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
        self.drop_packets(&[TO_CODESPACE, FROM_CODESPACE].concat())
    }

    /// Silently drops all packets of one direction between the laptop and the codespace, until [`Lab::end_black_hole`].
    ///
    /// # Errors
    /// nft failed.
    pub fn start_one_way_black_hole(&self, direction: Direction) -> Result<()> {
        self.drop_packets(match direction {
            Direction::Up => FROM_CODESPACE,
            Direction::Down => TO_CODESPACE,
        })
    }

    fn drop_packets(&self, rules: &str) -> Result<()> {
        let chain = "type filter hook forward priority -1";
        let line = format!("nft 'table inet black_hole {{ chain forward {{ {chain}; {rules} }}; }}'");
        self.home.shell(&line).map(drop)
    }

    /// Kills the sshd of the codespace with all its connections, and waits until they are gone.
    /// [`Lab::start_sshd`] starts it again.
    ///
    /// # Errors
    /// They can't be listed, or don't end.
    pub fn kill_sshd(&self) -> Result<()> {
        let deadline = Instant::now() + ANSWER;
        loop {
            let sshd = self.codespace.processes("sshd")?;
            if sshd.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "these sshd do not end: {sshd:?}");
            for pid in sshd {
                // One may end by itself because another one did.
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
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

/// An interactive connection from the codespace to a corporate server: each line that is typed comes back.
pub struct Terminal<'lab> {
    lab: &'lab Lab,
    process: Process,
    fifo: String,
    lines: usize,
}

impl<'lab> Terminal<'lab> {
    /// Opens a connection to the echo server, and waits until a first line has come back. `name` is unique in the lab.
    ///
    /// # Errors
    /// It could not be opened.
    pub fn open(lab: &'lab Lab, name: &str) -> Result<Self> {
        Self::over(lab, name, "nc 10.20.0.10 7")
    }

    /// The same over a command in the codespace that sends what it reads, and prints what comes back.
    ///
    /// # Errors
    /// No line came back.
    pub fn over(lab: &'lab Lab, name: &str, command: &str) -> Result<Self> {
        let fifo = format!("/run/lab/{name}");
        lab.codespace.shell(&format!("mkfifo {fifo}"))?;
        let process = lab.codespace.spawn(&format!("sh -c 'exec 3<>{fifo}; exec {command} <&3'"))?;
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
