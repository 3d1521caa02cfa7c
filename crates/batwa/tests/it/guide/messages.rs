//! What guide and `operations.md` quote of our programs is what these say: each quoted message is found among the texts
//! in the sources, with what varies left open on both sides.

use std::{fs, path::Path};

use crate::lab::REPOSITORY;

/// What stands in the quotes for something that varies, besides `…`.
const VARIES: [&str; 5] = [
    "0.0.0.0:8000: Address already in use",
    "http://192.168.1.100:8001",
    "403 Forbidden",
    "REASON",
    " N s",
];
/// Beginnings of what is typed rather than said.
const TYPED: [&str; 14] = [
    "sudo ",
    "batwa ",
    "curl ",
    "systemctl ",
    "multipass ",
    "printf ",
    "usermod ",
    "--",
    "POST ",
    "GET ",
    "WS ",
    "list ",
    "\"",
    "BATWA_",
];
/// The longest that something which varies in a text is taken to be.
const LONGEST: usize = 40;
/// Less than this says nothing.
const SHORTEST: usize = 3;

#[test]
fn what_the_documents_quote_is_what_programs_say() {
    let texts = texts();
    let mut checked = 0;
    for document in ["docs/guide.md", "docs/operations.md"] {
        for quote in quotes(document) {
            let fixed = VARIES
                .iter()
                .fold(quote.clone(), |text, varies| text.replace(varies, "…"));
            // Texts are put together with these, which then stand in none of them.
            let trimmed = |part: &'_ str| part.trim_matches(['(', ')', ':', ';', ' ']).to_owned();
            for part in fixed.split('…').map(trimmed) {
                if part.len() >= SHORTEST {
                    checked += 1;
                    assert!(
                        texts.iter().any(|text| says(text, &part)),
                        "{document} quotes `{quote}`, but no program says `{part}`"
                    );
                }
            }
        }
    }
    assert!(checked > 30, "only {checked} parts of quotes were found");
}

/// The quoted words of a document that are no commands: several words in backticks.
fn quotes(document: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(REPOSITORY).join(document)).expect("a document");
    let mut prose = String::new();
    for (n, part) in text.split("```").enumerate() {
        if n % 2 == 0 {
            prose.push_str(part);
        }
    }
    // Two backticks quote what has one in it.
    let prose = prose.replace("`` ", "\u{1}").replace(" ``", "\u{1}");
    let mut quotes = Vec::new();
    for (n, part) in prose.split('\u{1}').enumerate() {
        if n % 2 == 1 {
            quotes.push(part.to_owned());
        } else {
            quotes.extend(part.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    let quotes = quotes
        .iter()
        .map(|quote| quote.split_whitespace().collect::<Vec<_>>().join(" "));
    quotes
        .filter(|quote| quote.contains(' '))
        .filter(|quote| !TYPED.iter().any(|typed| quote.starts_with(typed)))
        .collect()
}

/// Every text in the sources, each as its fixed parts.
fn texts() -> Vec<Vec<String>> {
    let mut texts = Vec::new();
    let mut folders = vec![Path::new(REPOSITORY).join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let is_source = path.components().any(|part| part.as_os_str() == "src");
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if is_source && path.extension().is_some_and(|ending| ending == "rs") {
                let source = fs::read_to_string(path).expect("a source");
                texts.extend(literals(&source).iter().map(|text| parts(text)));
            }
        }
    }
    texts
}

/// The string literals of a source.
fn literals(source: &str) -> Vec<String> {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let code: Vec<_> = source.lines().filter(is_code).collect();
    let code = code.join("\n").replace("'\"'", "");
    let mut literals = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '"' {
            continue;
        }
        let mut text = String::new();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => match chars.next() {
                    // A literal that goes on in the next line.
                    Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                    Some('n') => text.push('\n'),
                    Some(c) => text.push(c),
                    None => {}
                },
                c => text.push(c),
            }
        }
        literals.push(text);
    }
    literals
}

/// What stands between the places that are filled in.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => {
                depth -= 1;
                parts.push(String::new());
            }
            c if depth == 0 => parts.last_mut().expect("one").push(c),
            _ => {}
        }
    }
    parts
}

/// Whether a text, with something in its open places, has this in it.
fn says(text: &[String], quote: &str) -> bool {
    if text.iter().any(|part| part.contains(quote)) {
        return true;
    }
    (0..text.len().saturating_sub(1)).any(|n| {
        let part = &text[n];
        let ends = part.char_indices().map(|(at, _)| &part[at..]);
        ends.filter(|end| end.len() >= 2 * SHORTEST)
            .filter_map(|end| quote.strip_prefix(end))
            .any(|rest| goes_on(&text[n + 1..], rest))
    })
}

/// Whether the quote goes on with something in an open place, and then with these parts.
fn goes_on(parts: &[String], quote: &str) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        return false;
    };
    let whole = quote;
    let skips = quote.char_indices().map(|(at, _)| at).chain([quote.len()]);
    skips.take(LONGEST).any(|at| {
        let quote = &quote[at..];
        // A quote may end in an open place, with a word or two of what is filled in.
        (quote.is_empty() && whole.split_whitespace().count() <= 2)
            || (!quote.is_empty() && part.starts_with(quote))
            || (!part.is_empty()
                && quote
                    .strip_prefix(part.as_str())
                    .is_some_and(|quote| goes_on(rest, quote)))
    })
}

#[test]
fn a_quote_is_found_across_what_varies_and_a_wrong_one_is_not() {
    let text = parts("its certificate (SHA-256 {hash}) is not trusted by {who}: {}");
    assert!(says(&text, "is not trusted by this system:"));
    assert!(says(&text, ") is not trusted by this system"));
    assert!(says(&text, "(SHA-256 12ab) is not trusted"));
    assert!(!says(&text, "is not believed by this system"));
    assert!(!says(&text, "its certificate (SHA-256 12ab) is trusted"));
}
