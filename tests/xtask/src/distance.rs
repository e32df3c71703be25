//! A distant line as a developer writes it: `50mbit,40ms,queue=1mb,loss=0.1%,jitter=2ms`, or one of [`NAMED`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gh_net_lab::wan::Shape;

/// A line with the same properties in both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Distance {
    /// Bits per second.
    pub(crate) rate: u64,
    /// Both ways together, without any queue.
    pub(crate) round_trip: Duration,
    /// Bytes that wait in each direction before packets are dropped.
    pub(crate) queue: usize,
    /// The probability that a packet is lost, from 0 to 1.
    pub(crate) loss: f64,
    /// Most that each direction adds to its delay.
    pub(crate) jitter: Duration,
}

/// Lines as codespaces are reached by, with queues as home routers and operators have them.
pub(crate) const NAMED: [(&str, Distance); 5] = [
    ("dsl", plain(50, 40, 1_000_000)),
    ("lte", Distance { loss: 0.001, ..plain(10, 150, 500_000) }),
    ("office", plain(500, 10, 2_500_000)),
    ("ocean", plain(300, 100, 4_000_000)),
    ("hotel", plain(2, 60, 250_000)),
];

const fn plain(megabits: u64, milliseconds: u64, queue: usize) -> Distance {
    Distance {
        rate: megabits * 1_000_000,
        round_trip: Duration::from_millis(milliseconds),
        queue,
        loss: 0.0,
        jitter: Duration::ZERO,
    }
}

impl Distance {
    /// The shape of each direction.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            rate: Some(self.rate),
            delay: self.round_trip / 2,
            queue: Some(self.queue),
            loss: self.loss,
            jitter: self.jitter,
        }
    }
}

impl FromStr for Distance {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some((_, distance)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*distance);
        }
        let mut words = text.split(',');
        let rate = bits(words.next().unwrap_or_default())?;
        let round_trip = time(words.next().context("the round trip is missing, as in 50mbit,40ms")?)?;
        // 200 ms, as many home routers have.
        let queue = usize::try_from(rate / 8 / 5)?;
        let mut distance = Self { rate, round_trip, queue, loss: 0.0, jitter: Duration::ZERO };
        for word in words {
            match word.split_once('=') {
                Some(("queue", value)) => distance.queue = bytes(value)?,
                Some(("loss", value)) => distance.loss = percent(value)?,
                Some(("jitter", value)) => distance.jitter = time(value)?,
                _ => bail!("`{word}` is none of queue=SIZE, loss=PERCENT%, jitter=TIME"),
            }
        }
        Ok(distance)
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, round_trip, queue, loss, jitter } = self;
        write!(f, "{} Mbit/s, {} ms", *rate as f64 / 1e6, round_trip.as_secs_f64() * 1e3)?;
        if *loss > 0.0 {
            write!(f, ", {} % loss", loss * 100.0)?;
        }
        if !jitter.is_zero() {
            write!(f, ", {} ms jitter", jitter.as_secs_f64() * 1e3)?;
        }
        write!(f, ", queue {} KB", queue / 1000)
    }
}

fn bits(text: &str) -> Result<u64> {
    let rate = number(text, &[("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)])?;
    ensure!(rate >= 1.0, "`{text}` is no rate");
    Ok(rate as u64)
}

fn bytes(text: &str) -> Result<usize> {
    Ok(number(text, &[("kb", 1e3), ("mb", 1e6)])? as usize)
}

fn time(text: &str) -> Result<Duration> {
    let seconds = number(text, &[("ms", 1e-3), ("s", 1.0)])?;
    ensure!(seconds < 60.0, "`{text}` is more than a minute");
    Ok(Duration::from_secs_f64(seconds))
}

fn percent(text: &str) -> Result<f64> {
    let share = number(text, &[("%", 0.01)])?;
    ensure!(share <= 1.0, "`{text}` is more than everything");
    Ok(share)
}

/// A number that is not negative, with one of these units.
fn number(text: &str, units: &[(&str, f64)]) -> Result<f64> {
    let value = units.iter().find_map(|(unit, factor)| {
        let value: f64 = text.strip_suffix(unit)?.parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(value * factor)
    });
    let names: Vec<_> = units.iter().map(|(unit, _)| *unit).collect();
    value.with_context(|| format!("`{text}` is no number with one of these units: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Distance {
        text.parse().expect("a distance")
    }

    #[test]
    fn a_line_is_written_in_words_or_by_its_name() {
        assert_eq!(parsed("50mbit,40ms,queue=1mb"), parsed("dsl"));
        assert_eq!(parsed("10mbit,0.15s,loss=0.1%,queue=500kb").to_string(), parsed("lte").to_string());
        let wireless = parsed("1.5mbit,60ms,jitter=5ms");
        assert_eq!(wireless.to_string(), "1.5 Mbit/s, 60 ms, 5 ms jitter, queue 37 KB");
        assert_eq!(wireless.shape().delay, Duration::from_millis(30), "each direction has half of it");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("50mbit", "round trip"),
            ("50,40ms", "`50`"),
            ("0mbit,40ms", "`0mbit`"),
            ("50mbit,-1ms", "`-1ms`"),
            ("50mbit,NaNms", "`NaNms`"),
            ("50mbit,1ms,loss=101%", "`101%`"),
            ("50mbit,1ms,speed=1", "`speed=1`"),
        ] {
            let error = format!("{:#}", text.parse::<Distance>().expect_err(text));
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
