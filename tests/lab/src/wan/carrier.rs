//! The thread that carries the packets of one direction from a TUN device to another one.

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;

use super::line::{Counts, Line, Shape};
use crate::sys;

/// The thread pauses for so long after it has worked. So it moves several packets each time when there are many: waking up
/// costs more than a packet. What this adds to the delay is less than a millisecond, and nothing on an idle line.
const PAUSE: Duration = Duration::from_micros(250);
/// More than any packet on a device without segmentation offload.
const LONGEST: usize = 1 << 16;

/// One direction. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Carrier {
    line: Arc<Mutex<Line<Vec<u8>>>>,
    /// A byte wakes the thread, and the end of the pipe ends it.
    waker: Option<PipeWriter>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Carrier {
    pub(super) fn start(name: &str, from: File, to: File, shape: Shape, seed: u64) -> Result<Self> {
        let line = Arc::new(Mutex::new(Line::new(Instant::now(), shape, seed)));
        let (woken, waker) = io::pipe()?;
        let mut route = Route { line: line.clone(), from, to, woken };
        let thread = thread::Builder::new().name(format!("wan-{name}")).spawn(move || {
            be_punctual();
            route.carry()
        })?;
        Ok(Self { line, waker: Some(waker), thread: Some(thread) })
    }

    pub(super) fn set(&mut self, shape: Shape) {
        lock(&self.line).set(Instant::now(), shape);
        if let Some(waker) = &mut self.waker {
            // If the thread has ended, its error is shown when this is dropped.
            let _ = waker.write_all(&[0]);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        lock(&self.line).counts()
    }
}

impl Drop for Carrier {
    #[allow(clippy::print_stderr, reason = "for whoever wonders why a test hung")]
    fn drop(&mut self) {
        self.waker = None;
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Ok(Err(error))) = ended {
            eprintln!("a line of the lab ended early: {error}");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread owns.
struct Route {
    line: Arc<Mutex<Line<Vec<u8>>>>,
    from: File,
    to: File,
    woken: PipeReader,
}

impl Route {
    fn carry(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; LONGEST];
        loop {
            let worked = self.receive(&mut buffer)? | self.deliver()?;
            if worked {
                thread::sleep(PAUSE);
            } else if !self.wait()? {
                return Ok(());
            }
        }
    }

    /// Reads what waits at the device. Returns whether there was anything.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut any = false;
        loop {
            match self.from.read(buffer) {
                Ok(len) => lock(&self.line).offer(Instant::now(), buffer[..len].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(any),
                Err(error) => return Err(error),
            }
            any = true;
        }
    }

    /// Writes what has arrived. Returns whether there was anything.
    fn deliver(&mut self) -> io::Result<bool> {
        let mut any = false;
        loop {
            let Some(packet) = lock(&self.line).take(Instant::now()) else { return Ok(any) };
            match self.to.write(&packet) {
                // A TUN device is always writable; without memory the kernel drops the packet, as a line may.
                Ok(_) => any = true,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::OutOfMemory) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for a packet, for the time of the next delivery, or for a change. Returns false at the end.
    fn wait(&mut self) -> io::Result<bool> {
        let next = lock(&self.line).next();
        let timeout = next.map(|next| TimeSpec::from(next.saturating_duration_since(Instant::now())));
        let mut ready =
            [&self.from.as_fd(), &self.woken.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
        match ppoll(&mut ready, timeout, None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if ready[1].any().unwrap_or(false) { Ok(self.woken.read(&mut [0])? > 0) } else { Ok(true) }
    }
}

/// Asks the kernel to run this thread when its time has come, whatever else runs. Where that is not allowed, it is late
/// when the machine is busy.
fn be_punctual() {
    let _ = sys::be_real_time();
    let _ = set_timerslack(1);
}
