//! One page of what was found, in order.

use std::{cmp::Ordering, ops::Bound};

use batwa_api::{id::AgentId, name::VmName};
use roaring::RoaringBitmap;

use super::{Cursor, Direction, Sort, VmQuery};
use crate::fleet::{
    index::{
        Group,
        sets::{Postings, Slot},
    },
    row::{NameKey, Row},
    state::State,
};

/// Sorting one VM costs about as much as passing so many of them by.
const SORT_COST: u64 = 12;

impl State {
    /// The next `want` of `matches` after the query's cursor; all VMs match when there are no `matches`.
    pub(super) fn page(
        &self,
        query: &VmQuery,
        matches: Option<&RoaringBitmap>,
        want: usize,
    ) -> Vec<Slot> {
        if let Some(matches) = matches
            && self.is_sorted_sooner(matches.len(), want)
        {
            return self.sorted(query, matches, want);
        }
        match query.sort.group() {
            Some(group) => self.walk_groups(query, group, matches, want),
            None if query.sort == Sort::Agent => self.walk_agents(query, matches, want),
            None => {
                let after = query.after.as_ref().map(Cursor::key);
                self.walk_names(after.as_ref(), query.direction, matches, want)
            }
        }
    }

    /// Whether sorting `matching` VMs is quicker than passing by those between `want` of them.
    fn is_sorted_sooner(&self, matching: u64, want: usize) -> bool {
        matching * matching * SORT_COST < want as u64 * self.vms.len().max(1)
    }

    fn sorted(&self, query: &VmQuery, matches: &RoaringBitmap, want: usize) -> Vec<Slot> {
        let mut found: Vec<(Key<'_>, Slot)> = matches
            .iter()
            .map(|slot| (Key::of(query.sort, self.vms.row(slot)), slot))
            .filter(|(key, _)| {
                query.after.as_ref().is_none_or(|after| {
                    let order = key.cmp(&Key::after(after));
                    order == query.direction.later()
                })
            })
            .collect();
        found.sort_unstable_by(|(a, _), (b, _)| match query.direction {
            Direction::Up => a.cmp(b),
            Direction::Down => b.cmp(a),
        });
        found.truncate(want);
        found.into_iter().map(|(_, slot)| slot).collect()
    }

    fn walk_names(
        &self,
        after: Option<&NameKey>,
        direction: Direction,
        matches: Option<&RoaringBitmap>,
        want: usize,
    ) -> Vec<Slot> {
        let range = rest(after, direction);
        let slots = self.vms.by_name().range::<NameKey, _>(range);
        take(
            directed(slots.map(|(_, slot)| *slot), direction),
            matches,
            want,
        )
    }

    fn walk_agents(
        &self,
        query: &VmQuery,
        matches: Option<&RoaringBitmap>,
        want: usize,
    ) -> Vec<Slot> {
        let direction = query.direction;
        let after = query.after.as_ref();
        let from_agent: (Bound<&AgentId>, Bound<&AgentId>) = match (after, direction) {
            (None, _) => (Bound::Unbounded, Bound::Unbounded),
            (Some(after), Direction::Up) => (Bound::Included(&after.agent), Bound::Unbounded),
            (Some(after), Direction::Down) => (Bound::Unbounded, Bound::Included(&after.agent)),
        };
        let agents = self.vms.by_agent().range::<AgentId, _>(from_agent);
        let slots = directed(agents, direction).flat_map(|(agent, names)| {
            let after = after.filter(|after| after.agent == *agent);
            let range = rest(after.map(|after| &after.name), direction);
            let slots = names.range::<VmName, _>(range).map(|(_, slot)| *slot);
            directed(slots, direction)
        });
        take(slots, matches, want)
    }

    /// Group after group, each in the order of names; those in no group come before all others.
    fn walk_groups(
        &self,
        query: &VmQuery,
        group: Group,
        matches: Option<&RoaringBitmap>,
        want: usize,
    ) -> Vec<Slot> {
        let groups = self.vms.group(group);
        let direction = query.direction;
        let after = query.after.as_ref();
        let mut found = Vec::new();
        let in_group = |number: Option<u64>, slots: Option<&Postings>, found: &mut Vec<Slot>| {
            let after = after.filter(|after| after.group == number).map(Cursor::key);
            let set = match slots {
                Some(Postings::One(only)) if after.is_none() => {
                    found.extend(
                        Some(*only).filter(|slot| matches.is_none_or(|set| set.contains(*slot))),
                    );
                    return;
                }
                Some(slots) => slots.within(matches),
                None => matches.unwrap_or(self.vms.all()) - groups.grouped(),
            };
            if !set.is_empty() {
                let want = want - found.len();
                found.extend(self.ordered_by_name(&set, after.as_ref(), direction, want));
            }
        };
        let from: (Bound<u64>, Bound<u64>) = match (after, direction) {
            (None, _) => (Bound::Unbounded, Bound::Unbounded),
            (Some(after), Direction::Up) => (
                after.group.map_or(Bound::Unbounded, Bound::Included),
                Bound::Unbounded,
            ),
            (Some(after), Direction::Down) => match after.group {
                Some(number) => (Bound::Unbounded, Bound::Included(number)),
                // Only those in no group are left.
                None => {
                    in_group(None, None, &mut found);
                    return found;
                }
            },
        };
        let nothing_yet = after.is_none_or(|after| after.group.is_none());
        if direction == Direction::Up && nothing_yet {
            in_group(None, None, &mut found);
        }
        for (number, slots) in directed(groups.range(from), direction) {
            if found.len() == want {
                return found;
            }
            in_group(Some(number), Some(slots), &mut found);
        }
        if direction == Direction::Down && found.len() < want {
            in_group(None, None, &mut found);
        }
        found
    }

    fn ordered_by_name(
        &self,
        set: &RoaringBitmap,
        after: Option<&NameKey>,
        direction: Direction,
        want: usize,
    ) -> Vec<Slot> {
        if !self.is_sorted_sooner(set.len(), want) {
            return self.walk_names(after, direction, Some(set), want);
        }
        let mut found: Vec<(NameKey, Slot)> = set
            .iter()
            .map(|slot| (self.vms.row(slot).name_key(), slot))
            .filter(|(key, _)| after.is_none_or(|after| key.cmp(after) == direction.later()))
            .collect();
        found.sort_unstable();
        if direction == Direction::Down {
            found.reverse();
        }
        found.truncate(want);
        found.into_iter().map(|(_, slot)| slot).collect()
    }
}

impl Direction {
    /// How what comes later compares with what came before.
    fn later(self) -> Ordering {
        match self {
            Self::Up => Ordering::Greater,
            Self::Down => Ordering::Less,
        }
    }
}

/// What decides the order: the group first, then name and agent, or the other way round.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a>(Option<u64>, &'a str, &'a str);

impl<'a> Key<'a> {
    fn of(sort: Sort, row: &'a Row) -> Self {
        let group = sort.group().and_then(|group| group.of(row));
        Self::new(sort, group, &row.vm.name, &row.agent)
    }

