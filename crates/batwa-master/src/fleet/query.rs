//! Lists of VMs: what a search finds, its counts, one page of it in order. Reads [`State`] and nothing else.
//!
//! Filters are unions and intersections of the index's sets. A page of few matches sorts those; a page of many walks
//! the order and takes what matches: either is a small part of a full scan, and the sets do not depend on the order.
//! A list without filters costs what it shows.

mod counts;
mod filter;
mod order;
#[cfg(test)]
mod tests;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use batwa_api::{
    id::AgentId,
    list::{VmCounts, VmList},
    name::VmName,
};
use serde::{Deserialize, Serialize};

use super::{
    index::Group,
    row::{NameKey, Row},
    search::{Term, vms::VmTest},
    state::State,
};
use filter::Matches;

/// Most items of one page.
pub(crate) const MAX_LIMIT: usize = 1000;
/// Most items that a page passes by: they are walked over, which costs little each, but not nothing.
pub(crate) const MAX_SKIP: usize = 1_000_000;
/// Items of a page when nobody says.
pub(crate) const DEFAULT_LIMIT: usize = 100;

/// By what VMs are sorted; the name and then the agent decide where that is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    /// By name.
    #[default]
    Name,
    /// By agent.
    Agent,
    /// By state.
    State,
    /// By virtual CPUs.
    Cpus,
    /// By memory.
    Memory,
    /// By disk.
    Disk,
    /// By when they were made.
    Created,
    /// By when they came into their state.
    Changed,
}

impl Sort {
    /// Every order, with its name on the wire.
    pub(crate) const ALL: [(&'static str, Self); 8] = [
        ("name", Self::Name),
        ("agent", Self::Agent),
        ("state", Self::State),
        ("cpus", Self::Cpus),
        ("memory", Self::Memory),
        ("disk", Self::Disk),
        ("created", Self::Created),
        ("changed", Self::Changed),
    ];

    /// The groups that come one after another in this order; none where there are no groups.
    fn group(self) -> Option<Group> {
        match self {
            Self::Name | Self::Agent => None,
            Self::State => Some(Group::State),
            Self::Cpus => Some(Group::Cpus),
            Self::Memory => Some(Group::Memory),
            Self::Disk => Some(Group::Disk),
            Self::Created => Some(Group::Created),
            Self::Changed => Some(Group::Changed),
        }
    }
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    /// The least first.
    #[default]
    Up,
    /// The greatest first.
    Down,
}

/// Which counts are wanted beside those by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    /// By agent.
    pub(crate) agents: bool,
    /// By label.
    pub(crate) labels: bool,
}

/// Which VMs, in which order, from where.
#[derive(Debug, Clone, Default)]
pub(crate) struct VmQuery {
    /// What must hold of them.
    pub(crate) terms: Vec<Term<VmTest>>,
    /// By what it is sorted.
    pub(crate) sort: Sort,
    /// Which way.
    pub(crate) direction: Direction,
    /// Most items of the page.
    pub(crate) limit: usize,
    /// After which VM the page begins.
    pub(crate) after: Option<Cursor>,
    /// How many are passed by first.
    pub(crate) skip: usize,
    /// Which counts are wanted.
    pub(crate) counted: Counted,
}

/// The last VM of a page, in the order that the page had. The next page begins after that place, whether or not the
/// VM is still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    #[serde(rename = "o")]
    sort: Sort,
    #[serde(rename = "d")]
    direction: Direction,
    /// The group's number; absent where there are no groups, or the number is not known.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    group: Option<u64>,
    #[serde(rename = "n")]
    name: VmName,
    #[serde(rename = "a")]
    agent: AgentId,
}

impl Cursor {
    /// The cursor as a client holds it.
    pub(crate) fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("a cursor is plain data");
        URL_SAFE_NO_PAD.encode(json)
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    /// Whether it comes from a list in this order.
    pub(crate) fn fits(&self, sort: Sort, direction: Direction) -> bool {
        self.sort == sort && self.direction == direction
    }

    fn key(&self) -> NameKey {
        NameKey(self.name.clone(), self.agent.clone())
    }
}

impl VmQuery {
    /// Whether it looks through texts or many rows, so that it is worth a thread of its own.
    pub(crate) fn is_search(&self) -> bool {
        !self.terms.is_empty() || self.counted != Counted::default() || self.skip > 0
    }

    fn cursor_after(&self, row: &Row) -> Cursor {
        Cursor {
            sort: self.sort,
            direction: self.direction,
            group: self.sort.group().and_then(|group| group.of(row)),
            name: row.vm.name.clone(),
            agent: row.agent.clone(),
        }
    }
}

impl State {
    /// One page of VMs, with counts over all pages.
    pub(crate) fn list_vms(&self, query: &VmQuery) -> VmList {
        let limit = query.limit.clamp(1, MAX_LIMIT);
        let matches = Matches::of(self, &query.terms);
        let skip = query.skip.min(MAX_SKIP);
        let mut page = self.page(query, matches.all().as_ref(), skip + limit + 1);
        page.drain(..skip.min(page.len()));
        let next_cursor = (page.len() > limit)
            .then(|| {
                page.truncate(limit);
                let last = page.last()?;
                Some(query.cursor_after(self.vms.row(*last)).encode())
            })
            .flatten();
        let counts: VmCounts = self.count_vms(&matches, query.counted);
        VmList {
            items: page
                .into_iter()
                .map(|slot| self.listed(self.vms.row(slot)))
                .collect(),
            next_cursor,
            counts,
        }
    }
}
