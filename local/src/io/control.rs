//! What the session tells its io.

use std::net::IpAddr;

use gh_net_common::frame::Frame;
use tokio::sync::oneshot;

use super::report::Report;
use crate::policy::Policy;

/// Capacity of the channel of [`Control`] messages. A change of the laptop's networks takes about twenty at most, and
/// io takes all messages in each of its turns.
pub const CONTROLS: usize = 1024;

/// A message of the session to its io.
#[derive(Debug)]
pub enum Control {
    /// New rules apply to new flows.
    Policy(Policy),
    /// Send this frame (routes, DNS settings). Dropped without a link: a new link begins with full sets.
    Send(Frame),
    /// Find out whether the link is alive: it has to answer within [`PROBE`](gh_net_common::link::PROBE).
    Probe,
    /// The laptop has lost these addresses: fail the connections whose sockets are bound to them.
    Gone(Vec<IpAddr>),
    /// Report on the work so far, and ask the sidecar for its status.
    Report(oneshot::Sender<Report>),
    /// By which names this address has been looked up.
    Names(IpAddr, oneshot::Sender<Vec<String>>),
    /// Reset all flows and stop.
    Shutdown,
}
