//! Reading the configuration again while the session runs: its rules apply at once, all else from the next start.

use super::*;
use crate::config::ConfigError;
use crate::exit::Explain;
use crate::request::{Refused, Reloaded};

impl State {
    /// Reads the configuration again. An error in it changes nothing.
    pub(super) async fn reload(&mut self) -> Result<Reloaded, Refused> {
        let config = self.sources.load().map_err(|error| refused(&error))?;
        let before = self.ended().await;
        let mut reloaded = self.apply(config);
        // The link may end at any await, and this with it: whoever knows of the new rules must know of them before.
        let update = self.networks.set_rules(self.config.rules.clone());
        if self.open && !reloaded.is_unchanged() {
            self.judge_by(update.policy);
            update.frames.into_iter().for_each(|frame| self.tell(Control::Send(frame)));
            reloaded.ended = self.ended().await.saturating_sub(before);
        }
        tracing::info!("{}", lines::reloaded(&reloaded));
        reloaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(reloaded)
    }

    /// Takes the rules of a new configuration, and says what is new.
    fn apply(&mut self, config: Config) -> Reloaded {
        let (added, removed, reordered) = self.config.rules.changes(&config.rules);
        let text = |rules: Vec<_>| rules.into_iter().map(ToString::to_string).collect();
        let opened = self.config.rules.opened_by(&config.rules);
        let mut reloaded = Reloaded {
            added: text(added),
            removed: text(removed),
            reordered,
            warnings: config.warnings.iter().cloned().chain(opened).collect(),
            ..Reloaded::default()
        };
        self.config.rules = config.rules.clone();
        // The user may have chosen a codespace at the start. Warnings are no settings.
        let same =
            Config { target: self.config.target.clone(), warnings: self.config.warnings.clone(), ..config };
        reloaded.others = same != self.config;
        reloaded
    }

    /// How many flows have ended so far because a policy does not admit them.
    async fn ended(&self) -> u64 {
        let (answer, report) = oneshot::channel();
        self.tell(Control::Report(answer));
        report.await.map_or(0, |report: Report| report.counters.engine.revoked)
    }
}

fn refused(error: &ConfigError) -> Refused {
    tracing::warn!("the configuration is not read again, the old one stays in force: {error}");
    Refused { error: error.to_string(), details: error.details(), remedy: error.remedy() }
}
