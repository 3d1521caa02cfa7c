//! The form of a search: words, quoted words, fields with values. Knows no field's meaning.
//!
//! ```text
//! search = term (white space term)*
//! term   = "-"? ( field op value ("," value)*  |  value )
//! op     = ":" "=" ">" ">=" "<" "<="
//! value  = (characters | '"' characters, \" and \\ '"')+        * outside quotation marks stands for any text
//! ```

use std::fmt::{self, Write as _};

/// Longest search, in characters.
const MAX_CHARS: usize = 1000;
/// Most terms: each is looked for among all rows.
const MAX_TERMS: usize = 32;
/// Most values of one term.
const MAX_VALUES: usize = 64;

/// Why a text is no search.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {message}")]
pub(crate) struct SearchError {
    /// Where, in characters from 1 on.
    pub(crate) at: usize,
    message: String,
}

impl SearchError {
    /// What is wrong at character `at`, and what would be right.
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

/// What stands between a field and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// `:`
    Has,
    /// `=`
    Equals,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
}

impl Op {
    fn as_str(self) -> &'static str {
        match self {
            Self::Has => ":",
            Self::Equals => "=",
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
        }
    }
}

/// One value, its quotation marks taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    /// The text.
    pub(crate) text: String,
    /// Where in `text`, in bytes, a star stands for any text.
    pub(crate) stars: Vec<usize>,
    /// Where it began, in characters from 1 on.
    pub(crate) at: usize,
}

/// One term as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawTerm {
    /// Whether `-` stands in front.
    pub(crate) negated: bool,
    /// Where it began, in characters from 1 on.
    pub(crate) at: usize,
    /// What it says.
    pub(crate) said: Said,
}

/// What a term says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// A word, or several in quotation marks.
    Words(Value),
    /// A field and what it must be.
    Field {
        /// The field.
        name: String,
        /// What stands between them.
        op: Op,
        /// The alternatives, at least one.
        values: Vec<Value>,
    },
}

/// Reads a search.
pub(crate) fn parse(text: &str) -> Result<Vec<RawTerm>, SearchError> {
    let mut reader = Reader {
        chars: text.chars().collect(),
        at: 0,
    };
    if reader.chars.len() > MAX_CHARS {
        return Err(SearchError::new(
            MAX_CHARS + 1,
            format!("a search has at most {MAX_CHARS} characters"),
        ));
    }
    let mut terms = Vec::new();
    loop {
        reader.skip_white_space();
        if reader.peek().is_none() {
            return Ok(terms);
        }
        if terms.len() == MAX_TERMS {
            return Err(reader.error(format!("a search has at most {MAX_TERMS} terms")));
        }
        terms.push(reader.term()?);
    }
}

struct Reader {
    chars: Vec<char>,
    /// The next character, from 0 on.
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn skip_white_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn error(&self, message: impl Into<String>) -> SearchError {
        SearchError::new(self.at + 1, message)
    }

    fn term(&mut self) -> Result<RawTerm, SearchError> {
        let at = self.at + 1;
        let negated = self.take('-');
        if negated && self.peek().is_none_or(char::is_whitespace) {
            return Err(SearchError::new(
                at,
                "`-` stands before what must not be found, as in `-state:stopped`",
            ));
        }
        let said = match self.field() {
            Some((name, op)) => {
                let mut values = vec![self.value(Separated::ByCommas)?];
                while self.take(',') {
                    if values.len() == MAX_VALUES {
                        return Err(
                            self.error(format!("a term has at most {MAX_VALUES} alternatives"))
                        );
                    }
                    values.push(self.value(Separated::ByCommas)?);
                }
                Said::Field { name, op, values }
            }
            None => Said::Words(self.value(Separated::BySpace)?),
        };
        Ok(RawTerm { negated, at, said })
    }

    /// A field and its operator, if they come next.
    fn field(&mut self) -> Option<(String, Op)> {
        let rest = &self.chars[self.at..];
        let len = rest
            .iter()
            .position(|c| !c.is_ascii_alphabetic() && *c != '_')?;
        let (op, op_len) = match (rest[len], rest.get(len + 1)) {
            (':', _) => (Op::Has, 1),
            ('=', _) => (Op::Equals, 1),
            ('>', Some('=')) => (Op::AtLeast, 2),
            ('>', _) => (Op::Above, 1),
            ('<', Some('=')) => (Op::AtMost, 2),
            ('<', _) => (Op::Below, 1),
            _ => return None,
        };
        if len == 0 {
            return None;
        }
        let name = rest[..len].iter().collect();
        self.at += len + op_len;
        Some((name, op))
    }

