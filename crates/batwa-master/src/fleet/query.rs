//! Lists of VMs: filters, order, pages. Reads [`State`] and nothing else.
//!
//! A page without filters, or of one agent or state, costs what it shows; a search looks at each VM once.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use batwa_api::{
    id::AgentId,
    list::{VmCounts, VmList},
    name::VmName,
    vm::VmState,
};
use serde::{Deserialize, Serialize};

use super::state::{NameKey, Row, State, first_name};

/// Most items of one page.
pub(crate) const MAX_LIMIT: usize = 1000;
/// Items of a page when nobody says.
pub(crate) const DEFAULT_LIMIT: usize = 100;

/// By what VMs are sorted; the name and then the agent decide where that is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Sort {
    /// By name.
    #[default]
    #[serde(rename = "n")]
    Name,
    /// By agent.
    #[serde(rename = "a")]
    Agent,
    /// By state.
    #[serde(rename = "s")]
    State,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Direction {
    /// The least first.
    #[default]
    #[serde(rename = "u")]
    Up,
    /// The greatest first.
    #[serde(rename = "d")]
    Down,
}

/// Which VMs, in which order, from where.
#[derive(Debug, Clone, Default)]
pub(crate) struct VmQuery {
    /// Words that all must be found, in lower case.
    pub(crate) words: Vec<String>,
    /// Agents by id, or by its beginning with a star; empty means all.
    pub(crate) agents: Vec<AgentPattern>,
    /// States; empty means all.
    pub(crate) states: Vec<VmState>,
    /// Labels that must be there, with this value if one is given.
    pub(crate) labels: Vec<(String, Option<String>)>,
    /// By what it is sorted.
    pub(crate) sort: Sort,
    /// Which way.
    pub(crate) direction: Direction,
    /// Most items of the page.
    pub(crate) limit: usize,
    /// After which VM the page begins.
    pub(crate) after: Option<Cursor>,
}

/// One agent, or all whose id begins so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AgentPattern {
    /// This one.
    Exactly(AgentId),
    /// All that begin so.
    Beginning(String),
}

impl AgentPattern {
    /// Reads `lab-1` or `lab-*`; `None` when it can be no agent's id.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('*') {
            Some(beginning) => Some(Self::Beginning(beginning.to_owned())),
            None => AgentId::parse(text).ok().map(Self::Exactly),
        }
    }

    pub(crate) fn matches(&self, id: &AgentId) -> bool {
        match self {
            Self::Exactly(exactly) => exactly == id,
            Self::Beginning(beginning) => id.as_str().starts_with(beginning.as_str()),
        }
    }
}

/// The last VM of a page, in the order that the page had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    #[serde(rename = "o")]
    sort: Sort,
    #[serde(rename = "d")]
    direction: Direction,
    #[serde(rename = "s")]
    state: VmState,
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
    fn has_filters(&self) -> bool {
        !(self.words.is_empty() && self.agents.is_empty() && self.labels.is_empty())
    }

    /// Everything but the state, which the counts do not look at.
    fn matches_but_state(&self, row: &Row) -> bool {
        (self.agents.is_empty() || self.agents.iter().any(|agent| agent.matches(&row.agent)))
            && self
                .words
                .iter()
                .all(|word| row.searched.contains(word.as_str()))
            && self.labels.iter().all(|(key, value)| {
                row.labels
                    .get(key)
                    .is_some_and(|is| value.as_ref().is_none_or(|wanted| is == wanted))
            })
    }

    fn matches(&self, row: &Row) -> bool {
        (self.states.is_empty() || self.states.contains(&row.vm.state))
            && self.matches_but_state(row)
    }

    fn cursor_after(&self, row: &Row) -> Cursor {
        Cursor {
            sort: self.sort,
            direction: self.direction,
            state: row.vm.state,
            name: row.vm.name.clone(),
            agent: row.agent.clone(),
        }
    }
}

impl State {
    /// One page of VMs, with counts over all pages.
    pub(crate) fn list_vms(&self, query: &VmQuery) -> VmList {
        let limit = query.limit.clamp(1, MAX_LIMIT);
        let mut page: Vec<&Arc<Row>> = self
            .in_order(query)
            .filter(|row| query.matches(row))
            .take(limit + 1)
            .collect();
        let next_cursor = (page.len() > limit)
            .then(|| {
                page.truncate(limit);
                page.last().map(|row| query.cursor_after(row).encode())
            })
            .flatten();
        VmList {
            items: page.into_iter().map(|row| self.listed(row)).collect(),
            next_cursor,
            counts: self.count_vms(query),
        }
    }

    fn count_vms(&self, query: &VmQuery) -> VmCounts {
        let states = if query.has_filters() {
            let mut states = BTreeMap::new();
            for row in self.candidates(query) {
                if query.matches_but_state(row) {
                    *states.entry(row.vm.state).or_default() += 1;
                }
            }
            states
        } else {
            self.counts.clone()
        };
        let total = states
            .iter()
            .filter(|(state, _)| query.states.is_empty() || query.states.contains(state))
            .map(|(_, count)| count)
            .sum();
        VmCounts { total, states }
    }

