//! Processes whose output is collected while they run, and awaited without polling.

use std::io::Read;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How much of a stream is kept: the most that a test looks at.
const KEPT: usize = 4 << 20;
/// How long after a process's end its output may still be open: a child of its own may hold it.
const LINGER: Duration = Duration::from_secs(1);
/// How often a process's memory is looked at.
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

/// What a process left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub what: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote on stdout.
    pub stdout: Vec<u8>,
    /// What it wrote on stderr.
    pub stderr: Vec<u8>,
    /// The most memory it ever had, in bytes, as last seen before its end.
    pub peak_memory: u64,
}

impl Output {
    /// Stdout as text, without white space at its ends.
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

    /// [`Self::text`], if the process was successful.
    ///
    /// # Errors
    /// It was not; the message shows what it wrote.
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
    /// Wraps a child whose stdout and stderr are pipes. `spawn` is given the prepared command.
    pub(super) fn start(
        mut command: Command,
        spawn: impl FnOnce(Command) -> std::io::Result<Child>,
    ) -> Result<Self> {
        let what = format!("{command:?}");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command).with_context(|| format!("starting {what}"))?;
        // SAFETY: a system call on a number; the descriptor it returns is ours alone.
        let pidfd = match unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) } {
            -1 => return Err(std::io::Error::last_os_error()).context("pidfd_open"),
            // SAFETY: as above.
            fd => unsafe { OwnedFd::from_raw_fd(fd as i32) },
        };
        let stdout = Collector::start(child.stdout.take());
        let stderr = Collector::start(child.stderr.take());
        Ok(Self { what, child, pidfd, stdout, stderr })
    }

    /// The process's id, as this process sees it.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// What it has written on stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until its stdout or stderr contains `words`.
    ///
    /// # Errors
    /// It ended first, or it took too long; the message shows what it has written.
    pub fn wait_for(&self, words: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        // One of the two streams is where a program says such things; the other one is looked at on the way.
        loop {
            let slice = (Instant::now() + Duration::from_millis(50)).min(deadline);
            if self.stderr.wait_for(words, slice) || self.stdout.wait_for(words, Instant::now()) {
                return Ok(());
            }
            let ended = self.stderr.ended() && self.stdout.ended();
            if ended || Instant::now() >= deadline {
                let why = if ended { "ended" } else { "took too long" };
                bail!("`{}` {why} before it said {words:?}:\n{}{}", self.what, self.stdout(), self.stderr());
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

    /// Whether it still runs.
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

    /// The most memory it has had so far, in bytes; `None` if it has ended. `wait4`'s figure
    /// is useless: it includes the parent's memory at the time of the fork.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It took longer than `limit`; it is killed then.
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

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail for a process that has been waited for, which is as well.
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
