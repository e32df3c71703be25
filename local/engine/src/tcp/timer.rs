//! A connection's single timer, and the retransmissions, probes and time-outs when it expires.

use std::time::{Duration, Instant};

use super::state::State;
use super::{Connection, Endpoints, HALF_CLOSED_IDLE, IDLE, Timer};
use crate::deadline::Pause;
use crate::link::state::Line;

/// The time between two probes, and how many may stay unanswered (Linux's `tcp_keepalive_intvl`, `_probes`).
const IDLE_INTERVAL: Duration = Duration::from_secs(75);
const IDLE_PROBES: u8 = 9;
/// Attempts to get the SYN-ACK through (Linux's `tcp_synack_retries`).
const SYN_ATTEMPTS: u8 = 5;
/// Attempts to get data through (Linux's `tcp_retries2`), about fifteen minutes.
const DATA_ATTEMPTS: u8 = 15;
/// How long a finished connection is remembered (Linux's `TCP_TIMEWAIT_LEN`).
pub(super) const TIME_WAIT: Duration = Duration::from_secs(60);

impl Connection {
    /// When [`Self::handle_timeout`] wants to be called. A closed connection waits only for its reset to be sent.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let waits = match self.state {
            State::Closed => self.is_draining(),
            State::Connecting
            | State::SynReceived
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

    /// Waits until the connection has been idle for too long.
    pub(super) fn arm_idle(&mut self, now: Instant) {
        let half_closed = matches!(self.state, State::CloseWait | State::FinWait2);
        let idle = if half_closed { HALF_CLOSED_IDLE } else { IDLE };
        self.timer = Timer::Idle { at: now + idle, probes: 0 };
    }

    pub(super) fn arm_retransmit(&mut self, attempts: u8, now: Instant) {
        self.timer = Timer::Retransmit { at: now + self.send.rto(), attempts };
    }

    /// Leaves the persist timer when the peer's window has opened.
    pub(super) fn leave_persist(&mut self, now: Instant) {
        if matches!(self.timer, Timer::Persist { .. }) && self.send.is_ready() {
            self.arm_idle(now);
        }
    }

    /// Bytes wait, none is in flight and none may be sent: the window is closed. Only a probe finds out whether the
    /// segment that opened it was lost (RFC 9293, 3.8.6.1).
    pub(crate) fn persist_if_stuck(&mut self, now: Instant) {
        let stuck = self.state.is_synchronized()
            && self.send.is_waiting()
            && !self.send.is_ready()
            && self.send.in_flight() == 0;
        if stuck && !matches!(self.timer, Timer::Persist { .. }) {
            self.timer = Timer::Persist { at: now + self.send.probe_interval(0), attempts: 0, unanswered: 0 };
        }
    }

    /// The deadline has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant, line: Line) {
        if now < self.timer.at() {
            return;
        }
        match self.timer {
            // The codespace's kernel gives up by itself.
            Timer::Opening { .. } => self.abort(),
            // Put off until the link is active: a codespace that has fallen asleep answers no probe.
            Timer::Idle { probes, .. } if line.quiet => {
                self.timer = Timer::Idle { at: now + IDLE, probes };
                self.put_off = true;
            }
            Timer::Persist { attempts, unanswered, .. } if line.quiet => {
                self.timer = Timer::Persist { at: now + IDLE, attempts, unanswered };
                self.put_off = true;
            }
            Timer::Idle { probes, .. } if probes >= IDLE_PROBES => self.reset(),
            Timer::Idle { probes, .. } => {
                self.due.probe = true;
                self.timer = Timer::Idle { at: now + IDLE_INTERVAL, probes: probes + 1 };
            }
            Timer::Retransmit { attempts, .. } if !line.delivered => self.arm_retransmit(attempts, now),
            Timer::Retransmit { attempts, .. } => self.handle_retransmit(attempts, now),
            Timer::Persist { unanswered, .. } if unanswered >= DATA_ATTEMPTS => self.reset(),
            Timer::Persist { attempts, unanswered, .. } => {
                let attempts = attempts.saturating_add(1);
                self.due.probe = true;
                let at = now + self.send.probe_interval(attempts);
                self.timer = Timer::Persist { at, attempts, unanswered: unanswered + 1 };
            }
            // The server has not taken what was left.
            Timer::Close { .. } if self.state == State::Closed => self.abort(),
            Timer::Close { .. } => self.leave(now),
        }
    }

    /// The link is not quiet any more: what was put off is due. Returns whether something was.
    pub(crate) fn end_quiet(&mut self, now: Instant) -> bool {
        if !std::mem::take(&mut self.put_off) {
            return false;
        }
        match &mut self.timer {
            Timer::Idle { at, .. } | Timer::Persist { at, .. } => *at = now,
            Timer::Opening { .. } | Timer::Retransmit { .. } | Timer::Close { .. } => {}
        }
        true
    }

    fn handle_retransmit(&mut self, attempts: u8, now: Instant) {
        let most = if self.state == State::SynReceived { SYN_ATTEMPTS } else { DATA_ATTEMPTS };
        if attempts >= most {
            let Endpoints { client, server, .. } = self.endpoints;
            tracing::debug!(%client, %server, "the codespace does not answer");
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

    /// A new link: what was in flight on the old one may be lost in either direction.
    ///
    /// The connection must continue at once, even if the codespace's kernel has backed off for minutes:
    /// - What is not acknowledged is sent again from its first byte.
    /// - The current acknowledgment and window are sent. They may have been lost, and an acknowledgment of new data
    ///   makes the kernel retransmit by itself.
    /// - If there is nothing to send, or the window forbids it, a probe asks for the peer's acknowledgment and window:
    ///   the segment that opened the window may have been lost.
    ///
    /// The codespace's answer may show that its own bytes were lost as well: see `report_loss_of_old_link`.
    ///
    /// Otherwise timers go on from where they stood when the old link was lost.
    pub(crate) fn handle_link_up(&mut self, pause: Pause) {
        let now = pause.to;
        self.send.restart();
        self.resumed = true;
        match self.state {
            State::Connecting => self.timer.postpone(pause),
            // Nothing is due in TIME-WAIT: a peer that misses the last acknowledgment sends its FIN again.
            State::TimeWait | State::Closed => self.timer.postpone(pause),
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
                } else if matches!(self.timer, Timer::Idle { .. }) {
                    self.timer.postpone(pause);
                } else {
                    self.arm_idle(now);
                }
                self.due.probe = self.state.is_synchronized() && !self.send.is_ready();
            }
        }
    }
}
