//! What kind of user-data a text is, and what is wrong with it.

use batwa_api::cloud_init::Finding;

use crate::{
    known,
    tree::{self, Kind, Node},
};

/// The first line of a `#cloud-config` document.
const HEADER: &str = "#cloud-config";

/// User-data that can work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserData {
    /// It asks for nothing.
    Empty,
    /// A `#cloud-config` document, its first line included.
    CloudConfig(String),
    /// A script with its `#!` line.
    Script(String),
}

impl UserData {
    /// What cloud-init is to be given.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            // Valid, and asks for nothing.
            Self::Empty => "#cloud-config\n{}\n",
            Self::CloudConfig(text) | Self::Script(text) => text,
        }
    }
}

/// Reads user-data as every driver does before it accepts a VM. A YAML mapping without a first line is taken for
/// `#cloud-config`, as Multipass does.
///
/// # Errors
/// Why no VM is made with it, and in which line.
pub fn parse(text: &str) -> Result<UserData, Finding> {
    read(text).map(|(user_data, _)| user_data)
}

/// Everything that is wrong with user-data: what keeps a VM from being made, or else what cloud-init will not
/// understand, in the order of its lines.
#[must_use]
pub fn check(text: &str) -> Vec<Finding> {
    match read(text) {
        Err(finding) => vec![finding],
        Ok((_, root)) => root.map(|root| known::check(&root)).unwrap_or_default(),
    }
}

pub(crate) fn read(text: &str) -> Result<(UserData, Option<Node>), Finding> {
    if text.trim().is_empty() {
        return Ok((UserData::Empty, None));
    }
    let text = text.replace("\r\n", "\n");
    if text.starts_with("#!") {
        return Ok((UserData::Script(text), None));
    }
    let named = text
        .lines()
        .next()
        .is_some_and(|line| line.trim_end() == HEADER);
    let refuse_unnamed = || {
        Finding::error(
            1,
            "user-data begins with the line `#cloud-config`, or with `#!` as a script",
        )
    };
    let root = match tree::parse(&text) {
        Ok(root) => root,
        Err(finding) if named => return Err(finding),
        Err(_) => return Err(refuse_unnamed()),
    };
    match root {
        None if named => Ok((UserData::CloudConfig(text), None)),
        None => Err(refuse_unnamed()),
        Some(root) => {
            check_mapping(&root).map_err(|finding| match named {
                true => finding,
                false => refuse_unnamed(),
            })?;
            let text = if named {
                text
            } else {
                format!("{HEADER}\n{text}")
            };
            Ok((UserData::CloudConfig(text), Some(root)))
        }
    }
}

/// A cloud-config is a mapping by names, each there once.
fn check_mapping(root: &Node) -> Result<(), Finding> {
    let Kind::Map { entries, .. } = &root.kind else {
        return Err(Finding::error(
            root.line,
            "a #cloud-config is a mapping of keys such as `packages:` to values",
        ));
    };
    let mut seen = std::collections::BTreeMap::new();
    for (key, _) in entries {
        let Some(name) = key.text() else {
            return Err(Finding::error(key.line, "a key is plain text"));
        };
        if let Some(line) = seen.insert(name, key.line) {
            return Err(Finding::error(
                key.line,
                format!("`{name}` is there twice: line {line} has it too"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (Option<u32>, String) {
        let finding = parse(text).unwrap_err();
        assert_eq!(check(text), std::slice::from_ref(&finding), "{text:?}");
        (finding.line, finding.message)
    }

    #[test]
    fn the_three_kinds_are_told_apart() {
        assert_eq!(parse("").unwrap(), UserData::Empty);
        assert_eq!(parse(" \n").unwrap(), UserData::Empty);
        assert_eq!(
            parse("#!/bin/sh\r\ntrue\r\n").unwrap(),
            UserData::Script("#!/bin/sh\ntrue\n".to_owned())
        );
        for text in [
            "#cloud-config\npackages: [vim]\n",
            "#cloud-config\n",
            "#cloud-config\n# nothing yet\n",
            "#cloud-config\n{}\n",
        ] {
            assert_eq!(parse(text).unwrap().text(), text);
            assert_eq!(check(text), []);
        }
        assert_eq!(
            parse("packages: [vim]\n").unwrap().text(),
            "#cloud-config\npackages: [vim]\n"
        );
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_line() {
        assert_eq!(
            refusal("#cloud-config\npackages:\n  - vim\n bad: [\n").0,
            Some(4)
        );
        assert_eq!(refusal("#cloud-config\n\n- a list\n").0, Some(3));
        assert_eq!(refusal("#cloud-config\njust words\n").0, Some(2));
        assert_eq!(refusal("#cloud-config\n[a]: b\n").0, Some(2));
        let (line, message) = refusal("#cloud-config\na: 1\nb: 2\na: 3\n");
        assert_eq!(line, Some(4));
        assert!(message.contains("line 2"), "{message}");
        for text in ["just words", "# a comment\n", "- a\n", "a: ["] {
            assert!(refusal(text).1.contains("#cloud-config"), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_quotes_no_more_of_the_text_than_a_key() {
        for text in [
            "#cloud-config\npassword: \"hunter2\n",
            "#cloud-config\npassword: hunter2: x\n",
            "#cloud-config\n- hunter2\n",
            "#cloud-config\npassword: *hunter2\n",
        ] {
            let (_, message) = refusal(text);
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
