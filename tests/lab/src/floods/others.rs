//! Another program of the codespace, which is to be served during a flood as without it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Lab;

/// How another program was served.
#[derive(Debug, Clone, Default)]
pub struct Others {
    /// How long each successful curl took.
    pub curls: Vec<Duration>,
    /// How long each successful dig took.
    pub digs: Vec<Duration>,
    /// What the others printed.
    pub failures: Vec<String>,
}

impl Others {
    /// Runs `count` curls and as many digs in the codespace, one after the other.
    ///
    /// # Errors
    /// One could not be started.
    pub fn run(lab: &Lab, count: u32) -> Result<Self> {
        let mut others = Self::default();
        for _ in 0..count {
            let curl = "curl -sS --max-time 10 http://10.20.0.10/";
            others.curls.extend(timed(lab, curl, "hello from corp", &mut others.failures)?);
            let dig = "dig +short www.corp.internal A";
            others.digs.extend(timed(lab, dig, "10.20.0.10", &mut others.failures)?);
        }
        Ok(others)
    }

    /// Checks that none of them failed.
    ///
    /// # Errors
    /// One did; the message has what each of these printed.
    pub fn all_served(&self) -> Result<()> {
        ensure!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        Ok(())
    }
}

/// How long a command takes that must print `answer`.
fn timed(lab: &Lab, line: &str, answer: &str, failures: &mut Vec<String>) -> Result<Option<Duration>> {
    let begun = Instant::now();
    let output = lab.codespace.run(line)?;
    if output.code() == 0 && output.text() == answer {
        return Ok(Some(begun.elapsed()));
    }
    failures.push(format!("{line} printed {:?}, {:?}", output.text(), output.errors()));
    Ok(None)
}
