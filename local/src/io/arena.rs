//! The memory that sockets are read into. A read that fills most of its buffer keeps it; what is shorter is copied out,
//! so that what is kept never pins much more memory than it counts.

use bytes::{Bytes, BytesMut};

/// Size of one buffer, in bytes: a read of a connection, or the largest datagram.
const SIZE: usize = 64 * 1024;
/// Shorter reads are copied out.
const COPIED: usize = 48 * 1024;

/// Memory for the next reads: read into [`Self::space`], then [`Self::take`] the bytes that were read.
#[derive(Debug, Default)]
pub(super) struct Arena(BytesMut);

impl Arena {
    /// Room for a read of at least `least` bytes, usually more.
    pub(super) fn space(&mut self, least: usize) -> &mut [u8] {
        if self.0.len() < least {
            self.0 = BytesMut::zeroed(SIZE.max(least));
        }
        &mut self.0
    }

    /// The first `len` bytes of the space.
    pub(super) fn take(&mut self, len: usize) -> Bytes {
        if len < COPIED {
            return Bytes::copy_from_slice(&self.0[..len]);
        }
        let mut taken = std::mem::take(&mut self.0);
        taken.truncate(len);
        taken.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_stays_while_the_space_is_used_again() {
        let mut arena = Arena::default();
        let mut taken = Vec::new();
        for round in 0..20_u8 {
            for len in [1, COPIED, 60_000] {
                arena.space(65_536)[..len].fill(round);
                taken.push((round, len, arena.take(len)));
            }
        }
        for (round, len, bytes) in taken {
            assert_eq!(bytes.len(), len);
            assert!(bytes.iter().all(|byte| *byte == round));
        }
    }
}
