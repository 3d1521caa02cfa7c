//! Templates: user-data in which `{{name}}` stands for a value that is given later.
//!
//! A value never changes what the document around it says: in quotes it is escaped, bare it is put into quotes, in
//! a block it is indented. Only declared variables are replaced; others, such as cloud-init's own in a document that
//! begins with `## template: jinja`, have dots or other characters that no variable's name has.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use batwa_api::cloud_init::Finding;
use granit_parser::ScalarStyle;

use crate::{
    document::{UserData, read},
    tree::{self, Kind, Node},
};

/// Longest name of a variable.
pub const MAX_NAME: usize = 63;

/// A value for a variable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// The text.
    pub text: &'a str,
    /// Whether it is text whatever it looks like: a password of digits is no number.
    pub is_text: bool,
}

/// Why a template cannot be used as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text itself cannot work.
    #[error("the template is not valid: {}", .0.message)]
    Text(Finding),
    /// A variable's value cannot stand where the template has it.
    #[error("`{name}` {why}")]
    Value {
        /// The variable.
        name: String,
        /// What is wrong with its value there.
        why: &'static str,
    },
}

impl TemplateError {
    fn value(name: &str, why: &'static str) -> Self {
        Self::Value {
            name: name.to_owned(),
            why,
        }
    }
}

/// Whether a variable may be called so: a small letter, then small letters, digits and `_`.
#[must_use]
pub fn name_is_good(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The names that `text` uses, each once.
#[must_use]
pub fn variables(text: &str) -> BTreeSet<&str> {
    placeholders(text)
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

/// What is wrong with a template of these variables, besides what [`check`](crate::check) says of any user-data.
#[must_use]
pub fn check(text: &str, declared: &BTreeSet<&str>) -> Vec<Finding> {
    let text = unix(text);
    if text.starts_with("#!") {
        return vec![Finding::error(
            1,
            "a template is a #cloud-config: put a script into its `runcmd` or `write_files`",
        )];
    }
    let line = |offset: usize| text[..offset].lines().count().max(1);
    let mut findings: Vec<Finding> = placeholders(&text)
        .into_iter()
        .filter(|(name, _)| !declared.contains(name))
        .map(|(name, place)| {
            let line = line(place.end);
            Finding::error(line, format!("`{{{{{name}}}}}` is not among the variables"))
        })
        .collect();
    findings.extend(crate::document::check(&masked(&text, declared)));
    findings
}

/// The user-data that a template makes with these values. What is not among them stays as it is.
///
/// # Errors
/// The text cannot work, or a value cannot stand where it is wanted.
pub fn render(text: &str, values: &BTreeMap<&str, Value<'_>>) -> Result<String, TemplateError> {
    let text = unix(text);
    let names: BTreeSet<&str> = values.keys().copied().collect();
    let masked = masked(&text, &names);
    let (kind, _) = read(&masked).map_err(TemplateError::Text)?;
    if matches!(kind, UserData::Script(_)) {
        return Err(TemplateError::Text(Finding::error(
            1,
            "a template is a #cloud-config",
        )));
    }
    let Some(root) = tree::parse(&masked).map_err(TemplateError::Text)? else {
        return Ok(text);
    };
    let places: Vec<_> = placeholders(&text)
        .into_iter()
        .filter_map(|(name, place)| Some((name, place, *values.get(name)?)))
        .collect();
    let mut rendered = text.clone();
    let scalars = root.scalars();
    let mut changed = vec![false; scalars.len()];
    for (index, scalar) in scalars.iter().enumerate().rev() {
        let inside: Vec<_> = places
            .iter()
            .filter(|(_, place, _)| scalar.start <= place.start && place.end <= scalar.end)
            .collect();
        if inside.is_empty() {
            continue;
        }
        changed[index] = true;
        let Kind::Scalar { style, .. } = scalar.kind else {
            continue;
        };
        if style == ScalarStyle::Plain {
            let new = plain(&text, scalar, &inside)?;
            rendered.replace_range(scalar.start..scalar.end, &new);
        } else {
            for (name, place, value) in inside.into_iter().rev() {
                let new = within(&text, style, place, *value, name)?;
                rendered.replace_range(place.clone(), &new);
            }
        }
    }
    let says_the_same = tree::parse(&rendered)
        .ok()
        .flatten()
        .is_some_and(|new| same_but(&root, &new, &mut changed.iter().copied()));
    match places.first() {
        Some((name, ..)) if !says_the_same => Err(TemplateError::value(
            name,
            "or another value cannot stand in its place: put quotes around it in the template",
        )),
        _ => Ok(rendered),
    }
}

/// A bare scalar with its values: quoted as a whole, unless it is one number or truth and nothing else.
fn plain(
    text: &str,
    scalar: &Node,
    inside: &[&(&str, Range<usize>, Value<'_>)],
) -> Result<String, TemplateError> {
    let raw = &text[scalar.start..scalar.end];
    if let [(_, place, value)] = inside
        && place.len() == raw.len()
        && !value.is_text
        && is_bare(value.text)
    {
        return Ok(value.text.to_owned());
    }
    if let Some((name, ..)) = inside.first().filter(|_| raw.contains('\n')) {
        return Err(TemplateError::value(
            name,
            "stands in words over several lines: put quotes around them in the template",
        ));
    }
    let mut new = raw.to_owned();
    for (_, place, value) in inside.iter().rev() {
        new.replace_range(
            place.start - scalar.start..place.end - scalar.start,
            value.text,
        );
    }
    Ok(format!("\"{}\"", escaped(&new)))
}

/// A value inside quotes or a block.
fn within(
    text: &str,
    style: ScalarStyle,
    place: &Range<usize>,
    value: Value<'_>,
    name: &str,
) -> Result<String, TemplateError> {
    let several = value.text.contains('\n');
    match style {
        ScalarStyle::DoubleQuoted => Ok(escaped(value.text)),
        ScalarStyle::Literal => {
            let line = text[..place.start].rfind('\n').map_or(0, |end| end + 1);
            let margin: String = text[line..].chars().take_while(|c| *c == ' ').collect();
            Ok(value
                .text
                .trim_end_matches('\n')
                .replace('\n', &format!("\n{margin}")))
        }
        _ if several => Err(TemplateError::value(
            name,
            "has several lines, which can stand in a block that begins with `|` or in double quotes",
        )),
        ScalarStyle::SingleQuoted => Ok(value.text.replace('\'', "''")),
        _ => Ok(value.text.to_owned()),
    }
}

/// Whether `new` says what `old` said, but for those scalars that were to change.
fn same_but(old: &Node, new: &Node, changed: &mut impl Iterator<Item = bool>) -> bool {
    match (&old.kind, &new.kind) {
        (Kind::Scalar { value: a, .. }, Kind::Scalar { value: b, .. }) => {
            changed.next().unwrap_or(false) || a == b
        }
        (Kind::List { items: a, .. }, Kind::List { items: b, .. }) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_but(a, b, changed))
        }
        (Kind::Map { entries: a, .. }, Kind::Map { entries: b, .. }) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|((ak, av), (bk, bv))| {
                    same_but(ak, bk, changed) && same_but(av, bv, changed)
                })
        }
        (Kind::Alias, Kind::Alias) => true,
        _ => false,
    }
}

