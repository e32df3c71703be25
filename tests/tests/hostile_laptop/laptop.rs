//! A scripted laptop, and the lab in which it attacks a sidecar.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use gh_net_common::frame::{Families, Frame, Goodbye, Open, Opened, PREAMBLE, Reason, Sources};
use gh_net_common::hello;
use gh_net_tests::lab::{Binaries, Bridge, LAPTOP_USER, Lab, Options, State};

/// An ssh login and a handshake take a while on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// What a sidecar may have resident. The endless attacks would need more if anything of them were kept.
pub(crate) const MEMORY: u64 = 64 << 20;
pub(crate) const SIDECAR: &str = "/run/lab/hostile/gh-net-sidecar";

/// What the sidecar does about an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The session goes on.
    Lives,
    /// The session ends, for this reason.
    Ends(Reason),
    /// Either, or it cuts the link.
    Either,
}

/// The lab, and the codespace's state before the first attack.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    before: State,
}

impl Scene {
    pub(crate) fn new() -> Result<Option<Self>> {
        let Some(lab) = Lab::for_test(Options::default())? else { return Ok(None) };
        lab.codespace.install(&Binaries::get()?.sidecar, SIDECAR)?;
        let before = lab.codespace.state()?;
        Ok(Some(Self { lab, before }))
    }

    /// A proper laptop has a session, and leaves nothing behind.
    pub(crate) fn serves_others(&self) -> Result<()> {
        self.end(self.serve()?)
    }

    /// The session of a proper laptop.
    pub(crate) fn serve(&self) -> Result<Bridge<'_>> {
        let bridge = self.lab.bridge(&["--grace", "0s"])?;
        let page = self.lab.codespace.shell("curl -sS --max-time 20 http://www.corp.internal/")?;
        ensure!(page == "hello from corp", "{page:?}");
        self.has_bounded_memory()?;
        Ok(bridge)
    }

    /// Ends it, and with it the sidecar.
    pub(crate) fn end(&self, bridge: Bridge<'_>) -> Result<()> {
        bridge.stop()?;
        let left = self.before.diff(&self.lab.codespace.state()?);
        ensure!(left.is_empty(), "the codespace is not as it was:\n{left}");
        Ok(())
    }

    /// No sidecar that runs has ever had more.
    pub(crate) fn has_bounded_memory(&self) -> Result<()> {
        let memory = self.memory()?;
        ensure!(memory < MEMORY, "the sidecar had {} MiB", memory >> 20);
        Ok(())
    }

    fn memory(&self) -> Result<u64> {
        let peak = |pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
        };
        Ok(self.lab.sidecars()?.into_iter().filter_map(peak).max().unwrap_or(0))
    }

    /// A session of a hostile laptop, in which `attack` happens, and what must be true then.
    pub(crate) fn attack(
        &self,
        name: &str,
        then: Then,
        attack: impl FnOnce(&mut Laptop) -> Result<()>,
    ) -> Result<()> {
        let fails = || format!("after {name}");
        let mut laptop = Laptop::session(self).with_context(fails)?;
        attack(&mut laptop).with_context(fails)?;
        let ends = laptop.settle().with_context(fails)?;
        self.has_bounded_memory().with_context(fails)?;
        match (then, &ends) {
            (Then::Lives, None) | (Then::Either, _) => {}
            (Then::Ends(reason), Some(Some(goodbye))) if goodbye.reason == reason => {
                ensure!(!goodbye.text.is_empty(), "{name}: no text says why");
            }
            _ => bail!("{name}: expected {then:?}: {ends:?}"),
        }
        drop(laptop);
        self.serves_others().with_context(fails)
    }
}

/// The scripted laptop.
pub(crate) struct Laptop {
    ssh: Child,
    stdin: Option<ChildStdin>,
    pub(crate) frames: Receiver<Frame>,
    pub(crate) opened: Option<Opened>,
}

impl Drop for Laptop {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

impl Laptop {
    /// `attach` over ssh, to which nothing has been said.
    pub(crate) fn dial(scene: &Scene) -> Result<Self> {
        let (mut laptop, stdout) = Self::deaf(scene)?;
        let (sender, frames) = channel();
        laptop.frames = frames;
        thread::spawn(move || {
            // The other side's frames end with the channel.
            let _ = receive(stdout, |frame| sender.send(frame).is_ok());
        });
        Ok(laptop)
    }

