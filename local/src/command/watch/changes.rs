//! The sessions as documents, one for each change of a session's state. Pure.
//!
//! The state is that of session and link, the forwarded networks and the notes. Flows, lookups, counters and round trips
//! always change, and cause no document.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::seen::Seen;
use crate::status::{SCHEMA, text};

/// What was printed last of each session.
#[derive(Debug)]
pub(super) struct Changes {
    json: bool,
    /// By process.
    last: BTreeMap<String, Value>,
    begun: bool,
}

impl Changes {
    /// Nothing was printed. As lines of JSON, or as text.
    pub(super) fn new(json: bool) -> Self {
        Self { json, last: BTreeMap::new(), begun: false }
    }

    /// The documents of the sessions that have changed, begun or ended.
    pub(super) fn render(&mut self, seen: &[Seen], now: u64) -> String {
        let mut out = String::new();
        let begun = std::mem::replace(&mut self.begun, true);
        if !begun && seen.is_empty() && !self.json {
            out.push_str("no session\n");
        }
        for Seen { process, status } in seen {
            // One that does not answer has not changed, as far as anybody knows.
            let Some(status) = status else { continue };
            let changed = self.last.get(process).is_none_or(|last| state(last) != state(status));
            if changed {
                self.print(&mut out, status, now);
            }
            self.last.insert(process.clone(), status.clone());
        }
        let ended = |process: &str| !seen.iter().any(|seen| seen.process == process);
        for (_, last) in self.last.extract_if(.., |process, _| ended(process)) {
            out.push_str(&if self.json { format!("{}\n", end(&last, now)) } else { text::ended(&last) });
        }
        out
    }

    fn print(&self, out: &mut String, status: &Value, now: u64) {
        if self.json {
            out.push_str(&format!("{status}\n"));
        } else {
            out.push_str(&text::text(status, now));
            out.push('\n');
        }
    }
}

/// What is not always changing.
fn state(status: &Value) -> Value {
    let mut link = status["link"].clone();
    if let Some(link) = link.as_object_mut() {
        link.remove("round_trip_ms");
    }
    json!([status["session"], link, status["routes"], status["notes"]])
}

/// The document that a session has ended.
fn end(last: &Value, now: u64) -> Value {
    let target = &last["session"]["target"];
    json!({
        "schema": SCHEMA,
        "version": last["version"],
        "pid": last["pid"],
        "session": { "target": target, "state": "ended", "since": now },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(process: &str, link: &str, bytes: u64) -> Seen {
        let status = json!({
            "schema": SCHEMA,
            "pid": 7,
            "session": { "target": "x", "state": "open" },
            "link": { "state": link, "round_trip_ms": bytes },
            "counters": { "uplink_bytes": bytes },
        });
        Seen { process: process.into(), status: Some(status) }
    }

    fn lines(text: &str) -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn each_change_of_state_is_one_line_and_traffic_none() {
        let mut changes = Changes::new(true);
        assert_eq!(lines(&changes.render(&[seen("7", "up", 1)], 0)).len(), 1);
        assert_eq!(changes.render(&[seen("7", "up", 2)], 0), "");
        let silent = Seen { process: "7".into(), status: None };
        assert_eq!(changes.render(&[silent], 0), "");
        let down = lines(&changes.render(&[seen("7", "down", 2)], 0));
        assert_eq!(down[0]["link"]["state"], "down");
        assert_eq!(lines(&changes.render(&[seen("7", "down", 2), seen("8", "up", 2)], 0)).len(), 1);
        let ended = lines(&changes.render(&[seen("8", "up", 2)], 99));
        assert_eq!(
            ended,
            [json!({
                "schema": SCHEMA, "version": null, "pid": 7,
                "session": { "target": "x", "state": "ended", "since": 99 },
            })]
        );
    }

    #[test]
    fn as_text_each_document_ends_with_an_empty_line() {
        let mut changes = Changes::new(false);
        let text = changes.render(&[seen("7", "up", 1)], 0);
        assert!(text.contains("x open") && text.ends_with("\n\n"), "{text:?}");
        assert_eq!(changes.render(&[], 5), "session   x has ended\n");
        assert_eq!(Changes::new(false).render(&[], 0), "no session\n");
    }
}
