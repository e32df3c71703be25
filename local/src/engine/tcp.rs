//! TCP, as the remote endpoint of the codespace's kernel. The other half is a socket of the host.
//!
//! # Theory of operation
//!
//! This is a translator between two kernels, not a third network stack. It always answers, never opens.
//!
//! - **Opening.** A SYN makes the engine have a socket connected. Only when that has succeeded does the
//!   codespace get its SYN-ACK; a refusal becomes a RST, an unreachable host the ICMP error, silence stays
//!   silence. So a program in the codespace learns the truth from `connect`.
//! - **Uplink** ([`recv`]). The window is credit for room reserved here. Bytes go on to the socket as it takes
//!   them; when the server stops reading, the window closes and the program in the codespace blocks.
//! - **Downlink** ([`send`]). The socket is read only when the peer's window and the link's budget allow, so
//!   back pressure reaches the server. What was sent is kept, by reference, until it is acknowledged.
//! - **Closing.** Each direction ends by itself: a FIN from the codespace shuts the socket's writing down when
//!   all bytes before it have been taken, an end of file from the socket becomes a FIN behind the last byte.
//!   A reset on either side becomes a reset on the other.
//! - **Loss** happens only in the queues of the codespace's kernel and when the link is cut: go-back-N by
//!   time-out or by three duplicate acknowledgments, and from the first unacknowledged byte on a new link.
//!
//! Timestamps and selective acknowledgment are not negotiated: round trips are timed by segments, and with a
//! lossless leg there is nothing to acknowledge selectively.

mod recv;
mod send;
mod seq;
mod state;

use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etherparse::{TcpOptionElement, TcpSlice};

use self::recv::Receive;
use self::send::{Ack, Acknowledged, Send};
use self::state::State;
use super::Transmit;
use super::packet::build::{self, FIN, PSH, RST, SYN};
use super::packet::{Malformed, Packet};

/// How long an idle connection is left alone before the codespace is asked whether it still knows it.
/// RFC 5382 REQ-5 says not less than 2 hours 4 minutes.
const IDLE: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
/// The time between two such questions, and how many stay unanswered (Linux's `tcp_keepalive_intvl`, `_probes`).
const IDLE_INTERVAL: Duration = Duration::from_secs(75);
const IDLE_PROBES: u8 = 9;
/// Attempts to get the SYN-ACK through (Linux's `tcp_synack_retries`).
const SYN_ATTEMPTS: u8 = 5;
/// Attempts to get data through (Linux's `tcp_retries2`), about fifteen minutes.
const DATA_ATTEMPTS: u8 = 15;
/// How long a finished connection is remembered (Linux's `TCP_TIMEWAIT_LEN`).
const TIME_WAIT: Duration = Duration::from_secs(60);
/// Window scale: units of 128 bytes make windows of up to 8 MiB.
const SHIFT: u8 = 7;
/// The largest scale a peer may ask for (RFC 7323, 2.3).
const MAX_SHIFT: u8 = 14;
/// The smallest MSS that is believed (Linux's `TCP_MIN_SND_MSS`).
const MIN_MSS: u16 = 48;

/// A segment from the codespace.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub source_port: u16,
    pub destination_port: u16,
    sequence: u32,
    acknowledgment: Option<u32>,
    pub syn: bool,
    fin: bool,
    pub rst: bool,
    window: u16,
    mss: Option<u16>,
    shift: Option<u8>,
    payload: Bytes,
}

impl Segment {
    pub(super) fn parse(packet: &Packet) -> Result<Self, Malformed> {
        let tcp = TcpSlice::from_slice(&packet.payload).map_err(|_| Malformed::Transport)?;
        if packet.transport_checksum() != 0 {
            return Err(Malformed::Checksum);
        }
        let (mut mss, mut shift) = (None, None);
        if tcp.syn() {
            // A broken option ends the list; what came before it counts (RFC 9293, 3.1).
            for option in tcp.options_iterator().map_while(Result::ok) {
                match option {
                    TcpOptionElement::MaximumSegmentSize(size) => mss = Some(size),
                    TcpOptionElement::WindowScale(scale) => shift = Some(scale.min(MAX_SHIFT)),
                    TcpOptionElement::Noop
                    | TcpOptionElement::SelectiveAcknowledgementPermitted
                    | TcpOptionElement::SelectiveAcknowledgement(..)
                    | TcpOptionElement::Timestamp(..) => {}
                }
            }
        }
        Ok(Self {
            source_port: tcp.source_port(),
            destination_port: tcp.destination_port(),
            sequence: tcp.sequence_number(),
            acknowledgment: tcp.ack().then(|| tcp.acknowledgment_number()),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            window: tcp.window_size(),
            mss,
            shift,
            payload: packet.payload.slice_ref(tcp.payload()),
        })
    }

