//! How a session follows the codespace: its networks, its resolvers, and what other programs do to the hook.

use std::time::Instant;

use gh_net_common::debounce::Changes;
use gh_net_common::frame::{Frame, Level};

use super::Session;
use super::own::{self, Own};
use super::start::exceptions;
use crate::hook::Networks;
use crate::names::responder::Forwarded;
use crate::watch::Seen;

impl Session {
    /// Looks at what may have changed, and follows.
    pub(super) fn follow(&mut self, seen: Seen) {
        let before = self.own.clone();
        match seen {
            Seen::Damage if self.repairs.are_urgent() => self.repair(),
            Seen::Damage => {}
            Seen::Bridge => self.read_networks(Changes::Ongoing),
            Seen::Changes { networks, file } => self.follow_changes(networks, file),
        }
        self.tell(&before);
    }

    fn follow_changes(&mut self, networks: Changes, file: bool) {
        // What was in the way of the hook may be gone.
        let is_retried = networks == Changes::Settled && self.names.is_unhooked_by_error();
        if file || is_retried {
            match networks {
                Changes::Settled => self.names.follow(),
                // Its next write would undo ours.
                Changes::Ongoing => self.names.read_resolvers(),
            }
            self.look_after();
            self.own.resolvers = self.names.resolvers().to_vec();
        }
        self.read_networks(networks);
        self.follow_plan();
        self.repair();
        self.repairs.warn_of_bypass(&self.hook, &self.notifier);
    }

    /// Has resolv.conf looked at again when the hook wants it.
    pub(super) fn look_after(&mut self) {
        if let Some(time) = self.names.take_look_after() {
            self.watch.look_after(time);
        }
    }

    /// Reads the codespace's networks and takes them over. If that fails, at least the resolvers stay out of the tunnel.
    pub(super) fn read_networks(&mut self, changes: Changes) {
        match Networks::read() {
            // What is missing may have been missed.
            Ok(found) if found.is_interrupted => {
                self.watch.look_again();
                self.take_networks(&found, Changes::Ongoing);
            }
            Ok(found) => self.take_networks(&found, changes),
            Err(error) => {
                self.plan.add_exceptions(exceptions(&[], self.peer, &self.own.resolvers));
                self.warn_once(
                    "networks-unknown",
                    format!("the codespace's own networks are unknown: {error}"),
                );
            }
        }
    }

    /// Takes over what the codespace has of its own. While that is changing only additions count, because what is
    /// missing may come back.
    fn take_networks(&mut self, found: &Networks, changes: Changes) {
        let exceptions = exceptions(&found.routes, self.peer, &self.own.resolvers);
        let networks = own::networks(found, self.hook.addresses());
        self.known.take(found, changes);
        self.arrange();
        match changes {
            Changes::Settled => {
                self.plan.set_exceptions(exceptions);
                self.own.networks = networks;
            }
            Changes::Ongoing => {
                self.plan.add_exceptions(exceptions);
                self.own.networks.extend(networks);
            }
        }
    }

    /// Sets whose packets enter the tunnel, and whose questions are answered.
    fn arrange(&mut self) {
        let Self { known, from, hook, journal, .. } = self;
        self.names.set_clients(known.clients(from));
        for refused in hook.arrange(&known.tables, &known.packets(from), journal) {
            self.warn_once("rule-refused", format!("the kernel refused the routing rule {refused}"));
        }
        self.tell_left_out();
    }

    /// Tells the user what there is no room for, whenever it changes. `left-out-ended` takes back all that was told before.
    fn tell_left_out(&mut self) {
        let left_out = self.known.left_out(&self.from);
        if left_out == self.left_out || !self.told.admits(Instant::now()) {
            return;
        }
        let before = std::mem::replace(&mut self.left_out, left_out);
        let ended: Vec<&String> = before.iter().filter(|text| !self.left_out.contains(text)).collect();
        for text in &ended {
            self.notify(Level::Info, "left-out-ended", format!("this is over: {text}"));
        }
        for text in self.left_out.iter().filter(|text| !ended.is_empty() || !before.contains(text)) {
            self.notify(Level::Warning, "left-out", text.clone());
        }
    }

    /// Tells the user a warning of this kind once, and the log each.
    fn warn_once(&mut self, code: &'static str, text: String) {
        if self.notified.insert(code) {
            self.notify(Level::Warning, code, text);
        } else {
            tracing::warn!("{text}");
        }
    }

    /// Tells the laptop what has changed since `before`, and its user which networks can't, or can again, be reached
    /// through the tunnel. Without a link there is nobody to tell: the next one begins with all.
    fn tell(&mut self, before: &Own) {
        if *before == self.own {
            return;
        }
        tracing::info!(own = ?self.own, "the codespace has changed");
        let Some(link) = &self.link else { return };
        let notices = own::notices(&before.networks, &self.own.networks, self.plan.laptop());
        self.is_untold = true;
        // The networks of a container that overlap nothing are no reason to wake a quiet link.
        if !link.pump.is_quiet() || !notices.is_empty() || before.resolvers != self.own.resolvers {
            self.tell_laptop();
        }
        for (code, text) in notices {
            if self.told.admits(Instant::now()) {
                self.notify(Level::Info, code, text);
            }
        }
    }

    /// Tells the laptop what the codespace has of its own, if it does not know.
    pub(super) fn tell_laptop(&mut self) {
        if let Some(link) = &mut self.link
            && std::mem::take(&mut self.is_untold)
        {
            link.pump.send(&Frame::Codespace(self.own.codespace()));
        }
    }

    pub(super) fn repair(&mut self) {
        let Self { hook, plan, journal, notifier, .. } = self;
        let refused = self.repairs.repair(hook, plan, journal, notifier);
        self.report_refused(&refused);
        if self.repairs.are_unsure() {
            self.watch.look_again();
        }
    }

    pub(super) fn follow_plan(&mut self) {
        self.names.set_forwarded(Forwarded::new(self.plan.table(), self.own.networks.keys().copied()));
        match self.hook.follow(&self.plan) {
            Ok(refused) => self.report_refused(&refused),
            Err(error) => self.notify(
                Level::Error,
                "routes-failed",
                format!("the routes could not be changed: {error}"),
            ),
        }
    }

    /// Reports, once, the routes that the kernel refused.
    pub(super) fn report_refused(&mut self, refused: &[String]) {
        if let Some(first) = refused.first()
            && self.notified.insert("kernel")
        {
            let count = refused.len();
            self.notify(
                Level::Warning,
                "routes-refused",
                format!("the kernel refused {count} routes, among them {first}"),
            );
        }
    }
}
