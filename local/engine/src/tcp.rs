//! TCP, as the remote endpoint of the codespace's kernel. The other half is a socket of the host.
//!
//! # Theory of operation
//!
//! This is a translator between two kernels, not a third network stack. It only accepts connections, and never opens
//! one.
//!
//! - **Opening.** On a SYN the host's socket is connected first. Only when that has succeeded is the SYN-ACK sent. A
//!   refusal becomes a RST, an unreachable host the ICMP error, and a time-out is a time-out on both sides. So
//!   `connect` fails in the codespace for the same reason as on the laptop.
//! - **Uplink** ([`recv`]). The window is credit for room reserved here. Bytes go on to the socket as it takes
//!   them. When the server stops reading, the window closes and the program in the codespace blocks.
//! - **Downlink** ([`send`]). The socket is read only when the peer's window and the link's budget allow, so
//!   back pressure reaches the server. What was sent is kept, by reference, until it is acknowledged.
//! - **Closing.** Each direction ends independently: a FIN from the codespace shuts down the socket's sending side
//!   after all bytes before it, and an end of file from the socket becomes a FIN after the last byte. A reset on
//!   either side becomes a reset on the other.
//! - **Loss** happens only in the queues of the codespace's kernel and when the link is cut: go-back-N by
//!   time-out or by three duplicate acknowledgments, and from the first unacknowledged byte on a new link.
//!
//! Timestamps and selective acknowledgment are not negotiated: round trips are timed by segments, and with a
//! lossless leg there is nothing to acknowledge selectively.

mod challenge;
mod host;
mod incoming;
mod output;
mod recv;
mod segment;
mod send;
mod seq;
pub(super) mod state;
mod timer;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(super) use self::challenge::ChallengeLimit;
use self::challenge::Challenges;
use self::recv::Receive;
pub(super) use self::segment::{Segment, refusal};
use self::send::Send;
use self::state::State;
use super::api::Target;
use crate::deadline::Pause;

/// Window scale: units of 128 bytes make windows of up to 8 MiB.
const SHIFT: u8 = 7;
/// The smallest MSS accepted from a peer (Linux's `TCP_MIN_SND_MSS`).
const MIN_MSS: u16 = 48;

/// How long a connection may be idle before a keepalive probe is sent to the codespace: not less than 2 hours
/// 4 minutes (RFC 5382 REQ-5).
const IDLE: Duration = Duration::from_secs(2 * 3600 + 4 * 60);

/// The same once one side has ended. Linux forgets a connection whose program is gone and whose peer has not ended after
/// 60 seconds (`tcp_fin_timeout`), without a word; then it answers the probe with a reset.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(75);

/// How long a connection may take to be opened on the host's side (BSD's `TCPTV_KEEP_INIT`). Shorter than the 127
/// seconds of Linux: the codespace's kernel sends its last SYN after 63 seconds.
const OPENING: Duration = Duration::from_secs(75);

/// The action that io takes on the connection's host socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SocketActions {
    /// Serve it.
    pub service: bool,
    /// Reset it.
    pub abort: bool,
    /// Close it.
    pub close: bool,
}

/// Segments without payload that are due.
#[derive(Debug, Clone, Copy, Default)]
struct Due {
    syn: bool,
    ack: bool,
    /// Number of duplicate acknowledgments still to send.
    duplicates: u8,
    probe: bool,
    reset: bool,
}

/// A connection's one timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// The host's socket is connecting.
    Opening { at: Instant },
    /// The connection is idle; `probes` keepalive probes were not answered.
    Idle { at: Instant, probes: u8 },
    /// Something sent is not acknowledged.
    Retransmit { at: Instant, attempts: u8 },
    /// The peer's window is closed and bytes wait.
    Persist { at: Instant, attempts: u8, unanswered: u8 },
    /// TIME-WAIT.
    Close { at: Instant },
}

impl Timer {
    fn at(self) -> Instant {
        match self {
            Self::Opening { at }
            | Self::Idle { at, .. }
            | Self::Retransmit { at, .. }
            | Self::Persist { at, .. }
            | Self::Close { at } => at,
        }
    }

    /// It expires later by the time without a link.
    fn postpone(&mut self, pause: Pause) {
        match self {
            Self::Opening { at }
            | Self::Idle { at, .. }
            | Self::Retransmit { at, .. }
            | Self::Persist { at, .. }
            | Self::Close { at } => *at += pause.length(),
        }
    }
}

/// How many bytes one connection may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    /// For the host's socket.
    pub uplink: usize,
    /// For the codespace, sent or not, until they are acknowledged.
    pub downlink: usize,
}