    /// Whether it asks for a new connection.
    pub(super) fn is_opening(&self) -> bool {
        self.syn && !self.rst && self.acknowledgment.is_none()
    }

    /// Whether it is a SYN sent again, for the connection that `self` already opened.
    fn repeats(&self, sequence: u32) -> bool {
        self.is_opening() && self.sequence == sequence
    }

    fn occupied(&self) -> u64 {
        self.payload.len() as u64 + u64::from(self.syn) + u64::from(self.fin)
    }
}

/// The answer to a segment that belongs to no connection (RFC 9293, 3.10.7.1); `None` for a RST.
pub(super) fn refusal(packet: &Packet, segment: &Segment) -> Option<Transmit> {
    if segment.rst {
        return None;
    }
    let (sequence, acknowledgment) = match segment.acknowledgment {
        Some(number) => (number, None),
        None => (0, Some(segment.sequence.wrapping_add(segment.occupied() as u32))),
    };
    let reset = reset_fields(sequence, acknowledgment);
    let from = SocketAddr::new(packet.destination, segment.destination_port);
    let to = SocketAddr::new(packet.source, segment.source_port);
    Some(build::tcp(from, to, &reset, Bytes::new()))
}

fn reset_fields(sequence: u32, acknowledgment: Option<u32>) -> build::Segment {
    build::Segment { sequence, acknowledgment, flags: RST, window: 0, mss: None, window_scale: None }
}

/// What a connection wants its host socket to go through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// To be served.
    pub service: bool,
    /// To be reset.
    pub abort: bool,
    /// To be closed.
    pub close: bool,
}

/// Segments without payload that are due.
#[derive(Debug, Clone, Copy, Default)]
struct Due {
    syn: bool,
    ack: bool,
    probe: bool,
    reset: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// The connection is idle, or waits for nothing; `probes` questions went unanswered.
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
            Self::Idle { at, .. }
            | Self::Retransmit { at, .. }
            | Self::Persist { at, .. }
            | Self::Close { at } => at,
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

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The program in the codespace.
    pub client: SocketAddr,
    /// The host, as the program named it.
    pub server: SocketAddr,
    state: State,
    send: Send,
    receive: Receive,
    peer_shift: Option<u8>,
    mtu: u16,
    wishes: Wishes,
    due: Due,
    timer: Timer,
    /// Whether the host's socket exists.
    has_socket: bool,
    /// Whether it failed.
    failed: bool,
    /// Whether the codespace has reset the connection after its FIN.
    abandoned: bool,
}

impl Connection {
    /// The connection that `syn` asks for. `initial` is our initial sequence number.
    pub(super) fn new(
        client: SocketAddr,
        server: SocketAddr,
        syn: &Segment,
        initial: u32,
        mtu: u16,
        shares: Shares,
        now: Instant,
    ) -> Self {
        let overhead = if server.is_ipv4() { 40 } else { 60 };
        let default_mss = if server.is_ipv4() { 536 } else { 1220 };
        let most = mtu.saturating_sub(overhead).max(MIN_MSS);
        let mss = usize::from(syn.mss.unwrap_or(default_mss).clamp(MIN_MSS, most));
        let mut send = Send::new(initial, mss, syn.shift.unwrap_or(0), shares.downlink);
        send.first_window(syn.window);
        let shift = if syn.shift.is_some() { SHIFT } else { 0 };
        Self {
            client,
            server,
            state: State::Connecting,
            send,
            receive: Receive::new(syn.sequence, shift, mss, shares.uplink),
            peer_shift: syn.shift,
            mtu,
            wishes: Wishes::default(),
            due: Due::default(),
            timer: Timer::Idle { at: now + IDLE, probes: 0 },
            has_socket: true,
            failed: false,
            abandoned: false,
        }
    }

    fn set_state(&mut self, state: State) {
        if self.state != state {
            tracing::trace!(client = %self.client, server = %self.server, old = ?self.state, new = ?state);
            self.state = state;
        }
    }

