//! The sender's side: which lane a frame takes.

use std::collections::VecDeque;

use super::limits::LANE_CAP;
use crate::frame::HEADER_LEN;

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The lane's index.
    pub lane: usize,
    /// The frame's number; `None` on a link of one lane.
    pub number: Option<u64>,
}

/// See the [module's documentation](super).
#[derive(Debug)]
pub struct Striper {
    /// Bytes of packet frames under way on each lane.
    under_way: Vec<u64>,
    /// The lane and bytes of each packet frame under way, in the order of sending.
    packets: VecDeque<(usize, u64)>,
    /// Bytes of packet frames that are reported as delivered, as whole packets.
    delivered: u64,
    /// The next number.
    next: u64,
    /// The number of lanes with which another one was last asked for.
    asked: usize,
}

impl Default for Striper {
    /// A link of one lane.
    fn default() -> Self {
        Self { under_way: vec![0], packets: VecDeque::new(), delivered: 0, next: 0, asked: 0 }
    }
}

impl Striper {
    /// The link has another lane.
    pub fn add_lane(&mut self) {
        self.under_way.push(0);
    }

    /// The place of a packet of `len` bytes, which is under way from now on.
    pub fn place_packet(&mut self, len: usize) -> Place {
        let place = self.place_frame();
        let bytes = (HEADER_LEN + len) as u64;
        self.under_way[place.lane] += bytes;
        self.packets.push_back((place.lane, bytes));
        place
    }

    /// The place of another frame whose order matters.
    pub fn place_frame(&mut self) -> Place {
        if self.under_way.len() == 1 {
            return Place { lane: 0, number: None };
        }
        let number = self.next;
        self.next += 1;
        Place { lane: if number == 0 { 0 } else { self.best_lane() }, number: Some(number) }
    }

    fn best_lane(&self) -> usize {
        let lanes = self.under_way.iter().enumerate().skip(1);
        lanes.min_by_key(|(_, under_way)| **under_way).map_or(0, |(lane, _)| lane)
    }

    /// Whether there is room for another packet on a line that holds `path` bytes (rate × round trip). A single lane leaves
    /// that to the window of the link, and to the channel's.
    pub fn has_room(&self, path: u64) -> bool {
        let total: u64 = self.under_way.iter().sum();
        let has_lane = || self.under_way[1..].iter().any(|under_way| *under_way < LANE_CAP);
        self.under_way.len() == 1 || total < useful(path).max(LANE_CAP) && has_lane()
    }

    /// The other end reports `total` bytes of packet frames. It can't report more than was sent, nor take a report back.
    pub fn delivered(&mut self, total: u64) {
        while let Some(&(lane, bytes)) = self.packets.front()
            && self.delivered + bytes <= total
        {
            self.delivered += bytes;
            self.under_way[lane] -= bytes;
            self.packets.pop_front();
        }
    }

    /// Whether another lane would help on such a line: it holds about as much as the lanes for packets, as it seems to if
    /// those are the limit. Tells it once for each number of lanes.
    pub fn wants_lane(&mut self, path: u64) -> bool {
        let lanes = self.under_way.len();
        let packet_lanes = (lanes - 1).max(1) as u64;
        let wants = self.asked < lanes && useful(path) > packet_lanes * LANE_CAP;
        if wants {
            self.asked = lanes;
        }
        wants
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.iter().all(|under_way| *under_way == 0) && self.packets.is_empty()
    }
}

/// How many bytes under way on several lanes are of use: what the line holds, and a quarter of it for late reports and to
/// find out whether it holds more. The rest would wait in the line's own queue, in front of what is urgent.
fn useful(path: u64) -> u64 {
    path + path / 4
}
