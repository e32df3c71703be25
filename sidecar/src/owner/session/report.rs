//! What a session reports: its status, and the laptop's routes that are refused.

use std::time::UNIX_EPOCH;

use gh_net_common::frame::{self, DnsMode, Level};
use tokio::time::Instant;

use super::Session;
use crate::hook::plan::{MAX_ROUTES, Refused};
use crate::status::{self, Counters, Status};

impl Session {
    pub(super) fn report(&mut self, refused: Refused) {
        let Refused { family, never, surplus } = refused;
        let family_text =
            format!("{family} routes are ignored: the tunnel does not have their address family");
        let never_text =
            format!("{never} routes are ignored: loopback, link-local, multicast or the tunnel itself");
        let surplus_text = format!("{surplus} routes are ignored: more than {MAX_ROUTES} at a time");
        for (code, count, text) in [
            ("routes-family", family, family_text),
            ("routes-reserved", never, never_text),
            ("routes-surplus", surplus, surplus_text),
        ] {
            // Only one notice of each kind: the laptop's routes may change every second.
            if count > 0 && self.notified.insert(code) {
                self.notify(Level::Warning, code, text);
            }
        }
    }

    /// The status for the laptop.
    pub(super) fn wire_status(&self) -> frame::SidecarStatus {
        let Counters {
            uplink_packets,
            uplink_bytes,
            downlink_packets,
            downlink_bytes,
            downlink_malformed,
            downlink_refused,
            uplink_dropped,
        } = self.counters;
        frame::SidecarStatus {
            uptime: self.started.elapsed().as_secs(),
            dns: self.names.mode(),
            resolver_hook: self.names.is_hooked(),
            routes: u32::try_from(self.hook.forwarded(&self.plan).len()).unwrap_or(u32::MAX),
            counters: frame::SidecarCounters {
                uplink_packets,
                uplink_bytes,
                downlink_packets,
                downlink_bytes,
                downlink_malformed,
                downlink_refused,
                rebind_refused: self.names.rebind_refused(),
                uplink_dropped,
            },
        }
    }

    /// The status for `gh-net-sidecar status`.
    pub(crate) fn status(&self) -> Status {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        Status {
            session: self.id.iter().map(|byte| format!("{byte:02x}")).collect(),
            since: self.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            seconds: self.started.elapsed().as_secs(),
            link: match &self.link {
                Some(link) => status::LinkState::Up { peer: link.peer },
                None => status::LinkState::Grace { seconds: left.unwrap_or_default().as_secs() },
            },
            device: self.hook.name().to_owned(),
            mtu: self.hook.mtu(),
            addresses: self
                .hook
                .addresses()
                .iter()
                .map(|a| status::Address { sidecar: a.sidecar, gateway: a.gateway })
                .collect(),
            routes: self.hook.forwarded(&self.plan),
            dns: match self.names.mode() {
                DnsMode::Off => "off",
                DnsMode::Split => "split",
                DnsMode::SplitStrict => "split-strict",
                DnsMode::Local => "local",
            }
            .to_owned(),
            left_out: self.known.left_out(&self.from),
            owner: std::process::id(),
            counters: self.counters,
        }
    }
}
