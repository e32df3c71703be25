//! A scripted laptop: sends frame by frame what gh-net would send over ssh.

use std::net::IpAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gh_net_common::frame::{Families, Frame, Goodbye, HEADER_LEN, Hello, Open, Opened, Reason, Routes};
use gh_net_common::framed::{FrameReader, FrameWriter, NoiseLimit};
use gh_net_common::hello;
use ipnet::IpNet;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::codespace::SIDECAR;

/// Time limit for every wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// The laptop's end of one link.
pub(crate) struct Laptop {
    child: Child,
    reader: FrameReader<ChildStdout>,
    pub(crate) writer: FrameWriter<ChildStdin>,
    /// Bytes of packet frames that were read.
    taken: u64,
}

/// A request for a session, with these seconds of grace.
pub(crate) fn open(grace: u32) -> Open {
    Open {
        resume: None,
        link: 0,
        lane: 0,
        mtu: 65_520,
        families: Families { v4: true, v6: true },
        grace,
        from: gh_net_common::frame::Sources { containers: true, networks: Vec::new() },
        user: "alice".into(),
        host: "laptop".into(),
        preferred: vec![],
        avoid: vec![],
    }
}

/// A request for a session that exists, over its next link.
pub(crate) fn resume(opened: &Opened) -> Open {
    static LINKS: AtomicU32 = AtomicU32::new(1);
    let link = LINKS.fetch_add(1, Ordering::Relaxed);
    Open { resume: Some((opened.session, opened.token)), link, ..open(60) }
}

/// The laptop's goodbye.
pub(crate) fn done() -> Frame {
    Frame::Goodbye(Goodbye { reason: Reason::Done, text: String::new() })
}

/// A full set of networks.
pub(crate) fn routes(nets: &[&str]) -> Frame {
    Frame::Routes(Routes::Last(nets.iter().map(|n| net(n)).collect()))
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

impl Laptop {
    /// Starts `attach` as sshd would, from `peer`, and says hello.
    pub(crate) async fn connect_from(peer: IpAddr) -> Self {
        let mut command = Command::new(SIDECAR);
        command.arg("attach").env("SSH_CONNECTION", format!("{peer} 50000 172.16.5.4 22"));
        Self::start(command).await
    }

    pub(crate) async fn connect() -> Self {
        Self::connect_from([127, 0, 0, 1].into()).await
    }

    /// Starts `attach` and says this hello.
    pub(crate) async fn greet(hello: Hello) -> Self {
        let mut command = Command::new(SIDECAR);
        command.arg("attach");
        Self::start_with(command, hello).await
    }

    /// Starts `command` and says hello.
    pub(crate) async fn start(command: Command) -> Self {
        Self::start_with(command, hello::ours()).await
    }

    async fn start_with(mut command: Command, hello: Hello) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("it starts");
        let mut reader = FrameReader::new(child.stdout.take().expect("piped"));
        let mut writer = FrameWriter::new(child.stdin.take().expect("piped"));
        writer.push(&Frame::Hello(hello));
        // An attach that refuses at once does not read.
        let _ = writer.flush().await;
        let noise = reader.preamble(NoiseLimit::default()).await.expect("the preamble");
        assert!(noise.is_empty(), "noise on stdout: {noise:?}");
        let mut laptop = Self { child, reader, writer, taken: 0 };
        let hello = laptop.next().await;
        assert!(matches!(hello, Frame::Hello(_)), "{hello:?} in place of a hello");
        laptop
    }

    /// Asks for a session.
    pub(crate) async fn ask(&mut self, open: Open) -> Result<Opened, Goodbye> {
        self.send(&[Frame::Open(open)]).await;
        self.answer().await
    }

    /// The answer to a request that has been sent.
    pub(crate) async fn answer(&mut self) -> Result<Opened, Goodbye> {
        match self.next().await {
            Frame::Opened(opened) => Ok(opened),
            Frame::Goodbye(goodbye) => Err(goodbye),
            other => panic!("{other:?} is no answer"),
        }
    }

    /// A session, connected and opened.
    pub(crate) async fn session(grace: u32) -> (Self, Opened) {
        let mut laptop = Self::connect().await;
        let opened = laptop.ask(open(grace)).await.expect("a session");
        (laptop, opened)
    }

    pub(crate) async fn send(&mut self, frames: &[Frame]) {
        for frame in frames {
            self.writer.push(frame);
        }
        self.writer.flush().await.expect("the sidecar reads");
    }

    /// The next frame. The sidecar's pings are answered on the way.
    pub(crate) async fn next(&mut self) -> Frame {
        timeout(PATIENCE, self.answer_pings()).await.expect("a frame in time")
    }

    /// Answers pings until another frame comes, however long that takes.
    async fn answer_pings(&mut self) -> Frame {
        loop {
            match self.reader.next().await.expect("a frame").expect("a frame, not the end") {
                Frame::Ping(value) => {
                    self.writer.push(&Frame::Pong(value));
                    // A sidecar that ends does not read any more, and what it says last is still to be read.
                    let _ = self.writer.flush().await;
                }
                Frame::Packet(packet) => {
                    self.taken += (HEADER_LEN + packet.len()) as u64;
                    return Frame::Packet(packet);
                }
                frame => return frame,
            }
        }
    }

    /// Waits for a ping and leaves it unanswered.
    pub(crate) async fn wait_for_ping(&mut self) {
        loop {
            let next = timeout(PATIENCE, self.reader.next()).await.expect("a ping in time");
            if let Some(Frame::Ping(_)) = next.expect("a frame") {
                return;
            }
        }
    }

    /// Nothing at all arrives for this time.
    pub(crate) async fn hears_nothing_for(&mut self, time: Duration) {
        let heard = timeout(time, self.reader.next()).await;
        assert!(heard.is_err(), "{heard:?}");
    }

    /// Answers pings for as long as this is polled.
    pub(crate) async fn stay_alive<T>(&mut self) -> T {
        loop {
            self.answer_pings().await;
        }
    }

    /// The next frame that `pick` accepts; others are skipped.
    pub(crate) async fn until<T>(&mut self, mut pick: impl FnMut(Frame) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.next().await) {
                return picked;
            }
        }
    }

    /// Waits until the sidecar has handled all that was sent before.
    pub(crate) async fn settle(&mut self) {
        self.send(&[Frame::Ping(0x5e77)]).await;
        self.until(|frame| (frame == Frame::Pong(0x5e77)).then_some(())).await;
    }

    /// Reports the packets that were read, so that the sidecar goes on when its window is full.
    pub(crate) async fn report(&mut self) {
        self.send(&[Frame::Delivered { total: self.taken, micros: 0 }]).await;
    }

    pub(crate) async fn goodbye(&mut self) -> Goodbye {
        self.until(|frame| match frame {
            Frame::Goodbye(goodbye) => Some(goodbye),
            _ => None,
        })
        .await
    }

    /// Waits until `attach` has exited.
    pub(crate) async fn exit_code(mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.expect("an exit in time").expect("its status").code()
    }

    /// Cuts the link: both pipes close. Returns how `attach` exits.
    pub(crate) async fn cut(self) -> Option<i32> {
        let Self { mut child, reader, writer, .. } = self;
        drop((reader, writer));
        timeout(PATIENCE, child.wait()).await.expect("an exit in time").expect("its status").code()
    }

    /// The process id of `attach`.
    pub(crate) fn attach(&self) -> i32 {
        self.child.id().expect("it runs").try_into().expect("a process id")
    }
}
