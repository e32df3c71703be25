//! The budget: the bytes that the codespace can make the engine keep, by kind.
//!
//! Each kind has an account of its own, so that none starves another. A flow may always hold [`FLOOR`]; what it holds
//! beyond that comes from the account, and it gets at most a part of what the others have left: however much some hold,
//! the next one gets something, and few get nearly everything when they are alone. Room that was offered to the codespace
//! is charged as if it was used, because it can't be taken back.

use super::peers;
use super::tcp::Shares;

/// What each flow may hold in any case, in each direction. There are at most as many flows as [`super::limits`] allows.
pub(super) const FLOOR: usize = 3 * 1024;
/// The largest share of one connection for the host's socket.
const MAX_UPLINK: usize = 4 * 1024 * 1024;
/// The same for the codespace: one second at 128 Mbit/s, which may be under way on the link.
const MAX_DOWNLINK: usize = 16 * 1024 * 1024;
/// The same for the datagrams of one mapping or session: a handful of the largest.
const MAX_QUEUE: usize = 1024 * 1024;

/// What a flow is charged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Charge {
    /// For the host's socket.
    pub uplink: usize,
    /// For the codespace, as a stream.
    pub downlink: usize,
    /// For the codespace, as datagrams.
    pub queue: usize,
    /// For the destinations that it remembers.
    pub peers: usize,
}

/// All accounts.
#[derive(Debug)]
pub(super) struct Budget {
    uplink: Account,
    downlink: Account,
    queues: Account,
    peers: Account,
}

impl Budget {
    /// Divides `memory`. The rest of it is for floors, questions, names, fragments and small packets, which have
    /// bounds of their own.
    pub(super) fn new(memory: usize) -> Self {
        let part = memory / 16;
        Self {
            uplink: Account::new(2 * part, 8, MAX_UPLINK),
            downlink: Account::new(4 * part, 4, MAX_DOWNLINK),
            queues: Account::new(part / 2, 4, MAX_QUEUE),
            peers: Account::new(part / 4, 4, peers::MAX_COST),
        }
    }

    /// What a connection that is charged this may hold.
    pub(super) fn shares(&self, charge: Charge) -> Shares {
        Shares { uplink: self.uplink.share(charge.uplink), downlink: self.downlink.share(charge.downlink) }
    }

    /// What the queue of a mapping or session may hold.
    pub(super) fn queue(&self, charge: Charge) -> usize {
        self.queues.share(charge.queue)
    }

    /// What the destinations of a mapping or session may cost.
    pub(super) fn peers(&self, charge: Charge) -> usize {
        self.peers.share(charge.peers)
    }

    /// How often the bytes for the hosts, and those for the codespace, were used up.
    pub(super) fn waits(&self) -> (u64, u64) {
        (self.uplink.exhausted, self.downlink.exhausted)
    }

    /// A flow is charged `after` instead of `before`.
    pub(super) fn recharge(&mut self, before: Charge, after: Charge) {
        self.uplink.recharge(before.uplink, after.uplink);
        self.downlink.recharge(before.downlink, after.downlink);
        self.queues.recharge(before.queue, after.queue);
        self.peers.recharge(before.peers, after.peers);
    }
}

/// What one kind may hold beyond the floors.
#[derive(Debug)]
struct Account {
    total: usize,
    used: usize,
    /// A flow gets this fraction of what the others have left.
    divisor: usize,
    most: usize,
    /// How often it was used up.
    exhausted: u64,
}

impl Account {
    fn new(total: usize, divisor: usize, most: usize) -> Self {
        Self { total, used: 0, divisor, most, exhausted: 0 }
    }

    fn share(&self, charge: usize) -> usize {
        let left = (self.total + beyond_floor(charge)).saturating_sub(self.used);
        (FLOOR + left / self.divisor).min(self.most)
    }

    fn recharge(&mut self, before: usize, after: usize) {
        let (before, after) = (beyond_floor(before), beyond_floor(after));
        if before == after {
            return;
        }
        let was_low = self.is_low();
        self.used = (self.used + after).saturating_sub(before);
        self.exhausted += u64::from(self.is_low() && !was_low);
    }

    /// Whether a flow that has nothing yet gets no more than half of its floor beside the floor.
    fn is_low(&self) -> bool {
        self.total.saturating_sub(self.used) < FLOOR / 2 * self.divisor
    }
}

fn beyond_floor(charge: usize) -> usize {
    charge.saturating_sub(FLOOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` flows take all they get, one after the other; returns their charges.
    fn greedy(account: &mut Account, count: usize) -> Vec<usize> {
        let take = |account: &mut Account| {
            let share = account.share(0);
            account.recharge(0, share);
            share
        };
        (0..count).map(|_| take(account)).collect()
    }

    #[test]
    fn the_total_is_never_exceeded_and_the_next_one_gets_something() {
        let mut budget = Budget::new(256 << 20);
        for account in [&mut budget.uplink, &mut budget.downlink, &mut budget.queues, &mut budget.peers] {
            let charges = greedy(account, 10_000);
            let held: usize = charges.iter().sum();
            assert!(held <= account.total + 10_000 * FLOOR, "{held}");
            assert!(charges.iter().all(|charge| *charge >= FLOOR));
            assert_eq!(account.exhausted, 1);
            for charge in charges {
                account.recharge(charge, 0);
            }
            assert_eq!(account.used, 0);
        }
    }

    #[test]
    fn one_alone_gets_the_most() {
        let budget = Budget::new(256 << 20);
        let Shares { uplink, downlink } = budget.shares(Charge::default());
        assert_eq!((uplink, downlink), (MAX_UPLINK, MAX_DOWNLINK));
        assert_eq!(budget.queue(Charge::default()), MAX_QUEUE);
    }
}
