//! Processes whose output is collected while they run.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sys;

/// Maximum number of bytes kept of a stream, more than any test reads.
const KEPT: usize = 4 << 20;
/// How long to wait for the end of the output after a process's end: a child may hold it open.
const LINGER: Duration = Duration::from_secs(1);
/// Interval at which a process's memory is sampled.
const SAMPLE: Duration = Duration::from_millis(50);

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    pidfd: OwnedFd,
    stdout: Collector,
    stderr: Collector,
}

/// The result of a process.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub what: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout.
    pub stdout: Vec<u8>,
    /// Its stderr.
    pub stderr: Vec<u8>,
    /// Its peak memory in bytes, as last sampled before its end.
    pub peak_memory: u64,
}

impl Output {
    /// Stdout as text, trimmed.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// Stderr as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The exit code; 128 + the signal's number if one ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }

    /// [`Self::text`], if the process succeeded.
    ///
    /// # Errors
    /// It failed; the message shows its output.
    pub fn ok(&self) -> Result<String> {
        ensure!(
            self.status.success(),
            "`{}` ended with {}\n{}{}",
            self.what,
            self.status,
            self.text(),
            self.errors()
        );
        Ok(self.text())
    }
}

impl Process {
    /// Starts a command with piped stdout and stderr. `spawn` is called with the prepared command.
    pub(super) fn start(
        mut command: Command,
        spawn: impl FnOnce(Command) -> std::io::Result<Child>,
    ) -> Result<Self> {
        let what = format!("{command:?}");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command).with_context(|| format!("starting {what}"))?;
        let pidfd = sys::pidfd(&child).context("pidfd_open")?;
        let stdout = Collector::start(child.stdout.take());
        let stderr = Collector::start(child.stderr.take());
        Ok(Self { what, child, pidfd, stdout, stderr })
    }

    /// The process's id, as this process sees it.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Its stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Its stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until its stdout or stderr contains `words`.
    ///
    /// # Errors
    /// It ended first, or took too long; the message shows its output.
    pub fn wait_for(&self, words: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        // Messages are usually on stderr, so this waits for it, and checks stdout in between.
        loop {
            let slice = (Instant::now() + Duration::from_millis(50)).min(deadline);
            if self.stderr.wait_for(words, slice) || self.stdout.wait_for(words, Instant::now()) {
                return Ok(());
            }
            let ended = self.stderr.ended() && self.stdout.ended();
            if ended || Instant::now() >= deadline {
                let why = if ended { "ended" } else { "took too long" };
                bail!(
                    "`{}` {why} before it printed {words:?}:\n{}{}",
                    self.what,
                    self.stdout(),
                    self.stderr()
                );
            }
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has been waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("signalling `{}`", self.what))
    }

    /// Whether it is still running.
    ///
    /// # Errors
    /// The kernel's.
    pub fn running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    fn ended_within(&self, limit: Duration) -> Result<bool> {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => Ok(false),
            ready => Ok(ready? > 0),
        }
    }

    /// Its peak memory so far, in bytes; `None` if it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        peak_memory(self.pid())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It took longer than `limit`, and was killed.
    pub fn finish(mut self, limit: Duration) -> Result<Output> {
        let deadline = Instant::now() + limit;
        let mut peak_memory = 0;
        while !self.ended_within(SAMPLE.min(deadline.saturating_duration_since(Instant::now())))? {
            peak_memory = self.peak_memory().unwrap_or(peak_memory);
            if Instant::now() >= deadline {
                self.child.kill()?;
                self.child.wait()?;
                bail!("`{}` took longer than {limit:?}:\n{}{}", self.what, self.stdout(), self.stderr());
            }
        }
        let status = self.child.wait()?;
        let linger = Instant::now() + LINGER;
        let (stdout, stderr) = (self.stdout.finish(linger), self.stderr.finish(linger));
        Ok(Output { what: std::mem::take(&mut self.what), status, stdout, stderr, peak_memory })
    }
}

/// The peak of a process's resident memory so far, in bytes; `None` if it has ended. `wait4`'s figure is useless, because it
/// includes the parent's memory at the time of the fork.
pub fn peak_memory(pid: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail for a process that has been waited for; that is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a pipe to its end on a thread of its own.
#[derive(Debug, Clone)]
struct Collector(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Debug, Default)]
struct Collected {
    bytes: Vec<u8>,
    ended: bool,
}

impl Collector {
    fn start(pipe: Option<impl Read + Send + 'static>) -> Self {
        let collector = Self(Arc::default());
        let Some(mut pipe) = pipe else {
            collector.lock().ended = true;
            return collector;
        };
        let writer = collector.clone();
        thread::spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            loop {
                let read = pipe.read(&mut chunk).unwrap_or(0);
                let mut collected = writer.lock();
                let room = KEPT - collected.bytes.len();
                collected.bytes.extend_from_slice(&chunk[..read.min(room)]);
                collected.ended = read == 0;
                writer.0.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        collector
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(&self, deadline: Instant, done: impl Fn(&Collected) -> bool) -> bool {
        let limit = deadline.saturating_duration_since(Instant::now());
        let waited =
            self.0.1.wait_timeout_while(self.lock(), limit, |collected| !collected.ended && !done(collected));
        done(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn wait_for(&self, words: &str, deadline: Instant) -> bool {
        let words = words.as_bytes();
        self.wait_until(deadline, |collected| {
            collected.bytes.windows(words.len()).any(|window| window == words)
        })
    }

    fn ended(&self) -> bool {
        self.lock().ended
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    fn finish(&self, deadline: Instant) -> Vec<u8> {
        self.wait_until(deadline, |collected| collected.ended);
        std::mem::take(&mut self.lock().bytes)
    }
}
