//! Measures the time of a task's steps.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::resource::{UsageWho, getrusage};

/// The finished steps of a task.
pub(crate) struct Steps(Vec<Step>);

struct Step {
    name: &'static str,
    /// The elapsed time.
    wall: Duration,
    /// The CPU time. On a machine that is also busy with something else, only this is comparable.
    cpu: Duration,
}

impl Steps {
    /// Runs a task, then prints a table of its steps, even if it failed.
    pub(crate) fn of(task: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut steps = Self(Vec::new());
        let done = task(&mut steps);
        println!("\n{}", steps.table());
        done
    }

    /// Runs a step.
    pub(crate) fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let (started, cpu) = (Instant::now(), cpu_time());
        let done = step();
        self.0.push(Step { name, wall: started.elapsed(), cpu: cpu_time().saturating_sub(cpu) });
        done
    }

    fn table(&self) -> String {
        let mut lines = vec![format!("{:<28}{:>8}{:>8}", "step", "wall s", "cpu s")];
        let line = |name: &str, wall: Duration, cpu: Duration| {
            format!("{name:<28}{:>8.1}{:>8.1}", wall.as_secs_f64(), cpu.as_secs_f64())
        };
        lines.extend(self.0.iter().map(|step| line(step.name, step.wall, step.cpu)));
        let sum = |time: fn(&Step) -> Duration| self.0.iter().map(time).sum();
        lines.push(line("total", sum(|step| step.wall), sum(|step| step.cpu)));
        lines.join("\n")
    }
}

/// The CPU time of this process and its children that have ended.
fn cpu_time() -> Duration {
    let used = |who| {
        let Ok(usage) = getrusage(who) else { return Duration::ZERO };
        let times = [usage.user_time(), usage.system_time()];
        let micros = times.iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum::<i64>();
        Duration::from_micros(micros.unsigned_abs())
    };
    used(UsageWho::RUSAGE_SELF) + used(UsageWho::RUSAGE_CHILDREN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_step_and_their_sum() {
        let step = |name, wall| Step { name, wall: Duration::from_secs(wall), cpu: Duration::from_secs(1) };
        let table = Steps(vec![step("format", 2), step("lints", 40)]).table();
        let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["format", "2.0", "1.0"]);
        assert_eq!(rows[2], ["lints", "40.0", "1.0"]);
        assert_eq!(rows[3], ["total", "42.0", "2.0"]);
    }
}
