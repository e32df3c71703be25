//! Which flow sends next: round robin by bytes, with flows that send little first. Pure.
//!
//! Deficit round robin with two lists, as in fq_codel (RFC 8290, 4.1 and 4.2): a flow that begins to send is
//! *fresh* and goes before the *bulk* flows until it has used up its quantum. So a keystroke or the first segment of
//! a page does not wait behind a transfer.
//!
//! A fresh flow that has nothing more to send goes to the end of the bulk list, as in fq_codel, so that it can't stay fresh by
//! sending little at a time. But unlike there, it keeps what is left of its quantum: what it has to send before its place in
//! that list is reached is fresh, too, until the quantum is used up. So among thousands of transfers not only its first packet
//! is soon sent.
//!
//! fq_codel has 1,024 queues at most, so it may always prefer fresh ones. Here there are as many as there are flows, and
//! whoever begins ever new ones could keep the link for them. So fresh flows are ahead of waiting bulk flows by
//! [`LEAD`] quanta at most; beyond that, both lists get the same.

use std::collections::VecDeque;

/// How many quanta all fresh flows together may be ahead of waiting bulk flows.
const LEAD: i64 = 4;

/// A flow's state in the schedule.
#[derive(Debug, Default)]
pub struct Standing {
    place: Place,
    deficit: i64,
}

/// The lists that a flow is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    None,
    Fresh,
    Bulk,
    /// The bulk list, until its quantum as a fresh flow is renewed. It has nothing to send.
    Resting,
    /// Both: it has something to send again.
    Back,
}

impl Standing {
    /// Whether the schedule has the flow in a list.
    pub fn is_listed(&self) -> bool {
        self.place != Place::None
    }
}

/// The flows that have something to send, named by `F`. Their state is kept by the owner, beside whatever else it knows
/// of them.
#[derive(Debug)]
pub struct Schedule<F> {
    quantum: i64,
    fresh: VecDeque<F>,
    bulk: VecDeque<F>,
    /// Bytes that fresh flows have sent while bulk flows waited, less those of bulk flows since.
    lead: i64,
}

/// The flow that may send next.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<F> {
    /// The flow at the head of a list.
    pub flow: F,
    fresh: bool,
}

impl<F: Copy> Schedule<F> {
    /// A schedule in which a flow sends `quantum` bytes in its turn, at least one packet.
    pub fn new(quantum: usize) -> Self {
        Self { quantum: quantum as i64, fresh: VecDeque::new(), bulk: VecDeque::new(), lead: 0 }
    }

    /// Sets what a flow sends in its turn from now on.
    pub fn set_quantum(&mut self, quantum: usize) {
        self.quantum = quantum as i64;
    }

    /// The flow has something to send.
    pub fn add(&mut self, flow: F, standing: &mut Standing) {
        match standing.place {
            Place::None => {
                *standing = Standing { place: Place::Fresh, deficit: self.quantum };
                self.fresh.push_back(flow);
            }
            Place::Resting if standing.deficit > 0 => {
                standing.place = Place::Back;
                self.fresh.push_back(flow);
            }
            Place::Resting => standing.place = Place::Bulk,
            Place::Fresh | Place::Bulk | Place::Back => {}
        }
    }

    /// The head of the lists.
    pub fn candidate(&self) -> Option<Candidate<F>> {
        let fresh = self.fresh.front().map(|flow| Candidate { flow: *flow, fresh: true });
        let bulk = self.bulk.front().map(|flow| Candidate { flow: *flow, fresh: false });
        if self.lead >= LEAD * self.quantum { bulk.or(fresh) } else { fresh.or(bulk) }
    }

    /// Whether the candidate may send now. If not, it has another quantum, and its place in a list is another one.
    pub fn may_send(&mut self, candidate: Candidate<F>, standing: &mut Standing) -> bool {
        if standing.place == Place::Back && !candidate.fresh {
            self.remove(candidate);
            *standing = Standing { place: Place::Fresh, deficit: self.quantum };
            return false;
        }
        if standing.deficit > 0 {
            return true;
        }
        standing.deficit += self.quantum;
        self.remove(candidate);
        if standing.place != Place::Back {
            self.bulk.push_back(candidate.flow);
        }
        standing.place = Place::Bulk;
        false
    }

    /// The candidate has sent `bytes`.
    pub fn sent(&mut self, candidate: Candidate<F>, standing: &mut Standing, bytes: usize) {
        standing.deficit -= bytes as i64;
        if self.bulk.is_empty() {
            self.lead = 0;
        } else if candidate.fresh {
            self.lead += bytes as i64;
        } else {
            self.lead = (self.lead - bytes as i64).max(0);
        }
    }

    /// The candidate has nothing more to send.
    pub fn emptied(&mut self, candidate: Candidate<F>, standing: &mut Standing) {
        self.remove(candidate);
        standing.place = match (candidate.fresh, standing.place) {
            (true, Place::Back) => Place::Resting,
            (true, _) if !self.bulk.is_empty() => {
                self.bulk.push_back(candidate.flow);
                Place::Resting
            }
            (false, Place::Back) => Place::Fresh,
            (true | false, _) => Place::None,
        };
    }

    /// Keeps only these flows.
    pub fn retain(&mut self, keep: impl Fn(F) -> bool) {
        for list in [&mut self.fresh, &mut self.bulk] {
            list.retain(|flow| keep(*flow));
            trim(list);
        }
    }

    /// The candidate no longer exists.
    pub fn remove(&mut self, candidate: Candidate<F>) {
        let list = if candidate.fresh { &mut self.fresh } else { &mut self.bulk };
        list.pop_front();
        trim(list);
    }
}

/// Gives back the memory for many flows that are gone.
fn trim<F>(list: &mut VecDeque<F>) {
    if is_sparse(list.len(), list.capacity()) {
        list.shrink_to(2 * list.len());
    }
}

/// Whether a collection keeps memory for many more than it has.
pub fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > 64 && len < capacity / 8
}

#[cfg(test)]
mod tests;
