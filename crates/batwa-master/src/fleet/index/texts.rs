//! Distinct texts, found by any part of them.
//!
//! All texts lie one behind the other in one piece of memory, so that looking for a part is one pass over a few
//! megabytes at most; what many VMs share (an image, a label) is there once. Answers are kept until a text changes:
//! whoever pages through a search, or follows it, is answered from there.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use memchr::memmem;
use roaring::RoaringBitmap;

use super::sets::{Gathered, Postings, Slot};
use crate::fleet::search::pattern::Pattern;

/// Answers kept.
const KEPT_ANSWERS: usize = 32;
/// Dead bytes that are worth tidying up.
const MUCH_DEAD: usize = 64 << 10;
/// Between two texts: no UTF-8 has this byte, so no part reaches over it.
const BETWEEN: u8 = 0xff;

/// Distinct texts and the VMs that have them.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// Every text, each followed by [`BETWEEN`]; those of dead entries too.
    bytes: Vec<u8>,
    /// In the order of `bytes`.
    entries: Vec<Entry>,
    /// The live entry of each text.
    ids: HashMap<Arc<str>, usize>,
    dead: usize,
    answers: Mutex<VecDeque<(Pattern, Arc<RoaringBitmap>)>>,
}

#[derive(Debug)]
struct Entry {
    start: usize,
    text: Arc<str>,
    /// `None` when no VM has it any more.
    slots: Option<Postings>,
}

impl Texts {
    /// Says that the VM at `slot` has `text`.
    pub(crate) fn insert(&mut self, text: &str, slot: Slot) {
        self.forget_answers();
        if let Some(id) = self.ids.get(text) {
            if let Some(slots) = &mut self.entries[*id].slots {
                slots.insert(slot);
            }
            return;
        }
        let text: Arc<str> = text.into();
        self.ids.insert(text.clone(), self.entries.len());
        self.push(Entry {
            start: 0,
            text,
            slots: Some(Postings::One(slot)),
        });
    }

    /// Says that the VM at `slot` has `text` no more.
    pub(crate) fn remove(&mut self, text: &str, slot: Slot) {
        self.forget_answers();
        let Some(id) = self.ids.get(text).copied() else {
            return;
        };
        let entry = &mut self.entries[id];
        if entry.slots.as_mut().is_some_and(|slots| slots.remove(slot)) {
            entry.slots = None;
            self.dead += text.len() + 1;
            self.ids.remove(text);
            if self.dead > MUCH_DEAD && self.dead > self.bytes.len() / 2 {
                self.tidy();
            }
        }
    }

    /// The VMs with a text like `pattern`.
    pub(crate) fn find(&self, pattern: &Pattern) -> Arc<RoaringBitmap> {
        let mut answers = self.answers.lock().expect("no holder panics");
        if let Some(at) = answers.iter().position(|(asked, _)| asked == pattern) {
            let answer = answers.remove(at).expect("it was found there");
            answers.push_front(answer.clone());
            return answer.1;
        }
        drop(answers);
        let found = Arc::new(self.look_for(pattern));
        // Readers share the lock on the whole index, so that no text has changed since.
        let mut answers = self.answers.lock().expect("no holder panics");
        answers.truncate(KEPT_ANSWERS - 1);
        answers.push_front((pattern.clone(), found.clone()));
        found
    }

    fn look_for(&self, pattern: &Pattern) -> RoaringBitmap {
        let mut found = Gathered::default();
        if let Pattern::Whole(text) = pattern {
            if let Some(slots) = self
                .ids
                .get(text.as_str())
                .and_then(|id| self.entries[*id].slots.as_ref())
            {
                slots.add_to(&mut found);
            }
            return found.into_set();
        }
        let finder = memmem::Finder::new(pattern.core());
        let mut from = 0;
        let mut id = 0;
        while from < self.bytes.len()
            && let Some(at) = finder.find(&self.bytes[from..])
        {
            let at = from + at;
            id += self.entries[id..].partition_point(|entry| entry.start <= at) - 1;
            let entry = &self.entries[id];
            if let Some(slots) = &entry.slots
                && (matches!(pattern, Pattern::Part(_)) || pattern.matches(&entry.text))
            {
                slots.add_to(&mut found);
            }
            from = entry.start + entry.text.len() + 1;
        }
        found.into_set()
    }

    fn forget_answers(&mut self) {
        self.answers.get_mut().expect("no holder panics").clear();
    }

    fn push(&mut self, mut entry: Entry) {
        entry.start = self.bytes.len();
        self.bytes.extend_from_slice(entry.text.as_bytes());
        self.bytes.push(BETWEEN);
        self.entries.push(entry);
    }

    /// Makes the memory of dead entries free.
    fn tidy(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        self.bytes.clear();
        self.dead = 0;
        for entry in entries {
            if entry.slots.is_some() {
                self.ids.insert(entry.text.clone(), self.entries.len());
                self.push(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn pattern() -> impl Strategy<Value = Pattern> {
        prop_oneof![
            "[ab]{1,3}".prop_map(Pattern::Part),
            "[ab]{1,3}".prop_map(Pattern::Whole),
            prop::collection::vec("[ab]{0,2}", 2..4).prop_map(Pattern::Pieces),
        ]
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_the_texts_that_are_there_are_found(
            steps in prop::collection::vec((any::<bool>(), "[ab]{1,4}", 0..6_u32), 0..60),
            patterns in prop::collection::vec(pattern(), 1..4),
        ) {
            let mut texts = Texts::default();
            let mut there: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
            for (comes, text, slot) in steps {
                if comes {
                    texts.insert(&text, slot);
                    there.entry(text).or_default().insert(slot);
                } else if there.get_mut(&text).is_some_and(|slots| slots.remove(&slot)) {
                    texts.remove(&text, slot);
                }
                for pattern in &patterns {
                    let expected: BTreeSet<u32> = there
                        .iter()
                        .filter(|(text, _)| pattern.matches(text))
                        .flat_map(|(_, slots)| slots.iter().copied())
                        .collect();
                    // Twice: the second time from what was kept.
                    for _ in 0..2 {
                        let found: BTreeSet<u32> = texts.find(pattern).iter().collect();
                        prop_assert_eq!(&found, &expected, "{:?}", pattern);
                    }
                }
            }
        }
    }

    #[test]
    fn texts_that_come_and_go_leave_no_memory_behind() {
        let mut texts = Texts::default();
        for n in 0..100_000 {
            texts.insert(&format!("vm-{n}"), 7);
            texts.remove(&format!("vm-{n}"), 7);
        }
        texts.insert("last", 7);
        assert!(
            texts.bytes.len() < 4 * MUCH_DEAD,
            "{} bytes",
            texts.bytes.len()
        );
        assert!(texts.find(&Pattern::Part("as".into())).contains(7));
        assert!(texts.find(&Pattern::Part("vm".into())).is_empty());
    }
}
