//! Lists of agents: at most some ten thousand, so that looking at each is quick; only the page is made in full.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use batwa_api::{
    agent::AgentStatus,
    id::AgentId,
    list::{AgentCounts, AgentList},
};
use serde::{Deserialize, Serialize};

use super::{
    entry::AgentEntry,
    query::{Direction, MAX_LIMIT},
    search::{Term, agents::AgentTest},
    state::State,
};

/// By what agents are sorted; the id decides where that is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AgentSort {
    /// By id.
    #[default]
    Id,
    /// By what people call them.
    Name,
    /// By how they stand.
    Status,
    /// By how many VMs they have.
    Vms,
    /// By when they were last heard of.
    Seen,
}

impl AgentSort {
    /// Every order, with its name on the wire.
    pub(crate) const ALL: [(&'static str, Self); 5] = [
        ("id", Self::Id),
        ("name", Self::Name),
        ("status", Self::Status),
        ("vms", Self::Vms),
        ("seen", Self::Seen),
    ];
}

/// Which agents, in which order, from where.
#[derive(Debug, Clone, Default)]
pub(crate) struct AgentQuery {
    /// What must hold of them.
    pub(crate) terms: Vec<Term<AgentTest>>,
    /// By what they are sorted.
    pub(crate) sort: AgentSort,
    /// Which way.
    pub(crate) direction: Direction,
    /// Most items of the page.
    pub(crate) limit: usize,
    /// After which agent the page begins.
    pub(crate) after: Option<AgentCursor>,
}

/// The last agent of a page, in the order that the page had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgentCursor {
    #[serde(rename = "o")]
    sort: AgentSort,
    #[serde(rename = "d")]
    direction: Direction,
    #[serde(rename = "k")]
    key: Key,
    #[serde(rename = "i")]
    id: AgentId,
}

impl AgentCursor {
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
    pub(crate) fn fits(&self, sort: AgentSort, direction: Direction) -> bool {
        self.sort == sort && self.direction == direction
    }
}

/// What decides the order before the id does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    Number(u64),
    Text(String),
}

impl State {
    /// One page of agents, with counts over all pages.
    pub(crate) fn list_agents(&self, query: &AgentQuery) -> AgentList {
        let limit = query.limit.clamp(1, MAX_LIMIT);
        let mut statuses: BTreeMap<AgentStatus, u64> = BTreeMap::new();
        let mut total = 0;
        let mut found = Vec::new();
        for (id, entry) in &self.agents {
            let vm_count = self.vms.count_of(id);
            let matches = |status: bool| {
                query.terms.iter().all(|term| {
                    matches!(term.test, AgentTest::Status(_)) != status
                        || term.test.matches(id, entry, vm_count) != term.negated
                })
            };
            if !matches(false) {
                continue;
            }
            *statuses.entry(entry.standing.status).or_default() += 1;
            if !matches(true) {
                continue;
            }
            total += 1;
            let place = (query.sort.key(entry, vm_count), id);
            let later = query.after.as_ref().is_none_or(|after| {
                let order = (&place.0, place.1).cmp(&(&after.key, &after.id));
                match query.direction {
                    Direction::Up => order == Ordering::Greater,
                    Direction::Down => order == Ordering::Less,
                }
            });
            if later {
                found.push(place);
            }
        }
        match query.direction {
            Direction::Up => found.sort_unstable(),
            Direction::Down => found.sort_unstable_by_key(|place| Reverse(place.clone())),
        }
        let more = found.len() > limit;
        found.truncate(limit);
        let next_cursor = found.last().filter(|_| more).map(|(key, id)| {
            let cursor = AgentCursor {
                sort: query.sort,
                direction: query.direction,
                key: key.clone(),
                id: (*id).clone(),
            };
            cursor.encode()
        });
        AgentList {
            items: found
                .into_iter()
                .filter_map(|(_, id)| self.agent(id))
                .collect(),
            next_cursor,
            counts: AgentCounts { total, statuses },
        }
    }
}

impl AgentSort {
    fn key(self, entry: &AgentEntry, vm_count: u64) -> Key {
        match self {
            Self::Id => Key::Number(0),
            Self::Name => Key::Text(entry.name().to_lowercase()),
            Self::Status => Key::Number(entry.standing.status as u64),
            Self::Vms => Key::Number(vm_count),
            Self::Seen => Key::Number(
                entry
                    .last_seen()
                    .map_or(0, |seen| u64::try_from(seen.as_millisecond()).unwrap_or(0)),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::{
        search,
        state::tests::{id, state_with, vm},
    };

    fn ids(list: &AgentList) -> Vec<String> {
        list.items
            .iter()
            .map(|agent| agent.id.to_string())
            .collect()
    }

    fn ask(text: &str) -> AgentQuery {
        AgentQuery {
            terms: search::agents::parse(text).unwrap(),
            limit: 10,
            ..AgentQuery::default()
        }
    }

    #[test]
    fn agents_are_found_by_what_they_are() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut state = state_with(&["lab-1", "lab-2", "office"]);
        state.set_standing(&id("lab-2"), AgentStatus::Offline, None, now);
        state.put_vm(&id("office"), vm("web", batwa_api::vm::VmState::Running));
        for (text, expected) in [
            ("", vec!["lab-1", "lab-2", "office"]),
            ("agent:lab-*", vec!["lab-1", "lab-2"]),
            ("-agent:lab-*", vec!["office"]),
            ("ffi", vec!["office"]),
            ("status:offline", vec!["lab-2"]),
            ("-status:offline lab", vec!["lab-1"]),
            ("vms>0", vec!["office"]),
            ("is:cordoned", vec![]),
        ] {
            assert_eq!(ids(&state.list_agents(&ask(text))), expected, "{text}");
        }
        let online = state.list_agents(&ask("status:online lab"));
        assert_eq!(online.counts.total, 1);
        assert_eq!(
            online.counts.statuses[&AgentStatus::Offline],
            1,
            "whatever status is asked for"
        );
    }

    proptest! {
        #[test]
        fn pages_in_any_order_hold_every_agent_once(
            offline in prop::collection::vec(any::<bool>(), 0..12),
            limit in 1..5_usize,
            sort in prop::sample::select(AgentSort::ALL.map(|(_, sort)| sort).to_vec()),
            direction in prop_oneof![Just(Direction::Up), Just(Direction::Down)],
        ) {
            let now = Timestamp::from_second(1_800_000_000).unwrap();
            let names: Vec<String> = (0..offline.len()).map(|n| format!("a{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut state = state_with(&names);
            for (name, offline) in names.iter().zip(&offline) {
                if *offline {
                    state.set_standing(&id(name), AgentStatus::Offline, None, now);
                }
            }
            let mut query = AgentQuery { sort, direction, limit, ..AgentQuery::default() };
            let whole = ids(&state.list_agents(&AgentQuery { limit: 1000, ..query.clone() }));
            let mut seen = Vec::new();
            loop {
                let list = state.list_agents(&query);
                prop_assert!(list.items.len() <= limit);
                seen.extend(ids(&list));
                match list.next_cursor {
                    Some(cursor) => query.after = AgentCursor::decode(&cursor),
                    None => break,
                }
                prop_assert!(seen.len() < 100);
            }
            prop_assert_eq!(&seen, &whole);
            let mut all = seen;
            all.sort_unstable();
            let mut expected: Vec<_> = names.iter().map(ToString::to_string).collect();
            expected.sort_unstable();
            prop_assert_eq!(all, expected);
        }
    }
}
