//! Sets of VMs by their slots, small where there is one and compressed where there are many.

use std::{collections::BTreeMap, ops::RangeBounds};

use roaring::RoaringBitmap;

/// The place of a VM in the index, for as long as it is there.
pub(crate) type Slot = u32;

/// A set of slots that often has only one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Postings {
    /// One.
    One(Slot),
    /// Any number.
    Many(RoaringBitmap),
}

impl Postings {
    /// Adds `slot`.
    pub(crate) fn insert(&mut self, slot: Slot) {
        match self {
            Self::One(only) if *only == slot => {}
            Self::One(only) => *self = Self::Many([*only, slot].into_iter().collect()),
            Self::Many(many) => {
                many.insert(slot);
            }
        }
    }

    /// Takes `slot` away; whether nothing is left.
    pub(crate) fn remove(&mut self, slot: Slot) -> bool {
        match self {
            Self::One(only) => *only == slot,
            Self::Many(many) => {
                many.remove(slot);
                many.is_empty()
            }
        }
    }

    /// Adds all of it to `set`.
    pub(crate) fn add_to(&self, set: &mut Gathered) {
        match self {
            Self::One(only) => set.add(*only),
            Self::Many(many) => set.add_all(many),
        }
    }

    /// How many of it are in `set`; all of them when there is none.
    pub(crate) fn count_in(&self, set: Option<&RoaringBitmap>) -> u64 {
        match (self, set) {
            (Self::One(_), None) => 1,
            (Self::One(only), Some(set)) => u64::from(set.contains(*only)),
            (Self::Many(many), None) => many.len(),
            (Self::Many(many), Some(set)) => many.intersection_len(set),
        }
    }

    /// Those of it that are in `set`; all of them when there is none.
    pub(crate) fn within(&self, set: Option<&RoaringBitmap>) -> RoaringBitmap {
        match (self, set) {
            (Self::One(only), set) => set
                .is_none_or(|set| set.contains(*only))
                .then_some(*only)
                .into_iter()
                .collect(),
            (Self::Many(many), None) => many.clone(),
            (Self::Many(many), Some(set)) => many & set,
        }
    }
}

/// A set that is being put together from very many pieces: single slots as bits, sets as they are.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    bits: Vec<u8>,
    sets: RoaringBitmap,
}

impl Gathered {
    /// Adds one slot.
    pub(crate) fn add(&mut self, slot: Slot) {
        let (byte, bit) = (slot as usize / 8, slot % 8);
        if byte >= self.bits.len() {
            self.bits.resize((byte + 1).next_power_of_two(), 0);
        }
        self.bits[byte] |= 1 << bit;
    }

    /// Adds many.
    pub(crate) fn add_all(&mut self, slots: &RoaringBitmap) {
        self.sets |= slots;
    }

    /// All of them.
    pub(crate) fn into_set(mut self) -> RoaringBitmap {
        self.sets |= RoaringBitmap::from_lsb0_bytes(0, &self.bits);
        self.sets
    }
}

/// VMs by a number or a state that they have.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_number: BTreeMap<u64, Postings>,
    /// All that are in any.
    grouped: RoaringBitmap,
}

impl Groups {
    /// Puts `slot` where it belongs now; `before` is where it was.
    pub(crate) fn put(&mut self, slot: Slot, before: Option<u64>, now: Option<u64>) {
        if before == now {
            return;
        }
        if let Some(before) = before
            && self
                .by_number
                .get_mut(&before)
                .is_some_and(|postings| postings.remove(slot))
        {
            self.by_number.remove(&before);
        }
        match now {
            Some(now) => {
                self.by_number
                    .entry(now)
                    .and_modify(|postings| postings.insert(slot))
                    .or_insert(Postings::One(slot));
                self.grouped.insert(slot);
            }
            None => {
                self.grouped.remove(slot);
            }
        }
    }

    /// The VMs in one group.
    pub(crate) fn get(&self, group: u64) -> Option<&Postings> {
        self.by_number.get(&group)
    }

    /// The groups in order.
    pub(crate) fn range(
        &self,
        range: impl RangeBounds<u64>,
    ) -> impl DoubleEndedIterator<Item = (u64, &Postings)> {
        let groups = self.by_number.range(range);
        groups.map(|(group, postings)| (*group, postings))
    }

    /// The VMs that are in any group.
    pub(crate) fn grouped(&self) -> &RoaringBitmap {
        &self.grouped
    }
}
