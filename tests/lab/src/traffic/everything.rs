//! Flows of every kind at once, which go on over whatever happens to the link.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Client, Datagrams, Pace, Ping};
use crate::{Lab, Process, Terminal};

/// After `reconnected` every flow has to move within this time: 2 s, and some room for a busy machine.
pub const MOVES: Duration = Duration::from_secs(2 + 3);
/// What was sent slowly is sent to the end within this time.
const FINISHED: Duration = Duration::from_secs(90);

/// The length of a transfer in bytes.
const LEN: u64 = 32 << 20;
/// The length of what a server sends slowly, in bytes.
const DRIP_LEN: u64 = 500_000;

/// See the [module's documentation](self).
pub struct Everything<'lab> {
    lab: &'lab Lab,
    pace: Pace,
    downloads: Vec<Client>,
    others: Vec<Client>,
    terminals: Vec<Terminal<'lab>>,
    datagrams: Datagrams,
    ping: Ping,
    _sshd: Process,
}

impl<'lab> Everything<'lab> {
    /// Connects: `transfers` in each direction, half-closed connections of both kinds, an interactive connection, an
    /// ssh session, a UDP mapping and an echo session. They last for more than `time`.
    ///
    /// # Errors
    /// Something does not connect.
    pub fn start(lab: &'lab Lab, transfers: usize, time: Duration) -> Result<Self> {
        let (sshd, login) = lab.start_corporate_sshd()?;
        let pace = Pace::default();
        let downloads = (0..transfers).map(|_| Client::download(lab, LEN, &pace)).collect();
        let mut others: Vec<_> = (0..transfers).map(|_| Client::upload(lab, LEN, &pace)).collect();
        others.push(Client::half_closed(lab, DRIP_LEN, time));
        others.push(Client::half_closed_by_server(lab, LEN, &pace));
        let terminals =
            vec![Terminal::open(lab, "keys")?, Terminal::over(lab, "ssh", &format!("{login} cat"))?];
        let datagrams = Datagrams::open(lab, 5001)?;
        let ping = Ping::start(lab)?;
        Ok(Self { lab, pace, downloads, others, terminals, datagrams, ping, _sshd: sshd })
    }

    /// Checks that everything moves, now that there is a link again.
    ///
    /// # Errors
    /// A flow does not move within [`MOVES`].
    pub fn moves(&mut self) -> Result<()> {
        let start = Instant::now();
        let before: Vec<_> = self.downloads.iter().map(Client::moved).collect();
        for terminal in &mut self.terminals {
            let took = terminal.type_line()?;
            ensure!(took < MOVES, "a keystroke took {took:?} after the link was there again");
        }
        self.datagrams.tell(MOVES)?;
        self.ping.next(MOVES)?;
        for (download, before) in self.downloads.iter().zip(before) {
            while download.moved() == before {
                ensure!(start.elapsed() < MOVES, "a download does not move after {before} bytes");
                sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Checks that every connection has been reset, and that UDP and pings go on by a new mapping.
    ///
    /// # Errors
    /// A connection goes on, or something does not.
    pub fn is_reset(mut self, deadline: Instant) -> Result<()> {
        self.datagrams.begin_anew(MOVES)?;
        self.ping.next(MOVES)?;
        for terminal in self.terminals {
            terminal.wait_for_end(deadline.saturating_duration_since(Instant::now()))?;
        }
        // What still sends or receives learns of it without a hurry.
        self.downloads.into_iter().chain(self.others).try_for_each(|client| client.is_reset(deadline))
    }

    /// Lets everything come to its end, and checks what arrived.
    ///
    /// # Errors
    /// Something is missing, wrong, late, or comes by another UDP mapping.
    pub fn finish(mut self) -> Result<()> {
        self.datagrams.exchange(MOVES)?;
        self.pace.hurry();
        self.lab.corp_servers().hurry();
        let deadline = Instant::now() + FINISHED;
        self.downloads.into_iter().chain(self.others).try_for_each(|client| client.finish(deadline))
    }
}