    // ---- the codespace's side -----------------------------------------------------------------------

    /// RFC 9293, 3.10.7.4.
    pub(super) fn handle_segment(&mut self, segment: Segment, now: Instant) {
        if self.state == State::Connecting {
            return self.handle_segment_while_connecting(&segment);
        }
        if segment.repeats(self.receive_initial()) && self.state == State::SynReceived {
            // Our SYN-ACK was lost.
            self.due.syn = true;
            return;
        }
        let Some(position) = self.receive.position(segment.sequence) else {
            self.due.ack |= !segment.rst;
            return;
        };
        if !self.receive.acceptable(position, segment.occupied()) {
            // An old or a probing segment: say where we are (RFC 9293, 3.10.7.4). Its acknowledgment counts
            // all the same if the window is closed.
            if segment.rst {
                return;
            }
            self.due.ack = true;
            if !segment.syn && position <= self.receive.next() {
                self.handle_acknowledgment(&segment, position, now);
            }
            return;
        }
        if segment.rst {
            return self.handle_reset(position, now);
        }
        if segment.syn {
            // Challenge (RFC 5961, 4).
            self.due.ack = true;
            return;
        }
        if !self.handle_acknowledgment(&segment, position, now) {
            return;
        }
        self.handle_payload(segment, position, now);
    }

    fn receive_initial(&self) -> u32 {
        self.receive.acknowledgment().wrapping_sub(self.receive.next() as u32)
    }

    /// Only a reset means something while the host's socket is connecting; a SYN is the same one again.
    fn handle_segment_while_connecting(&mut self, segment: &Segment) {
        if segment.rst && self.receive.position(segment.sequence) == Some(1) {
            self.abort();
        }
    }

    /// RFC 5961, 3: only the very next position is believed. A reset behind the FIN takes nothing back: a
    /// program that closes with an answer unread resets, and the server is to have its request all the same.
    fn handle_reset(&mut self, position: u64, now: Instant) {
        if position != self.receive.next() {
            self.due.ack = true;
        } else if self.receive.fin_received() {
            self.abandoned = true;
            self.leave(now);
        } else {
            self.abort();
        }
    }

    /// Whether the rest of the segment is to be looked at.
    fn handle_acknowledgment(&mut self, segment: &Segment, position: u64, now: Instant) -> bool {
        let Some(number) = segment.acknowledgment else {
            return false;
        };
        let occupies = segment.occupied() > 0;
        let ack = Ack { number, window: segment.window, position, occupies };
        let had_room = self.send.room() > 0;
        match self.send.acknowledge(ack, now) {
            Acknowledged::TooMuch if self.state == State::SynReceived => {
                self.due.reset = true;
                self.finish(true);
                return false;
            }
            Acknowledged::TooMuch => {
                self.due.ack = true;
                return false;
            }
            Acknowledged::Progress => self.acknowledged(now),
            Acknowledged::Rewound => self.arm_retransmit(0, now),
            Acknowledged::Nothing => {
                self.probe_answered(now);
            }
        }
        self.leave_persist(now);
        self.wishes.service |= !had_room && self.send.room() > 0 && self.has_socket;
        true
    }

    fn probe_answered(&mut self, now: Instant) {
        match &mut self.timer {
            Timer::Idle { probes, .. } if *probes > 0 => {
                self.timer = Timer::Idle { at: now + IDLE, probes: 0 };
            }
            Timer::Persist { unanswered, .. } => *unanswered = 0,
            Timer::Idle { .. } | Timer::Retransmit { .. } | Timer::Close { .. } => {}
        }
    }

    fn acknowledged(&mut self, now: Instant) {
        if self.state == State::SynReceived && self.send.is_synchronized() {
            self.set_state(State::Established);
            self.wishes.service = true;
        }
        if self.send.fin_acknowledged() {
            self.set_state(self.state.fin_acknowledged());
        }
        if self.send.in_flight() > 0 {
            self.arm_retransmit(0, now);
        } else {
            self.timer = Timer::Idle { at: now + IDLE, probes: 0 };
        }
        self.enter_time_wait(now);
        if self.state == State::Closed {
            self.leave(now);
        }
    }

