//! An agent's labels and who set each: the join token, the agent itself, or an admin. Pure.
//!
//! Three layers, the later above the earlier. What an admin decides is kept as the difference to the others, so that
//! a label which the agent brings later still shows.

use std::collections::BTreeMap;

use batwa_api::agent::LabelSource;

use super::{record::AgentRecord, row::Labels};

/// A label's value and who set it, by its key.
pub(crate) type Labelled = BTreeMap<String, (String, LabelSource)>;

/// What an admin decided about labels: a value, or that there is none.
pub(crate) type AdminLabels = BTreeMap<String, Option<String>>;

/// An agent's labels; `own` are those from the agent's own settings, as it last said.
pub(crate) fn labelled(record: &AgentRecord, own: Option<&Labels>) -> Labelled {
    let mut labels = given(record, own);
    for (key, value) in &record.admin_labels {
        match value {
            Some(value) => {
                labels.insert(key.clone(), (value.clone(), LabelSource::Admin));
            }
            None => {
                labels.remove(key);
            }
        }
    }
    labels
}

/// What an admin has to decide so that the labels are `wanted`.
pub(crate) fn decide(record: &AgentRecord, own: Option<&Labels>, wanted: &Labels) -> AdminLabels {
    let given = given(record, own);
    let set = wanted
        .iter()
        .filter(|(key, value)| given.get(*key).is_none_or(|(given, _)| given != *value))
        .map(|(key, value)| (key.clone(), Some(value.clone())));
    let removed = given
        .keys()
        .filter(|key| !wanted.contains_key(*key))
        .map(|key| (key.clone(), None));
    set.chain(removed).collect()
}

fn given(record: &AgentRecord, own: Option<&Labels>) -> Labelled {
    let layer = |labels: &Labels, source| -> Vec<_> {
        labels
            .iter()
            .map(|(key, value)| (key.clone(), (value.clone(), source)))
            .collect()
    };
    let mut labels: Labelled = layer(&record.token_labels, LabelSource::Token)
        .into_iter()
        .collect();
    labels.extend(layer(&record.tags, LabelSource::Agent));
    if let Some(own) = own {
        labels.extend(layer(own, LabelSource::Agent));
    }
    labels
}

#[cfg(test)]
mod tests {
    use batwa_api::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn record(token: Labels, tags: Labels) -> AgentRecord {
        AgentRecord {
            token_labels: token,
            tags,
            ..AgentRecord::local("host".to_owned(), Timestamp::UNIX_EPOCH)
        }
    }

    #[test]
    fn the_label_of_an_admin_stands_above_the_agents_and_that_above_the_tokens() {
        let mut record = record(
            labels(&[("site", "a"), ("rack", "1"), ("team", "x")]),
            labels(&[("site", "b"), ("rack", "2")]),
        );
        record.admin_labels = [
            ("site".to_owned(), Some("c".to_owned())),
            ("team".to_owned(), None),
        ]
        .into();
        let own = labels(&[("gpu", "yes")]);
        let expected: Labelled = [
            ("gpu", "yes", LabelSource::Agent),
            ("rack", "2", LabelSource::Agent),
            ("site", "c", LabelSource::Admin),
        ]
        .into_iter()
        .map(|(key, value, source)| (key.to_owned(), (value.to_owned(), source)))
        .collect();
        assert_eq!(labelled(&record, Some(&own)), expected);
    }

    #[test]
    fn a_label_that_the_agent_brings_later_shows_although_an_admin_has_decided() {
        let mut record = record(Labels::new(), labels(&[("old", "1")]));
        record.admin_labels = decide(&record, None, &labels(&[("mine", "2")]));
        let own = labels(&[("new", "3")]);
        let keys: Vec<_> = labelled(&record, Some(&own)).into_keys().collect();
        assert_eq!(keys, ["mine", "new"]);
    }

    fn some_labels() -> impl Strategy<Value = Labels> {
        prop::collection::btree_map("[a-d]", "[x-z]", 0..4)
    }

    proptest! {
        #[test]
        fn an_admin_gets_exactly_the_labels_asked_for(
            token in some_labels(), tags in some_labels(), own in some_labels(), wanted in some_labels(),
        ) {
            let mut record = record(token, tags);
            record.admin_labels = decide(&record, Some(&own), &wanted);
            let got: Labels = labelled(&record, Some(&own))
                .into_iter()
                .map(|(key, (value, _))| (key, value))
                .collect();
            prop_assert_eq!(got, wanted);
        }
    }
}
