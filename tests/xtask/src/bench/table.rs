//! The rounds of all tunnels as two tables in Markdown: the figures, and their ratios to the raw ssh pipe.

use super::figures::{Figure, Sample, Spread};

/// A tunnel and its rounds.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) rounds: Vec<Sample>,
}

impl Row {
    fn spread(&self, figure: Figure) -> Option<Spread> {
        Spread::over(&self.rounds, |sample| sample.get(&figure).copied())
    }

    /// The ratio to `base`, round by round: what slows down a whole round affects both and cancels out.
    fn times(&self, base: &Self, figure: Figure) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&base.rounds);
        Spread::of(pairs.filter_map(|(own, base)| Some(own.get(&figure)? / base.get(&figure)?)).collect())
    }
}

/// One line per tunnel: the median of its rounds and, if there are several, the least and the most.
pub(super) fn figures(rows: &[Row]) -> String {
    let cell = |row: &Row, figure: Figure| {
        row.spread(figure).map(|spread| with_range(spread, row.rounds.len(), |value| figure.show(value)))
    };
    lines(rows.iter(), &Figure::ALL, cell)
}

/// One line per tunnel except `base`, as multiples of `base`'s figures in the same rounds. Empty without a row `base`.
pub(super) fn ratios(rows: &[Row], base: &str) -> String {
    let (base, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.name == base);
    let Some(base) = base.first() else { return String::new() };
    let common: Vec<_> = Figure::ALL.into_iter().filter(|figure| base.spread(*figure).is_some()).collect();
    let cell = |row: &Row, figure: Figure| {
        let spread = row.times(base, figure)?;
        Some(with_range(spread, row.rounds.len(), |value| format!("{value:.2}")))
    };
    lines(others.into_iter(), &common, cell)
}

/// The median and, if there are several rounds, the least and the most.
pub(super) fn with_range(spread: Spread, rounds: usize, show: impl Fn(f64) -> String) -> String {
    let median = show(spread.median);
    if rounds < 2 {
        return median;
    }
    format!("{median} ({}–{})", show(spread.least), show(spread.most))
}

fn lines<'row>(
    rows: impl Iterator<Item = &'row Row>,
    figures: &[Figure],
    cell: impl Fn(&Row, Figure) -> Option<String>,
) -> String {
    let titles: Vec<_> = [vec!["tunnel"], figures.iter().map(|figure| figure.title()).collect()].concat();
    let cells = |row: &Row| figures.iter().map(|figure| cell(row, *figure)).collect();
    markdown(&titles, rows.map(|row| (row.name.to_owned(), cells(row))))
}

/// A table in Markdown. Each row has a name and its cells, one for each of the other titles.
pub(super) fn markdown(
    titles: &[&str],
    rows: impl IntoIterator<Item = (String, Vec<Option<String>>)>,
) -> String {
    let head: String = titles.iter().map(|title| format!(" {title} |")).collect();
    let mut table = format!("|{head}\n|---|{}\n", "---:|".repeat(titles.len() - 1));
    for (name, cells) in rows {
        let cells = cells.into_iter().map(|cell| match cell {
            Some(text) => format!(" {text} |"),
            None => " |".to_owned(),
        });
        table.push_str(&format!("| {name} |{}\n", cells.collect::<String>()));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, figure: Figure, rounds: &[f64]) -> Row {
        Row { name, rounds: rounds.iter().map(|value| Sample::from([(figure, *value)])).collect() }
    }

    #[test]
    fn a_line_shows_the_median_and_the_spread_of_each_figure() {
        let rows = [row("a", Figure::Up, &[1.0, 3.0, 2.0]), row("b", Figure::EchoP50, &[70.4])];
        let expected = "\
| tunnel | up | down | 8 streams down | connections/s | echo p50 | echo p99 | loaded p50 | loaded p99 |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
| a | 2.00 (1.00–3.00) | | | | | | | |
| b | | | | | 70 | | | |
";
        assert_eq!(figures(&rows), expected);
    }

    #[test]
    fn a_ratio_is_that_of_the_same_round() {
        // The machine was half as fast in the second round, for both.
        let rows = [row("pipe", Figure::Down, &[2.0, 1.0]), row("a", Figure::Down, &[1.0, 0.5])];
        let expected = "\
| tunnel | down |
|---|---:|
| a | 0.50 (0.50–0.50) |
";
        assert_eq!(ratios(&rows, "pipe"), expected);
    }

    #[test]
    fn a_round_that_failed_is_left_out() {
        let mut rows = [row("pipe", Figure::Down, &[2.0, 1.0]), row("a", Figure::Down, &[1.0, 4.0])];
        rows[1].rounds[0].clear();
        assert!(ratios(&rows, "pipe").contains("| a | 4.00 (4.00–4.00) |"));
    }

    #[test]
    fn without_a_base_there_are_no_ratios() {
        assert_eq!(ratios(&[row("a", Figure::Down, &[1.0])], "pipe"), "");
    }
}