    fn value(&mut self, separated: Separated) -> Result<Value, SearchError> {
        let at = self.at + 1;
        let mut value = Value {
            text: String::new(),
            stars: Vec::new(),
            at,
        };
        let mut quoted = false;
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    quoted = true;
                    self.quoted(&mut value.text)?;
                }
                ',' if separated == Separated::ByCommas => break,
                c if c.is_whitespace() => break,
                c => {
                    if c == '*' {
                        value.stars.push(value.text.len());
                    }
                    value.text.push(c);
                    self.at += 1;
                }
            }
        }
        if value.text.is_empty() {
            let message = if quoted {
                "there is nothing between the quotation marks"
            } else {
                "a value is missing here"
            };
            return Err(SearchError::new(at, message));
        }
        Ok(value)
    }

    fn quoted(&mut self, text: &mut String) -> Result<(), SearchError> {
        let opened = self.at + 1;
        self.at += 1;
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '"' => return Ok(()),
                '\\' if matches!(self.peek(), Some('"' | '\\')) => {
                    text.extend(self.peek());
                    self.at += 1;
                }
                c => text.push(c),
            }
        }
        Err(SearchError::new(
            opened,
            "this quotation mark is not closed",
        ))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Separated {
    ByCommas,
    BySpace,
}

impl fmt::Display for Value {
    /// As it could have been typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut from = 0;
        for star in self.stars.iter().copied().chain([self.text.len()]) {
            let literal = &self.text[from..star];
            let plain = literal
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '/' | '-'));
            if plain && !(from == 0 && literal.starts_with('-')) {
                f.write_str(literal)?;
            } else {
                f.write_char('"')?;
                for c in literal.chars() {
                    if matches!(c, '"' | '\\') {
                        f.write_char('\\')?;
                    }
                    f.write_char(c)?;
                }
                f.write_char('"')?;
            }
            if star < self.text.len() {
                f.write_char('*')?;
            }
            from = star + 1;
        }
        Ok(())
    }
}

impl fmt::Display for RawTerm {
    /// As it could have been typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negated {
            f.write_char('-')?;
        }
        match &self.said {
            Said::Words(value) => value.fmt(f),
            Said::Field { name, op, values } => {
                f.write_str(name)?;
                f.write_str(op.as_str())?;
                for (n, value) in values.iter().enumerate() {
                    if n > 0 {
                        f.write_char(',')?;
                    }
                    value.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        let terms: Vec<String> = parse(text)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        terms.join(" ")
    }

    #[test]
    fn searches_are_read_as_they_are_meant() {
        for (text, expected) in [
            ("", ""),
            ("  web  ", "web"),
            ("state:running,stopped", "state:running,stopped"),
            ("-label:old", "-label:old"),
            ("memory>4G cpus<=2", "memory>4G cpus<=2"),
            (r#""free  words""#, r#""free  words""#),
            (r#"name:"a b""#, r#"name:"a b""#),
            (r#"label:env="a,b""#, r#"label:"env=a,b""#),
            ("agent:lab-*", "agent:lab-*"),
            (r#""*""#, r#""*""#),
            ("lab-1/web", "lab-1/web"),
            ("10.0.0.9", "10.0.0.9"),
            (r#""say \"hi\" \\""#, r#""say \"hi\" \\""#),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        for (text, at, part) in [
            ("web -", 5, "`-` stands before"),
            ("a state:", 9, "missing"),
            ("state:running,", 15, "missing"),
            (r#"web "open"#, 5, "not closed"),
            (r#"x """#, 3, "nothing between"),
            (&"x ".repeat(40), 65, "at most 32 terms"),
            (&"ü".repeat(1001), 1001, "at most 1000 characters"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    fn without_places(terms: Vec<RawTerm>) -> Vec<RawTerm> {
        let placeless = |value: Value| Value { at: 0, ..value };
        terms
            .into_iter()
            .map(|term| RawTerm {
                at: 0,
                said: match term.said {
                    Said::Words(value) => Said::Words(placeless(value)),
                    Said::Field { name, op, values } => Said::Field {
                        name,
                        op,
                        values: values.into_iter().map(placeless).collect(),
                    },
                },
                ..term
            })
            .collect()
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_within_itself(text in any::<String>()) {
            if let Err(error) = parse(&text) {
                prop_assert!((1..=text.chars().count() + 1).contains(&error.at));
            }
        }

        #[test]
        fn a_search_that_is_written_out_again_is_the_same(text in r#"([a-z*:=<>,"\\ -]|ü){0,24}"#) {
            if let Ok(terms) = parse(&text) {
                let written: Vec<String> = terms.iter().map(ToString::to_string).collect();
                let again = parse(&written.join(" "));
                prop_assert_eq!(
                    again.map(without_places),
                    Ok(without_places(terms)),
                    "written as {:?}", written
                );
            }
        }
    }
}
