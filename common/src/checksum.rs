//! The Internet checksum (RFC 1071).

use std::net::IpAddr;

/// The unfinished sum of `bytes` as 16-bit words, the last one padded with a zero byte. Sums of slices of
/// even length may be added.
///
/// One's complement addition is independent of the byte order and of the width of the words (RFC 1071, 2), so this
/// adds native 32-bit words, which compilers turn into vector code.
pub fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let mut total: u64 = 0;
    for word in words.by_ref() {
        total += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    total + u64::from(u32::from_ne_bytes(last))
}

/// The unfinished sum of the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1).
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    address(source)
        + address(destination)
        + sum(&[0, protocol])
        + sum(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes())
}

fn address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    }
}

/// The checksum: the complement of the folded sum. Write it with [`u16::to_be_bytes`].
pub fn finish(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::from_be(sum as u16)
}

/// The checksum of `bytes`: 0 if they include a correct checksum.
pub fn of(bytes: &[u8]) -> u16 {
    finish(sum(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_an_independent_implementation(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let theirs = etherparse::checksum::Sum16BitWords::new().add_slice(&bytes).ones_complement();
            prop_assert_eq!(of(&bytes), u16::from_be(theirs));
        }

        #[test]
        fn sums_of_even_pieces_add_up(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..150) {
            let at = (at * 2).min(bytes.len() & !1);
            prop_assert_eq!(finish(sum(&bytes[..at]) + sum(&bytes[at..])), of(&bytes));
        }
    }
}
