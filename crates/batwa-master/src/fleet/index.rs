//! All VMs of the fleet and what they are found by. Knows nothing of agents but their ids.
//!
//! Every VM has a slot, a small number, for as long as it is there; everything else is sets of slots ([`sets`]) and
//! distinct texts ([`texts`]), so that filters are unions and intersections and counts are lengths. Only what changed
//! of a VM is indexed anew.

pub(crate) mod sets;
mod texts;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use batwa_api::{
    Timestamp,
    agent::DriverKind,
    id::AgentId,
    name::VmName,
    size::ByteSize,
    vm::{Readiness, VmState},
};
use roaring::RoaringBitmap;

use super::row::{NameKey, Row};
use sets::{Gathered, Groups, Postings, Slot};
use texts::Texts;

/// By which numbers VMs are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// By state.
    State,
    /// By virtual CPUs.
    Cpus,
    /// By memory in bytes.
    Memory,
    /// By disk in bytes.
    Disk,
    /// By when they were made.
    Created,
    /// By when they came into their state.
    Changed,
    /// By driver.
    Driver,
    /// By how usable they are.
    Readiness,
}

const GROUPS: [Group; 8] = [
    Group::State,
    Group::Cpus,
    Group::Memory,
    Group::Disk,
    Group::Created,
    Group::Changed,
    Group::Driver,
    Group::Readiness,
];

impl Group {
    /// The group that `row` is in; none when the number is not known.
    pub(crate) fn of(self, row: &Row) -> Option<u64> {
        let vm = &row.vm;
        let time = |time: Timestamp| u64::try_from(time.as_millisecond()).unwrap_or(0);
        match self {
            Self::State => Some(state_group(vm.state)),
            Self::Cpus => vm.cpus.map(u64::from),
            Self::Memory => vm.memory.map(ByteSize::as_u64),
            Self::Disk => vm.disk.map(ByteSize::as_u64),
            Self::Created => vm.created_at.map(time),
            Self::Changed => Some(time(vm.state_since)),
            Self::Driver => Some(driver_group(vm.driver)),
            Self::Readiness => vm.readiness.map(readiness_group),
        }
    }
}

/// The group of a state.
pub(crate) fn state_group(state: VmState) -> u64 {
    state as u64
}

/// The group of a driver.
pub(crate) fn driver_group(kind: DriverKind) -> u64 {
    kind as u64
}

/// The group of a readiness.
pub(crate) fn readiness_group(readiness: Readiness) -> u64 {
    readiness as u64
}

/// Which texts of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextOf {
    /// Its name.
    Name,
    /// Its image and operating system.
    Image,
    /// Its addresses.
    Address,
    /// Its labels, as `key=value`.
    Label,
    /// What people call it and wrote down about it.
    About,
}

impl TextOf {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Name,
        Self::Image,
        Self::Address,
        Self::Label,
        Self::About,
    ];
}

impl TextOf {
    fn of(self, row: &Row) -> Vec<String> {
        let mut texts = match self {
            Self::Name => vec![row.vm.name.as_str().to_lowercase()],
            Self::Image => row.image_texts(),
            Self::Address => row.address_texts(),
            Self::Label => row.label_texts(),
            Self::About => row.about_texts(),
        };
        texts.sort_unstable();
        texts.dedup();
        texts
    }

    /// Whether two rows differ in it; cheaper than comparing the texts.
    fn differs(self, a: &Row, b: &Row) -> bool {
        match self {
            Self::Name => a.vm.name != b.vm.name,
            Self::Image => a.vm.image != b.vm.image || a.vm.release != b.vm.release,
            Self::Address => a.vm.ipv4 != b.vm.ipv4,
            Self::Label => a.about.labels != b.about.labels,
            Self::About => {
                a.about.display_name != b.about.display_name || a.about.notes != b.about.notes
            }
        }
    }
}

/// A label's key and value.
pub(crate) type Label = (String, String);

/// All VMs.
#[derive(Debug, Default)]
pub(crate) struct VmIndex {
    rows: Vec<Option<Arc<Row>>>,
    free: Vec<Slot>,
    all: RoaringBitmap,
    by_agent: BTreeMap<AgentId, BTreeMap<VmName, Slot>>,
    by_name: BTreeMap<NameKey, Slot>,
    groups: [Groups; GROUPS.len()],
    texts: [Texts; TextOf::ALL.len()],
    labels: BTreeMap<Label, Postings>,
    /// The labels with how many VMs have each, the rarest first.
    labels_by_count: BTreeSet<(u64, Label)>,
    missing: RoaringBitmap,
    missing_of: BTreeMap<AgentId, u64>,
    busy: RoaringBitmap,
    protected: RoaringBitmap,
    expiring: RoaringBitmap,
}