    /// All VMs that can match, in any order.
    fn candidates<'a>(
        &'a self,
        query: &VmQuery,
    ) -> Box<dyn Iterator<Item = &'a Arc<Row>> + Send + 'a> {
        match query.agents.as_slice() {
            [AgentPattern::Exactly(agent)] => {
                let agent = agent.clone();
                Box::new(
                    self.by_agent
                        .range((agent.clone(), first_name())..)
                        .take_while(move |((id, _), _)| *id == agent)
                        .map(|(_, row)| row),
                )
            }
            _ => Box::new(self.by_agent.values()),
        }
    }

    /// VMs in the order asked for, from after the cursor on, perhaps with some that do not match.
    fn in_order<'a>(
        &'a self,
        query: &VmQuery,
    ) -> Box<dyn Iterator<Item = &'a Arc<Row>> + Send + 'a> {
        let direction = query.direction;
        let after = query.after.as_ref();
        match (query.sort, query.agents.as_slice(), query.states.as_slice()) {
            (Sort::Agent | Sort::Name, [AgentPattern::Exactly(agent)], _) => {
                let first = (agent.clone(), first_name());
                let end = agent.clone();
                let after = after.map(|cursor| (agent.clone(), cursor.name.clone()));
                let (from, to) = page(Bound::Included(first), Bound::Unbounded, after, direction);
                // The end of one agent's VMs is the beginning of the next one's.
                let to = match to {
                    Bound::Unbounded => self
                        .agents
                        .range((Bound::Excluded(end), Bound::Unbounded))
                        .next()
                        .map_or(Bound::Unbounded, |(next, _)| {
                            Bound::Excluded((next.clone(), first_name()))
                        }),
                    to => to,
                };
                directed(self.by_agent.range((from, to)), direction)
            }
            (Sort::Name, _, [state]) => {
                let after = after.map(|cursor| (*state, cursor.key()));
                let bounds = page(
                    Bound::Included((*state, first_key())),
                    next_state(*state),
                    after,
                    direction,
                );
                directed(self.by_state.range(bounds), direction)
            }
            (Sort::Name, ..) => {
                let after = after.map(Cursor::key);
                let bounds = page(Bound::Unbounded, Bound::Unbounded, after, direction);
                directed(self.by_name.range(bounds), direction)
            }
            (Sort::Agent, ..) => {
                let after = after.map(|cursor| (cursor.agent.clone(), cursor.name.clone()));
                let bounds = page(Bound::Unbounded, Bound::Unbounded, after, direction);
                directed(self.by_agent.range(bounds), direction)
            }
            (Sort::State, ..) => {
                let after = after.map(|cursor| (cursor.state, cursor.key()));
                let bounds = page(Bound::Unbounded, Bound::Unbounded, after, direction);
                directed(self.by_state.range(bounds), direction)
            }
        }
    }
}

/// The part of `from..to` that comes after the cursor.
fn page<K>(
    from: Bound<K>,
    to: Bound<K>,
    after: Option<K>,
    direction: Direction,
) -> (Bound<K>, Bound<K>) {
    match (after, direction) {
        (None, _) => (from, to),
        (Some(after), Direction::Up) => (Bound::Excluded(after), to),
        (Some(after), Direction::Down) => (from, Bound::Excluded(after)),
    }
}

fn directed<'a, K: 'a>(
    rows: impl DoubleEndedIterator<Item = (&'a K, &'a Arc<Row>)> + Send + 'a,
    direction: Direction,
) -> Box<dyn Iterator<Item = &'a Arc<Row>> + Send + 'a> {
    match direction {
        Direction::Up => Box::new(rows.map(|(_, row)| row)),
        Direction::Down => Box::new(rows.rev().map(|(_, row)| row)),
    }
}

fn first_key() -> NameKey {
    NameKey(first_name(), AgentId::parse("0").expect("a usable id"))
}

/// Where the VMs of `state` end in the index by state.
fn next_state(state: VmState) -> Bound<(VmState, NameKey)> {
    VmState::ALL
        .into_iter()
        .find(|next| *next > state)
        .map_or(Bound::Unbounded, |next| {
            Bound::Excluded((next, first_key()))
        })
}

#[cfg(test)]
mod tests {
    use batwa_api::{Timestamp, agent::AgentStatus};
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::{record::AgentRecord, state::tests::vm};

    fn fleet(vms: &[(&str, &str, VmState)]) -> State {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut state = State::default();
        for (agent, name, vm_state) in vms {
            let id = AgentId::parse(agent).unwrap();
            if !state.agents.contains_key(&id) {
                let record = AgentRecord {
                    id: id.clone(),
                    ..AgentRecord::local((*agent).to_owned(), now)
                };
                state.put_record(record, now);
                state.set_standing(&id, AgentStatus::Online, None, now);
            }
            state.put_vm(&id, vm(name, *vm_state));
        }
        state
    }

