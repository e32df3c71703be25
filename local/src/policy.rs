//! Which destinations are forwarded, and by which interface. Pure.
//!
//! A flow is refused if its destination is reserved, then if no forwarded network has it, then if the user's [`Rules`]
//! deny it. So rules only ever restrict.
//!
//! The user's [`Choice`] and a [`Snapshot`] of the laptop's networks become two things, independent of each other:
//! - a [`Policy`], which decides about each new flow and names the networks that the sidecar routes into the tunnel;
//! - a [`Report`], which tells the user why: each forwarded network with its reason, hints, and overlaps.
//!
//! [`tunnel_avoid`] says which networks the tunnel's own addresses must not be taken from.
//!
//! [`Snapshot`]: crate::netwatch::Snapshot

mod choice;
mod codespace;
mod decision;
mod fib;
mod hints;
mod host;
mod host_port;
mod prefix_map;
mod ranges;
mod refused;
mod report;
mod rules;

pub use self::choice::{Choice, ParseRouteError, RouteChoice};
pub use self::codespace::Codespace;
pub use self::decision::{Policy, rule};
pub use self::hints::{Hint, Overlap};
pub use self::host_port::{HOST_DOMAIN, HOST_NAME, HostPort};
pub use self::ranges::private_ranges;
pub use self::report::{ForwardedRoute, Reason, Report, tunnel_avoid};
pub use self::rules::{Action, MAX_RULES, Origin, ParseRuleError, Pattern, Rule, Rules, Target, Written};
pub use crate::engine::{InterfaceIndex, Protocol, Refusal, Verdict};

#[cfg(test)]
mod tests;
