//! The rounds of all lines as tables in Markdown, and as JSON.

use gh_net_lab::Direction;
use serde_json::{Value, json};

use super::figures::{Carrier, Figure, Load, Percentile, Sample, bulk};
use crate::bench::figures::Spread;
use crate::bench::table::{markdown, with_range};
use crate::distance::Distance;

/// A line and its rounds.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) distance: Distance,
    pub(super) rounds: Vec<Sample>,
}

type Derived = dyn Fn(&Sample) -> Option<f64>;

/// All tables.
pub(super) fn tables(rows: &[Row]) -> String {
    let lines = rows.iter().map(|row| format!("- {}: {}\n", row.name, row.distance)).collect::<String>();
    format!(
        "{lines}\nBulk, in Mbit/s:\n\n{}\nThe echo of one byte, in ms; under a load, what the load adds to the idle p50 of \
         the same round:\n\n{}\nA DNS question of the laptop's zone that no cache answers, in the same way:\n\n{}",
        bulk_table(rows),
        trips_table(rows, true, Figure::Echo),
        trips_table(rows, false, Figure::Dns),
    )
}

fn bulk_table(rows: &[Row]) -> String {
    let mut titles = vec!["line".to_owned()];
    let mut columns: Vec<(Box<Derived>, usize)> = Vec::new();
    for (direction, way) in [(Direction::Up, "up"), (Direction::Down, "down")] {
        for carrier in Carrier::ALL {
            titles.push(format!("{} {way}", carrier.name()));
            columns.push((value(bulk(direction, carrier)), 1));
        }
        titles.push(format!("gh-net/ssh {way}"));
        let ratio = move |sample: &Sample| {
            let of = |carrier| sample.get(&bulk(direction, carrier)).copied();
            Some(of(Carrier::GhNet)? / of(Carrier::Ssh)?)
        };
        columns.push((Box::new(ratio), 2));
    }
    for (title, figure, decimals) in [
        ("gh-net both up", Figure::BothUp, 1),
        ("both down", Figure::BothDown, 1),
        ("8 down", Figure::Down8, 1),
        ("Jain's index", Figure::Fairness, 3),
    ] {
        titles.push(title.to_owned());
        columns.push((value(figure), decimals));
    }
    let titles: Vec<_> = titles.iter().map(String::as_str).collect();
    let cells = |row: &Row| {
        columns
            .iter()
            .map(|(value, decimals)| cell(Spread::over(&row.rounds, value), row, *decimals))
            .collect()
    };
    markdown(&titles, rows.iter().map(|row| (row.name.clone(), cells(row))))
}

fn trips_table(rows: &[Row], with_ssh: bool, figure: fn(Load, Percentile) -> Figure) -> String {
    let mut titles = vec!["line".to_owned()];
    titles.extend(with_ssh.then(|| "ssh idle".to_owned()));
    titles.extend(Load::ALL.map(|load| match load {
        Load::Idle => "gh-net idle".to_owned(),
        Load::Up | Load::Down | Load::Both | Load::Down8 => format!("+ {}", load.name()),
    }));
    let titles: Vec<_> = titles.iter().map(String::as_str).collect();
    let line = |row: &Row, percentile: Percentile| {
        let ssh = with_ssh.then(|| Spread::over(&row.rounds, value(Figure::SshEcho(percentile))));
        let loads = Load::ALL.map(|load| {
            Spread::over(&row.rounds, move |sample| {
                let time = *sample.get(&figure(load, percentile))?;
                let idle = *sample.get(&figure(Load::Idle, Percentile::P50))?;
                Some(if load == Load::Idle { time } else { time - idle })
            })
        });
        let cells = ssh.into_iter().chain(loads).map(|spread| cell(spread, row, 1)).collect();
        (format!("{} {}", row.name, percentile.name()), cells)
    };
    markdown(&titles, rows.iter().flat_map(|row| Percentile::ALL.map(|percentile| line(row, percentile))))
}

fn value(figure: Figure) -> Box<Derived> {
    Box::new(move |sample| sample.get(&figure).copied())
}

fn cell(spread: Option<Spread>, row: &Row, decimals: usize) -> Option<String> {
    spread.map(|spread| with_range(spread, row.rounds.len(), |value| format!("{value:.decimals$}")))
}

/// Everything, for other programs: each figure with its median, range, and values by round (null if it failed).
pub(super) fn json(rows: &[Row], header: &str) -> Value {
    let lines: Vec<_> = rows.iter().map(line).collect();
    json!({ "measured": header, "lines": lines })
}

fn line(row: &Row) -> Value {
    let Row { name, distance, rounds } = row;
    let mut figures: Vec<_> = rounds.iter().flat_map(|sample| sample.keys().copied()).collect();
    figures.sort_unstable();
    figures.dedup();
    let figures: serde_json::Map<_, _> = figures
        .into_iter()
        .filter_map(|figure| {
            let Spread { least, median, most } = Spread::over(rounds, value(figure))?;
            let values: Vec<_> = rounds.iter().map(|sample| sample.get(&figure)).collect();
            Some((figure.key(), json!({ "median": median, "least": least, "most": most, "rounds": values })))
        })
        .collect();
    json!({
        "name": name,
        "rate": distance.rate,
        "round_trip_ms": distance.round_trip.as_secs_f64() * 1e3,
        "queue": distance.queue,
        "loss": distance.loss,
        "jitter_ms": distance.jitter.as_secs_f64() * 1e3,
        "figures": figures,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let sample = |gh_net: f64, loaded| {
            Sample::from([
                (Figure::BulkUp(Carrier::Ssh), 48.0),
                (Figure::BulkUp(Carrier::GhNet), gh_net),
                (Figure::Echo(Load::Idle, Percentile::P50), 41.0),
                (Figure::Echo(Load::Down, Percentile::P50), loaded),
            ])
        };
        let distance = "dsl".parse().expect("a distance");
        Row { name: "dsl".to_owned(), distance, rounds: vec![sample(24.0, 51.0), sample(48.0, 61.0)] }
    }

    #[test]
    fn a_table_shows_ratios_and_additions_of_the_same_round() {
        let tables = tables(&[row()]);
        let bulk = "| dsl | 48.0 (48.0–48.0) | | 36.0 (24.0–48.0) | 0.75 (0.50–1.00) | | | | | | | | |\n";
        assert!(tables.contains(bulk), "{tables}");
        let echo = "| dsl p50 | | 41.0 (41.0–41.0) | | 15.0 (10.0–20.0) | | |\n";
        assert!(tables.contains(echo), "{tables}");
    }

    #[test]
    fn the_json_has_every_round() {
        let json = json(&[row()], "here");
        let figure = &json["lines"][0]["figures"]["gh-net, up, Mbit/s"];
        assert_eq!(*figure, json!({ "median": 36.0, "least": 24.0, "most": 48.0, "rounds": [24.0, 48.0] }));
    }
}
