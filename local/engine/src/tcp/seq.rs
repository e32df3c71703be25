//! Positions in a stream of sequence numbers.
//!
//! A TCP sequence number wraps after 4 GiB (RFC 9293, 3.4). Inside the engine each half of a connection
//! counts in 64-bit *positions* instead: the SYN is at 0, the first byte at 1, and nothing ever wraps, so
//! `<` means what it says.

/// The sequence number of `position` in the stream that began with `initial`.
pub(super) fn wrap(initial: u32, position: u64) -> u32 {
    initial.wrapping_add(position as u32)
}

/// The position of `sequence` that is nearest to `near`; `None` if that lies before the stream.
pub(super) fn unwrap(initial: u32, sequence: u32, near: u64) -> Option<u64> {
    let distance = sequence.wrapping_sub(wrap(initial, near)) as i32;
    near.checked_add_signed(distance.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn positions_survive_the_wire(initial: u32, near in 0u64..1 << 40, distance in -0x7fff_ffffi64..0x7fff_ffff) {
            if let Some(position) = near.checked_add_signed(distance) {
                prop_assert_eq!(unwrap(initial, wrap(initial, position), near), Some(position));
            }
        }
    }

    #[test]
    fn what_lies_before_the_stream_has_no_position() {
        assert_eq!(unwrap(1000, 999, 0), None);
        assert_eq!(unwrap(1000, 999, 1), None);
        assert_eq!(unwrap(1000, 1000, 1), Some(0));
    }
}