    fn handle_payload(&mut self, segment: Segment, position: u64, now: Instant) {
        if segment.occupied() == 0 {
            return;
        }
        self.due.ack = true;
        if !self.state.is_synchronized() {
            return;
        }
        if self.receive.insert(position, segment.payload, segment.fin) {
            self.wishes.service |= self.has_socket;
            if let Timer::Idle { .. } = self.timer {
                self.timer = Timer::Idle { at: now + IDLE, probes: 0 };
            }
        }
        if self.receive.fin_received() {
            self.set_state(self.state.fin_received());
            self.enter_time_wait(now);
        }
    }

    fn enter_time_wait(&mut self, now: Instant) {
        if self.state == State::TimeWait && !matches!(self.timer, Timer::Close { .. }) {
            self.timer = Timer::Close { at: now + TIME_WAIT };
        }
    }

    /// Whether the segment is not for this connection any more. A SYN may start a new one between the same
    /// two endpoints (RFC 9293, 3.6.1): in TIME-WAIT with a later sequence number, or while the old attempt
    /// is still connecting.
    pub(super) fn gives_way_to(&self, segment: &Segment) -> bool {
        let later = segment.sequence.wrapping_sub(self.receive.acknowledgment()) as i32 >= 0;
        match self.state {
            State::TimeWait => segment.is_opening() && later,
            State::Connecting => segment.is_opening() && segment.sequence != self.receive_initial(),
            State::Closed => true,
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => false,
        }
    }

    /// Whether it only waits for its time to pass, and may be forgotten when room is needed.
    pub(super) fn is_expendable(&self) -> bool {
        self.state == State::TimeWait && !self.is_draining()
    }

    /// Whether it is over for the codespace, while the host's socket has yet to take what it brought.
    pub(super) fn is_draining(&self) -> bool {
        self.has_socket && matches!(self.state, State::TimeWait | State::Closed)
    }

