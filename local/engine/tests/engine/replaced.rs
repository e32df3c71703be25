//! The sidecar has lost the session: over the new link every old flow is reset on both sides, in any state, and the
//! engine continues with new ones.

use std::time::Duration;

use gh_net_engine::{Command, FlowId, FlowState, TcpState};
use gh_net_testkit::policy::Rules;

use crate::harness::{Script, echo, seg, udp};

/// A connection in `state`.
fn in_state(state: TcpState) -> (Script, FlowId) {
    if matches!(state, TcpState::Connecting | TcpState::SynReceived) {
        let mut script = Script::new();
        script.send(seg("S", 0, None, b""));
        let Some(Command::Connect { flow, .. }) = script.command() else { panic!() };
        if state == TcpState::SynReceived {
            script.engine.handle_connected(flow, script.now);
            script.expect(seg("S", 0, 1, b""));
        }
        return (script, flow);
    }
    let (mut script, flow) = Script::established();
    let client_ends = |script: &mut Script, ack| {
        script.send(seg("F", 1, ack, b""));
        script.recv().expect("an acknowledgment");
    };
    match state {
        TcpState::Connecting | TcpState::SynReceived | TcpState::Established => {}
        TcpState::CloseWait => client_ends(&mut script, 1),
        TcpState::LastAck => {
            client_ends(&mut script, 1);
            script.engine.handle_end(flow, script.now);
            script.expect(seg("FP", 1, 2, b""));
        }
        TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::TimeWait => {
            script.engine.handle_end(flow, script.now);
            script.expect(seg("FP", 1, 1, b""));
            match state {
                TcpState::FinWait2 => script.send(seg("", 1, 2, b"")),
                TcpState::Closing => client_ends(&mut script, 1),
                TcpState::TimeWait => client_ends(&mut script, 2),
                TcpState::FinWait1
                | TcpState::Connecting
                | TcpState::SynReceived
                | TcpState::Established
                | TcpState::CloseWait
                | TcpState::LastAck
                | TcpState::Closed => {}
            }
        }
        TcpState::Closed => {
            // Its reset waits for a link.
            script.engine.handle_link_down(script.now);
            script.engine.handle_failed(flow, script.now);
        }
    }
    (script, flow)
}

const STATES: [TcpState; 10] = [
    TcpState::Connecting,
    TcpState::SynReceived,
    TcpState::Established,
    TcpState::CloseWait,
    TcpState::LastAck,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::Closing,
    TcpState::TimeWait,
    TcpState::Closed,
];

/// The order of calls by which a driver ends the old flows over a new link.
fn end_over_a_new_link(script: &mut Script) {
    script.engine.handle_link_down(script.now);
    script.pass(Duration::from_secs(1200));
    script.engine.handle_link_up(script.now);
    script.engine.reset_flows(script.now);
    script.bulk = false;
}

#[test]
fn a_connection_in_any_state_but_time_wait_is_reset_over_the_new_link() {
    for state in STATES {
        for held in [false, true] {
            let (mut script, flow) = in_state(state);
            let shown: Vec<_> = script.engine.flows().map(|flow| flow.state).collect();
            assert_eq!(shown, [FlowState::Tcp(state)]);
            if held && state != TcpState::Connecting {
                script.engine.set_policy(Box::new(Rules::default()), script.now);
            }
            while script.command().is_some() {}
            end_over_a_new_link(&mut script);
            let sent: Vec<_> = std::iter::from_fn(|| script.recv()).collect();
            // In TIME-WAIT both sides have ended in an orderly way, and the codespace's kernel may have forgotten it.
            let expected = usize::from(state != TcpState::TimeWait);
            assert_eq!(sent.len(), expected, "{state:?}: {sent:?}");
            assert!(sent.iter().all(|segment| segment.flags == "R" && segment.ack.is_some()), "{sent:?}");
            let has_socket = !matches!(state, TcpState::LastAck | TcpState::Closing | TcpState::TimeWait)
                && state != TcpState::Closed;
            let commands: Vec<_> = std::iter::from_fn(|| script.command()).collect();
            let expected = has_socket.then_some(Command::Abort(flow));
            assert_eq!(commands, Vec::from_iter(expected), "{state:?}");
            assert_eq!((script.engine.flow_count(), script.engine.poll_timeout()), (0, None));
        }
    }
}

#[test]
fn data_under_way_does_not_delay_the_resets() {
    let (mut script, flow) = Script::established();
    script.serve(flow, &[1; 5000]);
    while script.recv().is_some() {}
    end_over_a_new_link(&mut script);
    script.expect(seg("R", 5001, 1, b""));
    assert_eq!(script.command(), Some(Command::Abort(flow)));
    script.quiet();
}

#[test]
fn datagram_flows_are_closed_and_their_queued_packets_dropped() {
    let mut script = Script::new();
    script.send_raw(&udp("10.1.0.2:5000", "10.20.0.1:7", b"x"));
    script.send_raw(&echo("10.1.0.2", "10.20.0.1", 7, 1, b""));
    while script.command().is_some() {}
    end_over_a_new_link(&mut script);
    assert!(matches!(script.command(), Some(Command::Close(_))));
    assert!(matches!(script.command(), Some(Command::Close(_))));
    script.quiet();
    assert_eq!(script.engine.flow_count(), 0);
}

#[test]
fn a_reset_that_is_challenged_is_repeated_with_the_right_number() {
    // The codespace has lost bytes at the cut, so the first reset's number is not the one that it expects next.
    let (mut script, flow) = Script::established();
    script.serve(flow, &[1; 3000]);
    while script.recv().is_some() {}
    end_over_a_new_link(&mut script);
    script.expect(seg("R", 3001, 1, b""));
    script.send(seg("", 1, 1001, b""));
    script.expect(seg("R", 1001, None, b""));
}

#[test]
fn new_flows_are_served_over_the_new_link() {
    let (mut script, old) = Script::established();
    end_over_a_new_link(&mut script);
    script.expect(seg("R", 1, 1, b""));
    assert_eq!(script.command(), Some(Command::Abort(old)));
    script.ours += 1000;
    let (mut script, new) = script.connected(seg("S", 0, None, b""));
    assert_ne!(new, old, "events of the old flow's socket must not reach the new one");
    script.bulk = true;
    script.serve(new, b"hello");
    script.expect(seg("P", 1, 1, b"hello"));
}
