//! Notices that the laptop has woken from sleep.
//!
//! A timer on the wall clock that is cancelled when that clock is set (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`)
//! fires on wake, too, because the kernel sets the clock then. The time that CLOCK_BOOTTIME gained on CLOCK_MONOTONIC
//! tells a wake from a mere change of the clock. Nothing runs in between.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use gh_net_common::sys::ReadyFd;
use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// A sleep of at least this length is a wake.
const ASLEEP: Duration = Duration::from_secs(1);
/// When the timer expires: in the year 2038, the latest that fits everywhere.
const NEVER: Timespec = Timespec { tv_sec: i32::MAX as i64, tv_nsec: 0 };

/// Watches for wakes.
#[derive(Debug)]
pub(super) struct WakeWatch {
    timer: ReadyFd,
    asleep: Duration,
}

impl WakeWatch {
    /// Begins to watch, within a tokio runtime.
    ///
    /// # Errors
    /// The kernel provides no such timer.
    pub(super) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        arm(&timer)?;
        Ok(Self { timer: ReadyFd::new(timer)?, asleep: time_asleep() })
    }

    /// Waits for the next wake. Returns how long the laptop slept. Cancel safe.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn woken(&mut self) -> io::Result<Duration> {
        loop {
            let mut guard = self.timer.readable().await?;
            match rustix::io::read(self.timer.get_ref(), &mut [0; 8]) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                // The clock was set, or the timer has expired after all.
                Err(Errno::CANCELED) | Ok(_) => arm(self.timer.get_ref())?,
                Err(errno) => return Err(errno.into()),
            }
            if let Some(slept) = slept(&mut self.asleep, time_asleep()) {
                return Ok(slept);
            }
        }
    }
}

/// How long the laptop has slept since the last look, if it was a sleep: `before` and `now` are its total times asleep.
/// Pure.
fn slept(before: &mut Duration, now: Duration) -> Option<Duration> {
    let slept = now.saturating_sub(*before);
    *before = now;
    (slept >= ASLEEP).then_some(slept)
}

fn arm(timer: &OwnedFd) -> io::Result<()> {
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: NEVER };
    timerfd_settime(timer, flags, &once)?;
    Ok(())
}

/// How long the laptop has slept since it was started.
fn time_asleep() -> Duration {
    let time = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    time(ClockId::Boottime).saturating_sub(time(ClockId::Monotonic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_no_wake_and_each_sleep_is_one() {
        let mut asleep = Duration::from_secs(100);
        // The wall clock was set, forwards or backwards: the time asleep is the same.
        assert_eq!(slept(&mut asleep, Duration::from_secs(100)), None);
        assert_eq!(slept(&mut asleep, Duration::from_secs(3700)), Some(Duration::from_secs(3600)));
        assert_eq!(slept(&mut asleep, Duration::from_secs(3700)), None, "it is reported once");
        // The two clocks are not read at the same moment.
        assert_eq!(slept(&mut asleep, Duration::from_millis(3_700_020)), None);
        assert_eq!(slept(&mut asleep, Duration::from_millis(3_700_000)), None);
        assert_eq!(slept(&mut asleep, Duration::from_secs(3702)), Some(Duration::from_secs(2)));
    }

    #[tokio::test]
    async fn without_sleep_no_wake_is_reported() {
        let mut watch = WakeWatch::new().unwrap();
        let woken = tokio::time::timeout(Duration::from_millis(50), watch.woken()).await;
        assert!(woken.is_err(), "{woken:?}");
    }
}