    /// Whether nothing is left of it.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed && !self.due.reset && !self.is_draining()
    }

    /// It is over for the codespace, and in peace: the host's socket may take what is left, for a while.
    pub(super) fn leave(&mut self, now: Instant) {
        self.set_state(State::Closed);
        self.due = Due::default();
        self.timer = Timer::Close { at: now + IDLE };
    }

    /// The codespace is gone: the host's socket goes with a reset.
    fn abort(&mut self) {
        self.finish(true);
    }

    fn finish(&mut self, abort: bool) {
        self.wishes.abort |= abort && self.has_socket;
        self.has_socket = false;
        self.set_state(State::Closed);
    }

    /// Ends the connection from our side: a reset to both.
    pub(super) fn reset(&mut self) {
        self.due.reset = self.state != State::Connecting;
        self.finish(true);
    }

    // ---- the host's side ----------------------------------------------------------------------------

    /// The socket is connected.
    pub(super) fn handle_connected(&mut self, now: Instant) {
        if self.state == State::Connecting {
            self.set_state(State::SynReceived);
            self.due.syn = true;
            self.arm_retransmit(0, now);
        }
    }

    /// Whether the host's socket is still connecting.
    pub(super) fn is_connecting(&self) -> bool {
        self.state == State::Connecting
    }

    /// The first 8 bytes of the SYN's header, for quoting in an ICMP error.
    pub(super) fn quotation(&self) -> [u8; 8] {
        let [a, b] = self.client.port().to_be_bytes();
        let [c, d] = self.server.port().to_be_bytes();
        let [e, f, g, h] = self.receive_initial().to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// Refuses the connection: the socket could not be connected.
    pub(super) fn handle_refused(&mut self) {
        self.has_socket = false;
        self.due.reset = true;
        self.set_state(State::Closed);
    }

    /// Forgets the connection without a word: nobody answered the socket either.
    pub(super) fn handle_silence(&mut self) {
        self.has_socket = false;
        self.set_state(State::Closed);
    }

    pub(super) fn uplink<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.receive.slices(slices)
    }

    pub(super) fn uplink_ended(&self) -> bool {
        self.receive.is_drained()
    }

    pub(super) fn handle_accepted(&mut self, count: usize) {
        self.due.ack |= self.receive.accept(count) && self.state.is_synchronized();
        self.close_socket_if_done();
    }

    /// How many bytes are wanted from the socket; none before the handshake is complete.
    pub(super) fn downlink_room(&self) -> usize {
        let open = matches!(self.state, State::Established | State::CloseWait);
        if open { self.send.room() } else { 0 }
    }

    pub(super) fn handle_data(&mut self, data: Bytes) {
        if self.state != State::Closed {
            self.send.push(data);
        }
    }

    /// The socket's end of file.
    pub(super) fn handle_end(&mut self) {
        self.send.finish();
        self.close_socket_if_done();
    }

    /// The socket failed. The reset goes behind what the host had said before: a server that answers and
    /// closes with part of the request unread resets, and its answer is to be heard all the same.
    pub(super) fn handle_failed(&mut self) {
        self.has_socket = false;
        self.failed = true;
        self.reset_if_all_said();
    }

    fn reset_if_all_said(&mut self) {
        if self.failed && !(self.state.is_synchronized() && self.send.is_waiting()) {
            self.due.reset |= !matches!(self.state, State::TimeWait | State::Closed);
            self.set_state(State::Closed);
        }
    }

    /// The socket is done for when both directions have ended and all bytes are with it, or when nobody is
    /// there any more to hear the server's.
    fn close_socket_if_done(&mut self) {
        if self.has_socket && self.receive.is_drained() && (self.send.has_ended() || self.abandoned) {
            self.wishes.close = self.send.has_ended();
            self.wishes.abort = !self.wishes.close;
            self.has_socket = false;
        }
    }

    /// What the host's socket is to go through, asked once.
    pub(super) fn take_wishes(&mut self) -> Wishes {
        self.close_socket_if_done();
        let mut wishes = std::mem::take(&mut self.wishes);
        wishes.service &= !wishes.abort;
        wishes
    }

    /// How much it may hold from now on. What it holds, or was offered, it keeps.
    pub(super) fn set_shares(&mut self, shares: Shares) {
        self.receive.set_capacity(shares.uplink);
        self.send.set_most_kept(shares.downlink);
    }

    // ---- what is sent -------------------------------------------------------------------------------

    /// Whether a segment without payload is due.
    pub(super) fn has_control(&self) -> bool {
        self.due.syn || self.due.ack || self.due.probe || self.due.reset
    }

    /// The next segment without payload.
    pub(super) fn poll_control(&mut self, now: Instant) -> Option<Transmit> {
        let due = std::mem::take(&mut self.due);
        if due.reset {
            return Some(self.build(self.send.control_sequence(), RST, Bytes::new()));
        }
        if due.syn {
            return Some(self.build_syn(now));
        }
        if due.probe {
            return Some(self.build(self.send.probe_sequence(), 0, Bytes::new()));
        }
        due.ack.then(|| self.build(self.send.control_sequence(), 0, Bytes::new()))
    }

    /// Whether a segment with payload or FIN can be sent.
    pub(super) fn has_segment(&self) -> bool {
        self.state.is_synchronized() && self.send.is_ready()
    }

    /// The next segment with payload or FIN.
    pub(super) fn poll_segment(&mut self, now: Instant) -> Option<Transmit> {
        if !self.has_segment() {
            return None;
        }
        let had_room = self.downlink_room() > 0;
        let sequence = self.send.sequence();
        let (payload, fin) = self.send.segment(now)?;
        let push = if self.send.is_waiting() { 0 } else { PSH };
        let flags = push | if fin { FIN } else { 0 };
        if self.send.fin_sent() {
            self.set_state(self.state.fin_sent());
        }
        if !matches!(self.timer, Timer::Retransmit { .. }) {
            self.arm_retransmit(0, now);
        }
        self.due.ack = false;
        self.wishes.service |= !had_room && self.downlink_room() > 0 && self.has_socket;
        let segment = self.build(sequence, flags, payload);
        self.reset_if_all_said();
        Some(segment)
    }

    fn build(&mut self, sequence: u32, flags: u8, payload: Bytes) -> Transmit {
        let segment = build::Segment {
            sequence,
            acknowledgment: Some(self.receive.acknowledgment()),
            flags,
            window: if flags & RST != 0 { 0 } else { self.receive.window(false) },
            mss: None,
            window_scale: None,
        };
        build::tcp(self.server, self.client, &segment, payload)
    }

    fn build_syn(&mut self, now: Instant) -> Transmit {
        self.send.syn_sent(now);
        let overhead = if self.server.is_ipv4() { 40 } else { 60 };
        let segment = build::Segment {
            sequence: self.send.initial(),
            acknowledgment: Some(self.receive.acknowledgment()),
            flags: SYN,
            window: self.receive.window(true),
            mss: Some(self.mtu.saturating_sub(overhead).max(MIN_MSS)),
            window_scale: self.peer_shift.map(|_| SHIFT),
        };
        build::tcp(self.server, self.client, &segment, Bytes::new())
    }

    // ---- time ---------------------------------------------------------------------------------------

    /// When [`Self::handle_timeout`] wants to be called. A connecting flow waits for its socket alone, and
    /// one that is closed for its reset to be sent.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waits = match self.state {
            State::Connecting => false,
            State::Closed => self.is_draining(),
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => true,
        };
        waits.then(|| self.timer.at())
    }

    fn arm_retransmit(&mut self, attempts: u8, now: Instant) {
        self.timer = Timer::Retransmit { at: now + self.send.rto(), attempts };
    }

    /// The peer's window decides whether waiting bytes wait for it.
    fn leave_persist(&mut self, now: Instant) {
        if matches!(self.timer, Timer::Persist { .. }) && self.send.is_ready() {
            self.timer = Timer::Idle { at: now + IDLE, probes: 0 };
        }
    }

    /// Bytes wait, none is under way and none may be sent: the window is closed, and only asking finds out
    /// whether its opening was lost (RFC 9293, 3.8.6.1).
    pub(super) fn persist_if_stuck(&mut self, now: Instant) {
        let stuck = self.state.is_synchronized()
            && self.send.is_waiting()
            && !self.send.is_ready()
            && self.send.in_flight() == 0;
        if stuck && !matches!(self.timer, Timer::Persist { .. }) {
            self.timer = Timer::Persist { at: now + self.send.probe_interval(0), attempts: 0, unanswered: 0 };
        }
    }

    /// The deadline has passed. `delivered` says whether all that was sent has come through the link: what has
    /// not is late and not lost, and sending it again would make it later.
    pub(super) fn handle_timeout(&mut self, now: Instant, delivered: bool) {
        if now < self.timer.at() {
            return;
        }
        match self.timer {
            Timer::Idle { probes, .. } if probes >= IDLE_PROBES => self.reset(),
            Timer::Idle { probes, .. } => {
                self.due.probe = true;
                self.timer = Timer::Idle { at: now + IDLE_INTERVAL, probes: probes + 1 };
            }
            Timer::Retransmit { attempts, .. } if !delivered => self.arm_retransmit(attempts, now),
            Timer::Retransmit { attempts, .. } => self.handle_retransmit(attempts, now),
            Timer::Persist { unanswered, .. } if unanswered >= DATA_ATTEMPTS => self.reset(),
            Timer::Persist { attempts, unanswered, .. } => {
                let attempts = attempts.saturating_add(1);
                self.due.probe = true;
                let at = now + self.send.probe_interval(attempts);
                self.timer = Timer::Persist { at, attempts, unanswered: unanswered + 1 };
            }
            // The server does not take what is left.
            Timer::Close { .. } if self.state == State::Closed => self.abort(),
            Timer::Close { .. } => self.leave(now),
        }
    }

    fn handle_retransmit(&mut self, attempts: u8, now: Instant) {
        let most = if self.state == State::SynReceived { SYN_ATTEMPTS } else { DATA_ATTEMPTS };
        if attempts >= most {
            tracing::debug!(client = %self.client, server = %self.server, "the codespace does not answer");
            return self.reset();
        }
        self.retransmit();
        self.send.timed_out();
        self.arm_retransmit(attempts + 1, now);
        // The peer may have closed its window on what is under way.
        self.persist_if_stuck(now);
    }

    fn retransmit(&mut self) {
        if self.state == State::SynReceived {
            self.due.syn = true;
        } else if self.state.is_synchronized() {
            self.send.rewind();
        }
    }

    /// A new link: what was under way on the old one may be lost in either direction.
    pub(super) fn handle_link_up(&mut self, now: Instant) {
        self.send.restart();
        match self.state {
            // In TIME-WAIT, too, nothing is due: a peer that misses the last acknowledgment asks again.
            State::Connecting | State::TimeWait | State::Closed => {}
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => {
                self.due.ack = true;
                // The SYN-ACK may not have left before the old link broke.
                if self.send.in_flight() > 0 || self.state == State::SynReceived {
                    self.retransmit();
                    self.arm_retransmit(0, now);
                } else {
                    self.timer = Timer::Idle { at: now + IDLE, probes: 0 };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
