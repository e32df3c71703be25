//! `cargo xtask bench --far`: gh-net over distant lines, beside the raw ssh pipe and one bare TCP connection.
//!
//! The lines are measured in turn, for several rounds, each in a lab of its own. Rates are taken by the receiver, after a
//! warm-up. Echoes and questions are sent through the bridge: idle, and while bulk streams run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::distance::{Distance, NAMED};
use figures::Carrier;
use measures::Round;
use report::Row;

use super::machine;

mod bulk;
mod figures;
mod measures;
mod report;

/// What to measure.
pub(super) struct Plan<'a> {
    /// Names, or descriptions, of lines; without any, all that have a name.
    pub(super) links: &'a [String],
    /// Parts of the names of carriers; without any, all.
    pub(super) only: &'a [String],
    pub(super) rounds: u32,
    pub(super) seconds: u64,
    pub(super) json: Option<&'a Path>,
}

impl Plan<'_> {
    /// Measures everything, and prints it.
    pub(super) fn run(&self) -> Result<()> {
        let (carriers, mut rows) = (self.carriers(), self.rows()?);
        ensure!(!carriers.is_empty(), "none of these is measured: {}", self.only.join(", "));
        let header = format!(
            "{}. {} rounds of {} s per figure, the lines in turn: median (least–most).",
            machine::describe()?,
            self.rounds,
            self.seconds
        );
        println!("{header}\n{}", machine::load()?);
        let mut failures = Vec::new();
        let ended = self.take_turns(&carriers, &mut rows, &mut failures);
        println!("{}", machine::load()?);
        // Also after an early end, because the measurements until then took long.
        println!("\n{header}\n\n{}", report::tables(&rows));
        if let Some(path) = self.json {
            let text = serde_json::to_string_pretty(&report::json(&rows, &header))?;
            fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        }
        ended?;
        ensure!(failures.is_empty(), "not everything could be measured:\n{}", failures.join("\n"));
        Ok(())
    }

    fn take_turns(&self, carriers: &[Carrier], rows: &mut [Row], failures: &mut Vec<String>) -> Result<()> {
        for number in 1..=self.rounds {
            for row in &mut *rows {
                let turn = format!("round {number} of {}: {}", self.rounds, row.name);
                println!("{turn}");
                let round = Round::of(row.distance, carriers, Duration::from_secs(self.seconds))?;
                row.rounds.push(round.sample);
                failures.extend(round.failures.into_iter().map(|why| format!("{turn}, {why}")));
            }
        }
        Ok(())
    }

    fn carriers(&self) -> Vec<Carrier> {
        let wanted = |carrier: &Carrier| {
            self.only.is_empty() || self.only.iter().any(|name| carrier.name().contains(name.as_str()))
        };
        Carrier::ALL.into_iter().filter(wanted).collect()
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let row =
            |name: &str, distance: Distance| Row { name: name.to_owned(), distance, rounds: Vec::new() };
        if self.links.is_empty() {
            return Ok(NAMED.iter().map(|(name, distance)| row(name, *distance)).collect());
        }
        self.links.iter().map(|link| Ok(row(link, link.parse()?))).collect()
    }
}
