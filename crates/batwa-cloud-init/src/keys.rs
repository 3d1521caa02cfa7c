//! SSH keys put into user-data.

use batwa_api::cloud_init::Finding;

use crate::{
    document::{UserData, read},
    tree::{self, Kind, Node},
};

/// Where cloud-init looks for keys of the first account.
const KEY: &str = "ssh_authorized_keys";

/// The user-data with `keys` among those that may sign in to the first account, before any that it names itself.
/// Everything else stays as it was written. A script cannot hold keys and stays as it is.
///
/// # Errors
/// The user-data cannot work, or its own keys are no list that more can be added to.
pub fn with_ssh_keys(text: &str, keys: &[String]) -> Result<UserData, Finding> {
    let (user_data, root) = read(text)?;
    if keys.is_empty() {
        return Ok(user_data);
    }
    let text = match (user_data, root) {
        (UserData::Script(text), _) => return Ok(UserData::Script(text)),
        (UserData::Empty, _) | (UserData::CloudConfig(_), None) => {
            format!("#cloud-config\n{}", block(keys, 0))
        }
        // The tree is of the text before its first line was added, should that have been missing.
        (UserData::CloudConfig(text), Some(_)) => added(&text, keys)?,
    };
    Ok(UserData::CloudConfig(text))
}

fn added(text: &str, keys: &[String]) -> Result<String, Finding> {
    let Some(root) = tree::parse(text)? else {
        return Ok(format!("#cloud-config\n{}", block(keys, 0)));
    };
    let refuse = || {
        let line = root.entry(KEY).map_or(root.line, |node| node.line);
        Finding::error(
            line,
            format!(
                "your SSH keys cannot be added here: write `{KEY}` as a list, or leave them out"
            ),
        )
    };
    let (offset, insertion) = insertion(text, &root, keys).ok_or_else(refuse)?;
    let (before, after) = text.split_at_checked(offset).ok_or_else(refuse)?;
    let new = format!("{before}{insertion}{after}");
    // Whatever the text looked like: it says what it said, and the keys.
    let expected = expected(&root, keys);
    match tree::parse(&new) {
        Ok(Some(read)) if same(&read, &expected) => Ok(new),
        _ => Err(refuse()),
    }
}

/// Where something is to be put into the text, and what.
fn insertion(text: &str, root: &Node, keys: &[String]) -> Option<(usize, String)> {
    let Kind::Map { entries, flow } = &root.kind else {
        return None;
    };
    match (root.entry(KEY).map(|node| (node, &node.kind)), flow) {
        (Some((list, Kind::List { flow: true, items })), _) => {
            let comma = if items.is_empty() { "" } else { ", " };
            Some((list.start + 1, format!("{}{comma}", inline(keys))))
        }
        (Some((_, Kind::List { flow: false, items })), _) => {
            let first = items.first()?.start;
            let dash = text.get(..first)?.rfind('-')?;
            let line = text.get(..dash)?.rfind('\n').map_or(0, |end| end + 1);
            let margin = " ".repeat(dash - line);
            let items: String = keys
                .iter()
                .map(|key| format!("- {}\n{margin}", quoted(key)))
                .collect();
            Some((dash, items))
        }
        (Some(_), _) => None,
        (None, true) => {
            let comma = if entries.is_empty() { "" } else { ", " };
            Some((root.start + 1, format!("{KEY}: [{}]{comma}", inline(keys))))
        }
        (None, false) => {
            let (first, _) = entries.first()?;
            let margin = " ".repeat(first.column);
            Some((
                first.start,
                format!("{}{margin}", block(keys, first.column)),
            ))
        }
    }
}

/// The entry as a block whose first line stands at `column` already.
fn block(keys: &[String], column: usize) -> String {
    let margin = " ".repeat(column + 2);
    let items: String = keys
        .iter()
        .map(|key| format!("{margin}- {}\n", quoted(key)))
        .collect();
    format!("{KEY}:\n{items}")
}

fn inline(keys: &[String]) -> String {
    keys.iter()
        .map(|key| quoted(key))
        .collect::<Vec<_>>()
        .join(", ")
}

fn quoted(key: &str) -> String {
    format!("\"{}\"", crate::template::escaped(key))
}

