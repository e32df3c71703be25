//! One timer for many deadlines.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// A timer that a poll function sets anew each time. Setting it to a later deadline costs nothing: it then wakes the
/// task once too early.
#[derive(Debug)]
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
}

impl Alarm {
    /// An alarm that is not set. Needs a tokio runtime with its timers enabled.
    pub fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), armed: None }
    }

    /// Ready if `deadline` has passed, or may have passed; otherwise the task is woken for it.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        if self.armed.is_none_or(|armed| deadline < armed) {
            self.sleep.as_mut().reset(deadline.into());
            self.armed = Some(deadline);
        }
        ready!(self.sleep.as_mut().poll(cx));
        self.armed = None;
        Poll::Ready(())
    }
}

impl Default for Alarm {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_set_later_still_rings_for_the_later_time() {
        let mut alarm = Alarm::new();
        let start = tokio::time::Instant::now();
        let late = start + Duration::from_millis(40);
        let early = start + Duration::from_millis(5);
        let _ = poll_fn(|cx| Poll::Ready(alarm.poll(cx, Some(early.into_std())))).await;
        while tokio::time::Instant::now() < late {
            poll_fn(|cx| alarm.poll(cx, Some(late.into_std()))).await;
        }
        assert!(start.elapsed() < Duration::from_millis(60));
    }
}
