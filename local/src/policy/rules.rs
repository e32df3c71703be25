//! The user's rules: one ordered list of what the codespace may reach within the forwarded networks. Pure.
//!
//! The first rule that matches a flow decides. If none does, the flow is denied if any rule of the list allows
//! something, and allowed otherwise. Rules never open what is reserved and never forward another network.
//!
//! A rule with a name matches the addresses that the name is known to resolve to ([`NewFlow::names`]). An address that
//! serves several names has all of them.

mod parse;
mod rule;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use crate::engine::{NewFlow, RuleId};
pub use parse::ParseRuleError;
pub use rule::{Action, Pattern, Rule, Target};

/// Maximum number of rules. Each datagram of a UDP flow is judged, and a thousand rules take a few microseconds.
pub const MAX_RULES: usize = 1024;

/// The first of the user's rules: their numbers follow those of the built-in ones.
pub const FIRST_USER: u32 = 16;

/// Where a rule was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag,
    /// In `GH_NET_RULES`.
    Variable,
    /// In this file.
    File(PathBuf),
}

/// A rule and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The rule.
    pub rule: Rule,
    /// Where it was written.
    pub origin: Origin,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Flag => write!(f, "--{}", self.rule),
            Origin::Variable => write!(f, "{} (GH_NET_RULES)", self.rule),
            Origin::File(path) => write!(f, "{} ({})", self.rule, path.display()),
        }
    }
}

/// What the list says about a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A rule matches.
    Rule(Action, RuleId),
    /// No rule matches.
    Unmatched(Action),
}

/// The user's rules, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    list: Vec<Written>,
}

impl Rules {
    /// The rules in this order; those beyond [`MAX_RULES`] are an error of the caller.
    pub fn new(list: Vec<Written>) -> Self {
        Self { list }
    }

    /// The rules, in order.
    pub fn list(&self) -> &[Written] {
        &self.list
    }

    /// The rules of `newer` that this list does not have, those of this list that `newer` does not have, and whether the
    /// others are in another order.
    pub fn changes<'a>(&'a self, newer: &'a Self) -> (Vec<&'a Written>, Vec<&'a Written>, bool) {
        let both = |list: &'a Self, other: &'a Self| {
            let (kept, missing) = list.list.iter().partition(|rule| other.list.contains(rule));
            (kept, missing)
        };
        let (kept, removed): (Vec<&Written>, Vec<&Written>) = both(self, newer);
        let (keeps, added): (Vec<&Written>, Vec<&Written>) = both(newer, self);
        (added, removed, kept != keeps)
    }

    /// A warning if `newer` no longer denies what no rule matches, because its last `allow` is gone. Whoever shortens a
    /// list of what is allowed does not expect that everything is, once it is empty.
    pub fn opened_by(&self, newer: &Self) -> Option<String> {
        let opened = (self.end(), newer.end()) == (Action::Deny, Action::Allow);
        opened.then(|| {
            "there is no `allow` any more, so everything that no rule denies is allowed now".to_owned()
        })
    }

    /// What the list says about a flow.
    pub fn decide(&self, flow: &NewFlow<'_>) -> Decision {
        match self.list.iter().zip(FIRST_USER..).find(|(written, _)| written.rule.matches(flow)) {
            Some((written, id)) => Decision::Rule(written.rule.action, RuleId(id)),
            None => Decision::Unmatched(self.end()),
        }
    }

    /// What applies where no rule matches.
    pub fn end(&self) -> Action {
        let allows = self.list.iter().any(|written| written.rule.action == Action::Allow);
        if allows { Action::Deny } else { Action::Allow }
    }

    /// A rule by its id.
    pub fn get(&self, id: RuleId) -> Option<&Written> {
        let index = id.0.checked_sub(FIRST_USER)?;
        self.list.get(usize::try_from(index).ok()?)
    }

    /// Whether one of the rules is about this name.
    pub fn refer_to(&self, name: &str) -> bool {
        self.list.iter().any(|written| written.rule.pattern.target.has_name(name))
    }

    /// The names in the rules, those of `*.name` without the star. They are to be resolved by the laptop, whoever asks.
    pub fn names(&self) -> Vec<String> {
        let names = self.list.iter().filter_map(|written| written.rule.pattern.target.name());
        names.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Rules that can never decide, because an earlier one matches all that they match.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, later) in self.list.iter().enumerate() {
            let mut earlier = self.list[..index].iter().enumerate();
            let covering = earlier.find(|(_, earlier)| earlier.rule.pattern.covers(&later.rule.pattern));
            if let Some((first, earlier)) = covering {
                warnings.push(format!(
                    "rule {} ({later}) never matches: rule {} ({earlier}) covers it",
                    index + 1,
                    first + 1
                ));
            }
        }
        warnings
    }
}

#[cfg(test)]
pub(super) mod tests;
