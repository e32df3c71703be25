//! `ssh host cat`: what ssh alone carries through its stdin and stdout, as the baseline for what runs over it.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use gh_net_lab::{Host, LAPTOP_USER};

use super::measures::{echoes, paced};

const BLOCK: usize = 128 * 1024;

/// A command over ssh with piped stdin and stdout. Killed when dropped.
struct Ssh {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

/// The rate from the codespace to the laptop through ssh's stdout, in Gbit/s, after `warm_up`.
pub(super) fn up(laptop: &Host, options: &[&str], warm_up: Duration, limit: Duration) -> Result<f64> {
    let mut ssh = Ssh::start(laptop, options, "exec cat /dev/zero")?;
    let mut block = vec![0; BLOCK];
    let warm = Instant::now() + warm_up;
    while Instant::now() < warm {
        ensure!(ssh.read(&mut block)? > 0, "ssh ended early");
    }
    let started = Instant::now();
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

/// The same after `warm_up`. The codespace confirms each `chunk` of bytes, because what ssh has accepted may not have
/// arrived for a long time on a slow line.
pub(super) fn steady_down(laptop: &Host, chunk: u64, warm_up: Duration, limit: Duration) -> Result<f64> {
    let line = format!("while head -c {chunk} > /dev/null && echo x; do :; done");
    let mut ssh = Ssh::start(laptop, &[], &line)?;
    let mut stdin = ssh.stdin.take().context("stdin is a pipe")?;
    let writer = thread::spawn(move || while stdin.write_all(&[0; BLOCK]).is_ok() {});
    let confirm = |ssh: &mut Ssh| ssh.read_exact(&mut [0; 2]).context("ssh ended early");
    let warm = Instant::now() + warm_up;
    while Instant::now() < warm {
        confirm(&mut ssh)?;
    }
    let mut total = 0;
    let started = Instant::now();
    while started.elapsed() < limit {
        confirm(&mut ssh)?;
        total += chunk as usize;
    }
    let rate = gigabits(total, started);
    // This ends ssh, and so the writer.
    drop(ssh);
    writer.join().map_err(|_| anyhow!("the writer panicked"))?;
    Ok(rate)
}

/// Round trips of single bytes, one every `interval` whether or not the one before is back.
pub(super) fn paced_echo(laptop: &Host, interval: Duration, limit: Duration) -> Result<Vec<Duration>> {
    let mut ssh = Ssh::start(laptop, &[], "exec cat")?;
    let stdin = ssh.stdin.take().context("stdin is a pipe")?;
    Ok(paced(stdin, &mut ssh, interval, limit)?)
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
