//! The host's side of a connection: events of its socket.

use std::io::IoSlice;
use std::time::Instant;

use bytes::Bytes;

use super::state::State;
use super::{Connection, Shares, SocketActions};
use crate::budget::Charge;

impl Connection {
    /// The socket is connected.
    pub(crate) fn handle_connected(&mut self, now: Instant) {
        if self.state == State::Connecting {
            self.set_state(State::SynReceived);
            self.due.syn = true;
            // Only now is anything offered.
            self.receive.open();
            self.arm_retransmit(0, now);
        }
    }

    /// Whether the host's socket is still connecting.
    pub(crate) fn is_connecting(&self) -> bool {
        self.state == State::Connecting
    }

    /// The first 8 bytes of the SYN's header, for quoting in an ICMP error.
    pub(crate) fn quotation(&self) -> [u8; 8] {
        let [a, b] = self.endpoints.client.port().to_be_bytes();
        let [c, d] = self.endpoints.server.port().to_be_bytes();
        let [e, f, g, h] = self.receive_initial().to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// The host refused the connection.
    pub(crate) fn handle_refused(&mut self) {
        self.has_socket = false;
        self.due.reset = true;
        self.set_state(State::Closed);
    }

    /// The host did not answer: the connection is removed without an answer to the codespace.
    pub(crate) fn handle_no_answer(&mut self) {
        self.has_socket = false;
        self.set_state(State::Closed);
    }

    pub(crate) fn uplink<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.receive.slices(slices)
    }

    pub(crate) fn uplink_ended(&self) -> bool {
        self.receive.is_drained()
    }

    pub(crate) fn handle_accepted(&mut self, count: usize) {
        self.due.ack |= self.receive.accept(count) && self.state.is_synchronized();
        self.close_socket_if_done();
    }

    /// The socket may be served again after a time in which it was not.
    pub(crate) fn resume_service(&mut self) {
        self.actions.service |= self.has_socket;
    }

    /// How many bytes are wanted from the socket; none before the handshake is complete.
    pub(crate) fn downlink_room(&self) -> usize {
        let open = matches!(self.state, State::Established | State::CloseWait);
        if open { self.send.room() } else { 0 }
    }

    pub(crate) fn handle_data(&mut self, data: Bytes) {
        if self.state != State::Closed {
            self.send.push(data);
        }
    }

    /// The socket's end of file.
    pub(crate) fn handle_end(&mut self) {
        self.send.finish();
        self.close_socket_if_done();
    }

    /// The socket failed. The reset is sent after the data that came before it: a server that answers and closes with
    /// part of the request unread sends a reset, and its answer must still arrive.
    pub(crate) fn handle_failed(&mut self) {
        self.has_socket = false;
        self.failed = true;
        self.reset_if_all_sent();
    }

    pub(super) fn reset_if_all_sent(&mut self) {
        if self.failed && !(self.state.is_synchronized() && self.send.is_waiting()) {
            self.due.reset |= !matches!(self.state, State::TimeWait | State::Closed);
            self.set_state(State::Closed);
        }
    }

    /// Closes the socket when both directions have ended and it has accepted all bytes, or when the program in the
    /// codespace is gone.
    fn close_socket_if_done(&mut self) {
        if self.has_socket && self.receive.is_drained() && (self.send.has_ended() || self.abandoned) {
            self.actions.close = self.send.has_ended();
            self.actions.abort = !self.actions.close;
            self.has_socket = false;
        }
    }

    /// The next action for io on the host's socket. Each is returned once.
    pub(crate) fn take_actions(&mut self) -> SocketActions {
        self.close_socket_if_done();
        let mut actions = std::mem::take(&mut self.actions);
        actions.service &= !actions.abort;
        actions
    }

    /// Where the latest segment ends that pins a buffer of the link, once.
    pub(crate) fn take_pinned(&mut self) -> Option<u64> {
        self.receive.take_pinned()
    }

    /// Copies segments up to this position that pin buffers of the link.
    pub(crate) fn release(&mut self, end: u64) {
        self.receive.release(end);
    }

    /// What it holds. While the socket connects, nothing is held or offered.
    pub(crate) fn charge(&self) -> Charge {
        if self.state == State::Connecting {
            return Charge::default();
        }
        Charge { uplink: self.receive.charge(), downlink: self.send.charge(), ..Charge::default() }
    }

    /// Sets how many bytes it may hold. Bytes already held or offered stay valid.
    pub(crate) fn set_shares(&mut self, shares: Shares) {
        self.receive.set_capacity(shares.uplink);
        self.send.set_most_kept(shares.downlink);
    }
}
