//! What list parameters have in common: searches, orders, cursors, comma-separated values, limits, durations.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    app::Error,
    fleet::{
        query::{DEFAULT_LIMIT, Direction, MAX_LIMIT},
        search::syntax::SearchError,
    },
};

/// Longest time that a caller may ask to wait for an operation.
const MAX_WAIT: Duration = Duration::from_secs(15 * 60);
/// Longest time that an operation is kept for a machine that is offline.
const MAX_KEEP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A list as JSON that takes about so many bytes. A buffer that grows from nothing is copied over and over: for a page
/// of VMs that was a tenth of the work.
pub(crate) fn json(list: &impl Serialize, expected: usize) -> Response {
    let mut body = Vec::with_capacity(expected);
    serde_json::to_writer(&mut body, list).expect("lists are plain data, and memory takes all");
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// Reads parameters that several lists have.
pub(crate) struct ListParams;

impl ListParams {
    /// The page's size.
    pub(crate) fn limit(limit: Option<usize>) -> Result<usize, Error> {
        match limit {
            None => Ok(DEFAULT_LIMIT),
            Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
            Some(_) => Err(Error::invalid(
                "limit",
                format!("a page has 1 to {MAX_LIMIT} items"),
            )),
        }
    }
}

/// The values of a comma-separated list.
pub(crate) fn split(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

/// An order by its name, with `-` in front for the other way round.
pub(crate) fn sort<T: Copy + Default>(
    text: Option<&str>,
    known: &[(&'static str, T)],
) -> Result<(T, Direction), Error> {
    let Some(text) = text else {
        return Ok((T::default(), Direction::Up));
    };
    let (name, direction) = match text.strip_prefix('-') {
        Some(name) => (name, Direction::Down),
        None => (text, Direction::Up),
    };
    match known.iter().find(|(known, _)| *known == name) {
        Some((_, sort)) => Ok((*sort, direction)),
        None => {
            let names: Vec<_> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
            Err(Error::invalid(
                "sort",
                format!(
                    "sort by one of {}, with `-` in front for the other way round",
                    names.join(", ")
                ),
            ))
        }
    }
}

/// A page that begins where another ended.
pub(crate) fn cursor<C>(
    text: Option<&str>,
    decode: impl FnOnce(&str) -> Option<C>,
    fits: impl FnOnce(&C) -> bool,
) -> Result<Option<C>, Error> {
    text.map(|text| {
        decode(text).filter(fits).ok_or_else(|| {
            Error::invalid("cursor", "give the `next_cursor` of a page in this order")
        })
    })
    .transpose()
}

/// What is wrong with a search, where.
pub(crate) fn bad_search(error: &SearchError) -> Error {
    Error::invalid("q", error.to_string())
}

/// The values of a comma-separated list, each one of v1's own words.
pub(crate) fn words_of<T: DeserializeOwned>(
    field: &'static str,
    list: Option<&str>,
) -> Result<Vec<T>, Error> {
    split(list)
        .map(|word| {
            serde_json::from_value(serde_json::Value::String(word.to_owned()))
                .map_err(|error| Error::invalid(field, error.to_string()))
        })
        .collect()
}

/// How long to wait for an operation's end.
pub(crate) fn wait(text: Option<&str>) -> Result<Option<Duration>, Error> {
    let Some(text) = text else {
        return Ok(None);
    };
    duration(text)
        .map(|wait| Some(wait.min(MAX_WAIT)))
        .ok_or_else(|| Error::invalid("wait", "write how long to wait as `30s`, `2m` or `500ms`"))
}

/// How long an operation is kept for a machine that is offline.
pub(crate) fn keep_for(text: Option<&str>) -> Result<Option<Duration>, Error> {
    let Some(text) = text else {
        return Ok(None);
    };
    duration(text)
        .filter(|keep| !keep.is_zero())
        .map(|keep| Some(keep.min(MAX_KEEP)))
        .ok_or_else(|| {
            Error::invalid(
                "when_online",
                "write how long to keep it as `30m`, `12h` or `3d`",
            )
        })
}

/// A whole number with its unit; seconds where there is none.
fn duration(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number = number.parse::<u64>().ok()?;
    let seconds = |unit: u64| Some(Duration::from_secs(number.checked_mul(unit)?));
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(60 * 60),
        "d" => seconds(24 * 60 * 60),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::vm::VmState;

    use super::*;

    #[test]
    fn waits_are_read_and_bounded() {
        let read = |text| wait(Some(text)).unwrap().unwrap();
        assert_eq!(read("30s"), Duration::from_secs(30));
        assert_eq!(read("30"), Duration::from_secs(30));
        assert_eq!(read("2m"), Duration::from_secs(120));
        assert_eq!(read("500ms"), Duration::from_millis(500));
        assert_eq!(read("99999m"), MAX_WAIT);
        for bad in ["", "s", "1w", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(wait(Some(bad)).is_err(), "{bad}");
        }
        assert_eq!(wait(None).unwrap(), None);
    }

    #[test]
    fn lists_of_words_know_their_words() {
        let read = |text| words_of::<VmState>("state", Some(text));
        assert_eq!(
            read("running, stopped").unwrap(),
            [VmState::Running, VmState::Stopped]
        );
        assert_eq!(read("").unwrap(), []);
        assert!(
            read("Running")
                .unwrap_err()
                .to_string()
                .starts_with("state: ")
        );
    }
}
