//! The sessions as a picture on a terminal that is drawn over the last one. It has no colours. Pure.

use std::fmt::Write;

use super::seen::Seen;
use crate::status::text;

/// The last picture.
#[derive(Debug, Default)]
pub(super) struct Picture {
    text: String,
}

impl Picture {
    /// The output that replaces the last picture; nothing if it would be the same.
    pub(super) fn render(&mut self, seen: &[Seen], now: u64, rows: usize) -> String {
        let text = clipped(&text_of(seen, now), rows.saturating_sub(1).max(1));
        if text == self.text {
            return String::new();
        }
        let mut out = String::new();
        let last = std::mem::replace(&mut self.text, text).lines().count();
        // Writing to a string does not fail.
        if last > 0 {
            let _ = write!(out, "\x1b[{last}A");
        }
        // Long lines are cut by the terminal: wrapped, they would take more rows than were counted.
        out.push_str("\r\x1b[?7l");
        for line in self.text.lines() {
            let _ = writeln!(out, "{line}\x1b[K");
        }
        out.push_str("\x1b[J\x1b[?7h");
        out
    }
}

fn text_of(seen: &[Seen], now: u64) -> String {
    if seen.is_empty() {
        return "no session\n".to_owned();
    }
    let sessions = seen.iter().map(|seen| match &seen.status {
        Some(status) => text::text(status, now),
        None => format!("process   {} does not answer\n", seen.process),
    });
    sessions.collect::<Vec<_>>().join("\n")
}

/// As much as fits into so many rows.
fn clipped(text: &str, rows: usize) -> String {
    let count = text.lines().count();
    if count <= rows {
        return text.to_owned();
    }
    let mut shown: String = text.lines().take(rows - 1).map(|line| format!("{line}\n")).collect();
    let _ = writeln!(shown, "and {} more lines", count - (rows - 1));
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(state: &str) -> Vec<Seen> {
        let status = json!({ "session": { "target": "x", "state": state, "since": 0 } });
        vec![Seen { process: "7".into(), status: Some(status) }]
    }

    #[test]
    fn a_picture_is_drawn_over_the_last_one_if_it_differs() {
        let mut picture = Picture::default();
        let first = picture.render(&seen("opening"), 0, 100);
        assert!(first.contains("x opening") && !first.contains('A'), "{first:?}");
        assert_eq!(picture.render(&seen("opening"), 0, 100), "");
        let lines = first.matches('\n').count();
        let second = picture.render(&seen("open"), 1, 100);
        assert!(second.starts_with(&format!("\x1b[{lines}A\r")), "{second:?}");
        assert!(second.ends_with("\x1b[J\x1b[?7h"), "{second:?}");
    }

    #[test]
    fn it_never_scrolls() {
        for rows in 0..30 {
            let drawn = Picture::default().render(&seen("open"), 0, rows);
            assert!(drawn.matches('\n').count() <= rows.saturating_sub(1).max(1), "{rows}: {drawn:?}");
        }
        assert_eq!(clipped("a\nb\nc\n", 2), "a\nand 2 more lines\n");
    }
}
