//! One place where data is printed, in whatever form was asked for.

use serde::Serialize;

use super::{Table, print, print_json};
use crate::{
    cli::Format,
    failure::{Exit, Failure},
};

/// Prints what a command found: `value` for programs, as the API says it, or `table` for people and as CSV.
pub(crate) fn show(
    format: Format,
    value: &impl Serialize,
    table: impl FnOnce() -> Result<Table, Failure>,
) -> Result<(), Failure> {
    match format {
        Format::Table => print(&table()?.render()),
        Format::Csv => print(&table()?.csv()),
        Format::Json => print_json(value),
        Format::Yaml => print(&yaml(value)?),
    }
}

fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(value)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot print YAML: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn yaml_reads_back_as_what_the_api_said_and_steers_no_terminal() {
        let value = json!({
            "items": [
                {"name": "web", "state": "yes", "cpus": 2, "ipv4": [], "note": null, "id": "012", "zero": 0.5},
                {"name": "\u{1b}]0;owned\u{7}\r\nx: [", "labels": {"a": "~", "b": "1e3", "c": " x", "d": ""}},
            ],
            "text": "two\nlines\n",
        });
        let text = yaml(&value).unwrap();
        assert!(!text.contains(['\u{1b}', '\u{7}', '\r']), "{text:?}");
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, value, "{text}");
    }
}
