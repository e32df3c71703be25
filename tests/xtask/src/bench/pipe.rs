//! `ssh host cat`: what ssh alone carries through its stdin and stdout, as the baseline for what runs over it.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gh_net_lab::{Host, LAPTOP_USER};

use super::measures::echoes;

const BLOCK: usize = 128 * 1024;

/// A command over ssh with piped stdin and stdout. Killed when dropped.
struct Ssh {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

/// The rate from the codespace to the laptop through ssh's stdout, in Gbit/s.
pub(super) fn up(laptop: &Host, options: &[&str], limit: Duration) -> Result<f64> {
    let mut ssh = Ssh::start(laptop, options, "exec cat /dev/zero")?;
    let started = Instant::now();
    let mut block = vec![0; BLOCK];
    let mut total = 0;
    while started.elapsed() < limit {
        match ssh.read(&mut block)? {
            0 => bail!("ssh ended early"),
            read => total += read,
        }
    }
    Ok(gigabits(total, started))
}

/// The rate from the laptop to the codespace through ssh's stdin, in Gbit/s, until everything has arrived.
pub(super) fn down(laptop: &Host, options: &[&str], limit: Duration) -> Result<f64> {
    let mut ssh = Ssh::start(laptop, options, "cat > /dev/null; echo x")?;
    let started = Instant::now();
    let block = vec![0; BLOCK];
    let mut total = 0;
    while started.elapsed() < limit {
        ssh.write_all(&block)?;
        total += block.len();
    }
    ssh.stdin = None;
    ssh.read_exact(&mut [0; 2]).context("the codespace did not confirm that everything has arrived")?;
    Ok(gigabits(total, started))
}

/// Round trips of one byte.
pub(super) fn echo(laptop: &Host, options: &[&str], limit: Duration) -> Result<Vec<Duration>> {
    Ok(echoes(&mut Ssh::start(laptop, options, "exec cat")?, limit)?)
}

fn gigabits(bytes: usize, started: Instant) -> f64 {
    bytes as f64 * 8e-9 / started.elapsed().as_secs_f64()
}

impl Ssh {
    /// Starts a command over ssh and waits for the line `x`, which shows that it runs.
    fn start(laptop: &Host, options: &[&str], line: &str) -> Result<Self> {
        let mut command = laptop.command_as(LAPTOP_USER, 1000, "ssh");
        command.args(options).arg("codespace").arg(format!("echo x; {line}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = laptop.enter(move || command.spawn())?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let mut ssh = Self { child, stdin, stdout };
        ssh.read_exact(&mut [0; 2]).context("ssh ended before its command ran")?;
        Ok(ssh)
    }
}

impl Read for Ssh {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stdout.read(buffer)
    }
}

impl Write for Ssh {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdin.as_mut().map_or(Ok(()), ChildStdin::flush)
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // Both fail for a process that has ended; that is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
