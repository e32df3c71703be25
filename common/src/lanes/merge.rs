//! The receiver's side: the order of the link, out of the lanes' own.

use bytes::Bytes;

/// See the [module's documentation](super). Keeps at most one frame of each lane, whatever the other end sends.
#[derive(Debug)]
pub struct Merge {
    /// The number whose turn it is.
    next: u64,
    /// For each lane, the frame that waits for its turn.
    heads: Vec<Option<(u64, Bytes)>>,
}

impl Default for Merge {
    /// A link of one lane.
    fn default() -> Self {
        Self { next: 0, heads: vec![None] }
    }
}

impl Merge {
    /// The link has another lane.
    pub fn add_lane(&mut self) {
        self.heads.push(None);
    }

    /// Whether `lane` has to be read: it has no frame that waits for its turn.
    pub fn needs(&self, lane: usize) -> bool {
        self.heads[lane].is_none()
    }

    /// Whether the other end has begun to number its frames.
    pub fn has_begun(&self) -> bool {
        self.next > 0
    }

    /// Takes the next frame of a lane that [needs](Self::needs) one. Returns it if its turn has come; otherwise
    /// [`Self::release`] will.
    ///
    /// # Errors
    /// How it breaks the protocol.
    pub fn take(&mut self, lane: usize, number: u64, frame: Bytes) -> Result<Option<Bytes>, &'static str> {
        if (lane == 0) != (number == 0) {
            return Err("its number belongs on another lane");
        }
        let waits = self.heads.iter().flatten().any(|(waiting, _)| *waiting == number);
        if number < self.next || waits {
            return Err("its number was used before");
        }
        if number == self.next {
            self.next += 1;
            return Ok(Some(frame));
        }
        self.heads[lane] = Some((number, frame));
        Ok(None)
    }

    /// A frame that waited, and whose turn has come.
    pub fn release(&mut self) -> Option<Bytes> {
        let next = self.next;
        let head = self.heads.iter_mut().find_map(|head| head.take_if(|(number, _)| *number == next));
        let (_, frame) = head?;
        self.next += 1;
        Some(frame)
    }

    /// The number for which a frame waits that has come.
    pub fn missing(&self) -> Option<u64> {
        self.heads.iter().any(Option::is_some).then_some(self.next)
    }
}
