//! What people type to find things: `state:running agent:lab-* label:env=prod -label:old memory>4G "free words"`. Pure.
//!
//! [`syntax`] reads the text into terms and knows no fields; [`vms`] and [`agents`] give the terms their meaning. All
//! terms must hold; values separated by commas are alternatives; `-` in front turns a term round. Every error names
//! the place and what would be right there.

pub(crate) mod agents;
pub(crate) mod pattern;
pub(crate) mod syntax;
pub(crate) mod vms;

use batwa_api::size::ByteSize;
use serde::de::DeserializeOwned;

use pattern::{LabelPattern, Pattern};
use syntax::{Op, RawTerm, SearchError, Value};

/// A term, or that it must not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Term<T> {
    /// Whether it must not hold.
    pub(crate) negated: bool,
    /// What must hold, or must not.
    pub(crate) test: T,
}

impl<T> Term<T> {
    /// A term that must hold.
    pub(crate) fn wanted(test: T) -> Self {
        Self {
            negated: false,
            test,
        }
    }
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Comparison {
    op: Op,
    number: u64,
}

impl Comparison {
    /// Whether `number` is as asked.
    pub(crate) fn holds(self, number: u64) -> bool {
        match self.op {
            Op::Has | Op::Equals => number == self.number,
            Op::Above => number > self.number,
            Op::AtLeast => number >= self.number,
            Op::Below => number < self.number,
            Op::AtMost => number <= self.number,
        }
    }
}

/// Reads `text` with the fields that `bind` knows.
fn read<T>(
    text: &str,
    bind: impl Fn(&RawTerm) -> Result<T, SearchError>,
) -> Result<Vec<Term<T>>, SearchError> {
    syntax::parse(text)?
        .iter()
        .map(|raw| {
            Ok(Term {
                negated: raw.negated,
                test: bind(raw)?,
            })
        })
        .collect()
}

fn patterns(op: Op, values: &[Value], field: &str) -> Result<Vec<Pattern>, SearchError> {
    let whole = match op {
        Op::Has => false,
        Op::Equals => true,
        _ => return Err(no_order(field, values)),
    };
    let make = |value: &Value| match whole {
        true => Pattern::whole(value),
        false => Pattern::part(value),
    };
    Ok(values.iter().map(make).collect())
}

/// As [`patterns`], for fields of which the whole is meant anyway.
fn whole_patterns(op: Op, values: &[Value], field: &str) -> Result<Vec<Pattern>, SearchError> {
    match op {
        Op::Has | Op::Equals => Ok(values.iter().map(Pattern::whole).collect()),
        _ => Err(no_order(field, values)),
    }
}

fn labels(op: Op, values: &[Value]) -> Result<Vec<LabelPattern>, SearchError> {
    match op {
        Op::Has | Op::Equals => values.iter().map(LabelPattern::read).collect(),
        _ => Err(no_order("label", values)),
    }
}

/// Words of v1's own: states, kinds of drivers.
fn words<T: DeserializeOwned>(
    op: Op,
    values: &[Value],
    field: &str,
    known: &str,
) -> Result<Vec<T>, SearchError> {
    if !matches!(op, Op::Has | Op::Equals) {
        return Err(no_order(field, values));
    }
    values
        .iter()
        .map(|value| {
            serde_json::from_value(serde_json::Value::String(value.text.to_lowercase())).map_err(
                |_| {
                    SearchError::new(
                        value.at,
                        format!("there is no {field} `{}`; one of {known}", value.text),
                    )
                },
            )
        })
        .collect()
}

fn count(op: Op, values: &[Value], field: &str) -> Result<Comparison, SearchError> {
    comparison(op, values, field, |text| text.parse().ok(), "a number")
}

fn size(op: Op, values: &[Value], field: &str) -> Result<Comparison, SearchError> {
    let read = |text: &str| {
        let size: ByteSize = text.parse().ok()?;
        Some(size.as_u64())
    };
    comparison(op, values, field, read, "a size such as `512M` or `4G`")
}

fn comparison(
    op: Op,
    values: &[Value],
    field: &str,
    read: impl Fn(&str) -> Option<u64>,
    wanted: &str,
) -> Result<Comparison, SearchError> {
    let wrong = |at| {
        SearchError::new(
            at,
            format!("`{field}` is compared with {wanted}, as in `{field}>=2`"),
        )
    };
    match values {
        [value] => read(&value.text)
            .map(|number| Comparison { op, number })
            .ok_or_else(|| wrong(value.at)),
        [_, second, ..] => Err(SearchError::new(
            second.at,
            format!("`{field}` is compared with one value"),
        )),
        [] => Err(wrong(1)),
    }
}

fn no_order(field: &str, values: &[Value]) -> SearchError {
    let at = values.first().map_or(1, |value| value.at);
    SearchError::new(
        at,
        format!("`{field}` cannot be compared by size: write `{field}:`"),
    )
}

fn unknown_field(raw: &RawTerm, name: &str, known: &[&str]) -> SearchError {
    let lower = name.to_lowercase();
    let near = known
        .iter()
        .find(|field| field.starts_with(&lower) || lower.starts_with(**field));
    let hint = match near {
        Some(near) => format!("did you mean `{near}`? "),
        None => String::new(),
    };
    SearchError::new(
        raw.at + usize::from(raw.negated),
        format!(
            "there is no field `{name}`; {hint}the fields are {}; put quotation marks around it to search for the text",
            known.join(", ")
        ),
    )
}
