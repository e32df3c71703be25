//! Messages of the sidecar for the user.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use gh_net_common::frame::{Level, Notice};
use gh_net_common::hello::printable;

use crate::limit::RateLimit;

/// Maximum number of lines the sidecar may log per [`PERIOD`].
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(1);
/// Number of warnings and errors that are kept for the status.
const KEPT: usize = 16;
/// Maximum length of a line in the log, and of a text that is kept, in characters.
const KEPT_TEXT: usize = 1000;

/// The end of the code of a notice that takes back those with the rest of its code.
const ENDED: &str = "-ended";

/// Logs notices, each line as one line of the log that names the sidecar, so that it can't imitate our own lines.
#[derive(Debug)]
pub struct Notices {
    limit: RateLimit,
    kept: VecDeque<Notice>,
}

impl Default for Notices {
    fn default() -> Self {
        Self { limit: RateLimit::new(PERIOD, LINES), kept: VecDeque::new() }
    }
}

impl Notices {
    /// Shows a notice to the user; of a flood only a part. Warnings and errors are kept, until a notice says that what
    /// their code stands for has ended.
    pub fn show(&mut self, notice: &Notice, now: Instant) {
        if notice.level != Level::Info {
            self.keep(notice);
        } else if let Some(code) = notice.code.strip_suffix(ENDED) {
            self.kept.retain(|kept| kept.code != code);
        }
        for line in self.admitted(&notice.text, now) {
            match notice.level {
                Level::Info => tracing::info!("sidecar: {line}"),
                Level::Warning => tracing::warn!("sidecar: {line}"),
                Level::Error => tracing::error!("sidecar: {line}"),
            }
        }
    }

    /// The latest warnings and errors, oldest first, each once and printable.
    pub fn kept(&self) -> Vec<Notice> {
        self.kept.iter().cloned().collect()
    }

    fn keep(&mut self, notice: &Notice) {
        let text = printable(notice.text.trim()).chars().take(KEPT_TEXT).collect();
        let notice = Notice { level: notice.level, code: printable(&notice.code), text };
        self.kept.retain(|kept| *kept != notice);
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(notice);
    }

    fn admitted(&mut self, text: &str, now: Instant) -> Vec<String> {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let shown = |line: &str| printable(line).chars().take(KEPT_TEXT).collect();
        lines.take_while(|_| self.limit.admits(now)).map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_logged_separately_without_control_characters() {
        let text = "first\r\n\n12:00:00  INFO ready: not so\x1b[2J\n";
        let lines = Notices::default().admitted(text, Instant::now());
        assert_eq!(lines, ["first", "12:00:00  INFO ready: not so\u{fffd}[2J"]);
    }

    #[test]
    fn the_latest_warnings_are_kept_each_once() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        let notice = |level, text: &str| Notice { level, code: "dns".into(), text: text.into() };
        notices.show(&notice(Level::Info, "fine"), now);
        for number in (0..KEPT + 2).chain([5, 5]) {
            notices.show(&notice(Level::Warning, &format!("\x07{number}")), now);
        }
        let kept = notices.kept();
        assert_eq!((kept.len(), kept[0].text.as_str()), (KEPT, "\u{fffd}2"));
        assert_eq!(kept.iter().filter(|kept| kept.text == "\u{fffd}5").count(), 1);
    }

    #[test]
    fn what_has_ended_is_kept_no_longer() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        let notice = |level, code: &str| Notice { level, code: code.into(), text: "text".into() };
        for code in ["left-out", "other", "-ended"] {
            notices.show(&notice(Level::Warning, code), now);
        }
        notices.show(&notice(Level::Info, "left-out-ended"), now);
        let kept: Vec<String> = notices.kept().into_iter().map(|kept| kept.code).collect();
        assert_eq!(kept, ["other", "-ended"]);
    }

    #[test]
    fn a_flood_is_rate_limited() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        let shown = |notices: &mut Notices, now| notices.admitted(&"x\n".repeat(4000), now).len();
        assert_eq!((shown(&mut notices, now), shown(&mut notices, now)), (LINES as usize, 0));
        assert_eq!(shown(&mut notices, now + PERIOD), LINES as usize);
    }
}
