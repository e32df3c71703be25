//! `gh-net-sidecar status`: the state of the session, for people and, with `--json`, for programs.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The version of the JSON document. Additional fields do not change it.
pub(crate) const SCHEMA: u32 = 1;

/// Packets and bytes since the session began.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Packets to the laptop.
    pub(crate) uplink_packets: u64,
    /// Their bytes.
    pub(crate) uplink_bytes: u64,
    /// Packets from the laptop.
    pub(crate) downlink_packets: u64,
    /// Their bytes.
    pub(crate) downlink_bytes: u64,
    /// Packets from the laptop that are no IP packets.
    pub(crate) downlink_malformed: u64,
    /// Packets from the laptop that the kernel refused.
    pub(crate) downlink_refused: u64,
    /// Packets to the laptop that were dropped because more waited for the link than there is room for.
    #[serde(default)]
    pub(crate) uplink_dropped: u64,
}

/// The session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Its id, in hexadecimal.
    pub(crate) session: String,
    /// When it began, in seconds since 1970.
    pub(crate) since: u64,
    /// How long it has lasted, in seconds.
    pub(crate) seconds: u64,
    /// Its link.
    pub(crate) link: LinkState,
    /// The device's name.
    pub(crate) device: String,
    /// The device's MTU in bytes.
    pub(crate) mtu: u16,
    /// The tunnel's addresses.
    pub(crate) addresses: Vec<Address>,
    /// The laptop's networks that are forwarded.
    pub(crate) routes: Vec<IpNet>,
    /// Who answers names: off, split or local.
    pub(crate) dns: String,
    /// What there is no room for, as text.
    #[serde(default)]
    pub(crate) left_out: Vec<String>,
    /// The owner's process id.
    pub(crate) owner: u32,
    /// Packets and bytes so far.
    pub(crate) counters: Counters,
}

/// Whether the laptop is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub(crate) enum LinkState {
    /// It is.
    Up {
        /// The other end of the ssh connection.
        peer: Option<IpAddr>,
    },
    /// The link was lost; the session ends unless another link resumes it.
    Grace {
        /// Seconds left.
        seconds: u64,
    },
}

/// The two ends of the tunnel in one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    /// The codespace's end.
    pub(crate) sidecar: IpNet,
    /// The laptop's end.
    pub(crate) gateway: IpAddr,
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    version: &'static str,
    session: Option<&'a Status>,
}

/// The JSON form, one line.
pub(crate) fn json(status: Option<&Status>) -> serde_json::Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    serde_json::to_string(&Document { schema: SCHEMA, version, session: status })
}

/// The form for people.
pub(crate) fn plain(status: Option<&Status>) -> String {
    let Some(status) = status else { return "no session\n".to_owned() };
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<9} {text}");
    };
    let running = duration(Duration::from_secs(status.seconds));
    line("session", format!("{}, for {running}, owner {}", status.session, status.owner));
    line(
        "link",
        match &status.link {
            LinkState::Up { peer: Some(peer) } => format!("up, from {peer}"),
            LinkState::Up { peer: None } => "up".to_owned(),
            LinkState::Grace { seconds } => format!("lost; the session ends in {seconds} s"),
        },
    );
    line("device", format!("{}, MTU {}", status.device, status.mtu));
    for address in &status.addresses {
        line("address", format!("{}, laptop {}", address.sidecar, address.gateway));
    }
    line("dns", status.dns.clone());
    let Counters { uplink_packets, uplink_bytes, downlink_packets, downlink_bytes, .. } = status.counters;
    line("uplink", format!("{uplink_packets} packets, {uplink_bytes} bytes"));
    line("downlink", format!("{downlink_packets} packets, {downlink_bytes} bytes"));
    let Counters {
        downlink_malformed: malformed, downlink_refused: refused, uplink_dropped: surplus, ..
    } = status.counters;
    if malformed + refused + surplus > 0 {
        line(
            "dropped",
            format!(
                "{malformed} malformed, {refused} refused by the kernel, {surplus} too many for the link"
            ),
        );
    }
    for left_out in &status.left_out {
        line("left out", left_out.clone());
    }
    line("routes", status.routes.len().to_string());
    for route in &status.routes {
        line("", route.to_string());
    }
    out
}

/// A duration in its two largest units.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} days {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            session: "00ff".into(),
            since: 1_700_000_000,
            seconds: 754,
            link: LinkState::Grace { seconds: 87 },
            device: "ghnet0".into(),
            mtu: 65_520,
            addresses: vec![Address {
                sidecar: "198.19.240.1/30".parse().unwrap(),
                gateway: "198.19.240.2".parse().unwrap(),
            }],
            routes: vec!["10.20.0.0/16".parse().unwrap()],
            dns: "split".into(),
            left_out: vec!["packets of br-9".into()],
            owner: 4711,
            counters: Counters { downlink_malformed: 3, ..Counters::default() },
        }
    }

    #[test]
    fn people_see_what_matters() {
        let text = plain(Some(&status()));
        for part in [
            "12 min 34 s",
            "lost; the session ends in 87 s",
            "198.19.240.1/30",
            "10.20.0.0/16",
            "3 malformed",
            "left out  packets of br-9",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
        assert_eq!(plain(None), "no session\n");
    }

    #[test]
    fn programs_see_a_schema_and_the_same() {
        let value: serde_json::Value = serde_json::from_str(&json(Some(&status())).unwrap()).unwrap();
        assert_eq!(value["schema"], 1);
        assert_eq!(value["session"]["link"]["state"], "grace");
        assert_eq!(value["session"]["routes"][0], "10.20.0.0/16");
        let value: serde_json::Value = serde_json::from_str(&json(None).unwrap()).unwrap();
        assert!(value["session"].is_null());
    }
}