impl VmIndex {
    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.all.len()
    }

    /// All slots.
    pub(crate) fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    /// One VM.
    pub(crate) fn get(&self, agent: &AgentId, name: &VmName) -> Option<&Arc<Row>> {
        let slot = self.by_agent.get(agent)?.get(name)?;
        Some(self.row(*slot))
    }

    /// The VM at a slot that an index named.
    pub(crate) fn row(&self, slot: Slot) -> &Arc<Row> {
        self.rows[slot as usize]
            .as_ref()
            .expect("every index names slots with a VM")
    }

    /// The VMs of one agent by name.
    pub(crate) fn of_agent(&self, agent: &AgentId) -> impl Iterator<Item = &Arc<Row>> {
        let names = self.by_agent.get(agent).into_iter().flatten();
        names.map(|(_, slot)| self.row(*slot))
    }

    /// How many VMs an agent has, those that it does not know any more too.
    pub(crate) fn count_of(&self, agent: &AgentId) -> u64 {
        self.by_agent
            .get(agent)
            .map_or(0, |names| names.len() as u64)
    }

    /// How many VMs of an agent it does not know any more.
    pub(crate) fn missing_of(&self, agent: &AgentId) -> u64 {
        self.missing_of.get(agent).copied().unwrap_or(0)
    }

    /// All VMs by agent and name.
    pub(crate) fn by_agent(&self) -> &BTreeMap<AgentId, BTreeMap<VmName, Slot>> {
        &self.by_agent
    }

    /// All VMs by name and agent.
    pub(crate) fn by_name(&self) -> &BTreeMap<NameKey, Slot> {
        &self.by_name
    }

    /// All VMs by a number.
    pub(crate) fn group(&self, group: Group) -> &Groups {
        &self.groups[group as usize]
    }

    /// VMs with one of these labels.
    pub(crate) fn labels(&self) -> &BTreeMap<Label, Postings> {
        &self.labels
    }

    /// Labels, those that most VMs have first.
    pub(crate) fn commonest_labels(&self) -> impl Iterator<Item = &Label> {
        self.labels_by_count.iter().rev().map(|(_, label)| label)
    }

    /// VMs that their agent does not know any more.
    pub(crate) fn missing(&self) -> &RoaringBitmap {
        &self.missing
    }

    /// VMs for which an operation runs or waits.
    pub(crate) fn busy(&self) -> &RoaringBitmap {
        &self.busy
    }

    /// VMs that can neither be deleted nor purged.
    pub(crate) fn protected(&self) -> &RoaringBitmap {
        &self.protected
    }

    /// VMs whose lifetime ends some day.
    pub(crate) fn expiring(&self) -> &RoaringBitmap {
        &self.expiring
    }

    /// VMs with a text like `pattern`.
    pub(crate) fn find(
        &self,
        texts: TextOf,
        pattern: &super::search::pattern::Pattern,
    ) -> Arc<RoaringBitmap> {
        self.texts[texts as usize].find(pattern)
    }

    /// The slots of one agent's VMs.
    pub(crate) fn add_agent_to(&self, agent: &AgentId, set: &mut Gathered) {
        for slot in self
            .by_agent
            .get(agent)
            .into_iter()
            .flat_map(BTreeMap::values)
        {
            set.add(*slot);
        }
    }

    /// Takes a VM, new or changed; the one before it if there was one.
    pub(crate) fn put(&mut self, row: &Arc<Row>) -> Option<Arc<Row>> {
        let slot = self
            .by_agent
            .get(&row.agent)
            .and_then(|names| names.get(&row.vm.name))
            .copied();
        let (slot, before) = match slot {
            Some(slot) => (slot, self.rows[slot as usize].replace(row.clone())),
            None => (self.add(row), None),
        };
        self.index(slot, before.as_deref(), Some(row));
        before
    }

    /// Forgets a VM.
    pub(crate) fn remove(&mut self, agent: &AgentId, name: &VmName) -> Option<Arc<Row>> {
        let names = self.by_agent.get_mut(agent)?;
        let slot = names.remove(name)?;
        if names.is_empty() {
            self.by_agent.remove(agent);
        }
        let row = self.rows[slot as usize].take()?;
        self.by_name.remove(&row.name_key());
        self.all.remove(slot);
        self.index(slot, Some(&row), None);
        self.free.push(slot);
        Some(row)
    }

    fn add(&mut self, row: &Arc<Row>) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.rows.push(None);
            Slot::try_from(self.rows.len() - 1).expect("fewer VMs than memory could hold")
        });
        self.rows[slot as usize] = Some(row.clone());
        self.by_agent
            .entry(row.agent.clone())
            .or_default()
            .insert(row.vm.name.clone(), slot);
        self.by_name.insert(row.name_key(), slot);
        self.all.insert(slot);
        slot
    }

    /// Brings everything that a VM is found by from what was to what is.
    fn index(&mut self, slot: Slot, before: Option<&Row>, now: Option<&Row>) {
        for group in GROUPS {
            let of = |row: Option<&Row>| row.and_then(|row| group.of(row));
            self.groups[group as usize].put(slot, of(before), of(now));
        }
        for kind in TextOf::ALL {
            if let (Some(before), Some(now)) = (before, now)
                && !kind.differs(before, now)
            {
                continue;
            }
            let texts = &mut self.texts[kind as usize];
            for text in before.map(|row| kind.of(row)).unwrap_or_default() {
                texts.remove(&text, slot);
            }
            for text in now.map(|row| kind.of(row)).unwrap_or_default() {
                texts.insert(&text, slot);
            }
        }
        if before.map(|row| &row.about.labels) != now.map(|row| &row.about.labels) {
            for (key, value) in before.iter().flat_map(|row| &row.about.labels) {
                self.label((key.clone(), value.clone()), slot, Change::Gone);
            }
            for (key, value) in now.iter().flat_map(|row| &row.about.labels) {
                self.label((key.clone(), value.clone()), slot, Change::Come);
            }
        }
        let put = |set: &mut RoaringBitmap, is: bool| match is {
            true => set.insert(slot),
            false => set.remove(slot),
        };
        put(
            &mut self.busy,
            now.is_some_and(|row| !row.vm.operations.is_empty()),
        );
        put(
            &mut self.protected,
            now.is_some_and(|row| row.vm.settings.protected),
        );
        put(
            &mut self.expiring,
            now.is_some_and(|row| row.vm.settings.lifetime.is_some()),
        );
        let is_missing = |row: Option<&Row>| row.is_some_and(|row| row.missing_since.is_some());
        if put(&mut self.missing, is_missing(now))
            && let Some(row) = now.or(before)
        {
            let count = self.missing_of.entry(row.agent.clone()).or_default();
            match is_missing(now) {
                true => *count += 1,
                false => *count -= 1,
            }
            if *count == 0 {
                self.missing_of.remove(&row.agent);
            }
        }
    }

    fn label(&mut self, label: Label, slot: Slot, change: Change) {
        let count = |postings: Option<&Postings>| postings.map_or(0, |set| set.count_in(None));
        let before = count(self.labels.get(&label));
        match change {
            Change::Come => {
                self.labels
                    .entry(label.clone())
                    .and_modify(|postings| postings.insert(slot))
                    .or_insert(Postings::One(slot));
            }
            Change::Gone => {
                if self
                    .labels
                    .get_mut(&label)
                    .is_some_and(|postings| postings.remove(slot))
                {
                    self.labels.remove(&label);
                }
            }
        }
        let now = count(self.labels.get(&label));
        self.labels_by_count.remove(&(before, label.clone()));
        if now > 0 {
            self.labels_by_count.insert((now, label));
        }
    }
}

