//! Our routing table: brings it to the plan's state, even if the kernel refuses some routes.
//!
//! Between any two calls, [`OwnTable`] knows what the kernel holds, or knows that it doesn't: a table that it believes
//! to be another would later keep a route of an old network, or remove one whose replacement was refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use ipnet::IpNet;

use super::transition::Transition;
use crate::hook::plan::{Table, Target, overlaps};

/// A change of one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Creates the route or replaces the one to the same prefix.
    Set(IpNet, Target),
    /// Removes the route.
    Remove(IpNet, Target),
}

/// What carries the steps out.
pub(super) trait Kernel {
    /// Carries the steps out, in order. Returns those that were refused, by index.
    fn carry_out(&mut self, steps: Vec<Step>) -> io::Result<BTreeMap<usize, io::Error>>;
    /// Reads the table's current state.
    fn read(&mut self) -> io::Result<Held>;
}

/// What the kernel holds.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) table: Table,
    /// Whether the table is too large to be read completely.
    pub(super) is_truncated: bool,
    /// Whether changes interrupted the reading: routes may be missing.
    pub(super) is_interrupted: bool,
}

/// Our table, and what it holds.
#[derive(Debug)]
pub(super) struct OwnTable<K> {
    kernel: K,
    installed: Table,
    /// Whether `installed` is what the kernel holds.
    is_known: bool,
}

impl<K: Kernel> OwnTable<K> {
    /// A table that is empty.
    pub(super) fn new(kernel: K) -> Self {
        Self { kernel, installed: Table::new(), is_known: true }
    }

    /// The routes in it.
    pub(super) fn installed(&self) -> &Table {
        &self.installed
    }

    /// Another has removed its routes.
    pub(super) fn forget(&mut self) {
        self.installed.clear();
    }

    /// Whether the kernel still holds what we left; `None` if changes interrupted the look. If it does not, the next [`Self::follow`] begins by reading the table.
    ///
    /// # Errors
    /// Communication with the kernel failed.
    pub(super) fn is_intact(&mut self) -> io::Result<Option<bool>> {
        let was_known = std::mem::replace(&mut self.is_known, false);
        let held = self.kernel.read()?;
        if held.is_interrupted {
            self.is_known = was_known;
            return Ok(None);
        }
        // Of a table that is not read completely it can't be said.
        let intact = held.table == self.installed || held.is_truncated;
        self.is_known = was_known && intact;
        Ok(Some(intact))
    }

    /// Makes it `wanted`, without a wrong route in between: see [`transition`](super::transition). Returns, as text,
    /// the routes that the kernel refused; they are tried again the next time.
    ///
    /// # Errors
    /// Communication with the kernel failed. The next call begins by reading the table.
    pub(super) fn follow(&mut self, wanted: &Table) -> io::Result<Vec<String>> {
        let mut is_known = true;
        if !self.is_known {
            let held = self.kernel.read()?;
            is_known = !held.is_interrupted;
            self.installed = held.table;
        }
        self.is_known = false;
        let Transition { set, mut remove } = Transition::between(&self.installed, wanted);
        let (errors, refused) = self.set(set)?;
        // Without its replacement an old route is still the best answer for its addresses.
        remove.retain(|(net, _)| !overlaps(&refused, net));
        self.remove(remove)?;
        self.is_known = is_known;
        Ok(errors)
    }

    /// Returns the refused routes, as text and by prefix.
    fn set(&mut self, routes: Vec<(IpNet, Target)>) -> io::Result<(Vec<String>, BTreeSet<IpNet>)> {
        let steps = routes.iter().map(|(net, target)| Step::Set(*net, *target)).collect();
        let failures = self.kernel.carry_out(steps)?;
        let (mut errors, mut refused) = (Vec::new(), BTreeSet::new());
        for (index, (net, target)) in routes.into_iter().enumerate() {
            if let Some(error) = failures.get(&index) {
                errors.push(format!("{net}: {error}"));
                refused.insert(net);
            } else {
                self.installed.insert(net, target);
            }
        }
        Ok((errors, refused))
    }

    fn remove(&mut self, routes: Vec<(IpNet, Target)>) -> io::Result<()> {
        let steps = routes.iter().map(|(net, target)| Step::Remove(*net, *target)).collect();
        let failures = self.kernel.carry_out(steps)?;
        for (index, (net, _)) in routes.into_iter().enumerate() {
            match failures.get(&index) {
                Some(error) if !is_gone(error) => {
                    tracing::warn!(%error, "can't remove the route to {net}; will try again");
                }
                // The kernel removes routes by itself, for example when the device is set down.
                Some(_) | None => drop(self.installed.remove(&net)),
            }
        }
        Ok(())
    }
}

