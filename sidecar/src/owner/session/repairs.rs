//! What another program takes from the hook is set again, a bounded number of times.

use std::time::{Duration, Instant};

use gh_net_common::frame::Level;

use crate::attempts::Attempts;
use crate::hook::plan::Plan;
use crate::hook::{Damage, Hook, Repaired, interface_name};
use crate::journal::Journal;
use crate::notify::Notifier;

/// How often the hook is repaired within [`WINDOW`]. A network manager that starts anew, or a flush by hand, takes two
/// or three. What removes more guards the rules against us, and would win in the end.
const MAX_REPAIRS: usize = 8;
/// How many interfaces that get the tunnel's packets are told within [`WINDOW`].
const MAX_BYPASSES: usize = 3;
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// After a repair the next one waits for a pause, if damage follows within this time: `ip route flush` begins anew as
/// long as it finds routes, so repairs at once would be removed by the same command.
const IN_A_ROW: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Repairs {
    attempts: Attempts,
    last: Option<Instant>,
    /// What could not be set again the last time: it is told once.
    failed: Vec<String>,
    /// Whether the hook is left to the program that takes it away.
    left_alone: bool,
    /// Whether changes interrupted the last look: another one is needed.
    is_unsure: bool,
    /// The interface that gets the tunnel's packets in its place.
    bypass: Option<u32>,
    bypasses: Attempts,
}

impl Default for Repairs {
    fn default() -> Self {
        Self {
            attempts: Attempts::new(MAX_REPAIRS, WINDOW),
            last: None,
            failed: Vec::new(),
            left_alone: false,
            is_unsure: false,
            bypass: None,
            bypasses: Attempts::new(MAX_BYPASSES, WINDOW),
        }
    }
}

impl Repairs {
    /// Whether damage is repaired at once, because packets for the laptop's networks may take the default route.
    /// Otherwise it waits for a pause.
    pub(super) fn are_urgent(&self) -> bool {
        self.last.is_none_or(|last| last.elapsed() > IN_A_ROW)
    }

    /// Whether another look is needed, because changes interrupted the last one.
    pub(super) fn are_unsure(&self) -> bool {
        self.is_unsure && !self.left_alone
    }

    /// Warns if the hook is whole but rules of the codespace lead the tunnel's packets elsewhere.
    pub(super) fn warn_of_bypass(&mut self, hook: &Hook, notifier: &Notifier) {
        if self.left_alone {
            return;
        }
        let bypass = hook.bypass().unwrap_or_else(|error| {
            tracing::debug!(%error, "the kernel does not say where the tunnel's packets go");
            None
        });
        if let Some(interface) = bypass
            && self.bypass != bypass
            && self.bypasses.admits(Instant::now())
        {
            let name = interface_name(interface);
            let text = format!(
                "routing rules of the codespace come before gh-net's and lead packets for the laptop's networks to \
                 {name}, past the tunnel. If they belong to a VPN that takes all traffic, start it before gh-net"
            );
            notifier.notify(Level::Warning, "hook-bypassed", text);
        }
        self.bypass = bypass;
    }

    /// Sets again what is missing. Returns, as text, the routes that the kernel refused.
    pub(super) fn repair(
        &mut self,
        hook: &mut Hook,
        plan: &Plan,
        journal: &mut Journal,
        notifier: &Notifier,
    ) -> Vec<String> {
        if self.left_alone {
            return Vec::new();
        }
        if let Some(family) = hook.regain_family() {
            let text = format!("{family} is available again in the codespace and is forwarded");
            notifier.notify(Level::Info, "family-available", text);
        }
        let damage = match hook.damage() {
            Ok(damage) => damage,
            Err(error) => {
                tracing::warn!("the state of the routing hook can't be read: {error}");
                return Vec::new();
            }
        };
        self.is_unsure = damage.is_unsure;
        if damage.is_none() {
            return Vec::new();
        }
        let now = Instant::now();
        if !self.attempts.admits(now) {
            self.give_up(hook, &damage, journal, notifier);
            return Vec::new();
        }
        self.last = Some(now);
        let Repaired { is_progress, failed, unavailable, refused } = hook.repair(&damage, plan);
        if !is_progress {
            // Nobody has undone anything: this is no fight with another program.
            self.attempts.take_back();
        }
        for problem in &unavailable {
            let text = format!("{problem}; it is not forwarded until it is available again");
            notifier.notify(Level::Warning, "family-unavailable", text);
        }
        if failed.is_empty() {
            self.failed.clear();
            if is_progress {
                let text = format!(
                    "another program has removed {damage}, and it is set again; meanwhile packets for the laptop's \
                     networks may have taken the codespace's default route"
                );
                notifier.notify(Level::Warning, "hook-repaired", text);
            }
        } else if failed != self.failed {
            let failures = failed.join("; ");
            let text = format!(
                "another program has removed {damage}, and it can't be set again completely: {failures}"
            );
            notifier.notify(Level::Error, "hook-damaged", text);
            self.failed = failed;
        }
        refused
    }

    /// Leaves nothing of the hook's rules and routes: half of them would lead astray.
    fn give_up(&mut self, hook: &mut Hook, damage: &Damage, journal: &mut Journal, notifier: &Notifier) {
        self.left_alone = true;
        for failure in hook.withdraw(journal).failed {
            notifier.notify(Level::Error, "not-undone", format!("not undone: {failure}"));
        }
        let text = format!(
            "another program goes on removing what leads packets into the tunnel, now {damage}; it is left alone from \
             now on, so packets for the laptop's networks take the codespace's own routes. Find that program, for \
             example a network manager, a VPN client, or a script with `ip rule flush`; then start gh-net again"
        );
        notifier.notify(Level::Warning, "hook-left-alone", text);
    }
}
