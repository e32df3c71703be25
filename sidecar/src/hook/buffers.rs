//! The memory that packets are read into.
//!
//! A packet may wait for the link. A small one is copied, so it keeps no more memory than it needs; a large one keeps the
//! buffer it was read into, which is used again once the packet is dropped. So what waiting packets keep is known
//! exactly: [`kept_by`].

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

/// Size of a buffer: the largest packet.
const SIZE: usize = u16::MAX as usize;
/// A packet smaller than this is copied out.
const COPY_BELOW: usize = 16 * 1024;
/// Number of unused buffers kept: what one turn of the pump reads.
const SPARE: usize = 4;

/// The memory that a packet of this length keeps.
pub(crate) fn kept_by(length: usize) -> usize {
    if length < COPY_BELOW { length } else { SIZE }
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Buffers {
    /// The one for the next packet; empty if it is to be made.
    next: Box<[u8]>,
    give_back: SyncSender<Box<[u8]>>,
    given_back: Receiver<Box<[u8]>>,
}

impl Default for Buffers {
    fn default() -> Self {
        let (give_back, given_back) = sync_channel(SPARE);
        Self { next: Box::default(), give_back, given_back }
    }
}

impl Buffers {
    /// Room for the next packet.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.next.is_empty() {
            self.next = self.given_back.try_recv().unwrap_or_else(|_| vec![0; SIZE].into());
        }
        &mut self.next
    }

    /// The packet of `length` bytes that was read into [`Self::room`].
    pub(super) fn packet(&mut self, length: usize) -> Bytes {
        if length < COPY_BELOW {
            return Bytes::copy_from_slice(&self.next[..length]);
        }
        let buffer = std::mem::take(&mut self.next);
        Bytes::from_owner(Lent { buffer, length, give_back: self.give_back.clone() })
    }

    /// A packet as if it had been read.
    #[cfg(test)]
    pub(crate) fn read(&mut self, packet: &[u8]) -> Bytes {
        self.room()[..packet.len()].copy_from_slice(packet);
        self.packet(packet.len())
    }
}

/// A buffer that is given back when it is dropped.
struct Lent {
    buffer: Box<[u8]>,
    length: usize,
    give_back: SyncSender<Box<[u8]>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Freed if there are enough.
        let _ = self.give_back.try_send(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_packet_keeps_its_buffer_until_it_is_dropped() {
        let mut buffers = Buffers::default();
        let mut read = |byte: u8, length: usize| {
            buffers.room()[..length].fill(byte);
            buffers.packet(length)
        };
        let small = read(1, COPY_BELOW - 1);
        let large = read(2, SIZE);
        let at = large.as_ptr();
        let next = read(3, COPY_BELOW);
        assert!(small.iter().all(|byte| *byte == 1));
        assert!(large.iter().all(|byte| *byte == 2));
        drop(large.slice(5..));
        let another = read(4, COPY_BELOW);
        assert_ne!(another.as_ptr(), at);
        drop(large);
        assert_eq!(read(5, COPY_BELOW).as_ptr(), at);
        assert!(next.iter().all(|byte| *byte == 3));
    }
}