/// The connection's endpoints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoints {
    /// The program in the codespace.
    pub client: SocketAddr,
    /// The host, by the address that the program uses.
    pub server: SocketAddr,
    /// What the host's socket is connected to.
    pub target: Target,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub endpoints: Endpoints,
    state: State,
    send: Send,
    receive: Receive,
    peer_shift: Option<u8>,
    mtu: u16,
    actions: SocketActions,
    due: Due,
    timer: Timer,
    /// Whether the host's socket exists.
    has_socket: bool,
    /// Whether it failed.
    failed: bool,
    /// Whether the codespace has reset the connection after its FIN.
    abandoned: bool,
    /// Set on a new link until a segment shows what the codespace lost with the old one.
    resumed: bool,
    /// Whether its timer was put off because the link is quiet.
    put_off: bool,
    challenges: Challenges,
}

impl Connection {
    /// The connection that `syn` asks for. `initial` is our initial sequence number.
    pub(super) fn new(
        endpoints: Endpoints,
        syn: &Segment,
        initial: u32,
        mtu: u16,
        shares: Shares,
        now: Instant,
    ) -> Self {
        let v4 = endpoints.server.is_ipv4();
        let default_mss = if v4 { 536 } else { 1220 };
        let mss = usize::from(syn.mss.unwrap_or(default_mss).clamp(MIN_MSS, max_mss(mtu, v4)));
        let mut send = Send::new(initial, mss, syn.shift.unwrap_or(0), shares.downlink);
        send.first_window(syn.window);
        let shift = if syn.shift.is_some() { SHIFT } else { 0 };
        Self {
            endpoints,
            state: State::Connecting,
            send,
            receive: Receive::new(syn.sequence, shift, mss, shares.uplink),
            peer_shift: syn.shift,
            mtu,
            actions: SocketActions::default(),
            due: Due::default(),
            timer: Timer::Opening { at: now + OPENING },
            has_socket: true,
            failed: false,
            abandoned: false,
            resumed: false,
            put_off: false,
            challenges: Challenges::default(),
        }
    }

    fn set_state(&mut self, state: State) {
        if self.state != state {
            let Endpoints { client, server, .. } = self.endpoints;
            tracing::trace!(%client, %server, old = ?self.state, new = ?state);
            self.state = state;
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether it is not open yet for both sides.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.state, State::Connecting | State::SynReceived)
    }

    /// Ends a connection that is not open yet: with a reset only if its SYN has been answered.
    pub(super) fn evict(&mut self) {
        if self.state == State::Connecting { self.abort() } else { self.reset() }
    }

    /// Whether it is only in TIME-WAIT, and may be removed when room is needed.
    pub(super) fn is_expendable(&self) -> bool {
        self.state == State::TimeWait && !self.is_draining()
    }

    /// Whether it is over for the codespace, while the host's socket has not yet taken all bytes.
    pub(super) fn is_draining(&self) -> bool {
        self.has_socket && matches!(self.state, State::TimeWait | State::Closed)
    }

    /// Whether it is over on both sides.
    pub(super) fn is_over(&self) -> bool {
        !self.has_socket && matches!(self.state, State::TimeWait | State::Closed)
    }

    /// Whether it can be removed.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed && !self.due.reset && !self.is_draining()
    }

    /// It is over for the codespace, in an orderly way. The host's socket may take what is left, within a time limit.
    pub(super) fn leave(&mut self, now: Instant) {
        self.set_state(State::Closed);
        self.due = Due::default();
        self.timer = Timer::Close { at: now + IDLE };
    }

    /// The codespace has reset the connection: the host's socket is reset, too.
    fn abort(&mut self) {
        self.finish(true);
    }

    fn finish(&mut self, abort: bool) {
        self.actions.abort |= abort && self.has_socket;
        self.has_socket = false;
        self.set_state(State::Closed);
    }

    /// Ends the connection from our side: a reset to both.
    ///
    /// The abort of RFC 9293, 3.10.5 sends no RST in CLOSING and LAST-ACK. It is sent here in those states, too: our
    /// FIN may not have arrived, and a program that still reads would wait for it forever.
    pub(super) fn reset(&mut self) {
        // A reset that is already due stays due.
        self.due.reset |= !matches!(self.state, State::TimeWait | State::Closed);
        self.finish(true);
    }
}

/// The largest segment that fits a packet of `mtu` bytes.
fn max_mss(mtu: u16, v4: bool) -> u16 {
    mtu.saturating_sub(if v4 { 40 } else { 60 }).max(MIN_MSS)
}