/// The tree that the keys make of `root`.
fn expected(root: &Node, keys: &[String]) -> Node {
    let mut root = root.clone();
    let scalar = |text: &str, place: &Node| Node {
        kind: Kind::Scalar {
            value: text.to_owned(),
            style: granit_parser::ScalarStyle::DoubleQuoted,
        },
        ..place.clone()
    };
    let place = root.clone();
    let new: Vec<Node> = keys.iter().map(|key| scalar(key, &place)).collect();
    if let Kind::Map { entries, .. } = &mut root.kind {
        match entries.iter_mut().find(|(key, _)| key.text() == Some(KEY)) {
            Some((_, list)) => {
                if let Kind::List { items, .. } = &mut list.kind {
                    items.splice(0..0, new);
                }
            }
            None => {
                let list = Node {
                    kind: Kind::List {
                        items: new,
                        flow: false,
                    },
                    ..place.clone()
                };
                entries.insert(0, (scalar(KEY, &place), list));
            }
        }
    }
    root
}

/// Whether two trees say the same, in whatever style.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.kind, &other.kind) {
        (Kind::Scalar { value: a, .. }, Kind::Scalar { value: b, .. }) => a == b,
        (Kind::List { items: a, .. }, Kind::List { items: b, .. }) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Kind::Map { entries: a, .. }, Kind::Map { entries: b, .. }) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|((ak, av), (bk, bv))| same(ak, bk) && same(av, bv))
        }
        (Kind::Alias, Kind::Alias) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "ssh-ed25519 AAAAC3Nz ann@\"home\"";

    fn keys() -> Vec<String> {
        vec![ANN.to_owned(), "ssh-rsa AAAAB3Nz #2: b".to_owned()]
    }

    fn value(text: &str) -> serde_json::Value {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn keys_are_added_and_all_else_stays_as_it_was_written() {
        for (text, before) in [
            (
                "#cloud-config\npackages: [vim]\nssh_pwauth: yes # 1.1\n",
                vec![],
            ),
            ("#cloud-config\n# why\n\nruncmd:\n- echo a\n- [b]\n", vec![]),
            ("#cloud-config\n{packages: [vim], a: {}}\n", vec![]),
            ("#cloud-config\n{}\n", vec![]),
            ("packages: [vim]\n", vec![]),
            ("#cloud-config\n  a: 1\n  b: 2\n", vec![]),
            ("#cloud-config\n---\na: 1\n...\n", vec![]),
            (
                "#cloud-config\nssh_authorized_keys:\n  - x\n  - w\nb: 1\n",
                vec!["x", "w"],
            ),
            (
                "#cloud-config\nssh_authorized_keys:\n- x\nb: 1\n",
                vec!["x"],
            ),
            (
                "#cloud-config\nssh_authorized_keys:\n-   'x-y'\n",
                vec!["x-y"],
            ),
            (
                "#cloud-config\na: 1\nssh_authorized_keys: [x, \"w\"]\n",
                vec!["x", "w"],
            ),
            ("#cloud-config\nssh_authorized_keys: []\n", vec![]),
            ("#cloud-config\na: &k [1]\nb: *k\n", vec![]),
        ] {
            let user_data =
                with_ssh_keys(text, &keys()).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            let new = user_data.text();
            assert!(new.starts_with("#cloud-config\n"), "{new}");
            let mut read = value(new);
            let list = read.as_object_mut().unwrap().remove(KEY).unwrap();
            let mut all = keys();
            all.extend(before.iter().map(|key| (*key).to_owned()));
            assert_eq!(list, serde_json::json!(all), "{new}");
            let mut old = value(text);
            old.as_object_mut().unwrap().remove(KEY);
            assert_eq!(read, old, "{new}");
            // Every line of the old text is still there.
            for line in text.lines().filter(|line| !line.contains(['{', '['])) {
                assert!(
                    new.contains(line.trim_start_matches(['-', ' '])),
                    "{line:?} in {new}"
                );
            }
        }
    }

    #[test]
    fn keys_alone_make_a_document() {
        for text in ["", "#cloud-config\n", "#cloud-config\n# nothing\n"] {
            let user_data = with_ssh_keys(text, &keys()).unwrap();
            assert_eq!(value(user_data.text())[KEY][0], ANN);
        }
        assert_eq!(with_ssh_keys("", &[]).unwrap(), UserData::Empty);
    }

    #[test]
    fn a_script_stays_a_script() {
        let script = UserData::Script("#!/bin/sh\ntrue\n".to_owned());
        assert_eq!(with_ssh_keys(script.text(), &keys()).unwrap(), script);
    }

    #[test]
    fn where_keys_cannot_be_added_nothing_is_guessed() {
        for (text, line) in [
            ("#cloud-config\na: 1\nssh_authorized_keys: x\n", 3),
            ("#cloud-config\nk: &k [x]\nssh_authorized_keys: *k\n", 3),
            ("#cloud-config\nssh_authorized_keys:\n  a: b\n", 3),
        ] {
            let finding = with_ssh_keys(text, &keys()).unwrap_err();
            assert_eq!(finding.line, Some(line), "{text}: {finding:?}");
        }
    }
}