    fn names(list: &VmList) -> Vec<String> {
        list.items
            .iter()
            .map(|vm| format!("{}/{}", vm.agent_id, vm.vm.name))
            .collect()
    }

    #[test]
    fn filters_and_counts_tell_what_is_there() {
        use VmState::{Running, Stopped};
        let mut state = fleet(&[
            ("lab-1", "web", Running),
            ("lab-2", "web", Stopped),
            ("lab-2", "db", Running),
            ("office", "build", Stopped),
        ]);
        let lab2 = AgentId::parse("lab-2").unwrap();
        let db = VmName::parse("db").unwrap();
        state.put_labels(&lab2, &db, [("tier".to_owned(), "data".to_owned())].into());
        let list = |query: VmQuery| state.list_vms(&VmQuery { limit: 10, ..query });
        let all = list(VmQuery::default());
        assert_eq!(
            names(&all),
            ["office/build", "lab-2/db", "lab-1/web", "lab-2/web"]
        );
        assert_eq!(all.counts.total, 4);
        let stopped = list(VmQuery {
            states: vec![Stopped],
            ..VmQuery::default()
        });
        assert_eq!(names(&stopped), ["office/build", "lab-2/web"]);
        assert_eq!(stopped.counts.total, 2);
        assert_eq!(
            stopped.counts.states[&Running], 2,
            "counts ignore the state filter"
        );
        let lab = list(VmQuery {
            agents: vec![AgentPattern::parse("lab-*").unwrap()],
            sort: Sort::Agent,
            direction: Direction::Down,
            ..VmQuery::default()
        });
        assert_eq!(names(&lab), ["lab-2/web", "lab-2/db", "lab-1/web"]);
        let words = list(VmQuery {
            words: vec!["lab".into(), "we".into()],
            ..VmQuery::default()
        });
        assert_eq!(names(&words), ["lab-1/web", "lab-2/web"]);
        let labelled = |value: Option<&str>| {
            names(&list(VmQuery {
                labels: vec![("tier".into(), value.map(str::to_owned))],
                ..VmQuery::default()
            }))
        };
        assert_eq!(labelled(None), ["lab-2/db"]);
        assert_eq!(labelled(Some("data")), ["lab-2/db"]);
        assert!(labelled(Some("web")).is_empty());
    }

    proptest! {
        #[test]
        fn pages_in_any_order_hold_every_vm_once_and_in_order(
            vms in prop::collection::vec((0..3_usize, 0..8_usize, 0..4_usize), 0..20),
            limit in 1..5_usize,
            sort in prop_oneof![Just(Sort::Name), Just(Sort::Agent), Just(Sort::State)],
            direction in prop_oneof![Just(Direction::Up), Just(Direction::Down)],
            state_filter in prop::option::of(0..4_usize),
            agent_filter in prop::option::of(0..3_usize),
        ) {
            let agents = ["a", "b", "ab"];
            let all: Vec<_> = vms
                .into_iter()
                .map(|(a, n, s)| (agents[a], format!("vm{n}"), VmState::ALL[s]))
                .collect();
            let given: Vec<_> = all.iter().map(|(a, n, s)| (*a, n.as_str(), *s)).collect();
            let state = fleet(&given);
            let mut query = VmQuery {
                sort,
                direction,
                limit,
                states: state_filter.map(|s| VmState::ALL[s]).into_iter().collect(),
                agents: agent_filter
                    .map(|a| AgentPattern::parse(agents[a]).unwrap())
                    .into_iter()
                    .collect(),
                ..VmQuery::default()
            };
            let mut seen = Vec::new();
            loop {
                let list = state.list_vms(&query);
                prop_assert!(list.items.len() <= limit);
                let expected: u64 = state.by_agent.values().filter(|row| query.matches(row)).count() as u64;
                prop_assert_eq!(list.counts.total, expected);
                seen.extend(list.items);
                match list.next_cursor {
                    Some(cursor) => query.after = Cursor::decode(&cursor),
                    None => break,
                }
                prop_assert!(seen.len() < 100);
            }
            let key = |vm: &batwa_api::vm::ListedVm| {
                let (name, agent) = (vm.vm.name.to_string(), vm.agent_id.to_string());
                match sort {
                    Sort::Name => (String::new(), name, agent),
                    Sort::Agent => (String::new(), agent, name),
                    Sort::State => (format!("{:02}", vm.vm.state as u8), name, agent),
                }
            };
            let got: Vec<_> = seen.iter().map(key).collect();
            let mut sorted = got.clone();
            sorted.sort();
            sorted.dedup();
            if direction == Direction::Down {
                sorted.reverse();
            }
            prop_assert_eq!(&got, &sorted);
            let matching = state.by_agent.values().filter(|row| query.matches(row)).count();
            prop_assert_eq!(got.len(), matching);
        }
    }

    #[test]
    fn cursors_that_nobody_made_are_refused() {
        for bad in ["", "x", "e30", "AAAA", &"a".repeat(10_000)] {
            assert_eq!(Cursor::decode(bad), None);
        }
    }
}
