//! A YAML document as a tree whose every node knows where it stands in the text.

use batwa_api::cloud_init::Finding;
use granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Span, StructureStyle};

/// Deeper than any cloud-config, and shallow enough for any stack.
const MAX_DEPTH: usize = 64;

/// A node and its place. Two are equal when they say the same, wherever they stand.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The first byte of its text.
    pub(crate) start: usize,
    /// The byte after its text.
    pub(crate) end: usize,
    /// From 1.
    pub(crate) line: usize,
    /// From 0.
    pub(crate) column: usize,
    /// What it is.
    pub(crate) kind: Kind,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// Text, or what is taken for a number or a truth.
    Scalar { value: String, style: ScalarStyle },
    /// A list; whether it is written as `[a, b]`.
    List { items: Vec<Node>, flow: bool },
    /// A mapping; whether it is written as `{a: b}`.
    Map {
        entries: Vec<(Node, Node)>,
        flow: bool,
    },
    /// The same as another node. Not followed: such a document could grow without end.
    Alias,
}

impl Node {
    /// The value of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The entry of a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map { entries, .. } => entries
                .iter()
                .find(|(name, _)| name.text() == Some(key))
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// Every scalar of it, keys included, in the order of the text.
    pub(crate) fn scalars(&self) -> Vec<&Node> {
        match &self.kind {
            Kind::Scalar { .. } => vec![self],
            Kind::List { items, .. } => items.iter().flat_map(Self::scalars).collect(),
            Kind::Map { entries, .. } => entries
                .iter()
                .flat_map(|(key, value)| [key.scalars(), value.scalars()])
                .flatten()
                .collect(),
            Kind::Alias => Vec::new(),
        }
    }
}

/// The one document in `text`; `None` when there is nothing but comments.
///
/// # Errors
/// Where and why it is no YAML, or not one document.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, Finding> {
    let mut options = Options::default();
    options.emit_unresolved_aliases = false;
    let mut events = Events {
        parser: Parser::new_from_str_with_options(text, options),
        length: text.len(),
    };
    let mut root = None;
    while let Some((event, span)) = events.next()? {
        match event {
            Event::DocumentStart(..) if root.is_some() => {
                return Err(at(
                    &span.start,
                    "user-data is one document: leave out the second `---`",
                ));
            }
            Event::DocumentStart(..) => {
                let Some((event, span)) = events.next()? else {
                    return Err(at(&span.start, "the document breaks off"));
                };
                root = Some(events.node(event, span, 0)?);
            }
            _ => {}
        }
    }
    // A file of comments may be an empty document to the parser, and is none to people.
    Ok(root.filter(|node| {
        !matches!(&node.kind, Kind::Scalar { value, style: ScalarStyle::Plain } if value.is_empty() || value == "~")
    }))
}

struct Events<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    length: usize,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Finding> {
        loop {
            match self.parser.next_event() {
                None => return Ok(None),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(Some(event)),
                Some(Err(error)) => return Err(at(error.marker(), &error.kind().to_string())),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Finding> {
        if depth > MAX_DEPTH {
            return Err(at(&span.start, "this is nested too deeply"));
        }
        let mut end = span.end;
        let kind = match event {
            Event::Scalar(value, style, ..) => Kind::Scalar {
                value: value.into_owned(),
                style,
            },
            Event::SequenceStart(style, ..) => {
                let mut items = Vec::new();
                end = loop {
                    match self.next()? {
                        Some((Event::SequenceEnd, span)) => break span.end,
                        Some((event, span)) => items.push(self.node(event, span, depth + 1)?),
                        None => return Err(at(&end, "the list breaks off")),
                    }
                };
                let flow = style == StructureStyle::Flow;
                Kind::List { items, flow }
            }
            Event::MappingStart(style, ..) => {
                let mut entries = Vec::new();
                end = loop {
                    match self.next()? {
                        Some((Event::MappingEnd, span)) => break span.end,
                        Some((event, span)) => {
                            let key = self.node(event, span, depth + 1)?;
                            let Some((event, span)) = self.next()? else {
                                return Err(at(&span.end, "the mapping breaks off"));
                            };
                            entries.push((key, self.node(event, span, depth + 1)?));
                        }
                        None => return Err(at(&end, "the mapping breaks off")),
                    }
                };
                let flow = style == StructureStyle::Flow;
                Kind::Map { entries, flow }
            }
            _ => Kind::Alias,
        };
        let byte = |mark: &Marker| mark.byte_offset().unwrap_or(self.length).min(self.length);
        Ok(Node {
            start: byte(&span.start),
            end: byte(&end),
            line: span.start.line(),
            column: span.start.col(),
            kind,
        })
    }
}

fn at(mark: &Marker, message: &str) -> Finding {
    Finding::error(mark.line(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_its_place() {
        let text = "a: 1\nb:\n  - \"x y\"\n  - 'z'\nc: {d: e}\n";
        let root = parse(text).unwrap().unwrap();
        let pieces: Vec<_> = root
            .scalars()
            .iter()
            .map(|node| (node.line, &text[node.start..node.end]))
            .collect();
        assert_eq!(
            pieces,
            [
                (1, "a"),
                (1, "1"),
                (2, "b"),
                (3, "\"x y\""),
                (4, "'z'"),
                (5, "c"),
                (5, "d"),
                (5, "e")
            ]
        );
        assert_eq!(root.entry("b").unwrap().line, 3);
    }

    #[test]
    fn nothing_but_comments_is_no_document() {
        for text in [
            "",
            "\n",
            "# a\n# b\n",
            "---\n",
            "#cloud-config\n---\n...\n",
            "~",
        ] {
            assert_eq!(parse(text).unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_broken_or_boundless_is_refused_with_its_line() {
        let line = |text: &str| parse(text).unwrap_err().line;
        assert_eq!(line("a: 1\nb: [\n"), Some(2));
        assert_eq!(line("a: 1\n---\nb: 2\n"), Some(2));
        assert_eq!(line(&"[".repeat(1000)), Some(1));
        assert_eq!(line(&format!("{}1", "- ".repeat(100))), Some(1));
        assert!(parse("a: *nobody\n").is_err());
        // A billion laughs is a short tree to us.
        let laughs = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n";
        assert_eq!(parse(laughs).unwrap().unwrap().scalars().len(), 6);
    }
}