/// Whether there is no such route.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that refuses selected routes.
    #[derive(Default)]
    struct Fake {
        table: Table,
        refuses: BTreeMap<IpNet, i32>,
        /// The connection breaks after so many steps.
        breaks_after: Option<usize>,
        /// Another program changes routes while they are read.
        interrupts: bool,
    }

    impl Kernel for Fake {
        fn carry_out(&mut self, steps: Vec<Step>) -> io::Result<BTreeMap<usize, io::Error>> {
            let mut failures = BTreeMap::new();
            for (index, step) in steps.into_iter().enumerate() {
                match self.breaks_after.as_mut() {
                    Some(0) => return Err(io::ErrorKind::BrokenPipe.into()),
                    Some(left) => *left -= 1,
                    None => {}
                }
                let (Step::Set(net, _) | Step::Remove(net, _)) = step;
                if let Some(code) = self.refuses.get(&net) {
                    failures.insert(index, io::Error::from_raw_os_error(*code));
                } else if let Step::Set(net, target) = step {
                    self.table.insert(net, target);
                } else if self.table.remove(&net).is_none() {
                    failures.insert(index, io::Error::from_raw_os_error(libc::ESRCH));
                }
            }
            Ok(failures)
        }

        fn read(&mut self) -> io::Result<Held> {
            let mut table = self.table.clone();
            if self.interrupts {
                table.pop_last();
            }
            Ok(Held { is_truncated: table.len() >= 10, table, is_interrupted: self.interrupts })
        }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn tunnel(nets: &[&str]) -> Table {
        nets.iter().map(|text| (net(text), Target::Tunnel)).collect()
    }

    fn own_table(nets: &[&str]) -> OwnTable<Fake> {
        let mut own = OwnTable::new(Fake::default());
        assert!(own.follow(&tunnel(nets)).unwrap().is_empty());
        own
    }

    #[test]
    fn a_route_whose_replacement_is_refused_stays_until_it_is_accepted() {
        let mut own = own_table(&["10.0.0.0/8", "10.1.1.0/24", "172.16.0.0/12"]);
        own.kernel.refuses.insert(net("10.1.0.0/16"), libc::ENOMEM);
        let wanted = tunnel(&["10.1.0.0/16"]);
        assert_eq!(own.follow(&wanted).unwrap().len(), 1);
        assert_eq!(own.kernel.table, tunnel(&["10.0.0.0/8", "10.1.1.0/24"]));
        assert_eq!(own.installed(), &own.kernel.table);
        own.kernel.refuses.clear();
        assert!(own.follow(&wanted).unwrap().is_empty());
        assert_eq!(own.kernel.table, wanted);
    }

    #[test]
    fn a_route_that_could_not_be_removed_is_removed_the_next_time() {
        let mut own = own_table(&["10.0.0.0/8"]);
        own.kernel.refuses.insert(net("10.0.0.0/8"), libc::ENOBUFS);
        own.follow(&Table::new()).unwrap();
        own.kernel.refuses.clear();
        own.follow(&Table::new()).unwrap();
        assert!(own.kernel.table.is_empty());
    }

    #[test]
    fn a_route_that_the_kernel_has_removed_is_forgotten() {
        let mut own = own_table(&["10.0.0.0/8"]);
        own.kernel.table.clear();
        own.follow(&Table::new()).unwrap();
        assert!(own.installed().is_empty());
    }

    #[test]
    fn after_a_broken_connection_the_table_is_read_again() {
        let mut own = own_table(&["10.0.0.0/8"]);
        own.kernel.breaks_after = Some(1);
        own.follow(&tunnel(&["10.1.0.0/16", "10.2.0.0/16"])).unwrap_err();
        own.kernel.breaks_after = None;
        own.follow(&Table::new()).unwrap();
        assert!(own.kernel.table.is_empty());
    }

    #[test]
    fn what_another_program_removed_or_altered_is_noticed_and_mended() {
        let wanted = tunnel(&["10.1.0.0/16", "10.2.0.0/16"]);
        for damage in [
            tunnel(&["10.1.0.0/16"]),
            Table::new(),
            tunnel(&["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]),
            Table::from([(net("10.1.0.0/16"), Target::Tunnel), (net("10.2.0.0/16"), Target::Direct)]),
        ] {
            let mut own = own_table(&["10.1.0.0/16", "10.2.0.0/16"]);
            assert_eq!(own.is_intact().unwrap(), Some(true));
            own.kernel.table = damage;
            assert_eq!(own.is_intact().unwrap(), Some(false));
            assert_eq!(own.is_intact().unwrap(), Some(false), "until it is mended");
            assert!(own.follow(&wanted).unwrap().is_empty());
            assert_eq!(own.is_intact().unwrap(), Some(true));
            assert_eq!(own.kernel.table, wanted);
        }
    }

    #[test]
    fn a_look_that_changes_interrupted_says_nothing_and_forgets_nothing() {
        let mut own = own_table(&["10.1.0.0/16", "10.2.0.0/16"]);
        own.kernel.interrupts = true;
        assert_eq!(own.is_intact().unwrap(), None);
        own.kernel.breaks_after = Some(0);
        own.follow(&tunnel(&["10.3.0.0/16"])).unwrap_err();
        own.kernel.breaks_after = None;
        // The route that the interrupted look has missed is removed later.
        own.follow(&tunnel(&["10.3.0.0/16"])).unwrap();
        own.kernel.interrupts = false;
        own.follow(&tunnel(&["10.3.0.0/16"])).unwrap();
        assert_eq!(own.kernel.table, tunnel(&["10.3.0.0/16"]));
    }

    #[test]
    fn a_table_too_large_to_read_is_not_taken_for_damaged() {
        let nets: Vec<String> = (0..12).map(|number| format!("10.{number}.0.0/16")).collect();
        let mut own = own_table(&nets.iter().map(String::as_str).collect::<Vec<_>>());
        own.kernel.table.remove(&net("10.1.0.0/16"));
        assert_eq!(own.is_intact().unwrap(), Some(true));
    }
}
