//! Rows for people, and the same rows as CSV for programs.

use batwa_api::{Timestamp, size::ByteSize};

use super::{age, plain};

/// One value in a row: as people read it, and as a program wants it where that is something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    people: String,
    program: Option<String>,
}

impl Cell {
    /// How long ago something was; the time itself for programs.
    pub(crate) fn ago(then: Timestamp, now: Timestamp) -> Self {
        Self {
            people: format!("{} ago", age(then, now)),
            program: Some(then.to_string()),
        }
    }

    /// The same of what may never have been.
    pub(crate) fn maybe_ago(then: Option<Timestamp>, now: Timestamp) -> Self {
        then.map_or_else(Self::nothing, |then| Self::ago(then, now))
    }

    /// When something ends: how long it is until then, or how long ago it was.
    pub(crate) fn ends(at: Timestamp, now: Timestamp) -> Self {
        let people = if at > now {
            format!("in {}", age(now, at))
        } else {
            format!("{} ago", age(at, now))
        };
        Self {
            people,
            program: Some(at.to_string()),
        }
    }

    /// A size; bytes for programs.
    pub(crate) fn size(size: Option<ByteSize>) -> Self {
        size.map_or_else(Self::nothing, |size| Self {
            people: size.to_string(),
            program: Some(size.as_u64().to_string()),
        })
    }

    /// Words for people, and something else for programs.
    pub(crate) fn of(people: impl Into<String>, program: impl Into<String>) -> Self {
        Self {
            people: people.into(),
            program: Some(program.into()),
        }
    }

    /// What is not known.
    pub(crate) fn nothing() -> Self {
        Self::from(String::new())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self {
            people: text,
            program: None,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

/// Rows under headings.
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    /// Whether each row is the name of something and its value: people need no headings for that.
    of_facts: bool,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
            of_facts: false,
        }
    }

    /// What is known of one thing, a line a fact.
    pub(crate) fn of_facts() -> Self {
        Self {
            of_facts: true,
            ..Self::new(&["FIELD", "VALUE"])
        }
    }

    /// Adds a row; empty cells show as a dash.
    pub(crate) fn row<C: Into<Cell>, const N: usize>(&mut self, cells: [C; N]) {
        self.rows.push(cells.map(Into::into).into());
    }

    /// Adds a fact. Without a name it belongs to the one above.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Cell>) {
        self.rows.push(vec![name.into(), value.into()]);
    }

    /// Adds a fact, unless nothing is known of it.
    pub(crate) fn maybe(&mut self, name: &str, value: Option<impl Into<Cell>>) {
        if let Some(value) = value {
            self.fact(name, value);
        }
    }

    /// The table as text for people, each column as wide as its widest cell.
    pub(crate) fn render(&self) -> String {
        let headings = (!self.of_facts).then(|| {
            self.headings
                .iter()
                .map(|text| (*text).to_owned())
                .collect()
        });
        let shown = self.rows.iter().map(|row| {
            row.iter()
                .map(|cell| match cell.people.as_str() {
                    "" if self.of_facts => String::new(),
                    "" => "–".to_owned(),
                    text => plain(text),
                })
                .collect()
        });
        let rows: Vec<Vec<String>> = headings.into_iter().chain(shown).collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// The table as CSV by RFC 4180, but for line ends, which are this system's: headings in lower case first, times
    /// and sizes exact, nothing for what is not known.
    pub(crate) fn csv(&self) -> String {
        let headings = self
            .headings
            .iter()
            .map(|text| text.to_lowercase().replace(' ', "_"))
            .collect::<Vec<_>>()
            .join(",");
        let mut text = headings + "\n";
        for row in &self.rows {
            let cells: Vec<_> = row
                .iter()
                .map(|cell| quoted(&plain(cell.program.as_ref().unwrap_or(&cell.people))))
                .collect();
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        text
    }
}

/// A CSV field. A reader that trims spaces must not change a value, so those are quoted too.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', ' ']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_table_is_aligned_and_shows_dashes_for_nothing() {
        let mut table = Table::new(&["NAME", "STATE", "IPV4"]);
        table.row(["web-1", "running", "10.0.0.1"]);
        table.row(["a", "stopped", ""]);
        insta::assert_snapshot!(table.render(), @"
        NAME   STATE    IPV4
        web-1  running  10.0.0.1
        a      stopped  –
        ");
    }

    #[test]
    fn facts_need_no_headings() {
        let mut table = Table::of_facts();
        table.fact("Name", "web");
        table.fact("Seen", Cell::ago(at(0), at(5)));
        table.fact("", "more");
        table.maybe("IPv4", None::<String>);
        insta::assert_snapshot!(table.render(), @"
        Name  web
        Seen  5s ago
              more
        ");
        insta::assert_snapshot!(table.csv(), @r#"
        field,value
        Name,web
        Seen,1970-01-01T00:00:00Z
        ,more
        "#);
    }

    #[test]
    fn csv_is_exact_and_quoted() {
        let mut table = Table::new(&["VM", "MEMORY", "LAST SEEN", "NOTE"]);
        table.row([
            Cell::from("local/web"),
            Cell::size(Some(ByteSize::mib(1))),
            Cell::ago(at(0), at(300)),
            Cell::from("a \"b\", c\nd"),
        ]);
        table.row(["x", "", "", ""]);
        assert_eq!(
            table.csv(),
            "vm,memory,last_seen,note\nlocal/web,1048576,1970-01-01T00:00:00Z,\"a \"\"b\"\", c\u{fffd}d\"\nx,,,\n"
        );
    }

    #[test]
    fn hostile_texts_cannot_steer_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["\x1b]0;owned\x07\r\nx"]);
        for text in [table.render(), table.csv()] {
            assert!(!text.contains(['\x1b', '\x07', '\r']), "{text:?}");
            assert_eq!(text.lines().count(), 2);
        }
    }
}
