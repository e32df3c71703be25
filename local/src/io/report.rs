//! Io's counters and state, for the status.

use std::time::{Duration, Instant};

use gh_net_common::frame::{Notice, SidecarStatus};

use super::events::Denial;
use super::names::Lookup;
use super::warning::Warning;
use crate::engine::{self, FlowView};

/// Counts since the start, and gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// The engine's counters.
    pub engine: engine::Counters,
    /// Bytes of packets from the codespace.
    pub uplink_bytes: u64,
    /// Bytes of packets to the codespace.
    pub downlink_bytes: u64,
    /// Lanes of the link, or of the last one.
    pub lanes: usize,
    /// The last measured round trip of a ping over the link.
    pub round_trip: Option<Duration>,
    /// Sockets open now.
    pub sockets: usize,
    /// Sockets that could not be opened.
    pub sockets_refused: u64,
    /// Datagrams and echo requests that the laptop's kernel did not accept.
    pub datagrams_dropped: u64,
    /// DNS queries, and connections to the resolver, that were dropped because there were too many.
    pub queries_dropped: u64,
}

/// A snapshot of io, made on request.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The counters.
    pub counters: Counters,
    /// The flows the engine knows, finished TCP connections that are remembered included.
    pub flows: Vec<FlowView>,
    /// The latest refused flows, oldest first.
    pub denials: Vec<Denial>,
    /// The latest DNS lookups, oldest first.
    pub lookups: Vec<Lookup>,
    /// The latest warning of each kind about the laptop's sockets.
    pub warnings: Vec<Warning>,
    /// The sidecar's latest warnings and errors, printable.
    pub notices: Vec<Notice>,
    /// The sidecar's latest status, and when it arrived. It is asked for a newer one with each report.
    pub sidecar: Option<(SidecarStatus, Instant)>,
}