#[derive(Clone, Copy)]
enum Change {
    Come,
    Gone,
}

#[cfg(test)]
impl VmIndex {
    /// Panics unless everything agrees with the rows that are there.
    pub(crate) fn check(&self) {
        let rows: Vec<(Slot, &Arc<Row>)> = (0..)
            .zip(&self.rows)
            .filter_map(|(slot, row)| Some((slot, row.as_ref()?)))
            .collect();
        assert_eq!(rows.len() as u64, self.len());
        assert_eq!(self.rows.len(), rows.len() + self.free.len());
        assert_eq!(self.by_name.len(), rows.len());
        assert_eq!(
            self.by_agent.values().map(BTreeMap::len).sum::<usize>(),
            rows.len()
        );
        for (slot, row) in &rows {
            assert!(self.all.contains(*slot));
            assert_eq!(self.by_name[&row.name_key()], *slot);
            assert_eq!(self.by_agent[&row.agent][&row.vm.name], *slot);
            assert_eq!(self.missing.contains(*slot), row.missing_since.is_some());
            assert_eq!(self.busy.contains(*slot), !row.vm.operations.is_empty());
            assert_eq!(self.protected.contains(*slot), row.vm.settings.protected);
            assert_eq!(
                self.expiring.contains(*slot),
                row.vm.settings.lifetime.is_some()
            );
        }
        let of = |wanted: &dyn Fn(&Row) -> bool| -> RoaringBitmap {
            rows.iter()
                .filter(|(_, row)| wanted(row))
                .map(|(slot, _)| *slot)
                .collect()
        };
        for group in GROUPS {
            for (number, slots) in self.group(group).range(..) {
                assert_eq!(slots.within(None), of(&|row| group.of(row) == Some(number)));
            }
            let grouped: u64 = self
                .group(group)
                .range(..)
                .map(|(_, slots)| slots.count_in(None))
                .sum();
            assert_eq!(grouped, of(&|row| group.of(row).is_some()).len());
        }
        for ((key, value), slots) in &self.labels {
            assert_eq!(
                slots.within(None),
                of(&|row| row.about.labels.get(key) == Some(value))
            );
            let counted = (slots.count_in(None), (key.clone(), value.clone()));
            assert!(self.labels_by_count.contains(&counted));
        }
        assert_eq!(self.labels.len(), self.labels_by_count.len());
        for (slot, row) in &rows {
            for text in row.texts() {
                let pattern = super::search::pattern::Pattern::Whole(text);
                assert!(
                    TextOf::ALL
                        .iter()
                        .any(|kind| self.find(*kind, &pattern).contains(*slot))
                );
            }
        }
        for (agent, count) in &self.missing_of {
            let missing = of(&|row| row.agent == *agent && row.missing_since.is_some());
            assert_eq!(missing.len(), *count);
        }
    }
}