/// What YAML reads as a number or a truth in every version of it.
fn is_bare(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    matches!(text, "true" | "false")
        || text == "0"
        || ((1..=18).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The text as it stands between double quotes.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // Line breaks of other kinds, and what is not to be seen.
            '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn unix(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// The text with words of the same length in place of the variables: YAML would take the braces for mappings.
fn masked(text: &str, names: &BTreeSet<&str>) -> String {
    let mut masked = text.to_owned();
    for (name, place) in placeholders(text) {
        if names.contains(name) {
            let word = "v".repeat(place.len());
            masked.replace_range(place, &word);
        }
    }
    masked
}

/// Every `{{name}}`, perhaps with spaces inside, in the order of the text.
fn placeholders(text: &str) -> Vec<(&str, Range<usize>)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(open) = text[from..].find("{{").map(|at| from + at) {
        let inner = open + 2;
        let Some(close) = text[inner..].find("}}").map(|at| inner + at) else {
            break;
        };
        let name = text[inner..close].trim_matches(' ');
        if name_is_good(name) {
            found.push((name, open..close + 2));
            from = close + 2;
        } else {
            from = open + 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Value<'_> {
        Value {
            text,
            is_text: false,
        }
    }

    fn rendered(text: &str, values: &[(&str, &str)]) -> Result<String, TemplateError> {
        let values = values
            .iter()
            .map(|(name, text)| (*name, value(text)))
            .collect();
        render(text, &values)
    }

    #[test]
    fn values_stand_where_their_names_stood() {
        let text = "\
#cloud-config
hostname: {{name}}
fqdn: {{ name }}.example  # {{name}}
password: \"{{pw}}\"
users:
  - name: '{{name}}'
    uid: {{uid}}
write_files:
  - path: /etc/motd
    content: |
      Hello {{name}},
      {{text}}
      bye
runcmd:
  - [echo, {{name}}]
  - echo {{name}} {{ v1.region }} {{Other}}
";
        let new = rendered(
            text,
            &[
                ("name", "web"),
                ("pw", "a\"b\\c: #"),
                ("uid", "1001"),
                ("text", "one\ntwo"),
            ],
        )
        .unwrap();
        assert_eq!(
            new,
            "\
#cloud-config
hostname: \"web\"
fqdn: \"web.example\"  # {{name}}
password: \"a\\\"b\\\\c: #\"
users:
  - name: 'web'
    uid: 1001
write_files:
  - path: /etc/motd
    content: |
      Hello web,
      one
      two
      bye
runcmd:
  - [echo, \"web\"]
  - \"echo web {{ v1.region }} {{Other}}\"
"
        );
    }

    #[test]
    fn a_secret_is_text_whatever_it_looks_like() {
        let values = [(
            "pw",
            Value {
                text: "12345",
                is_text: true,
            },
        )]
        .into();
        let new = render("#cloud-config\npassword: {{pw}}\n", &values).unwrap();
        assert_eq!(new, "#cloud-config\npassword: \"12345\"\n");
        for (text, bare) in [
            ("true", true),
            ("-7", true),
            ("0", true),
            ("yes", false),
            ("007", false),
            ("1e3", false),
            ("1_000", false),
            ("", false),
            ("-", false),
            ("null", false),
        ] {
            assert_eq!(is_bare(text), bare, "{text}");
        }
    }

    #[test]
    fn what_cannot_stand_there_is_refused_by_name() {
        let refused = |text: &str, value: &str| match rendered(text, &[("x", value)]) {
            Err(TemplateError::Value { name, .. }) => assert_eq!(name, "x"),
            other => panic!("{text}: {other:?}"),
        };
        refused("#cloud-config\na: '{{x}}'\n", "one\ntwo");
        refused("#cloud-config\na: >\n  {{x}}\n", "one\ntwo");
        refused("#cloud-config\na: b\n  {{x}}\n", "c");
        refused("#cloud-config\na: |\n  {{x}}\n  b\n", "    deep");
        assert!(matches!(
            rendered("#cloud-config\na: [\n", &[]),
            Err(TemplateError::Text(_))
        ));
        assert!(matches!(
            rendered("#!/bin/sh\necho {{x}}\n", &[("x", "1")]),
            Err(TemplateError::Text(_))
        ));
    }

    #[test]
    fn a_template_is_checked_before_there_are_values() {
        let declared = BTreeSet::from(["pw", "unused"]);
        assert_eq!(check("#cloud-config\npassword: {{pw}}\n", &declared), []);
        let findings = check("#cloud-config\n\npassword: {{pq}}\n", &declared);
        assert_eq!(findings[0].line, Some(3), "{findings:?}");
        assert!(findings[0].message.contains("{{pq}}"), "{findings:?}");
        assert_eq!(check("#!/bin/sh\n", &declared).len(), 1);
        assert_eq!(check("#cloud-config\na: [{{pw}}\n", &declared).len(), 1);
        assert_eq!(
            variables("{{a}} {{ b }} {{a}} {{{c}}} {{d e}} {{"),
            BTreeSet::from(["a", "b", "c"])
        );
    }

    proptest! {
        #[test]
        fn no_value_changes_what_the_document_says(text in "[ -~äß\\n\\t\u{85}\u{2028}]{0,40}") {
            let template = "\
#cloud-config
plain: {{x}}
partly: a {{x}} b
double: \"<{{x}}>\"
single: '<{{x}}>'
list: [{{x}}, last]
block: |
  first
  <{{x}}>
  last
{{x}}_key: 1
";
            let values = BTreeMap::from([("x", Value { text: &text, is_text: true })]);
            // Some cannot stand in some of the places; then nothing is made of it.
            if let Ok(new) = render(template, &values) {
                let read: serde_json::Value = serde_saphyr::from_str(&new)
                    .unwrap_or_else(|error| panic!("{error}: {new:?}"));
                prop_assert_eq!(&read["plain"], &text);
                prop_assert_eq!(&read["partly"], &format!("a {text} b"));
                prop_assert_eq!(&read["double"], &format!("<{text}>"));
                prop_assert_eq!(&read["single"], &format!("<{text}>"));
                prop_assert_eq!(&read["list"], &serde_json::json!([text, "last"]));
                prop_assert_eq!(&read["block"], &format!("first\n<{text}>\nlast\n"));
                prop_assert_eq!(&read[format!("{text}_key")], 1);
            }
        }
    }
}
