//! The status for people, rendered from its serialised form: the program that shows it may be older or newer than the
//! one that runs the session. Pure.

use std::fmt::Write;
use std::time::Duration;

use gh_net_common::hello::printable;
use serde_json::Value;

/// Maximum number of flows and lookups that are shown.
const SHOWN: usize = 20;

/// The text for a serialised [`Status`](super::Status) at `now`, the Unix time in seconds.
pub fn text(status: &Value, now: u64) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<9} {value}");
    };
    let session = &status["session"];
    row(
        "session",
        format!("{} {} {}", word(&session["target"]), word(&session["state"]), since(session, now)),
    );
    row("process", word(&status["pid"]));
    row("link", link(&status["link"], now));
    if let Some(tunnel) = status["link"]["tunnel"].as_object() {
        let addresses = list(&tunnel["addresses"], word);
        row("tunnel", format!("{}, MTU {}, {addresses}", word(&tunnel["device"]), word(&tunnel["mtu"])));
    }
    row("names", word(&session["dns"]));
    column(&mut row, "networks", &status["routes"], |route| {
        format!("{} ({})", word(&route["prefix"]), reason(&route["reason"]))
    });
    if status["rules"].as_array().is_some_and(Vec::is_empty) {
        row("rules", "none: everything in these networks is allowed".to_owned());
    }
    column(&mut row, "rules", &status["rules"], word);
    let counters = &status["counters"];
    row(
        "traffic",
        format!("{} up, {} down", bytes(&counters["uplink_bytes"]), bytes(&counters["downlink_bytes"])),
    );
    row(
        "flows",
        format!(
            "{} now, {} in all",
            word(&counters["flows"]),
            counted(&counters["connections"], "connection")
        ),
    );
    column(&mut row, "", &status["flows"], |flow| {
        format!(
            "{} {} -> {} {}, {} up, {} down, {} s",
            word(&flow["protocol"]),
            word(&flow["client"]),
            word(&flow["server"]),
            word(&flow["state"]),
            bytes(&flow["uplink_bytes"]),
            bytes(&flow["downlink_bytes"]),
            word(&flow["age"])
        )
    });
    if let Some(reached) = bounds(&counters["bounds"]) {
        row("bounds", reached);
    }
    denied(&mut row, status, now);
    column(&mut row, "notes", &status["notes"], |note| {
        format!("{} [{}]", word(&note["text"]), word(&note["code"]))
    });
    out
}

/// The text that the session of this serialised status has ended.
pub fn ended(status: &Value) -> String {
    format!("{:<9} {} has ended\n", "session", word(&status["session"]["target"]))
}

/// What bounds refused or had wait, by kind; `None` if they did not.
fn bounds(bounds: &Value) -> Option<String> {
    let reached = bounds.as_object()?.iter().filter(|(_, count)| count.as_u64() != Some(0));
    let reached: Vec<String> =
        reached.map(|(kind, count)| format!("{} {}", printable(kind), word(count))).collect();
    (!reached.is_empty()).then(|| format!("refused or had to wait: {}", reached.join(", ")))
}

/// The refused flows, the latest first.
fn denied(row: &mut impl FnMut(&str, String), status: &Value, now: u64) {
    let mut latest = status["denied"].as_array().cloned().unwrap_or_default();
    if latest.is_empty() {
        return;
    }
    row("denied", format!("{} in all", counted(&status["counters"]["refused"], "packet")));
    latest.reverse();
    column(row, "", &Value::Array(latest), |denied| {
        let server = match denied["name"].as_str() {
            Some(name) => format!("{} ({})", printable(name), word(&denied["server"])),
            None => word(&denied["server"]),
        };
        let ago = span(now.saturating_sub(denied["last"].as_u64().unwrap_or(now)));
        let mut text = format!(
            "{} {} -> {server} {}x, last {ago} ago: {}",
            word(&denied["protocol"]),
            word(&denied["client"]),
            word(&denied["count"]),
            word(&denied["rule"]),
        );
        if let Some(remedy) = denied["remedy"].as_str() {
            let _ = write!(text, "; to allow it: {}", printable(remedy));
        }
        text
    });
}

fn link(link: &Value, now: u64) -> String {
    let end = link["end"].as_str().map(printable);
    if let Some(since) = link["lost_since"].as_u64() {
        let mut text = format!("reconnecting for {}", span(now.saturating_sub(since)));
        if let Some(end) = end {
            let _ = write!(text, " ({end})");
        }
        match link["next_attempt"].as_u64() {
            Some(at) => text.push_str(&format!("; next attempt in {}", span(at.saturating_sub(now)))),
            None => text.push_str("; connecting now"),
        }
        return text;
    }
    let mut text = format!("{} {}", word(&link["state"]), since(link, now));
    if let Some(trip) = link["round_trip_ms"].as_f64() {
        let _ = write!(text, ", round trip {trip:.1} ms");
    }
    if let Some(lanes @ 2..) = link["lanes"].as_u64() {
        let _ = write!(text, ", {lanes} lanes");
    }
    if link["state"] == "quiet" {
        text.push_str(
            ", nothing passes: the codespace may fall asleep, and data of a connection wakes the link",
        );
    } else if link["state"] != "up"
        && let Some(end) = end
    {
        let _ = write!(text, ", last: {end}");
    }
    text
}

/// A time in the way of the log's lines.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60.. => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}

fn reason(reason: &Value) -> String {
    match (reason["kind"].as_str(), reason["interface"].as_str(), reason["value"].as_str()) {
        (Some("connected"), Some(interface), _) => format!("connected on {interface}"),
        (Some("route"), Some(interface), _) => format!("route on {interface}"),
        (Some("option"), _, Some(value)) => format!("--route {value}"),
        _ => "route".to_owned(),
    }
}

/// Rows of a list, named in the first one.
fn column(row: &mut impl FnMut(&str, String), name: &str, values: &Value, render: impl Fn(&Value) -> String) {
    let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, value) in values.iter().take(SHOWN).enumerate() {
        row(if index == 0 { name } else { "" }, render(value));
    }
    if values.len() > SHOWN {
        row("", format!("and {} more", values.len() - SHOWN));
    }
}

fn list(values: &Value, render: impl Fn(&Value) -> String) -> String {
    let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
    values.iter().map(render).collect::<Vec<_>>().join(", ")
}

fn since(state: &Value, now: u64) -> String {
    let Some(since) = state["since"].as_u64() else { return String::new() };
    format!("for {}", humantime::format_duration(Duration::from_secs(now.saturating_sub(since))))
}

fn counted(count: &Value, what: &str) -> String {
    let ending = if count.as_u64() == Some(1) { "" } else { "s" };
    format!("{} {what}{ending}", word(count))
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Null => "-".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn bytes(value: &Value) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut amount = value.as_u64().unwrap_or_default() as f64;
    let mut unit = 0;
    while amount >= 1000.0 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{amount} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}