    fn after(cursor: &'a Cursor) -> Self {
        Self::new(cursor.sort, cursor.group, &cursor.name, &cursor.agent)
    }

    fn new(sort: Sort, group: Option<u64>, name: &'a VmName, agent: &'a AgentId) -> Self {
        match sort {
            Sort::Agent => Self(None, agent.as_str(), name.as_str()),
            _ => Self(group, name.as_str(), agent.as_str()),
        }
    }
}

/// What comes after `after`.
fn rest<K>(after: Option<&K>, direction: Direction) -> (Bound<&K>, Bound<&K>) {
    match (after, direction) {
        (None, _) => (Bound::Unbounded, Bound::Unbounded),
        (Some(after), Direction::Up) => (Bound::Excluded(after), Bound::Unbounded),
        (Some(after), Direction::Down) => (Bound::Unbounded, Bound::Excluded(after)),
    }
}

fn directed<'a, T: 'a>(
    items: impl DoubleEndedIterator<Item = T> + 'a,
    direction: Direction,
) -> Box<dyn Iterator<Item = T> + 'a> {
    match direction {
        Direction::Up => Box::new(items),
        Direction::Down => Box::new(items.rev()),
    }
}

fn take(
    slots: impl Iterator<Item = Slot>,
    matches: Option<&RoaringBitmap>,
    want: usize,
) -> Vec<Slot> {
    slots
        .filter(|slot| matches.is_none_or(|set| set.contains(*slot)))
        .take(want)
        .collect()
}
