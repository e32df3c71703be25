//! `cargo xtask bench --floods`: what another program of the codespace notices of a flood, and how much memory both ends
//! take for it. Each flood runs alone, and all together, each time over a fresh bridge in a lab of its own.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gh_net_lab::floods::{Flood, Flooding, Others};
use gh_net_lab::{Lab, Options, peak_memory};
use serde_json::{Value, json};

use super::figures::Spread;
use super::machine;
use super::table::{markdown, with_range};

/// How many curls, and how many digs.
const OTHERS: u32 = 100;

/// What to measure.
pub(super) struct Plan<'a> {
    /// Parts of the names of floods; without any, all.
    pub(super) only: &'a [String],
    pub(super) rounds: u32,
    pub(super) json: Option<&'a Path>,
}

/// Floods that run at once, and the rounds that were measured.
struct Row {
    name: &'static str,
    floods: Vec<Flood>,
    rounds: Vec<Sample>,
}

/// A round. Times are in ms, memory is in MiB.
#[derive(Default)]
struct Sample {
    curl: Option<Spread>,
    dig: Option<Spread>,
    failures: Vec<String>,
    gh_net: Option<f64>,
    /// All of its processes.
    sidecar: Option<f64>,
}

/// A column: its title, its value in a round, and how many decimals are shown.
type Column = (&'static str, fn(&Sample) -> Option<f64>, usize);

const COLUMNS: [Column; 7] = [
    ("curl median, ms", |sample| Some(sample.curl?.median), 1),
    ("curl slowest, ms", |sample| Some(sample.curl?.most), 1),
    ("dig median, ms", |sample| Some(sample.dig?.median), 1),
    ("dig slowest, ms", |sample| Some(sample.dig?.most), 1),
    ("failures", |sample| Some(sample.failures.len() as f64), 0),
    ("gh-net peak, MiB", |sample| sample.gh_net, 1),
    ("sidecar peak, MiB", |sample| sample.sidecar, 1),
];

impl Plan<'_> {
    /// Measures everything, and prints it.
    pub(super) fn run(&self) -> Result<()> {
        let mut rows = self.rows();
        ensure!(!rows.is_empty(), "no flood has such a name; the names are: {}", names());
        let header = format!(
            "{}. {} rounds of {OTHERS} curls and digs of another program, the floods in turn: median (least–most).",
            machine::describe()?,
            self.rounds
        );
        println!("{header}\n{}", machine::load()?);
        let ended = self.take_turns(&mut rows);
        println!("{}\n\n{header}\n\n{}", machine::load()?, table(&rows));
        for row in &rows {
            let failures = row.rounds.iter().flat_map(|round| &round.failures);
            failures.for_each(|failure| println!("- {}: {failure}", row.name));
        }
        if let Some(path) = self.json {
            let text = serde_json::to_string_pretty(&json(&rows, &header))?;
            fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        }
        ended
    }

    fn take_turns(&self, rows: &mut [Row]) -> Result<()> {
        for number in 1..=self.rounds {
            for row in &mut *rows {
                println!("round {number} of {}: {}", self.rounds, row.name);
                row.rounds.push(Sample::of(&row.floods).with_context(|| row.name)?);
            }
        }
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        let wanted = |(name, _): &(&str, _)| {
            self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
        };
        let row = |(name, floods)| Row { name, floods, rounds: Vec::new() };
        cases().into_iter().filter(wanted).map(row).collect()
    }
}

/// The floods that run at once.
fn cases() -> Vec<(&'static str, Vec<Flood>)> {
    let alone = Flood::ALL.map(|flood| (flood.name(), vec![flood]));
    [vec![("no flood", vec![])], alone.into(), vec![("all together", Flood::ALL.into())]].concat()
}

fn names() -> String {
    cases().iter().map(|(name, _)| *name).collect::<Vec<_>>().join("; ")
}

impl Sample {
    fn of(floods: &[Flood]) -> Result<Self> {
        let lab = Lab::start(Options::default())?;
        lab.silence_addresses()?;
        let bridge = lab.bridge(&[])?;
        let running = floods.iter().map(|flood| flood.start(&lab)).collect::<Result<Vec<_>>>()?;
        let others = Others::run(&lab, OTHERS)?;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let gh_net = bridge.process().peak_memory().map(mebibytes);
        let sidecar = lab.sidecars()?.into_iter().map(peak_memory).sum::<Option<u64>>().map(mebibytes);
        running.into_iter().try_for_each(Flooding::stop)?;
        let Others { curls, digs, failures } = others;
        Ok(Self { curl: milliseconds(&curls), dig: milliseconds(&digs), failures, gh_net, sidecar })
    }
}

fn milliseconds(times: &[Duration]) -> Option<Spread> {
    Spread::over(times, |time| Some(time.as_secs_f64() * 1e3))
}

fn table(rows: &[Row]) -> String {
    let titles: Vec<_> = ["flood"].into_iter().chain(COLUMNS.map(|(title, ..)| title)).collect();
    let cells = |row: &Row| {
        let cell = |(_, value, decimals): Column| {
            let spread = Spread::over(&row.rounds, value)?;
            Some(with_range(spread, row.rounds.len(), |value| format!("{value:.decimals$}")))
        };
        COLUMNS.map(cell).to_vec()
    };
    markdown(&titles, rows.iter().map(|row| (row.name.to_owned(), cells(row))))
}

/// Everything, for other programs: each figure of each round.
fn json(rows: &[Row], header: &str) -> Value {
    let figures = |row: &Row| -> serde_json::Map<_, _> {
        let values = |value: fn(&Sample) -> Option<f64>| row.rounds.iter().map(value).collect::<Vec<_>>();
        COLUMNS.into_iter().map(|(title, value, _)| (title.to_owned(), json!(values(value)))).collect()
    };
    let rows: Vec<_> = rows.iter().map(|row| json!({ "name": row.name, "figures": figures(row) })).collect();
    json!({ "measured": header, "floods": rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_what_others_noticed_and_what_it_took() {
        let times = |milliseconds: &[u64]| -> Vec<_> {
            milliseconds.iter().copied().map(Duration::from_millis).collect()
        };
        let sample = Sample {
            curl: super::milliseconds(&times(&[10, 12, 90])),
            failures: vec!["curl printed nothing".to_owned()],
            gh_net: Some(20.5),
            ..Sample::default()
        };
        let rows = [Row { name: "a scan", floods: vec![], rounds: vec![sample] }];
        let table = table(&rows);
        assert!(table.ends_with("\n| a scan | 12.0 | 90.0 | | | 1 | 20.5 | |\n"), "{table}");
        assert_eq!(json(&rows, "here")["floods"][0]["figures"]["curl slowest, ms"], json!([90.0]));
    }

    #[test]
    fn floods_are_chosen_by_name() {
        let only = ["scan".to_owned(), "together".to_owned()];
        let plan = Plan { only: &only, rounds: 1, json: None };
        let names: Vec<_> = plan.rows().iter().map(|row| row.name).collect();
        assert_eq!(names, ["a scan of 20,000 silent addresses", "all together"]);
    }
}
