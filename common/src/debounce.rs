//! Groups the kernel's events into changes: a VPN client sets dozens of routes, one by one.
//!
//! A snapshot in the middle of such a series shows networks that are about to come back as removed. So each report says
//! whether the series has ended.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// A series of events ends when none has come for this time.
const QUIET: Duration = Duration::from_millis(250);
/// A series that goes on is reported at this interval, so that new networks don't wait for its end.
const INTERVAL: Duration = Duration::from_millis(500);
/// A series is reported as ended after this time even if events continue: on some machines something always changes, and
/// networks that are gone must not be kept forever.
const MAX_SERIES: Duration = Duration::from_secs(10);

/// The state of a series of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// It has ended: a snapshot shows its result.
    Settled,
    /// It goes on: in a snapshot, what is missing may be about to come back.
    Ongoing,
}

/// Turns events into reports.
#[derive(Debug, Default)]
pub struct Debounce {
    /// The series under way.
    series: Option<Series>,
}

#[derive(Debug)]
struct Series {
    began: Instant,
    last_event: Instant,
    last_report: Instant,
}

impl Debounce {
    /// Begins a series if none is under way, so that its end is reported even if no event comes.
    pub fn begin(&mut self) {
        self.series();
    }

    fn series(&mut self) -> &mut Series {
        let now = Instant::now();
        self.series.get_or_insert(Series { began: now, last_event: now, last_report: now })
    }

    /// Waits for the next report. `event` waits for an event. Cancel safe if `event` is: the series stays under way, and
    /// its times are those of its events, however often the wait begins again.
    ///
    /// # Errors
    /// Those of `event`.
    pub async fn changes<E>(&mut self, mut event: impl AsyncFnMut() -> Result<(), E>) -> Result<Changes, E> {
        if self.series.is_none() {
            event().await?;
        }
        let series = self.series();
        loop {
            let (quiet, report) = (series.last_event + QUIET, series.last_report + INTERVAL);
            match timeout_at(quiet.min(report), event()).await {
                Ok(event) => {
                    event?;
                    series.last_event = Instant::now();
                }
                Err(_) if quiet <= report => break,
                Err(_) => {}
            }
            if series.began.elapsed() >= MAX_SERIES {
                break;
            }
            if Instant::now() >= report {
                series.last_report = Instant::now();
                return Ok(Changes::Ongoing);
            }
        }
        self.series = None;
        Ok(Changes::Settled)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::time::{sleep, timeout};

    use super::*;

    /// The reports on events at these times in milliseconds, each with its own time.
    async fn reports(events: impl IntoIterator<Item = u64>) -> Vec<(u64, Changes)> {
        let start = Instant::now();
        let mut events = events.into_iter().map(|at| start + Duration::from_millis(at)).peekable();
        let mut debounce = Debounce::default();
        let mut reports = Vec::new();
        loop {
            let event = async || {
                match events.peek() {
                    Some(at) => tokio::time::sleep_until(*at).await,
                    None => std::future::pending().await,
                }
                events.next();
                Ok::<_, Infallible>(())
            };
            match timeout(Duration::from_secs(60), debounce.changes(event)).await {
                Ok(Ok(changes)) => reports.push((start.elapsed().as_millis() as u64, changes)),
                Err(_no_more) => return reports,
            }
        }
    }

    use Changes::{Ongoing, Settled};

    #[tokio::test(start_paused = true)]
    async fn a_short_series_is_one_change() {
        assert_eq!(reports([0, 40, 80]).await, [(330, Settled)]);
        assert_eq!(reports([0, 1000]).await, [(250, Settled), (1250, Settled)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_series_is_reported_before_its_end() {
        let rewrite = (0..=600).step_by(50);
        assert_eq!(reports(rewrite).await, [(500, Ongoing), (850, Settled)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_series_without_end_is_taken_for_settled_at_intervals() {
        let reports = reports((0..30_000).step_by(100)).await;
        let settled: Vec<_> = reports.iter().filter(|(_, changes)| *changes == Settled).collect();
        assert_eq!(settled.len(), 3, "{reports:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_series_that_was_begun_ends_without_an_event() {
        let mut debounce = Debounce::default();
        debounce.begin();
        let never = async || std::future::pending::<Result<(), Infallible>>().await;
        assert_eq!(debounce.changes(never).await, Ok(Settled));
        assert!(timeout(Duration::from_secs(60), debounce.changes(never)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_wait_loses_no_change() {
        let mut debounce = Debounce::default();
        let mut events = 1;
        let mut once = async || {
            if events == 0 {
                sleep(Duration::from_secs(3600)).await;
            }
            events -= 1;
            Ok::<_, Infallible>(())
        };
        for _ in 0..3 {
            assert!(timeout(QUIET / 4, debounce.changes(&mut once)).await.is_err());
        }
        assert_eq!(timeout(QUIET / 2, debounce.changes(&mut once)).await, Ok(Ok(Settled)));
    }
}
