//! Room for another flow, made by the removal of one that nobody has answered.

use std::time::Instant;

use super::Engine;
use super::api::{Command, FlowId};
use super::events::Ending;
use super::flow::{Flow, Key, Room};

impl Engine {
    /// Makes room for a flow under `key`, if there is any to be made.
    pub(super) fn make_room(&mut self, key: &Key, now: Instant) -> bool {
        match self.table.room(key) {
            Room::Free => true,
            Room::InPlaceOf(id) => {
                self.evict(id, now);
                true
            }
            Room::None => {
                self.counters.dropped += 1;
                self.counters.full += 1;
                let bounds = &mut self.counters.bounds;
                *match key {
                    Key::Tcp { .. } => &mut bounds.connections,
                    Key::Udp { .. } => &mut bounds.mappings,
                    Key::Echo { .. } => &mut bounds.sessions,
                } += 1;
                false
            }
        }
    }

    /// Removes a flow that nobody has answered. For its program that is as if a packet was lost: its kernel sends the
    /// SYN again. If the SYN has been answered it does not, so it is told by a reset.
    fn evict(&mut self, id: FlowId, now: Instant) {
        self.counters.evicted += 1;
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.ending.get_or_insert(Ending::Evicted);
        let mut reset = None;
        if let Flow::Tcp(connection) = &mut entry.flow {
            connection.evict();
            reset = connection.poll_control(now);
            self.commands.push_back(Command::Abort(id));
        } else {
            self.commands.push_back(Command::Close(id));
        }
        self.remove(id);
        self.send_urgent(reset);
    }
}
