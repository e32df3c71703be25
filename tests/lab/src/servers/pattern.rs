//! A reproducible stream of bytes: its hash shows any byte that is missing, duplicated or moved.

use std::io;

use sha2::{Digest, Sha256};

use super::hex;

const BLOCK: usize = 1 << 20;

/// The first `len` bytes of an endless stream, block by block.
#[derive(Debug)]
pub struct Pattern {
    block: Vec<u8>,
    number: u64,
    left: u64,
}

impl Pattern {
    /// The first `len` bytes.
    pub fn new(len: u64) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let words = (0..BLOCK / 8).flat_map(|_| {
            // xorshift64: incompressible, so that compression in any layer does not distort measurements.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        Self { block: words.collect(), number: 0, left: len }
    }

    /// The next block, or `None` at the end. Each begins with its number.
    pub fn next_block(&mut self) -> Option<&[u8]> {
        if self.left == 0 {
            return None;
        }
        self.block[..8].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
        let len = self.left.min(BLOCK as u64);
        self.left -= len;
        Some(&self.block[..len as usize])
    }

    /// The hash of the first `len` bytes.
    pub fn sha256(len: u64) -> String {
        let mut pattern = Self::new(len);
        let mut hash = Sha256::new();
        while let Some(block) = pattern.next_block() {
            hash.update(block);
        }
        hex(hash)
    }
}

/// Compares what arrives with the [`Pattern`].
#[derive(Debug)]
pub struct Check {
    pattern: Pattern,
    /// Of the present block, what has not arrived.
    expected: Vec<u8>,
    count: u64,
}

impl Default for Check {
    fn default() -> Self {
        Self { pattern: Pattern::new(u64::MAX), expected: Vec::new(), count: 0 }
    }
}

impl Check {
    /// Compares the next bytes.
    ///
    /// # Errors
    /// They are others (`InvalidData`).
    pub fn next(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.expected.is_empty() {
                self.expected = self.pattern.next_block().unwrap_or_default().to_vec();
            }
            let len = bytes.len().min(self.expected.len());
            if bytes[..len] != self.expected[..len] {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.expected.drain(..len);
            self.count += len as u64;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// How many bytes were right.
    pub fn count(&self) -> u64 {
        self.count
    }
}
