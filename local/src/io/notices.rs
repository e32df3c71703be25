//! The sidecar's words to the user.

use std::time::{Duration, Instant};

use gh_net_common::frame::{Level, Notice};
use gh_net_common::hello::printable;

use super::limit::RateLimit;

/// How many lines the sidecar may say in [`PERIOD`].
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(1);

/// Shows notices, each line as one of the log's and as the sidecar's: what it says can't look like a line of ours.
#[derive(Debug)]
pub struct Notices {
    limit: RateLimit,
}

impl Default for Notices {
    fn default() -> Self {
        Self { limit: RateLimit::new(PERIOD, LINES) }
    }
}

impl Notices {
    /// Passes a notice on to the user; a flood of them only in part.
    pub fn show(&mut self, notice: &Notice, now: Instant) {
        for line in self.admitted(&notice.text, now) {
            match notice.level {
                Level::Info => tracing::info!("sidecar: {line}"),
                Level::Warning => tracing::warn!("sidecar: {line}"),
                Level::Error => tracing::error!("sidecar: {line}"),
            }
        }
    }

    fn admitted(&mut self, text: &str, now: Instant) -> Vec<String> {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.take_while(|_| self.limit.admits(now)).map(printable).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_said_by_itself_and_none_drives_the_terminal() {
        let text = "first\r\n\n12:00:00  INFO ready: not so\x1b[2J\n";
        let lines = Notices::default().admitted(text, Instant::now());
        assert_eq!(lines, ["first", "12:00:00  INFO ready: not so\u{fffd}[2J"]);
    }

    #[test]
    fn a_flood_is_shown_in_part() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        let shown = |notices: &mut Notices, now| notices.admitted(&"x\n".repeat(4000), now).len();
        assert_eq!((shown(&mut notices, now), shown(&mut notices, now)), (LINES as usize, 0));
        assert_eq!(shown(&mut notices, now + PERIOD), LINES as usize);
    }
}
