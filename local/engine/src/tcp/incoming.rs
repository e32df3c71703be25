//! The codespace's side of a connection: processing of its segments (RFC 9293, 3.10.7).

use std::time::Instant;

use super::send::{Ack, Acknowledged};
use super::state::State;
use super::timer::TIME_WAIT;
use super::{Connection, Segment, Timer};

impl Connection {
    /// RFC 9293, 3.10.7.4.
    pub(crate) fn handle_segment(&mut self, segment: Segment, now: Instant) {
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
            // An old segment or a probe: answer with our position (RFC 9293, 3.10.7.4). Its acknowledgment counts
            // even if the window is closed.
            if segment.rst {
                return;
            }
            if segment.syn {
                // RFC 5961, 4: wherever it is.
                return self.challenges.want(now);
            }
            self.due.ack = true;
            if position <= self.receive.next() {
                self.handle_acknowledgment(&segment, position, now);
            }
            return;
        }
        if segment.rst {
            return self.handle_reset(position, now);
        }
        if segment.syn {
            // RFC 5961, 4.
            return self.challenges.want(now);
        }
        if !self.handle_acknowledgment(&segment, position, now) {
            return;
        }
        self.report_loss_of_old_link(position);
        self.handle_payload(segment, position, now);
    }

    /// Whether the last segment deserves a challenge that the engine has not admitted yet, once.
    pub(crate) fn take_challenge(&mut self) -> bool {
        self.challenges.take()
    }

    /// The challenge is admitted.
    pub(crate) fn send_challenge(&mut self) {
        self.due.ack = true;
    }

    pub(super) fn receive_initial(&self) -> u32 {
        self.receive.acknowledgment().wrapping_sub(self.receive.next() as u32)
    }

    /// While the host's socket is connecting only a reset has an effect; a SYN is a repetition.
    fn handle_segment_while_connecting(&mut self, segment: &Segment) {
        if segment.rst && self.receive.position(segment.sequence) == Some(1) {
            self.abort();
        }
    }

    /// RFC 5961, 3: only a reset at exactly the next position is accepted. A reset after the FIN does not discard
    /// data: a program that closes with unread data sends one, and the server must still get the whole request.
    fn handle_reset(&mut self, position: u64, now: Instant) {
        if position != self.receive.next() {
            self.challenges.want(now);
        } else if self.receive.fin_received() {
            self.abandoned = true;
            self.leave(now);
        } else {
            self.abort();
        }
    }

    /// Returns whether to process the rest of the segment.
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
            Acknowledged::TooMuch | Acknowledged::TooOld => {
                if self.state.is_synchronized() {
                    self.challenges.want(now);
                }
                return false;
            }
            Acknowledged::Progress => self.acknowledged(now),
            Acknowledged::Rewound => self.arm_retransmit(0, now),
            Acknowledged::Nothing => {
                self.probe_answered(now);
            }
        }
        self.leave_persist(now);
        self.actions.service |= !had_room && self.send.room() > 0 && self.has_socket;
        true
    }

    /// The first segment on a new link that is not the next one shows that bytes were lost with the old link. After a
    /// long cut their sender has backed off for up to two minutes. Three duplicate acknowledgments make it send
    /// them now (fast retransmit, RFC 5681, 3.2). The segments that would otherwise cause three are lost, too.
    ///
    /// Linux ignores them once its retransmission timer has expired. For this case the sidecar sends the latest
    /// retransmission of each connection first, and its acknowledgment ends the backoff. ICMP
    /// unreachable errors about the lost segment would do so as well (RFC 6069), but are not sent: a program that
    /// has set IP_RECVERR gets them as errors of its connection.
    ///
    /// A gap of one may be a FIN. No segment after a FIN could cause duplicates, and some stacks can't handle them:
    /// smoltcp 0.14 then stops retransmitting the FIN.
    fn report_loss_of_old_link(&mut self, position: u64) {
        if self.resumed && position > self.receive.next() + 1 && self.state.is_synchronized() {
            self.resumed = false;
            self.due.ack = true;
            self.due.duplicates = 3;
        }
    }

    fn probe_answered(&mut self, now: Instant) {
        match &mut self.timer {
            Timer::Idle { probes, .. } if *probes > 0 => {
                self.arm_idle(now);
            }
            Timer::Persist { unanswered, .. } => *unanswered = 0,
            Timer::Opening { .. } | Timer::Idle { .. } | Timer::Retransmit { .. } | Timer::Close { .. } => {}
        }
    }

    fn acknowledged(&mut self, now: Instant) {
        if self.state == State::SynReceived && self.send.is_synchronized() {
            self.set_state(State::Established);
            self.actions.service = true;
        }
        if self.send.fin_acknowledged() {
            self.set_state(self.state.fin_acknowledged());
        }
        if self.send.in_flight() > 0 {
            self.arm_retransmit(0, now);
        } else {
            self.arm_idle(now);
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
        let progress = self.receive.insert(position, segment.payload, segment.fin);
        if self.receive.fin_received() {
            self.set_state(self.state.fin_received());
            self.enter_time_wait(now);
        }
        if progress {
            self.actions.service |= self.has_socket;
            if let Timer::Idle { .. } = self.timer {
                self.arm_idle(now);
            }
        }
    }

    fn enter_time_wait(&mut self, now: Instant) {
        if self.state == State::TimeWait && !matches!(self.timer, Timer::Close { .. }) {
            self.timer = Timer::Close { at: now + TIME_WAIT };
        }
    }

    /// Whether the segment replaces this connection. A SYN may open a new one between the same two endpoints
    /// (RFC 9293, 3.6.1): in TIME-WAIT with a later sequence number, or while the old attempt is still connecting.
    pub(crate) fn gives_way_to(&self, segment: &Segment) -> bool {
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
}
