//! The last bytes of a terminal's output, by absolute offsets.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::modes::Modes;

/// Output bytes, counted from 0; the oldest are forgotten once `capacity` are held.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    /// Offset after the last byte.
    end: u64,
    capacity: usize,
    /// The state of a terminal that was shown everything before the oldest byte.
    before: Modes,
}

impl Ring {
    /// An empty ring; it takes memory only as it fills.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            end: 0,
            capacity,
            before: Modes::new(),
        }
    }

    /// Offset of the oldest byte held.
    pub(super) fn oldest(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Offset after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Adds output.
    pub(super) fn push(&mut self, output: &[u8]) {
        self.end += output.len() as u64;
        let (passed, kept) = output.split_at(output.len().saturating_sub(self.capacity));
        let excess = (self.bytes.len() + kept.len()).saturating_sub(self.capacity);
        let (first, second) = self.bytes.as_slices();
        let from_first = excess.min(first.len());
        self.before.feed(&first[..from_first]);
        self.before.feed(&second[..excess - from_first]);
        self.before.feed(passed);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
    }

    /// What brings a terminal into the state in which the oldest byte that is held finds it; empty for a fresh one.
    pub(super) fn state_before(&self) -> String {
        self.before.text()
    }

    /// At most `max` bytes from `from` on, which must lie between [`Self::oldest`] and [`Self::end`].
    pub(super) fn read(&self, from: u64, max: usize) -> Bytes {
        let skip = usize::try_from(from - self.oldest()).expect("within what is held in memory");
        let take = (self.bytes.len() - skip).min(max);
        let mut copy = BytesMut::with_capacity(take);
        let (first, second) = self.bytes.as_slices();
        let from_first = first.get(skip..).unwrap_or_default();
        copy.extend_from_slice(&from_first[..from_first.len().min(take)]);
        let left = take - copy.len();
        if left > 0 {
            let skip = skip.saturating_sub(first.len());
            copy.extend_from_slice(&second[skip..skip + left]);
        }
        copy.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ring_holds_the_end_of_what_was_pushed(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..30),
            capacity in 1_usize..64,
            at in 0.0..1.0_f64,
            max in 0_usize..80,
        ) {
            let mut ring = Ring::new(capacity);
            let mut all = Vec::new();
            for chunk in &chunks {
                ring.push(chunk);
                all.extend_from_slice(chunk);
                prop_assert_eq!(ring.end(), all.len() as u64);
                prop_assert_eq!(ring.end() - ring.oldest(), all.len().min(capacity) as u64);
                let mut before = Modes::new();
                before.feed(&all[..ring.oldest() as usize]);
                prop_assert_eq!(&ring.before, &before);
            }
            let held = ring.end() - ring.oldest();
            let from = ring.oldest() + (held as f64 * at) as u64;
            let expected = &all[from as usize..];
            let expected = &expected[..expected.len().min(max)];
            prop_assert_eq!(&ring.read(from, max)[..], expected);
        }
    }
}