    /// The same, and nobody reads what it answers.
    pub(crate) fn deaf(scene: &Scene) -> Result<(Self, ChildStdout)> {
        let laptop = &scene.lab.laptop;
        let mut command = laptop.command_as(LAPTOP_USER, 1000, "ssh");
        command.args(["-T", "codespace", SIDECAR, "attach"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut ssh = laptop.enter(move || command.spawn())?;
        let (stdin, stdout) = (ssh.stdin.take(), ssh.stdout.take().context("piped")?);
        let (_, frames) = channel();
        Ok((Self { ssh, stdin, frames, opened: None }, stdout))
    }

    /// After both hellos.
    pub(crate) fn connect(scene: &Scene) -> Result<Self> {
        let mut laptop = Self::dial(scene)?;
        laptop.write(&PREAMBLE);
        laptop.send(&[Frame::Hello(hello::ours())]);
        match laptop.next()? {
            Some(Frame::Hello(_)) => Ok(laptop),
            other => bail!("{other:?} in place of a hello"),
        }
    }

    /// With a session.
    pub(crate) fn session(scene: &Scene) -> Result<Self> {
        let mut laptop = Self::connect(scene)?;
        match laptop.ask(open())? {
            Ok(opened) => laptop.opened = Some(opened),
            Err(goodbye) => bail!("no session: {goodbye:?}"),
        }
        Ok(laptop)
    }

    /// Sends the same bytes again and again, until the sidecar or ssh ends.
    pub(crate) fn repeat(&mut self, bytes: Vec<u8>, pause: Duration) -> Result<JoinHandle<()>> {
        let mut stdin = self.stdin.take().context("repeated already")?;
        Ok(thread::spawn(move || {
            while stdin.write_all(&bytes).and_then(|()| stdin.flush()).is_ok() {
                thread::sleep(pause);
            }
        }))
    }

    /// Sends bytes. A sidecar that has ended does not read them.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let Some(stdin) = &mut self.stdin else { return };
        if stdin.write_all(bytes).and_then(|()| stdin.flush()).is_err() {
            self.stdin = None;
        }
    }

    pub(crate) fn send(&mut self, frames: &[Frame]) {
        self.write(&encoded(frames));
    }

    /// A frame of this kind that `encode` would not make.
    pub(crate) fn send_raw(&mut self, kind: u8, length: usize, payload: &[u8]) {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        self.write(&[&[kind, a, b, c], payload].concat());
    }

    /// The next frame; `None` at the end.
    fn next(&mut self) -> Result<Option<Frame>> {
        match self.frames.recv_timeout(LIMIT) {
            Ok(frame) => Ok(Some(frame)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("the sidecar says nothing, and does not end"),
        }
    }

    pub(crate) fn ask(&mut self, open: Open) -> Result<Result<Opened, Goodbye>> {
        self.send(&[Frame::Open(open)]);
        self.answer()
    }

    /// The answer to an [`Open`].
    pub(crate) fn answer(&mut self) -> Result<Result<Opened, Goodbye>> {
        loop {
            match self.next()? {
                Some(Frame::Opened(opened)) => return Ok(Ok(opened)),
                Some(Frame::Goodbye(goodbye)) => return Ok(Err(goodbye)),
                Some(_) => {}
                None => bail!("no answer to an Open"),
            }
        }
    }

    /// Waits until all that was sent has been handled: `None` if the session goes on; or how it has ended.
    pub(crate) fn settle(&mut self) -> Result<Option<Option<Goodbye>>> {
        const NUMBER: u64 = 0x5e77_1e00;
        self.send(&[Frame::Ping(NUMBER)]);
        loop {
            match self.next()? {
                Some(Frame::Pong(NUMBER)) => return Ok(None),
                Some(Frame::Goodbye(goodbye)) => return Ok(Some(Some(goodbye))),
                None => return Ok(Some(None)),
                Some(_) => {}
            }
        }
    }
}

/// Hands on each frame of the stream, until `each` wants no more.
fn receive(mut from: impl Read, each: impl Fn(Frame) -> bool) -> Result<()> {
    let mut buffer = BytesMut::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut greeted = false;
    loop {
        let length = from.read(&mut chunk)?;
        ensure!(length > 0, "the end");
        buffer.extend_from_slice(&chunk[..length]);
        if !greeted && buffer.len() >= PREAMBLE.len() {
            ensure!(buffer.split_to(PREAMBLE.len()) == PREAMBLE[..], "no preamble");
            greeted = true;
        }
        while greeted && let Some(frame) = Frame::decode(&mut buffer)? {
            ensure!(each(frame), "nobody listens");
        }
    }
}

pub(crate) fn encoded(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    bytes.to_vec()
}

/// All that a laptop has to say to get a session.
pub(crate) fn handshake() -> Vec<u8> {
    [&PREAMBLE[..], &encoded(&[Frame::Hello(hello::ours()), Frame::Open(open())])].concat()
}

/// A wish for a session.
pub(crate) fn open() -> Open {
    Open {
        resume: None,
        link: 1,
        lane: 0,
        mtu: 65_520,
        families: Families { v4: true, v6: true },
        grace: 0,
        from: Sources { containers: true, networks: vec![] },
        user: "mallory".into(),
        host: "laptop".into(),
        preferred: vec![],
        avoid: vec![],
    }
}
