//! What a text must be like: to have a part, to be the whole, or to fit a pattern with stars. Case does not matter,
//! except for ids of agents and for labels.

use batwa_api::{id::AgentId, vm::label_is_good};

use super::syntax::{SearchError, Value};

/// What a text in lower case must be like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pattern {
    /// It has this somewhere.
    Part(String),
    /// It is this.
    Whole(String),
    /// It is these one after another, with any text between.
    Pieces(Vec<String>),
}

impl Pattern {
    /// Somewhere in the text; the whole text where stars are given.
    pub(crate) fn part(value: &Value) -> Self {
        if value.stars.is_empty() {
            Self::Part(value.text.to_lowercase())
        } else {
            Self::whole(value)
        }
    }

    /// The whole text.
    pub(crate) fn whole(value: &Value) -> Self {
        if value.stars.is_empty() {
            return Self::Whole(value.text.to_lowercase());
        }
        let mut pieces = Vec::new();
        let mut from = 0;
        for star in value.stars.iter().copied().chain([value.text.len()]) {
            pieces.push(value.text[from..star].to_lowercase());
            from = star + 1;
        }
        Self::Pieces(pieces)
    }

    /// Whether `text`, in lower case, is like this.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Part(part) => text.contains(part.as_str()),
            Self::Whole(whole) => text == whole,
            Self::Pieces(pieces) => fits(pieces, text),
        }
    }

    /// What agent and name must be like when this is meant of `agent/name`; `None` when it has not one slash.
    pub(crate) fn of_agent_and_name(&self) -> Option<(Self, Self)> {
        let (before, piece, after) = match self {
            Self::Part(text) => (vec![String::new()], text, vec![String::new()]),
            Self::Whole(text) => (Vec::new(), text, Vec::new()),
            Self::Pieces(pieces) => {
                let at = pieces.iter().position(|piece| piece.contains('/'))?;
                let (before, after) = (&pieces[..at], &pieces[at + 1..]);
                if after.iter().any(|piece| piece.contains('/')) {
                    return None;
                }
                (before.to_vec(), &pieces[at], after.to_vec())
            }
        };
        let (agent, name) = piece.split_once('/')?;
        if name.contains('/') {
            return None;
        }
        let agent = before.into_iter().chain([agent.to_owned()]).collect();
        let name = [name.to_owned()].into_iter().chain(after).collect();
        Some((Self::Pieces(agent), Self::Pieces(name)))
    }

    /// The longest text that everything which matches has in it.
    pub(crate) fn core(&self) -> &str {
        match self {
            Self::Part(text) | Self::Whole(text) => text,
            Self::Pieces(pieces) => pieces
                .iter()
                .max_by_key(|piece| piece.len())
                .map_or("", String::as_str),
        }
    }
}

/// Whether `text` is the pieces in order with anything between them. Taking each as early as possible is enough.
fn fits(pieces: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = pieces else {
        return pieces.iter().all(|only| only == text);
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else {
        return false;
    };
    for piece in middle {
        let Some(at) = rest.find(piece.as_str()) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last.as_str())
}

/// One agent by its id, or all whose id begins so.
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

    /// Whether it is meant.
    pub(crate) fn matches(&self, id: &AgentId) -> bool {
        match self {
            Self::Exactly(exactly) => exactly == id,
            Self::Beginning(beginning) => id.as_str().starts_with(beginning.as_str()),
        }
    }
}

/// A label: its key, and what its value must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelPattern {
    /// The key, in its own case.
    pub(crate) key: String,
    /// The value; `None` for any.
    pub(crate) value: Option<LabelValue>,
}

/// What a label's value must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LabelValue {
    /// This, in its own case.
    Exactly(String),
    /// Something that fits.
    Like(Pattern),
}

impl LabelPattern {
    /// Reads `key` or `key=value` without stars; `None` when it can be no label.
    pub(crate) fn exactly(text: &str) -> Option<Self> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(LabelValue::Exactly(value.to_owned()))),
            None => (text, None),
        };
        label_is_good(key, "").then(|| Self {
            key: key.to_owned(),
            value,
        })
    }

    /// Reads `key` or `key=value`.
    pub(crate) fn read(value: &Value) -> Result<Self, SearchError> {
        let (key, wanted) = match value.text.find('=') {
            Some(at) => {
                let after = at + 1;
                let wanted = Value {
                    text: value.text[after..].to_owned(),
                    stars: value
                        .stars
                        .iter()
                        .filter_map(|star| star.checked_sub(after))
                        .collect(),
                    at: value.at,
                };
                (&value.text[..at], Some(wanted))
            }
            None => (value.text.as_str(), None),
        };
        if !label_is_good(key, "") {
            return Err(SearchError::new(
                value.at,
                format!("`{key}` can be no label: write `label:key` or `label:key=value`"),
            ));
        }
        Ok(Self {
            key: key.to_owned(),
            value: wanted.map(|wanted| match wanted.stars.is_empty() {
                true => LabelValue::Exactly(wanted.text),
                false => LabelValue::Like(Pattern::whole(&wanted)),
            }),
        })
    }

    /// Whether a label is as asked.
    pub(crate) fn matches_value(&self, value: &str) -> bool {
        match &self.value {
            None => true,
            Some(LabelValue::Exactly(exactly)) => exactly == value,
            Some(LabelValue::Like(pattern)) => pattern.matches(&value.to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Value {
        Value {
            text: text.to_owned(),
            stars: text.match_indices('*').map(|(at, _)| at).collect(),
            at: 1,
        }
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, fits) in [
            ("lab-*", "lab-1", true),
            ("lab-*", "lab-", true),
            ("lab-*", "a-lab-1", false),
            ("*-1", "lab-1", true),
            ("*ab*", "lab-1", true),
            ("l*b*1", "lab-1", true),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("**", "x", true),
            ("LAB*", "lab-1", true),
        ] {
            assert_eq!(
                Pattern::part(&value(pattern)).matches(text),
                fits,
                "{pattern} {text}"
            );
        }
        assert!(Pattern::part(&value("ab")).matches("lab"));
        assert!(!Pattern::whole(&value("ab")).matches("lab"));
    }

    #[test]
    fn a_slash_parts_agent_and_name() {
        let fits = |pattern: &str, agent: &str, name: &str| {
            Pattern::part(&value(pattern))
                .of_agent_and_name()
                .is_some_and(|(a, n)| a.matches(agent) && n.matches(name))
        };
        assert!(fits("-1/we", "lab-1", "web"));
        assert!(!fits("-1/eb", "lab-1", "web"));
        assert!(fits("lab-*/w*b", "lab-1", "web"));
        assert!(!fits("ab-*/w*b", "lab-1", "web"));
        assert!(fits("/web", "lab-1", "web"));
        assert!(!fits("web", "lab-1", "web"));
        assert!(!fits("a/b/c", "a", "b"));
    }

    /// The same by trying everything.
    fn fits_slowly(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|at| fits_slowly(rest, &text[at..])),
            [c, rest @ ..] => text.first() == Some(c) && fits_slowly(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn early_pieces_find_what_trying_everything_finds(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let quick = Pattern::whole(&value(&pattern));
            prop_assert_eq!(quick.matches(&text), fits_slowly(&chars(&pattern), &chars(&text)));
            if quick.matches(&text) {
                prop_assert!(text.contains(quick.core()));
            }
        }
    }
}
